"""What a sheet shows of one direction of translation."""

from collections.abc import Callable

from torch import Tensor

from ugatit.io.sheet import overlay
from ugatit.systems.base import Direction, Translation, opposite

Translate = Callable[[Tensor, Direction], Translation]
Maps = dict[str, tuple[Tensor, Tensor]]  # by label: the pictures that a network saw, and its attention


def sheet_columns(
    translate: Translate,
    x: Tensor,
    direction: Direction,
    *,
    back: bool,
    identity: bool = False,
    maps: Maps | None = None,
    truth: Tensor | None = None,
) -> dict[str, Tensor]:
    """Source, attention, translation, cycle, identity and true counterpart, as far as there are.

    Args:
        translate: pictures N x channels x H x W, one way.
        x: the sources, N x channels x H x W in [-1, 1].
        direction: which way.
        back: translate the translation back as well; only for what goes both ways.
        identity: and show what the way back makes of the sources.
        maps: instead of the translation's own attention.
        truth: the true counterparts.

    Returns:
        By label: N x channels x H x W each.
    """
    source, target = direction.upper().split("2")
    made = translate(x, direction)
    if maps is None:
        maps = {} if made.heatmap is None else {f"attention {source}": (x, made.heatmap)}
    columns = {f"source {source}": x}
    columns |= {label: overlay(seen, heatmap) for label, (seen, heatmap) in maps.items()}
    columns[f"{source} to {target}"] = made.image
    if back:
        columns[f"cycle {source}"] = translate(made.image, opposite(direction)).image
    if back and identity:
        columns[f"identity {source}"] = translate(x, opposite(direction)).image
    if truth is not None:
        columns[f"true {target}"] = truth
    return columns
