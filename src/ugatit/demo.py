"""`ugatit demo`: one set of emoji in two drawing styles, inside the package, learned in minutes on a CPU."""

import json
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from ugatit.data import find_files, read_tests, spread
from ugatit.errors import UserError
from ugatit.evaluate import OfflineFeatures, paired_distances
from ugatit.files import atomic_file
from ugatit.sheet import draw_sheet, overlay
from ugatit.systems.base import Direction
from ugatit.train import console, preset_config, train
from ugatit.translate import Translator

EMOJI = Path(__file__).parent / "emoji"
SIDES: tuple[tuple[Direction, str, str], ...] = (("a2b", "A", "B"), ("b2a", "B", "A"))
ROWS = 8  # of the sheet


def emoji_sheet(translator: Translator, path: Path) -> None:
    """Held-out emoji: source, attention, translation and the true counterpart, both directions."""
    size, channels = translator.side, translator.channels
    columns = {}
    for direction, source, target in SIDES:
        files = spread(find_files(EMOJI / f"test{source}"), ROWS)
        x = read_tests(files, size, channels)
        truth = read_tests([EMOJI / f"test{target}" / file.name for file in files], size, channels)
        made = translator.translate(x, direction, "model")
        columns[f"source {source}"] = x
        if made.heatmap is not None:
            columns[f"attention {source}"] = overlay(x, made.heatmap)
        columns |= {f"{source} to {target}": made.image, f"true {target}": truth}
    draw_sheet(columns, path)


def emoji_distances(
    translator: Translator, features: OfflineFeatures | None
) -> dict[Direction, dict[str, dict[str, float]]]:
    """Distances of the held-out emoji to their true counterparts: direction, then before or after translation."""
    result = {}
    for direction, source, target in SIDES:
        x, truth = (
            read_tests(find_files(EMOJI / f"test{side}"), translator.side, translator.channels)
            for side in (source, target)
        )
        result[direction] = {
            "before": paired_distances(x, truth, features),
            "after": paired_distances(translator(x, direction), truth, features),
        }
    return result


def distance_table(title: str, distances: dict) -> Table:
    """The distances as a table for the terminal."""
    table = Table("direction", "distance", "untranslated", "translated", title=title)
    for direction, values in distances.items():
        for name, before in values["before"].items():
            table.add_row(direction, name, f"{before:.3f}", f"{values['after'][name]:.3f}")
    return table


def show(model: Path, out: Path, features: OfflineFeatures | None) -> None:
    """Write a model's ``sheet.png`` and ``distances.json``, and print the distances."""
    translator = Translator.load(model)
    emoji_sheet(translator, out / "sheet.png")
    distances = emoji_distances(translator, features)
    with atomic_file(out / "distances.json") as temporary:
        temporary.write_text(json.dumps(distances, indent=2) + "\n")
    console.print(distance_table("Distance of held-out emoji to their true counterparts", distances))
    console.print(f"Sheet: {out / 'sheet.png'}", soft_wrap=True)


def demo(out: Path, steps: int | None = None) -> None:
    """Train the ``quick`` preset on the package's emoji and show the result.

    Args:
        out: folder for ``sheet.png``, ``distances.json`` and the run; a run there is continued.
        steps: instead of the preset's.

    Raises:
        UserError: ``out`` cannot be written.
    """
    try:
        features = OfflineFeatures()
    except UserError as error:
        console.print(f"[yellow]{error} Without it only L1 is reported.")
        features = None
    config = replace(preset_config("ugatit", "quick"), data=EMOJI, out=out / "run")
    if steps is not None:
        config = replace(config, recipe=replace(config.recipe, steps=steps))
    model = train(config, resume=(out / "run" / "config.json").exists())
    show(model, out, features)
    console.print(f"Try it: ugatit translate {model} YOUR-PICTURE.png -o translated --attention", soft_wrap=True)
