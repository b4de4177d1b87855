"""`ugatit demo`: photographs translated by the package's models, then two styles of drawn faces learned on a CPU."""

import shlex
from dataclasses import replace
from pathlib import Path

import torch
from rich.table import Table
from torch import Tensor

from ugatit.data.finding import find_files, spread
from ugatit.evaluation.evaluate import METRICS, Evaluator, evaluate_model, figure, read_squares
from ugatit.evaluation.metrics import Files, Protocol
from ugatit.io.files import writing
from ugatit.io.sheet import draw_sheet, overlay
from ugatit.io.terminal import console, say
from ugatit.training.config import preset_config, read_run
from ugatit.training.trainer import train
from ugatit.translation.columns import sheet_columns
from ugatit.translation.folder import saved_step
from ugatit.translation.hub import PHOTOS, SHIPPED
from ugatit.translation.translator import Translator, resize

AVATARS = Path(__file__).parents[1] / "avatars"  # made by tools/make_avatars.mjs
SHOWN = 128  # side in pixels of a photograph on the sheet
ROWS = 8  # of the sheet of avatars


def photo_columns() -> dict[str, Tensor]:
    """Photographs, where the package's models look in them, and what they make of them; N x 3 x side x side each."""
    parts: dict[str, list[Tensor]] = {"photograph": [], "where it looks": [], "translation": []}
    for model in sorted(SHIPPED.iterdir(), reverse=True):  # people first
        translator = Translator.load(model, "cpu")
        x = read_squares(translator, find_files(PHOTOS / model.name), "a")
        made = translator.at_size(x, "a2b")
        assert made.heatmap is not None
        for column, pictures in zip(parts.values(), (x, overlay(x, made.heatmap), made.image), strict=True):
            column.append(resize(pictures, (SHOWN, SHOWN)))
    return {label: torch.cat(pictures) for label, pictures in parts.items()}


def avatar_columns(translator: Translator) -> dict[str, Tensor]:
    """Held-out avatars, where the generators look, their translations and the way back, both directions."""
    columns: dict[str, Tensor] = {}
    for direction in translator.system.directions:
        source = direction[0]
        x = read_squares(translator, spread(find_files(AVATARS / f"test{source.upper()}"), ROWS), source)
        columns |= sheet_columns(translator.at_size, x, direction, back=True)
    return columns


def kid_table(evaluator: Evaluator, translator: Translator, out: Path) -> Table:
    """KID of held-out avatars to those of the other style, before and after translation, as a table for the terminal.

    Args:
        evaluator: whose features count.
        translator: the model.
        out: folder for the translations and their ``metrics.json``.
    """
    tests = {side: find_files(AVATARS / f"test{side}") for side in "AB"}
    after = evaluate_model(evaluator, translator, tests, None, out)
    table = Table("direction", "", "untranslated", "translated", title="Held-out avatars")
    for direction in translator.system.directions:
        origin, real = (
            evaluator.features(Files(tests[side], translator.side)) for side in direction.upper().split("2")
        )
        before = evaluator.compare(real, origin)
        table.add_row(direction, METRICS["kid"], figure(before, "kid"), figure(after[direction], "kid"))
    return table


def demo(out: Path, steps: int | None = None) -> None:
    """Show what the package's models make of photographs, then train the ``quick`` preset and show that too.

    Args:
        out: folder for ``photos.png``, ``sheet.png``, the evaluation and the run; a run there is continued.
        steps: instead of the preset's, or of those of the run that is there.

    Raises:
        UserError: the feature network is not installed, or ``out`` cannot be written.
    """
    evaluator = Evaluator(Protocol(features="efficientnet-lite0"), torch.device("cpu"))
    with writing(out):
        draw_sheet(photo_columns(), out / "photos.png")
    say(f"What the models in the package make of photographs: {out / 'photos.png'}")

    run = out / "run"
    begun = (run / "config.json").exists()
    config = replace(preset_config("ugatit", "quick"), data=AVATARS, out=run)
    steps = steps or (read_run(run) if begun else config).recipe.steps
    config = replace(config, recipe=replace(config.recipe, steps=steps))
    say("Now two styles of drawn faces are learned, by the quick preset on this machine:")
    model = train(config, resume=begun)
    if saved_step(model) != steps:
        say(f"Go on with: ugatit demo -o {shlex.quote(str(out))}")
        raise KeyboardInterrupt  # it was stopped
    translator = Translator.load(model)
    with writing(out):
        draw_sheet(avatar_columns(translator), out / "sheet.png")
    console.print(kid_table(evaluator, translator, out / "evaluation"))
    say("KID sees the grain of a short training before it sees shapes: look at the sheet.")
    say(f"Avatars that it never saw: {out / 'sheet.png'}")
    say(f"Try it: ugatit translate {shlex.quote(str(model))} YOUR-PICTURE.png -o translated --attention")
    say("Or with a photograph: ugatit translate face2anime YOUR-PHOTO.jpg -o translated --faces crop")
