"""Sheets of pictures with labelled columns, and heat maps laid over pictures as in the paper's Figure 2."""

import io
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ugatit.io.files import atomic_file

GAP = 4  # pixels between pictures
LABEL = 18  # pixels of a column's label
SMALLEST_CELL = 96  # pictures are shown at least this large


def shown(x: Tensor) -> Tensor:
    """What is shown of pictures, N x channels x H x W: grey, colour, or the first of other bands as one of these."""
    return x[:, : 3 if x.shape[1] >= 3 else 1]


def overlay(x: Tensor, heatmap: Tensor) -> Tensor:
    """Lay heat maps over pictures, blue for the least and red for the most attention in each picture.

    Args:
        x: pictures, N x channels x H x W in [-1, 1], of which is taken what is `shown`.
        heatmap: N x 1 x h x w, any scale.

    Returns:
        N x 3 x H x W in [-1, 1].
    """
    low, high = heatmap.amin((1, 2, 3), keepdim=True), heatmap.amax((1, 2, 3), keepdim=True)
    level = (heatmap - low) / (high - low).clamp_min(1e-12)
    level = F.interpolate(level.float(), size=x.shape[2:], mode="bilinear").clamp(0, 1).nan_to_num()  # N 1 H W
    return torch.lerp(shown(x).float().expand(-1, 3, -1, -1), jet(level) * 2 - 1, 0.5)


def jet(level: Tensor) -> Tensor:
    """The colours of heat maps, from blue to red: N x 1 x H x W in [0, 1] to N x 3 x H x W in [0, 1]."""
    peaks = torch.tensor([3.0, 2.0, 1.0], device=level.device)[:, None, None]  # of red, green and blue, in quarters
    return (1.5 - (4 * level - peaks).abs()).clamp(0, 1)


def as_bytes(x: Tensor) -> Tensor:
    """Pictures in [-1, 1] in bytes."""
    return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def to_picture(x: Tensor) -> Image.Image:
    """What is `shown` of one picture, channels x H x W in [-1, 1], as Pillow's."""
    samples = as_bytes(shown(x[None])[0]).permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(samples if samples.shape[2] == 3 else samples[:, :, 0])


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture atomically, in the format that its suffix names.

    Raises:
        OSError: it could not be written.
    """
    with atomic_file(path) as temporary:
        picture.save(temporary, Image.registered_extensions()[path.suffix.lower()], quality=95)


def save_figure(figure: Any, path: Path) -> None:
    """Write one of matplotlib's figures as a PNG, atomically.

    Raises:
        OSError: it could not be written.
    """
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def png(picture: Image.Image) -> bytes:
    """A picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def draw_sheet(columns: dict[str, Tensor], path: Path) -> None:
    """Write a PNG with one labelled column a key, one row a picture, as many as the shortest column has.

    Args:
        columns: label to pictures, N x channels x H x W in [-1, 1].
        path: of the PNG, written atomically.
    """
    first = next(iter(columns.values()))
    rows, size = min(map(len, columns.values())), max(first.shape[2], SMALLEST_CELL)
    font = ImageFont.load_default(12)
    canvas = Image.new("RGB", (len(columns) * (size + GAP) + GAP, rows * (size + GAP) + GAP + LABEL), "white")
    pen = ImageDraw.Draw(canvas)
    for i, (label, pictures) in enumerate(columns.items()):
        left = GAP + i * (size + GAP)
        pen.text((left, 2), label, fill="black", font=font)
        for j, picture in enumerate(pictures[:rows].cpu()):
            cell = to_picture(picture).resize((size, size), Image.Resampling.BICUBIC)
            canvas.paste(cell, (left, LABEL + GAP + j * (size + GAP)))
    save_picture(canvas, path)


def draw_contact_sheet(cells: list[tuple[Image.Image, list[str]]], path: Path, across: int = 10) -> None:
    """Write a PNG of small pictures, each with its lines of text below.

    Args:
        cells: pictures of at most `SMALLEST_CELL` pixels a side, and their lines, cut where they are too long.
        path: of the PNG, written atomically.
        across: how many stand beside each other.
    """
    side, line, font = SMALLEST_CELL, 12, ImageFont.load_default(10)
    lines = max((len(words) for _, words in cells), default=0)
    wide, high = side + GAP, side + lines * line + GAP
    canvas = Image.new("RGB", (across * wide + GAP, max(1, -(-len(cells) // across)) * high + GAP), "white")
    pen = ImageDraw.Draw(canvas)
    for number, (picture, words) in enumerate(cells):
        left, top = number % across * wide + GAP, number // across * high + GAP
        canvas.paste(picture, (left + (side - picture.width) // 2, top + (side - picture.height) // 2))
        for i, text in enumerate(words):
            while text and pen.textlength(text, font) > side:
                text = text[:-1]
            pen.text((left, top + side + i * line), text, fill="black", font=font)
    save_picture(canvas, path)
