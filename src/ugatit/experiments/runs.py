"""Several runs trained with the same data order and budget, then measured alike: what Tables 1 and 3 are made of."""

import json
import os
import queue
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from rich.table import Table
from torch import Tensor

from ugatit.data.finding import Tests, find_tests, need_apart, spread
from ugatit.data.sampling import read_tests
from ugatit.evaluation.evaluate import Evaluator, counterparts, evaluate_model, figure
from ugatit.evaluation.features import FeatureName
from ugatit.evaluation.metrics import Protocol
from ugatit.io.errors import UserError
from ugatit.io.files import digest, read_json, write_json, writing
from ugatit.io.processes import this_process
from ugatit.io.sheet import draw_sheet
from ugatit.io.terminal import bars, console, say
from ugatit.systems.base import DIRECTIONS, Direction, channels_of, samples_of
from ugatit.training.checkpoint import checkpoints, step_of
from ugatit.training.config import TrainConfig, read_run, settings_of, write_run
from ugatit.translation.folder import saved_step
from ugatit.translation.translator import Translator, find_device

SHEET_ROWS = 6
TAIL = 2**14  # bytes of a log that its last line is in
TRUTH = ("l1", "perceptual")  # distances to true counterparts


@dataclass(frozen=True)
class Experiment:
    """How every row of a table is trained and measured."""

    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    """The random seeds. Every row is trained once with each, so that noise can be told from effect."""
    jobs: Annotated[int, Field(ge=1)] = 1
    """How many runs train at once, each on a CUDA device of its own where there are several."""
    features: FeatureName = "inception"
    """The network whose features the evaluation compares."""
    weights: Path | None = None
    """The file of Inception's weights. If it is not given, they are downloaded once."""
    paired: bool = False
    """Test pictures of the same name are true counterparts, so the distance to them is measured too."""


class Run(NamedTuple):
    """One row of a table trained with one seed."""

    row: str
    config: TrainConfig[Any]

    @property
    def seed(self) -> int:
        """Of its random numbers."""
        return self.config.seed

    @property
    def folder(self) -> Path:
        """Where it is kept."""
        assert self.config.out is not None
        return self.config.out

    def step(self) -> int:
        """Steps that are done and saved."""
        found = checkpoints(self.folder / "checkpoints")
        return step_of(found[-1]) if found else 0

    def done(self) -> bool:
        """Whether all steps are, and the model is that of the last."""
        steps = self.config.recipe.steps
        return self.step() >= steps and saved_step(self.folder / "model") == self.step()

    def logged(self) -> int:
        """Steps that are done and logged."""
        path = self.folder / "metrics.jsonl"
        if not path.exists():
            return self.step()
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            lines = file.read().splitlines()
        for line in reversed(lines):
            with suppress(ValueError):  # it is just being written, or the disk was full
                return json.loads(line)["step"]
        return self.step()

    def tests(self) -> Tests:
        """The test pictures that it was never trained on."""
        assert self.config.data is not None
        channels = channels_of(self.config.model)
        return find_tests(self.config.data, self.config.holdout, self.config.seed, self.folder, channels)

    def read(self, files: list[Path], direction: Direction) -> Tensor:
        """Pictures to translate in a direction, as its model reads them; N x channels x size x size in [-1, 1]."""
        model = read_run(self.folder).model  # with the ranges that were found
        return read_tests(files, model.size, samples_of(model, direction[0]))

    def claim(self) -> None:
        """Write the run's configuration into its folder, from which it is trained; the place of its data may be another
        than before, whose pictures are held against the run's when it goes on.

        Raises:
            UserError: the folder has a run with other settings, of which steps are done.
        """
        if not (self.folder / "config.json").exists() or self.logged() == 0:
            write_run(self.config, self.folder)
            return
        found, model = read_run(self.folder), self.config.model
        same = {name: getattr(model, name) for name in ("range", "range_b", "faces_a", "faces_b")}  # found in the data
        known = settings_of(replace(found, data=self.config.data, model=replace(found.model, **same)))
        other = [name for name, value in settings_of(self.config).items() if value != known[name]]
        if other:
            options = ", ".join(f"`{name.replace('-', '_')}` {known[name]}" for name in other)
            raise UserError(f"{self.folder} was started with other settings ({options}): give those, or another `out`.")
        if found.data != self.config.data:
            write_run(replace(found, data=self.config.data), self.folder)


def train_all(runs: list[Run], jobs: int) -> None:
    """Train what is not done yet, each run in a process of its own that continues from its newest checkpoint.

    Raises:
        UserError: a folder has a run with other settings, or runs failed; the others are done.
    """
    for each in runs:
        each.claim()
    slots: queue.Queue[int] = queue.Queue()
    for slot in range(jobs):
        slots.put(slot)
    waiting = [run for run in runs if not run.done()]
    children: list[subprocess.Popen] = []
    starting, stopped = threading.Lock(), False

    def work(run: Run) -> Run | None:
        slot = slots.get()
        try:
            with starting, (run.folder / "log.txt").open("a", encoding="utf-8") as log:
                if stopped:
                    return run
                command = [sys.executable, "-P", "-m", "ugatit", "train", "--resume", str(run.folder)]
                children.append(child := subprocess.Popen(command, env=environment(slot, jobs), stdout=log, stderr=log))
            return None if child.wait() == 0 and run.done() else run
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
            with starting:  # no child is just being started, and none will be
                stopped = True
                for child in children:
                    child.terminate()  # it saves
            raise
    failed = [run for future in futures if (run := future.result())]
    if failed:
        last = (failed[0].folder / "log.txt").read_text("utf-8", "replace").strip().splitlines()[-1:]
        raise UserError(f"{len(failed)} of {len(runs)} runs stopped, the first in {failed[0].folder}: {''.join(last)}")


def environment(slot: int, jobs: int) -> dict[str, str]:
    """Of a training process: its share of the CPU's cores, and one of several CUDA devices."""
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))} if jobs > 1 else {}
    given = os.environ.get("CUDA_VISIBLE_DEVICES")  # numbers or names, of which this process has some
    devices = [str(i) for i in range(torch.cuda.device_count())] if given is None else given.split(",")
    chosen = {"CUDA_VISIBLE_DEVICES": devices[slot % len(devices)].strip()} if len(devices) > 1 and jobs > 1 else {}
    return os.environ | threads | chosen


def evaluator_of(runs: list[Run], experiment: Experiment) -> Evaluator:
    """What will measure the runs, made before they are trained, as is told what would be in the way of measuring.

    Raises:
        UserError: the network cannot be had, the test pictures cannot be measured, as `counterparts` says, or the runs
            would lie among the pictures.
    """
    if this_process().processes > 1:
        raise UserError("Each run is trained in a process of its own: start this once, without torchrun, with `jobs`.")
    evaluator = Evaluator(Protocol(features=experiment.features, weights=experiment.weights), find_device(None))
    tests, roots, skipped = runs[0].tests()
    for one in skipped:
        say(f"  skipped: {one}")
    need_apart(runs[0].folder, runs[0].config.data, None, None)
    channels = channels_of(runs[0].config.model)
    counterparts(evaluator.protocol, channels, tests, roots if experiment.paired else None, DIRECTIONS)
    return evaluator


def evaluate_all(runs: list[Run], evaluator: Evaluator, paired: bool) -> list[dict[str, Any]]:
    """Metrics of each run; what was measured of the same model and pictures by the same protocol before is kept.

    Args:
        runs: all of one data folder.
        evaluator: by what protocol.
        paired: whether test pictures of the same name are true counterparts.
    """
    measured = []
    for run in runs:
        path = run.folder / "evaluation" / "metrics.json"
        note = path.with_name("measured.json")  # what the figures are of
        known, before = noted(path), noted(note)
        complete = not paired or TRUTH[0] in known.get("a2b", ())
        tests, roots, _ = run.tests()
        now = {side: [digest(file) for file in files] for side, files in tests.items()}
        now["model"] = [digest(run.folder / "model" / "translator.safetensors")]
        same = known.get("protocol") == evaluator.description(run.config.model.size) and before == now
        if not (same and complete):
            translator = Translator.load(run.folder / "model")
            known = evaluate_model(evaluator, translator, tests, roots if paired else None, path.parent)
            with writing(note):
                write_json(note, now)
        measured.append(known)
    return measured


def noted(path: Path) -> dict[str, Any]:
    """What a file of an earlier start says; nothing if there is none, or it is damaged."""
    with suppress(ValueError):
        return read_json(path, 2**26)
    return {}


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
                if all(key in metrics[direction] for metrics in found)
            }
            for direction in DIRECTIONS
            if direction in found[0]
        }
    return table


def comparison(result: dict[str, Any], direction: Direction, title: str, paper: dict[str, str]) -> Table:
    """KID of each row in one direction, with the paper's figures, by row, beside ours; `write_tables` says the rest."""
    alike = result["protocol"]["features"] == "inception"
    theirs = ["paper" if alike else "paper, by Inception"] if paper else []
    columns = ("Model", "KID", "mean with source", "seeds", *theirs)
    counts = result["pictures"].get(direction, {})
    told = ", ".join(f"{count} {what}" for what, count in counts.items())
    table = Table(title=f"KID x 100 ± std x 100, {direction}{title}", caption=told and f"pictures: {told}")
    for column in columns:
        table.add_column(column, no_wrap=True)
    for row, directions in result["rows"].items():
        if direction in directions:
            found = directions[direction]
            seeds = ", ".join(f"{value:.2f}" for value in found["kid_of_each_seed"])
            cells = row, figure(found, "kid"), figure(found, "kid_both"), seeds, paper.get(row, "-")
            table.add_row(*cells[: len(columns)])
    return table


def truth_table(summary: dict[str, Any], direction: Direction) -> Table:
    """How far each row's translations are from the true counterparts, seed by seed."""
    table = Table("Model", *TRUTH, title=f"Distance to the truth, {direction}, of each seed")
    for row, directions in summary.items():
        if "l1_of_each_seed" in directions.get(direction, ()):
            seeds = [directions[direction][f"{key}_of_each_seed"] for key in TRUTH]
            table.add_row(row, *[", ".join(f"{value:.3f}" for value in values) for values in seeds])
    return table


def sheet(runs: list[Run], direction: Direction) -> dict[str, Tensor]:
    """Sources down, rows of the table across, from the first seed's runs."""
    files = spread(runs[0].tests().files[direction[0].upper()], SHEET_ROWS)
    x = runs[0].read(files, direction)
    columns = {"source": x}
    for run in runs:
        if run.seed == runs[0].seed:
            translator = Translator.load(run.folder / "model")
            if direction in translator.system.directions:
                columns[run.row] = translator(x, direction)
    return columns


def write_tables(
    runs: list[Run],
    measured: list[dict[str, Any]],
    out: Path,
    title: dict[Direction, str],
    paper: dict[Direction, dict[str, str]],
) -> dict[str, Any]:
    """Print the tables and write ``table.json`` and a sheet a direction into ``out``.

    Args:
        runs, measured: and what `evaluate_all` found.
        out: folder.
        title: what the tables' titles say beside the direction.
        paper: the paper's figures by direction and row.

    Returns:
        What ``table.json`` holds.

    Raises:
        UserError: the folder cannot be written.
    """
    summary = summarise(runs, measured)
    sizes = {run.row: run.config.model.size for run in runs}
    result = {
        "protocol": measured[0]["protocol"] | ({"sizes": sizes} if len(set(sizes.values())) > 1 else {}),
        "steps": {run.row: run.config.recipe.steps for run in runs},
        "seeds": list(dict.fromkeys(run.seed for run in runs)),
        "pictures": {
            way: found[way]["pictures"] | {"in a subset": found[way]["kid_subset_size"]}
            for found in measured
            for way in DIRECTIONS
            if way in found
        },
        "rows": summary,
    }
    with writing(out):
        write_json(out / "table.json", result, indent=2)
        for direction in DIRECTIONS:
            draw_sheet(sheet(runs, direction), out / f"sheet-{direction}.png")
    for direction in DIRECTIONS:
        console.print(comparison(result, direction, title[direction], paper[direction]))
        if any("l1_of_each_seed" in found.get(direction, ()) for found in summary.values()):
            console.print(truth_table(summary, direction))
    return result
