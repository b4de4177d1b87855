"""Whole runs: what they leave behind, stopping, killing, resuming, and what can go wrong on the way."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import ugatit.train
from conftest import TINY, one_thread, run_ugatit
from ugatit.errors import UserError
from ugatit.files import save_tensors
from ugatit.nn.factored import FactoredLinear, factors_of
from ugatit.systems import REGISTRY
from ugatit.systems.adam import ChunkedAdam
from ugatit.systems.base import Preset, Recipe, System, Translation, Update
from ugatit.systems.ugatit import UGATIT, UGATITConfig
from ugatit.train import Ema, TrainConfig, Trainer, preset_config, read_run, show_overflow, train
from ugatit.translate import Translator


def tiny(data: Path, run: Path, steps: int = 4, **changes) -> TrainConfig:
    """A run of seconds."""
    config = replace(
        preset_config("ugatit", "quick"),
        model=UGATITConfig(size=32, width=2, blocks=1, light=True),
        recipe=Recipe(steps=steps, ema=0.9),
        data=data, out=run, workers=0, log_every=2, preview_every=0, checkpoint_every=2,
    )  # fmt: skip
    return replace(config, **changes)


def metrics(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "steps_per_second"} for line in lines]


def final_state(run: Path) -> dict[str, torch.Tensor]:
    newest = max((run / "checkpoints").iterdir())
    return {f"{f.stem}/{k}": v for f in newest.glob("*.safetensors") for k, v in load_file(f).items()}


def assert_same_run(one: Path, other: Path) -> None:
    first, second = final_state(one), final_state(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert metrics(one) == metrics(other)


def test_a_run_leaves_all_that_its_user_needs(data, tmp_path):
    run = tmp_path / "run"
    model = train(tiny(data, run, preview_every=3))
    assert model == run / "model"
    assert {f.name for f in model.iterdir()} == {"config.json", "translator.safetensors", "training.safetensors"}
    assert [f.name for f in sorted((run / "previews").iterdir())] == ["step-00000003.png", "step-00000004.png"]
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert {"loss/gen", "lr/disc"} <= set(events.Tags()["scalars"])
    assert {"attention A", "B to A", "cycle B"} <= set(events.Tags()["images"])
    lines = metrics(run)
    assert [line["step"] for line in lines] == [2, 4]
    assert {"loss/gen", "loss/disc", "gen/cycle_a", "disc/cam_global_b", "lr/gen"} <= lines[0].keys()
    assert read_run(run) == replace(tiny(data, run, preview_every=3))
    assert not list(run.rglob(".*"))
    ema = load_file(run / "checkpoints" / "step-00000004" / "ema.safetensors")
    shared = load_file(model / "translator.safetensors")
    assert all(torch.equal(shared[name], value) for name, value in ema.items())


@pytest.mark.parametrize(
    "settings",
    [{"channels": 1, "light": True}, {"light": False, "size": 36}, {"light": True, "size": 64, "blocks": 2}],
)
def test_every_kind_of_model_trains_and_translates(settings, data, tmp_path):
    model = UGATITConfig(**({"size": 32, "width": 2, "blocks": 1} | settings))
    config = tiny(data, tmp_path / "run", steps=2, model=model, preview_every=2)
    folder = train(replace(config, recipe=Recipe(steps=2, batch=2)))
    size, channels = model.size, model.channels
    made = Translator.load(folder)(torch.zeros(1, channels, size, size), "b2a")
    assert made.shape == (1, channels, size, size)
    assert (tmp_path / "run" / "previews" / "step-00000002.png").exists()


def test_ema_starts_as_a_plain_average_and_then_decays():
    system = UGATIT(UGATITConfig(size=32, width=1, blocks=1))
    ema = Ema(system, 0.5)
    weight = system.gen_a2b.gamma.weight
    start = weight.detach().clone()
    weight.data += 1
    ema.update(0)
    torch.testing.assert_close(ema.average["gen_a2b.gamma.weight"], start + 0.9)
    ema.update(1000)
    torch.testing.assert_close(ema.average["gen_a2b.gamma.weight"], start + 0.95)
    with ema.applied():
        torch.testing.assert_close(weight.detach(), start + 0.95)
    torch.testing.assert_close(weight.detach(), start + 1)


def test_checkpoints_are_kept_as_asked(data, tmp_path):
    run = tmp_path / "run"
    train(tiny(data, run, steps=7, checkpoint_every=1, keep_last=2, keep_every=3))
    names = sorted(f.name for f in (run / "checkpoints").iterdir())
    assert names == [f"step-{i:08d}" for i in (3, 6, 7)]


@pytest.mark.parametrize("wait_for", [0, 3, 5])
def test_a_run_killed_at_any_moment_resumes_bit_for_bit(wait_for, data, tmp_path):
    options = [*TINY, "--steps", 14, "--log-every", 4, "--checkpoint-every", 3, "--preview-every", 5]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run_ugatit("train", data, "--out", whole, *options).returncode == 0

    command = [sys.executable, "-m", "ugatit", "train", data, "--out", killed, *options]
    process = subprocess.Popen([str(c) for c in command], env=one_thread(), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    sign = f"checkpoints/step-{wait_for // 3 * 3:08d}" if wait_for else "config.json"
    while not (killed / sign).exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(0.02 * wait_for)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "checkpoints" / "step-00000014").exists()

    resumed = run_ugatit("train", "--resume", killed)
    assert resumed.returncode == 0, resumed.stderr
    assert_same_run(whole, killed)
    assert not list(killed.rglob(".*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_exits_cleanly_and_the_run_goes_on(number, data, tmp_path):
    options = [*TINY, "--steps", 40, "--log-every", 4, "--checkpoint-every", 100, "--preview-every", 0]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert run_ugatit("train", data, "--out", whole, *options).returncode == 0
    command = [sys.executable, "-m", "ugatit", "train", data, "--out", stopped, *options]
    process = subprocess.Popen([str(c) for c in command], env=one_thread(), stderr=subprocess.PIPE, text=True)
    while not (stopped / "metrics.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "--resume" in errors and "Traceback" not in errors
    assert len(list((stopped / "checkpoints").iterdir())) == 1
    assert run_ugatit("train", "--resume", stopped).returncode == 0
    assert_same_run(whole, stopped)


def test_resume_can_train_for_longer(data, tmp_path):
    run = tmp_path / "run"
    train(tiny(data, run))
    assert run_ugatit("train", "--resume", run, "--steps", 6).returncode == 0
    assert metrics(run)[-1]["step"] == 6
    changed = run_ugatit("train", "--resume", run, "--width", 3)
    assert changed.returncode == 2 and "other networks" in changed.stderr


def test_a_broken_checkpoint_falls_back_to_the_one_before(data, tmp_path, capsys):
    run, whole = tmp_path / "run", tmp_path / "whole"
    train(tiny(data, run, steps=4))
    train(tiny(data, whole, steps=4))
    weights = run / "checkpoints" / "step-00000004" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    train(tiny(data, run, steps=4), resume=True)
    said = " ".join(capsys.readouterr().err.split())
    assert "step-00000004 is broken" in said and "checksum" in said
    assert_same_run(whole, run)
    for file in (run / "checkpoints").rglob("state.json"):
        file.write_text("{")
    with pytest.raises(UserError, match="broken"):
        train(tiny(data, run, steps=4), resume=True)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(data, tmp_path, monkeypatch):
    run, whole = tmp_path / "run", tmp_path / "whole"
    train(tiny(data, whole, steps=8))
    updates = UGATIT.updates

    def spoilt(self, real_a, real_b, clock):
        for update in updates(self, real_a, real_b, clock):
            spoil = clock.step == 4 and "gen" in update.optimizers
            yield update._replace(terms=update.terms | {"gen/cycle_a": torch.tensor(torch.nan)}) if spoil else update

    monkeypatch.setattr(UGATIT, "updates", spoilt)
    with pytest.raises(UserError, match=r"gen/cycle_a became nan at step 5"):
        train(tiny(data, run, steps=8))
    monkeypatch.undo()
    assert max((run / "checkpoints").iterdir()).name == "step-00000004"
    train(tiny(data, run, steps=8), resume=True)
    assert_same_run(whole, run)


def test_weights_that_are_not_finite_are_never_saved(data, tmp_path, monkeypatch):
    def spoilt(self, update):
        if "gen" in update.optimizers:
            self.gen_a2b.gamma.weight.data[0, 0] = torch.inf

    monkeypatch.setattr(UGATIT, "after_update", spoilt)
    with pytest.raises(UserError, match=r"gen_a2b.gamma.weight is no longer finite|became nan"):
        train(tiny(data, tmp_path / "run", steps=2))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_disk_that_is_full_for_a_while_ends_nothing(data, tmp_path, monkeypatch, capsys):
    run, calls = tmp_path / "run", []

    def full(tensors, path, metadata=None):
        calls.append(path)
        if len(calls) <= 3:
            path.write_bytes(b"half of it")
            raise OSError(28, "No space left on device")
        save_tensors(tensors, path, metadata)

    monkeypatch.setattr("ugatit.checkpoint.save_tensors", full)
    train(tiny(data, run, steps=8))
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("No space left on device") == 3 and "step 2" in said
    assert [f.name for f in (run / "checkpoints").iterdir()] == ["step-00000008"]

    monkeypatch.setattr("ugatit.checkpoint.save_tensors", lambda *_: full({}, run / "x"))
    calls.clear()
    with pytest.raises(UserError, match="free some space"):
        train(replace(tiny(data, run), recipe=Recipe(steps=9, ema=0.9)), resume=True)
    assert [f.name for f in (run / "checkpoints").iterdir()] == ["step-00000008"]


def test_two_processes_are_one_with_twice_the_batch(data, tmp_path):
    shared = ["--size", 32, "--width", 2, "--blocks", 1, "--workers", 0, "--steps", 4, "--log-every", 1]
    shared += ["--preview-every", 4, "--checkpoint-every", 2, "--preset", "quick"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert run_ugatit("train", data, "--out", one, "--batch", 2, *shared).returncode == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    command = [*launch, "-m", "ugatit", "train", data, "--out", two, "--batch", 1, *shared]
    made = subprocess.run([str(c) for c in command], env=one_thread(), capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stderr
    for alone, together in zip(metrics(one), metrics(two), strict=True):
        assert alone == pytest.approx(together, rel=2e-4)


def two_processes(script: str, *arguments: object) -> subprocess.CompletedProcess:
    """``ugatit`` in two processes, after some lines of Python in each; forked, so that all is imported only once.

    Unlike under a launcher nobody ends a process when the other has failed.
    """
    code = f"""
import os, socket, sys, torch, ugatit.train as t
from ugatit.cli import main
{script}
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    os.environ |= {{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}}
children = []
for number in "01":
    if not (child := os.fork()):
        os.environ |= {{"RANK": number, "LOCAL_RANK": number, "LOCAL_WORLD_SIZE": "2"}}
        code = main(sys.argv[1:])
        sys.stderr.flush()
        os._exit(code)
    children.append(child)
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=one_thread(), capture_output=True, text=True, timeout=120)


SMALL = ["--preset", "quick", "--size", 32, "--width", 2, "--blocks", 1, "--workers", 0, "--batch", 1, "--ema", 0.9]
SMALL += ["--preview-every", 0, "--checkpoint-every", 3, "--steps", 6]


@pytest.mark.parametrize("averages", ["float32", "bfloat16"])
def test_processes_stay_together_bit_for_bit(averages, data, tmp_path):
    """Weights, averages and optimiser state of both, gathered by hand and not by the check that is tested below."""
    script = f"""
def compare(self, check=t.Trainer.check_agreement):
    check(self)
    tensors = {{**self.system.state_dict(), **t.pack_optimizers(self.optimizers), **self.ema.average}}
    for name, tensor in tensors.items():
        both = [torch.empty_like(tensor) for _ in range(2)]
        torch.distributed.all_gather(both, tensor.contiguous())
        assert torch.equal(*both), name
    open({str(tmp_path)!r} + f"/same-{{self.accelerator.process_index}}-{{self.step}}", "w").close()
t.Trainer.check_agreement = compare
"""
    made = two_processes(script, "train", data, "-o", tmp_path / "run", "--adam-averages", averages, "--light", *SMALL)
    assert made.returncode == 0, made.stderr
    assert sorted(f.name for f in tmp_path.glob("same-*")) == ["same-0-3", "same-0-6", "same-1-3", "same-1-6"]


def test_processes_that_drift_apart_are_stopped(data, tmp_path):
    script = "t.Trainer.average_gradients = lambda self, parameters: None"
    made = two_processes(script, "train", data, "-o", tmp_path / "run", *SMALL)
    assert made.returncode == 2 and "no longer train the same networks at step 3" in made.stderr
    assert "Traceback" not in made.stderr
    assert not list((tmp_path / "run").glob("checkpoints/step-*"))


@pytest.mark.parametrize("number", [0, 1])
def test_a_picture_that_vanishes_from_one_process_ends_both_with_a_checkpoint(number, data, tmp_path):
    script = f"""
from ugatit.data import Skipped, Unpaired
from pathlib import Path
read = Unpaired.__getitem__
lost = Skipped(Path("lost.png"), "does not exist")
Unpaired.__getitem__ = lambda self, n: lost if n == {8 + number} else read(self, n)
"""
    made = two_processes(script, "train", data, "-o", tmp_path / "run", *SMALL, "--checkpoint-every", 100)
    assert made.returncode == 2 and "lost.png does not exist since the run began" in made.stderr
    assert "Another process of this run found a picture" in made.stderr and "Traceback" not in made.stderr
    assert [f.name for f in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000004"]
    again = two_processes("", "train", "--resume", tmp_path / "run")
    assert again.returncode == 0 and (tmp_path / "run" / "checkpoints" / "step-00000006").is_dir(), again.stderr


@pytest.mark.parametrize("number", [0, 1])
def test_a_signal_to_one_process_stops_both(number, data, tmp_path):
    script = f"""
import os, signal
step = t.Trainer.train_step
def train_step(self, *pictures):
    if self.step == 3 and self.accelerator.process_index == {number}:
        os.kill(os.getpid(), signal.SIGTERM)
    return step(self, *pictures)
t.Trainer.train_step = train_step
"""
    made = two_processes(script, "train", data, "-o", tmp_path / "run", *SMALL, "--checkpoint-every", 100)
    assert made.returncode == 0, made.stderr
    assert "Stopped after step 4 and saved" in made.stderr
    assert [f.name for f in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000004"]


@pytest.mark.parametrize("number", [0, 1])
def test_a_process_that_dies_ends_the_other_with_a_sentence(number, data, tmp_path):
    script = f"""
import os
step = t.Trainer.train_step
def train_step(self, *pictures):
    if self.step == 4 and self.accelerator.process_index == {number}:
        os._exit(9)
    return step(self, *pictures)
t.Trainer.train_step = train_step
"""
    began = time.monotonic()
    made = two_processes(script, "train", data, "-o", tmp_path / "run", *SMALL)
    assert made.returncode == 9 and time.monotonic() - began < 60
    assert "Another process of this run has ended or cannot be reached" in made.stderr
    assert "Traceback" not in made.stderr
    assert [f.name for f in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000003"]


def test_a_loss_that_is_not_finite_in_one_process_ends_both(data, tmp_path):
    script = """
step = t.Trainer.train_step
def train_step(self, *pictures):
    losses = step(self, *pictures)
    if self.step == 4 and self.accelerator.process_index == 1:
        losses[next(iter(losses))] = torch.tensor(torch.nan)
    return losses
t.Trainer.train_step = train_step
"""
    made = two_processes(script, "train", data, "-o", tmp_path / "run", *SMALL)
    assert made.returncode == 2 and made.stderr.count("became nan at step 5") == 2
    assert [f.name for f in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000003"]


def test_fp16_steps_all_optimisers_of_an_update_by_one_scale(data, tmp_path):
    """With a scaler on the CPU: the first overflows, which must not change the scale for the second."""
    trainer = Trainer(tiny(data, tmp_path / "run"), tmp_path / "run", resume=False)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    trainer.accelerator.scaler = scaler
    parts = [torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)]
    optimizers = [torch.optim.SGD(part.parameters(), 1.0) for part in parts]
    before = [part.weight.detach().clone() for part in parts]
    scaler.scale(torch.zeros(()))  # makes the scale
    for part in parts:
        for parameter in part.parameters():
            parameter.grad = torch.full_like(parameter, 1024.0)
    parts[0].weight.grad[0, 0] = torch.inf
    trainer.optimize(optimizers)
    assert torch.equal(parts[0].weight, before[0]), "its step is skipped"
    assert torch.allclose(parts[1].weight, before[1] - 1), "unscaled by the scale that it was made with"
    assert scaler.get_scale() == 512


def test_an_overflow_in_a_factored_gradient_skips_the_step():
    layer = FactoredLinear(8, 4)
    other = torch.nn.Parameter(torch.ones(3))
    optimizer = ChunkedAdam([*layer.parameters(), other], lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for bad, skipped in ((torch.inf, True), (1.0, False)):
        before = [p.detach().clone() for p in [*layer.parameters(), other]]
        loss = layer(torch.ones(2, 8)).sum() + other.sum()
        scaler.scale(loss).backward()
        (weight,) = [p for p in layer.parameters() if factors_of(p)]
        factors_of(weight)[0][0][0, 0] *= bad
        show_overflow([*layer.parameters(), other])
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        same = [torch.equal(p, b) for p, b in zip([*layer.parameters(), other], before, strict=True)]
        assert all(same) if skipped else not any(same)
        assert scaler.get_scale() == 512


def test_the_rounding_s_noise_is_a_function_of_the_group_s_seed():
    made = []
    for seed, drawn in ((1, 0), (1, 5), (2, 0)):
        torch.manual_seed(drawn)  # as in processes of other numbers
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 1000))
        optimizer = ChunkedAdam([weight], lr=0.1, averages="bfloat16")
        optimizer.param_groups[0]["seed"] = seed
        weight.grad = torch.linspace(1, 2, 1000)
        optimizer.step()
        made.append(optimizer.state[weight]["exp_avg_sq"].clone())
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


def test_mixed_precision(data, tmp_path):
    run, plain = tmp_path / "run", tmp_path / "plain"
    train(tiny(data, run, precision="bf16", preview_every=4))
    train(tiny(data, plain))
    for mixed, exact in zip(metrics(run), metrics(plain), strict=True):
        assert mixed["loss/gen"] == pytest.approx(exact["loss/gen"], rel=0.02)
        assert mixed["loss/gen"] != exact["loss/gen"]


# Another method, registered from outside: the trainer knows only the interface.


@dataclass(frozen=True)
class TintConfig:
    size: int = 32
    channels: int = 3


class Tint(System):
    """Moves the mean colour of A to that of B; one direction, noise from the global generator."""

    Config = TintConfig
    presets: ClassVar = {"paper": Preset(TintConfig(), Recipe(steps=3))}
    translators = ("shift",)
    directions = ("a2b",)
    any_size = True

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.shift = nn.Conv2d(3, 3, 1)

    def init_weights(self):
        nn.init.eye_(self.shift.weight[:, :, 0, 0])
        nn.init.zeros_(self.shift.bias)

    def optimizers(self):
        return {"only": torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)}

    def lr_factor(self, clock):
        return 1.0

    def updates(self, real_a, real_b, clock):
        noise = 0.01 * torch.randn_like(real_a)
        gap = (self.shift(real_a + noise).mean((0, 2, 3)) - real_b.mean((0, 2, 3))).square().mean()
        yield Update(("only",), gap, {"gap": gap})

    def translate(self, x, direction):
        return Translation(self.shift(x), None)


@pytest.fixture
def tint(monkeypatch):
    monkeypatch.setitem(REGISTRY, "tint", Tint)


def test_a_system_from_outside_trains_resumes_and_translates(tint, data, tmp_path):
    config = replace(tiny(data, tmp_path), system="tint", model=TintConfig(), preview_every=2)
    train(replace(config, out=tmp_path / "whole"))
    train(replace(config, out=tmp_path / "parts", recipe=Recipe(steps=2, ema=0.9)))
    train(replace(config, out=tmp_path / "parts"), resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    translator = Translator.load(tmp_path / "whole" / "model")
    assert translator(torch.zeros(1, 3, 40, 36)).shape == (1, 3, 40, 36)
    with pytest.raises(UserError, match="b2a"):
        translator(torch.zeros(1, 3, 32, 32), "b2a")


# Bad input


def test_a_folder_that_holds_a_run_is_not_overwritten(data, tmp_path):
    train(tiny(data, tmp_path / "run"))
    with pytest.raises(UserError, match="already holds a run"):
        train(tiny(data, tmp_path / "run"))


def test_a_picture_that_vanishes_stops_the_run_with_its_name(data, tmp_path, monkeypatch):
    real, seen = ugatit.train.Trainer.train_step, []

    def step(self, *batch):
        seen.append(1)
        if len(seen) == 2:
            for file in (data / "trainB").iterdir():
                file.unlink()
        return real(self, *batch)

    monkeypatch.setattr(ugatit.train.Trainer, "train_step", step)
    with pytest.raises(UserError, match="trainB"):
        train(tiny(data, tmp_path / "run", steps=9, checkpoint_every=100))
    assert list((tmp_path / "run" / "checkpoints").iterdir())


@pytest.mark.parametrize(
    "arguments, names",
    [
        (["train"], "DATA"),
        (["train", "nowhere"], "nowhere"),
        (["train", "{data}", "--preset", "slow"], "--preset slow"),
        (["train", "{data}", "--system", "gan"], "--system gan"),
        (["train", "{data}", *TINY, "--size", "30"], "--size"),
        (["train", "{data}", *TINY, "--ema", "1.5"], "--ema"),
        (["train", "{data}", *TINY, "--width", "two"], "width"),
        (["train", "{data}", *TINY, "--precision", "fp16"], "--precision fp16"),
        (["train", "--resume", "nowhere"], "nowhere"),
        (["train", "{data}", *TINY, "--out", "/proc/run"], "/proc/run"),
        (["fly"], "fly"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_two(arguments, names, data, tmp_path):
    made = run_ugatit(*[a.format(data=data) for a in arguments], cwd=tmp_path)
    assert made.returncode == 2
    assert names in made.stderr + made.stdout
    assert "Traceback" not in made.stderr
