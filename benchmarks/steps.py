"""A training step by the textbook, with the plain formulas and with the fast forms: python benchmarks/steps.py

For each setting all run at once, each in a process of its own, and take turns: one step of the one, one of the next,
so that whatever else the machine does meets all. The first steps warm up and do not count. Printed and written to
``benchmarks/steps.json``: median seconds a step, and the most memory that was resident beyond what the process had
before it made the networks. ``--profile`` adds a table for each of where a step's time goes.

The textbook is the transcription of the paper that the tests are held against, in which nothing is shared, with
PyTorch's Adam.
"""

import gc
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import tyro
from grey import grey_run
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from ugatit.nn.norm import clip_rho
from ugatit.nn.switch import fast_forms
from ugatit.systems.ugatit import UGATIT, UGATITConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import oracle

console = Console(width=150)
SIDES = ("textbook", "plain", "fast")


class Setting(NamedTuple):
    """What is trained: LIGHT-WIDTH-SIZE-BATCH on the command line, for example light-64-128-1."""

    kind: Literal["light", "full"]
    width: int
    size: int
    batch: int

    def __str__(self) -> str:
        return "-".join(map(str, self))


PAIRS = [(64, 64), (64, 128), (16, 128)]  # width, size
SETTINGS = [Setting(kind, width, size, 1) for kind in ("light", "full") for width, size in PAIRS]
SETTINGS += [Setting("light", 16, size, 1) for size in (64, 192, 256)]
SETTINGS += [Setting("light", 16, 128, batch) for batch in (2, 4, 8)]


@dataclass(frozen=True)
class Config:
    settings: tyro.conf.Positional[tuple[str, ...]] = tuple(map(str, SETTINGS))
    """KIND-WIDTH-SIZE-BATCH, for example light-64-128-1."""
    steps: int = 5
    """Measured steps of each."""
    warm_up: int = 2
    """Steps before them."""
    only: tuple[Literal["textbook", "plain", "fast"], ...] = SIDES  # type: ignore[assignment]
    """Measure some alone, where memory does not hold all."""
    profile: bool = False
    """Also profile one step of each."""
    options: tuple[str, ...] = ()
    """Settings of the model by name, for example checkpointing=True."""
    out: Path = Path("benchmarks/steps.json")
    """Results; those of other settings in it are kept."""


class Side:
    """The step that `ugatit train` makes, in one form."""

    def __init__(self, setting: Setting, config: UGATITConfig, fast: bool):
        self.trainer = grey_run(setting.kind, asdict(config))
        self.fast = fast

    def step(self, real_a: torch.Tensor, real_b: torch.Tensor) -> None:
        with fast_forms(self.fast):
            self.trainer.train_step(real_a, real_b)


class Textbook:
    """The step as the paper says it, one thing after the other."""

    def __init__(self, setting: Setting, config: UGATITConfig):
        self.system = UGATIT(config)
        self.system.init_weights()
        learned = dict(self.system.named_parameters())
        self.params = {name: tensor.detach() for name, tensor in self.system.state_dict().items()} | learned
        self.setting = oracle.Setting(config.blocks, config.light)
        adam = partial(torch.optim.Adam, lr=1e-4, betas=(0.5, 0.999), weight_decay=1e-4)
        self.updates = [
            (losses, adam([p for name, p in learned.items() if name.startswith(kind)]))
            for kind, losses in (("disc", oracle.disc_losses), ("gen", oracle.gen_losses))
        ]

    def step(self, real_a: torch.Tensor, real_b: torch.Tensor) -> None:
        for losses, optimizer in self.updates:
            oracle.power_iteration(self.params)
            loss = oracle.total(losses(self.params, real_a, real_b, self.setting), oracle.WEIGHTS)
            loss.backward(inputs=optimizer.param_groups[0]["params"])
            optimizer.step()
            optimizer.zero_grad()
        clip_rho(self.system)


def resident() -> int:
    """Bytes that are resident now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def work(side: str, setting: Setting, changes: dict[str, Any], line: Connection) -> None:
    """One process: make the networks, then a step for each "step" it is sent, and answer its seconds."""
    gc.collect()
    before = resident()
    config = UGATITConfig(size=setting.size, width=setting.width, light=setting.kind == "light")
    config = replace(config, **changes)
    made = Textbook(setting, config) if side == "textbook" else Side(setting, config, fast=side == "fast")
    pictures = torch.rand(2, setting.batch, 3, setting.size, setting.size) * 2 - 1
    line.send(None)
    while (order := line.recv()) != "end":
        began = time.perf_counter()
        if order == "profile":
            with profile(activities=[ProfilerActivity.CPU]) as found:
                made.step(*pictures)
            line.send(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=14, max_name_column_width=48))
            continue
        made.step(*pictures)
        seconds = time.perf_counter() - began
        line.send((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before))


def measure(setting: Setting, options: Config) -> dict[str, dict[str, float]]:
    """Seconds a step and bytes of each side."""
    spawn = multiprocessing.get_context("spawn")
    changes = {name: json.loads(value.lower()) for name, value in (o.split("=") for o in options.options)}
    lines: dict[str, Connection] = {}
    for side in options.only:
        lines[side], far = spawn.Pipe()
        spawn.Process(target=work, args=(side, setting, changes, far), daemon=True).start()
        lines[side].recv()
    seconds: dict[str, list[float]] = {side: [] for side in lines}
    peak = dict.fromkeys(lines, 0)
    for turn in range(options.warm_up + options.steps):
        for side, line in lines.items():
            line.send("step")
            took, peak[side] = line.recv()
            if turn >= options.warm_up:
                seconds[side].append(took)
    for side, line in lines.items():
        if options.profile:
            line.send("profile")
            console.print(f"{setting}, {side}", line.recv(), sep="\n", soft_wrap=True)
        line.send("end")
    return {
        side: {"seconds": statistics.median(seconds[side]), "seconds_all": seconds[side], "bytes": peak[side]}
        for side in lines
    }


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def table(results: dict[str, Any]) -> Table:
    """All results, one setting a row."""
    shown = Table("kind-width-size-batch", *[f"{s} s" for s in SIDES], "times faster", *[f"{s} GiB" for s in SIDES])
    for name, sides in results.items():
        s, g = ({k: v[key] for k, v in sides.items()} for key in ("seconds", "bytes"))
        shown.add_row(
            name,
            *[f"{s[side]:.3f}" if side in s else "-" for side in SIDES],
            " ".join(f"{s[side] / s['fast']:.2f}" for side in s if side != "fast" and "fast" in s),
            *[f"{g[side] / 2**30:.2f}" if side in g else "-" for side in SIDES],
        )
    return shown


def main(options: Config) -> None:
    written = json.loads(options.out.read_text()) if options.out.exists() else {}
    results = written.get("results", {})
    for name in options.settings:
        kind, *numbers = name.split("-")
        setting = Setting(kind, *map(int, numbers))  # type: ignore[arg-type]
        results[" ".join((name, *options.options))] = measure(setting, options)
        options.out.write_text(json.dumps({"machine": machine(), "results": results}, indent=1) + "\n")
    console.print(table(results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
