"""What the numbers of a picture mean: their depth, what is black and what is white, and which band is what.

A picture is Pillow's where Pillow holds it whole, and otherwise an array, H x W x bands.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ugatit.systems.base import Range, Samples

Kind = Literal["uint8", "uint16", "float32"]  # what samples are written as; 32 bits are taken for floats
UNSCALED = "has float or 32-bit samples, which do not tell what is black and what is white"
SHALLOW = "of more than 8 bits a colour, of which 8 are read: of PNG and TIFF all are, with ugatit[scientific]"
SMALLEST = 16  # pixels on a side; smaller pictures are skipped
LENGTH = 100  # times as long as wide, at most
SMALL_TILES = 2**22  # pixels by which tiles may reach beyond any picture
MOST_PIXELS = 2**29  # of all the pictures or bands of one file, which are held at once
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, as Pillow takes them
TURNS = {  # an array, H x W x bands, upright, by EXIF's orientation
    2: lambda values: values[:, ::-1],
    3: lambda values: values[::-1, ::-1],
    4: lambda values: values[::-1],
    5: lambda values: values.swapaxes(0, 1),
    6: lambda values: np.rot90(values, -1),
    7: lambda values: values[::-1, ::-1].swapaxes(0, 1),
    8: lambda values: np.rot90(values),
}


class TooLargeError(ValueError):
    """The picture has so many pixels that it can only be meant to do harm."""


class ShapeError(ValueError):
    """The picture is too small, or too long: it would be huge at any size that networks take."""


class UnscaledError(ValueError):
    """The picture's samples have no scale of their own, so a range has to be given."""


class BandsError(ValueError):
    """The picture has other bands than are needed."""


class Whole(NamedTuple):
    """A decoded picture with all that its file holds."""

    picture: Image.Image | np.ndarray
    turn: int = 0  # EXIF's orientation; 0 if it is not told
    alpha: bool = False  # whether the last band of an array says how opaque it is
    lost: bool = False  # whether the file has more bits a sample than the picture


class Sampled(NamedTuple):
    """A picture as networks take it."""

    pixels: Image.Image | Tensor  # grey or colour of 8 bits, else channels x H x W in [0, 1] from black to white
    kind: Kind  # of the file's samples
    lost: bool  # as in `Whole`

    def extremes(self) -> tuple[float, float]:
        """The darkest and the brightest sample, from 0, black, to 1, white."""
        if isinstance(self.pixels, Tensor):
            darkest, brightest = self.pixels.aminmax()
            return float(darkest), float(brightest)
        lows, highs = zip(*self.pixels.convert("RGB").getextrema(), strict=True)
        return min(lows) / 255, max(highs) / 255


def check_shape(width: int, height: int) -> None:
    """Raises ShapeError if a picture is too small or too long."""
    if min(width, height) < SMALLEST:
        raise ShapeError(f"is {width} x {height} pixels, the least is {SMALLEST} x {SMALLEST}")
    if max(width, height) > LENGTH * min(width, height):
        raise ShapeError(f"is {width} x {height} pixels, more than {LENGTH} times as long as wide")


def check_total(pixels: int) -> None:
    """Raises TooLargeError if all the pictures or bands of a file together are more than can be held."""
    if pixels > MOST_PIXELS:
        most = f"{MOST_PIXELS / 1e6:.0f}"
        raise TooLargeError(f"holds {pixels / 1e6:.0f} million pixels in all its pictures, the most is {most}")


def check_padding(decoded: int, pixels: int) -> None:
    """Raises ValueError if far more is decoded than a picture's pixels, as its tiles reach beyond it."""
    if decoded > 4 * pixels + SMALL_TILES:
        raise ValueError("its tiles are far larger than it")


def is_deep(picture: Image.Image | np.ndarray) -> bool:
    """Whether samples have more than 8 bits."""
    if isinstance(picture, np.ndarray):
        return picture.dtype != np.uint8
    return picture.mode in ("I", "F") or picture.mode.startswith("I;16")


def has_scale(picture: Image.Image | np.ndarray) -> bool:
    """Whether a picture of more than 8 bits has 16; Pillow has 32 bits for the 16 of some formats."""
    if isinstance(picture, np.ndarray):
        return picture.dtype == np.uint16
    return picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("PNG", "PPM"))


def tells_scale(picture: Image.Image | np.ndarray) -> bool:
    """Whether the type of a picture's samples tells what is black and what is white."""
    return not is_deep(picture) or has_scale(picture)


def values_of(picture: Image.Image | np.ndarray) -> np.ndarray:
    """The samples of a picture as floats of their own, H x W x bands; of 8 bits 1 in grey and 3 in colour."""
    if isinstance(picture, Image.Image) and not is_deep(picture) and picture.mode != "L":
        picture = picture.convert("RGB")
    values = np.array(picture, np.float64 if is_deep(picture) and not has_scale(picture) else np.float32)
    return values[:, :, None] if values.ndim == 2 else values


def extent(picture: Image.Image | np.ndarray) -> tuple[float, float] | tuple[None, None]:
    """The lowest and the highest sample; what is no number does not count."""
    if isinstance(picture, Image.Image) and not is_deep(picture):
        lows, highs = zip(*picture.convert("RGB").getextrema(), strict=True)
        return float(min(lows)), float(max(highs))
    values = np.asarray(picture)
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    return (float(values.min()), float(values.max())) if values.size else (None, None)


def scaled(picture: Image.Image | np.ndarray, range: Range | None) -> np.ndarray:
    """The samples of a picture as they lie between black, 0, and white, 1; H x W x bands.

    They are never scaled by what this picture holds: 0 to 65535 are black to white of 16 bits, the given range of every
    depth; what is no number is black.

    Raises:
        UnscaledError: samples are floats or of 32 bits, and no range is given.
    """
    if range is None and not tells_scale(picture):
        raise UnscaledError(UNSCALED)
    low, high = range or ((0, 65535) if is_deep(picture) else (0, 255))
    values = values_of(picture)
    values -= low
    values *= 1 / (high - low)
    return np.nan_to_num(values, copy=False, nan=0, posinf=1, neginf=0).clip(0, 1, out=values)


def bands_of(picture: Image.Image, channels: int) -> np.ndarray:
    """A picture of 8 bits as H x W x bands: those of its file if there are as many, else those of RGBA or LA."""
    if len(picture.getbands()) != channels and channels in (2, 4):
        picture = picture.convert("LA" if channels == 2 else "RGBA")
    values = np.asarray(picture)
    return values[:, :, None] if values.ndim == 2 else values


def to_channels(values: np.ndarray, channels: int, alpha: bool) -> np.ndarray:
    """Bands, H x W x bands in [0, 1], as H x W x channels: transparency is laid on white and grey becomes colour, or
    colour grey, where grey or colour is wanted.

    Raises:
        BandsError: they are others; the message is a phrase that says so.
    """
    if channels in (1, 3) and alpha:
        opaque = values[:, :, -1:]
        values = values[:, :, :-1] * opaque + 1 - opaque
    bands = values.shape[2]
    if bands == channels:
        return values
    if (bands, channels) == (1, 3):
        return np.repeat(values, 3, 2)
    if (bands, channels) == (3, 1):
        return values @ np.array(LUMA)[:, None]
    raise BandsError(f"has {bands} {'band' if bands == 1 else 'bands'}, where {channels} are needed")


def as_tensor(whole: Whole, samples: Samples) -> Tensor:
    """A picture that is not of 8 bits in grey or colour, as channels x H x W in [0, 1] from black to white.

    Raises:
        BandsError: it has others; the message is a phrase that says so.
        UnscaledError: samples are floats or of 32 bits, and no range is given.
    """
    picture, turn, alpha, _ = whole
    if isinstance(picture, Image.Image) and not is_deep(picture):
        picture = bands_of(picture, samples.channels)
    values = to_channels(scaled(picture, samples.range), samples.channels, alpha)
    upright = TURNS[turn](values) if turn in TURNS else values
    return torch.from_numpy(np.ascontiguousarray(upright.transpose(2, 0, 1), np.float32))


def to_tensor(pixels: Image.Image | Tensor) -> Tensor:
    """A picture as networks take it, channels x H x W in [-1, 1], of ``Sampled.pixels`` or of a tensor of 8 bits."""
    if isinstance(pixels, Image.Image):
        values = torch.from_numpy(np.array(pixels))
        pixels = values.view(*values.shape[:2], -1).permute(2, 0, 1)
    if pixels.dtype == torch.uint8:
        pixels = pixels.float().mul_(1 / 255)
    return pixels.sub(0.5).div_(0.5)


def to_image(values: np.ndarray, channels: int, alpha: bool, turn: int) -> Image.Image:
    """Samples, H x W x bands in [0, 1], as a picture of 8 bits in grey or colour.

    Raises:
        BandsError: it has others; the message is a phrase that says so.
    """
    values = (to_channels(values, channels, alpha) * 255).round().astype(np.uint8)
    values = TURNS[turn](values) if turn in TURNS else values
    return Image.fromarray(np.ascontiguousarray(values[:, :, 0] if channels == 1 else values))


def kind_of(picture: Image.Image | np.ndarray) -> Kind:
    """What a picture's samples are to be written as."""
    if not is_deep(picture):
        return "uint8"
    return "uint16" if has_scale(picture) else "float32"


def joint_extent(extents: Iterable[tuple[float | None, float | None]]) -> Range | None:
    """The lowest and the highest sample of pictures, of which each tells its own; None if none has any."""
    counted = [(low, high) for low, high in extents if low is not None and high is not None]
    return (min(low for low, _ in counted), max(high for _, high in counted)) if counted else None
