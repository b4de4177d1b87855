"""What earlier versions wrote: ``tests/before/SYSTEM`` is a run of 6 steps, its checkpoint of step 3, and what version
0.1.0 made of a picture with its model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import run_here, write_picture

BEFORE = Path(__file__).parent / "before"


@pytest.mark.parametrize("system", ["ugatit", "cyclegan"])
def test_a_run_and_a_model_of_the_version_before_go_on(system, tmp_path):
    """The pictures that it held out, which it chose otherwise, are told by its losses."""
    data, run = tmp_path / "data", tmp_path / system
    for number, (part, count) in enumerate({"trainA": 9, "trainB": 8}.items()):
        for i in range(count):
            write_picture(data / part / f"{i}.png", 10 * number + i)
    shutil.copytree(BEFORE / system, run)
    made = run_here("train", data, "--resume", run)
    assert made.returncode == 0, made.stderr
    before, now = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (BEFORE / system, run)
    )
    assert [line["step"] for line in now] == [1, 2, 3, 4, 5, 6]
    for old, new in zip(before, now, strict=True):
        assert new == pytest.approx(old | {"steps_per_second": new["steps_per_second"]}, rel=1e-4)

    made = run_here("translate", BEFORE / system / "model", data / "trainA" / "0.png", "-o", tmp_path / "out")
    assert made.returncode == 0, made.stderr
    old, new = (
        np.asarray(Image.open(file), float) for file in (BEFORE / system / "translated.png", tmp_path / "out" / "0.png")
    )
    assert np.abs(old - new).max() <= 1
