"""Convolution, residual and up-sampling blocks of the generators; U-GAT-IT's are those of its paper's Table 4."""

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from ugatit.nn.norm import InstanceNorm
from ugatit.nn.switch import switched


def conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Reflection-padded convolution that keeps the size, divided by ``stride``."""
    return nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False, padding_mode="reflect")


def conv_in_relu(channels_in: int, channels_out: int, norm: nn.Module, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution, instance norm, ReLU: Table 4's encoder layers."""
    return nn.Sequential(conv(channels_in, channels_out, kernel, stride), norm, nn.ReLU(inplace=True))


def conv_block(
    channels_in: int,
    channels_out: int,
    kernel: int,
    stride: int = 1,
    norm: nn.Module | None = None,
    activation: nn.Module | None = None,
    padding: Literal["reflect", "zeros"] = "reflect",
) -> nn.Sequential:
    """Convolution with bias that keeps the size, divided by ``stride``; norm and activation after it, if given."""
    layer = nn.Conv2d(channels_in, channels_out, kernel, stride, (kernel - 1) // 2, padding_mode=padding)
    return nn.Sequential(layer, *[part for part in (norm, activation) if part is not None])


def up_block(channels_in: int, channels_out: int, norm: nn.Module) -> nn.Sequential:
    """Transposed convolution with bias that doubles the size, norm, ReLU: CycleGAN's and its followers' up-sampling."""
    layer = nn.ConvTranspose2d(channels_in, channels_out, 3, 2, padding=1, output_padding=1)
    return nn.Sequential(layer, norm, nn.ReLU(inplace=True))


@switched
def conv3(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Reflection-padded 3x3 convolution that keeps the size.

    Args:
        x: N x C x H x W.
        weight, bias: C' x C x 3 x 3, and C' if there is one.

    Returns:
        N x C' x H x W.
    """
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), weight, bias)


class Conv3(nn.Conv2d):
    """`conv3` with its weight and bias."""

    def __init__(self, channels: int, bias: bool = False):
        super().__init__(channels, channels, 3, padding=1, bias=bias, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to the same."""
        return conv3(x, self.weight, self.bias)


class ResBlock(nn.Module):
    """conv3-norm-ReLU-conv3-norm plus the input, nothing after the sum: Table 4's bottlenecks.

    Args:
        channels: C.
        norm: makes the two normalisation layers from C; they take the maps and whatever else the block is called with.
        bias: of the convolutions.
    """

    def __init__(self, channels: int, norm: Callable[[int], nn.Module], bias: bool = False):
        super().__init__()
        self.conv1, self.conv2 = Conv3(channels, bias), Conv3(channels, bias)
        self.norm1, self.norm2 = norm(channels), norm(channels)

    def forward(self, x: Tensor, *style: Tensor) -> Tensor:
        """N x C x H x W to the same; ``style`` is (gamma, beta), each N x C x 1 x 1, for AdaLIN, else nothing."""
        hidden = F.relu(self.norm1(self.conv1(x), *style), inplace=True)
        return x + self.norm2(self.conv2(hidden), *style)


def plain_res_block(channels: int) -> ResBlock:
    """A residual block with instance norms and biases, as CycleGAN, UNIT, MUNIT and DRIT have."""
    return ResBlock(channels, lambda _: InstanceNorm(), bias=True)


@switched
def up_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Nearest x2, then a reflection-padded 3x3 convolution.

    Args:
        x: N x C x H x W.
        weight, bias: C' x C x 3 x 3, and C' if there is one.

    Returns:
        N x C' x 2H x 2W.
    """
    doubled = F.interpolate(x, scale_factor=2, mode="nearest")
    return F.conv2d(F.pad(doubled, (1, 1, 1, 1), mode="reflect"), weight, bias)


class UpBlock(nn.Module):
    """Nearest x2, conv3, norm, ReLU: Table 4's decoder up-sampling."""

    def __init__(self, channels_in: int, channels_out: int, norm: Callable[[int], nn.Module], bias: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, bias=bias)  # holds the weight; up_conv pads and convolves
        self.norm = norm(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to N x C' x 2H x 2W."""
        return F.relu(self.norm(up_conv(x, self.conv.weight, self.conv.bias)), inplace=True)


@switched
def out_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Reflection-padded convolution that keeps the size.

    Args:
        x: N x C x H x W.
        weight, bias: C' x C x K x K, K odd, and C' if there is one.

    Returns:
        N x C' x H x W.
    """
    side = weight.shape[2] // 2
    return F.conv2d(F.pad(x, (side,) * 4, mode="reflect"), weight, bias)


class OutConv(nn.Conv2d):
    """`out_conv` with its weight and bias: Table 4's last layer."""

    def __init__(self, channels_in: int, channels_out: int, bias: bool = False):
        super().__init__(channels_in, channels_out, 7, padding=3, bias=bias, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to N x C' x H x W."""
        return out_conv(x, self.weight, self.bias)


def init_normal(module: nn.Module, std: float = 0.02) -> None:
    """Draw every convolution's and linear layer's weight from N(0, std^2) and zero its bias (appendix B.2)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(part.weight, 0.0, std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
