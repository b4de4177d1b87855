"""Animations and stacks of pictures in one file: GIF, WebP, APNG and TIFF; times, repeats and order stay."""

from pathlib import Path
from typing import Any

from ugatit.data.reading import Pages, count_pages, read_pages
from ugatit.data.samples import Kind, to_tensor
from ugatit.io.errors import UserError
from ugatit.systems.base import Direction
from ugatit.translation.results import TIFF, save_arrays, to_arrays
from ugatit.translation.translator import Size, Translator

ANIMATED = {".gif", ".webp", ".png", ".apng", ".tif", ".tiff", ".avif"}
DEPTHS: tuple[Kind, ...] = ("uint8", "uint16", "float32")


def is_animation(file: Path, channels: int = 3) -> bool:
    """Whether a file holds several pictures of so many channels; where these are no grey or colour, the pages of a TIFF
    file are bands of one."""
    bands = channels not in (1, 3) and file.suffix.lower() in TIFF
    return file.suffix.lower() in ANIMATED and not bands and count_pages(file) > 1


def has_more(file: Path) -> bool:
    """Whether a file holds several pictures and its name says something else, so that its first one alone counts."""
    return file.suffix.lower() not in ANIMATED and count_pages(file) > 1


def translate_animation(
    translator: Translator, source: Path, target: Path, direction: Direction, size: Size, batch: int
) -> bool:
    """Translate all pictures of a file into a file of the same kind.

    Args:
        translator: the model; if it has styles, all pictures get one.
        source, target: files of the same suffix.
        direction, size, batch: as `Translator.__call__` takes them.

    Returns:
        Whether the file has more bits than are read.

    Raises:
        ValueError: the source cannot be read, or its times or sizes not be written; the message is a phrase that says
            why.
        OSError: the target cannot be written.
        UserError: it has another suffix.
    """
    if target.suffix.lower() != source.suffix.lower():
        raise UserError(f"`target={target}` is of another kind than {source}: give it the same suffix.")
    origin, aim = translator.read_as(direction), translator.written_as(direction)
    pages = read_pages(source, origin)
    translator.keep_style()
    tensors = (to_tensor(picture.pixels)[None] for picture in pages.pictures)
    made = (one.image[0] for one in translator.stream(tensors, direction, size, batch))
    deepest = max((picture.kind for picture in pages.pictures), key=DEPTHS.index)
    arrays = to_arrays(made, target, deepest, aim)
    save_arrays(arrays, target, **timing(pages, target.suffix.lower()))
    return any(picture.lost for picture in pages.pictures)


def timing(pages: Pages, suffix: str) -> dict[str, Any]:
    """How Pillow writes an animation with the times and repeats of its source."""
    if not pages.milliseconds:
        return {}
    options: dict[str, Any] = {"disposal": 1} if suffix == ".gif" else {}
    whole = suffix in (".gif", ".webp", ".avif")
    times = pages.milliseconds[1:] if pages.aside else pages.milliseconds
    options["duration"] = [round(time) for time in times] if whole else times
    if pages.aside:
        options["default_image"] = True
    if pages.loop is not None:  # a GIF without the number is shown once
        options["loop"] = pages.loop
    return options
