"""Table 1 on anyone's data: every row trained with the same seed, data order and budget, then measured alike."""

import json
import os
import queue
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor

from ugatit.checkpoint import checkpoints
from ugatit.data import find_tests, read_tests, spread
from ugatit.errors import UserError
from ugatit.evaluate import Judge, Protocol, evaluate_model, figure
from ugatit.features import FeatureName
from ugatit.files import atomic_file, results
from ugatit.sheet import draw_sheet
from ugatit.systems.base import Direction
from ugatit.systems.ugatit import TABLE_1, UGATITConfig
from ugatit.train import TrainConfig, console, read_run, write_config
from ugatit.translate import Translator, find_device

ROWS = 6  # of the sheet
TRUTH = ("l1", "perceptual")  # distances to true counterparts


@dataclass(frozen=True)
class AblateConfig:
    """Train and measure every row of Table 1."""

    train: TrainConfig[UGATITConfig]
    rows: tuple[str, ...] = tuple(TABLE_1)
    """Which rows."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0,)
    """Each row is trained once with each, so that noise can be told from effect."""
    jobs: Annotated[int, Field(ge=1)] = 1
    """Runs that train at once, each on a CUDA device of its own where there are several."""
    features: FeatureName = "inception"
    """Network of the evaluation."""
    weights: Path | None = None
    """Inception's weights; downloaded once if not given."""
    paired: bool = False
    """Test pictures of the same name in both domains are counterparts: also measure the distance to the truth."""


class Run(NamedTuple):
    """One row trained with one seed."""

    row: str
    seed: int
    config: TrainConfig[UGATITConfig]
    folder: Path

    def step(self) -> int:
        """Steps that are done and saved."""
        found = checkpoints(self.folder / "checkpoints")
        return int(found[-1].name.removeprefix("step-")) if found else 0

    def logged(self) -> int:
        """Steps that are done and logged."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return json.loads(lines[-1])["step"] if lines and lines[-1].endswith("}") else self.step()


def plan(config: AblateConfig, out: Path) -> list[Run]:
    """The runs, in the order of the table, one seed after the other.

    Raises:
        UserError: there is no such row, or ``out`` has a run of that row and seed with other settings.
    """
    unknown = [row for row in config.rows if row not in TABLE_1]
    if unknown:
        raise UserError(f"--rows {unknown[0]!r} is not known: choose of {', '.join(map(repr, TABLE_1))}.")
    runs = []
    for seed in config.seeds:
        for row in config.rows:
            folder = out / f"{row.replace('w/', 'with').replace('witho', 'without').replace(' ', '-')}-seed{seed}"
            model = replace(config.train.model, **TABLE_1[row].settings)
            run = Run(row, seed, replace(config.train, model=model, seed=seed, out=folder), folder)
            if (folder / "config.json").exists():
                if read_run(folder) != run.config:
                    raise UserError(f"{folder} was started with other settings: give those again, or another -o.")
            else:
                write_config(run.config, folder)
            runs.append(run)
    return runs


def train_all(runs: list[Run], jobs: int) -> None:
    """Train what is not done yet, each run in a process of its own that continues from its newest checkpoint.

    Raises:
        UserError: runs failed; the others are done.
    """
    slots: queue.Queue[int] = queue.Queue()
    for slot in range(jobs):
        slots.put(slot)
    waiting = [run for run in runs if run.step() < run.config.recipe.steps]
    children: list[subprocess.Popen] = []

    def work(run: Run) -> Run | None:
        slot = slots.get()
        try:
            with (run.folder / "log.txt").open("a") as log:
                command = [sys.executable, "-m", "ugatit", "train", "--resume", str(run.folder)]
                children.append(child := subprocess.Popen(command, env=environment(slot, jobs), stdout=log, stderr=log))
            return None if child.wait() == 0 and run.step() == run.config.recipe.steps else run
        finally:
            slots.put(slot)

    with ThreadPoolExecutor(jobs) as pool, bars() as progress:
        futures = [pool.submit(work, run) for run in waiting]
        task = progress.add_task("training", total=sum(run.config.recipe.steps for run in runs))
        try:
            while wait(futures, timeout=2).not_done:
                progress.update(task, completed=sum(run.logged() for run in runs))
        except BaseException:
            for future in futures:
                future.cancel()
            for child in children:
                child.terminate()  # it saves
            raise
    failed = [run for future in futures if (run := future.result())]
    if failed:
        last = (failed[0].folder / "log.txt").read_text().strip().splitlines()[-1:]
        raise UserError(f"{len(failed)} of {len(runs)} runs stopped, the first in {failed[0].folder}: {''.join(last)}")


def environment(slot: int, jobs: int) -> dict[str, str]:
    """Of a training process: its share of the CPU's cores, and one of several CUDA devices."""
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))} if jobs > 1 else {}
    devices = torch.cuda.device_count()
    return os.environ | threads | ({"CUDA_VISIBLE_DEVICES": str(slot % devices)} if devices > 1 and jobs > 1 else {})


def bars() -> Progress:
    return Progress(
        TextColumn("{task.description}"), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn(),
        console=console, disable=not console.is_terminal,
    )  # fmt: skip


def evaluate_all(runs: list[Run], config: AblateConfig) -> list[dict[str, Any]]:
    """Metrics of each run; what was measured by the same protocol before is kept."""
    first = runs[0].config
    assert first.data is not None
    judge = Judge(Protocol(features=config.features, weights=config.weights), find_device(None))
    measured = []
    for run in runs:
        path = run.folder / "evaluation" / "metrics.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        complete = not config.paired or TRUTH[0] in known.get("a2b", ())
        if known.get("protocol") != judge.description(first.model.size) or not complete:
            tests, roots, _ = find_tests(first.data, first.holdout, run.seed)
            translator = Translator.load(run.folder / "model")
            known = evaluate_model(judge, translator, tests, roots if config.paired else None, path.parent)
        measured.append(known)
    return measured


def summarise(runs: list[Run], measured: list[dict[str, Any]]) -> dict[str, Any]:
    """Per row and direction: KID to the target and its mean with KID to the source, averaged over the seeds, each with
    the subsets' standard deviation; and of each seed KID and, where it is known, the distance to the truth.
    """
    table: dict[str, Any] = {}
    for row in dict.fromkeys(run.row for run in runs):
        found = [metrics for run, metrics in zip(runs, measured, strict=True) if run.row == row]
        table[row] = {
            direction: {
                f"{kind}_{part}": mean(metrics[direction][f"{kind}_{part}"] for metrics in found)
                for kind in ("kid", "kid_both")
                for part in ("mean", "std")
            }
            | {
                f"{key.removesuffix('_mean')}_of_each_seed": [metrics[direction][key] for metrics in found]
                for key in ("kid_mean", *TRUTH)
                if key in found[0][direction]
            }
            for direction in ("a2b", "b2a")
        }
    return table


def comparison(summary: dict[str, Any], direction: Direction) -> Table:
    """Table 1 for one direction, with our figures beside the paper's."""
    side = ("a2b", "b2a").index(direction)
    table = Table(title=f"KID x 100 ± std x 100, {direction}; the paper's is {('selfie2anime', 'anime2selfie')[side]}")
    for column in ("Model", "KID", "mean with source", "seeds", "paper"):
        table.add_column(column, no_wrap=True)
    for row, directions in summary.items():
        found = directions[direction]
        seeds = ", ".join(f"{value:.2f}" for value in found["kid_of_each_seed"])
        table.add_row(row, figure(found, "kid"), figure(found, "kid_both"), seeds, TABLE_1[row].paper[side])
    return table


def truth_table(summary: dict[str, Any], direction: Direction) -> Table:
    """How far each row's translations are from the true counterparts, seed by seed."""
    table = Table("Model", *TRUTH, title=f"Distance to the truth, {direction}, of each seed")
    for row, directions in summary.items():
        seeds = [directions[direction][f"{key}_of_each_seed"] for key in TRUTH]
        table.add_row(row, *[", ".join(f"{value:.3f}" for value in values) for values in seeds])
    return table


def sheet(runs: list[Run], direction: Direction) -> dict[str, Tensor]:
    """Sources down, rows of the table across, from the first seed's runs."""
    first = runs[0].config
    assert first.data is not None
    tests, _, _ = find_tests(first.data, first.holdout, first.seed)
    x = read_tests(spread(tests[direction[0].upper()], ROWS), first.model.size, first.model.channels)
    columns = {"source": x}
    for run in runs:
        if run.seed == runs[0].seed:
            columns[run.row] = Translator.load(run.folder / "model")(x, direction)
    return columns


def ablate(config: AblateConfig) -> dict[str, Any]:
    """Train, measure, print and write Table 1.

    Args:
        config: with ``train.data`` and ``train.out``, the folder for ``table.json``, ``sheet-a2b.png``,
            ``sheet-b2a.png`` and a folder a run. Runs that are done are kept; others go on where they stopped.

    Raises:
        UserError: bad pictures or options, runs that failed, or a folder that cannot be written.
    """
    out = config.train.out
    assert out is not None
    runs = plan(config, out)
    train_all(runs, config.jobs)
    measured = evaluate_all(runs, config)
    summary = summarise(runs, measured)
    result = {"protocol": measured[0]["protocol"], "steps": config.train.recipe.steps, "seeds": config.seeds}
    directions: tuple[Direction, ...] = ("a2b", "b2a")
    with results(out):
        for direction in directions:
            console.print(comparison(summary, direction))
            if config.paired:
                console.print(truth_table(summary, direction))
            draw_sheet(sheet(runs, direction), out / f"sheet-{direction}.png")
        with atomic_file(out / "table.json") as temporary:
            temporary.write_text(json.dumps(result | {"rows": summary}, indent=2) + "\n")
    return result | {"rows": summary}
