"""Train on the emoji inside the package and show what comes out; about ten minutes on two cores."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import arg

from ugatit.apps.demo import demo


@dataclass(frozen=True)
class DemoConfig:
    """Train on the emoji inside the package and show what comes out."""

    out: Annotated[Path, arg(aliases=["-o"])] = Path("ugatit-demo")
    """Folder for the run and the sheets."""
    steps: int | None = None
    """Fewer or more steps than the quick preset's."""


def main(arguments: list[str]) -> None:
    options = tyro.cli(DemoConfig, prog="ugatit demo", args=arguments)
    demo(options.out, options.steps)
