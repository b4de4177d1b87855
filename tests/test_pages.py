"""Files that hold several pictures: all of them are read, as they are, or it is said which are not."""

import io
import struct
import tracemalloc

import numpy as np
import pytest
import tifffile
from PIL import Image, TiffImagePlugin

from conftest import run_here, tiny_model
from ugatit.data.reading import count_pages, extent_of_pages, read_pages, read_picture, read_samples
from ugatit.systems.base import COLOUR, Samples
from ugatit.translation import results
from ugatit.translation.animation import has_more, is_animation, translate_animation
from ugatit.translation.results import encode, save_arrays
from ugatit.translation.translator import Translator

ORIENTATION = 274


def noise(*shape: int, kind=np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(kind).max, shape, kind, endpoint=True)


@pytest.fixture
def model(tmp_path):
    Translator(tiny_model(), "cpu").save(tmp_path / "model")
    return tmp_path / "model"


def frames(count: int = 4) -> list[Image.Image]:
    return [Image.fromarray(np.roll(noise(40, 32, 3), number, 0)) for number in range(count)]


def test_every_page_of_a_stack_is_upright(tmp_path):
    pages, turns = frames(3), (6, 1, 8)
    with TiffImagePlugin.AppendingTiffWriter(str(tmp_path / "turned.tif"), True) as file:
        for page, turn in zip(pages, turns, strict=True):
            page.save(file, "TIFF", tiffinfo={ORIENTATION: turn})
            file.newFrame()
    upright = [pages[0].transpose(Image.Transpose.ROTATE_270), pages[1], pages[2].transpose(Image.Transpose.ROTATE_90)]
    for found, wanted in zip(read_pages(tmp_path / "turned.tif", COLOUR).pictures, upright, strict=True):
        assert np.array_equal(found.pixels, wanted)


def test_pages_of_sixteen_bits_in_colour_keep_them(tmp_path):
    pages = noise(3, 40, 32, 3, kind=np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", pages, photometric="rgb", metadata=None)
    found = read_pages(tmp_path / "deep.tif", COLOUR).pictures
    for page, one in zip(found, pages, strict=True):
        assert page.kind == "uint16" and not page.lost
        assert np.abs(page.pixels.numpy().transpose(1, 2, 0) * 65535 - one).max() < 0.1
    translate_animation(Translator(tiny_model(), "cpu"), tmp_path / "deep.tif", tmp_path / "out.tif", "a2b", "keep", 2)
    assert tifffile.imread(tmp_path / "out.tif").dtype == np.uint16


def test_the_deepest_page_says_how_deep_the_result_is(tmp_path):
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as file:
        file.write(noise(40, 32), photometric="minisblack", metadata=None)
        file.write(noise(40, 32, kind=np.uint16), photometric="minisblack", metadata=None)
    grey = Translator(tiny_model(channels=1), "cpu")
    translate_animation(grey, tmp_path / "mixed.tif", tmp_path / "out.tif", "a2b", "keep", 2)
    assert tifffile.imread(tmp_path / "out.tif", key=0).dtype == np.uint16


def test_black_and_white_of_floats_are_those_of_all_pages(model, tmp_path):
    pages = np.linspace(0.2, 0.9, 3 * 40 * 32, dtype=np.float32).reshape(3, 40, 32)
    tifffile.imwrite(tmp_path / "floats.tif", pages, photometric="minisblack", metadata=None)
    assert extent_of_pages(tmp_path / "floats.tif", 3) == pytest.approx((0.2, 0.9))
    made = run_here("translate", model, tmp_path / "floats.tif", "-o", tmp_path / "out")
    assert made.returncode == 0 and "go from 0.2 to 0.9" in made.stderr, made.stderr


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_grey_that_counts_from_white_is_no_negative(kind, tmp_path):
    values = noise(40, 32, kind=kind) // 4
    tifffile.imwrite(tmp_path / "white.tif", values, photometric="miniswhite")
    wanted = 1 - values / np.iinfo(kind).max
    assert np.asarray(read_picture(tmp_path / "white.tif", 1)) / 255 == pytest.approx(wanted, abs=1 / 255)
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([values, values]), photometric="miniswhite", metadata=None)
    second = read_pages(tmp_path / "stack.tif", Samples(1, None)).pictures[1].pixels
    shown = second.numpy()[0] if kind == np.uint16 else np.asarray(second) / 255
    assert shown == pytest.approx(wanted, abs=1 / 255)


def test_grey_of_sixteen_bits_with_a_transparent_shade_keeps_its_shades(tmp_path):
    values = noise(40, 32, kind=np.uint16)
    Image.fromarray(values).save(tmp_path / "grey.png", transparency=5)
    assert np.asarray(read_picture(tmp_path / "grey.png", 1)) == pytest.approx(values / 257, abs=1)


@pytest.mark.parametrize(("mode", "suffix"), [("I;16", "png"), ("RGBA", "png"), ("RGBA", "webp")])
def test_the_orientation_counts_for_what_networks_take_too(mode, suffix, tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    values = noise(40, 32, kind=np.uint16) if mode == "I;16" else noise(40, 32, 4)
    Image.fromarray(values).save(tmp_path / f"lying.{suffix}", exif=exif)
    channels = 4 if mode == "RGBA" else 1
    assert read_samples(tmp_path / f"lying.{suffix}", Samples(channels, None)).pixels.shape == (channels, 32, 40)


def test_a_stack_that_is_cut_short_is_not_taken_for_its_first_page(model, tmp_path):
    pages = frames()
    pages[0].save(tmp_path / "whole.tif", save_all=True, append_images=pages[1:])
    data = (tmp_path / "whole.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[: len(data) * 6 // 10])
    made = run_here("translate", model, tmp_path / "cut.tif", tmp_path / "whole.tif", "-o", tmp_path / "out")
    assert "cut.tif is damaged" in made.stderr and not (tmp_path / "out" / "cut.tif").exists()
    assert count_pages(tmp_path / "out" / "whole.tif") == 4


def test_several_pictures_under_another_name_are_said(model, tmp_path):
    pages = frames()
    pages[0].save(tmp_path / "moving.jpg", "GIF", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "still.jpg")
    assert has_more(tmp_path / "moving.jpg") and not has_more(tmp_path / "still.jpg")
    made = run_here("translate", model, tmp_path / "moving.jpg", tmp_path / "still.jpg", "-o", tmp_path / "out")
    assert (
        "1 file with several pictures, of which the first is translated" in made.stderr and "moving.jpg" in made.stderr
    ), made.stderr


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {"default_image": True, "loop": 3}),
        ("a.gif", {"loop": 1}),
        ("a.gif", {"loop": 0}),
        ("a.gif", {}),
        ("a.avif", {}),
    ],
)
def test_repeats_and_a_picture_aside_stay(name, options, tmp_path):
    if name == "a.avif" and "AVIF" not in Image.registered_extensions().values():
        pytest.skip("this Pillow does not write AVIF")
    pages, times = frames(), [100, 200, 300]
    aside = options.get("default_image", False)
    pages[0].save(
        tmp_path / name, save_all=True, append_images=pages[1:], duration=times if aside else [50, *times], **options
    )
    assert is_animation(tmp_path / name)
    out = tmp_path / "out" / name
    translate_animation(Translator(tiny_model(), "cpu"), tmp_path / name, out, "a2b", "keep", 2)
    before, after = (read_pages(path, COLOUR) for path in (tmp_path / name, out))
    assert before[1:] == after[1:] and before.loop == options.get("loop") and before.aside == aside
    assert len(after.pictures) == 4 and after.milliseconds[1:] == times


def later_tags(tags: int = 400, size: int = 2**20) -> bytes:
    """A TIFF file whose second directory has tags that all lie on one block."""
    page = io.BytesIO()
    Image.new("L", (32, 32)).save(page, "TIFF")
    data = bytearray(page.getvalue())
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    data += bytes(len(data) % 2)
    struct.pack_into("<I", data, first + 2 + 12 * count, len(data))
    block = len(data) + 2 + 12 * tags + 4
    rows = [struct.pack("<HHII", 60000 + number, 7, size, block) for number in range(tags)]
    return bytes(data) + struct.pack("<H", tags) + b"".join(rows) + bytes(4 + size)


def test_tags_of_later_pages_cost_no_memory(tmp_path):
    (tmp_path / "bomb.tif").write_bytes(later_tags())
    tracemalloc.start()
    assert count_pages(tmp_path / "bomb.tif") == 2
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**24, "400 times a MiB was read"


@pytest.mark.parametrize("suffix", [".webp", ".jpg", ".gif"])
def test_a_result_that_its_format_cannot_hold_is_a_phrase_and_leaves_nothing(suffix, tmp_path):
    with pytest.raises(ValueError, match=f"cannot be written as {suffix[1:].upper()}"):
        save_arrays([np.zeros((70000, 16, 3), np.uint8)], tmp_path / f"long{suffix}")
    assert not list(tmp_path.iterdir())


def test_a_result_that_its_format_cannot_hold_stops_no_other(model, tmp_path, monkeypatch):
    def limited(arrays, suffix, options):
        if suffix == ".webp":
            raise ValueError("encoding error 5")
        return encode(arrays, suffix, options)

    monkeypatch.setattr(results, "encode", limited)
    pictures = tmp_path / "in"
    pictures.mkdir()
    for name in ("a.webp", "b.png"):
        Image.new("RGB", (40, 40), "grey").save(pictures / name)
    made = run_here("translate", model, pictures, "-o", tmp_path / "out")
    assert made.returncode == 0 and "a.webp cannot be written as WEBP (encoding error 5)" in made.stderr, made.stderr
    assert [file.name for file in (tmp_path / "out").glob("*")] == ["b.png"]
