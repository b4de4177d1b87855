"""The demo from end to end, with a handful of steps."""

import csv
import json

import torch
from PIL import Image

from conftest import run_ugatit
from ugatit.apps.demo import EMOJI, SHIPPED, emoji_distances
from ugatit.evaluation.evaluate import Evaluator
from ugatit.evaluation.metrics import Protocol
from ugatit.translation.translator import Translator

AT_MOST = {"l1": 0.6, "perceptual": 0.75}  # of the untranslated pictures' distance


def test_the_package_s_emoji():
    names = {part: {f.name for f in (EMOJI / part).iterdir()} for part in ("trainA", "trainB", "testA", "testB")}
    assert names["trainA"] == names["trainB"] and names["testA"] == names["testB"]
    assert len(names["trainA"]) == 76 and len(names["testA"]) == 19
    with (EMOJI / "index.tsv").open() as file:
        bases = {row["codepoints"] + ".png": row["base"] for row in csv.DictReader(file, delimiter="\t")}
    assert not {bases[n] for n in names["trainA"]} & {bases[n] for n in names["testA"]}
    assert sum(f.stat().st_size for f in EMOJI.glob("t*/*.png")) < 4e6
    assert "Apache License" in (EMOJI / "LICENSE-noto.txt").read_text()
    assert "CC BY 4.0" in (EMOJI / "ATTRIBUTION.md").read_text()


def test_the_demo_shows_both_models_and_their_distances(tmp_path):
    made = run_ugatit("demo", "-o", tmp_path, "--steps", 3)
    assert made.returncode == 0, made.stderr
    assert str(tmp_path / "run" / "model") in made.stderr
    for name, columns in (("shipped.png", 8), ("sheet.png", 10)):
        with Image.open(tmp_path / name) as sheet:
            assert sheet.width // 100 == columns and sheet.height > 700
    for name in ("shipped", "now"):
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        for direction in ("a2b", "b2a"):
            assert 0 < metrics[direction]["l1"] < 1 and metrics[direction]["perceptual"] > 0
    assert "untranslated" in made.stderr


def test_the_shipped_model_brings_held_out_emoji_nearer_to_the_truth(tmp_path):
    assert sum(f.stat().st_size for f in SHIPPED.iterdir()) < 5e6
    evaluator = Evaluator(Protocol(features="efficientnet-lite0"), torch.device("cpu"))
    for values in emoji_distances(evaluator, Translator.load(SHIPPED), tmp_path).values():
        for key, share in AT_MOST.items():
            assert values["after"][key] < share * values["before"][key], key
