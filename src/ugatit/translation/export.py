"""ONNX files of a model, checked against PyTorch, and a translator that runs them.

An exported folder holds ``config.json``, ``a2b.onnx`` and ``b2a.onnx``: one picture, 1 x channels x H x W in [-1, 1],
to its translation and, where the system has one, its attention. Light models and others of any size take every H and W
that are multiples of 4, from 32 up.
"""

import contextlib
import copy
import io
import math
import os
import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from ugatit.io.errors import UserError, package, words_of
from ugatit.io.files import absent, atomic_folder, open_regular
from ugatit.systems.base import Direction, System, Translation, samples_of
from ugatit.translation.folder import configured, own_file, save_config
from ugatit.translation.mobile import OUTPUTS, SUFFIXES, WRITERS, Mobile
from ugatit.translation.translator import Translate, Translator

INPUTS = ("picture", "style")
TOLERANCE = 1e-3  # of a translation in [-1, 1]
LARGEST = 4096  # pixels on a side
REWRITE = "write it with ugatit export MODEL -o DIR"


class OneDirection(nn.Module):
    """A system's translation as a graph: tensors in, tensors out."""

    def __init__(self, system: System, direction: Direction):
        super().__init__()
        self.system, self.direction = copy.copy(system), direction
        # Converters take all tensors along, and those of the other networks may not have been loaded.
        self.system._modules = {name: system.get_submodule(name) for name in system.translators}

    def forward(self, picture: Tensor, style: Tensor | None = None) -> tuple[Tensor, ...]:
        """The translation and, if there is one, the heat map."""
        translate: Callable[..., Translation] = self.system.translate
        made = translate(picture, self.direction, **({} if style is None else {"style": style}))
        return (made.image,) if made.heatmap is None else (made.image, made.heatmap)


def example(system: System, direction: Direction, height: int, width: int) -> tuple[Tensor, ...]:
    """A random picture to translate that way and, for a system with styles, a random style."""
    picture = torch.rand(1, samples_of(system.config, direction[0]).channels, height, width) * 2 - 1
    return (picture, torch.randn(1, system.styles)) if system.styles else (picture,)


def write_onnx(system: System, direction: Direction, path: Path) -> None:
    """Write one direction of a system on the CPU as an ONNX file.

    Raises:
        UserError: onnx is not installed.
    """
    side = system.config.size
    inputs = INPUTS[: 2 if system.styles else 1]
    dynamic: dict[str, Any] = dict.fromkeys(inputs)
    if system.any_size:
        rows, columns = (4 * Dim(name, min=8, max=LARGEST // 4) for name in ("rows", "columns"))
        dynamic["picture"] = {2: rows, 3: columns}
    graph = OneDirection(system, direction).eval()
    for name in ("onnx", "onnxscript"):
        package(name, "export")
    width = side + 8 if system.any_size else side  # unequal to the height, lest they be taken for one
    given = example(system, direction, side, width)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            torch.onnx.export(
                graph,
                given,
                path,
                dynamo=True,
                verbose=False,
                external_data=False,
                input_names=inputs,
                output_names=OUTPUTS,
                dynamic_shapes=dynamic,
            )
    except torch.onnx.OnnxExporterError as error:
        told = (str(error.__cause__ or error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"torch {torch.__version__} cannot write this model as ONNX ({told}): update torch.") from error


def difference(system: System, direction: Direction, path: Path) -> float:
    """The largest difference between ONNX Runtime's and PyTorch's results, over two sizes if the model takes any."""
    session, side, worst = open_session(path, "cpu", REWRITE), system.config.size, 0.0
    for height, width in ((side, side), (side + 32, side + 4))[: 2 if system.any_size else 1]:
        given = example(system, direction, height, width)
        with torch.no_grad():
            expected = OneDirection(system, direction)(*given)
        for found, wanted in zip(run(session, given), expected, strict=True):
            apart = (found - wanted).abs().max().item()
            worst = max(worst, math.inf if math.isnan(apart) else apart)
    return worst


def export(translator: Translator, out: Path, also: tuple[Mobile, ...] = ()) -> dict[str, float | None]:
    """Write every direction of a model, and check it.

    Args:
        translator: of the model, on the CPU.
        out: folder to write; it appears only when all is written and right.
        also: other forms than ONNX, as in `ugatit.translation.mobile`.

    Returns:
        The largest difference of each file from the model; None for what cannot be run here.

    Raises:
        UserError: a package is missing, or a file does not do what the model does.
        OSError: it cannot be written.
    """
    if unknown := set(also) - WRITERS.keys():
        raise UserError(f"`also={min(unknown)}` is not known: use {' or '.join(WRITERS)}.")
    system, side = translator.system, translator.side
    worst: dict[str, float | None] = {}
    with atomic_folder(out) as temporary:
        save_config(system, temporary)
        for direction in system.directions:
            path = temporary / f"{direction}.onnx"
            write_onnx(system, direction, path)
            worst[path.name] = difference(system, direction, path)
            given = example(system, direction, side, side)
            for form in also:
                path = temporary / f"{direction}{SUFFIXES[form]}"
                worst[path.name] = WRITERS[form](OneDirection(system, direction), given, INPUTS[: len(given)], path)
        for name, found in worst.items():
            if found is not None and not found <= TOLERANCE:
                raise UserError(
                    f"The file {name} differs by {found:.2g} from the model: update torch and what wrote the file."
                )
    return worst


def open_session(path: Path, device: str | None, otherwise: str) -> Any:
    """ONNX Runtime with a file.

    Args:
        path: of the file.
        device: "cpu", "cuda", or None for CUDA where there is one.
        otherwise: what to do where that fails, as a phrase.

    Raises:
        UserError: onnxruntime is not installed, the device cannot be used, or the file is missing or damaged.
    """
    onnxruntime = package("onnxruntime", "export")
    known = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
    here = [name for name, provider in known.items() if provider in onnxruntime.get_available_providers()]
    if device is not None and device not in here:
        raise UserError(f"`device={device}` cannot be used by ONNX Runtime: leave it out, or give {' or '.join(here)}.")
    if not path.exists():
        raise UserError(f"{path} does not exist: {otherwise}.")
    try:
        check_graph(path)
    except ValueError as error:
        raise UserError(f"{path} cannot be used ({error}): {otherwise}.") from None
    bound_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what goes wrong is raised too
    options.add_session_config_entry("session.use_env_allocators", "1")
    providers = [known["cpu"]] if device == "cpu" else [known[name] for name in reversed(here)]  # CUDA first
    try:
        # Its folding of constants is done outside the bound on memory; exported files are folded already.
        return onnxruntime.InferenceSession(path, options, providers=providers, disabled_optimizers=["ConstantFolding"])
    except Exception as error:  # its exceptions have no common class
        raise UserError(f"{path} cannot be used ({words_of(error)}): {otherwise}.") from None


@lru_cache
def bound_memory() -> None:
    """Let ONNX Runtime take at most half of the machine's memory on the CPU: a small file can ask for any amount."""
    onnxruntime = package("onnxruntime", "export")
    try:
        most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):  # Windows
        most = 2**33
    kind = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    arena = onnxruntime.OrtArenaCfg({"max_mem": most, "arena_extend_strategy": 1})
    onnxruntime.create_and_register_allocator(kind, arena)


def check_graph(path: Path) -> None:
    """Look at an ONNX file, which may be anybody's, before anything of it is run.

    Raises:
        ValueError: it is damaged, keeps data in other files, or its operators are not ONNX's plain ones; the message is
            a phrase that says which.
    """
    onnx = package("onnx", "export")
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size >= 2**31:
            raise ValueError("it is longer than 2 GiB, which ONNX does not allow")
        try:
            model = onnx.load(file, load_external_data=False)
        except Exception as error:  # protobuf's exceptions have no common class
            raise ValueError(words_of(error)) from None
    attributes = [(node, attribute) for node in model.graph.node for attribute in node.attribute]
    tensors = [*model.graph.initializer, *(a.t for _, a in attributes)]
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):
        raise ValueError("it keeps data in other files")
    plain = {getattr(onnx.AttributeProto, name) for name in ("FLOAT", "FLOATS", "INT", "INTS", "STRING", "TENSOR")}
    odd = [node for node in model.graph.node if node.domain not in ("", "ai.onnx")]
    odd += [node for node, attribute in attributes if attribute.type not in plain]  # which hold graphs, among others
    if odd or model.functions or model.graph.sparse_initializer:
        what = f"an operator {odd[0].op_type}" if odd else "functions or sparse tensors"
        raise ValueError(f"it has {what}, which no network needs")


def run(session: Any, given: tuple[Tensor, ...]) -> list[Tensor]:
    """Outputs of a session for inputs in its order."""
    names = [each.name for each in session.get_inputs()]
    inputs = {name: x.cpu().numpy() for name, x in zip(names, given, strict=True)}
    return [torch.from_numpy(found) for found in session.run(None, inputs)]


class OnnxTranslator(Translator):
    """A `Translator` that runs an exported folder in ONNX Runtime, one picture at a time.

    Args:
        folder: as `export` writes it.
        device: "cpu", "cuda", or None for CUDA where there is one.

    Raises:
        UserError: a file is missing or damaged, the device cannot be used, or onnxruntime is not installed.
    """

    def __init__(self, folder: str | Path, device: str | None = None):
        folder = Path(folder)
        if not folder.is_dir():
            raise UserError(f"The folder {folder} {absent(folder)}.")
        if not any(folder.glob("*.onnx")):
            raise UserError(f"{folder} holds no ONNX files: write them with ugatit export MODEL -o DIR, and give DIR.")
        super().__init__(configured(folder), "cpu")
        self.exported = folder
        self.sessions = {
            name: open_session(own_file(folder, f"{name}.onnx"), device, REWRITE) for name in self.system.directions
        }

    @classmethod
    def load(cls, *given: Any, **options: Any) -> "Translator":
        """Raises UserError: the folder is what this class is made of."""
        raise UserError("An exported model is not loaded: give its folder, as in OnnxTranslator(folder).")

    def save(self, folder: str | Path) -> None:
        """Raises UserError: the weights are within the graphs."""
        raise UserError(f"An exported model has no weights to save: copy {self.exported}, or the model it was made of.")

    def one_way(self, direction: Direction, count: int) -> Translate:
        """What translates ``count`` pictures."""
        if self.reference is not None:
            raise UserError("`style`: an exported model takes no style from a picture: give a number.")
        styles = self.draw_styles(count) if self.system.styles else None

        def translate(x: Tensor) -> Translation:
            pictures = x.split(1)
            inputs = zip(pictures, styles.split(1), strict=True) if styles is not None else zip(pictures, strict=True)
            made = [self.run(direction, given) for given in inputs]
            image, *heatmap = (torch.cat(parts) for parts in zip(*made, strict=True))
            return Translation(image, heatmap[0] if heatmap else None)

        return translate

    def run(self, direction: Direction, given: tuple[Tensor, ...]) -> list[Tensor]:
        """What a file makes of one picture: its translation and perhaps its attention.

        Raises:
            UserError: it does not do what a translator does.
        """
        path = self.exported / f"{direction}.onnx"
        try:
            made = run(self.sessions[direction], given)
        except Exception as error:  # ONNX Runtime's exceptions have no common class
            raise UserError(f"{path} cannot translate a picture ({words_of(error)}): {REWRITE}.") from None
        shapes = [tuple(part.shape) for part in made]
        sides = given[0].shape[2:]
        wanted = 1, self.samples(direction[-1]).channels, *sides
        flat = all(
            p.ndim == 4 and p.shape[:2] == (1, 1) and 0 < p.shape[2] <= sides[0] and 0 < p.shape[3] <= sides[1]
            for p in made[1:]
        )
        if not flat or len(made) > 2 or made[0].shape != wanted or not all(p.isfinite().all() for p in made):
            raise UserError(f"{path} makes {shapes} of a picture of {tuple(given[0].shape)} or no numbers: {REWRITE}.")
        return made
