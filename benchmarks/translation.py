"""Translating one picture: the textbook (tests/oracle.py), the package, and the package compiled, in turns.

python benchmarks/translation.py --size 256
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import oracle
from ugatit.systems.ugatit import UGATIT, UGATITConfig
from ugatit.translate import Translator


@dataclass(frozen=True)
class Options:
    size: int = 256
    """Side of the picture in pixels."""
    width: int = 64
    """Channels of the first layer."""
    light: bool = True
    """Light model or full one."""
    repeats: int = 7
    """Measured pictures of each, after two to warm up."""
    compiled: bool = True
    """Also measure `torch.compile`, which needs a C++ compiler."""


def main(options: Options) -> None:
    config = UGATITConfig(size=options.size, width=options.width, light=options.light)
    system = UGATIT(config)
    system.init_weights()
    system.requires_grad_(False)
    translator = Translator(system, "cpu")
    x = torch.rand(1, 3, options.size, options.size) * 2 - 1
    params, setting = dict(system.gen_a2b.state_dict()), oracle.Setting(config.blocks, config.light)
    sides: dict[str, Callable[[], torch.Tensor]] = {
        "textbook": lambda: oracle.generator(params, x, setting)[0],
        "package": lambda: translator.translate(x, "a2b", "model").image,
    }
    if options.compiled:
        fast = torch.compile(system.gen_a2b)
        sides["package, compiled"] = lambda: fast(x).image
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    with torch.inference_mode():
        expected = sides["textbook"]()
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
        table.add_row(name, f"{value:.3f}", f"{median['textbook'] / value:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
