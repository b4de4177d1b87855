"""Checkpoints of a run: atomic, verified when read, and made of safetensors and JSON only.

``RUN/checkpoints/step-00001000/`` holds ``weights.safetensors`` (every network), ``optimizers.safetensors``,
``ema.safetensors`` (if there is one) and ``state.json`` with the step, the random seed, the losses not yet logged and
the SHA-256 of the other files. Shuffling, augmentation, noise and the learning rate are functions of seed and step
(see `ugatit.data.seeds`), so these two are their whole state.
"""

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.optim import Optimizer

from ugatit.io.errors import UserError
from ugatit.io.files import atomic_folder, digest, save_tensors

Tensors = dict[str, Tensor]


class Checkpoint(NamedTuple):
    """What a checkpoint holds."""

    state: dict[str, Any]  # JSON values; "step" among them
    tensors: dict[str, Tensors]  # by file: "weights", "optimizers", perhaps "ema"


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in a folder, oldest first."""
    return sorted(folder.glob("step-" + 8 * "[0-9]"), key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step after which it was saved, as its name says."""
    return int(checkpoint.name.removeprefix("step-"))


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint; it appears under its name only when it is whole.

    Raises:
        OSError: it could not be written; nothing of it is left behind.
    """
    path = folder / f"step-{checkpoint.state['step']:08d}"
    with atomic_folder(path) as temporary:
        hashes = {}
        for name, tensors in checkpoint.tensors.items():
            file = temporary / f"{name}.safetensors"
            save_tensors(tensors, file)
            hashes[name] = digest(file)
        (temporary / "state.json").write_text(json.dumps(checkpoint.state | {"sha256": hashes}), "utf-8")
    return path


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint, onto the CPU.

    Raises:
        ValueError: it is damaged; the message is a phrase that says what is wrong.
    """
    try:
        state = json.loads((path / "state.json").read_text("utf-8"))
        tensors = {}
        for name, expected in state.pop("sha256").items():
            file = path / f"{name}.safetensors"
            if digest(file) != expected:
                raise ValueError(f"{file.name} does not match its checksum")
            tensors[name] = load_file(file)
    except (OSError, KeyError, TypeError, AttributeError, json.JSONDecodeError, SafetensorError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
    return Checkpoint(state, tensors)


def load_newest(folder: Path) -> tuple[Checkpoint | None, dict[Path, str]]:
    """The newest checkpoint that is whole, if there is any yet, and the newer ones that are not, with the reasons.

    Raises:
        UserError: there are checkpoints, and all are broken.
    """
    broken: dict[Path, str] = {}
    reason = ""
    for path in reversed(checkpoints(folder)):
        try:
            return load_checkpoint(path), broken
        except ValueError as error:
            reason = reason or f"{path.name}: {error}"
            broken[path] = str(error)
    if broken:
        raise UserError(
            f"All checkpoints in {folder} are broken ({reason}), the run cannot be resumed: start it again elsewhere."
        )
    return None, {}


def set_aside(path: Path) -> None:
    """Rename a broken checkpoint, which would count as the newest, and good ones be deleted instead of it."""
    with suppress(OSError):
        path.replace(path.with_name(f"broken-{path.name}"))


def prune(folder: Path, keep_last: int, keep_every: int) -> None:
    """Delete old checkpoints, as far as that is possible: a network disk may keep what another program reads.

    Args:
        folder: of the checkpoints.
        keep_last: how many of the newest stay.
        keep_every: those at multiples of this step stay too; 0 for no such.
    """
    for path in checkpoints(folder)[:-keep_last]:
        if not (keep_every and step_of(path) % keep_every == 0):
            shutil.rmtree(path, ignore_errors=True)


def pack_optimizers(optimizers: dict[str, Optimizer]) -> Tensors:
    """State of the optimisers as tensors named ``optimizer/parameter number/key``."""
    return {
        f"{name}/{index}/{key}": torch.as_tensor(value)
        for name, optimizer in optimizers.items()
        for index, values in optimizer.state_dict()["state"].items()
        for key, value in values.items()
    }


def unpack_optimizers(optimizers: dict[str, Optimizer], tensors: Tensors) -> None:
    """Put back what `pack_optimizers` made; learning rates are left alone.

    Raises:
        ValueError: it is of other parameters; the message is a phrase that says so.
    """
    states: dict[str, dict[int, Tensors]] = {name: {} for name in optimizers}
    for path, tensor in tensors.items():
        name, index, key = path.split("/")
        # A copy: the file is mapped, and a deleted checkpoint would keep its room on the disk.
        states[name].setdefault(int(index), {})[key] = tensor.clone()
    for name, optimizer in optimizers.items():
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for number, state in states[name].items():
            wanted = parameters[number].shape if number < len(parameters) else None
            if any(value.dim() and value.shape != wanted for value in state.values()):
                raise ValueError(f"parameter {number} of {name} has another shape")
        optimizer.load_state_dict({"state": states[name], "param_groups": optimizer.state_dict()["param_groups"]})
