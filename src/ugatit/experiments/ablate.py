"""Table 1 on anyone's data: every row trained with the same seed, data order and budget, then measured alike."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from ugatit.data.finding import need_training_folders
from ugatit.experiments.runs import Experiment, Run, evaluate_all, evaluator_of, train_all, write_tables
from ugatit.io.errors import UserError
from ugatit.systems.base import DIRECTIONS
from ugatit.systems.ugatit import UGATITConfig
from ugatit.training.config import TrainConfig


class Ablation(NamedTuple):
    """A row of Table 1."""

    settings: dict[str, Any]  # of `UGATITConfig`
    paper: tuple[str, str]  # KID x 100 of selfie2anime and anime2selfie


TABLE_1 = {
    "U-GAT-IT": Ablation({}, ("11.61 ± 0.57", "11.52 ± 0.57")),
    "w/ IN": Ablation({"decoder_norm": "in"}, ("13.64 ± 0.76", "13.58 ± 0.80")),
    "w/ LN": Ablation({"decoder_norm": "ln"}, ("12.39 ± 0.61", "13.17 ± 0.80")),
    "w/ AdaIN": Ablation({"decoder_norm": "adain"}, ("12.29 ± 0.78", "11.81 ± 0.77")),
    "w/ GN": Ablation({"decoder_norm": "gn"}, ("12.76 ± 0.64", "12.30 ± 0.77")),
    "w/o CAM": Ablation({"cam": "none"}, ("12.85 ± 0.82", "14.06 ± 0.75")),
    "w/o G_CAM": Ablation({"cam": "discriminator"}, ("12.33 ± 0.68", "13.86 ± 0.75")),
    "w/o D_CAM": Ablation({"cam": "generator"}, ("12.49 ± 0.74", "13.33 ± 0.89")),
}


@dataclass(frozen=True)
class AblateConfig:
    """Train and measure every row of Table 1."""

    train: TrainConfig[UGATITConfig]
    rows: Annotated[tuple[str, ...], Field(min_length=1)] = tuple(TABLE_1)
    """The rows of the table to train."""
    experiment: Experiment = field(default_factory=Experiment)


def plan(config: AblateConfig, out: Path) -> list[Run]:
    """The runs, in the order of the table, one seed after the other.

    Raises:
        UserError: there is no such row or no such data.
    """
    unknown = [row for row in config.rows if row not in TABLE_1]
    if unknown:
        raise UserError(f"`rows` {unknown[0]!r} is not known: choose of {', '.join(map(repr, TABLE_1))}.")
    for name in dict.fromkeys(name for row in TABLE_1.values() for name in row.settings):
        if getattr(config.train.model, name) != getattr(UGATITConfig, name):
            raise UserError(f"`{name}` is what the rows differ in: leave it out.")
    if config.train.data is not None:
        need_training_folders(config.train.data)
    runs = []
    for seed in dict.fromkeys(config.experiment.seeds):
        for row in dict.fromkeys(config.rows):
            folder = out / f"{row.replace('w/', 'with').replace('witho', 'without').replace(' ', '-')}-seed{seed}"
            model = replace(config.train.model, **TABLE_1[row].settings)
            runs.append(Run(row, replace(config.train, model=model, seed=seed, out=folder)))
    return runs


def ablate(config: AblateConfig) -> dict[str, Any]:
    """Train, measure, print and write Table 1.

    Args:
        config: with ``train.data`` and ``train.out``, the folder for ``table.json``, ``sheet-a2b.png``,
            ``sheet-b2a.png`` and a folder a run. Runs that are done are kept; others go on where they stopped.

    Raises:
        UserError: bad pictures or options, runs that failed, or a folder that cannot be written.
    """
    out = config.train.out
    if out is None:
        raise UserError("`out` is not set: give a folder for the runs and the table.")
    runs = plan(config, out)
    evaluator = evaluator_of(runs, config.experiment)
    train_all(runs, config.experiment.jobs)
    measured = evaluate_all(runs, evaluator, config.experiment.paired)
    papers = zip(DIRECTIONS, ("selfie2anime", "anime2selfie"), strict=True)
    return write_tables(
        runs,
        measured,
        out,
        {direction: f"; the paper's is {name}" for direction, name in papers},
        {d: {row: TABLE_1[row].paper[side] for row in TABLE_1} for side, d in enumerate(DIRECTIONS)},
    )
