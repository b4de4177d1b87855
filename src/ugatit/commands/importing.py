"""Turn a checkpoint of the authors' PyTorch code into a model folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from ugatit.io.files import writing
from ugatit.io.terminal import say
from ugatit.translation.folder import save_model
from ugatit.translation.released import import_released


@dataclass(frozen=True)
class ImportConfig:
    """Turn a checkpoint of the authors' PyTorch code (*_params_*.pt) into a model folder."""

    checkpoint: Positional[Path]
    """The checkpoint's file."""
    out: Annotated[Path, arg(aliases=["-o"])]
    """The model folder to write."""
    size: int = 256
    """The side in pixels of the pictures that a light model was trained on. A full model's is found in the file."""


def main(arguments: list[str]) -> None:
    options = tyro.cli(ImportConfig, prog="ugatit import", args=arguments)
    system = import_released(options.checkpoint, options.size)
    with writing(options.out):
        save_model(system, options.out, step=0)
    c = system.config
    kind = "light" if c.light else "full"
    say(f"{options.out}: {kind}, width {c.width}, {c.blocks} blocks, {c.channels} channels, size {c.size}")
