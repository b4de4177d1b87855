"""Colours as sRGB has them, which all that shows pictures takes for granted: by a profile, or by a gamma alone."""

import io
import struct
from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageCms

from ugatit.data.samples import Whole, has_scale
from ugatit.io.errors import package

PROFILE = 2**22  # bytes of a colour profile; a printer's has one or two millions
SRGB = ImageCms.createProfile("sRGB")
PROFILED = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}  # Pillow's modes by the kind of colours that a profile is for
SAME = 3  # levels of 256 that a profile may be from sRGB without being another
USUAL, NEAR = 1 / 2.2, 0.02  # what PNG files say of their gamma when they mean sRGB, and how far that may be from it


def profile_of(info: dict[Any, Any]) -> bytes | None:
    """The colour profile of a picture that Pillow opened; one that does what its gamma says where it has that alone."""
    profile, gamma = info.get("icc_profile"), info.get("gamma")
    if isinstance(profile, bytes):
        return profile if len(profile) <= PROFILE else None
    if "srgb" in info or not isinstance(gamma, float) or abs(gamma - USUAL) < NEAR or not 0.1 < gamma < 10:
        return None
    return of_gamma(gamma)


def of_gamma(gamma: float) -> bytes:
    """A colour profile like sRGB's, but for samples that are the light to the power of ``gamma``."""
    srgb = ImageCms.ImageCmsProfile(SRGB).tobytes()
    place = srgb.index(b"para") + 12  # of the one curve of all colours, (a x + b) ** g from d on
    curve = [round(number * 2**16) for number in (1 / gamma, 1, 0, 0, 0)]
    return srgb[:place] + struct.pack(">5i", *curve) + srgb[place + 20 :]


def to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """An 8-bit picture in the colours of sRGB; as it is if it has no profile, or a broken one, or one for others."""
    if picture.mode == "LAB":
        return by_profile(picture, ImageCms.createProfile("LAB"))
    if profile is None:
        return picture
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = PROFILED[source.profile.xcolor_space.strip()]
        if "CMYK" in (mode, picture.mode) and mode != picture.mode:
            return picture
        if mode == "L" and not is_grey(picture):
            return picture
        if mode == "RGB" and is_srgb(profile):
            return picture
        return by_profile(picture.convert(mode), source)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, KeyError):
        return picture


def by_profile(picture: Image.Image, source: Any) -> Image.Image:
    """A picture in the colours of sRGB, by the profile that it has."""
    made = ImageCms.profileToProfile(picture, source, SRGB, ImageCms.Intent.RELATIVE_COLORIMETRIC, "RGB")
    assert made is not None  # as it would be if it were made in place
    return made


def is_grey(picture: Image.Image) -> bool:
    """Whether a picture has no colours."""
    red, *others = picture.convert("RGB").split()
    return all(ImageChops.difference(red, other).getbbox() is None for other in others)


@lru_cache(maxsize=4)
def is_srgb(profile: bytes) -> bool:
    """Whether a profile's colours are shown as those of sRGB, whatever it is called: at most `SAME` levels apart."""
    ramp = np.arange(256, dtype=np.uint8)
    probe = np.stack(
        [ramp[:, None] * np.array(each, np.uint8) for each in ((1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    )
    made = by_profile(Image.fromarray(probe), ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    return int(np.abs(np.asarray(made, np.int16) - probe).max()) <= SAME


def in_srgb(whole: Whole, profile: bytes | None) -> np.ndarray:
    """16 bits with a colour profile in the colours of sRGB; others as they are, also with a broken one."""
    values = whole.picture
    assert isinstance(values, np.ndarray)
    bands = values.shape[2] - whole.alpha
    if not profile or bands not in (1, 3) or not has_scale(values):
        return values
    codecs = package("imagecodecs", "scientific")
    target = ImageCms.ImageCmsProfile(SRGB).tobytes()
    colours, kind = values[:, :, :bands], "rgb"
    if bands == 1 and profile[16:20] == b"GRAY":
        colours, kind = values[:, :, 0], "gray"
    elif bands == 1:
        colours = np.repeat(colours, 3, 2)
    with suppress(Exception):  # a broken profile raises many kinds
        made = codecs.cms_transform(
            np.ascontiguousarray(colours), profile, target, colorspace=kind, outcolorspace="rgb", intent=1
        )
        return np.concatenate([made[:, :, :bands], values[:, :, bands:]], 2)
    return values
