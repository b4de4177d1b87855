"""Translating pictures, files and folders; untrusted models; importing released checkpoints."""

import itertools
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import ugatit
from conftest import run_here, tiny_model, write_picture
from ugatit.cli import main
from ugatit.commands.translate import TranslateConfig, all_settings
from ugatit.data.finding import Skipped, find_files
from ugatit.data.reading import read_picture
from ugatit.io.errors import UserError
from ugatit.io.files import one_case
from ugatit.io.processes import Process
from ugatit.io.sheet import overlay, to_picture
from ugatit.systems.ugatit import UGATIT, UGATITConfig
from ugatit.translation import files
from ugatit.translation import translator as translator_module
from ugatit.translation.files import plan_jobs, translate_files
from ugatit.translation.folder import load_model, save_model, saved_step
from ugatit.translation.released import import_released
from ugatit.translation.sharing import Share
from ugatit.translation.translator import Translator, at_once, tile_starts


def save_random(folder, seed=0, **settings):
    torch.manual_seed(seed)
    system = UGATIT(UGATITConfig(**({"size": 32, "width": 2, "blocks": 1, "light": True} | settings)))
    save_model(system, folder, step=7)
    return folder


@pytest.fixture
def light(tmp_path):
    return save_random(tmp_path / "light")


@pytest.fixture
def full(tmp_path):
    return save_random(tmp_path / "full", light=False)


def test_python_interface(light):
    translator = ugatit.Translator.load(light)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 41, 3), np.uint8))
    one = translator(picture, direction="a2b")
    assert isinstance(one, Image.Image) and one.size == (32, 39)  # the shorter side to the model's 32
    several = translator([picture, picture.convert("L"), picture.convert("CMYK")], direction="b2a", size="keep")
    assert [p.size for p in several] == [(41, 50)] * 3
    x = torch.rand(3, 3, 33, 34) * 2 - 1
    made = translator(x)
    assert made.shape == x.shape and made.abs().max() <= 1
    assert not torch.equal(made, translator(x, direction="b2a"))
    assert (made * torch.ones(1, requires_grad=True)).sum().backward() is None  # an ordinary tensor
    assert translator(x.double()).dtype == torch.float64
    for wrong in (x[0], x[:0], x.int(), x[:, :1]):
        with pytest.raises(UserError, match="N x 3 x H x W"):
            translator(wrong)
    with pytest.raises(UserError, match="sideways"):
        translator(x, "sideways")
    with pytest.raises(UserError, match="huge"):
        translator(x, size="huge")


def test_translation_is_the_generator_s(light):
    translator = Translator.load(light)
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    expected = load_model(light).gen_a2b(x).image
    torch.testing.assert_close(translator(x), expected)
    torch.testing.assert_close(translator(x, batch=1), expected)


def test_batches_give_what_single_pictures_give(light):
    translator = Translator.load(light)
    pictures = [Image.fromarray(np.full((40 + i % 2 * 8, 40, 3), 30 * i, np.uint8)) for i in range(5)]
    together = translator(pictures, batch=3)
    for picture, made in zip(pictures, together, strict=True):
        assert np.abs(np.asarray(translator(picture), int) - np.asarray(made, int)).max() <= 1


def test_padding_is_cropped_back(light):
    translator = Translator.load(light)
    x = torch.rand(1, 3, 36, 40) * 2 - 1
    torch.testing.assert_close(translator(x, size="keep"), load_model(light).gen_a2b(x).image)
    assert translator(x[..., :35, :37], size="keep").shape == (1, 3, 35, 37)
    assert translator(x[..., :20, :17], size="keep").shape == (1, 3, 20, 17)


@pytest.mark.parametrize("length, side", [(32, 32), (33, 32), (100, 32), (300, 64), (256, 256)])
def test_tiles_cover_everything_and_overlap_by_a_quarter(length, side):
    starts = tile_starts(length, side)
    assert starts[0] == 0 and starts[-1] + side == length
    assert all(side // 4 <= a + side - b for a, b in itertools.pairwise(starts))


def test_tiles_of_an_identity_are_the_picture(light):
    class Same(UGATIT):
        def translate(self, x, direction):
            return super().translate(x, direction)._replace(image=x)

    translator = Translator(Same(UGATITConfig(size=32, width=2, blocks=1, light=True)))
    x = torch.rand(1, 3, 70, 101) * 2 - 1
    torch.testing.assert_close(translator(x, size="tiles"), x)
    assert translator.translate(x[..., :20, :40], "a2b", "tiles").heatmap.shape == (1, 1, 20, 40)


def test_full_models_squeeze_and_stretch_back_or_tile(full):
    translator = Translator.load(full)
    x = torch.rand(1, 3, 40, 64) * 2 - 1
    assert translator(x).shape == (1, 3, 32, 51)
    assert translator(x, size="tiles").shape == x.shape
    with pytest.raises(UserError, match='`size="tiles"`'):
        translator(x, size="keep")


def test_greyscale_models(tmp_path):
    translator = Translator.load(save_random(tmp_path / "grey", channels=1))
    assert translator(Image.new("RGB", (40, 40), (200, 10, 10))).mode == "L"
    with pytest.raises(UserError, match="N x 1 x H x W"):
        translator(torch.zeros(1, 3, 32, 32))


def test_save_and_load_again(light, tmp_path):
    translator = Translator.load(light)
    translator.save(tmp_path / "copy")
    assert {f.name for f in (tmp_path / "copy").iterdir()} == {"config.json", "translator.safetensors"}
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(Translator.load(tmp_path / "copy")(x), translator(x))


# The command


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "in"
    for i, name in enumerate(["one.png", "two.jpg", "deep/three.webp", "four.gif"]):
        write_picture(folder / name, i, size=40)
    return folder


def test_folders_files_and_globs_keep_their_names(light, pictures, tmp_path):
    (pictures / "junk.png").write_bytes(b"junk")
    out = tmp_path / "out"
    made = run_here("translate", light, pictures, "-o", out, "--attention", "--size", "keep", "--batch", 2)
    assert made.returncode == 0, made.stderr
    assert "4 pictures written" in made.stderr and "junk.png is not a picture" in made.stderr
    names = {str(f.relative_to(out)) for f in out.rglob("*") if f.is_file()}
    stems = ["one", "two", "deep/three", "four"]
    assert names == {"one.png", "two.jpg", "deep/three.webp", "four.png"} | {f"{s}.attention.png" for s in stems}
    with Image.open(out / "two.jpg") as picture, Image.open(out / "two.attention.png") as heat:
        assert picture.format == "JPEG" and picture.size == heat.size == (40, 40)

    translator = Translator.load(light, "cpu")
    for name, source in (("one.png", "one.png"), ("four.png", "four.gif")):
        expected = translator(read_picture(pictures / source), "a2b", size="keep")
        assert np.abs(np.asarray(Image.open(out / name), int) - np.asarray(expected, int)).max() <= 1, name
        assert np.asarray(expected, int).std() > 1, "which is no blank picture"
    x = translator.to_tensor(read_picture(pictures / "one.png"))
    expected = to_picture(overlay(x, translator.translate(x, "a2b", "keep").heatmap)[0])
    heat = np.asarray(Image.open(out / "one.attention.png"), int)
    assert (
        np.abs(heat - np.asarray(expected, int)).mean() < 1
        and np.abs(heat - np.asarray(to_picture(x[0]), int)).mean() > 1
    )

    globbed = run_here("translate", light, pictures / "*.jpg", "-o", tmp_path / "g", "--direction", "b2a")
    assert globbed.returncode == 0 and [f.name for f in (tmp_path / "g").iterdir()] == ["two.jpg"]


def test_results_that_lie_within_what_is_translated_are_not_translated_again(light, pictures, tmp_path):
    out = pictures / "out"
    first = run_here("translate", light, pictures, "-o", out)
    again = run_here("translate", light, pictures, "-o", out)
    assert first.returncode == again.returncode == 0, again.stderr
    assert "left out: 4 files" in again.stderr
    (pictures / "gone.png").symlink_to(tmp_path / "nothing")
    globbed = run_here("translate", light, pictures / "*", "-o", out)
    assert "gone.png is not a regular file" in globbed.stderr
    assert globbed.returncode == 0 and "left out: 4 files" in globbed.stderr
    assert {file.name for file in out.iterdir()} == {"one.png", "two.jpg", "deep", "three.webp", "four.png"}


def test_what_a_file_system_refuses_is_a_sentence(light, pictures, tmp_path, monkeypatch, capsys):
    long = tmp_path / ("n" * 300)
    for command in (["translate", light, long, "-o", tmp_path / "out"], ["train", long], ["serve", long / "model"]):
        made = run_here(*command)
        assert made.returncode == 2 and "nnn" in made.stderr, made.stderr

    def closed(folder, onerror, **_):
        onerror(PermissionError(13, "Permission denied", str(pictures / "deep")))
        yield str(pictures), [], ["one.png"]

    monkeypatch.setattr(os, "walk", closed)
    assert find_files(pictures) == [pictures / "one.png"]
    assert "deep cannot be looked into (Permission denied)" in capsys.readouterr().err


def test_results_are_yielded_as_they_are_written(light, pictures, tmp_path):
    jobs = plan_jobs([str(pictures)], tmp_path / "out")
    (pictures / "one.png").write_bytes(b"")
    results = list(translate_files(Translator.load(light), jobs, "a2b", "model"))
    assert sum(isinstance(r, Skipped) for r in results) == 1 and len(results) == 4


@pytest.mark.parametrize(
    "arguments, names",
    [
        (["{tmp}/nothing", "{in}", "-o", "{tmp}/out"], "nothing"),
        (["{tmp}/in", "{in}", "-o", "{tmp}/out"], "config.json"),
        (["{light}", "{tmp}/no.png", "-o", "{tmp}/out"], "no.png"),
        (["{light}", "{in}", "-o", "{in}"], "another -o"),
        (["{light}", "{in}", "{tmp}/twice", "-o", "{tmp}/out"], "two folders"),
        (["{light}", "{tmp}/bad.png", "-o", "{tmp}/out"], "bad.png"),
        (["{light}", "{in}", "-o", "{tmp}/out", "--batch", "0"], "--batch"),
        (["{light}", "{in}", "-o", "{tmp}/out", "--direction", "up"], "direction"),
        (["{light}", "{in}", "-o", "/proc/out"], "/proc/out"),
        (["{light}", "{in}", "-o", "{tmp}/out", "--device", "abacus"], "--device abacus"),
        (["{full}", "{in}", "-o", "{tmp}/out", "--size", "keep"], "--size"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_two(arguments, names, light, full, pictures, tmp_path):
    write_picture(tmp_path / "twice" / "one.png", 9)
    (tmp_path / "bad.png").write_bytes(b"bad")
    places = {"tmp": tmp_path, "in": pictures, "light": light, "full": full}
    made = run_here("translate", *[a.format(**places) for a in arguments])
    assert made.returncode == 2
    assert names in made.stderr + made.stdout and "Traceback" not in made.stderr


# Untrusted models


def edit(folder, **changes):
    path = folder / "config.json"
    settings = json.loads(path.read_text())
    settings["config"] |= changes
    path.write_text(json.dumps(settings))


@pytest.mark.parametrize(
    "changes, names",
    [
        ({"size": 33}, "size"),
        ({"width": 10**9}, "width"),
        ({"width": "wide"}, "width"),
        ({"width": 3}, "do not fit"),
        ({"blocks": 2}, "do not fit"),
        ({"light": False, "size": 4096, "width": 1024}, "do not fit"),  # would be 17 TB if it were built
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_wrong_configuration_is_refused_before_memory_is_taken(changes, names, light):
    edit(light, **changes)
    with pytest.raises(UserError, match=names):
        load_model(light)


def test_damaged_model_files_are_refused(light):
    weights = light / "translator.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    with pytest.raises(UserError, match=r"translator\.safetensors is damaged"):
        load_model(light)
    state = load_file_bytes(weights, whole)
    state["gen_a2b.evil"] = torch.zeros(1)
    save_file(state, weights)
    with pytest.raises(UserError, match=r"gen_a2b\.evil"):
        load_model(light)
    weights.unlink()
    with pytest.raises(UserError, match="does not exist"):
        load_model(light)
    for text in ("{", "[]", '{"format": 2}', '{"format": 1, "system": "os"}'):
        (light / "config.json").write_text(text)
        with pytest.raises(UserError, match=r"config\.json"):
            load_model(light)


def load_file_bytes(path, content):
    path.write_bytes(content)
    return load_file(path)


# Released checkpoints


def released_names(system):
    from ugatit.translation.released import NETWORKS
    from ugatit.translation.released import released_names as names

    state = system.state_dict()
    return {
        theirs: {name: state[f"{ours}.{renamed}"] for name, renamed in names(system, ours).items()}
        for theirs, ours in NETWORKS.items()
    }


@pytest.mark.parametrize(
    "settings",
    [
        {"light": True, "width": 3, "blocks": 2, "size": 128},
        {"light": False, "width": 2, "blocks": 1, "size": 128, "channels": 1},
    ],
)
def test_import_finds_the_networks_from_the_shapes(settings, tmp_path):
    system = UGATIT(UGATITConfig(**settings))
    torch.save(released_names(system), tmp_path / "x_params_1.pt")
    made = run_here("import", tmp_path / "x_params_1.pt", "-o", tmp_path / "model", "--size", 128)
    assert made.returncode == 0, made.stderr
    loaded = load_model(tmp_path / "model", with_training=True)
    for key, value in settings.items():
        assert getattr(loaded.config, key) == value
    for name, value in system.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


class Evil:
    def __reduce__(self):
        return (print, ("run",))


@pytest.mark.parametrize(
    "content, names",
    [
        (None, "does not exist"),
        (b"junk", "is no file of PyTorch"),
        (Evil(), r"holds more than tensors \(builtins.print\)"),
        ({"genA2B": {}}, "lacks"),
    ],
)
def test_other_files_are_not_imported(content, names, tmp_path, capsys):
    path = tmp_path / "x.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match=names):
        import_released(path)
    assert "run" not in capsys.readouterr().out


def test_a_checkpoint_with_other_shapes_is_refused(tmp_path):
    states = released_names(UGATIT(UGATITConfig(size=128, width=2, blocks=1, light=True)))
    states["genB2A"]["conv1x1.bias"] = torch.zeros(9)
    torch.save(states, tmp_path / "x.pt")
    with pytest.raises(UserError, match="does not fit"):
        import_released(tmp_path / "x.pt")
    del states["genA2B"]["DownBlock.1.weight"]
    torch.save(states, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"DownBlock\.1\.weight"):
        import_released(tmp_path / "x.pt")


# What people's folders hold


def test_results_are_told_apart_before_work_starts(tmp_path):
    names = ["cat.jpg", "cat.png", "cat.gif", "x.png", "x.attention.png", "alone.bmp"]
    for i, name in enumerate(names):
        write_picture(tmp_path / "in" / name, i)
    jobs = {job.source.name: job for job in plan_jobs([str(tmp_path / "in")], tmp_path / "out")}
    targets = {name: job.target.name for name, job in jobs.items()}
    assert targets == {name: name.replace("cat.gif", "cat.gif.png") for name in names}
    maps = {name: job.attention.name for name, job in jobs.items()}
    assert maps == {
        "cat.jpg": "cat.jpg.attention.png",
        "cat.png": "cat.png.attention.png",
        "cat.gif": "cat.gif.attention.png",
        "x.png": "x.png.attention.png",
        "x.attention.png": "x.attention.attention.png",
        "alone.bmp": "alone.attention.png",
    }
    several = plan_jobs([str(tmp_path / "in" / "x.png")], tmp_path / "out", samples=2)
    assert [job.target.name for job in several] == ["x-1.png", "x-2.png"]


def test_a_disk_that_takes_two_names_for_one_loses_no_result(tmp_path, monkeypatch):
    for folder, name in (("one", "IMG.png"), ("two", "img.png")):
        (tmp_path / folder).mkdir()
        write_picture(tmp_path / folder / name, 1)
    inputs, out = [str(tmp_path / "one"), str(tmp_path / "two")], tmp_path / "out" / "there"
    assert len(plan_jobs(inputs, out)) == 2 and not one_case(out)
    (tmp_path / "OUT").mkdir()
    (tmp_path / "out").mkdir()
    assert not one_case(out), "two folders of unlike names are no one folder"
    same = Path.samefile
    monkeypatch.setattr(Path, "samefile", lambda one, other: same(one, other) or one.name.lower() == other.name.lower())
    assert one_case(out)
    with pytest.raises(UserError, match=r"IMG.png and .*img.png would both be written to .*: translate them to two"):
        plan_jobs(inputs, out)


@pytest.mark.parametrize("words", ["DefaultCPUAllocator: can't allocate memory", "not enough memory: you tried"])
def test_short_memory_skips_one_picture_only(words, light, pictures, tmp_path, monkeypatch):
    write_picture(pictures / "huge.png", 5, 200)
    translator, real = Translator.load(light), Translator.translate
    count = []

    def short(self, x, *arguments):
        count.append(len(x))
        if len(x) > 1 or x.shape[-1] == 200:
            raise RuntimeError(words)
        return real(self, x, *arguments)

    monkeypatch.setattr(Translator, "translate", short)
    jobs = plan_jobs([str(pictures)], tmp_path / "out")
    results = list(translate_files(translator, jobs, "a2b", "keep"))
    skipped = [result for result in results if isinstance(result, Skipped)]
    assert [(file.name, "memory" in reason) for file, reason in skipped] == [("huge.png", True)]
    assert len(results) == len(jobs) and all(job.target.exists() for job in jobs if job.source.name != "huge.png")


@pytest.mark.parametrize("part", ["read_samples", "write_result"])
def test_short_memory_while_reading_or_writing_skips_one_picture_only(part, light, pictures, tmp_path, monkeypatch):
    real = getattr(files, part)

    def short(first, *arguments):
        if getattr(first, "job", None) == huge or first == huge.source:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 288000000 bytes")
        return real(first, *arguments)

    write_picture(pictures / "huge.png", 5, 200)
    jobs = plan_jobs([str(pictures)], tmp_path / "out")
    huge = next(job for job in jobs if job.source.name == "huge.png")
    monkeypatch.setattr(files, part, short)
    results = list(translate_files(Translator.load(light), jobs, "a2b", "keep"))
    skipped = [result for result in results if isinstance(result, Skipped)]
    assert [(file.name, "memory" in reason) for file, reason in skipped] == [("huge.png", True)]
    assert len(results) == len(jobs)


def test_large_pictures_are_held_a_few_at_a_time(light, tmp_path, monkeypatch):
    assert [at_once((3, side, side), 8) for side in (256, 1024, 4096, 8192)] == [8, 8, 2, 1]
    assert at_once((3, 2700, 2700), 8) == 4, "as many as divide what processes share by"
    for i in range(12):
        write_picture(tmp_path / "in" / f"{i:02d}.png", i, 64)
    held, most, translated = set(), [], []
    read, write, translate = files.read_samples, files.write_result, Translator.translate

    def reading(source, samples):
        held.add(source)
        most.append(len(held))
        return read(source, samples)

    def writing(source, *arguments):
        write(source, *arguments)
        held.discard(source.job.source)

    def translating(self, x, *arguments):
        translated.append(len(x))
        return translate(self, x, *arguments)

    monkeypatch.setattr(files, "read_samples", reading)
    monkeypatch.setattr(files, "write_result", writing)
    monkeypatch.setattr(Translator, "translate", translating)
    monkeypatch.setattr(translator_module, "HELD", 3 * 64 * 64)
    done = list(
        translate_files(Translator.load(light), plan_jobs([str(tmp_path / "in")], tmp_path / "out"), "a2b", "keep")
    )
    assert len(done) == 12 and translated == [1] * 12
    assert max(most) <= 6, "two read, one translated, two written, one more that is handed over"


def test_what_has_not_begun_is_not_read_after_an_interrupt(light, tmp_path, monkeypatch):
    for i in range(40):
        write_picture(tmp_path / "in" / f"{i:02d}.png", i)
    read, begun = files.read_samples, []

    def slow(source, samples):
        begun.append(source)
        time.sleep(0.05)
        return read(source, samples)

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "read_samples", slow)
    monkeypatch.setattr(Translator, "translate", stopped)
    with pytest.raises(KeyboardInterrupt):
        list(
            translate_files(Translator.load(light), plan_jobs([str(tmp_path / "in")], tmp_path / "out"), "a2b", "keep")
        )
    assert len(begun) < 20


def test_a_picture_that_is_read_as_white_is_told(light, tmp_path):
    write_picture(tmp_path / "in" / "seen.png", 1)
    clear = np.full((40, 40, 4), 90, np.uint8)
    clear[:, :, 3] = 0
    Image.fromarray(clear).save(tmp_path / "in" / "clear.tga")
    made = run_here("translate", light, tmp_path / "in", "-o", tmp_path / "out")
    assert made.returncode == 0 and "Wholly white as read: 1 picture, " in " ".join(made.stderr.split())


def test_a_name_that_is_too_long_for_its_result_stops_no_other(light, tmp_path):
    long = write_picture(tmp_path / "in" / f"{'n' * 245}.png", 1)
    write_picture(tmp_path / "in" / "short.png", 2)
    made = run_here("translate", light, tmp_path / "in", "-o", tmp_path / "out", "--attention")
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "out" / "short.attention.png").exists()
    assert "1 picture written" in made.stderr and "free some space" not in made.stderr
    assert f"{long.name} cannot be written" in " ".join(made.stderr.split())


def test_linked_folders_are_looked_into_once(tmp_path):
    for i in range(3):
        write_picture(tmp_path / "elsewhere" / f"{i}.png", i)
    write_picture(tmp_path / "in" / "own.png", 4)
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "another").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / ".hidden").symlink_to(tmp_path / "elsewhere")
    found = [file.relative_to(tmp_path / "in").as_posix() for file in find_files(tmp_path / "in")]
    assert found == ["another/0.png", "another/1.png", "another/2.png", "own.png"]


def test_a_file_or_an_exported_folder_as_a_model_says_what_to_do(light, pictures, tmp_path):
    (tmp_path / "released.pt").write_bytes(b"x")
    made = run_here("translate", tmp_path / "released.pt", pictures, "-o", tmp_path / "out")
    assert made.returncode == 2 and "ugatit import" in " ".join(made.stderr.split())
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "a2b.onnx").touch()
    (tmp_path / "onnx" / "config.json").write_text("{}")
    made = run_here("translate", tmp_path / "onnx", pictures, "-o", tmp_path / "out")
    assert made.returncode == 2 and "--backend onnx" in made.stderr


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tiff"])
def test_animations_and_stacks_are_translated_as_a_whole(kind, light, tmp_path):
    """Every picture as it would be alone, with its time, the repeats and the order."""
    shades = [Image.new("RGB", (40, 36), (i * 60, 255 - i * 60, 90)) for i in range(4)]
    times, source = [100, 40, 250, 70], tmp_path / "in" / f"moving.{kind}"
    source.parent.mkdir()
    options = {} if kind == "tiff" else {"duration": times, "loop": 3}
    shades[0].save(
        source, save_all=True, append_images=shades[1:], **options, **({"lossless": True} if kind == "webp" else {})
    )
    write_picture(tmp_path / "in" / f"still.{kind}", 1, 40)
    made = run_here("translate", light, tmp_path / "in", "-o", tmp_path / "out")
    assert made.returncode == 0, made.stderr
    still = "still.png" if kind == "gif" else f"still.{kind}"
    assert {f.name for f in (tmp_path / "out").iterdir()} == {f"moving.{kind}", still}
    translator = Translator.load(light)
    with Image.open(source) as before, Image.open(tmp_path / "out" / f"moving.{kind}") as after:
        assert after.n_frames == before.n_frames == 4 and after.format == before.format
        for number in range(4):
            before.seek(number)
            after.seek(number)
            alone = np.asarray(translator(before.convert("RGB"), "a2b"), int)
            gap = np.abs(np.asarray(after.convert("RGB"), int) - alone)
            assert gap.mean() < (8 if kind in ("gif", "webp") else 1), "lost to its colours or its compression"
            if kind != "tiff":
                assert after.info["duration"] == before.info["duration"] == times[number]
                assert after.info["loop"] == before.info["loop"]


def test_commands_without_what_they_need_say_what(tmp_path, data):
    for command, sentence in (
        (["translate", tmp_path, "-o", tmp_path / "out"], "No picture was named: give files, folders or globs"),
        (
            ["translate", data / "trainA" / "0.png", data, "-o", tmp_path / "out"],
            "0.png is a file, and a model is a folder",
        ),
        (["train", "--resume", data / "trainA" / "0.png"], "0.png is a file: give the folder of a run"),
        (
            ["train", "--resume", data],
            "holds no run to resume, it has no config.json: give the folder that ugatit train",
        ),
        (["serve"], "No model was named: give a folder like RUN/model"),
        (["study"], "No folder was named: give the folder that ugatit compare left"),
        (["ablate", data, "--system", "cyclegan"], "--system cyclegan: Table 1 is of ugatit"),
        (["train", data, "--cache", "inf"], "--cache = inf: give a finite number"),
        (["train", data, "--lr", "inf"], "--lr = inf: give a finite number"),
        (["ablate", data, "--cycle-weight", "inf"], "--cycle-weight = inf: give a finite number"),
        (["evaluate", tmp_path, data, "--seed", str(2**40)], "--seed = 1099511627776: Input should be less than"),
    ):
        done = run_here(*command)
        assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_the_translator_says_what_it_takes():
    translator = Translator(tiny_model(), "cpu")
    with pytest.raises(UserError, match=r"`images` is a str: give a picture \(Image.open\(path\)\)"):
        translator("cat.jpg")
    with pytest.raises(UserError, match=r"`images` has a str: give pictures \(Image.open\(path\)\)"):
        translator([Image.new("RGB", (40, 40)), "cat.jpg"])
    styled = Translator(tiny_model("munit"), "cpu")
    styled.set_style(torch.zeros(1, 3, 64, 64, dtype=torch.float64))
    styled(torch.zeros(2, 3, 64, 64))
    with pytest.raises(UserError, match="`style` is a tensor, but not 1 x channels"):
        styled.set_style(torch.zeros(3, 64, 64))
    with pytest.raises(UserError, match="give a number from 0 up"):
        styled.set_style(2**70)
    styled.set_style(torch.zeros(2, 3, 64, 64))
    with pytest.raises(UserError, match="`style` is 2 x 3 x 64 x 64, not 1 x 3 x H x W"):
        styled(torch.zeros(3, 3, 64, 64))
    with pytest.raises(UserError, match="`batch=0`: give a whole number, 1 or more"):
        translator(torch.rand(1, 3, 32, 32), batch=0)
    with pytest.raises(UserError, match="`batch='8'`: give a whole number"):
        translator(torch.rand(1, 3, 32, 32), batch="8")
    with pytest.raises(UserError, match="`images` has a NoneType: give pictures"):
        translator([None])


@pytest.mark.parametrize("name", ["ugatit", "munit"])
def test_tiles_in_batches_are_the_tiles_one_by_one(name, monkeypatch):
    translator = Translator(tiny_model(name), "cpu")
    x = torch.rand(2, 3, 150, 130) * 2 - 1
    if translator.system.styles:
        translator.set_style(3)
    alone = translator(x, size="tiles")
    monkeypatch.setattr(Translator, "tiles_at_once", 7)
    if translator.system.styles:
        translator.set_style(3)
    assert (translator(x, size="tiles") - alone).abs().max() < 1e-5


def test_half_precision_is_near_and_finite():
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    whole, half = (Translator(tiny_model(), "cpu", precision)(x) for precision in ("no", "bf16"))
    assert 0 < (whole - half).abs().max() < 0.2 and half.dtype == torch.float32
    with pytest.raises(UserError, match="`precision=fp8` is not known: use no, bf16, fp16"):
        Translator(tiny_model(), "cpu", "fp8")


def test_float32_is_float32_and_torch_keeps_its_settings(monkeypatch):
    """Of a convolution's factors torch alone keeps 10 bits on cards."""
    seen, forward = [], UGATIT.translate

    def watched(*arguments, **options):
        seen.append((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
        return forward(*arguments, **options)

    monkeypatch.setattr(UGATIT, "translate", watched)
    Translator(tiny_model(), "cpu")(torch.rand(1, 3, 32, 32))
    assert seen == [(False, False)]
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (False, True), "torch's own"


SWITCHES = """
import torch
from ugatit.nn.precision import tf32
if not hasattr(torch.backends, "fp32_precision"):
    raise SystemExit(77)
def state():
    return torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision
torch.backends.fp32_precision = "tf32"  # its older switches cannot be read from now on
torch.backends.cudnn.conv.fp32_precision = "ieee"
before = state()
for allowed, wanted in (False, "ieee"), (True, "tf32"):
    with tf32(allowed):
        assert state() == (wanted, wanted)
    assert state() == before == ("tf32", "ieee")
"""


def test_programs_that_use_torch_s_newer_switches_keep_them():
    made = subprocess.run([sys.executable, "-c", SWITCHES], capture_output=True, text=True)
    if made.returncode == 77:
        pytest.skip("this torch has the older switches alone")
    assert made.returncode == 0, made.stderr


# Several processes, and several starts


def translated_by(rank, processes, monkeypatch, *arguments):
    """What one of several processes does."""
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    return main(["translate", *map(str, arguments)])


def many(folder):
    for i in range(7):
        write_picture(folder / f"{i}.png", i, size=40)
    return folder


def contents(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_processes_share_the_files_and_make_what_one_makes(light, tmp_path, monkeypatch, capsys):
    source = many(tmp_path / "in")
    (source / "broken.png").write_bytes(b"broken")
    same = light, source, "--batch", 2, "--device", "cpu"
    assert translated_by(0, 1, monkeypatch, *same, "-o", tmp_path / "one") == 0
    capsys.readouterr()
    assert translated_by(1, 2, monkeypatch, *same, "-o", tmp_path / "two") == 0
    said = capsys.readouterr().err
    assert "3 pictures written" in said and "process 2 of 2" in said and "broken.png" in said
    assert {name for name in contents(tmp_path / "two") if name.endswith(".png")} == {"2.png", "3.png", "6.png"}
    assert translated_by(0, 2, monkeypatch, *same, "-o", tmp_path / "two") == 0
    assert "4 pictures written" in capsys.readouterr().err
    assert contents(tmp_path / "two") == contents(tmp_path / "one") and len(contents(tmp_path / "one")) == 7


def test_what_was_killed_is_taken_up_by_the_next_start(light, tmp_path, monkeypatch, capsys):
    source, out = many(tmp_path / "in"), tmp_path / "out"

    def killed(*arguments, whole=translate_files):
        yield from islice(whole(*arguments), 3)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ugatit.commands.translate.translate_files", killed)
        assert main(["translate", str(light), str(source), "-o", str(out)]) == 130
    first = sorted(out.glob("*.png"))[:3]
    written = [file.stat().st_mtime_ns for file in first]
    write_picture(source / "0.png", 99, size=40)  # another picture since
    capsys.readouterr()
    assert main(["translate", str(light), str(source), "-o", str(out)]) == 0
    assert "5 pictures written" in (said := capsys.readouterr().err) and "2 were there from an earlier start" in said
    kept = [file.stat().st_mtime_ns == time for file, time in zip(first, written, strict=True)]
    assert kept == [False, True, True]
    assert sorted(contents(out)) == [f"{i}.png" for i in range(7)], "the notes are gone"
    assert main(["translate", str(light), str(source), "-o", str(out)]) == 0
    assert "7 pictures written" in capsys.readouterr().err, "what was finished is done anew"


def test_what_was_made_with_other_settings_or_changed_since_does_not_count(tmp_path):
    jobs = plan_jobs([str(many(tmp_path / "in"))], tmp_path / "out")

    def left(size="model", attention=False, anew=False):
        return len(Share(tmp_path / "out", {"size": size}, attention, Process(), anew).part(jobs))

    def done(count, attention=False):
        share = Share(tmp_path / "out", {"size": "model"}, attention, Process())
        share.part(jobs)
        for job in jobs[:count]:
            write_picture(job.target, 0)
            write_picture(job.attention, 0)
            share.done(job)

    done(2)
    assert left() == 5
    write_picture(jobs[0].target, 1)
    assert left() == 6, "another has written there since"
    jobs[1].source.touch()
    assert left() == 7
    done(2, attention=True)
    assert left(attention=True) == 5
    jobs[0].attention.unlink()
    assert left(attention=True) == 6
    assert left("keep") == 7 and left() == 7, "the notes of what was asked before are gone"
    done(2)
    assert left(anew=True) == 7 and left() == 7


def test_notes_go_into_no_folder_of_others(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".translating").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match=r"\.translating is a link"):
        Share(tmp_path / "out", {}, False, Process())
    (tmp_path / "out" / ".translating").unlink()
    (tmp_path / "mine").rename(tmp_path / "out" / ".translating")
    Share(tmp_path / "out", {}, False, Process())
    assert (tmp_path / "out" / ".translating" / "precious.txt").exists()


def test_only_the_model_itself_counts_of_a_run(tmp_path):
    """Not its previews and checkpoints, which a run that goes on adds to."""
    save_random(tmp_path / "run" / "model")
    (tmp_path / "run" / "previews").mkdir()
    options = TranslateConfig(str(tmp_path / "run"), (), tmp_path / "out")
    before = all_settings(options, Translator.load(options.model))
    (tmp_path / "run" / "previews" / "1.png").touch()
    assert all_settings(options, Translator.load(options.model)) == before
    save_random(tmp_path / "run" / "model", seed=1)
    assert all_settings(options, Translator.load(options.model)) != before


def test_a_start_beside_another_of_the_same_ends_well(light, tmp_path):
    jobs = plan_jobs([str(many(tmp_path / "in"))], tmp_path / "out")
    shares = [Share(tmp_path / "out", {}, False, Process()) for _ in range(2)]
    for share in shares:
        for job in share.part(jobs):
            write_picture(job.target, 0)
            share.done(job)
    for share in shares:
        share.end()
    assert not (tmp_path / "out" / ".translating").exists()


def test_a_source_that_is_gone_when_its_result_is_written_stops_nothing(light, tmp_path, monkeypatch, capsys):
    source = many(tmp_path / "in")

    def gone(*arguments, whole=translate_files):
        for number, result in enumerate(whole(*arguments)):
            for file in source.iterdir():
                if number == 1:
                    file.unlink()
            yield result

    monkeypatch.setattr("ugatit.commands.translate.translate_files", gone)
    assert main(["translate", str(light), str(source), "-o", str(tmp_path / "out")]) == 0
    assert "7 pictures written" in capsys.readouterr().err


def test_what_several_processes_cannot_share(light, tmp_path, monkeypatch, capsys):
    source = many(tmp_path / "in")
    other = write_picture(source / "out" / "other.gif", 0)
    assert translated_by(0, 2, monkeypatch, light, source, "-o", source / "out") == 0, "what is there is none of them"
    assert translated_by(0, 2, monkeypatch, light, other, "-o", source / "out") == 2
    assert "is among the inputs" in capsys.readouterr().err
    save_model(tiny_model("munit"), tmp_path / "munit", 0)
    assert translated_by(0, 2, monkeypatch, tmp_path / "munit", source / "0.png", "-o", tmp_path / "o") == 2
    assert "do not share random styles" in capsys.readouterr().err


def test_threads_let_go_of_the_cores_between_operations(tmp_path, monkeypatch, capsys):
    """Set before PyTorch is imported, which reads it; what the person has set stays."""
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    shown = "print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules) or sys.exit()"
    code = f"import os, sys, ugatit.cli as cli; cli.load = lambda _: {shown}; cli.main(['demo'])"
    command = [sys.executable, "-c", code]
    for changes, printed in (
        ({}, "1000 False"),
        ({"GOMP_SPINCOUNT": "7"}, "7 False"),
        ({"OMP_WAIT_POLICY": "active"}, "None False"),
    ):
        made = subprocess.run(command, capture_output=True, text=True, env=os.environ | changes)
        assert made.stdout.strip() == printed, made.stderr


def test_a_model_of_one_generator_is_half_as_large_and_translates_the_same(light, pictures, tmp_path, capsys):
    both = Translator.load(light, "cpu")
    one = UGATIT(replace(both.system.config, only="a2b"))
    one.load_state_dict(both.system.state_dict(), strict=False)
    save_model(one.half(), tmp_path / "one", 0, with_training=False)
    small, large = ((folder / "translator.safetensors").stat().st_size for folder in (tmp_path / "one", light))
    assert small < 0.4 * large
    made, there = Translator.load(tmp_path / "one", "cpu"), read_picture(pictures / "one.png")
    assert np.abs(np.asarray(made(there), int) - np.asarray(both(there), int)).max() <= 2
    assert list(made.system.attention(made.to_tensor(there), "a2b")) == ["generator"]
    assert (
        main(["translate", str(tmp_path / "one"), str(pictures), "-o", str(tmp_path / "o"), "--direction", "b2a"]) == 2
    )
    assert "b2a" in capsys.readouterr().err
    assert main(["train", str(pictures), "--only", "a2b", "-o", str(tmp_path / "run")]) == 2


def test_brackets_in_the_names_of_folders_are_no_patterns(tmp_path, monkeypatch):
    for name in ("photos [1]/a.png", "photos [1]/b.png", "photos [1]/c.jpg", "photos 1/d.png"):
        write_picture(tmp_path / name, 1)
    monkeypatch.chdir(tmp_path)
    for given in ("photos [1]/*.png", str(tmp_path / "photos [1]" / "*.png"), "photos [1]/[ab].png"):
        assert [job.source.name for job in plan_jobs([given], tmp_path / "out")] == ["a.png", "b.png"], given
    assert {job.source.as_posix() for job in plan_jobs(["**/*.png"], tmp_path / "out")} == {
        "photos [1]/a.png",
        "photos [1]/b.png",
        "photos 1/d.png",
    }
    assert [job.source.name for job in plan_jobs(["photos ?/*.png"], tmp_path / "out")] == ["d.png"]
    with pytest.raises(UserError, match=r"photos \[1\]/\*.gif does not exist and matches nothing"):
        plan_jobs(["photos [1]/*.gif"], tmp_path / "out")


def test_what_a_translation_replaces_is_told(light, tmp_path):
    write_picture(tmp_path / "in" / "a.png", 1)
    write_picture(tmp_path / "out" / "a.png", 2)
    made = run_here("translate", light, tmp_path / "in", "-o", tmp_path / "out")
    assert made.returncode == 0 and "Replaced: 1 file that" in " ".join(made.stderr.split())
    made = run_here("translate", light, tmp_path / "in", "-o", tmp_path / "new")
    assert made.returncode == 0 and "Replaced" not in made.stderr


def test_a_start_that_ends_leaves_the_notes_of_one_that_goes_on(tmp_path):
    first, second = (plan_jobs([str(many(tmp_path / name))], tmp_path / "out" / name) for name in ("one", "two"))
    shares = [Share(tmp_path / "out", {}, False, Process()) for _ in range(2)]
    for share, jobs in zip(shares, (first, second), strict=True):
        for job in share.part(jobs)[: 1 if jobs is first else None]:
            write_picture(job.target, 0)
            share.done(job)
    shares[1].end()
    again = Share(tmp_path / "out", {}, False, Process())
    assert again.part(first) == first[1:], "killed now, the first one's work is not lost"


def test_tensors_of_other_numbers_are_refused():
    translator = Translator(tiny_model(), "cpu")
    for wrong in (torch.full((1, 3, 32, 32), 200.0), torch.full((1, 3, 32, 32), torch.nan)):
        with pytest.raises(UserError, match=r"`images` has numbers far from \[-1, 1\], or none: divide bytes by 127.5"):
            translator(wrong)
    for wrong in (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.zeros(3, 32, 32), torch.zeros(1, 1, 32, 32)):
        with pytest.raises(UserError, match=r"`x` is a torch\.\w+ tensor of shape .*: give floats of N x 3 x H x W"):
            translator.translate(wrong, "a2b", "model")
    with pytest.raises(UserError, match="`x` is a ndarray: give a tensor"):
        translator.translate(np.zeros((1, 3, 32, 32)), "a2b", "model")
    with pytest.raises(UserError, match="`batch=True`: give a whole number"):
        translator(torch.zeros(1, 3, 32, 32), batch=True)
    assert translator(torch.zeros(2, 3, 32, 32), batch=np.int64(1)).shape == (2, 3, 32, 32)


def test_pillow_s_pictures_have_the_limits_of_files(tmp_path):
    translator = Translator(tiny_model(), "cpu")
    for size, why in (((1, 1), "is 1 x 1 pixels, the least is 16 x 16"), ((2000, 16), "more than 100 times as long")):
        with pytest.raises(UserError, match=f"The picture .*{why}"):
            translator(Image.new("RGB", size))
    Image.effect_noise((200, 200), 50).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:-3000])
    with pytest.raises(UserError, match=r"The picture cannot be read .*: give another"):
        translator(Image.open(tmp_path / "cut.png"))


def test_a_saved_translator_keeps_its_step(tmp_path):
    save_model(tiny_model(), tmp_path / "model", step=7)
    Translator.load(tmp_path / "model").save(tmp_path / "copy")
    assert saved_step(tmp_path / "copy") == 7
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="give another folder"):
        Translator.load(tmp_path / "model").save(tmp_path / "file" / "copy")


def test_other_programs_settings_beside_a_checkpoint_are_no_hindrance(tmp_path):
    """Folders of the hub have a config.json of their own."""
    folder = tmp_path / "hub"
    folder.mkdir()
    torch.save(released_names(UGATIT(UGATITConfig(light=True, width=3, blocks=2, size=128))), folder / "model.bin")
    (folder / "config.json").write_text('{"architectures": ["ResNet"], "model_type": "cyclegan"}')
    made = run_here("translate", folder, tmp_path / "x.png", "-o", tmp_path / "out")
    assert made.returncode == 2 and f"ugatit import {folder} -o MODEL" in made.stderr
    made = run_here("import", folder, "-o", tmp_path / "model", "--size", 128)
    assert made.returncode == 0, made.stderr
    made = run_here("import", tmp_path / "model", "-o", tmp_path / "again")
    assert made.returncode == 2 and "is of this package" in made.stderr
