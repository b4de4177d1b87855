"""Differentiable augmentation (Zhao et al., NeurIPS 2020): what discriminators of few pictures see, so that they do not
learn these by heart. Real and translated pictures are changed alike, in the updates of both sides."""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Kind = Literal["color", "translation", "cutout"]
Uniform = Callable[..., Tensor]  # numbers in [0, 1) of a shape

SHIFT = 1 / 8  # of the side, at most
HOLE = 1 / 2  # of the side


def color(x: Tensor, uniform: Uniform) -> Tensor:
    """Brightness, saturation and contrast of each picture, N x C x H x W."""
    kind = x.dtype
    x = x + uniform(1, 1, 1) - 0.5
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * (2 * uniform(1, 1, 1)) + grey
    mean = x.mean((1, 2, 3), keepdim=True)
    return ((x - mean) * (uniform(1, 1, 1) + 0.5) + mean).to(kind)


def along(dim: int, rows: Tensor) -> Tensor:
    """What holds for each row or column of each picture, N x side, as N x 1 x side x 1 or N x 1 x 1 x side."""
    return rows[:, None, :, None] if dim == 2 else rows[:, None, None, :]


def translation(x: Tensor, uniform: Uniform) -> Tensor:
    """Each picture, N x C x H x W, moved by up to an eighth of its side; what comes in is 0."""
    size = x.shape[2:]
    x = F.pad(x, (1, 1, 1, 1))
    for dim, side in zip((2, 3), size, strict=True):
        most = round(SHIFT * side)
        shift = (uniform(1) * (2 * most + 1)).long() - most  # N 1
        places = (torch.arange(side, device=x.device) - shift + 1).clamp(0, side + 1)  # N side
        shape = [*x.shape[:dim], side, *x.shape[dim + 1 :]]
        x = x.gather(dim, along(dim, places).expand(shape))
    return x


def cutout(x: Tensor, uniform: Uniform) -> Tensor:
    """Each picture, N x C x H x W, with a hole of half its sides, that is 0, somewhere, perhaps over the edge."""
    inside = torch.ones((), dtype=torch.bool, device=x.device)
    for dim, side in ((2, x.shape[2]), (3, x.shape[3])):
        hole = round(HOLE * side)
        start = (uniform(1) * (side + 1 - hole % 2)).long() - hole // 2  # N 1
        places = torch.arange(side, device=x.device)
        within = (places >= start) & (places < start + hole)  # N side
        inside = inside & along(dim, within)
    return x * ~inside


KINDS: dict[str, Callable[[Tensor, Uniform], Tensor]] = {
    "color": color,
    "translation": translation,
    "cutout": cutout,
}


class DiffAugment:
    """Changes what networks in training mode are called with first, pictures N x C x H x W, each picture otherwise.

    Args:
        kinds: of change, in order.
        rank, processes: which of several processes this is, that draw from generators in the same state: each takes
            numbers of its own.
    """

    def __init__(self, kinds: tuple[Kind, ...], rank: int = 0, processes: int = 1):
        self.kinds, self.rank, self.processes = kinds, rank, processes

    def watch(self, network: nn.Module) -> None:
        """Have a network see changed pictures from now on."""
        network.register_forward_pre_hook(self.change)

    def change(self, network: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """What a network is called with instead of what was given."""
        return (self(given[0]), *given[1:]) if network.training else given

    def __call__(self, x: Tensor) -> Tensor:
        """Changed pictures, N x C x H x W."""

        def uniform(*shape: int) -> Tensor:
            return torch.rand(self.processes, len(x), *shape, device=x.device)[self.rank]  # half ones reach 1

        for kind in self.kinds:
            x = KINDS[kind](x, uniform)
        return x
