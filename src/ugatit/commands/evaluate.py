"""Measure a model, or a folder of translated pictures: KID, FID and more, with the protocol."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from tyro.conf import OmitArgPrefixes, Positional, arg

from ugatit.commands.parsing import parse
from ugatit.data.finding import find_tests
from ugatit.evaluation.evaluate import Evaluator, evaluate_folders, evaluate_model, metrics_table, protocol_text
from ugatit.evaluation.metrics import Protocol
from ugatit.evaluation.sharing import is_first, join
from ugatit.io.errors import UserError
from ugatit.io.files import need_outside
from ugatit.io.terminal import console, say, silence, some
from ugatit.systems.base import Range, channels_of
from ugatit.training.config import TrainConfig
from ugatit.translation.card import add_figures
from ugatit.translation.translator import Translator, find_device


@dataclass(frozen=True)
class EvaluateConfig:
    """Measure a model on test pictures, or one folder of pictures against another (--real DIR --fake DIR)."""

    protocol: Protocol
    model: Positional[str | None] = None
    """The model: its folder (RUN/model), the name of one in the package, such as cat2dog, or its id on the Hugging Face
    hub, like user/name."""
    data: Positional[Path | None] = None
    """The data set, as ugatit train takes it. Where testA and testB are missing, the pictures that training holds out
    are used."""
    real: Path | None = None
    """A folder of real pictures, instead of MODEL and DATA."""
    fake: Path | None = None
    """A folder of translated pictures, instead of MODEL and DATA."""
    out: Annotated[Path, arg(aliases=["-o"])] = Path("evaluation")
    """The folder for metrics.json, sheet.png and the translations."""
    paired: bool = False
    """Pictures of the same name are true counterparts, so the distance to them is measured too."""
    size: Annotated[int, Field(ge=32, le=4096)] | None = None
    """The side in pixels of the squares that pictures are made with --real and --fake, 256 if it is not given. A model
    has its own."""
    range: Range | None = None
    """The samples that become black and white with --real and --fake: LOW HIGH, for floats and 32 bits. A model has its
    own."""
    holdout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """The share of the training pictures that is measured where there are no test folders: the --holdout of the
    model's run, training's default if it is not given; and its --seed is this command's. A run at hand knows them."""
    json: bool = False
    """Print what metrics.json gets to the standard output, for programs; all else goes to the error output."""
    device: str | None = None
    """The device to compute on, such as cuda or cpu. If it is not given, the accelerator is used where there is one."""


def run_of(model: str) -> Path | None:
    """The run that a model's folder belongs to, if it still lies there."""
    return next((p for p in (Path(model), Path(model).resolve().parent) if (p / "checkpoints").is_dir()), None)


def main(arguments: list[str]) -> None:
    options = parse(OmitArgPrefixes[EvaluateConfig], "ugatit evaluate", arguments)
    model, folders = (options.model, options.data), (options.real, options.fake)
    if any(model) and any(folders):
        raise UserError("A model and folders were named: give MODEL and DATA, or --real DIR and --fake DIR alone.")
    if not all(model) and not all(folders):
        lacks = "MODEL needs DATA, the test pictures" if any(model) else "--real and --fake need each other"
        named = any((*model, *folders))
        raise UserError(
            f"{lacks if named else 'Nothing to evaluate was named'}: give MODEL and DATA, or --real DIR and --fake DIR."
        )
    for name in ("size", "range"):
        if any(model) and getattr(options, name) is not None:
            raise UserError(f"--{name} is for --real and --fake, a model has its own: leave it out.")
    if options.holdout is not None and (any(folders) or run_of(str(options.model))):
        why = "folders are measured whole" if any(folders) else "the model's run knows what it held out"
        raise UserError(f"--holdout {options.holdout:g}: {why}: leave it out.")
    first = join()
    with silence(not first):
        metrics = measured(options)
    if not first:
        return
    if options.json:
        print(json.dumps(metrics, indent=2))
    console.print(metrics_table(metrics))
    say(f"Protocol:\n{protocol_text(metrics)}\nWritten to {options.out}")


def measured(options: EvaluateConfig) -> dict[str, Any]:
    """The figures of what was named."""
    if options.real is not None and options.fake is not None:
        evaluator = Evaluator(options.protocol, find_device(options.device))
        return evaluate_folders(
            evaluator, options.real, options.fake, options.size or 256, options.paired, options.out, options.range
        )
    assert options.model is not None and options.data is not None
    translator = Translator.load(options.model, options.device)
    tests, roots, skipped = find_tests(
        options.data,
        TrainConfig.holdout if options.holdout is None else options.holdout,
        options.protocol.seed,
        run_of(options.model),
        channels_of(translator.system.config),
    )
    for one in skipped:
        say(f"  skipped: {one}")
    for root in roots.values():
        need_outside(options.out, root, "results would count as pictures")
    held_out = [root for domain, root in roots.items() if root.name == f"train{domain}"]
    if held_out and run_of(options.model) is None:
        say(
            f"What is held out of {some(held_out)} by --holdout and --seed is measured, of which the model may have "
            "seen some: it lies in no run, which would tell. Give RUN/model, or other pictures as testA and testB.",
            "yellow",
        )
    evaluator = Evaluator(options.protocol, translator.device)
    metrics = evaluate_model(evaluator, translator, tests, roots if options.paired else None, options.out)
    folder = translator.folder
    try:
        if folder and is_first() and add_figures(folder, metrics):
            say(f"The model's card, {folder / 'README.md'}, has these figures now.")
    except OSError as error:
        say(f"The model's card in {folder} could not take these figures ({error.strerror or error}).", "yellow")
    return metrics
