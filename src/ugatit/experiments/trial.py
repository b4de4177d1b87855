"""How long a training step takes, tried in a process of its own, as runs are trained in."""

import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch

from ugatit.experiments.runs import environment
from ugatit.io.errors import UserError
from ugatit.nn.precision import tf32
from ugatit.systems.base import LONG, channels_of
from ugatit.training.config import TrainConfig, read_run, write_run
from ugatit.training.recorded import AS_USUAL
from ugatit.training.trainer import Trainer


def seconds_a_step(config: TrainConfig, jobs: int) -> float:
    """Of a run that is one of several trained at a time, with the threads and the card that it will have.

    Raises:
        UserError: it cannot be trained.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_run(replace(config, recipe=replace(config.recipe, steps=LONG)), Path(folder))
        command = [sys.executable, "-P", "-m", "ugatit.experiments.trial", folder]
        made = subprocess.run(command, env=environment(0, jobs), capture_output=True, text=True)
    if made.returncode:
        reason = made.stderr.strip().splitlines()[-1:] or [f"its trial ended with {made.returncode}"]
        raise UserError(f"{config.system} cannot be trained: {reason[0]}")
    return float(made.stdout.split()[-1])


def try_steps(run: Path) -> float:
    """Seconds that a step of a run takes in this process, from a few steps of each kind that the run has."""
    config = read_run(run)
    trainer = Trainer(config, run, resume=False)
    trainer.system.train()
    batch, side, device = config.recipe.batch, config.model.size, trainer.accelerator.device
    pictures = [torch.rand(batch, c, side, side, device=device) * 2 - 1 for c in channels_of(config.model)]
    seconds = 0.0
    with tf32(config.tf32):
        for clock, share in trainer.system.kinds_of_steps():
            trainer.step, marks = clock.step, []
            before = AS_USUAL + 1 if trainer.records else 0  # the steps before those that a run mostly has
            for number in range(before + 5):
                losses = trainer.train_step(*pictures)
                next(iter(losses.values())).item()  # waits for the device
                marks += [time.monotonic()] if number >= before else []
            seconds += share * median(end - begin for begin, end in pairwise(marks))
    return seconds


if __name__ == "__main__":
    try:
        print(try_steps(Path(sys.argv[1])))
    except UserError as error:
        sys.exit(str(error))
