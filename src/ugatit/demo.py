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
SHIPPED = EMOJI / "model"  # trained by tools/ship_model.py's command
SIDES: tuple[tuple[Direction, str, str], ...] = (("a2b", "A", "B"), ("b2a", "B", "A"))
ROWS = 8  # of the sheet


def emoji_sheet(translators: dict[str, Translator], path: Path) -> None:
    """Held-out emoji: source, attention, each translator's result and the true counterpart, both directions.

    Args:
        translators: by the name that their column gets; the last one's attention is shown.
        path: of the PNG.
    """
    *_, shown = translators.values()
    columns = {}
    for direction, source, target in SIDES:
        files = spread(find_files(EMOJI / f"test{source}"), ROWS)
        x = read_tests(files, shown.side, shown.channels)
        heatmap = shown.translate(x, direction, "model").heatmap
        columns[f"source {source}"] = x
        if heatmap is not None:
            columns[f"attention {source}"] = overlay(x, heatmap)
        columns |= {f"{source} to {target}, {name}": made(x, direction) for name, made in translators.items()}
        truth = read_tests([EMOJI / f"test{target}" / file.name for file in files], shown.side, shown.channels)
        columns[f"true {target}"] = truth
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


def show(translators: dict[str, Translator], out: Path, features: OfflineFeatures | None) -> None:
    """Write a sheet and the last translator's ``distances.json`` to ``out``, and print the distances."""
    emoji_sheet(translators, out / "sheet.png")
    *_, (name, translator) = translators.items()
    distances = emoji_distances(translator, features)
    with atomic_file(out / "distances.json") as temporary:
        temporary.write_text(json.dumps(distances, indent=2) + "\n")
    console.print(distance_table(f"Held-out emoji and their true counterparts, {name}", distances))
    console.print(f"Sheet: {out / 'sheet.png'}", soft_wrap=True)


def demo(out: Path, steps: int | None = None) -> None:
    """Show what the package's own model makes of held-out emoji, then train the ``quick`` preset and show that too.

    Args:
        out: folder for ``shipped/``, ``sheet.png``, ``distances.json`` and the run; a run there is continued.
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
    shipped = {"shipped": Translator.load(SHIPPED)}
    try:
        show(shipped, out / "shipped", features)
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror or error}): give another -o.") from None
    console.print("That model was trained for longer. Now the quick preset on this machine:", soft_wrap=True)
    model = train(config, resume=(out / "run" / "config.json").exists())
    show(shipped | {"now": Translator.load(model)}, out, features)
    console.print(f"Try it: ugatit translate {model} YOUR-PICTURE.png -o translated --attention", soft_wrap=True)
