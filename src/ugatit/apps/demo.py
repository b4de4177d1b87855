"""`ugatit demo`: one set of emoji in two drawing styles, inside the package, learned in minutes on a CPU."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from ugatit.data.finding import find_files, spread
from ugatit.evaluation.evaluate import METRICS, Evaluator, evaluate_model, figure
from ugatit.evaluation.metrics import Files, Protocol, paired
from ugatit.io.files import writing
from ugatit.io.sheet import draw_sheet
from ugatit.io.terminal import console, say
from ugatit.training.config import preset_config
from ugatit.training.trainer import train
from ugatit.translation.columns import sheet_columns
from ugatit.translation.translator import Translator, read_squares

EMOJI = Path(__file__).parents[1] / "emoji"
SHIPPED = EMOJI / "model"  # made by tools/ship_model.py
ROWS = 8  # of the sheet


def emoji_sheet(translators: dict[str, Translator], path: Path) -> None:
    """Held-out emoji: source, attention, each translator's result and the true counterpart, both directions.

    Args:
        translators: by the name that their column gets; the last one's attention is shown.
        path: of the PNG.
    """
    *_, shown = translators.values()
    columns: dict[str, Tensor] = {}
    for direction in shown.system.directions:
        source, target = direction.upper().split("2")
        files = spread(find_files(EMOJI / f"test{source}"), ROWS)
        x = read_squares(shown, files, source)
        truth = read_squares(shown, [EMOJI / f"test{target}" / file.name for file in files], target)
        made = {f"{source} to {target}, {name}": one(x, direction) for name, one in translators.items()}
        columns |= sheet_columns(shown.at_size, x, direction, back=False, results=made, truth=truth)
    with writing(path):
        draw_sheet(columns, path)


def emoji_distances(evaluator: Evaluator, translator: Translator, out: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """How far held-out emoji are from their true counterparts, before and after translation, by direction.

    Args:
        evaluator: whose features count.
        translator: the model.
        out: folder for the translations and their ``metrics.json``.
    """
    roots = {side: EMOJI / f"test{side}" for side in "AB"}
    tests = {side: find_files(root) for side, root in roots.items()}
    after = evaluate_model(evaluator, translator, tests, roots, out)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for direction in translator.system.directions:
        real, origin = (Files(tests[side], translator.side) for side in reversed(direction.upper().split("2")))
        before = evaluator.compare(evaluator.features(real), evaluator.features(origin))
        before |= paired(evaluator.network, origin, real, evaluator.device)
        found[direction] = {"before": before, "after": after[direction]}
    return found


def distance_table(title: str, distances: dict[str, dict[str, dict[str, Any]]]) -> Table:
    """The distances as a table for the terminal."""
    table = Table("direction", "", "untranslated", "translated", title=title)
    for direction, values in distances.items():
        for key in ("l1", "perceptual", "kid", "attention_rank"):
            table.add_row(direction, METRICS[key], *[figure(values[when], key) for when in ("before", "after")])
    return table


def demo(out: Path, steps: int | None = None) -> None:
    """Show what the package's own model makes of held-out emoji, then train the ``quick`` preset and show that too.

    Args:
        out: folder for ``shipped.png``, ``sheet.png``, the evaluations and the run; a run there is continued.
        steps: instead of the preset's.

    Raises:
        UserError: the feature network is not installed, or ``out`` cannot be written.
    """
    evaluator = Evaluator(Protocol(features="efficientnet-lite0"), torch.device("cpu"))
    config = replace(preset_config("ugatit", "quick"), data=EMOJI, out=out / "run")
    if steps is not None:
        config = replace(config, recipe=replace(config.recipe, steps=steps))

    translators = {"shipped": Translator.load(SHIPPED)}
    emoji_sheet(translators, out / "shipped.png")
    say(f"What a model that was trained for longer makes of emoji it never saw: {out / 'shipped.png'}")
    console.print(
        distance_table("The longer trained model", emoji_distances(evaluator, translators["shipped"], out / "shipped"))
    )

    say("Now the quick preset, on this machine:")
    model = train(config, resume=(out / "run" / "config.json").exists())
    translators["now"] = Translator.load(model)
    emoji_sheet(translators, out / "sheet.png")
    found = emoji_distances(evaluator, translators["now"], out / "now")
    console.print(distance_table("The model trained now", found))
    say(f"Both side by side: {out / 'sheet.png'}")
    say(f"Try it: ugatit translate {model} YOUR-PICTURE.png -o translated --attention")
