"""Convolution, residual and up-sampling blocks of the generator (paper Table 4). All are reflection padded."""

import torch.nn.functional as F
from torch import Tensor, nn

from ugatit.nn.norm import LIN, AdaLIN


def conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Reflection-padded convolution without bias that keeps the size, divided by ``stride``."""
    return nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False, padding_mode="reflect")


def conv_in_relu(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution, instance norm (biased variance, not affine), ReLU: Table 4's encoder layers."""
    return nn.Sequential(
        conv(channels_in, channels_out, kernel, stride), nn.InstanceNorm2d(channels_out), nn.ReLU(inplace=True)
    )


class ResBlock(nn.Module):
    """conv3-IN-ReLU-conv3-IN plus the input, nothing after the sum: Table 4's encoder bottleneck."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.conv2 = conv(channels, channels, 3), conv(channels, channels, 3)
        self.norm = nn.InstanceNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to the same."""
        hidden = F.relu(self.norm(self.conv1(x)), inplace=True)
        return x + self.norm(self.conv2(hidden))


class AdaLINResBlock(nn.Module):
    """conv3-AdaLIN-ReLU-conv3-AdaLIN plus the input: Table 4's decoder bottleneck."""

    def __init__(self, channels: int, rho: float = 1.0):
        super().__init__()
        self.conv1, self.conv2 = conv(channels, channels, 3), conv(channels, channels, 3)
        self.norm1, self.norm2 = AdaLIN(channels, rho), AdaLIN(channels, rho)

    def forward(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        """N x C x H x W to the same; ``gamma``, ``beta`` are N x C x 1 x 1."""
        hidden = F.relu(self.norm1(self.conv1(x), gamma, beta), inplace=True)
        return x + self.norm2(self.conv2(hidden), gamma, beta)


class UpBlock(nn.Module):
    """Nearest x2, conv3, LIN, ReLU: Table 4's decoder up-sampling."""

    def __init__(self, channels_in: int, channels_out: int, rho: float = 0.0):
        super().__init__()
        self.conv = conv(channels_in, channels_out, 3)
        self.norm = LIN(channels_out, rho)

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
