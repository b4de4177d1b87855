"""The demo from end to end, with a handful of steps."""

import csv
import json

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


def test_the_demo_shows_a_sheet_and_distances(tmp_path):
    made = run_ugatit("demo", "-o", tmp_path, "--steps", 3)
    assert made.returncode == 0, made.stderr
    assert str(tmp_path / "run" / "model") in made.stderr
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 700 and sheet.height > 700
    distances = json.loads((tmp_path / "distances.json").read_text())
    for direction in ("a2b", "b2a"):
        assert 0.1 < distances[direction]["before"]["l1"] < 0.2
        for kind in ("l1", "features"):
            assert 0 < distances[direction]["after"][kind] < 1
