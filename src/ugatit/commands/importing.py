"""Turn a public checkpoint into a model folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field
from tyro.conf import Positional, arg

from ugatit.commands.parsing import parse
from ugatit.io.errors import UserError
from ugatit.io.files import real, writing
from ugatit.io.terminal import say
from ugatit.systems.base import Direction, channels_of
from ugatit.translation.checkpoints import import_checkpoint
from ugatit.translation.folder import save_model, saved_step


@dataclass(frozen=True)
class ImportConfig:
    """Turn a public checkpoint into a model folder."""

    checkpoint: Positional[list[Path]]
    """A *_params_*.pt file of the authors' PyTorch code; the folder of a checkpoint of their TensorFlow code; one or
    two latest_net_G*.pth files of the CycleGAN toolkit, A to B first; gen_*.pt of MUNIT or UNIT, a checkpoint of DRIT,
    *_net_G_float.pth of CartoonGAN; or a zip file with these."""
    out: Annotated[Path, arg(aliases=["-o"])]
    """The model folder to write."""
    size: Annotated[int, Field(ge=32, le=4096, multiple_of=4)] = 256
    """The side in pixels of the pictures that the model was trained on. A full U-GAT-IT's is found in the file."""
    direction: Direction | None = None
    """The direction of a single generator. If it is not given, what its name tells (_A, _B, A2B, B2A), else a2b."""
    smoothing: bool = True
    """A checkpoint of TensorFlow was trained with its option of that name, which is on by default, unless what its
    folder is called tells that it was not (..._sn)."""


def main(arguments: list[str]) -> None:
    options = parse(ImportConfig, "ugatit import", arguments)
    if trained := saved_step(options.out):
        raise UserError(f"{options.out} holds a model that was trained for {trained:,} steps: give another -o.")
    if len(options.checkpoint) > len({real(path) for path in options.checkpoint}):
        raise UserError(f"{options.checkpoint[0]} is given twice: give the generators of both directions.")
    system = import_checkpoint(options.checkpoint, options.size, options.direction, options.smoothing)
    whole = not any(tensor.is_meta for tensor in system.state_dict().values())
    with writing(options.out):
        save_model(system, options.out, step=0, with_training=whole)
    c, (a, b) = system.config, channels_of(system.config)
    kind = type(system).__name__ + (" light" if getattr(c, "light", False) else "")
    ways = " and ".join(system.directions)
    channels = f"{a} channels" if a == b else f"{a} and {b} channels"
    say(f"{options.out}: {kind}, {ways}, width {c.width}, {c.blocks} blocks, {channels}, size {c.size}")
    if not whole or len(system.directions) == 1:
        say("It has no discriminators: it translates, and training from it begins these afresh.")
