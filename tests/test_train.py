"""Whole runs: what they leave behind, stopping, killing, resuming, and what can go wrong on the way."""

import errno
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar
from unittest.mock import Mock

import pytest
import torch
from accelerate.tracking import TensorBoardTracker
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

import ugatit.training.trainer
from conftest import TINY, least_side, one_thread, run_here, run_ugatit, write_picture
from ugatit.cli import main
from ugatit.data.sampling import Unpaired
from ugatit.experiments.runs import Run
from ugatit.io.errors import UserError
from ugatit.io.files import save_tensors, temporary_name
from ugatit.io.terminal import endings
from ugatit.nn.fast.adam import ChunkedAdam
from ugatit.nn.fast.factored import factors_of, show_overflow
from ugatit.nn.linear import LargeLinear
from ugatit.systems import REGISTRY
from ugatit.systems.base import Clock, Preset, Recipe, System, Translation, Update
from ugatit.systems.ugatit import UGATIT, UGATITConfig
from ugatit.training import distributed
from ugatit.training.checkpoint import checkpoints, pack_optimizers, unpack_optimizers
from ugatit.training.config import TrainConfig, preset_config, read_run, write_run
from ugatit.training.ema import Ema
from ugatit.training.start import take_weights
from ugatit.training.trainer import Trainer, train
from ugatit.translation.folder import saved_step
from ugatit.translation.translator import Translator


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
    config = tiny(data, run, preview_every=3, track=("tensorboard",))
    model = train(config)
    assert model == run / "model"
    weights = {"translator.safetensors", "training.safetensors"}
    assert {f.name for f in model.iterdir()} == {"README.md", "config.json", "sheet.png", *weights}
    assert [f.name for f in sorted((run / "previews").iterdir())] == ["step-00000003.png", "step-00000004.png"]
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0}).Reload()
    assert {"loss/gen", "lr/disc"} <= set(events.Tags()["scalars"])
    assert {"attention A", "B to A", "cycle B"} <= set(events.Tags()["images"])
    lines = metrics(run)
    assert [line["step"] for line in lines] == [2, 4]
    assert {"loss/gen", "loss/disc", "gen/cycle_a", "disc/cam_global_b", "lr/gen"} <= lines[0].keys()
    assert read_run(run) == config
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
    assert run_here("train", data, "--out", whole, *options).returncode == 0

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
    for folder in ("checkpoints", "model", "previews"):  # as if it had just been writing there
        (killed / folder).mkdir(exist_ok=True)
        temporary_name(killed / folder).write_text("half")
        (temporary_name(killed / folder) / "part").mkdir(parents=True)

    resumed = run_here("train", "--resume", killed)
    assert resumed.returncode == 0, resumed.stderr
    assert_same_run(whole, killed)
    assert not list(killed.rglob(".*"))


def test_a_signal_saves_and_exits_cleanly_and_the_run_goes_on(data, tmp_path):
    options = [*TINY, "--steps", 40, "--log-every", 4, "--checkpoint-every", 100, "--preview-every", 0]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert run_here("train", data, "--out", whole, *options).returncode == 0
    command = [sys.executable, "-m", "ugatit", "train", data, "--out", stopped, *options]
    process = subprocess.Popen([str(c) for c in command], env=one_thread(), stderr=subprocess.PIPE, text=True)
    while not (stopped / "metrics.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "--resume" in errors and "Traceback" not in errors
    assert len(list((stopped / "checkpoints").iterdir())) == 1
    assert run_here("train", "--resume", stopped).returncode == 0
    assert_same_run(whole, stopped)


def test_options_given_with_resume_are_the_run_s_from_then_on(data, tmp_path):
    """A run of 4 steps goes on to 12 with other options, is stopped, and goes on as its last sentence says."""
    run, moved = tmp_path / "run", tmp_path / "moved"
    train(tiny(data, run))
    data.rename(moved)
    script = """
import signal
step = t.Trainer.train_step
def stop(self, *pictures):
    if self.step == 5:
        os.kill(os.getpid(), signal.SIGTERM)
    return step(self, *pictures)
t.Trainer.train_step = stop
"""
    given = [moved, "--steps", 12, "--lr", 0.001, "--precision", "bf16", "--log-every", 1]
    codes, said = forked(script, (1, ["train", "--resume", run, *given]), (1, ["train", "--resume", run]))
    assert codes == [0, 0], said
    assert (
        "From step 4 on --lr is 0.001; it was 0.0001." in said and f"Continue with: ugatit train --resume {run}" in said
    )
    now = read_run(run)
    assert (now.recipe.steps, now.model.lr, now.precision, now.data) == (12, 0.001, "bf16", moved)
    history = json.loads((run / "config.json").read_text())["history"]
    assert [(change["step"], change["pictures"]) for change in history] == [(4, {})], "the second time nothing changed"
    settings = history[0]["settings"]
    assert settings.pop("data") == [str(data), str(moved)]
    assert settings == {
        "steps": [4, 12], "lr": [0.0001, 0.001], "precision": ["no", "bf16"], "log-every": [2, 1]
    }  # fmt: skip
    assert [line["lr/gen"] for line in metrics(run)][-8:] == pytest.approx(
        [0.001 * min(1, (12 - step) / 6) for step in range(4, 12)]
    )


def test_a_run_goes_on_with_two_folders_instead_of_data_and_back(data, tmp_path, monkeypatch):
    run, seen = tmp_path / "run", []
    monkeypatch.setattr("ugatit.training.trainer.train", lambda config, *_: seen.append(config))
    run.mkdir()
    write_run(tiny(data, run), run)
    assert (
        main(["train", "--resume", str(run), "--source", str(data / "trainA"), "--target", str(data / "trainB")]) == 0
    )
    write_run(seen[0], run)
    assert main(["train", "--resume", str(run), str(data)]) == 0
    assert [(c.data, c.source, c.target) for c in seen] == [
        (None, data / "trainA", data / "trainB"), (data, None, None)
    ]  # fmt: skip


def test_what_a_run_cannot_change_is_refused_and_changes_nothing(data, tmp_path, capsys):
    run = tmp_path / "run"
    train(tiny(data, run))
    before = (run / "config.json").read_bytes()
    for given, says in (
        (["--seed", "1"], "--seed cannot be changed by --resume"),
        (["--holdout", "0.2"], "--holdout cannot be changed"),
        (["--preset", "light"], "--preset cannot be changed"),
        (["--system", "unit"], "--system cannot be changed"),
        (["--out", "elsewhere"], "--out cannot be changed"),
        (["--width", "3"], "other networks"),
        (["--decoder-norm", "ln"], "--decoder-norm cannot be changed"),
    ):
        assert main(["train", "--resume", str(run), *given]) == 2, given
        assert says in " ".join(capsys.readouterr().err.split())
        assert (run / "config.json").read_bytes() == before


def test_a_resumed_run_says_what_has_changed_in_its_pictures(data, tmp_path, capsys):
    run = tmp_path / "run"
    for name in ("testA", "testB"):
        shutil.rmtree(data / name)
    config = tiny(data, run)
    train(config)
    tests = json.loads((run / "pictures.json").read_text())["testA"]
    for number in range(5):
        write_picture(data / "trainA" / f"new{number}.png", 50 + number)
    (data / "trainB" / "0.png").unlink()
    train(replace(config, recipe=Recipe(steps=6, ema=0.9)), resume=True)
    said = " ".join(capsys.readouterr().err.split())
    assert "added to trainA since the run was started or resumed: new0.png, new" in said
    assert "1 picture removed from trainB since the run was started or resumed: 0.png." in said
    change = json.loads((run / "config.json").read_text())["history"][0]
    assert change["step"] == 4 and change["pictures"]["removed from trainB"] == ["0.png"]
    now = json.loads((run / "pictures.json").read_text())
    assert tests.items() <= now["testA"].items() and not tests.keys() & now["trainA"].keys()


def test_a_second_run_in_a_process_is_the_first(data, tmp_path):
    """Of a system that loads a feature network, which draws random weights, at its first run."""
    script = "torch.manual_seed(0)"
    options = ["--system", "cartoongan", "--preset", "quick", "--size", 32, "--width", 2, "--blocks", 1, "--workers", 0]
    runs = [tmp_path / name for name in ("first", "second")]
    twice = f"""
def twice(arguments, once=main):
    return max(once([*arguments, "-o", run]) for run in {[str(run) for run in runs]!r})
main = twice
"""
    codes, errors = forked(script + twice, (1, ["train", data, *options, "--steps", 2, "--log-every", 1]))
    assert codes == [0], errors
    assert_same_run(*runs)


def test_processes_that_know_each_other_do_so_for_all_that_they_are_asked_for(data, tmp_path):
    """A group of processes cannot be made a second time."""
    asked = [["train", str(data), "-o", str(tmp_path / name), *map(str, SMALL)] for name in ("first", "second")]
    measure = ["evaluate", "--real", str(data / "trainA"), "--fake", str(data / "trainB")]
    asked += [[*measure, "--features", "efficientnet-lite0", "-o", str(tmp_path / "measured")]]
    script = f"""
def all_of_it(_, once=main):
    return max(map(once, {asked!r}))
main = all_of_it
"""
    code, errors = two_processes(script)
    assert code == 0, errors
    assert_same_run(tmp_path / "first", tmp_path / "second")
    assert (tmp_path / "measured" / "metrics.json").exists()


def test_float32_is_float32_unless_asked_for_tf32(data, tmp_path, monkeypatch):
    seen, step = [], Trainer.train_step

    def watched(self, *pictures):
        seen.append((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
        return step(self, *pictures)

    monkeypatch.setattr(Trainer, "train_step", watched)
    train(tiny(data, tmp_path / "exact", steps=1))
    train(tiny(data, tmp_path / "faster", steps=1, tf32=True))
    assert seen == [(False, False), (True, True)]
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (False, True), "torch's own"


def test_machines_that_do_not_share_the_run_s_folder_are_told(data, tmp_path):
    run, local = tmp_path / "run", tmp_path / "local"
    code, errors = two_processes("", "train", data, "-o", run, *SMALL)
    assert code == 0, errors
    local.mkdir()
    shutil.copy(run / "config.json", local)
    script = f"""
def train_here(config, resume, start_curve, real=t.train):
    run = config.out if os.environ["RANK"] == "0" else __import__("pathlib").Path({str(local)!r})
    return real(t.replace(config, out=run), resume, start_curve)
from dataclasses import replace
t.replace = replace
t.train = train_here
"""
    code, errors = two_processes(script, "train", "--resume", run, "--steps", 9)
    assert code == 2 and errors.count("process 0 finds step 6 and process 1 step 0") == 2, errors


def test_a_finished_run_whose_model_is_not_of_its_last_step_gets_it_when_it_is_resumed(data, tmp_path, monkeypatch):
    """A disk that is full between the two lets the last checkpoint stand beside an older model, or none."""
    run = tmp_path / "run"

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    config = tiny(data, run)
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "keep_model", full)
        with pytest.raises(UserError, match=r"No space left on device\): free some space and use `resume`"):
            train(replace(config, checkpoint_every=4))
    row = Run("U-GAT-IT", config)
    assert row.step() == 4 and not row.done()
    train(read_run(run), resume=True)
    assert saved_step(run / "model") == 4 and row.done()


def test_a_run_that_ended_before_its_first_checkpoint_begins_with_its_model_again(data, tmp_path, capsys):
    train(tiny(data, tmp_path / "before", steps=2))
    start = tmp_path / "before" / "model"
    write_run(tiny(data, tmp_path / "run", steps=2, start=start), tmp_path / "run")
    train(tiny(data, tmp_path / "run", steps=2, start=start), resume=True)
    assert f"The weights are those of {start}" in capsys.readouterr().err
    train(tiny(data, tmp_path / "whole", steps=2, start=start))
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_what_a_run_does_not_take_of_the_model_it_starts_from_is_said():
    large, small = UGATIT(UGATITConfig(size=32, width=2, blocks=2)), UGATIT(UGATITConfig(size=32, width=2, blocks=1))
    large.init_weights()
    _, left = take_weights(small, large)
    assert left == ["gen_a2b.decoder", "gen_a2b.encoder", "gen_b2a.decoder", "gen_b2a.encoder"]
    other = UGATIT(UGATITConfig(size=32, width=2, blocks=1, release="tensorflow"))
    with pytest.raises(UserError, match="authors' tensorflow release: give `release=tensorflow`"):
        take_weights(small, other)


@pytest.mark.parametrize("norm", ["adain", "in", "ln"])
def test_what_is_constant_stays_so_whatever_a_run_starts_from(norm):
    learned, fixed = (UGATIT(UGATITConfig(size=32, width=2, blocks=1, decoder_norm=n)) for n in ("adalin", norm))
    for system in (learned, fixed):
        system.init_weights()
    before = {name: tensor.clone() for name, tensor in fixed.state_dict().items() if name.endswith("rho")}
    for name, tensor in learned.state_dict().items():
        if name.endswith("rho"):
            tensor.fill_(0.3)
    take_weights(fixed, learned)
    after = fixed.state_dict()
    trained = dict(fixed.named_parameters())
    constant = [name for name in before if name not in trained]
    assert constant and all(torch.equal(after[name], before[name]) for name in constant)


def test_states_of_other_parameters_are_not_put_back():
    weight = nn.Parameter(torch.ones(3, 2))
    adam = torch.optim.Adam([weight])
    weight.sum().backward()
    adam.step()
    packed = pack_optimizers({"gen": adam})
    with pytest.raises(ValueError, match="parameter 0 of gen has another shape"):
        unpack_optimizers({"gen": torch.optim.Adam([nn.Parameter(torch.ones(2, 3))])}, packed)


@pytest.mark.parametrize(
    ("reason", "told", "steps"),
    [
        ("[enforce fail] DefaultCPUAllocator: can't allocate memory", "needs more memory than there is: try `ch", []),
        (
            "DataLoader worker (pid 7) exited unexpectedly",
            r"step 1 is saved: continue with `resume` .* `workers=0`",
            [1],
        ),
    ],
)
def test_short_memory_and_lost_workers_are_a_sentence(reason, told, steps, data, tmp_path, monkeypatch):
    run, step = tmp_path / "run", Trainer.train_step

    def fails(self, *pictures):
        if self.step == 1:
            raise RuntimeError(reason)
        return step(self, *pictures)

    monkeypatch.setattr(Trainer, "train_step", fails)
    with pytest.raises(UserError, match=told):
        train(tiny(data, run))
    assert [int(path.name[5:]) for path in checkpoints(run / "checkpoints")] == steps


def test_a_worker_that_is_killed_amid_a_step_leaves_a_checkpoint_of_whole_steps(data, tmp_path, monkeypatch):
    after = UGATIT.after_update

    def kill(self, update):
        after(self, update)
        if update.optimizers == ("disc",) and (children := multiprocessing.active_children()):
            os.kill(children[0].pid, signal.SIGKILL)
            time.sleep(0.5)  # in which torch would raise

    monkeypatch.setattr(UGATIT, "after_update", kill)
    with pytest.raises(UserError, match=r"step (\d+) is saved: continue with `resume` .* `workers=0`") as told:
        train(tiny(data, tmp_path / "run", steps=40, workers=1))
    saved = int(re.search(r"step (\d+)", str(told.value))[1])
    steps = {float(value) for name, value in final_state(tmp_path / "run").items() if name.endswith("step")}
    assert steps == {saved}, "as many updates of the discriminators as of the generators"


def test_old_checkpoints_go_while_the_model_cannot_be_written(data, tmp_path, monkeypatch, capsys):
    keep = Trainer.keep_model

    def full(self, folder):
        if self.step < 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        keep(self, folder)

    monkeypatch.setattr(Trainer, "keep_model", full)
    counts = []
    monkeypatch.setattr(Trainer, "keep", lambda self, fatal, real=Trainer.keep: (
        real(self, fatal), counts.append(len(checkpoints(tmp_path / "run" / "checkpoints")))))  # fmt: skip
    train(tiny(data, tmp_path / "run", steps=8, keep_last=2))
    assert counts == [1, 2, 2, 2]
    assert "The model of step 4 could not be written" in " ".join(capsys.readouterr().err.split())
    assert saved_step(tmp_path / "run" / "model") == 8


def test_a_run_that_another_process_began_meanwhile_stays_as_it_is(data, tmp_path, monkeypatch):
    run, found = tmp_path / "run", Trainer.__init__
    other = tiny(data, run, seed=5)

    def meanwhile(self, *arguments):
        found(self, *arguments)
        write_run(other, run)

    monkeypatch.setattr(Trainer, "__init__", meanwhile)
    with pytest.raises(UserError, match="already holds a run: continue it with `resume`"):
        train(tiny(data, run))
    assert read_run(run).seed == 5 and not (run / "pictures.json").exists()


def test_factors_that_an_update_does_not_use_are_none_of_the_next(data, tmp_path):
    config = tiny(data, tmp_path / "run", model=UGATITConfig(size=32, width=2, blocks=1))
    trainer = Trainer(config, tmp_path / "run", resume=False)
    large = next(iter(trainer.factored))
    rows = torch.full((1, large.shape[0]), float("nan")), torch.ones(1, large[0].numel())
    factors_of(large).append(rows)  # as if the discriminators' loss had gone through it
    trainer.system.train()
    pictures = torch.rand(2, 1, 3, 32, 32) * 2 - 1
    trainer.train_step(*pictures)
    assert all(parameter.isfinite().all() for parameter in trainer.system.parameters())


def test_all_sheets_of_a_run_have_the_same_styles(data, tmp_path):
    """Where a style is drawn for each picture, sheets of other ones cannot be compared."""
    model = replace(preset_config("munit", "quick").model, size=32, width=2, blocks=1)
    config = tiny(data, tmp_path / "run", system="munit", model=model, recipe=Recipe(steps=9))
    trainer, sheets = Trainer(config, tmp_path / "run", resume=False), []
    for trainer.step in (1, 2):
        torch.manual_seed(trainer.step)
        trainer.preview()
        sheets.append((tmp_path / "run" / "previews" / f"step-{trainer.step:08d}.png").read_bytes())
    assert sheets[0] == sheets[1]


def test_a_program_s_thread_may_train(data, tmp_path):
    """Signals are the main thread's; and after training the program has the handlers that it had."""

    def ended(*_: object) -> None:
        pass

    before = signal.signal(signal.SIGCHLD, ended)
    try:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(train, tiny(data, tmp_path / "thread", steps=2)).result().is_dir()
        train(tiny(data, tmp_path / "main", steps=2))
        assert signal.getsignal(signal.SIGCHLD) is ended
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_method_may_count_in_whole_numbers(data, tmp_path, monkeypatch):
    class Counting(UGATIT):
        def __init__(self, config):
            super().__init__(config)
            self.gen_a2b.register_buffer("seen", torch.tensor(7))

    monkeypatch.setitem(REGISTRY, "ugatit", Counting)
    train(tiny(data, tmp_path / "run", steps=2))
    assert Translator.load(tmp_path / "run" / "model").system.gen_a2b.seen == 7
    train(tiny(data, tmp_path / "run", steps=4), resume=True)


def test_short_memory_for_what_one_process_does_alone_ends_no_run(data, tmp_path, capsys):
    trainer = Trainer(tiny(data, tmp_path / "run"), tmp_path / "run", resume=False)
    trainer.accelerator = Mock(num_processes=2, is_main_process=True)

    def short():
        raise RuntimeError("DefaultCPUAllocator: not enough memory")

    trainer.guarded(short, "preview")
    assert "The preview of step 0 needs more memory than there is" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(RuntimeError):
        trainer.guarded(short, "evaluation", together=True)


def test_the_end_of_a_terminal_saves(data, tmp_path, monkeypatch):
    step = Trainer.train_step

    def hang_up(self, *pictures):
        if self.step == 2:
            os.kill(os.getpid(), signal.SIGHUP)
        return step(self, *pictures)

    monkeypatch.setattr(Trainer, "train_step", hang_up)
    train(tiny(data, tmp_path / "run"))
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step-00000002", "step-00000003"]
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        assert signal.SIGHUP not in endings()
    finally:
        signal.signal(signal.SIGHUP, ignored)


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(errno.ENOSPC, "No space left on device")])
def test_a_log_that_cannot_be_written_ends_no_run(error, data, tmp_path, monkeypatch):
    monkeypatch.setattr(ugatit.training.trainer, "say", Mock(side_effect=error))
    config = tiny(data, tmp_path / "run", log_every=1)
    train(config)
    assert saved_step(tmp_path / "run" / "model") == 4
    write_picture(data / "trainA" / "new.png", 50)  # of which a resumed run tells first
    train(replace(config, recipe=Recipe(steps=6, ema=0.9)), resume=True)
    assert saved_step(tmp_path / "run" / "model") == 6


def test_a_tracker_that_fails_ends_no_run_and_is_told_once(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(TensorBoardTracker, "log", Mock(side_effect=RuntimeError("the writer is gone")))
    train(tiny(data, tmp_path / "run", log_every=1, track=("tensorboard",)))
    told = capsys.readouterr().err
    assert told.count("the run is not followed (the writer is gone)") == 1 and "Done." in told
    assert len(metrics(tmp_path / "run")) == 4


def test_a_line_that_a_full_disk_cut_off_does_not_spoil_the_next(data, tmp_path):
    run = tmp_path / "run"
    train(tiny(data, run))
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss')
    assert Run("U-GAT-IT", tiny(data, run)).logged() == 4
    trainer = Trainer(tiny(data, run), run, resume=False)
    trainer.write_metrics({"step": 6})
    assert (run / "metrics.jsonl").read_text().endswith('"loss\n{"step": 6}\n')


def test_half_precision_is_recorded_only_with_optimisers_that_look_on_the_card_alone(data, tmp_path, monkeypatch):
    trainer = Trainer(tiny(data, tmp_path / "run"), tmp_path / "run", resume=False)
    assert trainer.scales_on_card()
    monkeypatch.setattr(trainer.accelerator, "scaler", torch.amp.GradScaler("cpu"))
    assert trainer.scales_on_card(), "U-GAT-IT's are fused"
    trainer.optimizers = {"gen": torch.optim.Adam([nn.Parameter(torch.ones(1))])}
    assert not trainer.scales_on_card()


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
    assert (run / "checkpoints" / "broken-step-00000004").is_dir(), "it no longer counts as one of the newest"
    assert_same_run(whole, run)
    for file in (run / "checkpoints").rglob("state.json"):
        file.write_text("{")
    with pytest.raises(UserError, match="broken"):
        train(tiny(data, run, steps=4), resume=True)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what a process maps")
def test_a_resumed_run_holds_no_file_of_its_checkpoint(data, tmp_path):
    """Which a network disk would not delete then, and whose room a local one would not give back."""
    config = tiny(data, tmp_path / "run", steps=2)
    train(config)
    trainer = Trainer(replace(config, recipe=replace(config.recipe, steps=4)), tmp_path / "run", resume=True)
    assert trainer.step == 2
    assert str(tmp_path / "run") not in Path("/proc/self/maps").read_text()


def test_what_cannot_be_deleted_ends_no_run(data, tmp_path, monkeypatch):
    def stays(path, ignore_errors=False, **_):
        if "step-" in str(path) and not ignore_errors:
            raise OSError(errno.ENOTEMPTY, "Directory not empty")

    monkeypatch.setattr(shutil, "rmtree", stays)
    train(tiny(data, tmp_path / "run", steps=4, checkpoint_every=1, keep_last=1))
    assert saved_step(tmp_path / "run" / "model") == 4


def test_signals_that_come_together_are_one(monkeypatch):
    """A launcher passes on what its processes were also sent themselves."""
    trainer = Trainer.__new__(Trainer)
    trainer.stop_signal = None
    ended = Mock()
    monkeypatch.setattr(signal, "raise_signal", ended)
    with trainer.signals():
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert trainer.stop_signal == signal.SIGTERM and not ended.called
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + 60)
        os.kill(os.getpid(), signal.SIGTERM)
        assert ended.called and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_run_that_is_asked_to_stop_saves_once_and_draws_nothing_before(data, tmp_path, monkeypatch):
    step, saved = Trainer.train_step, Mock(side_effect=ugatit.training.trainer.save_checkpoint)

    def stopped(self, *pictures):
        if self.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, *pictures)

    monkeypatch.setattr(Trainer, "train_step", stopped)
    monkeypatch.setattr(ugatit.training.trainer, "save_checkpoint", saved)
    train(tiny(data, tmp_path / "run", steps=4, preview_every=2, checkpoint_every=2))
    assert saved.call_count == 1 and (tmp_path / "run" / "checkpoints" / "step-00000002").is_dir()
    assert not list((tmp_path / "run").glob("previews/*.png"))


def test_a_preview_for_which_memory_is_short_ends_no_run(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        ugatit.training.trainer, "preview_columns", Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory."))
    )
    train(tiny(data, tmp_path / "run", steps=2, preview_every=1))
    assert "The preview of step 1 needs more memory than there is" in " ".join(capsys.readouterr().err.split())
    assert saved_step(tmp_path / "run" / "model") == 2


def test_a_run_is_trained_by_one_process_at_a_time(data, tmp_path):
    config = tiny(data, tmp_path / "run", steps=2)
    train(config)
    assert not (tmp_path / "run" / ".lock").exists()
    hold = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    command = [sys.executable, "-c", hold, str(tmp_path / "run" / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline()
        with pytest.raises(UserError, match="run is being trained by another process"):
            train(config, resume=True)
        other.communicate(b"\n")
    train(config, resume=True)


def test_more_steps_than_were_planned_say_what_the_learning_rate_does(data, tmp_path, capsys):
    train(tiny(data, tmp_path / "run", steps=4))
    train(tiny(data, tmp_path / "run", steps=8), resume=True)
    assert "The learning rate goes on at 100% of its start; it had come to 50%." in capsys.readouterr().err


def test_a_launcher_s_gradient_accumulation_does_not_count(data, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert Trainer(tiny(data, tmp_path), tmp_path, resume=False).accelerator.gradient_accumulation_steps == 1


def test_gradients_of_every_system_travel_while_the_backward_pass_goes_on(monkeypatch):
    """Those in factors apart, once it has ended."""
    monkeypatch.setattr(distributed, "BUCKET", 1000)
    for name in ("ugatit", "cyclegan"):
        system = REGISTRY[name](replace(REGISTRY[name].presets["quick"].model, size=32, width=4, blocks=1))
        system.init_weights()
        optimizers = system.optimizers()
        sent = Mock()
        monkeypatch.setattr(distributed.dist, "all_reduce", sent)
        accelerator = Mock(num_processes=2, gather=lambda x: torch.cat([x, x]))
        update = next(system.updates(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32), Clock(0, 2)))
        parameters = [p for part in update.optimizers for g in optimizers[part].param_groups for p in g["params"]]
        with distributed.averaged(parameters, accelerator):
            update.loss.backward(inputs=parameters)
            assert sent.call_count > 2, name


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

    monkeypatch.setattr("ugatit.training.checkpoint.save_tensors", full)
    train(tiny(data, run, steps=8))
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("No space left on device") == 3 and "step 2" in said
    assert [f.name for f in (run / "checkpoints").iterdir()] == ["step-00000008"]

    monkeypatch.setattr("ugatit.training.checkpoint.save_tensors", lambda *_: full({}, run / "x"))
    calls.clear()
    with pytest.raises(UserError, match="free some space"):
        train(replace(tiny(data, run), recipe=Recipe(steps=9, ema=0.9)), resume=True)
    assert [f.name for f in (run / "checkpoints").iterdir()] == ["step-00000008"]


def forked(script: str, *commands: tuple[int, list]) -> tuple[list[int], str]:
    """``ugatit`` commands one after the other, each in so many processes, after some lines of Python in each; forked,
    so that all is imported only once.

    Unlike under a launcher nobody ends a process when another has failed.

    Returns:
        The largest exit code of each, the signal's number with a minus if one was killed; and what all wrote to stderr.
    """
    code = f"""
import json, os, socket, sys, torch, ugatit.training.trainer as t
from ugatit.cli import main
{script}
codes = []
for count, arguments in json.loads(sys.argv[1]):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ |= {{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}}
    children = []
    for number in range(count):
        if not (child := os.fork()):
            if count > 1:
                os.environ |= {{"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(count)}}
            code = main(arguments)
            sys.stderr.flush()
            os._exit(code)
        children.append(child)
    codes.append(max((os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children), key=abs))
print(json.dumps(codes))
"""
    given = json.dumps([[count, [str(word) for word in words]] for count, words in commands])
    made = subprocess.run([sys.executable, "-c", code, given], env=one_thread(), capture_output=True, text=True)
    return json.loads(made.stdout or "[]"), made.stderr


def two_processes(script: str, *arguments: object) -> tuple[int, str]:
    """Exit code and stderr of one command in two processes, see `forked`."""
    (code,), errors = forked(script, (2, list(arguments)))
    return code, errors


SMALL = ["--preset", "quick", "--size", 32, "--width", 2, "--blocks", 1, "--workers", 0, "--batch", 1, "--ema", 0.9]
SMALL += ["--preview-every", 0, "--checkpoint-every", 3, "--steps", 6]

# Weights, pools, averages and optimiser state of all processes, gathered by hand and not by the check that is tested
# below; and runs called "killed" are, once.
WATCHED = """
import pathlib, signal
def compare(self, check=t.Trainer.check_agreement):
    check(self)
    tensors = {**self.system.state_dict(), **t.pack_optimizers(self.optimizers), **self.ema.average}
    for name, tensor in tensors.items() if self.accelerator.num_processes > 1 else ():
        everyone = [torch.empty_like(tensor) for _ in range(self.accelerator.num_processes)]
        torch.distributed.all_gather(everyone, tensor.contiguous())
        assert all(torch.equal(other, tensor) for other in everyone), name
    pathlib.Path(f"{self.run}-{self.accelerator.process_index}-{self.step}").touch()
def killed(self, *pictures, step=t.Trainer.train_step):
    if self.run.name == "killed" and self.step == 8 and self.started[1] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *pictures)
t.Trainer.check_agreement, t.Trainer.train_step = compare, killed
"""
CASES = {name: ["--system", name] for name in REGISTRY}
CASES["cartoongan"] += ["--content", "efficientnet-lite0", "--first", 0.2]
CASES["full, bfloat16"] = ["--no-light", "--adam-averages", "bfloat16"]


LOOKS = """
import pathlib, time, ugatit.data.memory as memory, ugatit.training.distributed as distributed
distributed.BEAT = 0.1  # the others are told many times that it goes on
def noted(file, channels, examine=memory.examine):
    time.sleep(0.05)
    (file.parents[1] / f"{file.parent.name}-{file.stem}-{os.environ['RANK']}").touch()
    return examine(file, channels)
memory.examine = noted
"""


def test_one_process_looks_at_the_pictures_and_tells_the_others(data, tmp_path):
    code, errors = two_processes(LOOKS, "train", data, "-o", tmp_path / "run", *SMALL)
    assert code == 0, errors
    seen = sorted(file.name for file in data.iterdir() if file.is_file())
    assert len(seen) == 15 and all(name.endswith("-0") for name in seen)
    for file in (data / "trainB").iterdir():
        file.write_bytes(b"no picture")
    code, errors = two_processes(LOOKS, "train", data, "-o", tmp_path / "other", *SMALL)
    assert code == 2 and "Traceback" not in errors
    assert errors.count("trainB has no usable picture (5 unusable files, 0.png is not a picture") == 2


# Four processes on two cores take long: one of the cases will do.
@pytest.mark.parametrize(("case", "processes"), [*((case, 2) for case in CASES), ("ugatit", 4)])
def test_several_processes_are_one_and_go_on_to_the_bit(case, processes, data, tmp_path):
    """Fourteen steps: the same everywhere, after a kill too, and those of one process with the larger batch."""
    size, batch = least_side(case), 2 if case == "drit" else 1
    options = [*SMALL, *CASES[case], "--size", size, "--steps", 14, "--checkpoint-every", 5, "--log-every", 5]
    options += ["--lr", 1e-5]  # so small that differences of rounding stay so
    one, whole, killed = (tmp_path / name for name in ("one", "whole", "killed"))
    codes, errors = forked(
        WATCHED,
        (1, ["train", data, "-o", one, *options, "--batch", batch * processes]),
        (processes, ["train", data, "-o", whole, *options, "--batch", batch]),
        (processes, ["train", data, "-o", killed, *options, "--batch", batch]),
        (processes, ["train", "--resume", killed]),
    )
    assert codes == [0, 0, -signal.SIGKILL, 0], errors
    for run in (whole, killed):
        seen = {f.name.removeprefix(run.name + "-") for f in tmp_path.glob(f"{run.name}-*")}
        assert seen == {f"{number}-{step}" for number in range(processes) for step in (5, 10, 14)}
    assert_same_run(whole, killed)
    for alone, together in zip(metrics(one), metrics(whole), strict=True):
        assert alone == pytest.approx(together, rel=2e-4)


def test_processes_that_measure_end_together_where_one_cannot_write(data, tmp_path):
    """And training goes on, in both."""
    script = """
import ugatit.evaluation.evaluate as e
def save(picture, path, save=e.save_picture):
    if os.environ.get("RANK") == "0":
        raise OSError(28, "No space left on device")
    save(picture, path)
e.save_picture = save
"""
    for part in ("testA", "testB"):
        for number in range(4):
            write_picture(data / part / f"{number}.png", number)
    code, errors = two_processes(
        script, "train", data, "-o", tmp_path / "run", *SMALL, "--steps", 2, "--evaluate-every", 1
    )
    assert code == 0, errors
    assert errors.count("was not measured") == 2 and "No space left on device" in errors
    assert (tmp_path / "run" / "model" / "config.json").exists()


def test_processes_that_drift_apart_are_stopped(data, tmp_path):
    script = "from contextlib import nullcontext; t.averaged = lambda *_: nullcontext()"
    code, errors = two_processes(script, "train", data, "-o", tmp_path / "run", *SMALL)
    assert code == 2 and "no longer train the same networks at step 3" in errors
    assert "Traceback" not in errors
    assert not list((tmp_path / "run").glob("checkpoints/step-*"))


@pytest.mark.parametrize("number", [0, 1])
def test_a_picture_that_vanishes_from_one_process_ends_both_with_a_checkpoint(number, data, tmp_path):
    script = f"""
from ugatit.data.finding import Skipped
from ugatit.data.sampling import Unpaired
from pathlib import Path
read = Unpaired.__getitem__
lost = Skipped(Path("lost.png"), "does not exist")
Unpaired.__getitem__ = lambda self, n: lost if n == {8 + number} else read(self, n)
"""
    code, errors = two_processes(script, "train", data, "-o", tmp_path / "run", *SMALL, "--checkpoint-every", 100)
    assert code == 2 and "lost.png was fine when the run began and now does not exist" in errors
    assert "Another process of this run found a picture" in errors and "Traceback" not in errors
    assert [f.name for f in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000004"]
    again, said = two_processes("", "train", "--resume", tmp_path / "run")
    assert again == 0 and (tmp_path / "run" / "checkpoints" / "step-00000006").is_dir(), said


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
    code, errors = two_processes(script, "train", data, "-o", tmp_path / "run", *SMALL, "--checkpoint-every", 100)
    assert code == 0, errors
    assert "Stopped after step 4 and saved" in errors
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
    code, errors = two_processes(script, "train", data, "-o", tmp_path / "run", *SMALL)
    assert code == 9 and time.monotonic() - began < 60
    assert "Another process of this run has ended or cannot be reached" in errors
    assert "Traceback" not in errors
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
    code, errors = two_processes(script, "train", data, "-o", tmp_path / "run", *SMALL)
    assert code == 2 and errors.count("became nan at step 5") == 2
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
    layer = LargeLinear(8, 4)
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
        noise = 0.01 * clock.noise(real_a, *real_a.shape[1:])
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
    real, seen = ugatit.training.trainer.Trainer.train_step, []

    def step(self, *batch):
        seen.append(1)
        if len(seen) == 2:
            for file in (data / "trainB").iterdir():
                file.unlink()
        return real(self, *batch)

    monkeypatch.setattr(ugatit.training.trainer.Trainer, "train_step", step)
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
def test_bad_input_is_one_sentence_and_exit_code_two(arguments, names, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = run_here(*[a.format(data=data) for a in arguments])
    assert made.returncode == 2
    assert names in made.stderr + made.stdout
    assert "Traceback" not in made.stderr


def test_the_model_s_folder_is_no_run(data, tmp_path, capsys):
    train(tiny(data, tmp_path / "run", steps=2))
    assert main(["train", "--resume", str(tmp_path / "run" / "model")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"is a model's folder, which is not resumed: give the run's, {tmp_path / 'run'}" in said


def test_a_failure_before_any_checkpoint_speaks_of_none(data, tmp_path, monkeypatch):
    step = Trainer.train_step
    spoilt = lambda self, *x: dict.fromkeys(step(self, *x), torch.tensor(torch.inf))  # noqa: E731
    monkeypatch.setattr(Trainer, "train_step", spoilt)
    with pytest.raises(UserError, match="there is no checkpoint yet"):
        train(tiny(data, tmp_path / "run", steps=2))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_of_any_bytes(data, tmp_path):
    odd = tmp_path / os.fsdecode(b"da\xffta")
    data.rename(odd)
    for file in sorted((odd / "testA").iterdir()):
        file.rename(file.with_name(os.fsdecode(b"\xfe") + file.name))
    options = [*TINY, "--steps", 2, "--holdout", 0]
    assert run_ugatit("train", odd, *options, cwd=tmp_path).returncode == 0
    run = tmp_path / "runs" / "da_ta-quick"
    again = run_here("train", "--resume", run, "--steps", 3)
    assert again.returncode == 0 and "Traceback" not in again.stderr, again.stderr
    made = run_ugatit("translate", run / "model", odd / "testA", "-o", tmp_path / "out")
    assert made.returncode == 0 and len(list((tmp_path / "out").iterdir())) == 2, made.stderr
    refused = run_here("train", odd, *options, "-o", tmp_path / os.fsdecode(b"r\xff"))
    assert refused.returncode == 2 and "Traceback" not in refused.stderr and "give another -o" in refused.stderr


def test_a_trained_run_whose_checkpoints_are_gone_does_not_begin_anew(data, tmp_path):
    """A disk that is not mounted, or a folder that cannot be looked into, would cost the model and the metrics."""
    run = tmp_path / "run"
    train(tiny(data, run, steps=2))
    kept = {file: file.read_bytes() for file in (run / "metrics.jsonl", run / "model" / "translator.safetensors")}
    (run / "checkpoints").rename(tmp_path / "elsewhere")
    (run / "checkpoints").symlink_to(tmp_path / "not mounted")
    with pytest.raises(UserError, match=r"has a trained model, and .* no checkpoint that can be read: bring them back"):
        train(tiny(data, run, steps=4), resume=True)
    assert all(file.read_bytes() == before for file, before in kept.items())
    (run / "checkpoints").unlink()
    (tmp_path / "elsewhere").rename(run / "checkpoints")
    train(tiny(data, run, steps=4), resume=True)


def test_with_another_batch_no_picture_of_the_epoch_is_left_out_or_seen_twice(data, tmp_path, monkeypatch, capsys):
    taken = []
    take = Unpaired.__getitem__
    monkeypatch.setattr(Unpaired, "__getitem__", lambda self, n: taken.append(n) or take(self, n))
    for steps, batch in ((3, 1), (5, 4), (6, 1)):
        config = tiny(data, tmp_path / "run", recipe=Recipe(steps=steps, batch=batch, ema=0.9))
        train(config, resume=steps > 3)
    assert taken == [*range(3), *range(3, 11), 11]
    said = " ".join(capsys.readouterr().err.split())
    assert "From step 3 on a step has 4 pictures of each domain in all processes; it had 1." in said


def test_what_a_person_wrote_into_the_run_s_settings_is_read_or_said(data, tmp_path):
    run = tmp_path / "run"
    train(tiny(data, run, steps=2))
    path = run / "config.json"
    good = path.read_text("utf-8")
    path.write_text("\ufeff" + good, "utf-8")  # as some editors save it
    assert read_run(run).recipe.steps == 2
    path.write_text(good.replace('"beta1"', '"betta1": 0.5, "beta1"'), "utf-8")
    with pytest.raises(UserError, match=r"has unknown settings \(betta1\): take them out"):
        read_run(run)
    path.write_text(good.replace('"seed": 0', '"seed": 4'), "utf-8")
    with pytest.raises(UserError, match=r"was trained with `seed=0`: write that into its config.json again"):
        train(replace(read_run(run), recipe=Recipe(steps=4, ema=0.9)), resume=True)
