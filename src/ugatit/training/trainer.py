"""The trainer: one loop for every system, and the run's folder that it fills.

``RUN/`` holds ``config.json`` (all that is needed to repeat the run, and what was changed when it was resumed),
``pictures.json`` (the files that it trains on and those that it never does), ``metrics.jsonl``, ``previews/``,
``checkpoints/``, ``model/``, the folder to keep and share, and where they were asked for ``kid/`` and ``best/``,
``tensorboard/``, ``wandb/`` and ``cache/``.
"""

import json
import math
import os
import re
import shlex
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, BinaryIO, Protocol

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import reduce
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.optim import Optimizer

from ugatit.data.finding import (
    Pictures,
    Skipped,
    differences,
    find_pictures,
    need_apart,
    split_of,
    spread,
)
from ugatit.data.kept import Kept, folder_for
from ugatit.data.places import title
from ugatit.data.sampling import Slices, Unpaired, loader, read_tests, train_transform
from ugatit.data.seeds import seed_of
from ugatit.io.errors import UserError, on_one_line, with_options, words_of
from ugatit.io.files import alone_in, atomic_file, remove_left, write_json, write_text, writing
from ugatit.io.processes import this_process
from ugatit.io.sheet import draw_sheet
from ugatit.io.terminal import console, counted, endings, say, some
from ugatit.nn.augment import DiffAugment
from ugatit.nn.fast.factored import factors_of, show_overflow
from ugatit.nn.precision import tf32
from ugatit.nn.switch import compile_networks, fast_forms
from ugatit.systems import REGISTRY
from ugatit.systems.base import Clock, System, channels_of, samples_of
from ugatit.training.checkpoint import (
    Checkpoint,
    checkpoints,
    load_newest,
    pack_optimizers,
    prune,
    save_checkpoint,
    set_aside,
    unpack_optimizers,
)
from ugatit.training.config import (
    RUN_CANNOT,
    TrainConfig,
    changed_settings,
    check_range,
    read_run,
    run_adapter,
    settings_of,
    shared_settings,
    write_run,
)
from ugatit.training.distributed import any_says, averaged, differing, told_by_first
from ugatit.training.ema import Ema
from ugatit.training.pictures import lost_picture, report_pictures, with_faces, with_ranges
from ugatit.training.preview import preview_columns
from ugatit.training.recorded import Recorded, Step, take_from_card
from ugatit.training.signs import Signs, unchanged
from ugatit.training.start import model_to_start, take_weights
from ugatit.training.tracking import need_trackers, start_tracking, track_pictures
from ugatit.translation.card import Training, card_text, write_card
from ugatit.translation.files import out_of_memory
from ugatit.translation.folder import save_model, saved_step

TRAINED = "is being trained by another process: stop that first, or wait for its end"
SAME_SIGNAL = 2.0  # seconds within which a second signal to stop is the first one again


class Curve(Protocol):
    """What measures a system while it trains."""

    def __call__(self, system: System, step: int) -> tuple[dict[str, float], bool]:
        """Figures for the log, and whether this step is the best so far."""

    def measured(self, step: int) -> list[str]:
        """What a model's card tells of a step, in lines; nothing if it was not measured."""

    def summary(self) -> list[str]:
        """What is told at the end, in lines."""


# Of a run's pictures, its system, folder and device, and the step after which it goes on.
StartCurve = Callable[[Pictures, System, Path, torch.device, int], Curve]


class Trainer:
    """A run in progress."""

    def __init__(self, config: TrainConfig, run: Path, resume: bool, start_curve: StartCurve | None = None):
        self.config, self.run = config, run
        self.known, old = split_of(run) if resume else (None, False)
        AcceleratorState._reset_state()  # an earlier run in this process may have had another precision
        self.accelerator = Accelerator(
            mixed_precision=config.precision,
            cpu=not torch.accelerator.is_available(),  # without this, several CPU processes do not find each other
        )
        self.accelerator.gradient_accumulation_steps = 1  # whatever a launcher says: steps are the method's
        if config.precision == "fp16" and self.accelerator.scaler is None:
            raise UserError(f"`precision=fp16` cannot be used on {self.accelerator.device}: use bf16 or no.")
        if config.recipe.jitter and not {1, 3}.issuperset(channels_of(config.model)):
            raise UserError("`jitter` is known for grey and colour pictures only: leave it out.")
        begun = resume and bool(checkpoints(run / "checkpoints"))
        start = None if begun or not config.start else model_to_start(config.start, REGISTRY[config.system])
        places = config.data, config.source, config.target
        if not resume:
            need_apart(run, *places)
        look = partial(find_pictures, *places, config.holdout, config.seed, self.known, old, channels_of(config.model))
        self.pictures = told_by_first(look, self.accelerator)
        self.pictures.need_training()
        model = with_ranges(config.model, self.pictures, self.say)
        self.config = config = replace(config, model=with_faces(model, self.pictures, self.say))
        self.system = self.build(start)
        self.optimizers = self.system.optimizers()
        self.factored = {p for p in self.system.parameters() if hasattr(p, "factors")}
        self.base_lr = {n: [g["lr"] for g in o.param_groups] for n, o in self.optimizers.items()}
        self.recorded: dict[tuple[int, int], Recorded] = {}
        alone_on_card = self.accelerator.device.type == "cuda" and self.accelerator.num_processes == 1
        self.records = config.graph and alone_on_card and self.system.recordable and self.scales_on_card()
        self.ema = Ema(self.system, config.recipe.ema) if config.recipe.ema else None
        self.step = 0  # steps done
        self.seen = 0  # pictures of each domain that they had
        self.together = config.recipe.batch * self.accelerator.num_processes  # of them in a step
        self.saved: int | None = None  # of them when the newest checkpoint was written
        self.pending: list[dict[str, Any]] = []  # losses of the steps not yet logged
        if resume:
            self.restore()
            self.check_step()
            if self.step > config.recipe.steps:
                raise UserError(f"`steps={config.recipe.steps}`: {run} has done {self.step}: give as many or more.")
        for optimizer in self.optimizers.values():
            if self.records:
                take_from_card(optimizer)
            self.accelerator.prepare(optimizer)  # moves its state; clipping asks for all that were prepared
        self.tests = self.read_previews()
        self.curve: Curve | None = None
        if config.evaluate_every:
            if start_curve is None:
                raise UserError("`evaluate_every` needs something that measures: give `start_curve`.")
            self.curve = start_curve(self.pictures, self.system, run, self.accelerator.device, self.step)
        self.stop_signal: int | None = None
        self.handlers: dict[int, Any] = {}  # of signals, as they were before training
        self.signs = Signs()

    def build(self, start: System | None) -> System:
        """The system on the device, with fresh weights, or those of a model."""
        config, accelerator = self.config, self.accelerator
        torch.manual_seed(seed_of(config.seed, "weights"))
        system: System = REGISTRY[config.system](config.model)
        system.init_weights()
        if start is not None:
            self.begin_with(system, start)
        system.to(accelerator.device)
        if config.recipe.diff_augment:
            augment = DiffAugment(config.recipe.diff_augment, accelerator.process_index, accelerator.num_processes)
            for judge in system.judges:
                augment.watch(judge)
        if config.compile:
            compile_networks(system)
        return system

    def read_previews(self) -> list[Tensor]:
        """The pictures that previews show, of A and of B: test pictures, where there are none training pictures."""
        found = self.pictures
        both = ("a", found.test_a or found.train_a), ("b", found.test_b or found.train_b)
        model, count = self.config.model, self.config.preview_pictures
        return [read_tests(spread(files, count), model.size, samples_of(model, domain)) for domain, files in both]

    def begin_with(self, system: System, start: System) -> None:
        """Take the weights of a model, and say which parts begin afresh, and which of the model's find no place."""
        afresh, left = take_weights(system, start)
        told = "".join(
            f"; {what}: {', '.join(names)}" for what, names in (("afresh begin", afresh), ("not taken", left)) if names
        )
        self.say(f"The weights are those of {self.config.start}{told}.", "yellow" if left else None)

    # The loop

    def train(self) -> None:
        """Train to the configured number of steps, or until a signal asks for the end."""
        config, accelerator = self.config, self.accelerator
        recipe = config.recipe
        if self.step == recipe.steps and saved_step(self.run / "model") != self.step:
            self.guarded(self.refresh_model, "model", fatal=True)  # the last step was saved, and then the disk was full
        self.system.train()
        self.started = (time.monotonic(), self.step)
        forms = fast_forms(config.fast)
        with tf32(config.tf32), forms, self.signals(), self.progress() as progress:
            task = progress.add_task("", total=config.recipe.steps, completed=self.step, losses="")
            for batch in self.batches():
                unsaved = accelerator.is_main_process and self.step != self.saved
                stop, lost, unsaved = any_says(
                    [self.stop_signal is not None, isinstance(batch, Skipped), unsaved], accelerator
                )
                if (stop or lost) and unsaved:
                    self.settle()
                    self.check_agreement()
                    self.keep(fatal=stop)
                if lost:
                    raise UserError(lost_picture(batch))
                if stop:
                    break
                assert not isinstance(batch, Skipped)
                real_a, real_b = (x.to(accelerator.device, non_blocking=True) for x in batch)
                self.pending.append(self.train_step(real_a, real_b))
                self.step += 1
                self.seen += self.together
                log, preview, evaluation, checkpoint = map(
                    self.due, (config.log_every, config.preview_every, config.evaluate_every, config.checkpoint_every)
                )
                if log or preview or evaluation or checkpoint:
                    self.settle()
                if log:
                    progress.update(task, losses=self.log())
                if (preview or evaluation) and any_says([self.stop_signal is not None], accelerator)[0]:
                    preview = evaluation = False  # launchers do not wait for long
                if preview:
                    self.guarded(self.preview, "preview")
                if evaluation:
                    self.guarded(self.evaluate, "evaluation", together=True)
                if checkpoint:
                    self.check_agreement()
                    self.keep(fatal=self.step == recipe.steps)
                progress.update(task, completed=self.step)
        for tracker in accelerator.trackers:  # the processes still know each other: the next run may want that
            self.track(tracker.finish)

    def batches(self) -> Iterator[tuple[Tensor, Tensor] | Skipped]:
        """What this process sees of the steps that are left."""
        config, accelerator = self.config, self.accelerator
        model, recipe, processes = config.model, config.recipe, accelerator.num_processes
        samples = {domain: samples_of(model, domain) for domain in "ab"}
        side = round(model.size * recipe.enlarge)
        kept = None
        if config.cache:
            kept = Kept(folder_for(self.run / "cache", (side, samples)), int(config.cache * 2**30), processes)
        pictures = Unpaired(
            self.pictures.train_a,
            self.pictures.train_b,
            train_transform(model.size, recipe.flip, recipe.turn, recipe.scale, recipe.jitter),
            samples,
            config.seed,
            side,
            kept,
        )
        left = recipe.steps - self.step
        slices = Slices(self.seen, left, recipe.batch, accelerator.process_index, processes)
        batches = iter(loader(pictures, slices, workers=self.workers(), pin=accelerator.device.type == "cuda"))
        if hasattr(signal, "SIGCHLD") and in_main_thread():
            # torch would raise in the midst of a step that a worker has ended; it also tells when a batch is missing.
            self.handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return batches

    def due(self, every: int) -> bool:
        """Whether what is done every so many steps is done now; after the last step always, with 0 never."""
        return bool(every) and (self.step % every == 0 or self.step == self.config.recipe.steps)

    def train_step(self, real_a: Tensor, real_b: Tensor) -> dict[str, Tensor]:
        """One step of the system; the losses, on the device."""
        processes = self.accelerator.num_processes
        clock = Clock(self.step, self.config.recipe.steps, self.accelerator.process_index, processes)
        self.set_rates(self.system.lr_factor(clock))
        torch.manual_seed(seed_of(self.config.seed, "step", self.step, 0))  # in all processes what was the first's
        make: Step = partial(self.make_updates, clock)
        if self.records:
            kind = self.system.kind_of_step(clock)
            if kind not in self.recorded:
                self.recorded[kind] = Recorded(make, self.system, self.generators)
            make = self.recorded[kind]
        losses = make(real_a, real_b)
        if self.ema:
            self.ema.update(self.step)
        return losses

    def set_rates(self, factor: float) -> None:
        """Give the optimisers what changes from step to step."""
        for name, optimizer in self.optimizers.items():
            seed = seed_of(self.config.seed, f"rounding {name}", self.step)  # the same in every process
            for group, lr in zip(optimizer.param_groups, self.base_lr[name], strict=True):
                group["seed"] = seed
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(lr * factor)
                else:
                    group["lr"] = lr * factor
            for generator in getattr(optimizer, "generators", {}).values():
                generator.manual_seed(seed)

    def make_updates(self, clock: Clock, real_a: Tensor, real_b: Tensor) -> dict[str, Tensor]:
        """All updates of a step; the losses, on the device."""
        losses: dict[str, Tensor] = {}
        updates = self.system.updates(real_a, real_b, clock)
        while True:
            with self.accelerator.autocast():
                update = next(updates, None)
            if update is None:
                break
            groups = [g for name in update.optimizers for g in self.optimizers[name].param_groups]
            parameters = [p for group in groups for p in group["params"]]
            with averaged(parameters, self.accelerator):
                self.accelerator.backward(update.loss, inputs=parameters)
            for other in self.factored.difference(parameters):
                factors_of(other).clear()  # which autograd leaves out of a backward pass by itself
            if update.clip is not None:
                self.accelerator.clip_grad_norm_(parameters, update.clip)
            self.optimize([self.optimizers[name] for name in update.optimizers])
            self.system.after_update(update)
            losses[f"loss/{update.optimizers[0]}"] = update.loss.detach()
            losses |= {name: term.detach() for name, term in update.terms.items()}
        return losses

    def generators(self) -> list[torch.Generator]:
        """Those that optimisers draw from, once they have drawn."""
        return [g for optimizer in self.optimizers.values() for g in getattr(optimizer, "generators", {}).values()]

    def optimize(self, optimizers: list[Optimizer]) -> None:
        """Step the optimisers of one update; with fp16 all by one scale, which changes after the last of them."""
        scaler = self.accelerator.scaler
        for optimizer in optimizers:
            if scaler is None:
                optimizer.step()
            else:
                show_overflow([p for group in optimizer.param_groups for p in group["params"]])
                scaler.step(optimizer)
            optimizer.zero_grad()
        if scaler is not None:
            scaler.update()

    def scales_on_card(self) -> bool:
        """Whether optimisers look on the card alone whether gradients in half precision overflowed."""
        return self.accelerator.scaler is None or all(
            getattr(optimizer, "_step_supports_amp_scaling", False) for optimizer in self.optimizers.values()
        )

    def workers(self) -> int:
        """How many processes decode pictures."""
        if self.config.workers is not None:
            return self.config.workers
        return min(os.cpu_count() or 1, 4 if self.accelerator.device.type == "cuda" else 1)

    # Losses and logs

    def settle(self) -> None:
        """Bring the losses of the steps since the last log to the CPU and check them.

        Raises:
            UserError: a loss is not finite.
        """
        first = next(
            (i for i, losses in enumerate(self.pending) if isinstance(next(iter(losses.values())), Tensor)), None
        )
        if first is None:
            return
        terms = [term.float() for losses in self.pending[first:] for term in losses.values()]
        values = iter(reduce(torch.stack(terms), "mean").tolist())
        for i in range(first, len(self.pending)):
            self.pending[i] = {name: next(values) for name in self.pending[i]}
            for name, value in self.pending[i].items():
                if not math.isfinite(value):
                    raise UserError(
                        f"The loss {name} became {value} at step {self.step - len(self.pending) + i + 1}, so training "
                        f"stopped; {self.again()} {self.calmer()}."
                    )

    def again(self) -> str:
        """What to do after a failure, as the beginning of a phrase."""
        if checkpoints(self.run / "checkpoints"):
            return f"{self.run} keeps the last good checkpoint: `resume` it"
        return "there is no checkpoint yet: start it again in another `out`"

    def calmer(self) -> str:
        """What makes training steadier, as the end of a phrase."""
        return "with a lower `lr`" + ("" if self.config.precision == "no" else ", or with `precision=no`")

    def log(self) -> str:
        """Write the mean losses since the last log; a short line of them."""
        rows, self.pending = self.pending, []
        names = dict.fromkeys(name for row in rows for name in row)
        means = {name: fmean(row[name] for row in rows if name in row) for name in names}  # not all steps have all
        began, first = self.started
        speed = (self.step - first) / (time.monotonic() - began)
        short = "  ".join(f"{k.removeprefix('loss/')} {v:.4g}" for k, v in means.items() if k.startswith("loss/"))
        self.signs.add(means, len(rows))
        self.warn(self.system.signs(self.signs.means))
        if self.accelerator.is_main_process:
            lr = {f"lr/{name}": float(o.param_groups[0]["lr"]) for name, o in self.optimizers.items()}
            record = {"step": self.step, **means, **lr, "steps_per_second": round(speed, 4)}
            self.guarded(lambda: self.write_metrics(record), "metrics")
            self.track(lambda: self.accelerator.log(record, step=self.step))
            if not console.is_terminal:
                left = (self.config.recipe.steps - self.step) / speed
                self.say(f"step {self.step}  {short}  {speed:.2f} steps/s  {left / 60:.0f} min left")
        return f"{short}  {speed:.2f} steps/s"

    def warn(self, signs: list[str]) -> None:
        """Tell what was not told yet of signs that training leads nowhere."""
        for sentence in self.signs.new(signs):
            self.say(f"At step {self.step}: {with_options(sentence)}", "yellow")

    def write_metrics(self, record: dict[str, float]) -> None:
        """Add a line to ``metrics.jsonl``."""
        with (self.run / "metrics.jsonl").open("ab+") as file:
            if file.seek(0, os.SEEK_END) and not ends_a_line(file):  # the disk was full in the midst of one
                file.write(b"\n")
            file.write(json.dumps(record).encode() + b"\n")

    def track(self, tell: Callable[[], None]) -> None:
        """Tell those that the run is followed in; one that fails ends nothing, and is not asked again."""
        try:
            tell()
        except Exception as error:  # writers of files and of the web have no common class
            self.accelerator.trackers = []
            told = on_one_line(error)
            self.say(f"From step {self.step} on the run is not followed ({told}); metrics.jsonl is.", "yellow")

    def progress(self) -> Progress:
        """A bar with the newest losses; nothing where nobody looks."""
        return Progress(
            MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[losses]}"), TimeRemainingColumn(),
            console=console, disable=not (console.is_terminal and self.accelerator.is_main_process),
        )  # fmt: skip

    @torch.no_grad()
    def preview(self) -> None:
        """Write a sheet of the fixed test pictures, both directions."""
        if not self.accelerator.is_main_process:
            return
        self.system.eval()
        torch.manual_seed(seed_of(self.config.seed, "preview"))  # all sheets of a run have the same styles
        try:
            with self.translating(), self.accelerator.autocast():
                columns = preview_columns(self.system, *(test.to(self.accelerator.device) for test in self.tests))
        finally:
            self.system.train()
        path = self.run / "previews" / f"step-{self.step:08d}.png"
        draw_sheet(columns, path)
        self.warn(unchanged(columns))
        self.track(lambda: track_pictures(self.accelerator, columns, self.step))

    def evaluate(self) -> None:
        """Measure the test pictures' translations, and keep the best model; all processes together."""
        assert self.curve is not None
        try:
            with self.translating():
                figures, best = self.curve(self.system, self.step)
                if best and self.accelerator.is_main_process:
                    self.keep_model(self.run / "best")
        except UserError as error:
            self.say(f"Step {self.step} was not measured: {with_options(str(error))} Training goes on.", "yellow")
            return
        finally:
            self.system.train()
        self.track(lambda: self.accelerator.log(figures, step=self.step))
        if not console.is_terminal:
            self.say(f"step {self.step}  " + "  ".join(f"{name} {value:.2f}" for name, value in figures.items()))

    @contextmanager
    def translating(self) -> Iterator[None]:
        """Within this block the system has the weights that translation uses."""
        if self.ema is None:
            yield
        else:
            with self.ema.applied():
                yield

    # Saving, resuming, stopping

    def keep(self, fatal: bool) -> None:
        """Write a checkpoint, and the model of it; what cannot be written ends the run if it is ``fatal``."""
        self.guarded(self.save, "checkpoint", fatal)
        if self.saved == self.step:
            self.guarded(self.refresh_model, "model", fatal)

    def save(self) -> None:
        """Write a checkpoint, and remove those that are not kept any more.

        Raises:
            OSError: the disk is full, or the like.
            UserError: a weight is not finite.
        """
        weights = self.system.state_dict()
        # The largest magnitude, for `isfinite` of all would take the size of the largest weight one and a half times.
        floats = {name: value for name, value in weights.items() if value.is_floating_point()}
        largest = {name: torch.linalg.vector_norm(value, math.inf) for name, value in floats.items()}
        spoilt = next((name for name, value in largest.items() if not value.isfinite()), None)
        if spoilt:
            raise UserError(
                f"The weight {spoilt} is no longer finite at step {self.step}, so training stopped; {self.again()} "
                f"{self.calmer()}."
            )
        if not self.accelerator.is_main_process:  # from here on nothing may wait for another process
            return
        tensors = {"weights": weights, "optimizers": pack_optimizers(self.optimizers)}
        if self.ema:
            tensors["ema"] = self.ema.average
        scaler = self.accelerator.scaler
        state = {
            "step": self.step,
            "seen": self.seen,
            "together": self.together,
            "seed": self.config.seed,
            "pending": self.pending,
            "scaler": scaler.state_dict() if scaler else None,
        }
        folder = self.run / "checkpoints"
        save_checkpoint(folder, Checkpoint(state, tensors))
        self.saved = self.step
        prune(folder, self.config.keep_last, self.config.keep_every)

    def refresh_model(self) -> None:
        """Write ``model/``; errors are those of `keep_model`."""
        if self.accelerator.is_main_process:
            with self.translating():
                self.keep_model(self.run / "model")

    def keep_model(self, folder: Path) -> None:
        """Write a model folder with a card, and the newest sheet of previews if there is one.

        Raises:
            OSError: it could not be written.
        """
        save_model(self.system, folder, self.step)
        sheets = sorted((self.run / "previews").glob("step-*.png"))
        if sheets:
            with atomic_file(folder / "sheet.png") as temporary:
                shutil.copyfile(sheets[-1], temporary)
        pictures = len(self.pictures.train_a), len(self.pictures.train_b)
        training = Training(data_name(self.config), pictures, self.step, shared_settings(self.config))
        figures = self.curve.measured(self.step) if self.curve else []
        write_card(folder, card_text(self.system, self.run.resolve().name, training, bool(sheets), figures))

    def check_agreement(self) -> None:
        """Hold every process's weights, pools, averages and optimiser state against the first's.

        Raises:
            UserError: they differ, in every process.
        """
        tensors: dict[str, Tensor] = dict(self.system.state_dict())
        tensors |= {f"optimiser {name}": value for name, value in pack_optimizers(self.optimizers).items()}
        tensors |= {f"average {name}": value for name, value in (self.ema.average if self.ema else {}).items()}
        if apart := differing(tensors, self.accelerator):
            raise UserError(
                f"The processes no longer train the same networks at step {self.step}: {len(apart)} of {len(tensors)} "
                f"tensors differ, the first is {apart[0]}. {self.run} keeps the checkpoint before. Processors "
                "and cards of several kinds round differently: use those of one kind; if they are, please report this."
            )

    def restore(self) -> None:
        """Take up the newest whole checkpoint."""
        if self.accelerator.is_main_process:
            remove_left(self.run)
        checkpoint, broken = load_newest(self.run / "checkpoints")
        for path, reason in broken.items():
            self.say(
                f"The checkpoint {path} is broken ({reason}): falling back to the one before it. It is kept as "
                f"broken-{path.name}.",
                "yellow",
            )
            if self.accelerator.is_main_process:
                set_aside(path)
        if checkpoint is None and saved_step(self.run / "model"):
            raise UserError(
                f"{self.run} has a trained model, and {self.run / 'checkpoints'} no checkpoint that can be read: bring "
                f"them back (is a disk missing?), or begin another run with `start` {self.run / 'model'}."
            )
        if checkpoint is None:
            self.say("There is no checkpoint yet: starting from the first step.")
            self.forget_metrics()
            return
        try:
            self.system.load_state_dict(checkpoint.tensors["weights"])
        except RuntimeError as error:
            raise self.other_networks(words_of(error, 1)) from None
        try:
            unpack_optimizers(self.optimizers, checkpoint.tensors["optimizers"])
        except ValueError as error:
            raise self.other_networks(str(error)) from None
        if self.ema:
            saved = checkpoint.tensors.get("ema", {})
            for name, live in self.ema.live.items():
                self.ema.average[name].copy_(saved.get(name, live.detach()))
        if self.accelerator.scaler and checkpoint.state["scaler"]:
            self.accelerator.scaler.load_state_dict(checkpoint.state["scaler"])
        if (seed := checkpoint.state["seed"]) != self.config.seed:
            raise UserError(f"{self.run} was trained with `seed={seed}`: write that into its config.json again.")
        self.step = self.saved = checkpoint.state["step"]
        self.seen = checkpoint.state.get("seen", self.step * self.together)
        before = checkpoint.state.get("together", self.together)
        if before != self.together:
            self.say(
                f"From step {self.step} on a step has {self.together} pictures of each domain in all processes; it had "
                f"{before}."
            )
        self.pending = checkpoint.state["pending"]
        self.forget_metrics()

    def other_networks(self, reason: str) -> UserError:
        """What is said of a checkpoint that does not fit."""
        changed = changed_settings(read_run(self.run), self.config)
        mine = asdict(self.config.model)
        was = {name.replace("-", "_"): as_typed(before) for name, (before, _) in changed.items()}
        own = [f"`{name}` {value}" for name, value in was.items() if name in mine]
        return UserError(
            f"{self.run} was trained with other networks ({', '.join(own) or reason}): resume with its own settings, "
            f"or begin another run with `start` {self.run / 'model'}."
        )

    def check_step(self) -> None:
        """See that all processes go on at the same step.

        Raises:
            UserError: they do not, in every process.
        """
        if self.accelerator.num_processes == 1:
            return
        steps = self.accelerator.gather(torch.tensor([self.step], device=self.accelerator.device)).tolist()
        if len(set(steps)) > 1:
            other = next(i for i, step in enumerate(steps) if step != steps[0])
            raise UserError(
                f"In {self.run} process 0 finds step {steps[0]} and process {other} step {steps[other]}: all machines "
                "need the same folder, so copy the first one's to each, or put it where all see it, and `resume`."
            )

    def forget_metrics(self) -> None:
        """Drop the lines of metrics written after the step to resume from; they will be written again."""
        path = self.run / "metrics.jsonl"
        if not (path.exists() and self.accelerator.is_main_process):
            return
        kept = []
        for line in path.read_text("utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= self.step:
                    kept.append(line)
            except ValueError:  # the process was killed while it wrote this line
                continue
        with writing(self.run, RUN_CANNOT):
            write_text(path, "".join(line + "\n" for line in kept))

    def guarded(self, write: Callable[[], None], what: str, fatal: bool = False, together: bool = False) -> None:
        """Call ``write``; a disk that is full for now, or too little memory for what is no training, is reported and
        does not end the run, unless ``fatal``; nor, for want of memory, what processes do ``together``."""
        try:
            write()
        except (RuntimeError, MemoryError) as error:
            waited_for = together and self.accelerator.num_processes > 1
            if not out_of_memory(error) or fatal or waited_for:
                raise
            self.say(
                f"The {what} of step {self.step} needs more memory than there is: training goes on without.", "yellow"
            )
        except OSError as error:
            message = f"The {what} of step {self.step} could not be written to {self.run} ({error.strerror or error})"
            if fatal:
                raise UserError(f"{message}: free some space and use `resume` {self.run}.") from None
            self.say(f"{message}: free some space; training goes on, earlier checkpoints are kept.", "yellow")

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Within this block Ctrl-C and its like ask for the end after the current step; a second one, some seconds
        later, ends at once. What comes with the first is the same one: a launcher passes on what its processes are also
        sent themselves. Other threads than the main one are sent none."""
        if not in_main_thread():
            yield
            return
        asked = math.inf

        def ask(number: int, _frame: Any) -> None:
            nonlocal asked
            if time.monotonic() > asked + SAME_SIGNAL:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            asked = min(asked, time.monotonic())
            self.stop_signal = number

        self.handlers = {number: signal.signal(number, ask) for number in (signal.SIGINT, *endings())}
        try:
            yield
        finally:
            for number, handler in self.handlers.items():
                signal.signal(number, handler)

    def say(self, text: str, style: str | None = None) -> None:
        """Print a line, once for all processes; a log that cannot be written, or that nobody reads, ends no run."""
        if self.accelerator.is_main_process:
            with suppress(OSError):
                say(text, style)


def in_main_thread() -> bool:
    """Whether this is the thread that signals are sent to."""
    return threading.current_thread() is threading.main_thread()


def ends_a_line(file: BinaryIO) -> bool:
    """Whether a file, which is not empty, ends with a line break."""
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def keep_record(trainer: Trainer, settings: dict[str, list[Any]]) -> None:
    """Write what the run is trained with from now on; what is not as it was is said, and kept in its history.

    Args:
        trainer: of the run.
        settings: those that have changed, with the old value and the new.

    Raises:
        UserError: the folder cannot be written.
    """
    run, inventory = trainer.run, trainer.pictures.inventory()
    pictures = {} if trainer.known is None else differences(trainer.known, inventory)
    for name, (old, new) in settings.items():
        option = "DATA" if name == "data" else f"--{name}"
        trainer.say(f"From step {trainer.step} on {option} is {as_typed(new)}; it was {as_typed(old)}.")
    if "steps" in settings and (jump := rate_jump(trainer, int(settings["steps"][0]))):
        trainer.say(jump)
    for what, names in pictures.items():
        trainer.say(f"{counted(len(names), 'picture')} {what} since the run was started or resumed: {some(names)}.")
    change = {"step": trainer.step, "settings": settings, "pictures": pictures} if settings or pictures else None
    if inventory != trainer.known:
        with writing(run, RUN_CANNOT):
            write_json(run / "pictures.json", inventory)
    write_run(trainer.config, run, change)  # last: a folder with a config.json is a run


def rate_jump(trainer: Trainer, steps: int) -> str:
    """What is said where the learning rate goes on otherwise than it had come to in a run of so many steps."""
    last = Clock(max(0, trainer.step - 1), steps)
    before = trainer.system.lr_factor(last)
    after = trainer.system.lr_factor(Clock(trainer.step, trainer.config.recipe.steps))
    if abs(after - before) < 0.05:
        return ""
    return f"The learning rate goes on at {after:.0%} of its start; it had come to {before:.0%}."


def as_typed(value: Any) -> str:
    """A setting as a person types it."""
    return " ".join(map(str, value)) or "nothing" if isinstance(value, list) else str(value)


def train(config: TrainConfig, resume: bool = False, start_curve: StartCurve | None = None) -> Path:
    """Train a system.

    Args:
        config: with ``out``, the run's folder, set.
        resume: continue the run that ``config.out`` holds; otherwise that folder must hold none.
        start_curve: what ``config.evaluate_every`` measures with, such as `ugatit.evaluation.curve.KidCurve`.

    Returns:
        The model's folder.

    Raises:
        UserError: bad pictures, options or run folder; a loss that is not finite; a disk that is full at the end.
    """
    if config.out is None:
        raise UserError("`out` is not set: give the run's folder.")
    run = Path(config.out)
    if not str(run).isprintable():
        raise UserError(f"The run's folder {str(run)!r} has bytes or codes that are no text: give another `out`.")
    before = read_run(run) if resume else config
    changed_settings(before, config)  # what cannot change is told before anything is looked at
    config = check_range(config, run_adapter(config.system))
    need_trackers(config.track)
    if not resume:
        need_no_run(run)
    held = ExitStack()
    try:
        if resume and this_process().rank == 0:
            held.enter_context(alone_in(run, TRAINED))
        trainer = Trainer(config, run, resume, start_curve)
        trainer.say(f"run folder {run}, device {trainer.accelerator.device}")
        report_pictures(trainer.pictures, trainer.say)
        if trainer.accelerator.is_main_process:
            if not resume:
                with writing(run, RUN_CANNOT):
                    run.mkdir(parents=True, exist_ok=True)
                held.enter_context(alone_in(run, TRAINED))
                need_no_run(run)  # that another process has begun meanwhile
            keep_record(trainer, changed_settings(before, trainer.config) if resume else {})
        with writing(run, RUN_CANNOT):
            start_tracking(trainer.accelerator, config.track, run, trainer.step, settings_of(config))
        trainer.train()
    except RuntimeError as error:
        # The libraries below tell it in words only.
        if out_of_memory(error):
            raise UserError(short_of_memory(config)) from None
        if "DataLoader worker" in str(error):
            raise UserError(lost_worker(trainer, words_of(error))) from None
        if this_process().processes == 1 or not re.search("peer|Connection|NCCL", str(error)):
            raise
        again = f"continue with `resume` {run}" if (run / "config.json").exists() else "start it again"
        raise UserError(
            f"Another process of this run has ended or cannot be reached ({words_of(error)}): see what it says, then "
            f"{again}."
        ) from None
    finally:
        held.close()
    if trainer.step < config.recipe.steps:
        again = f"ugatit train --resume {shlex.quote(str(run))}"
        trainer.say(f"Stopped after step {trainer.step} and saved. Continue with: {again}")
    else:
        shutil.rmtree(run / "cache", ignore_errors=True)
        trainer.say(f"Done. The model is in {run / 'model'}")
        tested = bool(trainer.pictures.test_a and trainer.pictures.test_b)
        for line in [*(trainer.curve.summary() if trainer.curve else []), *what_next(config, tested)]:
            trainer.say(line)
    return run / "model"


def need_no_run(run: Path) -> None:
    """Raises UserError if a folder holds a run."""
    if (run / "config.json").exists():
        raise UserError(f"{run} already holds a run: continue it with `resume` {run}, or give another `out`.")


def short_of_memory(config: TrainConfig) -> str:
    """What a person does where training does not fit into memory."""
    recipe, model = config.recipe, config.model
    ways = [f"`batch={recipe.batch // 2}`"] if recipe.batch > 1 else []
    ways += ["`checkpointing=True`"] if getattr(model, "checkpointing", True) is False else []
    ways += ["`adam_averages=bfloat16`"] if getattr(model, "adam_averages", "") == "float32" else []
    ways += ["`precision=bf16`"] if config.precision == "no" else []
    ways += ["another run with a smaller `size`"]
    return (
        f"Training needs more memory than there is: try {', '.join(ways)} or `preset=quick`; docs/performance.md tells "
        "what each takes."
    )


def lost_worker(trainer: Trainer, reason: str) -> str:
    """What a person does when a process that decodes pictures has ended; what was trained is saved."""
    saved = ""
    if trainer.accelerator.num_processes == 1:
        trainer.settle()
        trainer.keep(fatal=True)
        saved = f"step {trainer.step} is saved: "
    return (
        f"A process that decodes pictures has ended, perhaps for want of memory ({reason}); {saved}continue with "
        f"`resume` {trainer.run} `workers=0`."
    )


def data_name(config: TrainConfig) -> str:
    """What the pictures are called, without their place."""
    if config.data is not None:
        return title(config.data)
    return " and ".join(place.name for place in (config.source, config.target) if place)


def what_next(config: TrainConfig, tested: bool) -> list[str]:
    """What a person does with a model that is done, in lines; ``tested``: there are pictures to measure it with."""
    run, model = shlex.quote(str(config.out)), shlex.quote(f"{config.out}/model")
    measure = [f"  ugatit evaluate {model} {shlex.quote(str(config.data))}"] if config.data and tested else []
    return [
        "What next:",
        f"  ugatit translate {model} PICTURES... -o translated",
        *measure,
        f"  ugatit train --resume {run} --steps {2 * config.recipe.steps}    if previews/ was still getting better",
    ]
