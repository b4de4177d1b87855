"""Pictures a second that reach the training step: python benchmarks/data.py DATA

With the paper's crop and flip at --size, for each number of worker processes, and with a cache of decoded pictures.
A step takes two pictures for each picture of its batch.
"""

import tempfile
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from ugatit.data.finding import find_pictures
from ugatit.data.kept import Kept
from ugatit.data.sampling import Slices, Unpaired, loader, train_transform
from ugatit.systems.base import COLOUR, Recipe


@dataclass(frozen=True)
class Config:
    data: tyro.conf.Positional[Path]
    """Folder with trainA and trainB inside."""
    size: int = 256
    """Side of the training pictures in pixels."""
    workers: tuple[int, ...] = (0, 1, 2)
    """Numbers of worker processes to try."""
    steps: int = 200
    """Measured batches of one, after as many to warm up and to fill the cache."""


def rate(options: Config, workers: int, cache: int, folder: str) -> float:
    """Pictures a second."""
    pictures = find_pictures(options.data, None, None, 0.1, 0)
    recipe = Recipe()
    dataset = Unpaired(
        pictures.train_a,
        pictures.train_b,
        train_transform(options.size, recipe.flip),
        samples={"a": COLOUR, "b": COLOUR},
        seed=0,
        side=round(options.size * recipe.enlarge),
        kept=Kept(Path(folder), cache) if cache else None,
    )
    batches = iter(loader(dataset, Slices(0, 2 * options.steps, 1), workers=workers, pin=False))
    for _ in islice(batches, options.steps):
        pass
    began = time.perf_counter()
    count = 2 * sum(1 for _ in batches)
    return count / (time.perf_counter() - began)


def main(options: Config) -> None:
    table = Table("workers", "pictures/s", "pictures/s, decoded ones kept")
    for workers in options.workers:
        with tempfile.TemporaryDirectory() as folder:
            table.add_row(str(workers), *[f"{rate(options, workers, cache, folder):.0f}" for cache in (0, 2**30)])
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
