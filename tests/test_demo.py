"""The demo from end to end with a handful of steps, and what the package brings for it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import skimage
import torch
from PIL import Image

from conftest import EMOJI, run_ugatit
from ugatit.apps.demo import AVATARS, PHOTOS, demo, photo_columns
from ugatit.cli import main
from ugatit.data.finding import find_files
from ugatit.io.errors import UserError
from ugatit.systems.base import Faces
from ugatit.translation.hub import SHIPPED, photographs
from ugatit.translation.translator import Translator

MODELS = ("cat2dog", "face2anime")


def test_the_package_s_emoji():
    names = {part: {f.name for f in (EMOJI / part).iterdir()} for part in ("trainA", "trainB", "testA", "testB")}
    assert names["trainA"] == names["trainB"] and names["testA"] == names["testB"]
    assert len(names["trainA"]) == 76 and len(names["testA"]) == 19
    with (EMOJI / "index.tsv").open() as file:
        bases = {row["codepoints"] + ".png": row["base"] for row in csv.DictReader(file, delimiter="\t")}
    assert not {bases[n] for n in names["trainA"]} & {bases[n] for n in names["testA"]}
    assert sum(f.stat().st_size for f in EMOJI.rglob("*")) < 1e6
    assert "Apache License" in (EMOJI / "LICENSE-noto.txt").read_text()
    assert "CC BY 4.0" in (EMOJI / "ATTRIBUTION.md").read_text()


def test_the_package_s_avatars():
    files = {part: find_files(AVATARS / part) for part in ("trainA", "trainB", "testA", "testB")}
    assert {part: len(found) for part, found in files.items()} == {
        "trainA": 600, "trainB": 600, "testA": 60, "testB": 60,
    }  # fmt: skip
    pictures = {
        file: np.asarray(Image.open(file).convert("RGB")).tobytes() for found in files.values() for file in found
    }
    assert {len(pixels) for pixels in pictures.values()} == {64 * 64 * 3}
    for side in "AB":  # nothing that is held out is trained on
        trained = {pictures[file] for file in files[f"train{side}"]}
        assert not trained & {pictures[file] for file in files[f"test{side}"]}
    assert sum(file.stat().st_size for file in pictures) < 2.5e6
    told = (AVATARS / "ATTRIBUTION.md").read_text()
    assert told.count("CC BY 4.0") == 2 and "Lisa Wischofsky" in told and "Davis Uche" in told


@pytest.mark.parametrize("name", MODELS)
def test_the_package_s_models_are_small_have_cards_and_load_by_name(name, tmp_path, monkeypatch):
    sizes = {file.name: file.stat().st_size for file in (SHIPPED / name).iterdir()}
    assert sizes.keys() == {"config.json", "translator.safetensors", "README.md"}
    card = (SHIPPED / name / "README.md").read_text()
    assert all(word in card for word in ("library_name: ugatit", "license: unknown", "steps", "KID"))
    translator = Translator.load(name, "cpu")
    assert translator.system.directions == ("a2b",)
    assert translator.system.config.faces_a == (Faces("photo", 0.0, True) if name == "face2anime" else None)
    (tmp_path / name / "trainA").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)  # a data set of the same name does not hide it
    assert Translator.load(name, "cpu").side == translator.side and photographs(name)
    (tmp_path / name / "config.json").write_text("{}")  # but a model's folder would
    with pytest.raises(UserError):
        Translator.load(name, "cpu")
    assert not photographs(name)


def test_the_package_s_models_together_are_no_load():
    assert {folder.name for folder in SHIPPED.iterdir()} == set(MODELS)
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*")) < 12e6


def test_what_is_no_model_is_told_of_those_that_are_there():
    with pytest.raises(UserError, match=r"no-such-model does not exist: .* cat2dog or face2anime, which come with"):
        Translator.load("no-such-model")


def test_the_photographs_may_be_shipped_and_are_translated():
    assert {folder.name for folder in PHOTOS.iterdir() if folder.is_dir()} == set(MODELS)
    told = (PHOTOS / "ATTRIBUTION.md").read_text()
    assert all(file.name in told for folder in PHOTOS.iterdir() if folder.is_dir() for file in folder.iterdir())
    columns = photo_columns()
    assert list(columns) == ["photograph", "where it looks", "translation"]
    assert {tuple(x.shape) for x in columns.values()} == {(3, 3, 128, 128)}
    change = (columns["translation"] - columns["photograph"]).abs().mean((1, 2, 3))
    assert (change > 0.1).all()  # of 2: these are other pictures


def test_the_demo_shows_photographs_and_what_it_learned(tmp_path, monkeypatch):
    made = run_ugatit("demo", "-o", tmp_path, "--steps", 3)
    assert made.returncode == 0, made.stderr
    assert str(tmp_path / "run" / "model") in made.stderr
    with Image.open(tmp_path / "photos.png") as sheet:
        assert sheet.width // 132 == 3 and sheet.height // 132 == 3
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width // 100 == 8 and sheet.height > 700
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert all(torch.isfinite(torch.tensor(metrics[way]["kid_mean"])) for way in ("a2b", "b2a"))
    assert "untranslated" in made.stderr
    seen = []
    monkeypatch.setattr("ugatit.apps.demo.train", lambda config, resume: seen.append(config) or tmp_path)
    with pytest.raises(KeyboardInterrupt):  # as if it was stopped
        demo(tmp_path)
    assert seen[0].recipe.steps == 3, "those of the run that is there"


def test_a_photograph_is_translated_by_the_package_s_own_model(tmp_path):
    """The first thing that a newcomer can do."""
    photo = Path(skimage.__file__).parent / "data" / "astronaut.png"
    arguments = ["translate", "face2anime", photo, "-o", tmp_path, "--faces", "crop", "--attention", "--device", "cpu"]
    assert main([*map(str, arguments)]) == 0
    assert Image.open(tmp_path / "astronaut.png").size == (64, 64)
    assert (tmp_path / "astronaut.attention.png").exists()
