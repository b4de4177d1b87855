"""CAM's attention without the maps of twice the width."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ugatit.nn.fast.factored import FEW, product
from ugatit.nn.precision import biased


def attend(x: Tensor, avg: Tensor, top: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Scaling channels and mixing them are both linear: together they are one convolution of half the width."""
    if len(x) * x.shape[2] * x.shape[3] <= FEW:
        return few_pixels(x, avg, top, weight, bias)
    by_avg, by_max = weight.chunk(2, 1)  # C C 1 1 each
    return F.conv2d(x, by_avg * avg[:, :, None, None] + by_max * top[:, :, None, None], bias)


def few_pixels(x: Tensor, avg: Tensor, top: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Not folded: there are more weights to fold than pixels to weigh."""
    pixels = x.flatten(2).mT.flatten(0, 1)  # NHW C
    weighed = torch.cat([pixels * avg, pixels * top], 1)
    mixed = product(weighed, weight).unflatten(0, (len(x), -1)).mT.unflatten(2, x.shape[2:])  # N C H W
    return biased(mixed, bias)
