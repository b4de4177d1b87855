"""Translating one picture, in turns: with the plain formulas, with the fast forms, and by other engines.

python benchmarks/translation.py --size 256

`torch.compile` needs a C++ compiler, the others `pip install onnx onnxscript onnxruntime openvino`; what is not there
is left out, and said so.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.table import Table

from ugatit.nn.switch import fast_forms
from ugatit.systems.ugatit import UGATIT, UGATITConfig
from ugatit.translation.translator import Translator


@dataclass(frozen=True)
class Config:
    size: int = 256
    """Side of the picture in pixels."""
    width: int = 64
    """Channels of the first layer."""
    light: bool = True
    """Light model or full one."""
    repeats: int = 7
    """Measured pictures of each, after two to warm up."""


Translate = Callable[[], torch.Tensor]


class Image(torch.nn.Module):
    """A generator that gives nothing but the picture."""

    def __init__(self, generator: torch.nn.Module):
        super().__init__()
        self.generator = generator

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.generator(x).image


def compiled(image: Image, x: torch.Tensor, onnx: Path) -> Translate:
    fast = torch.compile(image)
    return lambda: fast(x)


def onnx_runtime(image: Image, x: torch.Tensor, onnx: Path) -> Translate:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(exported(image, x, onnx), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


def openvino(image: Image, x: torch.Tensor, onnx: Path) -> Translate:
    import openvino

    model = openvino.compile_model(openvino.convert_model(exported(image, x, onnx)), "CPU")
    return lambda: torch.from_numpy(model(x.numpy())[0])


def exported(image: Image, x: torch.Tensor, onnx: Path) -> Path:
    """The network as an ONNX file, written once."""
    if not onnx.exists():
        torch.onnx.export(image, (x,), onnx, dynamo=True, verbose=False)
    return onnx


ENGINES = {"compiled": compiled, "ONNX Runtime": onnx_runtime, "OpenVINO": openvino}


def main(options: Config) -> None:
    config = UGATITConfig(size=options.size, width=options.width, light=options.light)
    system = UGATIT(config)
    system.init_weights()
    system.requires_grad_(False)
    translator = Translator(system, "cpu")
    x = torch.rand(1, 3, options.size, options.size) * 2 - 1

    def plain() -> torch.Tensor:
        with fast_forms(False):
            return translator.translate(x, "a2b", "model").image

    sides: dict[str, Translate] = {"plain": plain, "fast": lambda: translator.translate(x, "a2b", "model").image}
    image = Image(system.gen_a2b).eval()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        for name, prepare in ENGINES.items():
            try:
                sides[name] = prepare(image, x, Path(folder) / "model.onnx")
                sides[name]()
            except (ImportError, RuntimeError, OSError) as error:
                sides.pop(name, None)
                print(f"{name} is left out: {str(error).splitlines()[0]}")
        measure(sides, options)


def measure(sides: dict[str, Translate], options: Config) -> None:
    """Let all take turns, hold them against the first, and print medians."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    with torch.inference_mode():
        expected = sides["plain"]()
        for turn in range(options.repeats + 2):
            for name, translate in sides.items():
                began = time.perf_counter()
                made = translate()
                if turn >= 2:
                    seconds[name].append(time.perf_counter() - began)
                torch.testing.assert_close(made, expected, rtol=1e-3, atol=1e-4)
    table = Table("what", "median seconds", "times faster")
    median = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in median.items():
        table.add_row(name, f"{value:.3f}", f"{median['plain'] / value:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
