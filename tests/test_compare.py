"""Table 3 on small data."""

import json
import subprocess
from dataclasses import replace

import pytest
from PIL import Image

from conftest import run_here
from ugatit.cli import main
from ugatit.experiments.compare import CompareConfig, compare, keep_budget, plan
from ugatit.experiments.runs import Experiment, train_all
from ugatit.experiments.trial import seconds_a_step
from ugatit.io.errors import UserError
from ugatit.training.config import read_run


def add_tests(data):
    for name in ("testA", "testB"):
        for i in range(4):
            Image.new("RGB", (40, 40), (60 * i, 40, 90)).save(data / name / f"{i}.png")


def test_systems_are_trained_measured_and_kept(data, tmp_path):
    add_tests(data)
    named = data.rename(data.with_name("horse2zebra"))
    arguments = ["compare", named, "--systems", "cyclegan", "aggan", "--preset", "quick", "--size", 32, "--steps", 2]
    arguments += ["--jobs", 2, "--features", "efficientnet-lite0", "--paired", "-o", tmp_path / "t"]
    made = run_here(*arguments)
    assert made.returncode == 0, made.stderr
    assert "the paper's horse2zebra has 1067" in made.stderr and "8.05 ± 0.72" in made.stderr
    assert "paper, by Inception" in made.stderr
    table = json.loads((tmp_path / "t" / "table.json").read_text())
    assert list(table["rows"]) == ["cyclegan", "aggan"] and table["steps"] == {"cyclegan": 2, "aggan": 2}
    assert len(table["rows"]["aggan"]["b2a"]["perceptual_of_each_seed"]) == 1
    pictures = tmp_path / "t" / "pictures" / "a2b"
    names = [sorted(f.name for f in (pictures / system).iterdir()) for system in ("cyclegan", "aggan")]
    assert names[0] == names[1] and len(names[0]) >= 4
    with Image.open(tmp_path / "t" / "sheet-a2b.png") as sheet:
        assert sheet.width // 100 == 3
    times = {f: f.stat().st_mtime_ns for f in (tmp_path / "t").rglob("*.safetensors")}
    again = run_here(*arguments)
    assert again.returncode == 0 and times == {f: f.stat().st_mtime_ns for f in times}
    (tmp_path / "t" / "cyclegan-seed0" / "evaluation" / "metrics.json").write_text("")  # a crash's; measured anew
    arguments.remove("--paired")
    again = run_here(*arguments)  # of one system alone the distance to the truth is known
    assert again.returncode == 0 and "l1_of_each_seed" in (tmp_path / "t" / "table.json").read_text(), again.stderr
    place = arguments.index("--steps")
    timed = run_here(*arguments[:place], "--minutes", 0.02, *arguments[place + 2 :])
    assert timed.returncode == 2 and "was started with other settings" in timed.stderr, "these are of two steps"


def test_what_cannot_be_measured_is_told_before_training(data, tmp_path):
    arguments = ["compare", data, "--systems", "aggan", "aggan", "--preset", "quick", "--size", 32, "--steps", 1]
    arguments += ["--features", "efficientnet-lite0", "-o", tmp_path / "t"]
    made = run_here(*arguments)
    assert made.returncode == 2 and "Domain A's test set has 2 usable pictures, at least 4" in made.stderr
    add_tests(data)
    (data / "testB" / "3.png").rename(data / "testB" / "other.png")
    made = run_here(*arguments, "--paired")
    assert made.returncode == 2 and "no picture named 3" in made.stderr
    assert not (tmp_path / "t").exists()
    assert len(plan(CompareConfig(data, tmp_path, ("aggan", "aggan"), "quick"), tmp_path)) == 1, "named twice, run once"


def test_a_budget_in_minutes(data, tmp_path, capsys):
    config = CompareConfig(data, tmp_path / "t", ("cyclegan",), "quick", size=32, minutes=0.1)
    (run,) = plan(config, tmp_path / "t")
    assert f"{run.config.recipe.steps} steps in 0.1 minutes" in capsys.readouterr().err


def test_a_trial_runs_as_the_runs_do_and_says_why_it_cannot(data, tmp_path, monkeypatch):
    """With their threads, and in a process of its own: on a card, what it took is free again."""
    config = CompareConfig(data, tmp_path / "t", ("cyclegan",), "quick", size=32, steps=1)
    run, asked = plan(config, tmp_path / "t")[0].config, []
    start = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *a, **options: asked.append(options["env"]) or start(*a, **options))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert seconds_a_step(run, 1) > 0 and asked.pop()["OMP_NUM_THREADS"] == "1", "as is given"
    monkeypatch.setattr("os.cpu_count", lambda: 12)
    with pytest.raises(UserError, match=r"^cyclegan cannot be trained: .*gone does not exist"):
        seconds_a_step(replace(run, data=data / "gone"), 4)
    assert asked.pop()["OMP_NUM_THREADS"] == "3", "a share of the cores"


def test_all_seeds_have_the_steps_that_one_trial_told_and_another_budget_is_refused(data, tmp_path, monkeypatch):
    times = iter([7, 9, 3, 4])
    monkeypatch.setattr("ugatit.experiments.compare.affordable", lambda *_: next(times))
    seeds = Experiment(seeds=(0, 1, 1))
    config = CompareConfig(data, tmp_path, ("cyclegan", "aggan"), "quick", minutes=3.0, experiment=seeds)
    first = plan(config, tmp_path)
    assert not (tmp_path / "budget.json").exists(), "what is refused now leaves nothing that refuses the next start"
    keep_budget(config, first, tmp_path)
    again = plan(config, tmp_path)
    assert [(run.row, run.seed, run.config.recipe.steps) for run in first] == [
        ("cyclegan", 0, 7), ("aggan", 0, 9), ("cyclegan", 1, 7), ("aggan", 1, 9),
    ]  # fmt: skip
    assert first == again
    with pytest.raises(UserError, match="was begun with `minutes=3`: give that again"):
        plan(replace(config, minutes=30.0), tmp_path)
    larger = plan(replace(config, size=128), tmp_path)
    assert [run.config.recipe.steps for run in larger] == [3, 4, 3, 4], "other networks take another time"


def test_an_experiment_goes_on_where_its_data_is_now_and_names_what_else_is_another(data, tmp_path):
    run = plan(CompareConfig(data, tmp_path / "t", ("cyclegan",), "quick", steps=6), tmp_path / "t")[0]
    run.claim()
    (run.folder / "metrics.jsonl").write_text('{"step": 3}\n')
    moved = data.rename(tmp_path / "moved")
    again = run._replace(config=replace(run.config, data=moved))
    again.claim()
    assert read_run(run.folder).data == moved
    other = again._replace(config=replace(again.config, recipe=replace(again.config.recipe, steps=7, flip=0.1)))
    with pytest.raises(UserError, match=r"other settings \(`steps` 6, `flip` 0\.5\): give those, or another `out`"):
        other.claim()
    assert read_run(run.folder).recipe.steps == 6


@pytest.mark.parametrize("command", ["compare", "ablate"])
def test_an_experiment_among_its_pictures_is_refused_before_anything_is_written(command, data, tmp_path, capsys):
    add_tests(data)
    out = data / "testA" / "table"
    assert main([command, str(data), "--features", "efficientnet-lite0", "-o", str(out)]) == 2
    assert f"lies in {data / 'testA'}, where its sheets would count" in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments, names", [(["--systems", "pix2pix"], "pix2pix"), (["--steps", 2, "--minutes", 1], "--minutes")]
)
def test_bad_input_is_one_sentence(arguments, names, data, tmp_path):
    made = run_here("compare", data, *arguments, "-o", tmp_path)
    assert made.returncode == 2 and names in made.stderr and "Traceback" not in made.stderr


def test_an_experiment_starts_its_processes_itself(data, tmp_path, monkeypatch):
    """And what lies in the current folder is none of Python's modules in them."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    config = CompareConfig(data, tmp_path / "t", ("cyclegan",), "quick", steps=1)
    with pytest.raises(UserError, match="start this once, without torchrun, with `jobs`"):
        compare(config)
    monkeypatch.delenv("WORLD_SIZE")
    (tmp_path / "http.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    run = plan(replace(config, size=32), tmp_path / "t")[0]
    assert seconds_a_step(run.config, 1) > 0
    train_all([run], 1)
    assert run.done()
