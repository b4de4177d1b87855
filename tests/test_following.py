"""Following a run: trackers, the curve of KID and the best model, early signs of a failure, and what comes next."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file

from conftest import run_here, tiny_model, write_picture
from test_train import assert_same_run, tiny
from ugatit.evaluation.curve import KidCurve
from ugatit.io.errors import UserError
from ugatit.systems import REGISTRY
from ugatit.systems.base import BEATEN
from ugatit.systems.ugatit import CHANCE
from ugatit.training.config import read_run
from ugatit.training.signs import SETTLED, WINDOW, Signs, unchanged
from ugatit.training.tracking import start_tracking
from ugatit.training.trainer import Trainer, train, what_next
from ugatit.translation.folder import save_model


@pytest.fixture
def tested(data: Path) -> Path:
    """The data folder, with test pictures enough for KID."""
    for domain in "AB":
        for number in range(6):
            write_picture(data / f"test{domain}" / f"{number}.png", number + 50 * (domain == "B"))
    return data


def points(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "kid" / "kid.jsonl").read_text().splitlines()]


def measure_as(monkeypatch, *figures: float) -> None:
    """Let one measurement after the other find these."""
    measured = iter(figures)

    def fake(evaluator, translator, tests, root, out):
        out.mkdir(exist_ok=True)
        mean = next(measured)
        return {way: {"kid_mean": mean, "kid_std": 1.0} for way in translator.system.directions}

    monkeypatch.setattr("ugatit.evaluation.curve.evaluate_model", fake)


def test_the_curve_has_every_measured_step_and_best_is_the_lowest(tested, tmp_path, monkeypatch, capsys):
    measure_as(monkeypatch, 9.0, 3.0, 5.0)
    run = tmp_path / "run"
    train(tiny(tested, run, steps=5, evaluate_every=2, keep_every=2), start_curve=KidCurve)
    assert [(p["step"], p["a2b"]["mean"], p["b2a"]["std"]) for p in points(run)] == [(2, 9, 1), (4, 3, 1), (5, 5, 1)]
    best, fourth = load_file(run / "best" / "translator.safetensors"), run / "checkpoints" / "step-00000004"
    average = load_file(fourth / "ema.safetensors")
    assert all(torch.equal(value, average[name]) for name, value in best.items())
    last = load_file(run / "model" / "translator.safetensors")
    assert any(not torch.equal(value, last[name]) for name, value in best.items())
    assert "test pictures: A to B 3.00 ± 1.00, B to A 3.00" in (run / "best" / "README.md").read_text()
    assert "test pictures: A to B 5.00 ± 1.00, B to A 5.00" in (run / "model" / "README.md").read_text()
    told = capsys.readouterr().err
    assert "step 5: A to B 5.00 ± 1.00" in told and "is 4: A to B 3.00" in told  # never the best alone
    assert (run / "kid" / "kid.png").read_bytes().startswith(b"\x89PNG")


def test_a_measured_figure_is_that_of_ugatit_evaluate(tested, tmp_path):
    run = tmp_path / "run"
    train(tiny(tested, run, steps=2, evaluate_every=2), start_curve=KidCurve)
    done = run_here("evaluate", run / "model", tested, "--features", "efficientnet-lite0", "-o", tmp_path / "e")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert found["a2b"]["kid_mean"] == pytest.approx(points(run)[-1]["a2b"]["mean"], abs=1e-9)


def test_measuring_does_not_change_what_is_trained_and_resumes(tested, tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    train(tiny(tested, one, evaluate_every=2), start_curve=KidCurve)
    train(tiny(tested, other))
    assert_same_run(one, other)
    before = points(one)
    with (one / "kid" / "kid.jsonl").open("a") as file:  # of a step that was lost with its checkpoint
        file.write(json.dumps({"step": 6, "a2b": {"mean": 0, "std": 0}, "b2a": {"mean": 0, "std": 0}}) + "\n")
    config = read_run(one)
    train(replace(config, recipe=replace(config.recipe, steps=6)), resume=True, start_curve=KidCurve)
    after = points(one)
    assert after[:2] == before and [p["step"] for p in after] == [2, 4, 6] and after[2]["a2b"]["mean"] > 0


def test_measurements_of_other_test_pictures_are_kept_and_not_compared(tested, tmp_path, monkeypatch, capsys):
    measure_as(monkeypatch, 3.0, 4.0, 9.0)
    run = tmp_path / "run"
    train(tiny(tested, run, evaluate_every=2), start_curve=KidCurve)
    write_picture(tested / "testB" / "3.png", 999)
    config = read_run(run)
    train(replace(config, recipe=replace(config.recipe, steps=6)), resume=True, start_curve=KidCurve)
    assert [(p["step"], p["a2b"]["mean"]) for p in points(run)] == [(2, 3), (4, 4), (6, 9)]
    assert len({p["tests"] for p in points(run)}) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "The test pictures are others than before: 2 measurements of the old ones stay in" in told
    assert "No earlier step of the 1 that were measured is better." in told
    monkeypatch.setattr("ugatit.evaluation.curve.is_first", lambda: False)
    train(read_run(run), resume=True, start_curve=KidCurve)
    assert "others than before" not in capsys.readouterr().err, "one of several processes tells it"


def test_a_test_picture_that_vanishes_does_not_end_the_run(tested, tmp_path, monkeypatch, capsys):
    step = Trainer.train_step

    def lose(self, *pictures):
        (tested / "testA" / "0.png").unlink(missing_ok=True)
        return step(self, *pictures)

    monkeypatch.setattr(Trainer, "train_step", lose)
    train(tiny(tested, tmp_path / "run", evaluate_every=2), start_curve=KidCurve)
    told = capsys.readouterr().err
    assert "Step 2 was not measured" in told and "0.png does not exist: put it back" in told and "Done." in told


def test_a_best_step_whose_model_could_not_be_kept_is_not_said_to_be(tmp_path):
    curve = KidCurve.__new__(KidCurve)
    curve.run, curve.tests = tmp_path, {"A": [], "B": []}
    curve.points = [{"step": step, "a2b": {"mean": float(kid), "std": 1.0}} for step, kid in ((2, 9), (4, 3), (5, 5))]
    save_model(tiny_model(), tmp_path / "best", step=2)
    assert "is 4: A to B 3.00 ± 1.00, of which no model could be kept" in curve.summary()[1]
    save_model(tiny_model(), tmp_path / "best", step=4)
    assert f"kept in {tmp_path / 'best'}" in curve.summary()[1]


def test_a_folder_that_cannot_be_written_does_not_end_the_run(tested, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "kid").write_text("a file")
    train(tiny(tested, run, evaluate_every=2), start_curve=KidCurve)
    assert "Step 2 was not measured" in capsys.readouterr().err
    assert (run / "checkpoints" / "step-00000004").is_dir()


@pytest.mark.parametrize(("changes", "told"), [({}, "test set"), ({"channels": 2}, "grey and colour pictures only")])
def test_what_cannot_be_measured_is_told_before_training(data, tmp_path, changes, told):
    config = tiny(data, tmp_path / "run", evaluate_every=2)
    with pytest.raises(UserError, match=told):
        train(replace(config, model=replace(config.model, **changes)), start_curve=KidCurve)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_trackers_get_losses_and_pictures_offline(data, tmp_path):
    command = ["train", data, "--preset", "quick", "--size", 32, "--width", 2, "--steps", 4, "--preview-every", 2]
    command += ["--log-every", 2, "--workers", 0, "--track", "tensorboard", "wandb", "-o", tmp_path / "run"]
    environment = os.environ | {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    done = subprocess.run(
        [sys.executable, "-m", "ugatit", *map(str, command)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))
    name = (tmp_path / "run" / "wandb" / "id").read_text()
    (record,) = (tmp_path / "run" / "wandb").glob(f"offline-run-*-{name}/*.wandb")
    content = record.read_bytes()
    assert b"gen/cycle_a" in content and b"adv-weight" in content
    assert list(record.parent.glob("files/media/images/*"))


def test_the_first_process_alone_gives_a_run_its_name_elsewhere(tmp_path):
    start_tracking(Mock(is_main_process=False), ("tensorboard", "wandb"), tmp_path, 0, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("module", "changes", "told"),
    [
        ("wandb", {"track": ("wandb",)}, r"wandb is not installed: pip install 'ugatit\[track\]'"),
        ("efficientnet_lite_pytorch", {"evaluate_every": 1}, r"pip install 'ugatit\[offline\]'"),
    ],
)
def test_what_is_not_installed_is_told_before_a_folder_is_made(module, changes, told, tested, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=told):
        train(tiny(tested, tmp_path / "run", **changes), start_curve=KidCurve)
    assert not (tmp_path / "run").exists()


def test_a_run_of_before_is_followed_as_before(data, tmp_path):
    run = tmp_path / "run"
    train(tiny(data, run, steps=2))
    assert not (run / "tensorboard").exists()
    record = json.loads((run / "config.json").read_text())
    del record["track"]
    (run / "config.json").write_text(json.dumps(record))
    assert read_run(run).track == ("tensorboard",)


def test_signs_are_told_once_and_only_when_losses_have_settled():
    signs = Signs()
    signs.add({"a": 1.0}, SETTLED - 1)
    assert signs.new(["x"]) == []
    signs.add({"a": 1.0}, 1)
    assert signs.new(["x", "y"]) == ["x", "y"] and signs.new(["x", "z"]) == ["z"]
    signs.add({"a": 0.0}, WINDOW // 2)
    assert signs.means["a"] == pytest.approx(0.5)
    signs.add({"b": 7.0}, 1)  # a term that only some steps have
    assert signs.means["b"] == 7


@pytest.mark.parametrize("name", list(REGISTRY))
def test_beaten_generators_are_a_sign_in_every_system(name):
    with torch.device("meta"):
        system = REGISTRY[name](REGISTRY[name].presets["quick"].model)
    fine = {"disc/adv_a": 0.3, "gen/cam_a2b": 0.2}
    assert system.signs(fine) == []
    (told,) = system.signs(fine | {"disc/adv_b": BEATEN / 2})
    assert "`diff_augment`" in told


def test_attention_that_guesses_is_a_sign():
    with torch.device("meta"):
        system = REGISTRY["ugatit"](REGISTRY["ugatit"].presets["quick"].model)
    assert system.signs({"gen/cam_a2b": CHANCE * 0.9}) == []
    (told,) = system.signs({"gen/cam_b2a": CHANCE})
    assert "`cam_weight`" in told


def test_attention_that_shuts_is_a_sign():
    with torch.device("meta"):
        system = REGISTRY["aggan"](REGISTRY["aggan"].presets["quick"].model)
    means = {"att/mean_a": 0.4, "att/mean_b": 0.2}
    assert system.signs(means) == []
    (told,) = system.signs(means | {"att/mean_b": 0.05})
    assert "`cycle_weight`" in told


def test_translations_like_their_sources_are_a_sign():
    x = torch.rand(2, 3, 8, 8)
    columns = {"source A": x, "A to B": x + 0.001, "source B": x, "B to A": -x}
    (told,) = unchanged(columns)
    assert told.startswith("Translations A to B hardly differ")


def test_a_log_warns_of_a_sign(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("ugatit.training.signs.SETTLED", 1)
    monkeypatch.setattr("ugatit.systems.base.BEATEN", 100)
    train(tiny(data, tmp_path / "run"))
    told = capsys.readouterr().err
    assert told.count("--diff-augment") == 1 and "At step 2" in told


def test_what_comes_next_can_be_pasted(tmp_path):
    config = tiny(tmp_path / "my data", tmp_path / "a run")
    lines = what_next(config, True)
    assert f"ugatit translate '{tmp_path}/a run/model'" in lines[1] and f"'{tmp_path}/my data'" in lines[2]
    assert "--steps 8" in lines[3] and what_next(config, False) == [*lines[:2], lines[3]]
