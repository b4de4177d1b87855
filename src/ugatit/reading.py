"""Reading a picture that may be anybody's: what Pillow makes of it, without the parts of a file that are no picture.

A file's metadata is as long and as odd as its writer likes, and Pillow unpacks all of it; so it is taken out before
Pillow sees it, and the orientation, the one thing in it that a picture needs, is read alone.
"""

import io
import re
import struct
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ugatit.files import open_regular

SMALLEST = 16  # pixels on a side; smaller pictures are skipped
# What strangers may send. Pillow reads more, some of it with code that few have looked at.
UPLOADS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
REFUSED = {"EPS"}  # is run by another program, Ghostscript
SCANS = 256  # of a JPEG file; each goes over the whole picture, and progressive files have about 10
METADATA = 2**16  # bytes of Exif or XMP that are looked at

ORIENTATION = 0x0112
# The tags of TIFF that say where the pixels lie and what they mean; all others are passed over.
PIXEL_TAGS = {
    254, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 321, 322, 323, 324, 325, 332, 338,
    339, 347, 512, 513, 514, 530, 531, 532, 34675,
}  # fmt: skip
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class NoPictureError(ValueError):
    """The file is none of the pictures that are read."""


class TooLargeError(ValueError):
    """The picture has so many pixels that it can only be meant to do harm."""


def read_picture(
    source: str | Path | io.BytesIO,
    channels: int = 3,
    formats: Collection[str] | None = None,
    check: Callable[[int, int], None] | None = None,
) -> Image.Image:
    """Decode a picture of any size and mode to 8-bit RGB (``channels=3``) or grey (``channels=1``).

    The orientation of its metadata is applied, transparency is laid on white, 16-bit and float samples are scaled to 8
    bits; of an animation the first frame counts. Nothing but a regular file is opened.

    Args:
        source: a file, or its bytes.
        channels: of the result.
        formats: Pillow's names of the formats to read; all but those that other programs read, if not given.
        check: called with width and height before anything is decoded, to raise what it likes.

    Raises:
        ValueError: it is not a picture, is damaged, or is too small; the message is a phrase that says which.
    """
    file = source if isinstance(source, io.BytesIO) else open_regular(source)
    with file if file is not source else nullcontext():
        if not file.read(1):
            raise NoPictureError("is empty")
        with phrased():
            bare, turn = without_metadata(file)
            opened = Image.open(bare, formats=[name for name in known_formats() if formats is None or name in formats])
        if check is not None:
            check(*opened.size)
        with phrased(), opened:
            opened.load()
            turn = turn or orientation_of(opened)
            picture = to_eight_bit(opened).convert("RGB" if channels == 3 else "L")
    if min(picture.size) < SMALLEST:
        raise ValueError(f"is {picture.width} x {picture.height} pixels, the least is {SMALLEST} x {SMALLEST}")
    return picture.transpose(TURNS[turn]) if turn in TURNS else picture


@contextmanager
def phrased() -> Iterator[None]:
    """Whatever is raised in this block as a ValueError with a phrase: a damaged file makes decoders raise anything."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"is too large ({error})") from None
    except UnidentifiedImageError:
        raise NoPictureError("is not a picture that Pillow reads") from None
    except Exception as error:
        raise ValueError(f"cannot be read ({error or type(error).__name__})") from None


def known_formats() -> list[str]:
    """Pillow's names of the formats that it reads itself."""
    Image.init()
    return sorted(Image.OPEN.keys() - REFUSED)


def to_eight_bit(picture: Image.Image) -> Image.Image:
    """Any mode to L, RGB or another 8-bit mode that converts to them; transparency is laid on white."""
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture, np.uint16) / 257).round().astype(np.uint8))
    if picture.mode in ("I", "F"):
        values = np.asarray(picture, np.float64)
        top = next((t for t in (1, 255, 65535) if values.max() <= t), values.max())
        top = 255 if picture.mode == "I" and top == 1 else top
        return Image.fromarray((values.clip(0) * (255 / top)).round().astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture


# Metadata. Orientations are EXIF's: 1 is upright, 2 to 8 are the keys of `TURNS`, and 0 stands for "not told".


def without_metadata(file: io.BytesIO | io.BufferedReader) -> tuple[io.BytesIO | io.BufferedReader, int]:
    """The file without the metadata that Pillow would unpack while it opens it, and the orientation found in there.

    Raises:
        ValueError: the file is built to take long.
    """
    file.seek(0)
    head = file.read(12)
    file.seek(0)
    if head[:3] == b"\xff\xd8\xff":
        return bare_jpeg(file.read())
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        data = bytearray(file.read())
        turn = strip_tags(data)
        return io.BytesIO(data), turn or 1
    if head[4:8] == b"ftyp":  # AVIF, whose reader unpacks its Exif
        data = bytearray(file.read())
        for match in re.finditer(rb"II\*\0|MM\0\*", data):
            check_tags(memoryview(data)[match.start() :])
        return io.BytesIO(data), 0
    return file, 0


def bare_jpeg(data: bytes) -> tuple[io.BytesIO, int]:
    """A JPEG file without Exif, XMP and further pictures, and its orientation."""
    if data.count(b"\xff\xda") > SCANS:
        raise ValueError(f"it has more than {SCANS} scans")
    bare, turn, place = bytearray(data), 0, 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        if data[place + 1] == 0xFF:  # filling
            place += 1
            continue
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        body = data[place + 4 : place + 2 + length]
        if data[place + 1] in (0xE1, 0xE2) and not body.startswith(b"ICC_PROFILE"):
            if data[place + 1] == 0xE1:
                turn = turn or (orientation(body[6:]) if body.startswith(b"Exif\0\0") else xmp_orientation(body))
            bare[place + 4 : place + 2 + length] = bytes(len(body))
        place += 2 + length
    return io.BytesIO(bare), turn or 1


def orientation_of(opened: Image.Image) -> int:
    """The orientation that the metadata of a picture tells, not decoded yet or decoded."""
    exif = opened.info.get("exif")
    if isinstance(exif, bytes) and (found := orientation(exif[:METADATA].removeprefix(b"Exif\0\0"))):
        return found
    profile = opened.info.get("Raw profile type exif")  # ImageMagick's way in PNG
    if isinstance(profile, str):
        digits = "".join(profile[:METADATA].split("\n")[3:])
        with_header = bytes.fromhex(digits[: len(digits) // 2 * 2])
        if found := orientation(with_header.removeprefix(b"Exif\0\0")):
            return found
    xmp = opened.info.get("xmp") or opened.info.get("XML:com.adobe.xmp") or b""
    return xmp_orientation(xmp.encode() if isinstance(xmp, str) else xmp)


def xmp_orientation(xmp: bytes) -> int:
    """The orientation in an XMP packet."""
    found = re.search(rb'tiff:Orientation(?:="|>)([1-8])', xmp[:METADATA])
    return int(found[1]) if found else 0


def orientation(exif: bytes) -> int:
    """The orientation in an Exif block, which begins like a TIFF file."""
    try:
        return next((value for _, tag, _, _, value in entries(memoryview(exif)) if tag == ORIENTATION), 0)
    except (struct.error, IndexError):
        return 0


def strip_tags(data: bytearray) -> int:
    """Make the tags of a TIFF file that say nothing of its pixels unreadable, in place; the orientation among them.

    Raises:
        ValueError: the tags that are left are longer than the file: they lie over each other.
    """
    turn, left = 0, 0
    for place, tag, _, size, value in entries(memoryview(data)):
        if tag == ORIENTATION:
            turn = value
        if tag in PIXEL_TAGS:
            left += size
        else:
            data[place + 2 : place + 4] = bytes(2)  # a type that does not exist
    if left > len(data):
        raise ValueError("its tags are longer than the file")
    return turn


def check_tags(data: memoryview) -> None:
    """Raises ValueError if the tags of an Exif block are longer than any honest ones, lying over each other."""
    try:
        if sum(size for _, _, _, size, _ in entries(data)) > max(METADATA, len(data)):
            raise ValueError("its tags are longer than the file")
    except (struct.error, IndexError):
        return


WHOLE = {1: "B", 3: "H", 4: "I"}  # TIFF's types of whole numbers
SIZES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)  # bytes of a value, by TIFF's number of its type


def entries(data: memoryview) -> Iterator[tuple[int, int, int, int, int]]:
    """The first directory of a TIFF file: place, tag, type, bytes of the value, and the value if it is an orientation.

    Raises:
        struct.error: the file is too short.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
    step, head = (20, 8) if big else (12, 2)
    for place in range(start + head, min(start + head + count * step, len(data) - step + 1), step):
        tag, kind, number = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, place)
        value = 0
        if tag == ORIENTATION and kind in WHOLE:
            (value,) = struct.unpack_from(order + WHOLE[kind], data, place + (12 if big else 8))
            value = value if 1 <= value <= 8 else 0
        yield place, tag, kind, (SIZES[kind] if kind < len(SIZES) else 0) * number, value
