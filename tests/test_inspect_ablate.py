"""What a model costs and chose, and Table 1 on small data."""

import json
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from PIL import Image

from conftest import TINY, run_here
from ugatit.evaluation.inspection import rho_by_layer, training_cost, translation_cost
from ugatit.experiments.ablate import TABLE_1, AblateConfig, plan
from ugatit.io.errors import UserError
from ugatit.systems.cartoongan import CartoonGAN, CartoonGANConfig
from ugatit.systems.ugatit import UGATIT, UGATITConfig
from ugatit.training.config import preset_config
from ugatit.translation.folder import save_model


def on_meta(**settings) -> UGATIT:
    with torch.device("meta"):
        return UGATIT(UGATITConfig(**settings))


def test_translation_s_multiply_adds_are_the_layers_sums():
    size, width, blocks = 64, 4, 2
    cost = translation_cost(on_meta(size=size, width=width, blocks=blocks, light=True), size)
    deep, low = 4 * width, (size // 4) ** 2
    expected = size**2 * 49 * 3 * width  # conv7
    expected += (size // 2) ** 2 * 9 * width * 2 * width + low * 9 * 2 * width * deep  # down
    expected += 4 * blocks * low * 9 * deep * deep  # both bottlenecks
    expected += low * deep * deep + 2 * deep  # CAM
    expected += 4 * deep * deep  # gamma, beta
    expected += (size // 4 + 1) ** 2 * 16 * deep * 2 * width  # up, four 2x2 convolutions
    expected += (size // 2 + 1) ** 2 * 16 * 2 * width * width
    expected += size**2 * 49 * width * 3  # out
    assert cost.multiply_adds == expected


def test_memory_is_the_weights_and_what_backward_needs():
    system = on_meta(size=256)  # the paper's: 671 million weights
    weights = sum(p.numel() for p in system.parameters())
    step = training_cost(system, 1)
    assert weights * 12 < step.bytes < weights * 12 + 4e9  # the largest weights' gradients are never whole
    assert training_cost(on_meta(size=256, adam_averages="bfloat16"), 1).bytes == step.bytes - weights * 4
    assert training_cost(on_meta(size=256, checkpointing=True), 1).bytes < step.bytes - 1.5e9
    one, two, three = (training_cost(on_meta(size=64, width=8, light=True), batch).bytes for batch in (1, 2, 3))
    assert three - two == pytest.approx(two - one, rel=0.02)
    kept = sum(p.numel() for p in on_meta(size=64, width=8, light=True).parameters())
    assert kept * 12 < one - (two - one) < kept * 16


def test_a_step_costs_what_steps_cost_on_average_and_the_memory_of_the_largest():
    def cost(first):
        config = CartoonGANConfig(size=32, width=4, blocks=1, content="efficientnet-lite0", first=first)
        return training_cost(CartoonGAN(config), 1)

    always, half, fifth = cost(0), cost(0.5), cost(0.2)  # without a discriminator until then
    assert always.bytes == half.bytes == fifth.bytes
    saved = always.multiply_adds - half.multiply_adds
    assert saved > 0.1 * always.multiply_adds
    assert always.multiply_adds - fifth.multiply_adds == pytest.approx(0.4 * saved, rel=1e-6)


def test_saved_bytes_of_one_layer():
    from ugatit.evaluation.inspection import SavedBytes

    weight = torch.zeros(5, 7, requires_grad=True)
    saved = SavedBytes([weight])
    with saved.hooks:
        x = torch.zeros(3, 7, requires_grad=True)
        y = (x @ weight.T).exp()  # keeps x, and its own result
    assert saved.now == saved.most == 4 * (3 * 7 + 3 * 5)
    y.sum().backward()
    assert saved.now == 0


def test_only_a_learned_rho_is_shown():
    assert list(rho_by_layer(UGATIT(UGATITConfig(size=32, width=1, blocks=1)))["gen_a2b"]) == [
        "decoder.0.norm1", "decoder.0.norm2", "up.0.norm", "up.1.norm",
    ]  # fmt: skip
    assert rho_by_layer(UGATIT(UGATITConfig(size=32, width=1, blocks=1, decoder_norm="adain"))) == {
        "gen_a2b": {}, "gen_b2a": {},
    }  # fmt: skip


@pytest.mark.parametrize("settings", [{}, {"cam": "none", "decoder_norm": "gn"}])
def test_inspect_writes_costs_rho_and_attention(settings, data, tmp_path):
    system = UGATIT(UGATITConfig(size=32, width=2, blocks=1, light=True, **settings))
    save_model(system, tmp_path / "model", 0)
    made = run_here("inspect", tmp_path / "model", data, "-o", tmp_path / "out", "--size", 64)
    assert made.returncode == 0, made.stderr
    numbers = json.loads((tmp_path / "out" / "inspection.json").read_text())
    assert numbers["parameters"]["gen_a2b"] == sum(p.numel() for p in system.gen_a2b.parameters())
    assert numbers["translation"]["size"] == 64 and numbers["translation"]["multiply_adds"] > 0
    assert (tmp_path / "out" / "rho.png").exists() == (not settings)
    with Image.open(tmp_path / "out" / "attention.png") as sheet:  # source, three maps, translation; both ways
        assert sheet.width // 100 == (10 if not settings else 4)


@pytest.mark.parametrize(
    "arguments, names",
    [(["--size", "33"], "--size"), (["--size", "64"], "--size 64"), (["{tmp}/none.png"], "none.png")],
)
def test_inspect_s_bad_input_is_one_sentence(arguments, names, tmp_path):
    save_model(UGATIT(UGATITConfig(size=32, width=1, blocks=1)), tmp_path / "model", 0)
    made = run_here("inspect", tmp_path / "model", "-o", tmp_path, *[a.format(tmp=tmp_path) for a in arguments])
    assert made.returncode == 2 and names in made.stderr and "Traceback" not in made.stderr


def test_table_1_trains_measures_and_keeps_what_is_done(data, tmp_path):
    rows = ["U-GAT-IT", "w/o G_CAM"]
    arguments = [
        "ablate",
        data,
        *TINY,
        "--steps",
        2,
        "--rows",
        *rows,
        "--seeds",
        0,
        1,
        "--jobs",
        2,
        "-o",
        tmp_path / "t",
    ]
    arguments += ["-o", tmp_path / "t", "--preview-every", 0, "--features", "efficientnet-lite0"]
    for name in ("testA", "testB"):
        for i in range(4):
            Image.new("RGB", (40, 40), (60 * i, 40, 90)).save(data / name / f"{i}.png")
    made = run_here(*arguments)
    assert made.returncode == 0, made.stderr
    table = json.loads((tmp_path / "t" / "table.json").read_text())
    assert list(table["rows"]) == rows and table["steps"] == dict.fromkeys(rows, 2)
    seeds = table["rows"]["w/o G_CAM"]["b2a"]["kid_of_each_seed"]
    assert len(seeds) == 2 and table["rows"]["w/o G_CAM"]["b2a"]["kid_mean"] == pytest.approx(sum(seeds) / 2)
    assert "13.86 ± 0.75" in made.stderr and "Protocol" in made.stderr
    config = json.loads((tmp_path / "t" / "without-G_CAM-seed1" / "config.json").read_text())
    assert config["model"]["cam"] == "discriminator" and config["seed"] == 1

    times = {f: f.stat().st_mtime_ns for f in (tmp_path / "t").rglob("*.safetensors")}
    again = run_here(*arguments, "--paired")
    assert "Distance to the truth" in again.stderr
    table = json.loads((tmp_path / "t" / "table.json").read_text())
    assert len(table["rows"]["w/o G_CAM"]["a2b"]["perceptual_of_each_seed"]) == 2
    assert again.returncode == 0 and times == {f: f.stat().st_mtime_ns for f in times}
    other = run_here(*arguments, "--width", 3)
    assert other.returncode == 2 and "other settings" in other.stderr


def test_stopping_table_1_stops_its_runs(data, tmp_path):
    for name in ("testA", "testB"):
        for i in range(4):
            Image.new("RGB", (40, 40), (60 * i, 40, 90)).save(data / name / f"{i}.png")
    arguments = ["ablate", data, *TINY, "--steps", 100_000, "--rows", "w/ LN", "--log-every", 1, "-o", tmp_path / "t"]
    seed = run_here(*arguments, "--seed", 3)
    assert seed.returncode == 2 and "--seed 3: give --seeds" in seed.stderr
    arguments += ["--features", "efficientnet-lite0"]
    child = subprocess.Popen([sys.executable, "-m", "ugatit", *map(str, arguments)])
    metrics = tmp_path / "t" / "with-LN-seed0" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    child.terminate()
    assert child.wait(60) == 130
    steps = metrics.read_text()
    time.sleep(1)
    assert metrics.read_text() == steps and "saved" in (metrics.parent / "log.txt").read_text()


def test_every_row_of_table_1_is_a_setting(data, tmp_path):
    start = replace(preset_config("ugatit", "quick"), data=data)
    runs = plan(AblateConfig(start), tmp_path / "out")
    assert len({run.config.model for run in runs}) == len({run.folder for run in runs}) == len(TABLE_1) == 8
    for run in runs:
        with torch.device("meta"):
            UGATIT(run.config.model)
    with pytest.raises(UserError, match="w/ BN"):
        plan(AblateConfig(start, rows=("w/ BN",)), tmp_path / "out")


def test_children_get_the_cards_that_this_process_was_given(monkeypatch):
    from ugatit.experiments.runs import environment

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for given, expected in (
        ("4,5", ["4", "5", "4"]),
        ("GPU-aa, GPU-bb", ["GPU-aa", "GPU-bb", "GPU-aa"]),
        (None, ["0", "1", "0"]),
    ):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if given is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        assert [environment(slot, jobs=3)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == expected
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    assert environment(0, jobs=1)["CUDA_VISIBLE_DEVICES"] == "4,5", "one run at a time has them all"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert environment(1, jobs=2)["CUDA_VISIBLE_DEVICES"] == "7"
