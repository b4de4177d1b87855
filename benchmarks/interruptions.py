"""Runs that are interrupted: a table of every failure on each of two processes, and kills at random moments.

    python benchmarks/interruptions.py failures
    python benchmarks/interruptions.py kills --kills 100

Processes are forked after the imports, so that a run starts within a second, and nobody ends one when another fails, as
a launcher would. The pictures are drawn.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import tyro
from PIL import Image

import ugatit.training.checkpoint
import ugatit.training.trainer
from ugatit.cli import main
from ugatit.data.finding import Skipped
from ugatit.data.sampling import Unpaired
from ugatit.systems import REGISTRY
from ugatit.training.trainer import Trainer

Change = Callable[[int], None]  # what is done to a process before it starts, from its number
OPTIONS = "--preset quick --width 2 --blocks 1 --workers 0 --preview-every 0 --log-every 5".split()  # noqa: SIM905
SECONDS = 120  # after which a process hangs


class Ended(NamedTuple):
    """How a process ended."""

    code: int  # minus the signal's number if it was killed
    said: str


def draw_pictures(folder: Path) -> Path:
    """A data folder of noise."""
    for number, (part, count) in enumerate({"trainA": 6, "trainB": 5, "testA": 2, "testB": 2}.items()):
        (folder / part).mkdir(parents=True)
        for i in range(count):
            noise = np.random.default_rng(10 * number + i).integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(noise).resize((80, 80)).save(folder / part / f"{i}.png")
    return folder


def start(count: int, arguments: list[str], log: Path, change: Change) -> list[int]:
    """A command in several processes; their numbers for the system."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    children = []
    for number in range(count):
        child = os.fork()
        if not child:
            if count > 1:
                os.environ |= place | {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(count)}
            file = os.open(f"{log}-{number}", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
            os.dup2(file, 1)
            os.dup2(file, 2)
            change(number)
            code = 1
            try:
                code = main(arguments)
            finally:
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    return children


def wait(children: list[int], log: Path) -> list[Ended]:
    """How they ended; what hangs is killed."""
    codes: dict[int, int] = {}
    deadline = time.monotonic() + SECONDS
    while len(codes) < len(children):
        for child in set(children) - codes.keys():
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                codes[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return [Ended(codes[child], Path(f"{log}-{number}").read_text()) for number, child in enumerate(children)]


# Failures


def at_step(number: int, step: int, act: Callable[[Trainer], None]) -> Change:
    """Do something in one process before a step."""

    def change(mine: int) -> None:
        real = Trainer.train_step

        def train_step(self, *pictures):
            if mine == number and self.step == step:
                act(self)
            return real(self, *pictures)

        Trainer.train_step = train_step  # type: ignore[method-assign]

    return change


def lost(number: int) -> Change:
    """A picture of its fifth batch is gone."""

    def change(mine: int) -> None:
        real = Unpaired.__getitem__
        gone = Skipped(Path("DATA/trainA/3.png"), "does not exist")
        Unpaired.__getitem__ = lambda self, n: gone if n == 8 + number else real(self, n)  # type: ignore[method-assign]

    return change


def nan(number: int) -> Change:
    """Its loss is not finite."""

    def change(mine: int) -> None:
        real = Trainer.train_step

        def train_step(self, *pictures):
            losses = real(self, *pictures)
            spoilt = mine == number and self.step == 4
            return dict.fromkeys(losses, torch.tensor(torch.nan)) if spoilt else losses

        Trainer.train_step = train_step  # type: ignore[method-assign]

    return change


def spoil(trainer: Trainer) -> None:
    next(trainer.system.parameters()).data.fill_(torch.inf)


def full(number: int, times: int) -> Change:
    """Its disk is full, so many times that something is written."""

    def change(mine: int) -> None:
        real, left = ugatit.training.checkpoint.save_tensors, [times]

        def save(*arguments):
            if mine == number and left[0]:
                left[0] -= 1
                raise OSError(28, "No space left on device")
            return real(*arguments)

        ugatit.training.checkpoint.save_tensors = save  # type: ignore[assignment]

    return change


def without_pictures(number: int) -> Change:
    """Its machine has no pictures."""

    def change(mine: int) -> None:
        if mine == number:
            Path.is_dir = lambda self: "trainA" not in self.name  # type: ignore[method-assign,assignment]

    return change


def failures_of(number: int) -> dict[str, Change]:
    """By what happens: to the process of that number."""
    return {
        "a picture vanishes": lost(number),
        "a loss is NaN": nan(number),
        "a weight is infinite": at_step(number, 4, spoil),
        "its disk is full once": full(number, 1),
        "its disk is full for good": full(number, 1000),
        "SIGTERM": at_step(number, 4, lambda _: os.kill(os.getpid(), signal.SIGTERM)),
        "SIGINT": at_step(number, 4, lambda _: os.kill(os.getpid(), signal.SIGINT)),
        "SIGKILL": at_step(number, 4, lambda _: os.kill(os.getpid(), signal.SIGKILL)),
        "no pictures on its machine": without_pictures(number),
    }


@dataclass(frozen=True)
class FailuresConfig:
    """Try every failure on each of two processes, and print a table."""


def failures(_: FailuresConfig) -> None:
    """Print what each process says, how it ends, what is on the disk then, and whether the run goes on from there."""
    print("| what happens | to | exit codes | what processes 0 and 1 say last | checkpoint | resumed |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as place:
        data = draw_pictures(Path(place) / "DATA")
        options = [*OPTIONS, "--size", "32", "--batch", "1", "--steps", "8", "--checkpoint-every", "3"]
        for number in range(2):
            for what, change in failures_of(number).items():
                run, log = Path(place) / "RUN", Path(place) / "log"
                shutil.rmtree(run, ignore_errors=True)
                ended = wait(start(2, ["train", str(data), "-o", str(run), *options], log, change), log)
                folders = sorted(f.name for f in run.glob("checkpoints/step-*"))
                step = str(int(folders[-1].removeprefix("step-"))) if folders else "none"
                whole = all(part.is_file() for part in run.rglob(".*"))  # and nothing half written
                again = wait(start(2, ["train", "--resume", str(run)], log, lambda _: None), log)
                said = " / ".join((text.said.strip().splitlines() or ["nothing"])[-1] for text in ended)
                codes, resumed = (" ".join(str(one.code) for one in both) for both in (ended, again))
                said = said.replace(str(run), "RUN").replace(str(data), "DATA")
                left = step if whole else f"{step}, and parts"
                print(f"| {what} | {number} | {codes} | {said} | {left} | {resumed} |", flush=True)


# Kills


@dataclass(frozen=True)
class KillsConfig:
    """Kill runs at random moments, resume them, and hold them against runs that were left alone."""

    kills: int = 100
    """How many, in all."""
    seed: int = 0
    """Of the moments."""
    systems: tuple[str, ...] = tuple(REGISTRY)
    """Which are trained, in turn."""


def fingerprint(run: Path) -> dict[str, str]:
    """Hashes of all that a run ends with, by name; speed is not a result."""
    newest = max((run / "checkpoints").iterdir())
    files = [*newest.glob("*"), *(run / "model").iterdir()]
    found = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return found | {"metrics": str([{k: v for k, v in line.items() if k != "steps_per_second"} for line in lines])}


def kills(options: KillsConfig) -> None:
    """Print for each run when it was killed, and whether it ended with the same bytes."""
    moments, done, wrong, turn = random.Random(options.seed), 0, 0, 0
    whole: dict[tuple[str, int], tuple[float, dict[str, str]]] = {}
    with tempfile.TemporaryDirectory() as place:
        data, log = draw_pictures(Path(place) / "data"), Path(place) / "log"
        while done < options.kills:
            name, count = options.systems[turn % len(options.systems)], 1 + turn // len(options.systems) % 2
            turn += 1
            given = ["--system", name, *OPTIONS, "--size", "64", "--batch", "2", "--steps", "24"]
            given += ["--checkpoint-every", "4"]
            given += ["--content", "efficientnet-lite0"] if name == "cartoongan" else []
            if (name, count) not in whole:
                run, began = Path(place) / f"{name}-{count}", time.monotonic()
                ended = wait(start(count, ["train", str(data), "-o", str(run), *given], log, lambda _: None), log)
                assert not any(one.code for one in ended), ended
                whole[name, count] = time.monotonic() - began, fingerprint(run)
            seconds, expected = whole[name, count]
            run = Path(place) / "killed"
            shutil.rmtree(run, ignore_errors=True)
            steps: list[str] = []
            while True:
                known = (run / "config.json").exists()
                command = ["--resume", str(run)] if known else [str(data), "-o", str(run), *given]
                if run.exists() and not known:
                    shutil.rmtree(run)
                children = start(count, ["train", *command], log, lambda _: None)
                if done < options.kills:
                    time.sleep(moments.uniform(0, (0.8 + 0.2 * len(steps)) * seconds))  # it gets there in the end
                    for child in children:
                        os.kill(child, signal.SIGKILL)
                ended = wait(children, log)
                if all(one.code == 0 for one in ended):
                    break
                assert any(one.code == -signal.SIGKILL for one in ended), ended
                done += 1
                steps.append(max((f.name[-2:] for f in run.glob("checkpoints/step-*")), default="0"))
            found = fingerprint(run)
            differ = [part for part in expected if expected[part] != found.get(part)]
            wrong += bool(differ)
            result = f"DIFFERENT: {', '.join(differ)}" if differ else "the same bytes"
            print(f"{name}, {count} processes, killed after the checkpoints {' '.join(steps)}: {result}", flush=True)
    print(f"{done} kills, {wrong} runs that ended otherwise")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    chosen = tyro.cli(
        Annotated[FailuresConfig, tyro.conf.subcommand("failures")]
        | Annotated[KillsConfig, tyro.conf.subcommand("kills")]  # type: ignore[arg-type]
    )
    kills(chosen) if isinstance(chosen, KillsConfig) else failures(chosen)
