"""Reading a picture that may be anybody's, the one door for all of them: upright, in sRGB, on white, by one scale.

A file's metadata is as long and as odd as its writer likes, and Pillow unpacks all of it; so it is taken out before
Pillow sees it, and the orientation, the one thing in it that a picture needs, is read alone.
"""

import io
import math
import re
import struct
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageSequence, UnidentifiedImageError

from ugatit.data.arrays import (
    BITS,
    FROM_WHITE,
    PHOTOMETRIC,
    from_black,
    holds_less,
    is_array,
    read_array,
    read_deep_pages,
)
from ugatit.data.colours import profile_of, to_srgb
from ugatit.data.metadata import is_raw, orientation_of, without_metadata
from ugatit.data.samples import (
    BandsError,
    Sampled,
    ShapeError,
    TooLargeError,
    UnscaledError,
    Whole,
    as_tensor,
    check_padding,
    check_shape,
    check_total,
    extent,
    has_scale,
    is_deep,
    joint_extent,
    kind_of,
    scaled,
    tells_scale,
    to_image,
)
from ugatit.io.errors import on_one_line
from ugatit.io.files import digest, open_regular, printable
from ugatit.systems.base import Range, Samples

PAGED = {"GIF", "PNG", "TIFF", "WEBP", "AVIF", "HEIF"}  # Pillow's names of the formats that may hold several pictures
# What strangers may send. Pillow reads more, some of it with code that few have looked at.
UPLOADS = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
TILE_WIDTH, TILE_HEIGHT = 322, 323  # tags of TIFF
REFUSED = {"EPS"}  # is run by another program, Ghostscript

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


RAW = "is a camera's raw file, of which only a small preview can be read: convert it to JPEG, PNG or TIFF first"
JPEG_XL = "is a JPEG XL picture, which Pillow does not read: convert it to PNG or JPEG first"
# Where and how other files begin that people have among their pictures, and what is said of them.
UNREAD = [
    (0, b"\xff\x0a", JPEG_XL),
    (4, b"JXL ", JPEG_XL),
    (4, b"ftypcrx ", RAW),
    (0, b"FUJIFILMCCD-RAW", RAW),
    (0, b"IIRO", RAW),
    (0, b"IIRS", RAW),
    (0, b"IIU\0", RAW),
    (0, b"FOVb", RAW),
    (0, b"%PDF-", "is a PDF document: save its pages as PNG first"),
    (0, b"<svg", "is an SVG drawing: draw it into a PNG first"),
    (0, b"<?xml", "is an XML file, perhaps an SVG drawing: draw it into a PNG first"),
]


class NoPictureError(ValueError):
    """The file is none of the pictures that are read."""


def read_picture(
    source: str | Path | io.BytesIO,
    channels: int = 3,
    formats: Collection[str] | None = None,
    check: Callable[[int, int], None] | None = None,
    range: Range | None = None,
) -> Image.Image:
    """Decode a picture of any size and mode to 8-bit RGB (``channels=3``) or grey (``channels=1``).

    The orientation of its metadata is applied, colours are converted to sRGB by its profile, transparency is laid on
    white, samples of other depths are scaled to 8 bits (`scaled`); of an animation the first frame counts. Nothing but
    a regular file is opened.

    Args:
        source: a file, or its bytes.
        channels: of the result.
        formats: Pillow's names of the formats to read; all but those that other programs read, if not given.
        check: called with width and height before anything is decoded, to raise what it likes.
        range: the samples that become black and white; what their type holds, if not given.

    Raises:
        ValueError: it is not a picture, is damaged, too small or of other bands; the message is a phrase that says
            which.
        UnscaledError: its samples are floats or of 32 bits, and no range is given.
    """
    with opened_picture(source, channels, formats, check) as whole:
        return eight_bits(whole, Samples(channels, range))


def read_samples(
    source: str | Path | io.BytesIO,
    samples: Samples,
    formats: Collection[str] | None = None,
    check: Callable[[int, int], None] | None = None,
    least: int | None = None,
) -> Sampled:
    """Decode a picture with all that its samples hold, as networks take it; otherwise as `read_picture`.

    Args:
        source, samples, formats, check: as there.
        least: a JPEG file may be decoded to a half, a quarter or an eighth of its size, which is several times as fast,
            if its shorter side keeps so many pixels.
    """
    with opened_picture(source, samples.channels, formats, check, least=least) as whole:
        return sampled(whole, samples)


def sampled(whole: Whole, samples: Samples) -> Sampled:
    """A picture as networks take it; errors are those of `read_picture`."""
    kind = kind_of(whole.picture)
    if samples.range is None and samples.floats is not None and not tells_scale(whole.picture):
        samples = samples._replace(range=samples.floats)
    if kind == "uint8" and samples.channels in (1, 3):
        return Sampled(eight_bits(whole, samples), kind, whole.lost)
    return Sampled(as_tensor(whole, samples), kind, whole.lost)


def eight_bits(whole: Whole, samples: Samples) -> Image.Image:
    """A picture as people see it; errors are those of `read_picture`."""
    picture, turn, alpha, _ = whole
    if isinstance(picture, Image.Image):
        return plain(picture, samples.channels, turn, samples.range)
    return to_image(scaled(picture, samples.range), samples.channels, alpha, turn)


class Look(NamedTuple):
    """What is known of a picture that was looked at."""

    deep: bool  # whether its samples have more than 8 bits
    scaled: bool  # whether they tell what is black and what is white
    lost: bool  # whether the file has more bits than are read
    more: bool  # whether it has further pictures, which do not count
    low: float | None  # its lowest sample, and the highest; what is no number does not count
    high: float | None
    sha256: str  # of the file


def examine(source: Path, channels: int = 3) -> Look:
    """Decode a picture, to know that it can be and what its samples are like.

    Raises:
        ValueError: as `read_picture`, but not because of a missing range.
    """
    with opened_picture(source, channels) as whole:
        deep = is_deep(whole.picture)
        sampled(whole, Samples(channels, (0, 1) if deep else None))
        low, high = extent(whole.picture)
        more = channels in (1, 3) and count_pages(source) > 1  # else pages are the bands of one
        return Look(deep, tells_scale(whole.picture), whole.lost, more, low, high, digest(source))


def needs_range(source: str | Path) -> bool:
    """Whether the samples of a file do not tell what is black and what is white; not for what is no picture."""
    with suppress(ValueError), opened_picture(source, decode=False) as whole:
        return not tells_scale(whole.picture)
    return False


@contextmanager
def opened_picture(
    source: str | Path | io.BytesIO,
    channels: int = 3,
    formats: Collection[str] | None = None,
    check: Callable[[int, int], None] | None = None,
    decode: bool = True,
    least: int | None = None,
) -> Iterator[Whole]:
    """A picture with all that its file holds, as Pillow's if that is possible.

    Args:
        source, formats, check: as `read_picture` takes them; of what strangers send, nothing but Pillow reads any.
        channels: that are needed.
        decode: at once; Pillow decodes later what it only opened.
        least: as `read_samples` takes it.

    Raises:
        ValueError: as `read_picture`.
    """
    file = source if isinstance(source, io.BytesIO) else open_regular(source)
    arrays = formats is None
    with file if file is not source else nullcontext():
        with phrased():
            opened, turn = begun(file, formats)
        with opened or nullcontext():
            if opened is not None:
                if check is not None:
                    check(*opened.size)
                check_shape(*opened.size)
                if least is not None:
                    scale = max(1.0, min(opened.size) / least)
                    opened.draft(None, (int(opened.width / scale), int(opened.height / scale)))  # of JPEG alone
            with phrased():
                whole = None
                if arrays and (decode or opened is None):
                    file.seek(0)
                    whole = read_array(file, opened, channels)
                if whole is None:
                    assert opened is not None
                    whole = decoded(opened, channels) if decode else Whole(opened)
                elif opened is not None and not turn:
                    opened.load()  # PNG's Exif may come after its pixels
                turn = turn or (orientation_of(opened) if opened else 0)
            if isinstance(whole.picture, np.ndarray):
                check_shape(whole.picture.shape[1], whole.picture.shape[0])
            with phrased():
                yield whole._replace(turn=turn)


def begun(file: io.BytesIO | io.BufferedReader, formats: Collection[str] | None) -> tuple[Image.Image | None, int]:
    """A picture as Pillow opens it, not decoded yet, and its orientation, 0 if that is not told yet; no picture if
    it may be one of those that Pillow does not open. Errors are those of Pillow.

    Raises:
        NoPictureError: it is no picture, or of a format that is not read.
    """
    if not file.read(1):
        raise NoPictureError("is empty")
    bare, turn = without_metadata(file)
    allowed = [name for name in known_formats() if formats is None or name in formats]
    if "HEIF" not in allowed and is_heic(bare):
        way = ": pip install 'ugatit[heic]' to read it, or convert it to JPEG" if formats is None else ""
        raise NoPictureError(f"is a HEIC picture{way}")
    opened = by_pillow(bare, allowed, formats is None)
    if opened is not None:
        check_raw(opened, bare)
    return opened, turn


def decoded(opened: Image.Image, channels: int) -> Whole:
    """A picture as Pillow decodes it; 16 bits of TIFF that count from white, as radiographs do, count from black then,
    as Pillow has 8 bits do, and 12 bits are 16."""
    lost = holds_less(opened, channels)
    check_tiles(opened)
    opened.load()
    tags = opened.tag_v2 if opened.format == "TIFF" else {}  # type: ignore[attr-defined]
    bits, photometric = max(tags.get(BITS, (16,))), tags.get(PHOTOMETRIC)
    if has_scale(opened) and (bits < 16 or photometric == FROM_WHITE):
        return Whole(from_black(np.asarray(opened).astype(np.uint16)[:, :, None], bits, photometric), lost=lost)
    return Whole(opened, lost=lost)


def check_tiles(opened: Image.Image) -> None:
    """Raises ValueError if the tiles of a TIFF file, which are decoded as a whole, reach far beyond its pixels."""
    tags = opened.tag_v2 if opened.format == "TIFF" else {}  # type: ignore[attr-defined]
    width, height = tags.get(TILE_WIDTH), tags.get(TILE_HEIGHT)
    if isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0:
        check_padding(-(-opened.width // width) * width * -(-opened.height // height) * height, math.prod(opened.size))


def by_pillow(file: io.BytesIO | io.BufferedReader, formats: list[str], arrays: bool) -> Image.Image | None:
    """A picture as Pillow opens it; None if it does not, and the file may be one of ``arrays``."""
    head = file.read(16)
    file.seek(0)
    try:
        return Image.open(file, formats=formats)
    except UnidentifiedImageError:
        if arrays and is_array(head):
            return None
        if (known := next((words for place, start, words in UNREAD if head.startswith(start, place)), None)) and arrays:
            raise NoPictureError(known) from None
        raise


def check_raw(opened: Image.Image, file: io.BytesIO | io.BufferedReader) -> None:
    """Raises NoPictureError if a file that Pillow opened is a camera's raw one."""
    if opened.format == "TIFF" and isinstance(file, io.BytesIO) and is_raw(file.getbuffer()):
        raise NoPictureError(RAW)


class Pages(NamedTuple):
    """The pictures of one file: an animation's frames, or a stack's pages."""

    pictures: list[Sampled]
    milliseconds: list[float]  # how long each is shown; empty for stacks
    loop: int | None  # how often an animation is repeated, 0 for ever; None if the file does not tell
    aside: bool  # whether the first is no part of the animation, but for what shows none


def paged(file: io.BytesIO | io.BufferedReader) -> tuple[Image.Image, int]:
    """A file that may hold several pictures, opened, and how its first is turned; errors are those of Pillow."""
    bare, turn = without_metadata(file)
    opened = Image.open(bare, formats=sorted(PAGED & set(known_formats())))
    check_raw(opened, bare)
    return opened, turn or orientation_of(opened)


def count_pages(source: Path) -> int:
    """How many pictures a file has; 1 for what is none, and 2 for what ends before they can be counted, of which
    `read_pages` tells what is wrong."""
    with suppress(ValueError), open_regular(source) as file:
        if file.read(3) == b"\xff\xd8\xff":  # JPEG; most files are
            return 1
        with phrased():
            opened, _ = paged(file)
        try:
            with opened, phrased():
                return getattr(opened, "n_frames", 1)
        except ValueError:
            return 2
    return 1


def has_pages(file: io.BytesIO) -> bool:
    """Whether a file that was sent has more than its first picture; not for what cannot be read."""
    with suppress(ValueError), phrased(), paged(file)[0] as opened:
        return bool(getattr(opened, "is_animated", False))
    return False


def read_pages(source: Path, samples: Samples) -> Pages:
    """All pictures of a file, each as `read_samples` reads one.

    Raises:
        ValueError: it is not such a file, is damaged or too small; the message is a phrase that says which.
        UnscaledError: as `read_picture`.
    """
    pictures, times = [], []
    with opened_pages(source, samples.channels) as (opened, pages):
        for page in pages:
            pictures.append(sampled(page, samples))
            times.append(float(opened.info.get("duration", 0)))
        stack, aside = opened.format == "TIFF", bool(opened.info.get("default_image"))
        return Pages(pictures, [] if stack else times, opened.info.get("loop"), aside)


@contextmanager
def opened_pages(source: Path, channels: int) -> Iterator[tuple[Image.Image, Iterator[Whole]]]:
    """A file as Pillow opened it, and its pictures one after the other; errors are those of `read_pages`."""
    with open_regular(source) as file, phrased():
        opened, turn = paged(file)
        with opened:
            check_total(opened.width * opened.height * getattr(opened, "n_frames", 1))
            deep = read_deep_pages(file, opened, channels)
            yield opened, iter(deep) if deep else pages_of(opened, turn, channels)


def pages_of(opened: Image.Image, turn: int, channels: int) -> Iterator[Whole]:
    """The pictures of a file that Pillow opened, one after the other."""
    pixels = 0
    for page in ImageSequence.Iterator(opened):
        check_shape(*page.size)
        pixels += page.width * page.height
        check_total(pixels)
        yield decoded(page, channels)._replace(turn=turn)
        if page.format == "TIFF":
            turn = 0  # Pillow turns further ones itself


def extent_of_pages(source: Path, channels: int) -> tuple[float, float]:
    """The lowest and the highest sample of all pictures of a file; errors are those of `read_pages`."""
    with opened_pages(source, channels) as (_, pages):
        found = joint_extent(extent(page.picture) for page in pages)
    if found is None:
        raise ValueError("has no samples that are numbers")
    return found


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
    made = to_srgb(to_eight_bit(picture, range), profile_of(picture.info))
    made = made.convert("RGB" if channels == 3 else "L")
    made = made.transpose(TURNS[turn]) if turn in TURNS else made.copy()
    made.info = {}
    return made


@contextmanager
def phrased() -> Iterator[None]:
    """Whatever is raised in this block as a ValueError with a phrase: a damaged file makes decoders raise anything."""
    try:
        yield
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error))
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        count = f"{int(pixels[0]) // 10**6} million pixels" if pixels else "too many pixels"
        raise TooLargeError(f"is too large ({count}, and at most {most} million are read)") from None
    except UnidentifiedImageError:
        raise NoPictureError("is not a picture that Pillow reads") from None
    except (NoPictureError, TooLargeError, ShapeError, BandsError, UnscaledError):
        raise
    except MemoryError:
        raise TooLargeError("needs more memory than there is") from None
    except (TypeError, AttributeError, LookupError, OverflowError, struct.error):  # whose words help nobody
        raise ValueError("is damaged") from None
    except Exception as error:
        raise ValueError(f"cannot be read ({printable(on_one_line(error))})") from None


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
    """Any mode to L, RGB or another 8-bit mode that converts to them; transparency is laid on white, other samples are
    `scaled`.

    Raises:
        UnscaledError: samples are floats or of 32 bits, and no range is given.
    """
    if picture.has_transparency_data and not is_deep(picture):
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    if range is None and not is_deep(picture):
        return picture
    values = (scaled(picture, range) * 255).round().astype(np.uint8)
    return Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values)
