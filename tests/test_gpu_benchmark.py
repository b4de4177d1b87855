"""The measurement of cards, where there is none: it is right on the processor too, and its tables are whole."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import gpu


@pytest.fixture
def restored(monkeypatch):
    """What the measurement changes in the package is undone."""
    monkeypatch.setattr(gpu.Clock, "noise", gpu.Clock.noise)
    monkeypatch.setattr(gpu.cartoongan, "content_network", gpu.content_network)


@pytest.mark.parametrize("name", gpu.REGISTRY)
def test_every_system_agrees_with_float64(name, restored):
    worst = gpu.check_system(name, "cpu")
    assert worst["plain loss"] < 1e-5 and worst["fast gradient"] < 1e-2


def test_a_system_that_computes_something_else_is_refused(restored, monkeypatch):
    monkeypatch.setattr(gpu, "LOSS", 0.0)
    with pytest.raises(SystemExit, match="ugatit, plain: loss 0 is off by"):
        gpu.check_system("ugatit", "cpu")


def test_tables_are_whole():
    steps = [
        gpu.measure_step(gpu.Setting("light", 1, "fast", precision), "cpu", 64, 4) for precision in ("float32", "bf16")
    ]
    steps += [gpu.measure_textbook("light", "cpu", 64, 4), gpu.attempt(lambda: 1 / 0, {"kind": "full"})]
    assert all(found["finite"] for found in steps[:2]) and steps[3]["failed"] == "ZeroDivisionError: division by zero"
    translation = [gpu.measure_translation(64, "tiles", "bf16", 2, "cpu", 4)]
    page = gpu.markdown({"card": "none", "torch": torch.__version__, "errors": {"ugatit": {"plain loss": 1e-6}},
                         "steps": steps, "translation": translation, "left out": 3, "profile": "PROFILE"})  # fmt: skip
    assert page.count("| light |") == 3 and "| tiles | bf16 | 2 |" in page and "3 settings were left out" in page


def test_without_a_card_it_says_so_in_a_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="There is no CUDA card here"):
        gpu.main(gpu.Config())
