"""Pictures of more than 8 bits and of other bands than colour's, from their files to the results."""

import io
import json
import os
import struct
import time
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from imagecodecs import avif_encode, cms_profile, jpeg2k_encode, png_decode, png_encode
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from conftest import TINY, run_here, tiny_model, write_picture
from test_reading import swapped_profile
from ugatit.apps.page import browser_samples
from ugatit.data.finding import find_files, find_pictures, look_at
from ugatit.data.reading import examine, read_picture, read_samples
from ugatit.data.samples import BandsError
from ugatit.io.errors import UserError
from ugatit.systems import REGISTRY
from ugatit.systems.base import COLOUR, Samples, Translation
from ugatit.translation.files import plan_jobs, translate_files
from ugatit.translation.results import as_image, depth_of, suffix_of
from ugatit.translation.translator import Translator

DIFFERENT = {"cyclegan": {"identity_weight": 0.0}, "unit": {}, "munit": {}, "drit": {}}  # systems, and what they need
ALIKE = {"ugatit": "identity and CAM losses", "aggan": "keeps the source", "cartoongan": "with its source"}


def ramp(bands, kind=np.uint16, size=32):
    """Other values in every pixel and band, which 8 bits cannot tell apart."""
    values = np.arange(size * size * bands).reshape(size, size, bands)
    return (values * (65535 / values.max())).astype(kind) if kind == np.uint16 else values.astype(kind)


class Same(Translator):
    """Translates nothing, so that what is lost between a file and its result is seen."""

    def one_way(self, direction, count):
        return lambda x: Translation(x, None)


def same(channels, range="type"):
    system = tiny_model("cyclegan")
    system.config = replace(system.config, channels=channels, range=range)
    return Same(system, "cpu")


def translated(translator, source, out):
    (job,) = plan_jobs([str(source)], out, 1, (translator.samples("a").channels, translator.samples("b").channels))
    (done,) = translate_files(translator, [job], "a2b", "keep")
    assert done == job, done
    return job.target


def test_sixteen_bits_reach_the_networks_and_the_result(tmp_path):
    grey, colour = ramp(1)[:, :, 0], ramp(3)
    Image.fromarray(grey).save(tmp_path / "g.png")
    Image.fromarray(grey).save(tmp_path / "g.tif")
    (tmp_path / "c.png").write_bytes(png_encode(colour))
    tifffile.imwrite(tmp_path / "c.tif", colour, photometric="rgb")
    tifffile.imwrite(tmp_path / "z.tif", colour, photometric="rgb", compression="zlib", predictor=True)
    for name, channels, values in (
        ("g.png", 1, grey[:, :, None]), ("g.tif", 1, grey[:, :, None]),
        ("c.png", 3, colour), ("c.tif", 3, colour), ("z.tif", 3, colour),
    ):  # fmt: skip
        read = read_samples(tmp_path / name, Samples(channels))
        assert read.kind == "uint16" and not read.lost
        assert np.array_equal((read.pixels.permute(1, 2, 0).double().numpy() * 65535).round(), values), name
        result = translated(same(channels), tmp_path / name, tmp_path / "out")
        assert result.name == name
        made = png_decode(result.read_bytes()) if result.suffix == ".png" else tifffile.imread(result)
        assert made.dtype == np.uint16 and np.array_equal(made.reshape(values.shape), values), name
    assert np.abs(np.asarray(read_picture(tmp_path / "c.png")) - colour / 257).max() <= 0.5 + 1e-6
    grey_of_colour = read_samples(tmp_path / "c.png", Samples(1)).pixels[0].numpy() * 65535
    assert np.allclose(grey_of_colour, colour @ [0.299, 0.587, 0.114], atol=1)


def test_floats_are_written_as_floats_in_the_range_of_the_target(tmp_path):
    values = np.linspace(-500, 1500, 1024, dtype=np.float32).reshape(32, 32)
    Image.fromarray(values).save(tmp_path / "f.tif")
    np.save(tmp_path / "n.npy", values)
    for name in ("f.tif", "n.npy"):
        result = translated(same(1, (-1000.0, 3000.0)), tmp_path / name, tmp_path / "out")
        made = np.load(result) if result.suffix == ".npy" else np.asarray(Image.open(result))
        assert made.dtype == np.float32 and np.abs(made - values).max() < 1e-3


def test_a_given_range_is_of_the_sources_alone(tmp_path):
    """Results have the target domain's, and the example of a style its own."""
    translator = Translator(tiny_model(channels=1, range=(-1000.0, 2000.0), range_b=(0.0, 800.0)), "cpu")
    translator.range = (-1000.0, 1500.0)
    assert translator.read_as("a2b").range == (-1000, 1500) and translator.written_as("a2b").range == (0, 800)
    plain = Translator(tiny_model(channels=1), "cpu")
    plain.range = (0.0, 5.0)
    assert plain.written_as("a2b").range == (0, 5), "there is no other"
    styled, example = Translator(tiny_model("munit"), "cpu"), Image.fromarray(ramp(3, np.uint8, 64))
    styled.set_style(example)
    before = styled(torch.zeros(1, 3, 64, 64))
    styled.range = (0.0, 10.0)
    assert torch.equal(styled(torch.zeros(1, 3, 64, 64)), before)


def test_what_a_result_is_written_as():
    hounsfield, counts, unit = (-1000.0, 3000.0), (0.0, 4095.0), (0.0, 1.0)
    for kind, target, suffix, expected in (
        ("uint8", Samples(1, hounsfield), ".tif", ("uint8", (0, 255))),
        ("uint16", Samples(1), ".png", ("uint16", (0, 65535))),
        ("uint16", Samples(1), ".jpg", ("uint8", (0, 255))),
        ("uint16", Samples(1, counts), ".png", ("uint16", counts)),
        ("uint16", Samples(1, counts), ".tif", ("uint16", counts)),
        ("uint16", Samples(1, hounsfield), ".tif", ("float32", hounsfield)),
        ("uint16", Samples(1, unit), ".tif", ("float32", unit)),
        ("uint16", Samples(1, hounsfield), ".png", ("uint16", (0, 65535))),
        ("float32", Samples(1, counts), ".tif", ("float32", counts)),
        ("float32", Samples(3, hounsfield), ".tif", ("uint16", (0, 65535))),
        ("float32", Samples(6, hounsfield), ".tif", ("float32", hounsfield)),
    ):
        assert depth_of(kind, target, suffix) == expected, (kind, target, suffix)
    suffixes = [(".jpg", 3, ".jpg"), (".jpg", 4, ".png"), (".jpg", 6, ".tif"), (".gif", 3, ".png"), (".pfm", 1, ".tif"),
                (".npy", 5, ".npy"), (".tiff", 2, ".tiff")]  # fmt: skip
    assert [suffix_of(source, channels) for source, channels, _ in suffixes] == [made for *_, made in suffixes]


def test_sixteen_bits_in_colour_are_read_by_their_profile_on_white_and_upright(tmp_path):
    xyz = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    flat = np.full((20, 24, 3), (40000, 20000, 30000), np.uint16)
    clear = np.concatenate([flat, np.zeros((20, 24, 1), np.uint16)], 2)
    (tmp_path / "clear.png").write_bytes(png_encode(clear))
    assert read_samples(tmp_path / "clear.png", Samples(3)).pixels.min() == 1, "white"
    tifffile.imwrite(tmp_path / "turned.tif", flat, photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    assert read_samples(tmp_path / "turned.tif", Samples(3)).pixels.shape == (3, 24, 20)
    tifffile.imwrite(tmp_path / "odd.tif", flat, photometric="rgb", iccprofile=xyz)  # not a profile of RGB
    assert torch.allclose(
        read_samples(tmp_path / "odd.tif", Samples(3)).pixels[:, 0, 0] * 65535, torch.tensor([40000.0, 20000, 30000])
    )
    tifffile.imwrite(tmp_path / "swapped.tif", flat, photometric="rgb", iccprofile=swapped_profile())
    found = read_samples(tmp_path / "swapped.tif", Samples(3)).pixels[:, 0, 0] * 65535
    assert torch.allclose(found, torch.tensor([20000.0, 40000, 30000]), atol=300), "red and green are exchanged"


def grey_profile(gamma=1.0) -> bytes:
    return cms_profile("gray", gamma=gamma)


def test_grey_is_read_by_its_profile_too(tmp_path):
    grey, shown = 51, 124  # 0.2 of the light, and what sRGB has for it
    palette = Image.new("P", (20, 20), 7)
    palette.putpalette([value for value in range(256) for _ in range(3)])
    palette.paste(grey, (0, 0, 20, 20))
    pictures = {
        "l.png": Image.new("L", (20, 20), grey),
        "la.png": Image.new("LA", (20, 20), (grey, 255)),
        "p.png": palette,
        "l.jpg": Image.new("L", (20, 20), grey),
        "deep.png": Image.fromarray(np.full((20, 20), grey * 257, np.uint16)),
        "deep.tif": Image.fromarray(np.full((20, 20), grey * 257, np.uint16)),
    }
    for name, picture in pictures.items():
        picture.save(tmp_path / name, icc_profile=grey_profile())
        for channels in (1, 3):
            found = read_picture(tmp_path / name, channels).getextrema()
            assert np.abs(np.array(found) - shown).max() <= 1, name
            sampled = read_samples(tmp_path / name, Samples(channels))
            assert sampled.kind == ("uint16" if "deep" in name else "uint8")
            assert sampled.extremes() == pytest.approx((shown / 255, shown / 255), abs=2 / 255), name
    coloured = Image.new("RGB", (20, 20), (200, 40, 90))
    coloured.save(tmp_path / "rgb.png", icc_profile=grey_profile())  # which is not its own
    assert read_picture(tmp_path / "rgb.png").getpixel((9, 9)) == (200, 40, 90)


def test_png_is_read_by_its_gamma_where_it_has_that_alone(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for gamma, options, shown in ((1.0, {}, 124), (0.45455, {}, 51), (1.0, {"icc_profile": profile}, 51)):
        chunk = PngInfo()
        chunk.add(b"gAMA", struct.pack(">I", round(gamma * 100000)))
        for name, picture in (
            ("l.png", Image.new("L", (20, 20), 51)),
            ("rgb.png", Image.new("RGB", (20, 20), (51, 51, 51))),
            ("deep.png", Image.fromarray(np.full((20, 20), 51 * 257, np.uint16))),
        ):
            picture.save(tmp_path / name, pnginfo=chunk, **options)
            sampled = read_samples(tmp_path / name, COLOUR)
            assert sampled.extremes() == pytest.approx((shown / 255, shown / 255), abs=2 / 255), (name, gamma, options)
    both = PngInfo()
    both.add(b"gAMA", struct.pack(">I", 100000))
    both.add(b"sRGB", b"\0")
    Image.new("L", (20, 20), 51).save(tmp_path / "x.png", pnginfo=both)
    assert read_picture(tmp_path / "x.png").getpixel((9, 9)) == (51, 51, 51)


def test_avif_and_heic_of_ten_bits_say_that_eight_are_read(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed: pip install 'ugatit[heic]'")
    values = np.random.default_rng(0).integers(0, 1024, (64, 48, 3)).astype(np.uint16)
    for bits in (8, 10):
        given = (values >> 2).astype(np.uint8) if bits == 8 else values
        (tmp_path / "x.avif").write_bytes(avif_encode(given, bitspersample=bits))
        mode, raw = ("RGB", given) if bits == 8 else ("RGB;16", given << 6)
        heif.encode(mode, (48, 64), raw.tobytes(), tmp_path / "x.heic", quality=90)
        for name in ("x.avif", "x.heic"):
            read = read_samples(tmp_path / name, COLOUR)
            assert read.kind == "uint8" and read.lost == (bits == 10), (name, bits)


def test_a_profile_is_srgb_by_what_it_does_and_not_by_its_name(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    curve = srgb.index(b"para") + 12  # its five numbers
    linear = srgb[:curve] + struct.pack(">5i", 2**16, 2**16, 0, 2**16, 0) + srgb[curve + 20 :]
    named = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(linear)))
    assert named.startswith("sRGB"), "both say so"
    for profile, shown in ((srgb, 51), (linear, 124)):
        Image.new("RGB", (20, 20), (51, 51, 51)).save(tmp_path / "x.png", icc_profile=profile)
        assert read_picture(tmp_path / "x.png").getpixel((9, 9)) == (shown,) * 3


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_samples_between_8_and_16_bits_are_taken_as_far_as_they_reach(bits, tmp_path):
    most = 2**bits - 1
    for bands, photometric in ((1, "minisblack"), (1, "miniswhite"), (3, "rgb")):
        values = np.linspace(0, most, 32 * 32 * bands).round().astype(np.uint16).reshape(32, 32, bands).squeeze()
        file = tmp_path / f"{photometric}.tif"
        tifffile.imwrite(file, values, photometric=photometric, bitspersample=bits)
        read = read_samples(file, Samples(bands))
        expected = values / most if photometric != "miniswhite" else 1 - values / most
        found = read.pixels.permute(1, 2, 0).squeeze().numpy()
        assert read.kind == "uint16" and np.abs(found - expected).max() < 1e-4, photometric


def test_deep_tiff_that_is_multiplied_by_its_alpha_is_not_multiplied_again(tmp_path):
    for kind, full in ((np.uint16, 65535), (np.float32, 1)):
        values = np.full((20, 20, 4), full / 4, kind)  # half of the way to black, half opaque
        values[:, :, 3] = full / 2
        values[0] = 0  # wholly clear
        for extra, expected in (("assocalpha", 0.75), ("unassalpha", 0.625)):
            tifffile.imwrite(tmp_path / "x.tif", values, photometric="rgb", extrasamples=[extra])
            found = read_samples(tmp_path / "x.tif", Samples(3, (0, full))).pixels
            assert torch.allclose(found[:, 1:], torch.tensor(expected), atol=1e-4) and found[:, 0].eq(1).all()


def test_lab_and_cmyk_are_read_as_colours_or_refused(tmp_path):
    for kind in (np.uint8, np.uint16):  # L 50 of 100, no colour
        values = np.zeros((20, 20, 3), kind)
        values[:, :, 0] = np.iinfo(kind).max // 2
        tifffile.imwrite(tmp_path / f"{np.dtype(kind)}.tif", values, photometric="cielab")
        ink = np.full((20, 20, 4), np.iinfo(kind).max, kind)
        ink[:, :, 3] = 0
        tifffile.imwrite(tmp_path / f"ink-{np.dtype(kind)}.tif", ink, photometric="separated")
        assert max(read_picture(tmp_path / f"ink-{np.dtype(kind)}.tif").getpixel((9, 9))) < 60, "almost black"
    assert np.abs(np.array(read_picture(tmp_path / "uint8.tif").getpixel((9, 9))) - 119).max() <= 2
    with pytest.raises(ValueError, match="has colours in CIELab of more than 8 bits: save it in RGB"):
        read_picture(tmp_path / "uint16.tif")
    assert read_samples(tmp_path / "ink-uint16.tif", Samples(3)).lost


@pytest.mark.parametrize("bands", [2, 4, 5, 8])
def test_as_many_bands_as_a_file_has(bands, tmp_path):
    values = ramp(bands, np.uint8)
    tifffile.imwrite(tmp_path / "contig.tif", values, photometric="minisblack", planarconfig="contig")
    tifffile.imwrite(
        tmp_path / "planes.tif", values.transpose(2, 0, 1), photometric="minisblack", planarconfig="separate"
    )
    tifffile.imwrite(tmp_path / "pages.tif", values.transpose(2, 0, 1), photometric="minisblack")
    np.save(tmp_path / "last.npy", values)
    np.save(tmp_path / "first.npy", values.transpose(2, 0, 1))
    for file in find_files(tmp_path):
        read = read_samples(file, Samples(bands))
        assert np.array_equal((read.pixels * 255).round().permute(1, 2, 0).numpy(), values), file.name
        with pytest.raises(BandsError, match=f"has {bands} bands, where 7 are needed"):
            read_samples(file, Samples(7))
        result = translated(same(bands), file, tmp_path / "out")
        made = np.load(result) if result.suffix == ".npy" else tifffile.imread(result)
        assert np.array_equal(made, values), file.name
    if bands == 4:
        picture = Image.fromarray(values, "RGBA")
        picture.save(tmp_path / "x.png")
        result = translated(same(4), tmp_path / "x.png", tmp_path / "out")
        assert np.array_equal(np.asarray(Image.open(result)), values)
        Image.new("RGB", (20, 20), (1, 2, 3)).save(tmp_path / "opaque.png")
        opaque = read_samples(tmp_path / "opaque.png", Samples(4)).pixels[:, 0, 0] * 255
        assert opaque.round().tolist() == [1, 2, 3, 255]


def test_a_numpy_file_of_a_stranger(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}] * 400).reshape(20, 20), allow_pickle=True)
    np.save(tmp_path / "flat.npy", np.zeros(400))
    np.save(tmp_path / "many.npy", np.zeros((20, 20, 20)))
    whole = np.zeros((200, 200))
    np.save(tmp_path / "cut.npy", whole)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:1000])
    for name, why in (
        ("objects", "it holds objects"),
        ("flat", "it is 400 of float64"),
        ("many", "it is 20 x 20 x 20"),
        ("cut", "its size"),
    ):
        with pytest.raises(ValueError, match=f"cannot be read \\({why}"):
            examine(tmp_path / f"{name}.npy")


@pytest.mark.parametrize("system", DIFFERENT)
def test_domains_of_other_channels(system, tmp_path):
    """From grey to five bands, trained and translated as people do it."""
    for side, channels in (("A", 1), ("B", 5)):
        for n in range(3):
            folder = tmp_path / "data" / f"train{side}"
            folder.mkdir(parents=True, exist_ok=True)
            values = np.random.default_rng(n).integers(0, 256, (70, 64, channels), np.uint8)
            if channels == 1:
                Image.fromarray(values[:, :, 0]).save(folder / f"{n}.png")
            else:
                tifffile.imwrite(folder / f"{n}.tif", values, photometric="minisblack", planarconfig="contig")
    options = [
        part for name, value in DIFFERENT[system].items() for part in (f"--{name.replace('_', '-')}", str(value))
    ]
    options += ["--size", "64"] if system != "cyclegan" else []
    done = run_here("train", tmp_path / "data", *TINY, "--system", system, "--steps", "3", "--channels", "1",
                      "--channels-b", "5", *options, "-o", tmp_path / "run")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "run" / "previews").iterdir())
    model = tmp_path / "run" / "model"
    done = run_here("translate", model, tmp_path / "data" / "trainA", "-o", tmp_path / "a2b", "--size", "tiles")
    assert done.returncode == 0 and tifffile.imread(tmp_path / "a2b" / "0.tif").shape == (70, 64, 5), done.stderr
    done = run_here("translate", model, tmp_path / "data" / "trainB", "-o", tmp_path / "b2a", "--direction", "b2a")
    assert done.returncode == 0 and Image.open(tmp_path / "b2a" / "0.tif").mode == "L", done.stderr
    done = run_here("inspect", model, tmp_path / "data" / "trainA", "-o", tmp_path / "looked")
    assert done.returncode == 0, done.stderr
    done = run_here("evaluate", model, tmp_path / "data", "--features", "efficientnet-lite0", "-o", tmp_path / "e")
    assert done.returncode == 2 and "1 and 5 channels: KID and FID are known for grey and colour only" in done.stderr


def test_systems_that_need_equal_channels_say_so(data, tmp_path):
    for system, why in ALIKE.items():
        with pytest.raises(UserError, match=f"`channels=3` and `channels_b=1`: .*{why}.*: leave out `channels_b`"):
            REGISTRY[system].Config(channels_b=1)
    with pytest.raises(UserError, match="identity loss"):
        REGISTRY["cyclegan"].Config(channels_b=1)
    with pytest.raises(UserError, match=r"`channels=4`: CartoonGAN asks a network .* take 1 or 3"):
        REGISTRY["cartoongan"].Config(channels=4)
    done = run_here("train", data, *TINY, "--channels-b", "1", "-o", tmp_path / "run")
    assert done.returncode == 2 and "Traceback" not in done.stderr and "--channels-b 1" in done.stderr


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", ["ppm", "jp2"])
def test_formats_of_which_eight_bits_are_read_say_so(kind, bits, tmp_path):
    values = ramp(3, np.uint16 if bits == 16 else np.uint8)
    if kind == "ppm":
        head = f"P6 {values.shape[1]} {values.shape[0]} {2**bits - 1}\n".encode()
        (tmp_path / "a.ppm").write_bytes(head + values.astype(values.dtype.newbyteorder(">")).tobytes())
    else:
        (tmp_path / "a.jp2").write_bytes(jpeg2k_encode(values))
    assert read_samples(tmp_path / f"a.{kind}", COLOUR).lost == (bits == 16)


def test_without_the_packages_for_more_it_is_said(tmp_path, monkeypatch):
    (tmp_path / "c.png").write_bytes(png_encode(ramp(3)))
    tifffile.imwrite(tmp_path / "m.tif", ramp(5), photometric="minisblack", planarconfig="contig")

    def missing(name, extra):
        raise UserError(f"{name} is not installed")

    monkeypatch.setattr("ugatit.data.arrays.package", missing)
    read = read_samples(tmp_path / "c.png", Samples(3))
    assert read.lost and read.kind == "uint8"
    for channels in (3, 5):
        with pytest.raises(BandsError, match=r"more packages are needed: pip install 'ugatit\[scientific\]'"):
            read_samples(tmp_path / "m.tif", Samples(channels))


def test_what_was_found_is_remembered(tmp_path, cache, monkeypatch):
    folder = tmp_path / "pictures"
    files = [write_picture(folder / "deep" / f"{n}.png", n) for n in range(5)]
    (folder / "broken.png").write_bytes(b"no picture")
    time.sleep(1.1)  # what has only just changed may change again
    seen = []
    monkeypatch.setattr(
        "ugatit.data.memory.examine", lambda file, channels: seen.append(file) or examine(file, channels)
    )
    first = look_at(find_files(folder), root=folder)
    assert sorted(seen) == find_files(folder) and list(first.good) == files
    assert len(list((cache / "ugatit" / "looks").iterdir())) == 1
    seen.clear()
    assert look_at(find_files(folder), root=folder) == first
    assert seen == [folder / "broken.png"], "what may have been mended"
    write_picture(files[2], 77)
    os.utime(files[2], ns=(0, files[3].stat().st_mtime_ns))  # the same size and time of change perhaps
    seen.clear()
    again = look_at(find_files(folder), root=folder)
    assert (
        sorted(seen) == [folder / "broken.png", files[2]] and again.good[files[2]].sha256 != first.good[files[2]].sha256
    )
    (entry,) = (cache / "ugatit" / "looks").iterdir()
    for damage in (
        b"",
        b"[1]",
        b'{"deep/0.png": 3, "deep/1.png": [[1, 2, 3]]}',
        json.dumps({"deep/0.png": [[], 1]}).encode(),
    ):
        entry.write_bytes(damage)
        assert look_at(find_files(folder), root=folder).good == again.good
    write_picture(tmp_path / "others" / "1.png", 1)
    assert find_pictures(None, folder, tmp_path / "others", 0.2, 0).inventory()["trainA"]


def test_pictures_of_pillow_keep_their_transparency():
    picture = Image.fromarray(ramp(4, np.uint8), "RGBA")
    assert np.array_equal(np.asarray(same(4)(picture, size="keep")), np.asarray(picture))
    with pytest.raises(UserError, match=r"has 4 bands, where 6 are needed"):
        same(6)(picture, size="keep")
    with pytest.raises(UserError, match=r"cannot have the 6 channels .* give tensors"):
        as_image(torch.zeros(6, 8, 8))


def test_the_browser_page_knows_how_pictures_are_read():
    config = REGISTRY["cyclegan"].Config(identity_weight=0.0, channels=1, channels_b=3, range_b=(0.0, 100.0))
    assert browser_samples(config, "a2b") == {"channels": 1, "range": (0, 255)}
    assert browser_samples(config, "b2a") == {"channels": 3, "range": (0.0, 100.0)}
    with pytest.raises(UserError, match="no pictures of 5 channels"):
        browser_samples(replace(config, channels_b=5), "a2b")
