"""Spectral normalisation of what a convolution makes instead of its weight."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ugatit.nn.fast.factored import FEW, product
from ugatit.nn.precision import without_autocast


def spectral_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, u: Tensor, v: Tensor, follow: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """By linearity the output can be divided instead of the weight, which is larger in the deep layers."""
    if follow:
        with torch.no_grad(), without_autocast(weight.device):
            v = F.normalize(weight.flatten(1).T @ u, dim=0)
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
    height, width = ((side - weight.shape[2]) // stride + 1 for side in padded.shape[2:])
    convolve = few_pixels if len(x) * height * width <= FEW else many_pixels
    y, weighted_v = convolve(padded, weight, stride, v, width)
    if follow:
        u = F.normalize(weighted_v.detach(), dim=0)
    with without_autocast(x.device):
        sigma = u @ weighted_v
    y = y / sigma
    return (y if bias is None else y + bias[:, None, None]), u, v


def many_pixels(padded: Tensor, weight: Tensor, stride: int, v: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The convolution with the weight as it is, and the weight, C' rows, times ``v``."""
    with without_autocast(padded.device):
        weighted_v = weight.flatten(1) @ v
    return F.conv2d(padded, weight, None, stride), weighted_v


def few_pixels(padded: Tensor, weight: Tensor, stride: int, v: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The same as one product in which ``v`` is one more pixel, so that the large weight is read once."""
    pixels = F.unfold(padded, weight.shape[2], stride=stride).mT  # N L CKK
    rows = torch.cat([pixels.flatten(0, 1), v[None].to(pixels.dtype)])
    made = product(rows, weight)  # NL + 1, C'
    y = made[:-1].unflatten(0, pixels.shape[:2]).mT  # N C' L
    return y.unflatten(2, (-1, width)), made[-1]
