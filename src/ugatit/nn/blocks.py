"""Convolution, residual and up-sampling blocks of the generator (paper Table 4). All are reflection padded."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn


def conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Reflection-padded convolution without bias that keeps the size, divided by ``stride``."""
    return nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False, padding_mode="reflect")


def conv_in_relu(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution, instance norm (biased variance, not affine), ReLU: Table 4's encoder layers."""
    return nn.Sequential(
        conv(channels_in, channels_out, kernel, stride), nn.InstanceNorm2d(channels_out), nn.ReLU(inplace=True)
    )


class ResBlock(nn.Module):
    """conv3-norm-ReLU-conv3-norm plus the input, nothing after the sum: Table 4's bottlenecks.

    Args:
        channels: C.
        norm: makes the two normalisation layers from C; they take the maps and whatever else the block is called with.
    """

    def __init__(self, channels: int, norm: Callable[[int], nn.Module]):
        super().__init__()
        self.conv1, self.conv2 = conv(channels, channels, 3), conv(channels, channels, 3)
        self.norm1, self.norm2 = norm(channels), norm(channels)

    def forward(self, x: Tensor, *style: Tensor) -> Tensor:
        """N x C x H x W to the same; ``style`` is (gamma, beta), each N x C x 1 x 1, for AdaLIN, else nothing."""
        hidden = F.relu(self.norm1(self.conv1(x), *style), inplace=True)
        return x + self.norm2(self.conv2(hidden), *style)


class UpBlock(nn.Module):
    """Nearest x2, conv3, norm, ReLU: Table 4's decoder up-sampling."""

    def __init__(self, channels_in: int, channels_out: int, norm: Callable[[int], nn.Module]):
        super().__init__()
        self.conv = conv(channels_in, channels_out, 3)
        self.norm = norm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to N x C' x 2H x 2W."""
        up = F.interpolate(x, scale_factor=2, mode="nearest")
        return F.relu(self.norm(self.conv(up)), inplace=True)


def init_normal(module: nn.Module, std: float = 0.02) -> None:
    """Draw every convolution's and linear layer's weight from N(0, std^2) and zero its bias (appendix B.2)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.normal_(part.weight, 0.0, std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
