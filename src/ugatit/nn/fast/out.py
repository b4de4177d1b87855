"""A convolution to few maps, for the CPU: as one product of matrices, which libraries leave to layers of many maps."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ugatit.nn.precision import biased

MOST, LEAST = 4, 16  # maps that are made, and maps that they are made of
PIXELS = 20_000  # of a picture; of larger ones the parts, C'KK numbers a pixel, no longer stay in the cache


class FewMaps(torch.autograd.Function):
    """Each pixel gives its part to all output pixels that see it, and these are added up; and the gradient of that."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(padded, weight)
        kernel = weight.shape[2]
        height, width = (side - kernel + 1 for side in padded.shape[2:])
        rows = taps(weight)
        parts = torch.stack([rows @ one for one in padded.flatten(2)])  # N C'KK P
        return F.fold(parts, (height, width), kernel, padding=kernel - 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        padded, weight = ctx.saved_tensors
        count, channels, kernel, _ = weight.shape
        parts = F.unfold(grad, kernel, padding=kernel - 1)  # N C'KK P
        grad_padded = grad_weight = None
        if ctx.needs_input_grad[0]:
            turned = taps(weight).T.contiguous()
            grad_padded = torch.stack([turned @ one for one in parts]).view_as(padded)
        if ctx.needs_input_grad[1]:
            each = [part @ one.T for part, one in zip(parts, padded.flatten(2), strict=True)]  # C'KK C
            of_taps = torch.stack(each).sum(0).view(count, kernel, kernel, channels)
            grad_weight = of_taps.permute(0, 3, 1, 2).flip(2, 3).contiguous()
        return grad_padded, grad_weight


def taps(weight: Tensor) -> Tensor:
    """Kernels C' x C x K x K as C'KK rows, from what a pixel gives to the last output pixel that sees it on."""
    return weight.flip(2, 3).permute(0, 2, 3, 1).reshape(-1, weight.shape[1])


def few_maps(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether pictures N x C x H x W and kernels C' x C x K x K are such that this is the faster way."""
    if x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return False
    return weight.shape[0] <= MOST and weight.shape[1] >= LEAST and x.shape[2] * x.shape[3] <= PIXELS


def out_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A reflection-padded convolution as one product for all taps, C'KK x C by C x pixels."""
    side = weight.shape[2] // 2
    return biased(FewMaps.apply(F.pad(x, (side,) * 4, mode="reflect"), weight), bias)
