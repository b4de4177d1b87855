"""Translate photographs with the package's models, then train one; eight minutes on two cores."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field
from tyro.conf import arg

from ugatit.apps.demo import demo
from ugatit.commands.parsing import parse


@dataclass(frozen=True)
class DemoConfig:
    """Translate photographs with the package's models, then train one on drawn faces and show what comes out."""

    out: Annotated[Path, arg(aliases=["-o"])] = Path("ugatit-demo")
    """The folder for the run and the sheets."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """The number of training steps. If it is not given, that of the preset quick."""


def main(arguments: list[str]) -> None:
    options = parse(DemoConfig, "ugatit demo", arguments)
    demo(options.out, options.steps)
