"""Reading a picture that may be anybody's: what Pillow makes of it, without the parts of a file that are no picture.

A file's metadata is as long and as odd as its writer likes, and Pillow unpacks all of it; so it is taken out before
Pillow sees it, and the orientation, the one thing in it that a picture needs, is read alone.
"""

import io
import re
import struct
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageSequence, UnidentifiedImageError
from PIL.TiffImagePlugin import PREFIXES

from ugatit.io.files import open_regular
from ugatit.systems.base import Range

PAGED = ("GIF", "PNG", "TIFF", "WEBP")  # Pillow's names of the formats that may hold several pictures
SMALLEST = 16  # pixels on a side; smaller pictures are skipped
LENGTH = 100  # times as long as wide, at most
LONGEST = 2**30  # bytes of a file that has to be read as a whole
# What strangers may send. Pillow reads more, some of it with code that few have looked at.
UPLOADS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
REFUSED = {"EPS"}  # is run by another program, Ghostscript
SCANS = 256  # of a JPEG file; each goes over the whole picture, and progressive files have about 10
SEGMENTS = 2**13  # of a JPEG file; a profile in colour has a few hundred
METADATA = 2**16  # bytes of Exif or XMP that are looked at
PROFILE = 2**22  # bytes of a colour profile; a printer's has one or two millions
UNSCALED = "has float or 32-bit samples, which do not tell what is black and what is white"
SRGB = ImageCms.createProfile("sRGB")

MARKER = re.compile(rb"\xff+[^\x00\xff]")
IN_SCAN = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")  # restarts belong to the scan
SOS, EOI, APP1, APP2 = 0xDA, 0xD9, 0xE1, 0xE2
EXIF_ITEM = re.compile(rb"infe[\x02\x03].{3}(?:..|.{4})..Exif", re.DOTALL)  # of AVIF's list of its parts
ALONE = {0x01, 0xC8, *range(0xD0, 0xDA), *range(0xF0, 0xFE)}  # markers without a length, for Pillow
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


class UnscaledError(ValueError):
    """The picture's samples have no scale of their own, so a range has to be given."""


class TooLargeError(ValueError):
    """The picture has so many pixels that it can only be meant to do harm."""


def read_picture(
    source: str | Path | io.BytesIO,
    channels: int = 3,
    formats: Collection[str] | None = None,
    check: Callable[[int, int], None] | None = None,
    range: Range | None = None,
) -> Image.Image:
    """Decode a picture of any size and mode to 8-bit RGB (``channels=3``) or grey (``channels=1``).

    The orientation of its metadata is applied, colours are converted to sRGB by its profile, transparency is laid on
    white, samples of other depths are scaled to 8 bits (`to_eight_bit`); of an animation the first frame counts.
    Nothing but a regular file is opened.

    Args:
        source: a file, or its bytes.
        channels: of the result.
        formats: Pillow's names of the formats to read; all but those that other programs read, if not given.
        check: called with width and height before anything is decoded, to raise what it likes.
        range: the samples that become black and white; what their type holds, if not given.

    Raises:
        ValueError: it is not a picture, is damaged, or is too small; the message is a phrase that says which.
        UnscaledError: its samples are floats or of 32 bits, and no range is given.
    """
    with opened_picture(source, formats, check) as (opened, turn):
        return plain(opened, channels, turn, range)


def examine(source: str | Path) -> bool:
    """Decode a picture, and say whether its samples have more than 8 bits.

    Raises:
        ValueError: as `read_picture`, but not because of a missing range.
    """
    with opened_picture(source) as (opened, turn):
        deep = is_deep(opened)
        plain(opened, 3, turn, (0, 1) if deep else None)
        return deep


def extent(source: str | Path, every: bool = False) -> Range | None:
    """The lowest and the highest sample of a picture that has more than 8 bits; what is no number does not count.

    Args:
        source: a file.
        every: of pictures of 8 bits as well.

    Returns:
        None for a picture that does not count, or has no numbers.

    Raises:
        ValueError: as `read_picture`.
    """
    with opened_picture(source, decode=False) as (opened, _):
        if not (every or is_deep(opened)):
            return None
        opened.load()
        values = samples_of(opened)
        values = values[np.isfinite(values)]
        return (float(values.min()), float(values.max())) if values.size else None


def needs_range(source: str | Path) -> bool:
    """Whether the samples of a file do not tell what is black and what is white; not for what is no picture."""
    with suppress(ValueError), opened_picture(source, decode=False) as (opened, _):
        return is_deep(opened) and not has_scale(opened)
    return False


@contextmanager
def opened_picture(
    source: str | Path | io.BytesIO,
    formats: Collection[str] | None = None,
    check: Callable[[int, int], None] | None = None,
    decode: bool = True,
) -> Iterator[tuple[Image.Image, int]]:
    """A picture as Pillow opens it, and its orientation; the other arguments and errors are those of `read_picture`."""
    file = source if isinstance(source, io.BytesIO) else open_regular(source)
    with file if file is not source else nullcontext():
        with phrased():
            empty = not file.read(1)
        if empty:
            raise NoPictureError("is empty")
        with phrased():
            bare, turn = without_metadata(file)
            allowed = [name for name in known_formats() if formats is None or name in formats]
            if "HEIF" not in allowed and is_heic(bare):
                raise NoPictureError("is a HEIC picture: pip install 'ugatit[heic]' to read it, or convert it to JPEG")
            opened = Image.open(bare, formats=allowed)
        if check is not None:
            check(*opened.size)
        check_shape(*opened.size)
        with phrased(), opened:
            if decode:
                opened.load()
            yield opened, turn


class Pages(NamedTuple):
    """The pictures of one file: an animation's frames, or a stack's pages."""

    pictures: list[Image.Image]
    milliseconds: list[float]  # how long each is shown; empty for stacks
    loop: int  # how often an animation is repeated, 0 for ever; 1 for stacks


def count_pages(source: Path) -> int:
    """How many pictures a file has; 1 for what cannot be read."""
    try:
        with open_regular(source) as file, phrased():
            bare, _ = without_metadata(file)
            return getattr(Image.open(bare, formats=list(PAGED)), "n_frames", 1)
    except ValueError:
        return 1


def read_pages(source: Path, channels: int = 3, range: Range | None = None) -> Pages:
    """All pictures of a file, each as `read_picture` reads one.

    Raises:
        ValueError: it is not such a file, is damaged or too small; the message is a phrase that says which.
        UnscaledError: as `read_picture`.
    """
    pictures, times = [], []
    with open_regular(source) as file, phrased():
        bare, turn = without_metadata(file)
        with Image.open(bare, formats=list(PAGED)) as opened:
            check_shape(*opened.size)
            for page in ImageSequence.Iterator(opened):
                pictures.append(plain(page, channels, turn, range))
                times.append(float(opened.info.get("duration", 0)))
            stack = opened.format == "TIFF"
            return Pages(pictures, [] if stack else times, 1 if stack else int(opened.info.get("loop", 1)))


def plain(picture: Image.Image, channels: int, turn: int = 0, range: Range | None = None) -> Image.Image:
    """A decoded picture of any mode as what the networks and people see: 8 bits, sRGB or grey, upright, and without
    anything beside its pixels, so that doing it again changes nothing.

    Args:
        picture: as Pillow opened it, or made otherwise.
        channels: 1 or 3, of the result.
        turn: its orientation, if that is known; else what its metadata tells.
        range: the samples that become black and white; what their type holds, if not given.

    Raises:
        UnscaledError: its samples are floats or of 32 bits, and no range is given.
    """
    turn = turn or orientation_of(picture)
    made = to_srgb(to_eight_bit(picture, range), picture.info.get("icc_profile"))
    made = made.convert("RGB" if channels == 3 else "L")
    made = made.transpose(TURNS[turn]) if turn in TURNS else made.copy()
    made.info = {}
    return made


def to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """An 8-bit picture in the colours of sRGB, which all that shows pictures takes for granted; as it is if it has no
    colour profile, or one that is broken or not of its kind."""
    if not profile or len(profile) > PROFILE:
        return picture
    if picture.mode not in ("RGB", "L", "CMYK"):
        picture = picture.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if ImageCms.getProfileDescription(source).startswith("sRGB"):
            return picture
        made = ImageCms.profileToProfile(picture, source, SRGB, ImageCms.Intent.RELATIVE_COLORIMETRIC, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return picture
    return made or picture


def check_shape(width: int, height: int) -> None:
    """Raises ValueError if a picture is too small, or too long: it would be huge at any size that networks take."""
    if min(width, height) < SMALLEST:
        raise ValueError(f"is {width} x {height} pixels, the least is {SMALLEST} x {SMALLEST}")
    if max(width, height) > LENGTH * min(width, height):
        raise ValueError(f"is {width} x {height} pixels, more than {LENGTH} times as long as wide")


@contextmanager
def phrased() -> Iterator[None]:
    """Whatever is raised in this block as a ValueError with a phrase: a damaged file makes decoders raise anything."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"is too large ({error})") from None
    except UnidentifiedImageError:
        raise NoPictureError("is not a picture that Pillow reads") from None
    except (NoPictureError, UnscaledError):
        raise
    except Exception as error:
        raise ValueError(f"cannot be read ({error or type(error).__name__})") from None


def is_heic(file: io.BytesIO | io.BufferedReader) -> bool:
    """Whether a file is of the kind that iPhones take pictures in."""
    head = file.read(64)  # its kind, and those that it is compatible with
    file.seek(0)
    return head[4:8] == b"ftyp" and b"hei" in head[8 : head[3]] and b"avif" not in head


@cache
def register_heif() -> None:
    """Let Pillow read HEIF if pillow-heif is installed, which is looked for once and not for each picture."""
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


def known_formats() -> list[str]:
    """Pillow's names of the formats that it reads itself, and HEIF if pillow-heif is installed."""
    Image.init()
    register_heif()
    return sorted(Image.OPEN.keys() - REFUSED)


def to_eight_bit(picture: Image.Image, range: Range | None = None) -> Image.Image:
    """Any mode to L, RGB or another 8-bit mode that converts to them; transparency is laid on white.

    Samples are never scaled by what this picture holds: 0 to 65535 become black to white of 16 bits, the given range of
    every depth, and what is no number becomes black.

    Raises:
        UnscaledError: samples are floats or of 32 bits, and no range is given.
    """
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    if range is None and not is_deep(picture):
        return picture
    low, high = range or full_range(picture)
    values = (samples_of(picture) - low) * (255 / (high - low))
    return Image.fromarray(np.nan_to_num(values, nan=0, posinf=255, neginf=0).clip(0, 255).round().astype(np.uint8))


def is_deep(picture: Image.Image) -> bool:
    """Whether samples have more than 8 bits."""
    return picture.mode in ("I", "F") or picture.mode.startswith("I;16")


def samples_of(picture: Image.Image) -> np.ndarray:
    """The samples of a picture as floats, H x W in grey or H x W x 3 in colour."""
    return np.asarray(picture if is_deep(picture) or picture.mode == "L" else picture.convert("RGB"), np.float64)


def has_scale(picture: Image.Image) -> bool:
    """Whether a picture of more than 8 bits has 16; Pillow has 32 bits for the 16 of some formats."""
    return picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("PNG", "PPM"))


def full_range(picture: Image.Image) -> Range:
    """The samples that are black and white in pictures of this type.

    Raises:
        UnscaledError: it says nothing of that.
    """
    if has_scale(picture):
        return 0, 65535
    raise UnscaledError(UNSCALED)


# Metadata. Orientations are EXIF's: 1 is upright, 2 to 8 are the keys of `TURNS`, and 0 stands for "not told".


def without_metadata(file: io.BytesIO | io.BufferedReader) -> tuple[io.BytesIO | io.BufferedReader, int]:
    """The file without the metadata that Pillow would unpack while it opens it, and the orientation found in there.

    Raises:
        ValueError: the file is built to take long.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(12)
    file.seek(0)
    strip = stripper(head)
    if strip is None:
        return file, 0
    if size > LONGEST:
        raise ValueError(f"it is longer than {LONGEST >> 20} MiB")
    data = bytearray(file.read())
    turn = strip(data)
    return io.BytesIO(data), turn


def stripper(head: bytes) -> Callable[[bytearray], int] | None:
    """What takes metadata out of a file that begins like that, in place, and returns its orientation."""
    if head.startswith(b"\xff\xd8\xff"):
        return strip_segments
    if head.startswith(tuple(PREFIXES)):
        return strip_tags
    if head.startswith(b"GIF8"):
        return check_extensions
    return hide_exif if head[4:8] == b"ftyp" else None


def strip_segments(data: bytearray) -> int:
    """Blank Exif, XMP and the list of further pictures in a JPEG file, in place; its orientation.

    Goes from marker to marker as Pillow does, over what is none.

    Raises:
        ValueError: the file has too many scans or segments, or too much between them.
    """
    exif = xmp = scans = junk = 0
    place = 2
    for number in count():
        found = (IN_SCAN if scans else MARKER).search(data, place)
        if found is None or (scans and data[found.end() - 1] == EOI):
            break
        if number == SEGMENTS:
            raise ValueError(f"it has more than {SEGMENTS} segments")
        junk += 0 if scans else found.end() - place - 2
        if junk > METADATA:
            raise ValueError("there is too much between its segments")
        place, kind = found.end(), data[found.end() - 1]
        if kind in ALONE:
            continue
        end = place + max(2, int.from_bytes(data[place : place + 2], "big"))
        if kind == SOS:
            scans += 1
            if scans > SCANS:
                raise ValueError(f"it has more than {SCANS} scans")
        elif kind in (APP1, APP2) and not data.startswith(b"ICC_PROFILE", place + 2):
            body = bytes(data[place + 2 : end])
            if kind == APP1:
                exif = exif or (orientation(body[6:]) if body.startswith(b"Exif\0\0") else 0)
                xmp = xmp or xmp_orientation(body)
            data[place + 2 : end] = bytes(len(body))
        place = end
    return exif or xmp or 1


def orientation_of(opened: Image.Image) -> int:
    """The orientation that the metadata of a picture tells, not decoded yet or decoded."""
    exif = opened.info.get("exif")
    if isinstance(exif, bytes) and (found := orientation(exif[:METADATA].removeprefix(b"Exif\0\0"))):
        return found
    profile = opened.info.get("Raw profile type exif")  # ImageMagick's way in PNG
    if isinstance(profile, str):
        digits = re.match(r"([0-9a-f]{2})*", "".join(profile[:METADATA].split("\n")[3:]))
        if digits and (found := orientation(bytes.fromhex(digits[0]).removeprefix(b"Exif\0\0"))):
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
        return next((value for _, tag, _, value in entries(memoryview(exif)) if tag == ORIENTATION), 0)
    except (struct.error, OverflowError, ValueError):
        return 0


def strip_tags(data: bytearray) -> int:
    """Make the tags of a TIFF file that say nothing of its pixels unreadable, in place; the orientation among them.

    Raises:
        ValueError: the tags that are left are longer than the file: they lie over each other.
    """
    turn = left = 0
    for place, tag, size, value in entries(memoryview(data)):
        if tag == ORIENTATION:
            turn = value
        if tag in PIXEL_TAGS:
            left += size
        else:
            data[place + 2 : place + 4] = bytes(2)  # a type that does not exist
    if left > len(data):
        raise ValueError("its tags are longer than the file")
    return turn or 1


def hide_exif(data: bytearray) -> int:
    """Rename the Exif of an AVIF file, in place; how such pictures are turned stands in properties of their own."""
    for match in EXIF_ITEM.finditer(data):
        data[match.end() - 4 : match.end()] = b"free"
    return 0


def check_extensions(data: bytearray) -> int:
    """Raises ValueError if the comments before a GIF file's first picture are so many that joining them takes long."""
    place = 13 + (3 * 2 ** ((data[10] & 7) + 1) if len(data) > 10 and data[10] & 0x80 else 0)
    parts = 0
    while data[place : place + 1] == b"!":
        place += 2
        while place < len(data) and data[place]:
            place, parts = place + 1 + data[place], parts + 1
            if parts > SEGMENTS:
                raise ValueError("its comments are too long")
        place += 1
    return 1


WHOLE = {1: "B", 3: "H", 4: "I"}  # TIFF's types of whole numbers
SIZES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)  # bytes of a value, by TIFF's number of its type


def entries(data: memoryview) -> Iterator[tuple[int, int, int, int]]:
    """The first directory of a TIFF file: place, tag, bytes of the value, and the value if it is an orientation.

    Raises:
        struct.error, OverflowError: the file is too short.
        ValueError: it has more tags than any honest one.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    (start,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (tags,) = struct.unpack_from(order + ("Q" if big else "H"), data, start)
    if tags >= 2**16:
        raise ValueError("it has too many tags")
    step, head, inside = (20, 8, 12) if big else (12, 2, 8)
    for place in range(start + head, min(start + head + tags * step, len(data) - step + 1), step):
        tag, kind, number = struct.unpack_from(order + ("HHQ" if big else "HHI"), data, place)
        value = 0
        if tag == ORIENTATION and kind in WHOLE:
            (value,) = struct.unpack_from(order + WHOLE[kind], data, place + inside)
        yield place, tag, (SIZES[kind] if kind < len(SIZES) else 0) * number, value if 1 <= value <= 8 else 0
