"""Translations written as their sources were: in 8 or 16 bits or floats, in the target domain's range and bands."""

import io
import struct
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ugatit.data.samples import Kind
from ugatit.io.errors import UserError, package
from ugatit.io.files import atomic_file
from ugatit.io.sheet import as_bytes
from ugatit.systems.base import Range, Samples

MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}  # of 8 bits, by channels
DEEP = {".png", ".tif", ".tiff", ".npy"}  # that have more than 8 bits
TIFF = {".tif", ".tiff"}
WRITERS = "tifffile", "imagecodecs"  # of 16 bits in colour, and of many bands
FULL = (0, 65535)


def suffix_of(source: str, channels: int) -> str:
    """What a result's name ends with, in small letters, where its source's ends with ``source``."""
    if source in TIFF | {".npy"}:
        return source
    if channels > len(MODES) or source in (".fit", ".fits", ".pfm"):  # many bands, or floats
        return ".tif"
    return source if channels in (1, 3) and source in (".jpg", ".jpeg", ".webp", ".bmp") else ".png"


def depth_of(kind: Kind, target: Samples, suffix: str) -> tuple[Kind, Range]:
    """What a result is written as, and which samples are black and white in it.

    Colour has the whole 16 bits, as hardly anything shows others; 8 where the packages that write it are missing.

    Args:
        kind: of the source's samples.
        target: of the domain that was translated to.
        suffix: of the result's name, in small letters.
    """
    if kind == "uint8" or suffix not in DEEP:
        return "uint8", (0, 255)
    if target.channels == 3 and suffix != ".npy" and not all(map(find_spec, WRITERS)):
        return "uint8", (0, 255)
    if target.range is None or target.channels == 3 or (suffix == ".png" and not fits(target.range)):
        return "uint16", FULL
    return ("uint16" if suffix == ".png" or (kind == "uint16" and fits(target.range)) else "float32"), target.range


def fits(range: Range) -> bool:
    """Whether whole numbers of 16 bits hold a range, with at least as many steps as 8 bits have."""
    return FULL[0] <= range[0] and range[1] <= FULL[1] and range[1] - range[0] >= 255


def samples_for(x: Tensor, kind: Kind, range: Range) -> np.ndarray:
    """A translation, channels x H x W in [-1, 1], as samples, H x W x channels."""
    if kind == "uint8":
        values = as_bytes(x).permute(1, 2, 0).cpu().numpy()
    else:
        low, high = range
        values = (x.double().clamp(-1, 1).permute(1, 2, 0).cpu().numpy() + 1) / 2 * (high - low) + low
    return np.ascontiguousarray(values if kind == "float32" else values.round(), kind)


def as_image(x: Tensor) -> Image.Image:
    """A translation, channels x H x W in [-1, 1], as Pillow's picture of 8 bits; with transparency if it has 2 or 4
    channels.

    Raises:
        UserError: it has more channels than Pillow knows.
    """
    if len(x) not in MODES:
        raise UserError(f"A picture cannot have the {len(x)} channels of this model's results: give tensors.")
    values = samples_for(x, "uint8", (0, 255))
    return Image.fromarray(values[:, :, 0] if len(x) == 1 else values)


def save_result(x: Tensor, path: Path, kind: Kind, target: Samples) -> None:
    """Write one translation atomically, in the format that its suffix names.

    Args:
        x: channels x H x W in [-1, 1].
        path: of the file.
        kind: of the source's samples.
        target: of the domain that was translated to.

    Raises:
        OSError: it could not be written.
        ValueError: the format has not its size; the message is a phrase that says so.
        UserError: a package is missing.
    """
    save_arrays(to_arrays([x], path, kind, target), path)


def to_arrays(pictures: Iterable[Tensor], path: Path, kind: Kind, target: Samples) -> list[np.ndarray]:
    """Translations as their samples are written, H x W x channels each; the arguments are those of `save_result`."""
    depth, range = depth_of(kind, target, path.suffix.lower())
    return [samples_for(x, depth, range) for x in pictures]


def save_arrays(arrays: list[np.ndarray], path: Path, **options: Any) -> None:
    """Write arrays, each H x W x channels, atomically as the pages of one file; errors are those of `save_result`.

    Args:
        arrays: of one type and number of channels.
        path: of the file.
        options: how Pillow writes them.
    """
    kind = path.suffix[1:].upper()
    try:
        encoded = encode(arrays, path.suffix.lower(), options)
    except (OSError, struct.error, OverflowError, RuntimeError, ValueError) as error:
        raise ValueError(f"cannot be written as {kind} ({error})") from None
    with atomic_file(path) as temporary:
        temporary.write_bytes(encoded)


def encode(arrays: list[np.ndarray], suffix: str, options: dict[str, Any]) -> bytes:
    """Arrays as a file of the format that a suffix names; a time or size that it has not raises anything."""
    file, channels = io.BytesIO(), arrays[0].shape[2]
    if suffix == ".npy":
        np.save(file, arrays[0][:, :, 0] if channels == 1 else arrays[0])
    elif channels == 1 or (arrays[0].dtype == np.uint8 and channels in MODES):
        first, *others = [Image.fromarray(each.squeeze(2) if channels == 1 else each) for each in arrays]
        pages = {"save_all": True, "append_images": others} if others else {}
        first.save(file, Image.registered_extensions()[suffix], quality=95, **pages, **options)
    elif suffix == ".png":
        file.write(package("imagecodecs", "scientific").png_encode(arrays[0]))
    else:
        colour = channels in (3, 4)
        with package("tifffile", "scientific").TiffWriter(file) as tiff:
            for each in arrays:
                tiff.write(each, photometric="rgb" if colour else "minisblack", planarconfig="contig", metadata=None)
    return file.getvalue()
