"""Pictures that Pillow does not hold whole, as arrays: TIFF and PNG of 16 bits in colour, TIFF of many bands or of
floats in colour, and NumPy's files."""

import io
import logging
import math
import re
from importlib.util import find_spec
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import PREFIXES

from ugatit.data.colours import in_srgb, profile_of
from ugatit.data.samples import BandsError, Whole, check_padding, check_shape, check_total, has_scale
from ugatit.io.errors import UserError, package

if TYPE_CHECKING:
    import tifffile

NPY, PNG = b"\x93NUMPY", b"\x89PNG"
MOST_BANDS = 8
BITS, PHOTOMETRIC, ORIENTATION, BANDS = 258, 262, 274, 277  # tags of TIFF
PREMULTIPLIED, TRANSPARENT = 1, (1, 2)  # of TIFF's extra samples
FROM_WHITE = 0  # how TIFF's samples are meant
NOT_RGB = {6: "YCbCr", 8: "CIELab", 9: "ICCLab", 10: "ITULab"}
# How TIFF's samples may be packed: not at all, LZW, Deflate, PackBits, Zstandard, LZMA. What others unpack to is known
# only when it is in memory.
PACKED = (1, 5, 8, 32946, 32773, 50000, 34925)
PIXELS = re.compile(rb"pixi\0{4}[\1-\4]([\1-\x10]{1,4})")  # of AVIF and HEIC: how many bits each channel has
MISSING = "has bands or depths for which more packages are needed: pip install 'ugatit[scientific]'"
logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong with a file is raised too


def is_array(head: bytes) -> bool:
    """Whether a file that begins like that may be one that Pillow does not open at all."""
    return head.startswith((NPY, *PREFIXES))


def read_array(file: io.BytesIO | io.BufferedReader, opened: Image.Image | None, channels: int) -> Whole | None:
    """The picture of a file that Pillow would not hold whole, without its orientation.

    Args:
        file: at its beginning.
        opened: it as Pillow opens it; None if Pillow does not.
        channels: that are needed.

    Returns:
        None for what Pillow holds whole or at 8 bits, where the packages for more are not installed.

    Raises:
        ValueError: it is damaged or no picture; the message is a phrase that says so.
    """
    head = file.read(8)
    file.seek(0)
    if head.startswith(NPY):
        return Whole(as_bands(read_npy(file)))
    kind = "PNG" if head.startswith(PNG) else "TIFF" if head.startswith(tuple(PREFIXES)) else None
    if kind is None or (opened and (opened.mode == "CMYK" or not holds_less(opened, channels))):
        return None
    try:
        whole = read_png(file) if kind == "PNG" else read_tiff(file, channels)
    except UserError:
        if opened is None:
            raise BandsError(f"is damaged, or {MISSING}") from None
        if channels not in (1, 3):
            raise BandsError(MISSING) from None
        return None
    return whole._replace(picture=in_srgb(whole, profile_of(opened.info) if opened else None))


def holds_less(opened: Image.Image, channels: int) -> bool:
    """Whether Pillow holds less of a file than it has: 8 of 16 bits in colour or by a profile, or the first bands."""
    if opened.format in ("PPM", "JPEG2000", "AVIF", "HEIF"):
        return len(opened.getbands()) > 1 and bits_of(opened) > 8
    if has_scale(opened) and profile_of(opened.info):
        return True  # by which Pillow converts 8 bits
    if opened.format == "PNG":
        return len(opened.getbands()) > 1 and any(";16" in str(part[3]) for part in opened.tile)  # type: ignore[attr-defined]
    if opened.format != "TIFF":
        return False
    tags: Any = opened.tag_v2  # type: ignore[attr-defined]
    deep = max(tags.get(BITS, (8,))) > 8 and tags.get(BANDS, 1) > 1
    return deep or (channels not in (1, 3) and len(opened.getbands()) != channels)


def bits_of(opened: Image.Image) -> int:
    """Of each sample of a PPM, JPEG 2000, AVIF or HEIC file."""
    if opened.format == "PPM":
        arguments = opened.tile[0][3]  # type: ignore[attr-defined]
        return arguments[-1].bit_length() if isinstance(arguments, tuple) else 8
    file: Any = getattr(opened, "fp", None)
    if file is None:  # of further pictures of a file, which was read as a whole
        return 8
    file.seek(0)
    head = file.read(2**16)
    if opened.format in ("AVIF", "HEIF"):
        found = PIXELS.search(head)
        return max(found[1]) if found else 8
    _, found, sizes = head.partition(b"\xff\x4f\xff\x51")  # the beginning of its pixels
    return (sizes[38] & 127) + 1 if found and len(sizes) > 38 else 8


def read_npy(file: io.BytesIO | io.BufferedReader) -> np.ndarray:
    """The array of a NumPy file, which may be anybody's: no objects, and no more memory than it has bytes."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"it has version {version} of NumPy's format")
    shape, _, kind = read(file)
    start = file.tell()
    if kind.hasobject:
        raise ValueError("it holds objects of Python, which are never loaded")
    if int(np.prod(shape, dtype=object)) * kind.itemsize != file.seek(0, io.SEEK_END) - start:
        raise ValueError("its size is not what its beginning says")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def read_png(file: io.BytesIO | io.BufferedReader) -> Whole:
    """A PNG file of 16 bits in colour or with transparency."""
    values = as_bands(package("imagecodecs", "scientific").png_decode(file.read()))
    return Whole(values, alpha=values.shape[2] in (2, 4))


def read_tiff(file: io.BytesIO | io.BufferedReader, channels: int) -> Whole:
    """The first picture of a TIFF file; where other channels than those of grey and colour are needed, pages of one
    band are its bands."""
    package("imagecodecs", "scientific")  # by which tifffile unpacks
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    # Without OME's metadata, which may name other files.
    with package("tifffile", "scientific").TiffFile(file, is_ome=False) as tiff:
        first = tiff.pages[0]
        check_page(first, size)
        pages = [first]
        if channels not in (1, 3) and first.samplesperpixel == 1:
            alike = takewhile(lambda page: (page.shape, page.dtype) == (first.shape, first.dtype), tiff.pages)
            pages = list(islice(alike, MOST_BANDS + 1))
        check_total(len(pages) * math.prod(first.shape))
        for page in pages[1:]:
            check_page(page, size)
        bands = [samples_of(page) for page in pages]
        return Whole(bands[0] if len(bands) == 1 else np.concatenate(bands, 2), alpha=has_alpha(first))


def read_deep_pages(file: io.BytesIO | io.BufferedReader, opened: Image.Image, channels: int) -> list[Whole] | None:
    """All pages of a TIFF file of which Pillow holds less than there is.

    Args:
        file, opened, channels: as `read_array` takes them.

    Returns:
        None for what Pillow holds whole, or where the packages for more are not installed.
    """
    if not holds_less(opened, channels) or not all(map(find_spec, ("tifffile", "imagecodecs"))):
        return None
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    profile = profile_of(opened.info)
    with package("tifffile", "scientific").TiffFile(file, is_ome=False) as tiff:
        for page in tiff.pages:
            check_page(page, size)
        check_total(sum(math.prod(page.shape) for page in tiff.pages))
        return [whole._replace(picture=in_srgb(whole, profile)) for whole in map(whole_page, tiff.pages)]


def whole_page(page: "tifffile.TiffPage") -> Whole:
    """A page of a TIFF file that was checked."""
    return Whole(samples_of(page), int(page.tags.valueof(ORIENTATION, 1)), has_alpha(page))


def samples_of(page: "tifffile.TiffPage") -> np.ndarray:
    """The samples of a page of a TIFF file, H x W x bands; from black, of 16 bits where it has 9 to 15, and not
    multiplied by how opaque they are.

    Raises:
        BandsError: they are no grey, colour or bands of their own; the message is a phrase that says so.
    """
    if (name := NOT_RGB.get(int(page.photometric))) is not None:
        raise BandsError(f"has colours in {name} of more than 8 bits: save it in RGB")
    values = from_black(as_bands(page.asarray()), page.bitspersample, page.photometric)
    return straight(values) if [int(each) for each in page.extrasamples] == [PREMULTIPLIED] else values


def from_black(values: np.ndarray, bits: int, photometric: int | None) -> np.ndarray:
    """Samples of a TIFF file as they count from black; those of 9 to 15 bits, which lie in 16, as samples of 16."""
    if values.dtype == np.uint16 and 8 < bits < 16:
        values = (values.astype(np.uint32) * 65535 // (2**bits - 1)).astype(np.uint16)
    if photometric == FROM_WHITE and values.dtype.kind == "u":
        return np.iinfo(values.dtype).max - values
    return values


def straight(values: np.ndarray) -> np.ndarray:
    """Samples whose last band says how opaque they are, not multiplied by it any more."""
    full = np.iinfo(values.dtype).max if values.dtype.kind == "u" else 1
    opaque = values[:, :, -1:]
    clear = opaque == 0
    colours = values[:, :, :-1] / np.where(clear, 1, opaque) * full
    return np.concatenate([colours.clip(0, full).astype(values.dtype), opaque], 2)


def has_alpha(page: "tifffile.TiffPage") -> bool:
    """Whether the last band of a page of a TIFF file says how opaque it is."""
    extra = [int(each) for each in page.extrasamples]
    return len(extra) == 1 and extra[0] in TRANSPARENT


def check_page(page: "tifffile.TiffPage", size: int) -> None:
    """Raises ValueError if a page of a TIFF file of ``size`` bytes would take other memory than its samples need."""
    if not all(isinstance(number, int) for number in (*page.shape, *page.chunks, *page.dataoffsets)):
        raise ValueError("its tags are damaged")
    check_shape(page.imagewidth, page.imagelength)
    if page.compression not in PACKED:
        name = getattr(page.compression, "name", page.compression)
        raise ValueError(f"it is packed as {name}, save it with LZW or Deflate")
    check_total(math.prod(page.chunks))
    check_padding(math.prod(page.chunks) * math.prod(page.chunked), math.prod(page.shape))
    parts = zip(page.dataoffsets, page.databytecounts, strict=True)
    if math.prod(page.chunked) != len(page.dataoffsets) or any(start + count > size for start, count in parts):
        raise ValueError("it is cut short, or its tags are damaged")


def as_bands(values: np.ndarray) -> np.ndarray:
    """An array as H x W x bands.

    Raises:
        ValueError: it is no picture; the message is a phrase that says so.
    """
    values = values.squeeze() if values.ndim > 3 else values
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim == 3 and values.shape[2] > MOST_BANDS >= values.shape[0]:
        values = values.transpose(1, 2, 0)
    if values.ndim != 3 or values.shape[2] > MOST_BANDS or values.dtype.kind not in "uif":
        shape = " x ".join(map(str, values.shape))
        raise ValueError(f"it is {shape} of {values.dtype}, not height x width x up to {MOST_BANDS} bands of numbers")
    return values.astype(values.dtype.newbyteorder("="), copy=False)
