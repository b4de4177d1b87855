"""The model folder: what a user keeps and shares.

``config.json`` (which system, its settings), ``translator.safetensors`` (the networks that translate) and, where known,
``training.safetensors`` (the others: discriminators). A folder is untrusted: nothing but JSON and safetensors is read,
the settings are checked, links that lead out of it are refused, and memory is only taken for tensors that the files
really hold and the settings ask for.
"""

import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from ugatit.io.errors import UserError, first_problem
from ugatit.io.files import atomic_file, open_regular, read_json, real, save_tensors, write_text
from ugatit.systems import REGISTRY
from ugatit.systems.base import System

FORMAT = 1
FLOATS = {"F64", "F32", "F16", "BF16"}  # safetensors' names
CHECKPOINTS = (".pt", ".pth", ".index", ".ckpt", ".tar", ".bin", ".pkl")  # what names of other codes' files end with
HEADER = 2**22  # bytes of a safetensors file's header; the largest model's has a twentieth


def translator_state(system: System) -> dict[str, Tensor]:
    """The part of the system's state dict that translation needs."""
    return {k: v for k, v in system.state_dict().items() if k.split(".")[0] in system.translators}


def config_text(system: System) -> str:
    """What ``config.json`` of a model folder holds; without paths, which only training on this machine needs."""
    name = next(name for name, kind in REGISTRY.items() if type(system) is kind)
    shared = {key: None if isinstance(value, Path) else value for key, value in asdict(system.config).items()}
    return json.dumps({"format": FORMAT, "system": name, "config": shared}, indent=2) + "\n"


def is_model(folder: Path) -> bool:
    """Whether a folder's ``config.json`` is a model's, and no other program's."""
    try:
        return {"format", "system"} <= read_json(folder / "config.json").keys()
    except ValueError:
        return False


def save_config(system: System, folder: Path) -> None:
    """Write ``config.json`` of a model folder, atomically."""
    write_text(folder / "config.json", config_text(system))


def save_model(system: System, folder: Path, step: int, with_training: bool = True) -> None:
    """Write or refresh a model folder; a model that is there stays as it was until all of the new one is written.

    Args:
        system: on any device.
        folder: made if it is missing.
        step: of training, kept in the weights' metadata.
        with_training: also write the networks that only training needs.

    Raises:
        OSError: it could not be written.
        UserError: it is a file, or a run's or another program's folder, whose own config.json would be lost.
    """
    if folder.is_file():
        raise UserError(f"{folder} is a file, where a folder shall be written: give another name.")
    if (folder / "checkpoints").is_dir():
        raise UserError(f"{folder} is the folder of a run, which would be damaged: give another name.")
    if any(folder.glob("*.onnx")):
        raise UserError(f"{folder} is what ugatit export wrote, which would be damaged: give another name.")
    if (folder / "config.json").exists() and not is_model(folder):
        raise UserError(f"{folder} has a config.json of something else, which would be lost: give another name.")
    wanted = translator_state(system)
    parts = {"translator": wanted}
    if with_training:
        parts["training"] = {k: v for k, v in system.learned().items() if k not in wanted}
    others = not with_training and not holds(folder / "translator.safetensors", wanted)
    with ExitStack() as files:  # which take their places at its end, this one last
        config = files.enter_context(atomic_file(folder / "config.json"))
        config.write_text(config_text(system), "utf-8")
        for part, tensors in parts.items():
            temporary = files.enter_context(atomic_file(folder / f"{part}.safetensors"))
            save_tensors(tensors, temporary, {"step": str(step)})
    if others:
        (folder / "training.safetensors").unlink(missing_ok=True)  # of another model


def holds(path: Path, tensors: dict[str, Tensor]) -> bool:
    """Whether a safetensors file has these tensors."""
    try:
        found = load_file(path)
    except (OSError, SafetensorError):
        return False
    return found.keys() == tensors.keys() and all(torch.equal(value, tensors[k].cpu()) for k, value in found.items())


def saved_step(folder: Path) -> int | None:
    """After how many steps a model folder was written; None if there is none that tells."""
    try:
        with safe_open(folder / "translator.safetensors", "pt") as file:
            return int(file.metadata()["step"])
    except (OSError, SafetensorError, LookupError, TypeError, ValueError):
        return None


def configured(folder: Path) -> System:
    """The system that a model folder's config.json describes, on the meta device.

    Raises:
        UserError: there is no such file, or it is not valid.
    """
    path = folder / "config.json"
    if not is_model(folder) and any(file.name.endswith(CHECKPOINTS) for file in folder.glob("*")):
        raise UserError(
            f"{folder} has a checkpoint of another program: ugatit import {folder} -o MODEL makes it a model."
        )
    if not path.exists():
        raise UserError(f"{folder} is not a model folder, it has no config.json: give the folder RUN/model of a run.")
    try:
        settings = read_json(own_file(folder, "config.json"))
    except ValueError as error:
        raise UserError(f"{path} {error}: get the file again.") from None
    if "recipe" in settings:
        raise UserError(f"The run {folder} has not saved a model yet: wait for its first checkpoint, or resume it.")
    try:
        if settings["format"] != FORMAT:
            raise UserError(f"{path} has format {settings['format']}, this version reads {FORMAT}: update ugatit.")
        kind = REGISTRY[settings["system"]]
        config: Any = TypeAdapter(kind.Config).validate_python(settings["config"])
        unknown = settings["config"].keys() - asdict(config).keys()
        if unknown:
            raise ValueError(f"unknown settings: {', '.join(sorted(unknown))}")
        if any(isinstance(value, Path) for value in asdict(config).values()):
            raise ValueError("it names a file, which a shared model never does")
    except ValidationError as error:
        raise UserError(f"{path} is not valid: {first_problem(error)}: get the file again.") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a model's configuration ({error!r}): get the file again.") from None
    return kind.on_meta(config)


def own_file(folder: Path, name: str) -> Path:
    """A file of a model folder, which may be a link only to a file of the same folder or, as the hub's cache lays
    models out, of the same model.

    Raises:
        UserError: it leads elsewhere.
    """
    path, homes = folder / name, [real(folder)]
    if homes[0].parent.name == "snapshots":
        homes.append(homes[0].parents[1] / "blobs")
    if not any(real(path).is_relative_to(home) for home in homes):
        raise UserError(f"{path} is a link that leads out of the model folder: put the file itself there.")
    return path


def load_model(folder: Path, with_training: bool = False) -> System:
    """Read a model folder; the system is on the CPU, in evaluation mode.

    Args:
        folder: as `save_model` writes it.
        with_training: also read the networks that only training needs; otherwise these stay on the meta device.

    Raises:
        UserError: a file is missing, damaged, or does not fit the others.
    """
    if any(folder.glob("*.onnx")):
        raise UserError(
            f"{folder} is what ugatit export wrote: give the model that it was made of; ugatit translate runs it as it "
            'is with `backend="onnx"`, and Python as OnnxTranslator(folder).'
        )
    system = configured(folder)
    parts = {"translator": translator_state(system)}
    if with_training:
        parts["training"] = {k: v for k, v in system.learned().items() if k not in parts["translator"]}
    state: dict[str, Tensor] = {}
    for part, expected in parts.items():
        state |= read_part(own_file(folder, f"{part}.safetensors"), expected, system.remembered)
    system.load_state_dict(state, strict=False, assign=True)
    return system.eval().requires_grad_(False)


def read_part(path: Path, expected: dict[str, Tensor], left: tuple[str, ...]) -> dict[str, Tensor]:
    """Tensors of one safetensors file, in float32, read only if names and shapes are the expected ones; what belongs to
    the submodules that are ``left``, of which models once held the numbers, may be there too.

    Raises:
        UserError: they are not, or the file is missing or damaged.
    """
    if not path.exists():
        raise UserError(f"The model file {path} does not exist: get the whole model folder again.")
    try:
        check_header(path)
        with safe_open(path, "pt") as file:
            names = [name for name in file.keys() if name.split(".")[0] not in left]  # noqa: SIM118
            slices = {name: file.get_slice(name) for name in names}
            check_shapes(path, {name: part.get_shape() for name, part in slices.items()}, expected)
            kinds = {name: part.get_dtype() for name, part in slices.items()}
            odd = {kind for name, kind in kinds.items() if (kind in FLOATS) != expected[name].is_floating_point()}
            if odd:
                raise ValueError(f"it holds numbers of the type {min(odd)}")
            state = {name: file.get_tensor(name).to(part.dtype) for name, part in expected.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"The model file {path} is damaged ({error}): get it again.") from None
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise UserError(f"The model file {path} is damaged ({name} holds what is no number): get it again.")
    return state


def check_header(path: Path) -> None:
    """Raises ValueError if the header of a safetensors file, which is read whole, says that it is too long."""
    with open_regular(path) as file:
        if int.from_bytes(file.read(8), "little") > HEADER:
            raise ValueError("its header is too long")


def check_shapes(path: Path, found: dict[str, list[int]], expected: dict[str, Tensor]) -> None:
    """Refuse weights whose names or shapes are not those of the configured networks."""
    for name in sorted(expected.keys() | found.keys()):
        have, want = found.get(name), list(expected[name].shape) if name in expected else None
        if have != want:
            raise UserError(
                f"The weights in {path} do not fit its config.json: {name} is {have} and should be {want}: "
                "get the whole model folder again."
            )
