"""What a card does, in at most eight minutes: python benchmarks/gpu.py

First what it computes: losses and gradients of every system, in float32 with the paper's formulas and with the fast
forms, against float64 on the processor; and whether half precision stays finite. Then how fast: seconds a training step
and the most memory, pictures a second of translation, and where the time of the fastest step goes. What there was no
time for is counted. All is printed, and written as JSON and as Markdown.
"""

import copy
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
import tyro
from grey import grey_run
from rich.console import Console
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from ugatit.nn.fast.factored import factors_of, gradient
from ugatit.nn.precision import tf32
from ugatit.nn.pretrained import content_network
from ugatit.nn.switch import fast_forms
from ugatit.systems import REGISTRY, cartoongan
from ugatit.systems.base import Clock, System, channels_of
from ugatit.systems.ugatit import UGATIT, UGATITConfig
from ugatit.training.recorded import AS_USUAL
from ugatit.training.trainer import Trainer
from ugatit.translation.translator import Translator

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import oracle

console = Console(width=150)
LOSS, GRADIENT = 1e-3, 2e-2  # relative errors that are allowed: of a loss, and of the gradient of a network as a whole
SMALLEST = {"unit": 64, "munit": 64, "drit": 64}  # pixels on a side; others take 32
FORMS = ("plain", "fast", "recorded")  # and "compiled"; the last two launch a step's kernels together


@dataclass(frozen=True)
class Config:
    minutes: float = 8
    """What is not begun by then is left out."""
    out: Path = Path("benchmarks/gpu")
    """Results are written to OUT.json and OUT.md."""


# What it computes


def losses_and_gradients(system: System, real: tuple[Tensor, Tensor], fast: bool) -> dict[str, Tensor]:
    """Losses of all updates of a step whose weights stay as they are, and their gradients, each as one vector; as
    float64 on the processor."""
    found: dict[str, Tensor] = {}
    optimizers = system.optimizers()
    clock = system.kinds_of_steps()[-1][0]  # the one with all updates
    torch.manual_seed(0)
    with fast_forms(fast):
        for number, update in enumerate(system.updates(*real, clock)):
            mine = [p for name in update.optimizers for group in optimizers[name].param_groups for p in group["params"]]
            update.loss.backward(inputs=mine, retain_graph=True)
            parts = [gradient(p).flatten().double().cpu() for p in mine if p.grad is not None or factors_of(p)]
            found[f"gradient {number}"] = torch.cat(parts)
            found[f"loss {number}"] = update.loss.detach().double().cpu()
            for name in update.optimizers:
                optimizers[name].zero_grad()
    return found


def small(name: str) -> tuple[System, tuple[Tensor, Tensor]]:
    """A system and pictures, in float64 on the processor."""
    kind, side = REGISTRY[name], SMALLEST.get(name, 32)
    torch.manual_seed(0)
    system = kind(replace(kind.presets["quick"].model, size=side, width=4, blocks=1)).double()
    system.init_weights()
    real_a, real_b = (torch.rand(2, c, side, side, dtype=torch.float64) * 2 - 1 for c in channels_of(system.config))
    return system.train(), (real_a, real_b)


def compared_alike(dtype: torch.dtype) -> None:
    """Have noise be what all devices draw alike, and the network whose features CartoonGAN compares be of a type."""

    def noise(_: Clock, like: Tensor, *shape: int) -> Tensor:
        return torch.full((len(like), *shape), 0.5, device=like.device, dtype=like.dtype)

    def features(*arguments: Any) -> torch.nn.Module:
        return copy.deepcopy(content_network(*arguments)).to(dtype)

    Clock.noise = noise  # type: ignore[method-assign]
    cartoongan.content_network = features  # type: ignore[assignment]


def check_system(name: str, device: str) -> dict[str, float]:
    """The worst relative errors of a system on a device, for the plain and the fast forms.

    Raises:
        SystemExit: one is too large.
    """
    system, real = small(name)
    compared_alike(torch.float64)
    wanted = losses_and_gradients(copy.deepcopy(system), real, fast=False)
    worst: dict[str, float] = {}
    compared_alike(torch.float32)
    for form in ("plain", "fast"):
        there = copy.deepcopy(system).float().to(device)
        with tf32(False):
            found = losses_and_gradients(there, tuple(x.float().to(device) for x in real), form == "fast")  # type: ignore[arg-type]
        for key, value in wanted.items():
            error = ((found[key] - value).norm() / value.norm().clamp(min=1e-12)).item()
            kind, most = ("loss", LOSS) if key.startswith("loss") else ("gradient", GRADIENT)
            worst[f"{form} {kind}"] = max(worst.get(f"{form} {kind}", 0.0), error)
            if not error < most:
                raise SystemExit(f"{name}, {form}: {key} is off by {error:.1e}, relative; {most:.0e} is allowed")
    return worst


# How fast


class Setting(NamedTuple):
    """What is trained, and how."""

    kind: str  # light or full
    batch: int
    form: str
    precision: str


@lru_cache(maxsize=1)
def trained(kind: str, size: int, width: int, precision: str, compiled: bool) -> Trainer:
    """A run of grey pictures; one at a time, as the full networks take long to make."""
    gc.collect()  # the one before
    return grey_run(kind, {"size": size, "width": width}, precision=precision, compile=compiled)


def steps_of(setting: Setting, size: int, width: int) -> Callable[[Tensor, Tensor], dict[str, Tensor]]:
    """What makes training steps of pictures of both domains."""
    mixed = setting.precision if setting.precision in ("bf16", "fp16") else "no"
    trainer = trained(setting.kind, size, width, mixed, setting.form == "compiled")
    trainer.recorded.clear()
    trainer.records = trainer.accelerator.device.type == "cuda" and setting.form in ("recorded", "compiled")

    def step(real_a: Tensor, real_b: Tensor) -> dict[str, Tensor]:
        with fast_forms(setting.form != "plain"), tf32(setting.precision == "tf32"):
            return trainer.train_step(real_a, real_b)

    return step


def timed(work: Callable[[], Any], device: str, warm_up: int = 2, times: int = 5) -> tuple[float, float]:
    """Median seconds, and the most GiB of the card's memory."""
    on_card = torch.device(device).type == "cuda"
    if on_card:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    for _ in range(warm_up):
        work()
    if on_card:
        torch.cuda.synchronize()
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        if on_card:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), torch.cuda.max_memory_allocated() / 2**30 if on_card else 0.0


def measure_step(setting: Setting, device: str, size: int = 256, width: int = 64) -> dict[str, Any]:
    """Seconds and memory of a training step; and whether its losses are finite."""
    step, losses = steps_of(setting, size, width), {}
    pictures = torch.rand(2, setting.batch, 3, size, size, device=device) * 2 - 1
    seconds, gib = timed(lambda: losses.update(step(*pictures)), device, warm_up=AS_USUAL + 1)
    finite = all(bool(loss.isfinite()) for loss in losses.values())
    return {**setting._asdict(), "seconds": seconds, "gib": gib, "finite": finite}


def measure_textbook(kind: str, device: str, size: int = 256, width: int = 64) -> dict[str, Any]:
    """The same of the transcription of the paper that the tests are held against."""
    config = UGATITConfig(size=size, width=width, light=kind == "light")
    system = UGATIT(config)
    system.init_weights()
    learned = dict(system.named_parameters())
    params = {name: tensor.detach().to(device).clone() for name, tensor in system.state_dict().items()}
    for name in learned:
        params[name].requires_grad_()
    setting = oracle.Setting(config.blocks, config.light)
    real = torch.rand(2, 1, 3, size, size, device=device) * 2 - 1
    with tf32(False):
        seconds, gib = timed(lambda: oracle.step(params, *real, setting), device, 1, 3)
    return {"kind": kind, "batch": 1, "form": "textbook", "precision": "float32", "seconds": seconds, "gib": gib}


def measure_translation(
    size: int, how: str, precision: str, batch: int, device: str, width: int = 64
) -> dict[str, Any]:
    """Pictures a second of a light model of 256 pixels."""
    system = UGATIT(UGATITConfig(size=256 if size >= 256 else size, width=width, light=True))
    system.init_weights()
    translator = Translator(system, device, "no" if precision == "float32" else precision)  # type: ignore[arg-type]
    pictures = torch.rand(batch, 3, size, size, device=device) * 2 - 1
    seconds, gib = timed(lambda: translator(pictures, size=how, batch=batch), device)  # type: ignore[call-overload]
    return {"size": size, "how": how, "precision": precision, "batch": batch, "a second": batch / seconds, "gib": gib}


def settings() -> Iterator[Setting]:
    """What is measured, what matters most first."""
    for kind, precisions in (
        ("light", ("bf16",)),
        ("light", ("float32", "tf32")),
        ("full", ("bf16",)),
        ("light", ("fp16",)),
        ("full", ("float32", "tf32")),
        ("full", ("fp16",)),
    ):
        yield from (Setting(kind, *rest) for rest in product((1, 4, 8), FORMS, precisions))
        if (kind, precisions) == ("full", ("bf16",)):  # to compile takes a minute for each size of a batch
            yield from (Setting(kind, batch, "compiled", "bf16") for batch in (1, 8))


def profiled(setting: Setting, device: str) -> str:
    """Where the time of a step goes."""
    step = steps_of(setting, 256, 64)
    pictures = torch.rand(2, setting.batch, 3, 256, 256, device=device) * 2 - 1
    for _ in range(AS_USUAL + 1):
        step(*pictures)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        step(*pictures)
        torch.cuda.synchronize()
    return found.key_averages().table(sort_by="self_cuda_time_total", row_limit=20, max_name_column_width=60)


# What is written


def attempt(work: Callable[[], dict[str, Any]], what: dict[str, Any]) -> dict[str, Any]:
    """What was measured, or why it was not."""
    try:
        return work()
    except torch.OutOfMemoryError:
        return what | {"failed": "out of memory"}
    except Exception as error:  # of a compiler, which raises many kinds: the others go on
        return what | {"failed": f"{type(error).__name__}: {str(error).splitlines()[0]:.80}"}


def row(found: dict[str, Any], keys: tuple[str, ...]) -> str:
    """A line of a table in Markdown."""
    cells = [found.get(key, found.get("failed", "")) for key in keys]
    return "| " + " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells) + " |"


def table(rows: list[dict[str, Any]], keys: tuple[str, ...]) -> list[str]:
    """A table in Markdown."""
    return ["| " + " | ".join(keys) + " |", "|" + " --- |" * len(keys), *[row(found, keys) for found in rows], ""]


def markdown(results: dict[str, Any]) -> str:
    """All results as a page."""
    checked = [{"system": name} | errors for name, errors in results["errors"].items()]
    kinds = tuple(f"{form} {kind}" for form in ("plain", "fast") for kind in ("loss", "gradient"))
    lines = [f"# {results['card']}, torch {results['torch']}", ""]
    lines += ["Worst errors against float64 on the processor, relative:", "", *table(checked, ("system", *kinds))]
    lines += ["Training steps at 256 px, width 64:", ""]
    lines += table(results["steps"], ("kind", "batch", "form", "precision", "seconds", "gib", "finite"))
    lines += ["Translation, light, width 64:", ""]
    lines += table(results["translation"], ("size", "how", "precision", "batch", "a second", "gib"))
    lines += [
        f"{results['left out']} settings were left out for want of time.",
        "",
        "```",
        results["profile"],
        "```",
        "",
    ]
    return "\n".join(lines)


def write(results: dict[str, Any], out: Path) -> None:
    """Write what was found until now."""
    out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    out.with_suffix(".md").write_text(markdown(results))


def main(options: Config) -> None:
    if not torch.cuda.is_available():
        raise SystemExit("There is no CUDA card here that torch can use: run this where there is one.")
    device, end = "cuda", time.monotonic() + 60 * options.minutes
    results: dict[str, Any] = {"card": torch.cuda.get_device_name(), "torch": torch.__version__, "errors": {}}
    for name in REGISTRY:
        results["errors"][name] = check_system(name, device)
        console.print(name, results["errors"][name])
    plan: list[tuple[str, Callable[[], dict[str, Any]], dict[str, Any]]] = []
    chosen = list(settings())
    plan += [("steps", lambda s=s: measure_step(s, device), s._asdict()) for s in chosen[:9]]
    plan += [
        ("steps", lambda k=k: measure_textbook(k, device), {"kind": k, "form": "textbook"}) for k in ("light", "full")
    ]
    for size, how, precision, batch in (
        *product((256,), ("model",), ("float32", "bf16", "fp16"), (1, 8)),
        *product((1024,), ("keep", "tiles"), ("float32", "bf16", "fp16"), (1,)),
    ):
        what = {"size": size, "how": how, "precision": precision, "batch": batch}
        plan.append(("translation", lambda w=what: measure_translation(**w, device=device), what))
    plan += [("steps", lambda s=s: measure_step(s, device), s._asdict()) for s in chosen[9:]]
    results |= {"steps": [], "translation": [], "left out": 0, "profile": ""}
    for part, work, what in plan:
        if time.monotonic() > end - 30:  # the profile's
            results["left out"] += 1
            continue
        results[part].append(attempt(work, what))
        console.print(results[part][-1])
        write(results, options.out)
    done = [found for found in results["steps"] if found.get("finite")]
    if done:
        best = min(done, key=lambda found: found["seconds"] / found["batch"])
        chosen_best = Setting(*(best[key] for key in Setting._fields))
        results["profile"] = f"{chosen_best}\n{profiled(chosen_best, device)}"
    write(results, options.out)
    console.print(markdown(results), markup=False)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
