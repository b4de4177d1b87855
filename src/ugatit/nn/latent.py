"""Encoders and decoders around a content code, and a style that fills it: parts of UNIT and MUNIT."""

import torch.nn.functional as F
from torch import Tensor, nn

from ugatit.nn.blocks import Conv3, conv_block, plain_res_block
from ugatit.nn.norm import InstanceNorm, WholeNorm, adaptive_instance_norm
from ugatit.nn.precision import mean_pixel


def content_encoder(channels: int, width: int, blocks: int) -> nn.Sequential:
    """Pictures N x channels x H x W in [-1, 1], H and W multiples of 4, to codes N x 4w x H/4 x W/4."""
    relu = nn.ReLU(inplace=True)
    return nn.Sequential(
        conv_block(channels, width, 7, 1, InstanceNorm(), relu),
        conv_block(width, 2 * width, 4, 2, InstanceNorm(), relu),
        conv_block(2 * width, 4 * width, 4, 2, InstanceNorm(), relu),
        *[plain_res_block(4 * width) for _ in range(blocks)],
    )


def up_sampler(channels: int, width: int) -> nn.Sequential:
    """Codes N x 4w x h x w to pictures N x channels x 4h x 4w in [-1, 1]."""
    relu = nn.ReLU(inplace=True)
    return nn.Sequential(
        nn.Upsample(scale_factor=2),
        conv_block(4 * width, 2 * width, 5, 1, WholeNorm(2 * width), relu),
        nn.Upsample(scale_factor=2),
        conv_block(2 * width, width, 5, 1, WholeNorm(width), relu),
        conv_block(width, channels, 7, 1, None, nn.Tanh()),
    )


def style_encoder(channels: int, width: int, numbers: int) -> nn.Sequential:
    """Pictures N x channels x H x W in [-1, 1], sides of at least 32, to styles N x numbers; no norms, they would
    take the style away."""
    relu = nn.ReLU(inplace=True)
    return nn.Sequential(
        conv_block(channels, width, 7, 1, None, relu),
        conv_block(width, 2 * width, 4, 2, None, relu),
        *[conv_block(i * width, 4 * width, 4, 2, None, relu) for i in (2, 4, 4)],
        MeanPixel(),
        nn.Conv2d(4 * width, numbers, 1),
        nn.Flatten(),
    )


class MeanPixel(nn.Module):
    """The mean over all pixels."""

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to N x C x 1 x 1."""
        return mean_pixel(x)[:, :, None, None]


class AdaptiveResBlock(nn.Module):
    """conv3-AdaIN-ReLU-conv3-AdaIN plus the input.

    Args:
        channels: C.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.conv2 = Conv3(channels, bias=True), Conv3(channels, bias=True)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """N x C x H x W to the same; ``style`` is N x 4C: shift and scale of the first norm, then of the second."""
        shift1, scale1, shift2, scale2 = style[:, :, None, None].chunk(4, 1)
        hidden = F.relu(adaptive_instance_norm(self.conv1(x), scale1, shift1), inplace=True)
        return x + adaptive_instance_norm(self.conv2(hidden), scale2, shift2)


class StyledDecoder(nn.Module):
    """Residual blocks whose norms' scales and shifts a perceptron makes of the style, then up-sampling.

    Args:
        channels: of the pictures.
        width: of the last layer but one.
        blocks: how many residual blocks.
        numbers: of a style.
        hidden: units of the perceptron's two layers.
    """

    def __init__(self, channels: int, width: int, blocks: int, numbers: int, hidden: int):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(numbers, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, blocks * 16 * width),
        )  # fmt: skip
        self.blocks = nn.ModuleList([AdaptiveResBlock(4 * width) for _ in range(blocks)])
        self.up = up_sampler(channels, width)

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        """Contents N x 4w x h x w and styles N x numbers to pictures N x channels x 4h x 4w in [-1, 1]."""
        for block, part in zip(self.blocks, self.mlp(style).chunk(len(self.blocks), 1), strict=True):
            content = block(content, part)
        return self.up(content)


def init_kaiming(module: nn.Module) -> None:
    """Draw every convolution's and linear layer's weight as He et al. (2015) do for ReLU, and zero its bias; the scale
    of a `WholeNorm` from U(0, 1)."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, WholeNorm):
            nn.init.uniform_(part.weight)
