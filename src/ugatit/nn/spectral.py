"""Convolution with spectral normalisation (Miyato et al., 2018)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ugatit.nn.precision import without_autocast
from ugatit.nn.switch import switched


@switched
def spectral_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, u: Tensor, v: Tensor, follow: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Reflection-padded convolution with the weight divided by its largest singular value, ``u @ weight @ v``.

    Args:
        x: N x C x H x W.
        weight: C' x C x K x K; as a matrix it has a row for each of C'.
        bias: C', if there is one.
        stride: of the convolution; the padding is 1.
        u, v: the singular vectors, C' and C K K.
        follow: first make one step of the power iteration.

    Returns:
        N x C' x H' x W', and both vectors.
    """
    with without_autocast(x.device):
        matrix = weight.flatten(1)
        if follow:
            with torch.no_grad():
                v = F.normalize(matrix.T @ u, dim=0)
                u = F.normalize(matrix @ v, dim=0)
        sigma = u @ matrix @ v
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
    return F.conv2d(padded, weight / sigma, bias, stride), u, v


class SpectralConv2d(nn.Conv2d):
    """`spectral_conv` with its weight and vectors, which follow the weight with each forward pass in training mode."""

    u: Tensor
    v: Tensor

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, bias: bool = True):
        super().__init__(channels_in, channels_out, kernel, stride, padding=1, padding_mode="reflect", bias=bias)
        rows = self.weight.flatten(1)
        self.register_buffer("u", F.normalize(torch.randn(rows.shape[0]), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(rows.shape[1]), dim=0))

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to N x C' x H' x W'."""
        y, u, v = spectral_conv(x, self.weight, self.bias, self.stride[0], self.u, self.v, self.training)
        if self.training:
            self.u, self.v = u, v
        return y
