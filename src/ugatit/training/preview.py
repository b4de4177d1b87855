"""What a sheet shows of a system in training."""

import torch
from torch import Tensor

from ugatit.io.sheet import overlay
from ugatit.systems.base import Direction, System


def preview_columns(system: System, real_a: Tensor, real_b: Tensor) -> dict[str, Tensor]:
    """Source, attention, translation, cycle and identity of both directions, as a sheet's columns.

    Args:
        real_a, real_b: test pictures, N x channels x size x size in [-1, 1]; they are translated one by one.
    """
    columns: dict[str, Tensor] = {}
    rows = min(len(real_a), len(real_b))
    sides: tuple[tuple[Direction, Direction, Tensor], ...] = (("a2b", "b2a", real_a), ("b2a", "a2b", real_b))
    for there, back, pictures in sides:
        if there not in system.directions:
            continue
        source, target = there.upper().split("2")
        cells: dict[str, list[Tensor]] = {}
        for x in pictures[:rows].split(1):
            made = system.translate(x, there)
            cells.setdefault(f"source {source}", []).append(x)
            if made.heatmap is not None:
                cells.setdefault(f"attention {source}", []).append(overlay(x, made.heatmap))
            cells.setdefault(f"{source} to {target}", []).append(made.image)
            if back in system.directions:
                cells.setdefault(f"cycle {source}", []).append(system.translate(made.image, back).image)
                cells.setdefault(f"identity {source}", []).append(system.translate(x, back).image)
        columns |= {label: torch.cat(tensors).float() for label, tensors in cells.items()}
    return columns
