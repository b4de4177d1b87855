"""The model folder: what a user keeps and shares.

``config.json`` (which system, its settings), ``translator.safetensors`` (the networks that translate) and, where known,
``training.safetensors`` (the others: discriminators). A folder is untrusted: nothing but JSON and safetensors is read,
the settings are checked, and memory is only taken for tensors that the files really hold.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ugatit.errors import UserError
from ugatit.files import atomic_file, save_tensors
from ugatit.systems import REGISTRY
from ugatit.systems.base import System

FORMAT = 1


def translator_state(system: System) -> dict[str, Tensor]:
    """The part of the system's state dict that translation needs."""
    return {k: v for k, v in system.state_dict().items() if k.split(".")[0] in system.translators}


def save_config(system: System, folder: Path) -> None:
    """Write ``config.json`` of a model folder, atomically; without paths, which only training on this machine needs."""
    name = next(name for name, kind in REGISTRY.items() if type(system) is kind)
    shared = {key: None if isinstance(value, Path) else value for key, value in asdict(system.config).items()}
    settings = {"format": FORMAT, "system": name, "config": shared}
    with atomic_file(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(settings, indent=2) + "\n")


def save_model(system: System, folder: Path, step: int, with_training: bool = True) -> None:
    """Write or refresh a model folder, each file atomically.

    Args:
        system: on any device.
        folder: made if it is missing.
        step: of training, kept in the weights' metadata.
        with_training: also write the networks that only training needs.

    Raises:
        OSError: it could not be written.
    """
    save_config(system, folder)
    wanted = translator_state(system)
    parts = {"translator": wanted}
    if with_training:
        parts["training"] = {k: v for k, v in system.state_dict().items() if k not in wanted}
    for part, tensors in parts.items():
        with atomic_file(folder / f"{part}.safetensors") as temporary:
            save_tensors(tensors, temporary, {"step": str(step)})


def configured(folder: Path) -> System:
    """The system that a model folder's config.json describes, on the meta device.

    Raises:
        UserError: there is no such file, or it is not valid.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} is not a model folder, it has no config.json: give the folder RUN/model of a run.")
    try:
        settings = json.loads(path.read_text())
        if settings["format"] != FORMAT:
            raise UserError(f"{path} has format {settings['format']}, this version reads {FORMAT}: update ugatit.")
        kind = REGISTRY[settings["system"]]
        config: Any = TypeAdapter(kind.Config).validate_python(settings["config"])
        unknown = settings["config"].keys() - asdict(config).keys()
        if unknown:
            raise ValueError(f"unknown settings: {', '.join(sorted(unknown))}")
    except ValidationError as error:
        raise UserError(f"{path} is not valid: {first_problem(error)}: get the file again.") from None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a model's configuration ({error!r}): get the file again.") from None
    with torch.device("meta"):
        return kind(config)


def load_model(folder: Path, with_training: bool = False) -> System:
    """Read a model folder; the system is on the CPU, in evaluation mode.

    Args:
        folder: as `save_model` writes it.
        with_training: also read the networks that only training needs; otherwise these stay on the meta device.

    Raises:
        UserError: a file is missing, damaged, or does not fit the others.
    """
    system = configured(folder)
    parts = ("translator", "training") if with_training else ("translator",)
    state: dict[str, Tensor] = {}
    for part in parts:
        state |= read_part(folder / f"{part}.safetensors")
    expected = system.state_dict() if with_training else translator_state(system)
    check_shapes(folder, state, expected)
    system.load_state_dict(state, strict=False, assign=True)
    return system.eval().requires_grad_(False)


def read_part(path: Path) -> dict[str, Tensor]:
    """Tensors of one safetensors file, in float32."""
    if not path.is_file():
        raise UserError(f"The model file {path} does not exist: get the whole model folder again.")
    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"The model file {path} is damaged ({error}): get it again.") from None


def check_shapes(folder: Path, state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Refuse weights whose names or shapes are not those of the configured networks."""
    for name in sorted(expected.keys() | state.keys()):
        found, want = state.get(name), expected.get(name)
        if found is None or want is None or found.shape != want.shape:
            shapes = [None if t is None else tuple(t.shape) for t in (found, want)]
            raise UserError(
                f"The weights in {folder} do not fit its config.json: {name} is {shapes[0]} and should be {shapes[1]}: "
                "get the whole model folder again."
            )


def first_problem(error: ValidationError) -> str:
    """Pydantic's first complaint as a phrase that names the option."""
    problem = error.errors()[0]
    option = ".".join(str(part) for part in problem["loc"])
    return f"{option} = {problem['input']!r}: {problem['msg']}"
