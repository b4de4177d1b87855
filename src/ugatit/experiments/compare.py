"""Table 3 and Figure 4 on anyone's data: systems trained with the same data order and budget, measured alike."""

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field
from tyro.conf import Positional, arg

from ugatit.data.finding import need_training_folders
from ugatit.data.places import opened, title
from ugatit.evaluation.evaluate import translation_name
from ugatit.experiments.runs import Experiment, Run, evaluate_all, evaluator_of, noted, train_all, write_tables
from ugatit.experiments.trial import seconds_a_step
from ugatit.io.errors import UserError
from ugatit.io.files import atomic_folder, write_json, writing
from ugatit.io.sheet import save_picture, to_picture
from ugatit.io.terminal import say
from ugatit.systems import REGISTRY
from ugatit.systems.base import DIRECTIONS
from ugatit.training.config import TrainConfig, check_range, preset_config, run_adapter

SOURCE = "source"  # the folder of the sources


class DataSet(NamedTuple):
    """One of the paper's data sets (appendix C) and what it prints of it in Table 3."""

    counts: tuple[int | None, int | None, int | None, int | None]  # of trainA, trainB, testA, testB; None: not told
    where: str
    kid: dict[str, tuple[str, str]]  # KID x 100 by system, A to B and B to A


TABLE_3 = {
    "selfie2anime": DataSet(
        (3400, 3400, 100, 100),
        "the authors' repositories taki0112/UGATIT and znxlwm/UGATIT-pytorch link to it",
        {
            "ugatit": ("11.61 ± 0.57", "11.52 ± 0.57"),
            "cyclegan": ("13.08 ± 0.49", "11.84 ± 0.74"),
            "unit": ("14.71 ± 0.59", "26.32 ± 0.92"),
            "munit": ("13.85 ± 0.41", "13.94 ± 0.72"),
            "drit": ("15.08 ± 0.62", "14.85 ± 0.60"),
            "aggan": ("14.63 ± 0.55", "12.72 ± 1.03"),
            "cartoongan": ("15.85 ± 0.69", "-"),
        },
    ),
    "horse2zebra": DataSet(
        (1067, 1334, 120, 140),
        "CycleGAN's data sets, junyanz/pytorch-CycleGAN-and-pix2pix",
        {
            "ugatit": ("7.06 ± 0.80", "7.47 ± 0.71"),
            "cyclegan": ("8.05 ± 0.72", "8.00 ± 0.66"),
            "unit": ("10.44 ± 0.67", "14.93 ± 0.75"),
            "munit": ("11.41 ± 0.83", "16.47 ± 1.04"),
            "drit": ("9.79 ± 0.62", "10.98 ± 0.55"),
            "aggan": ("7.58 ± 0.71", "8.80 ± 0.66"),
        },
    ),
    "cat2dog": DataSet(
        (None, None, None, None),
        "DRIT's data sets, HsinYingLee/DRIT; 871 cats and 1,364 dogs, the paper does not tell the split",
        {
            "ugatit": ("7.07 ± 0.65", "8.15 ± 0.66"),
            "cyclegan": ("8.92 ± 0.69", "9.94 ± 0.36"),
            "unit": ("8.15 ± 0.48", "9.81 ± 0.34"),
            "munit": ("10.13 ± 0.27", "10.39 ± 0.25"),
            "drit": ("10.92 ± 0.33", "10.86 ± 0.24"),
            "aggan": ("9.84 ± 0.79", "9.45 ± 0.64"),
        },
    ),
    "photo2portrait": DataSet(
        (None, None, None, None),
        "DRIT's data sets, HsinYingLee/DRIT; 6,452 photos and 1,811 portraits, the paper does not tell the split",
        {
            "ugatit": ("1.79 ± 0.34", "1.69 ± 0.53"),
            "cyclegan": ("1.84 ± 0.34", "1.82 ± 0.36"),
            "unit": ("1.20 ± 0.31", "1.42 ± 0.24"),
            "munit": ("4.75 ± 0.52", "3.30 ± 0.47"),
            "drit": ("5.85 ± 0.54", "4.76 ± 0.72"),
            "aggan": ("2.33 ± 0.36", "2.19 ± 0.40"),
        },
    ),
    "photo2vangogh": DataSet(
        (6287, 400, 751, 400),
        "CycleGAN's data sets, junyanz/pytorch-CycleGAN-and-pix2pix, where it is called vangogh2photo, with A and B "
        "the other way round",
        {
            "ugatit": ("4.28 ± 0.33", "5.61 ± 0.32"),
            "cyclegan": ("5.46 ± 0.33", "4.68 ± 0.36"),
            "unit": ("4.26 ± 0.29", "9.72 ± 0.33"),
            "munit": ("13.08 ± 0.34", "9.53 ± 0.35"),
            "drit": ("12.65 ± 0.35", "7.72 ± 0.34"),
            "aggan": ("6.95 ± 0.33", "5.85 ± 0.31"),
        },
    ),
}


@dataclass(frozen=True)
class CompareConfig:
    """Train several systems on one data folder and compare them."""

    data: Positional[Path]
    """The data set, as ugatit train takes it. If it is called like one of the paper, the results are held against the
    paper's."""
    out: Annotated[Path | None, arg(aliases=["-o"])] = None
    """The folder for everything that is made. If it is not given, runs/DATA-table3."""
    systems: Annotated[tuple[str, ...], Field(min_length=1)] = tuple(REGISTRY)
    """The systems to train."""
    preset: str = "paper"
    """The preset that each system's settings come from. All systems have paper and quick."""
    size: Annotated[int, Field(ge=32, le=4096, multiple_of=4)] | None = None
    """The side of the training pictures in pixels. If it is not given, the presets'."""
    steps: Annotated[int, Field(ge=1)] | None = None
    """The budget, as a number of steps for each system. If it is not given, each preset's."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """The budget, as minutes of training for each system, instead of steps. A short trial turns it into steps."""
    experiment: Experiment = field(default_factory=Experiment)


def plan(config: CompareConfig, out: Path) -> list[Run]:
    """The runs, one seed after the other.

    Raises:
        UserError: a system is not known, or there are two budgets or no such data.
    """
    if config.steps is not None and config.minutes is not None:
        raise UserError("`steps` and `minutes` are both a budget: give one of them.")
    for name in config.systems:
        if name not in REGISTRY:
            raise UserError(f"`systems={name}` is not known: choose of {', '.join(REGISTRY)}.")
    need_training_folders(config.data)
    timed = steps_before(config, out)  # steps that fit, by system
    runs: list[Run] = []
    for seed in dict.fromkeys(config.experiment.seeds):
        for name in dict.fromkeys(config.systems):
            folder = out / f"{name}-seed{seed}"
            start = preset_config(name, config.preset)
            model = start.model if config.size is None else replace(start.model, size=config.size)
            run = replace(start, model=model, data=config.data, out=folder, seed=seed, preview_every=0)
            try:
                check_range(run, run_adapter(name))
            except UserError as error:
                raise UserError(f"{name} cannot be compared: {error}") from None
            steps = config.steps or run.recipe.steps
            if config.minutes is not None:
                if name not in timed:
                    timed[name] = affordable(run, config.minutes, config.experiment.jobs)
                steps = timed[name]
            run = replace(run, recipe=replace(run.recipe, steps=steps))
            runs.append(Run(name, run))
    return runs


def keep_budget(config: CompareConfig, runs: list[Run], out: Path) -> None:
    """Write what a budget in minutes came to, for the next start."""
    if config.minutes is not None:
        steps = steps_before(config, out) | {run.row: run.config.recipe.steps for run in runs}
        with writing(out):
            write_json(out / "budget.json", {"minutes": config.minutes, "of": networks(config), "steps": steps})


def networks(config: CompareConfig) -> list[Any]:
    """What the seconds of a step depend on, beside the system."""
    return [config.preset, config.size]


def steps_before(config: CompareConfig, out: Path) -> dict[str, int]:
    """The steps that a budget in minutes came to at an earlier start with the same networks, by system.

    Raises:
        UserError: it was another budget.
    """
    budget = noted(out / "budget.json")
    before = budget.get("minutes", config.minutes)
    if before != config.minutes:
        raise UserError(f"{out} was begun with `minutes={before:g}`: give that again, or another `out`.")
    return budget.get("steps", {}) if budget.get("of", networks(config)) == networks(config) else {}


def affordable(config: TrainConfig[Any], minutes: float, jobs: int) -> int:
    """How many steps fit into that many minutes of a run that is one of several trained at a time."""
    seconds = seconds_a_step(config, jobs)
    steps = max(1, int(60 * minutes / seconds))
    say(f"{config.system}: {seconds:.3f} s a step, {steps} steps in {minutes:g} minutes")
    return steps


def known_data(folder: Path) -> DataSet | None:
    """The paper's data set that a folder is called like; says so if its numbers of pictures are not the paper's."""
    found = TABLE_3.get(folder.name)
    if found is None:
        return None
    for part, expected in zip(("trainA", "trainB", "testA", "testB"), found.counts, strict=True):
        count = len(list((folder / part).glob("*"))) if (folder / part).is_dir() else 0
        if expected is not None and count != expected:
            say(
                f"{folder / part} has {count} files; the paper's {folder.name} has {expected} ({found.where}).",
                "yellow",
            )
    return found


def keep_pictures(runs: list[Run], out: Path) -> None:
    """The sources and the first seed's translations of them, as `ugatit study` takes them: pictures of the same name in
    ``pictures/DIRECTION/source/`` and ``pictures/DIRECTION/SYSTEM/``.
    """
    tests = runs[0].tests().files
    with writing(out):
        for direction in DIRECTIONS:
            with atomic_folder(out / "pictures" / direction / SOURCE) as temporary:
                for number, file in enumerate(tests[direction[0].upper()]):
                    x = runs[0].read([file], direction)
                    save_picture(to_picture(x[0]), temporary / translation_name(number, file))
        for run in runs:
            for direction in DIRECTIONS:
                made = run.folder / "evaluation" / direction
                if run.seed == runs[0].seed and made.is_dir():
                    with atomic_folder(out / "pictures" / direction / run.row) as temporary:
                        for file in sorted(made.iterdir()):
                            shutil.copyfile(file, temporary / file.name)


def compare(config: CompareConfig) -> dict[str, Any]:
    """Train, measure, print and write Table 3, Figure 4 and the pictures.

    Args:
        config: with ``out``, the folder for ``table.json``, ``sheet-a2b.png``, ``sheet-b2a.png``, ``pictures/`` and a
            folder a run. Runs that are done are kept; others go on where they stopped.

    Raises:
        UserError: bad pictures or options, runs that failed, or a folder that cannot be written.
    """
    out = config.out
    assert out is not None
    paper = known_data(opened(config.data))
    runs = plan(config, out)
    evaluator = evaluator_of(runs, config.experiment)
    keep_budget(config, runs, out)
    train_all(runs, config.experiment.jobs)
    measured = evaluate_all(runs, evaluator, config.experiment.paired)
    keep_pictures(runs, out)
    kid = paper.kid if paper else {}
    return write_tables(
        runs,
        measured,
        out,
        dict.fromkeys(DIRECTIONS, f"; the paper's is {title(config.data)}" if paper else ""),
        {d: {name: figures[side] for name, figures in kid.items()} for side, d in enumerate(DIRECTIONS)},
    )
