"""Spectral normalisation of what a convolution makes instead of its weight."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ugatit.nn.fast.factored import FEW, product
from ugatit.nn.precision import biased, full_precision, without_autocast


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
    pixels, weighted_v = convolve(padded, weight, stride, v)
    y = pixels.unflatten(2, (height, width))
    if follow:
        u = F.normalize(weighted_v.detach(), dim=0)
    with without_autocast(x.device):
        sigma = u @ weighted_v
    return biased(y / sigma, bias), u, v


def many_pixels(padded: Tensor, weight: Tensor, stride: int, v: Tensor) -> tuple[Tensor, Tensor]:
    """The convolution with the weight as it is, N x C' x pixels, and the weight, C' rows, times ``v``."""
    with without_autocast(padded.device):
        weighted_v = weight.flatten(1) @ v
    return F.conv2d(padded, weight, None, stride).flatten(2), weighted_v


def few_pixels(padded: Tensor, weight: Tensor, stride: int, v: Tensor) -> tuple[Tensor, Tensor]:
    """The same as one product in which ``v`` is one more pixel, so that the large weight is read once."""
    pixels = full_precision(F.unfold(padded, weight.shape[2], stride=stride)).mT  # N L CKK
    made = product(torch.cat([pixels.flatten(0, 1), v[None]]), weight)  # NL + 1, C'
    return made[:-1].unflatten(0, pixels.shape[:2]).mT, made[-1]
