"""A run to time steps of; its pictures are grey."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from ugatit.training.config import preset_config
from ugatit.training.trainer import Trainer

T = TypeVar("T", bound=Trainer)


def grey_run(kind: str, model: dict[str, Any], trainer: type[T] = Trainer, **options: Any) -> T:  # type: ignore[assignment]
    """A trainer of U-GAT-IT, ready to make steps.

    Args:
        kind: light or full.
        model: settings of the model, by name.
        trainer: its class.
        options: other settings of the run, by name.
    """
    start = preset_config("ugatit", kind.replace("full", "paper"))
    place = tempfile.TemporaryDirectory()
    folder = Path(place.name)
    for part in ("trainA", "trainB", "testA", "testB"):
        (folder / part).mkdir()
        Image.new("RGB", (32, 32)).save(folder / part / "grey.png")
    run = replace(start, model=replace(start.model, **model), data=folder, **options)
    made = trainer(run, folder / "run", resume=False)
    made.place = place  # removed with it: of several processes all read the first one's pictures
    made.system.train()
    return made
