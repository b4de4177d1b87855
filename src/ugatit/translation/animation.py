"""Animations and stacks of pictures in one file: GIF, WebP, APNG and TIFF; times, repeats and order stay."""

from pathlib import Path
from typing import Any

from PIL import Image

from ugatit.data.reading import Pages, count_pages, read_pages
from ugatit.data.sampling import to_tensor_transform
from ugatit.io.files import atomic_file, writing
from ugatit.io.sheet import to_picture
from ugatit.systems.base import Direction
from ugatit.translation.translator import Size, Translator

ANIMATED = {".gif", ".webp", ".png", ".apng", ".tif", ".tiff"}


def is_animation(file: Path) -> bool:
    """Whether a file holds several pictures."""
    return file.suffix.lower() in ANIMATED and count_pages(file) > 1


def translate_animation(
    translator: Translator, source: Path, target: Path, direction: Direction, size: Size, batch: int
) -> None:
    """Translate all pictures of a file into a file of the same kind.

    Args:
        translator: the model; if it has styles, all pictures get one.
        source, target: files of the same suffix.
        direction, size, batch: as `Translator.__call__` takes them.

    Raises:
        ValueError: the source cannot be read; the message is a phrase that says why.
        UserError: the target cannot be written.
    """
    pages = read_pages(source, translator.channels, translator.range_of(direction[0]))
    translator.keep_style()
    tensors = (to_tensor_transform()(picture)[None] for picture in pages.pictures)
    made = [to_picture(one.image[0]) for one in translator.stream(tensors, direction, size, batch)]
    save_pages(pages._replace(pictures=made), target)


def save_pages(pages: Pages, target: Path) -> None:
    """Write an animation or a stack, atomically, in the format that the suffix names."""
    kind = Image.registered_extensions()[target.suffix.lower()]
    first, *others = pages.pictures
    options: dict[str, Any] = {"TIFF": {}, "WEBP": {"quality": 95}, "GIF": {"disposal": 1}}.get(kind, {})
    if pages.milliseconds:
        times = [round(time) for time in pages.milliseconds] if kind != "PNG" else pages.milliseconds
        options |= {"duration": times}
        if not (kind == "GIF" and pages.loop == 1):  # a GIF without the number is shown once
            options["loop"] = pages.loop
    with writing(target), atomic_file(target) as temporary:
        first.save(temporary, kind, save_all=True, append_images=others, **options)
