"""What a sheet shows of a system in training."""

import torch
from torch import Tensor

from ugatit.systems.base import DIRECTIONS, Direction, System, Translation, channels_of
from ugatit.translation.columns import sheet_columns


def preview_columns(system: System, real_a: Tensor, real_b: Tensor) -> dict[str, Tensor]:
    """Source, attention, translation, cycle and identity of both directions, as a sheet's columns.

    Args:
        real_a, real_b: test pictures, N x channels x size x size in [-1, 1]; they are translated one by one.
    """

    def translate(x: Tensor, direction: Direction) -> Translation:
        made = [system.translate(row, direction) for row in x.split(1)]
        heatmaps = [part.heatmap for part in made if part.heatmap is not None]
        return Translation(torch.cat([part.image for part in made]), torch.cat(heatmaps) if heatmaps else None)

    columns: dict[str, Tensor] = {}
    channels = set(channels_of(system.config))
    rows, back = min(len(real_a), len(real_b)), len(system.directions) == 2
    for direction, x in zip(DIRECTIONS, (real_a, real_b), strict=True):
        if direction in system.directions:
            columns |= sheet_columns(translate, x[:rows], direction, back=back, identity=len(channels) == 1)
    return {label: pictures.float() for label, pictures in columns.items()}
