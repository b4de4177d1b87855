"""Convolution with spectral normalisation (Miyato et al., 2018)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ugatit.nn.fast.factored import FEW, factored_product
from ugatit.nn.precision import without_autocast


class SpectralConv2d(nn.Conv2d):
    """Reflection-padded convolution with its weight divided by its largest singular value.

    The division is applied to the output, which is smaller than the weight in the deep layers; by linearity the
    result and its gradient are the same. ``u`` and ``v`` follow the weight by one power iteration each forward pass
    in training mode.
    """

    u: Tensor
    v: Tensor

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, bias: bool = True):
        super().__init__(channels_in, channels_out, kernel, stride, padding=1, padding_mode="reflect", bias=bias)
        rows = self.weight.flatten(1)
        self.register_buffer("u", F.normalize(torch.randn(rows.shape[0]), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(rows.shape[1]), dim=0))

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to N x C' x H' x W'."""
        self.follow_v()
        height, width = ((side + 2 - self.kernel_size[0]) // self.stride[0] + 1 for side in x.shape[2:])
        few = len(x) * height * width <= FEW
        y, weighted_v = self.few_pixels(x, width) if few else self.many_pixels(x)
        if self.training:
            self.u = F.normalize(weighted_v.detach(), dim=0)
        with without_autocast(x.device):
            sigma = self.u @ weighted_v
        y = y / sigma
        return y if self.bias is None else y + self.bias[:, None, None]

    @torch.no_grad()
    def follow_v(self) -> None:
        """The first half of the power iteration."""
        if self.training:
            with without_autocast(self.weight.device):
                self.v = F.normalize(self.weight.flatten(1).T @ self.u, dim=0)

    def many_pixels(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The convolution with the weight as it is, and the weight, C' rows, times ``v``."""
        with without_autocast(x.device):
            weighted_v = self.weight.flatten(1) @ self.v
        return self._conv_forward(x, self.weight, None), weighted_v

    def few_pixels(self, x: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """The same as one product in which ``v`` is one more pixel, so that the large weight is read once.

        Args:
            x: N x C x H x W.
            width: of the output.
        """
        padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
        pixels = F.unfold(padded, self.kernel_size, stride=self.stride).mT  # N L CKK
        rows = torch.cat([pixels.flatten(0, 1), self.v[None].to(pixels.dtype)])
        made = factored_product(rows, self.weight)  # NL + 1, C'
        y = made[:-1].unflatten(0, pixels.shape[:2]).mT  # N C' L
        return y.unflatten(2, (-1, width)), made[-1]
