"""Seconds and memory of a run's first and second start on a folder of many small pictures.

python benchmarks/start.py [--files 100000] [--side 64]
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image
from rich.console import Console
from rich.table import Table

from ugatit.data.finding import find_pictures


@dataclass(frozen=True)
class Options:
    """Of the measurement."""

    files: int = 100_000
    """The number of pictures of both domains together."""
    side: int = 64
    """Their side in pixels."""
    data: Path | None = None
    """Look through this folder, and print what it took; for the measurement's own use."""


def write_pictures(folder: Path, options: Options) -> None:
    """JPEG files, smooth and all different."""
    noise = np.random.default_rng(0)
    for side in "AB":
        (folder / f"train{side}").mkdir(parents=True)
        for n in range(options.files // 2):
            picture = Image.fromarray(noise.integers(0, 256, (4, 4, 3), np.uint8))
            picture.resize((options.side, options.side), Image.Resampling.BICUBIC).save(
                folder / f"train{side}" / f"{n:06d}.jpg"
            )


def look(data: Path) -> None:
    """Find all pictures, and print seconds and MiB of the process before and at most."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    pictures = find_pictures(data, None, None, 0.1, 0)
    inventory = pictures.inventory()
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(sum(map(len, inventory.values())), seconds, before / 1024, after / 1024)


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    if options.data is not None:
        look(options.data)
        return
    table = Table("start", "pictures", "seconds", "MiB before", "MiB at most")
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder, "data"), options)
        environment = os.environ | {"XDG_CACHE_HOME": str(Path(folder, "cache"))}
        for start in ("first", "second"):
            command = [sys.executable, __file__, "--data", str(Path(folder, "data"))]
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            count, *figures = done.stdout.split()
            table.add_row(start, count, *[f"{float(figure):.1f}" for figure in figures])
        remembered = sum(file.stat().st_size for file in Path(folder, "cache").rglob("*.json"))
    Console().print(table)
    print(f"remembered in {remembered / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
