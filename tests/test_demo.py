"""The demo from end to end, with a handful of steps."""

import csv
import json

import pytest
from PIL import Image

from conftest import run_ugatit
from ugatit.demo import EMOJI


def test_the_package_s_emoji():
    names = {part: {f.name for f in (EMOJI / part).iterdir()} for part in ("trainA", "trainB", "testA", "testB")}
    assert names["trainA"] == names["trainB"] and names["testA"] == names["testB"]
    assert 300 <= len(names["trainA"] | names["testA"]) <= 500
    with (EMOJI / "index.tsv").open() as file:
        bases = {row["codepoints"] + ".png": row["base"] for row in csv.DictReader(file, delimiter="\t")}
    assert not {bases[n] for n in names["trainA"]} & {bases[n] for n in names["testA"]}
    assert sum(f.stat().st_size for f in EMOJI.glob("t*/*.png")) < 4e6
    assert "Apache License" in (EMOJI / "LICENSE-noto.txt").read_text()
    assert "CC BY 4.0" in (EMOJI / "ATTRIBUTION.md").read_text()


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    made = run_ugatit("demo", "-o", out, "--steps", 3)
    assert made.returncode == 0, made.stderr
    return out, made.stderr


def test_the_demo_shows_sheets_and_distances(demo):
    out, said = demo
    for name in ("shipped", "fresh"):
        with Image.open(out / f"{name}.png") as sheet:
            assert sheet.width > 700 and sheet.height > 700
        distances = json.loads((out / f"{name}.json").read_text())
        for direction in ("a2b", "b2a"):
            for kind in ("l1", "features"):
                assert 0 < distances[direction]["before"][kind] < 1
                assert 0 < distances[direction]["after"][kind] < 1
    assert str(out / "run" / "model") in said


def test_the_shipped_model_brings_held_out_emoji_nearer_to_their_counterparts(demo):
    distances = json.loads((demo[0] / "shipped.json").read_text())
    for direction in ("a2b", "b2a"):
        assert distances[direction]["after"]["features"] < 0.9 * distances[direction]["before"]["features"]
    assert sum(f.stat().st_size for f in (EMOJI / "model").iterdir()) < 5e6
