"""Pictures that may be anybody's: upright whatever their metadata says, and nothing that costs more than a picture."""

import io
import os
import resource
import struct
import time
import zlib

import numpy as np
import pytest
import tifffile
import torch
from PIL import ExifTags, Image, ImageCms, ImageOps, TiffImagePlugin, features
from PIL.PngImagePlugin import PngInfo

from conftest import run_ugatit, tiny_model, write_picture
from ugatit.data.finding import check_pictures, find_files
from ugatit.data.metadata import is_raw, strip_segments
from ugatit.data.reading import NoPictureError, TooLargeError, plain, read_pages, read_picture
from ugatit.systems.base import COLOUR
from ugatit.translation.folder import save_model
from ugatit.translation.translator import Translator

ORIENTATIONS = range(1, 9)


def blocks(width: int = 48, height: int = 32) -> Image.Image:
    """A picture with no symmetry, of areas large enough for JPEG to keep."""
    tiles = np.random.default_rng(3).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    return Image.fromarray(tiles.repeat(16, 0).repeat(16, 1))


def exif(orientation: int, order: str = "<", kind: int = 3, count: int = 1, extra: int = 0) -> bytes:
    """An Exif block with one odd tag before the orientation, whose type and count may be odd too."""
    entries = [
        struct.pack(order + "HHI4s", 0x0100, 10, 1, struct.pack(order + "I", 200)),  # a signed rational
        struct.pack(order + "HHI", 0x0112, kind, count) + struct.pack(order + "HH", orientation, 0),
    ]
    entries += [struct.pack(order + "HHII", 0x8000 + i, 2, 4, 0) for i in range(extra)]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return b"Exif\0\0" + head + struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4)


def saved(kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    blocks().save(buffer, kind, **options)
    return buffer.getvalue()


def turned(data: bytes, orientation: int) -> np.ndarray:
    """What Pillow makes of a file without metadata, turned as `ImageOps.exif_transpose` would."""
    clean = Image.Exif()
    clean[ExifTags.Base.Orientation] = orientation
    opened = Image.open(io.BytesIO(data))
    opened.load()
    plain = opened.convert("RGB")
    plain.info = {"exif": clean.tobytes()}
    plain._exif = None
    return np.asarray(ImageOps.exif_transpose(plain))


def read(data: bytes) -> np.ndarray:
    return np.asarray(read_picture(io.BytesIO(data)))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_pictures_are_upright_whatever_else_their_metadata_holds(kind, order, orientation):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    lossless = {"lossless": True} if kind == "WEBP" else {}
    plain, block = saved(kind, **lossless), exif(orientation, order)
    if kind == "AVIF":  # whose writer wants an orientation that it understands
        block = Image.Exif()
        block[ExifTags.Base.Orientation] = orientation
        block = block.tobytes()
    assert np.array_equal(read(saved(kind, exif=block, **lossless)), turned(plain, orientation))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "jpeg"])
@pytest.mark.parametrize("big", [False, True])
def test_tiff_files_are_upright(big, compression, orientation):
    options = {"compression": compression, "big_tiff": big}
    tags = {ExifTags.Base.Orientation: orientation, 700: b"xmp" * 9, 33432: "somebody", 34377: b"8BIM" * 40}
    assert np.array_equal(read(saved("TIFF", tiffinfo=tags, **options)), turned(saved("TIFF", **options), orientation))


def with_chunk(png: bytes, name: bytes, content: bytes, last: bool = False) -> bytes:
    """A PNG file with one more chunk: after the header, or before the end."""
    place = len(png) - 12 if last else 33
    return png[:place] + chunk(name, content) + png[place:]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_orientations_in_other_places_count(orientation):
    plain = saved("PNG")
    xmp = f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp)
    magick = PngInfo()
    block = exif(orientation)
    magick.add_text("Raw profile type exif", f"\nexif\n      {len(block)}\n{block.hex()}\n", zip=True)
    jpeg = saved("JPEG")
    segment = b"http://ns.adobe.com/xap/1.0/\0" + xmp.encode()
    for data, clean in (
        (with_chunk(plain, b"eXIf", block[6:]), plain),
        (with_chunk(plain, b"eXIf", block[6:], last=True), plain),
        (saved("PNG", pnginfo=info), plain),
        (saved("PNG", pnginfo=magick), plain),
        (jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:], jpeg),
    ):
        assert np.array_equal(read(data), turned(clean, orientation))


@pytest.mark.parametrize(
    "block",
    [exif(9), exif(0), exif(6, kind=5), exif(6, kind=13), b"", b"Exif\0\0", b"Exif\0\0II*\0", exif(6)[:-14],
     b"Exif\0\0MM\0*" + b"\xff" * 8, b"\xff" * 99],
)  # fmt: skip
def test_broken_metadata_never_matters(block):
    for kind in ("JPEG", "PNG"):
        plain = saved(kind)
        data = with_chunk(plain, b"eXIf", block[6:]) if kind == "PNG" else saved(kind, exif=block)
        assert np.array_equal(read(data), turned(plain, 1))


@pytest.mark.parametrize("order", ["<", ">"])
def test_an_orientation_of_another_whole_type_counts(order):
    data = saved("JPEG", exif=exif(6, order))
    place = data.index(struct.pack(order + "HHI", 0x0112, 3, 1))
    data = data[:place] + struct.pack(order + "HHII", 0x0112, 4, 1, 6) + data[place + 12 :]
    assert np.array_equal(read(data), turned(saved("JPEG"), 6))


# Files that are built to cost


def overlapping(tags: int = 300, size: int = 4_000_000) -> bytes:
    """An Exif block of that many tags, each of which is the same ``size`` bytes."""
    entries = b"".join(struct.pack("<HHII", 0x8000 + i, 3, size // 2, 8) for i in range(tags))
    block = b"II*\0" + struct.pack("<I", size) + bytes(size - 8)
    return block + struct.pack("<H", tags) + entries + bytes(4)


def jpeg_with(block: bytes) -> bytes:
    """A JPEG file with a block of Exif in as many segments as it needs, which Pillow joins."""
    data, pieces = saved("JPEG"), [block[i : i + 65_000] for i in range(0, len(block), 65_000)]
    segments = [b"\xff\xe1" + struct.pack(">H", len(p) + 8) + b"Exif\0\0" + p for p in pieces]
    return data[:2] + b"".join(segments) + data[20:]  # without JFIF, whose density Pillow looks for in Exif then


def tiff_with(tags: int = 300, size: int = 4_000_000) -> bytes:
    """A TIFF file of 32 x 16 pixels, most tags of which are the same ``size`` bytes."""
    pixels = blocks(32, 16).tobytes()
    values = [(256, 3, 1, 32), (257, 3, 1, 16), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 8),
              (277, 3, 1, 3), (278, 3, 1, 16), (279, 4, 1, len(pixels))]  # fmt: skip
    values += [(40_000 + i, 3, size // 2, 8) for i in range(tags)]
    body = pixels.ljust(size, b"\0")
    entries = b"".join(struct.pack("<HHII", *value) for value in values)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + struct.pack("<H", len(values)) + entries + bytes(4)


def scans() -> bytes:
    """A progressive JPEG file whose last scan stands there ten thousand times."""
    data = saved("JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 10_000 + data[-2:]


def after(junk: bytes) -> bytes:
    """A JPEG file with Exif of overlapping tags behind bytes that Pillow skips."""
    data = jpeg_with(overlapping())
    return data[:2] + junk + data[2:]


def gif_with(comment: int) -> bytes:
    """A GIF file with so many bytes of comments before its picture."""
    data = saved("GIF")
    place = data.index(b",", 13 + 3 * 2 ** ((data[10] & 7) + 1) if data[10] & 0x80 else 13)
    return data[:place] + b"!\xfe" + (b"\xff" + b"c" * 255) * (comment // 255) + b"\0" + data[place:]


def split_avif() -> bytes:
    """An AVIF file with Exif of overlapping tags."""
    return saved("AVIF", exif=b"Exif\0\0" + overlapping(20, 2_000_000))


BOMBS = {
    "jpeg": lambda: jpeg_with(overlapping()),
    "junk": lambda: after(b"\xff\xfe\0\2\0"),
    "restart": lambda: after(b"\xff\xd0"),
    "reserved": lambda: after(b"\xff\xf0"),
    "starts": lambda: after(b"\xff\xd8" * 2_000_000),
    "filling": lambda: after(b"\xff" * 8_000_000),
    "empty": lambda: after(b"\xff\xe1\0\0"),
    "words": lambda: after(b"\xff\xff\0junk"),
    "segments": lambda: after(b"\xff\xe5\0\2" * 2_000_000),
    "scans": scans,
    "tiff": tiff_with,
    "odd tiff": lambda: b"II\0*" + tiff_with()[4:],
    "png": lambda: with_chunk(saved("PNG"), b"eXIf", overlapping()),
    "webp": lambda: saved("WEBP", exif=overlapping()),
    "avif": split_avif,
    "no avif": lambda: b"\0\0\0\x20ftypavif" + b"II*\0" * 700_000,
    "gif": lambda: gif_with(12_000_000),
}


@pytest.mark.parametrize("make", BOMBS.values(), ids=BOMBS)
def test_metadata_costs_no_memory_and_no_time(make):
    data = make()
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        made = read(data)
        assert made.shape in ((32, 48, 3), (16, 32, 3))
    except ValueError:
        pass
    assert time.process_time() - began < 2
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10 < 200


def test_what_lies_between_and_behind_the_parts_of_a_jpeg_does_no_harm():
    plain, marked = saved("JPEG"), saved("JPEG", exif=exif(6))
    for junk in (b"\0", b"\xff", b"junk", b"\xff\xd0", b"\xff\xfe\0\2"):
        assert np.array_equal(read(marked[:20] + junk + marked[20:]), turned(plain, 6)), junk
    assert np.array_equal(read(marked + b"\xff\xda" * 1000), turned(plain, 6)), "a motion photo's film"
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    both = marked[:2] + b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp + marked[2:]
    assert np.array_equal(read(both), turned(plain, 6)), "Exif goes before XMP"
    profile = b"ICC_PROFILE\0\1\1" + bytes(128)
    data = bytearray(plain[:2] + b"\xff\xe2" + struct.pack(">H", len(profile) + 2) + profile + plain[2:])
    before = bytes(data)
    assert strip_segments(data) == 1 and data == before, "colour profiles stay"


def test_pictures_that_are_no_shape_for_networks_are_skipped():
    for size, phrase in (((16, 1601), "more than 100 times"), ((15, 99), "the least is 16 x 16")):
        with pytest.raises(ValueError, match=phrase):
            read_picture(io.BytesIO(encoded(Image.new("RGB", size))))
    assert read_picture(io.BytesIO(encoded(Image.new("RGB", (16, 1600))))).size == (16, 1600)


def encoded(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_a_disk_that_fails_is_a_skipped_file(tmp_path):
    (tmp_path / "bad.png").symlink_to("/proc/self/mem")
    with pytest.raises(ValueError, match="cannot be read"):
        read_picture(tmp_path / "bad.png")


def test_bombs_and_files_that_are_no_pictures_are_told_apart(tmp_path):
    for data, kind, phrase in (
        (b"", NoPictureError, "is empty"),
        (b"text", NoPictureError, "is not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n", NoPictureError, "is not a picture"),
        (saved("BMP")[:18] + struct.pack("<ii", 30_000, 30_000) + saved("BMP")[26:], TooLargeError, "is too large"),
    ):
        with pytest.raises(kind, match=phrase):
            read(data)


def test_formats_can_be_named():
    assert read_picture(io.BytesIO(saved("PPM"))).size == (48, 32)
    with pytest.raises(NoPictureError):
        read_picture(io.BytesIO(saved("PPM")), formats=["PNG", "JPEG"])


KINDS = {"PNG": {}, "JPEG": {"exif": exif(6)}, "WEBP": {}, "GIF": {}, "TIFF": {"compression": "tiff_lzw"}, "BMP": {},
         "AVIF": {}, "PPM": {}, "TGA": {}, "ICO": {}, "JPEG2000": {}, "PCX": {}, "SGI": {}, "DDS": {}, "SPIDER": {},
         "QOI": {}}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_skipped_whatever_their_decoder_raises(kind):
    """Bytes changed, cut and moved: each is a picture or a phrase."""
    try:
        picture = blocks().convert("L" if kind == "SPIDER" else "RGB")
        buffer = io.BytesIO()
        picture.save(buffer, kind, **KINDS[kind])
    except (KeyError, OSError):
        pytest.skip(f"this Pillow writes no {kind}")
    data, random = buffer.getvalue(), np.random.default_rng(0)
    outcomes = {True: 0, False: 0}
    for case in range(150):
        mutant = bytearray(data)
        for place in random.integers(0, min(len(mutant), 200 if case % 2 else len(mutant)), 1 + case % 7):
            mutant[place] = random.integers(256)
        mutant = mutant[: random.integers(len(mutant))] if case % 5 == 0 else mutant
        try:
            read_picture(io.BytesIO(bytes(mutant)))
            outcomes[True] += 1
        except ValueError as error:
            assert str(error)
            outcomes[False] += 1
    assert outcomes[False], "some of them are damaged"


def test_a_folder_s_pipes_and_dangling_links_are_skipped_files(tmp_path):
    good = write_picture(tmp_path / "in" / "good.png", 1)
    os.mkfifo(tmp_path / "in" / "pipe.png")
    os.mkfifo(tmp_path / "in" / "pipe.mp4")
    (tmp_path / "in" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "in" / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "in" / "loop.png").symlink_to("loop.png")
    (tmp_path / "in" / "line\nbreak\x1b[31m.png").write_bytes(b"no picture")
    found, skipped = check_pictures(find_files(tmp_path / "in"))
    assert found == [good]
    reasons = {file.name: reason for file, reason in skipped}
    assert reasons["pipe.png"] == reasons["zero.png"] == "is not a regular file"
    assert reasons["gone.png"] == "does not exist"
    save_model(tiny_model(), tmp_path / "model", step=0)
    done = run_ugatit("translate", tmp_path / "model", tmp_path / "in", "-o", tmp_path / "out")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["good.png"]
    assert "pipe.mp4 is not a regular file" in done.stderr and "\x1b[31m" not in done.stderr
    done = run_ugatit("translate", tmp_path / "model", tmp_path / "in" / "pipe.png", "-o", tmp_path / "out")
    assert done.returncode == 2 and "is not a regular file" in done.stderr


# Colours, and one reading for every door


def swapped_profile() -> bytes:
    """A profile in which red and green have changed places."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = data.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    return data.replace("sRGB".encode("utf-16-be"), "Odd ".encode("utf-16-be"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_colours_are_converted_by_the_picture_s_profile(kind):
    picture = Image.new("RGB", (32, 32), (200, 40, 90))
    options = {} if kind in ("PNG", "TIFF") else {"quality": 100}
    file = io.BytesIO()
    picture.save(file, kind, icc_profile=swapped_profile(), **options)
    assert np.abs(np.array(read_picture(io.BytesIO(file.getvalue())).getpixel((9, 9))) - (40, 200, 90)).max() <= 3
    assert np.abs(np.array(read_picture(io.BytesIO(file.getvalue()), channels=1).getpixel((9, 9))) - 139).max() <= 3
    for harmless in (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), b"broken" * 30):
        file = io.BytesIO()
        picture.save(file, kind, icc_profile=harmless, **options)
        assert np.abs(np.array(read_picture(io.BytesIO(file.getvalue())).getpixel((9, 9))) - (200, 40, 90)).max() <= 3


def test_a_picture_read_twice_is_read_once(tmp_path):
    """From a file by the program, or opened by its user: turned, converted and laid on white only once."""
    picture = Image.new("RGBA", (40, 20), (200, 40, 90, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 10, 20))
    block = Image.Exif()
    block[0x0112] = 6
    picture.save(tmp_path / "x.png", exif=block, icc_profile=swapped_profile())
    read = read_picture(tmp_path / "x.png")
    assert read.size == (20, 40) and read.getpixel((5, 3)) == (255, 255, 255) and not read.info
    again = plain(read, 3)
    assert np.array_equal(np.asarray(again), np.asarray(read))
    translator = Translator(tiny_model(light=True), "cpu")
    with Image.open(tmp_path / "x.png") as opened:
        assert torch.equal(translator.to_tensor(opened), translator.to_tensor(read))


def test_heic_is_read_or_told_how_to_be(tmp_path, monkeypatch):
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed: pip install 'ugatit[heic]'")
    heif.from_pillow(Image.new("RGB", (64, 48), (200, 40, 90))).save(tmp_path / "x.heic", quality=100)
    assert read_picture(tmp_path / "x.heic").size == (64, 48)
    monkeypatch.setattr("ugatit.data.reading.known_formats", lambda: ["PNG", "JPEG", "AVIF"])
    with pytest.raises(ValueError, match=r"HEIC picture: pip install 'ugatit\[heic\]'"):
        read_picture(tmp_path / "x.heic")


@pytest.mark.parametrize(("tag", "value"), [(50706, b"\1\4\0\0"), (330, 8)])
def test_a_camera_s_raw_file_is_not_its_preview(tag, value, tmp_path):
    """DNG tells its version, NEF and others where the larger pictures are; so does a pyramid, of smaller ones."""
    for reduced in (0, 1):
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[254], tags[tag] = reduced, value
        Image.new("RGB", (64, 48), "red").save(tmp_path / "x.tif", "TIFF", tiffinfo=tags)
        if not reduced:
            assert read_picture(tmp_path / "x.tif").size == (64, 48)
            continue
        for read in (read_picture, lambda file: read_pages(file, COLOUR)):
            with pytest.raises(NoPictureError, match="raw file, of which only a small preview can be read"):
                read(tmp_path / "x.tif")
    assert is_raw(memoryview(b"II*\0\x10\0\0\0CR\2\0" + bytes(99))), "Canon's"


def tiled(width: int, height: int, tile: int) -> bytes:
    """A TIFF file of one empty tile."""
    values = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 277: 1, 322: tile, 323: tile, 324: 8, 325: 0}
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(values)) + tags + bytes(4)


def chained(count: int) -> bytes:
    """A TIFF file of a picture and directories without anything."""
    buffer = io.BytesIO()
    Image.new("L", (64, 64)).save(buffer, "TIFF")
    data = bytearray(buffer.getvalue())
    (start,) = struct.unpack_from("<I", data, 4)
    (tags,) = struct.unpack_from("<H", data, start)
    end = len(data)
    struct.pack_into("<I", data, start + 2 + 12 * tags, end)
    return bytes(data) + b"".join(b"\0\0" + struct.pack("<I", end + 6 * (i + 1)) for i in range(count))


def scanned(scans: int) -> bytes:
    """The beginning of a JPEG file of 20,000 x 20,000 pixels."""
    size = b"\xff\xc2\0\x11\x08" + struct.pack(">HH", 20_000, 20_000) + b"\3" + bytes(9)
    return b"\xff\xd8" + size + b"\xff\xda\0\x0c\3\1\0\2\x11\3\x11\0\x3f\0\0" * scans


def parted(*parts: tuple[bytes, bytes]) -> bytes:
    """A PNG file with these parts before its pixels."""
    made = saved("PNG")
    return made[:33] + b"".join(map(chunk, *zip(*parts, strict=True))) + made[33:]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (lambda: tiled(16, 16, 2**14), "its tiles are far larger than it"),
        (lambda: chained(70_000), "it has more than 65536 pictures"),
        (lambda: scanned(13), "it has 13 scans or more, which take long"),
        (lambda: parted(*[(b"abCd", b"")] * 9000), "it has more parts than a picture needs"),
        (lambda: parted(*[(b"IDAT", b"")] * 9000), "it has more parts than a picture needs"),
        (lambda: parted(*[(b"IDAT", b"a")] * 9000), "it has more parts than a picture needs"),
        (lambda: parted(*[(b"iCCP", b"a\0\0" + zlib.compress(bytes(9)))] * 2), "more parts than a picture needs"),
    ],
)
def test_small_files_that_would_take_long_are_refused_at_once(data, reason):
    made, began = data(), time.process_time()
    with pytest.raises(ValueError, match=reason):
        read_picture(io.BytesIO(made))
    assert time.process_time() - began < 3


def test_pictures_that_are_smaller_than_a_tile_and_have_some_parts_are_read(tmp_path):
    tifffile.imwrite(tmp_path / "small.tif", np.full((20, 20), 9, np.uint8), tile=(512, 512), compression="zlib")
    assert read_picture(tmp_path / "small.tif", 1).getpixel((3, 3)) == 9
    read_picture(io.BytesIO(parted(*[(b"abCd", b"more")] * 100, (b"iCCP", b"a\0\0" + zlib.compress(bytes(9))))))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\xff\x0a" + bytes(60), "is a JPEG XL picture, which Pillow does not read: convert it"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(60), "is a JPEG XL picture"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1" + bytes(60), "is a camera's raw file"),
        (b"FUJIFILMCCD-RAW 0201" + bytes(60), "is a camera's raw file"),
        (b"IIRO\x08\0\0\0" + bytes(60), "is a camera's raw file"),
        (b"%PDF-1.7\n" + bytes(60), "is a PDF document"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "is an SVG drawing: draw it into a PNG first"),
        (b"neither of them" + bytes(60), "is not a picture that Pillow reads"),
    ],
)
def test_what_people_have_among_their_pictures_is_called_by_its_name(content, sentence, tmp_path):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        read_picture(tmp_path / "x")
