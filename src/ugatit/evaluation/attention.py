"""Where networks look in faces: the paper's claim that attention is on eyes and mouth (Figure 2), put to a test.

Attention is counted as it is shown: a map's least value is none. What is in the boxes of eyes and mouth is held against
the boxes' share of the picture's area, which is what attention gets there that looks anywhere.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor

from ugatit.data.faces import Detect, Face
from ugatit.evaluation.intervals import student
from ugatit.io.sheet import to_picture
from ugatit.nn.precision import tf32
from ugatit.systems.base import Direction
from ugatit.translation.translator import Translator

# Boxes in distances between the eyes: width and height around each eye, and height around the mouth and the width that
# is added to it.
EYE, MOUTH = (0.6, 0.4), (0.45, 0.2)
PARTS = ("eyes", "mouth")


def boxes(face: Face, part: str) -> list[tuple[float, float, float, float]]:
    """Left, top, right and bottom of the boxes of a face's eyes or mouth, in pixels."""
    assert face.eyes is not None and face.mouth is not None
    x, y, other_x, other_y = face.eyes
    apart = math.hypot(other_x - x, other_y - y)
    if part == "eyes":
        middles, (width, height) = [(x, y), (other_x, other_y)], (EYE[0] * apart, EYE[1] * apart)
    else:
        left, low, right, other_low = face.mouth
        middles, width, height = [((left + right) / 2, (low + other_low) / 2)], right - left, MOUTH[0] * apart
        width += MOUTH[1] * apart
    return [(a - width / 2, b - height / 2, a + width / 2, b + height / 2) for a, b in middles]


def mask_of(face: Face, part: str, side: int) -> Tensor:
    """1 where the middle of a pixel lies in a box, 0 elsewhere; side x side."""
    places = torch.arange(side) + 0.5
    mask = torch.zeros(side, side)
    for left, top, right, bottom in boxes(face, part):
        mask[((places >= top) & (places < bottom))[:, None] & ((places >= left) & (places < right))] = 1
    return mask


def share(heatmap: Tensor, mask: Tensor) -> float:
    """The share of a map's attention, 1 x 1 x h x w, that is in a mask, side x side; NaN for a map of one value."""
    above = F.interpolate(heatmap.float().cpu(), size=mask.shape, mode="bilinear")[0, 0]
    above = above - above.min()
    return float((above * mask).sum() / above.sum())


@tf32(False)
def attention_on_faces(
    translator: Translator, pictures: Iterable[Tensor], direction: Direction, detect: Detect
) -> list[dict[str, Any]]:
    """How much of each network's attention is on the eyes and the mouth of faces.

    Args:
        translator: the model, with its training networks if their attention is wanted.
        pictures: channels x side x side in [-1, 1]; those without a face, or with several, do not count.
        direction: which way they are translated. Discriminators look at translations, whose eyes and mouths are taken
            to be where those of the sources are.
        detect: finds faces with their eyes and mouths.

    Returns:
        For each network and part: its share of the attention, the share of the area, both on average, half the width of
        the 95% interval of the mean difference (None for one picture), and how many pictures count.
    """
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for x, face in single_faces(pictures, detect):
        with torch.inference_mode():
            maps = translator.system.attention(x[None].to(translator.device), direction)
        masks = {part: mask_of(face, part, x.shape[1]) for part in PARTS}
        for (network, (_, heatmap)), (part, mask) in product(maps.items(), masks.items()):
            found.setdefault((network, part), []).append((share(heatmap, mask), float(mask.mean())))
    rows = []
    for (network, part), pairs in found.items():
        counted = [pair for pair in pairs if not math.isnan(pair[0])]  # without maps of one value
        if not counted:
            continue
        inside, area = torch.tensor(counted, dtype=torch.float64).T
        spread = float((inside - area).std()) / math.sqrt(len(inside)) if len(inside) > 1 else None
        rows.append(
            {
                "direction": direction,
                "network": network,
                "part": part,
                "attention": float(inside.mean()),
                "area": float(area.mean()),
                "interval": None if spread is None else student(len(inside) - 1) * spread,
                "pictures": len(inside),
            }
        )
    return rows


def single_faces(pictures: Iterable[Tensor], detect: Detect) -> Iterator[tuple[Tensor, Face]]:
    """The pictures in which one whole face was found, with it."""
    for x in pictures:
        faces = [face for face in detect(to_picture(x).convert("RGB")) if face.eyes and face.mouth]
        if len(faces) == 1:
            yield x, faces[0]


def attention_table(rows: list[dict[str, Any]]) -> Table:
    """The shares as a table for the terminal."""
    table = Table("direction", "network", "part", "attention", "area", "times", "pictures", title="Attention on faces")
    for row in rows:
        interval = "" if row["interval"] is None else f" ± {row['interval']:.1%}"
        shares = f"{row['attention']:.1%}{interval}", f"{row['area']:.1%}"
        times = f"{row['attention'] / row['area']:.2f}" if row["area"] else "-"
        table.add_row(row["direction"], row["network"], row["part"], *shares, times, str(row["pictures"]))
    return table
