"""What processes that train together send each other, and how many pictures they see: python benchmarks/processes.py

Alone it tells what a step of each setting has to send, in numbers of bytes, and how long that takes over a network.
Started by torchrun with two processes or more it trains, and counts what went over the loopback as well:

    torchrun --nproc-per-node 2 benchmarks/processes.py light-24-64-1
"""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from grey import grey_run
from rich.console import Console
from rich.table import Table

from ugatit.nn.fast.factored import factors_of
from ugatit.training.trainer import Trainer
from ugatit.translation.sharing import this_process

console = Console(width=150)
NETWORKS = {"25 Gbit/s": 25e9 / 8, "NVLink, 450 GB/s": 450e9}  # bytes a second, each way
PROCESSES = (2, 8, 16)


@dataclass(frozen=True)
class Config:
    settings: tyro.conf.Positional[tuple[str, ...]] = ("light-64-256-1",)
    """KIND-WIDTH-SIZE-BATCH."""
    steps: int = 20
    """Measured steps, after two."""


class Counted(Trainer):
    """A trainer that notes how many bytes of gradients an update has: whole, and in factors."""

    def optimize(self, optimizers: list[torch.optim.Optimizer]) -> None:
        parameters = [p for o in optimizers for group in o.param_groups for p in group["params"]]
        self.whole += sum(p.grad.nbytes for p in parameters if p.grad is not None)
        share = self.accelerator.num_processes  # factors are those of all
        self.factors += sum(t.nbytes for p in parameters for pair in factors_of(p) for t in pair) // share
        super().optimize(optimizers)

    def step_on(self, pictures: torch.Tensor) -> None:
        self.whole = self.factors = 0
        self.train_step(*pictures)
        self.step += 1


def trainer_of(setting: str) -> tuple[Counted, torch.Tensor]:
    """A run, and the pictures of a step."""
    kind, width, size, batch = setting.split("-")
    trainer = grey_run(kind, {"size": int(size), "width": int(width)}, Counted)
    return trainer, torch.rand(2, int(batch), 3, int(size), int(size)) * 2 - 1


def sent(whole: int, factors: int, processes: int) -> float:
    """Bytes that each process sends a step: whole gradients in a ring, there and back, its factors to all others."""
    return 2 * (processes - 1) / processes * whole + (processes - 1) * factors


def over_loopback() -> int:
    """Bytes that went over the loopback until now."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.strip().startswith("lo:"))


def main(options: Config) -> None:
    rank, processes = this_process()
    names = ("pictures/s", "computed MB", "counted MB") if processes > 1 else ("whole MB", "factors MB")
    columns = [f"{n} processes, {name}" for n in PROCESSES for name in NETWORKS] if processes == 1 else []
    table = Table("kind-width-size-batch", *names, *columns)
    for setting in options.settings:
        trainer, pictures = trainer_of(setting)
        for _ in range(2 if processes > 1 else 1):
            trainer.step_on(pictures)
        if processes == 1:
            times = [
                f"{sent(trainer.whole, trainer.factors, n) / speed * 1e3:.1f} ms"
                for n in PROCESSES
                for speed in NETWORKS.values()
            ]
            table.add_row(setting, f"{trainer.whole / 1e6:.1f}", f"{trainer.factors / 1e6:.1f}", *times)
            continue
        torch.distributed.barrier()
        before, began = over_loopback(), time.monotonic()
        for _ in range(options.steps):
            trainer.step_on(pictures)
        torch.distributed.barrier()
        seconds, counted = time.monotonic() - began, over_loopback() - before
        seen = options.steps * processes * pictures.shape[1] / seconds
        computed = processes * sent(trainer.whole, trainer.factors, processes)
        table.add_row(setting, f"{seen:.2f}", f"{computed / 1e6:.2f}", f"{counted / options.steps / 1e6:.2f}")
    if rank == 0:
        console.print(table)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
