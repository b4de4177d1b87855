"""A messy folder becomes a data set, every file's fate is told, and the manifest makes it again."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import skimage
from onnx import TensorProto, helper
from PIL import Image, ImageFilter

from conftest import run_here, write_picture
from ugatit.apps import prepare as prepare_module
from ugatit.apps.prepare import PrepareConfig, enlarger, prepare
from ugatit.cli import main
from ugatit.data.faces import Face
from ugatit.data.finding import find_files
from ugatit.io.errors import UserError
from ugatit.io.terminal import console

PICTURES = Path(skimage.__file__).parent / "data"  # photographs that the package brings


def tinted(picture: Image.Image) -> Image.Image:
    light = picture.convert("L")
    return Image.merge("RGB", [light.point(lambda v: min(255, v + 30)), light, light.point(lambda v: v * 4 // 5)])


@pytest.fixture
def messy(tmp_path):
    """Ten parts of photographs and all that can be wrong with a picture."""
    folder = tmp_path / "raw"
    folder.mkdir()
    photographs = [
        Image.open(PICTURES / name).convert("RGB") for name in ("chelsea.png", "astronaut.png", "coffee.png")
    ]
    corners = [(0, 60), (120, 90), (280, 100), (0, 0), (150, 0), (300, 250), (0, 340), (20, 150), (200, 30), (400, 200)]
    for number, corner in enumerate(corners):
        picture = photographs[(number > 2) + (number > 6)]
        picture.crop((*corner, corner[0] + 160, corner[1] + 160)).save(folder / f"fine{number}.png")
    fine = [Image.open(folder / f"fine{number}.png") for number in range(6)]
    fine[0].save(folder / "same.bmp")
    fine[1].resize((100, 100)).save(folder / "smaller.jpg", quality=60)
    fine[2].convert("L").save(folder / "grey.png")
    tinted(fine[3]).save(folder / "sepia.jpg", quality=90)
    fine[4].filter(ImageFilter.GaussianBlur(9)).save(folder / "blurred.png")
    fine[5].resize((30, 30)).save(folder / "tiny.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    (folder / "notes.txt").write_text("no picture")
    return folder


def config(messy, out, **options) -> PrepareConfig:
    defaults = {"size": 64, "least": 32, "upscale": "lanczos", "test": 0.2, "colour": 0.8, "sharpness": 60.0}
    return PrepareConfig(a=(messy,), b=(messy,), out=out, **(defaults | options))


def made(options: PrepareConfig):
    with console.capture() as said:
        entries = prepare(options)
    return {Path(e.file).name: e for e in entries if e.domain == "A"}, entries, said.get().splitlines()


def test_every_file_of_a_messy_folder_meets_its_fate(messy, tmp_path):
    found, entries, _ = made(config(messy, tmp_path / "data"))
    reasons = {name: entry.dropped.split(":")[0] for name, entry in found.items() if entry.dropped}
    assert reasons == {
        "same.bmp": "duplicate of fine0.png",
        "smaller.jpg": "duplicate of fine1.png",
        "grey.png": "monochrome",
        "sepia.jpg": "monochrome",
        "blurred.png": "blurred",
        "tiny.png": "too small",
        "broken.jpg": "unreadable",
        "notes.txt": "unreadable",
    }
    files = find_files(tmp_path / "data")
    counts = [len([f for f in files if f.parent.name == part]) for part in ("trainA", "testA", "trainB", "testB")]
    assert counts == [6, 4, 6, 4]  # a fifth on average: each picture's own name decides
    assert all(Image.open(f).size == (64, 64) for f in files if f.parent.name.endswith(("A", "B")))
    kept = {entry.result for entry in entries if entry.result}
    assert kept == {str(f.relative_to(tmp_path / "data")) for f in files if f.parent != tmp_path / "data"}
    assert Image.open(tmp_path / "data" / "kept.png").width > 900
    assert Image.open(tmp_path / "data" / "dropped.png").width > 900


def test_the_manifest_makes_it_again_and_notices_changes(messy, tmp_path):
    made(config(messy, tmp_path / "first", seed=3))
    repeat = ["prepare", "--repeat", tmp_path / "first" / "manifest.json", "-o"]
    done = run_here(*repeat, tmp_path / "second")
    assert done.returncode == 0, done.stderr
    assert "dropped, duplicate" in done.stderr and "kept, train" in done.stderr
    parts = [sorted(f for f in find_files(tmp_path / name) if f.parent.name != name) for name in ("first", "second")]
    assert [f.relative_to(tmp_path / "first") for f in parts[0]] == [
        f.relative_to(tmp_path / "second") for f in parts[1]
    ]
    assert [f.read_bytes() for f in parts[0]] == [f.read_bytes() for f in parts[1]]
    other = made(config(messy, tmp_path / "third", seed=5))[1]
    first = json.loads((tmp_path / "first" / "manifest.json").read_text())["entries"]
    assert [e["result"] for e in first] != [e.result for e in other]
    moved = tmp_path / "moved"
    shutil.copytree(messy, moved)
    again = PrepareConfig(a=(moved,), b=(moved,), out=tmp_path / "there", repeat=tmp_path / "first" / "manifest.json")
    made(again)
    assert [f.read_bytes() for f in parts[0]] == [
        f.read_bytes() for f in sorted(find_files(tmp_path / "there")) if f.parent.name != "there"
    ]
    with pytest.raises(UserError, match="--size is the manifest's own with --repeat"):
        made(replace(again, out=tmp_path / "fifth", size=128))
    with pytest.raises(UserError, match="it is of 1 folders of a domain, where 2 are given"):
        made(replace(again, out=tmp_path / "fifth", a=(moved, messy)))
    Image.new("RGB", (99, 99)).save(messy / "fine0.png")
    done = run_here(*repeat, tmp_path / "fourth")
    assert done.returncode == 2 and "fine0.png is not the file of the manifest" in done.stderr
    assert not (tmp_path / "fourth").exists()


def test_pictures_of_more_than_8_bits_are_told(messy, tmp_path):
    grid = np.indices((160, 160)).sum(0) % 40 * 1500
    cv2.imwrite(str(messy / "deep.png"), np.stack([grid, grid[::-1], grid.T * 0], -1).astype(np.uint16))
    pages = [Image.open(PICTURES / "coffee.png").crop((left, 0, left + 160, 160)) for left in (440, 300)]
    pages[0].save(messy / "pages.gif", save_all=True, append_images=pages[1:])
    found, _, said = made(config(messy, tmp_path / "data"))
    assert [e.deep for e in found.values()].count(True) == 1 and found["deep.png"].deep and found["deep.png"].result
    assert "Domain A: of more than 8 bits 8 are kept in 1 picture: deep.png." in said
    assert "Domain A: the first picture counts of 1 file with several: pages.gif." in said
    with Image.open(tmp_path / "data" / found["deep.png"].result) as kept:
        assert kept.mode == "RGB"


def test_a_data_set_within_its_raw_pictures_is_refused(messy):
    with pytest.raises(UserError, match="where it would count as raw pictures: give another `out`"):
        made(config(messy, messy / "data"))


def edited(change):
    """A manifest that somebody has written in."""

    def edit(folder: Path) -> None:
        path = folder / "data" / "manifest.json"
        found = json.loads(path.read_text())
        change(found)
        path.write_text(json.dumps(found))

    return edit


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m: (m / "a" / "1.png").unlink(), "1.png stands in the manifest and is gone"),
        (lambda m: write_picture(m / "b" / "new.png", 99), "new.png is not in the manifest"),
        (lambda m: shutil.copy(m / "b" / "0.png", m / "b" / "1.png"), "1.png is not the file of the manifest"),
        (lambda m: (m / "a" / "junk.png").write_bytes(b"other junk"), "junk.png is not the file of the manifest"),
        (lambda m: (m / "a" / "1.png").rename(m / "a" / "one.png"), "1.png stands in the manifest and is gone"),
        (edited(lambda found: found["entries"][0].update(file="/etc/hostname")), "/etc/hostname lies outside"),
        (edited(lambda found: found["entries"][0].update(file=f"{found['settings']['a'][0]}/../x")), "lies outside"),
        (edited(lambda found: found["settings"].update(a=["/nowhere"])), "lies outside"),
        (edited(lambda found: found["settings"].update(size=10**9)), "cannot be used"),
        (edited(lambda found: found.update(entries=[1, 2])), "cannot be used"),
        (edited(lambda found: found.update(entries=[])), "is not in the manifest"),
        (lambda m: (m / "data" / "manifest.json").write_text("[" * 10**5), "cannot be used (is not JSON"),
    ],
)
def test_a_manifest_is_repeated_only_with_the_very_same_files(change, sentence, tmp_path, capsys, monkeypatch):
    for side in "ab":
        for i in range(3):
            write_picture(tmp_path / side / f"{i}.png", i + 10 * ord(side), 80)
    (tmp_path / "a" / "junk.png").write_bytes(b"junk")
    sides = ["--a", tmp_path / "a", "--b", tmp_path / "b"]
    options = ["--size", "64", "--colour", "0", "--sharpness", "0", "-o", tmp_path / "data"]
    assert main(["prepare", *map(str, [*sides, *options])]) == 0
    again = ["prepare", "--repeat", str(tmp_path / "data" / "manifest.json"), "-o", str(tmp_path / "again")]
    assert main(again) == 0
    shutil.rmtree(tmp_path / "again")
    capsys.readouterr()
    change(tmp_path)
    monkeypatch.setattr("ugatit.apps.prepare.read_picture", lambda *_: pytest.fail("no picture is decoded before that"))
    assert main(again) == 2 and sentence in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "again").exists()


def test_odd_names_and_what_is_no_file_are_entries_of_the_report(tmp_path):
    for side in "ab":
        write_picture(tmp_path / side / "fine.png", ord(side), 80)
        write_picture(tmp_path / side / "line\nbreak.png", ord(side) + 1, 80)
        write_picture(tmp_path / side / f"{'long' * 60}.png", ord(side) + 2, 80)
        write_picture(tmp_path / side / os.fsdecode(b"not\xffutf8.png"), ord(side) + 3, 80)
    os.mkfifo(tmp_path / "a" / "pipe.png")
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "a" / "bro\nken.png").write_bytes(b"junk")
    sides = ["--a", tmp_path / "a", "--b", tmp_path / "b", "--colour", 0, "--sharpness", 0, "--size", 64]
    done = run_here("prepare", *sides, "-o", tmp_path / "data")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    entries = json.loads((tmp_path / "data" / "manifest.json").read_text())["entries"]
    fate = {Path(e["file"]).name: e["dropped"] for e in entries if e["domain"] == "A"}
    assert fate["pipe.png"] == "unreadable: is not a regular file" and fate["gone.png"] == "unreadable: does not exist"
    assert fate["bro\nken.png"].startswith("unreadable") and fate["fine.png"] == fate["line\nbreak.png"] == ""
    names = [file.name for file in (tmp_path / "data" / "trainA").iterdir()]
    assert len(names) + len(list((tmp_path / "data" / "testA").iterdir())) == 4 and all(map(str.isprintable, names))


def test_faces_are_cut_out(tmp_path):
    """By MTCNN in A, by a cascade from a file in B."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        for name in ("astronaut.png", "coffee.png"):
            Image.open(PICTURES / name).save(tmp_path / folder / name)
    options = PrepareConfig(
        a=(tmp_path / "a",),
        b=(tmp_path / "b",),
        out=tmp_path / "data",
        faces_a="photo",
        faces_b=str(Path(cv2.data.haarcascades) / "haarcascade_frontalface_default.xml"),
        size=64,
    )
    _, entries, said = made(options)
    for domain in "AB":
        found = {Path(e.file).name: e for e in entries if e.domain == domain}
        assert found["coffee.png"].dropped == "no face found"
        x, y, side, angle = found["astronaut.png"].cut
        assert abs(x - 225) < 20 and abs(y - 115) < 25 and 130 < side < 260 and angle == 0  # her face
        assert Image.open(tmp_path / "data" / found["astronaut.png"].result).size == (64, 64)
    assert not said
    (tmp_path / "a" / "astronaut.png").unlink()
    with pytest.raises(UserError, match=r"Nothing of domain A is left .1 no face found."):
        made(replace(options, out=tmp_path / "none"))


def times_two(path: Path) -> Path:
    """An ONNX model that doubles every pixel."""
    sizes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, None, None]) for name in ("x", "y")]
    scales = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1.0, 1.0, 2.0, 2.0])
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="nearest")
    graph = helper.make_graph([node], "double", sizes[:1], sizes[1:], [scales])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_faces_of_one_picture_are_written_from_one_reading_and_short_memory_drops_one(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for domain in "ab":
        (tmp_path / domain).mkdir()
        for i in range(3):
            Image.fromarray(rng.integers(0, 256, (200, 300, 3), np.uint8)).save(tmp_path / domain / f"{i}.png")

    def detect(picture):
        if picture.getpixel((0, 0)) == short:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 288000000 bytes")
        return [Face((10, 10, 110, 110)), Face((150, 60, 290, 190))]

    short = Image.open(tmp_path / "a" / "1.png").getpixel((0, 0))
    read, real = [], prepare_module.read_picture
    monkeypatch.setattr(prepare_module, "detector", lambda *_: detect)
    monkeypatch.setattr(prepare_module, "read_picture", lambda file: read.append(file) or real(file))
    entries = prepare(
        PrepareConfig(
            (tmp_path / "a",), (tmp_path / "b",), tmp_path / "out", size=64, sharpness=0, distance=-1, upscale="lanczos"
        )
    )
    kept = [entry.file for entry in entries if entry.result]
    assert len(kept) == 10 and all(read.count(file) == 1 for file in kept)
    assert [(Path(e.file).name, e.dropped) for e in entries if e.dropped] == [
        ("1.png", "unreadable: needs more memory than there is")
    ]


def test_small_pictures_are_enlarged_and_it_is_said_how(messy, tmp_path):
    found, _, said = made(config(messy, tmp_path / "plain", size=256))
    assert found["fine0.png"].upscaled == "lanczos" and "10 small pictures enlarged by lanczos" in said[0]
    found, _, said = made(config(messy, tmp_path / "onnx", size=256, upscale=str(times_two(tmp_path / "double.onnx"))))
    assert found["fine0.png"].upscaled == "double.onnx" and "by double.onnx" in said[0]
    picture = Image.open(messy / "fine0.png")
    assert np.array_equal(np.asarray(enlarger(str(tmp_path / "double.onnx"), False)[1](picture))[::2, ::2], picture)
    assert made(config(messy, tmp_path / "near", size=180))[0]["fine0.png"].upscaled == ""  # not worth it
    name, enlarge = enlarger("auto", drawings=True)
    assert name == "realesr-animevideov3-x4"
    small = picture.resize((40, 40), Image.Resampling.LANCZOS)
    gap = np.abs(np.asarray(enlarge(small), float) - np.asarray(picture)).mean()
    assert gap < 12, "of 255: it is the picture"
    (tmp_path / "no.onnx").write_bytes(b"no model")
    for given in ("no.onnx", "none.onnx"):
        with pytest.raises(UserError, match=given):
            enlarger(str(tmp_path / given), False)


def test_what_cannot_be_prepared_is_explained(messy, tmp_path, capsys):
    (tmp_path / "no.xml").write_text("<no/>")
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").touch()
    for options, reason in (
        (["--a", messy], "give --b DIR"),
        (["--a", messy, "--b", tmp_path / "none"], "none does not exist"),
        (["--a", messy, "--b", messy, "--faces-a", "dog"], "--faces-a dog is no file"),
        (["--a", messy, "--b", messy, "--faces-b", tmp_path / "no.xml"], "no.xml is not a file that OpenCV"),
        (["--a", messy, "--b", messy, "-o", full], "full is not empty"),
        (["--repeat", tmp_path / "no.xml"], "no.xml cannot be used"),
        (["--a", messy, "--b", messy, "--size", "7"], "--size"),
    ):
        code = main(["prepare", *map(str, options), *([] if "-o" in options else ["-o", str(tmp_path / "out")])])
        assert code == 2 and reason in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
