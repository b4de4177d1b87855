"""Discriminators that judge patches: the 70x70 PatchGAN (Isola et al., 2017) and the multi-scale one of MUNIT."""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from ugatit.nn.blocks import conv_block


class PatchDiscriminator(nn.Module):
    """Four convolutions with leaky ReLU, three of them of stride 2, and one to a number a patch; kernels 4 x 4.

    Args:
        channels: of the pictures.
        width: of the first layer; the next three double it.
        norms: of the four layers, an `nn.Identity` where there is none.
        padding: zeros at each side.
    """

    def __init__(self, channels: int, width: int, norms: list[nn.Module], padding: int = 1):
        super().__init__()
        widths = [channels, width, 2 * width, 4 * width, 8 * width]
        strides = (2, 2, 2, 1)
        self.convs = nn.ModuleList(
            [nn.Conv2d(widths[i], widths[i + 1], 4, strides[i], padding) for i in range(len(strides))]
        )
        self.norms = nn.ModuleList(norms)
        self.judge = nn.Conv2d(widths[-1], 1, 4, 1, padding)

    def forward(self, x: Tensor, normed: bool = True) -> Tensor:
        """Pictures N x channels x H x W to N x 1 x h x w; without the norms if not ``normed``."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = F.leaky_relu(norm(conv(x)) if normed else conv(x), 0.2)
        return self.judge(x)


class MultiScaleDiscriminator(nn.Module):
    """Three discriminators without norms, which see the picture at its size, a half and a quarter.

    Args:
        channels: of the pictures.
        width: of each one's first layer; the next three double it.
        slope: of the leaky ReLU.
    """

    def __init__(self, channels: int, width: int, slope: float = 0.2):
        super().__init__()
        widths = [channels, width, 2 * width, 4 * width, 8 * width]

        def one_scale() -> nn.Sequential:
            layers = [conv_block(i, o, 4, 2, None, nn.LeakyReLU(slope)) for i, o in pairwise(widths)]
            return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 1))

        self.scales = nn.ModuleList([one_scale() for _ in range(3)])

    def forward(self, x: Tensor) -> list[Tensor]:
        """Pictures N x channels x H x W, sides of at least 64, to N x 1 x h x w for each scale, largest first."""
        verdicts = []
        for scale in self.scales:
            verdicts.append(scale(x))
            x = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        return verdicts
