"""Class activation map attention (paper section 2.1, Zhou et al. 2016), in generators and discriminators alike."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ugatit.nn.fast.factored import FEW, factored_product
from ugatit.nn.precision import full_precision, mean_pixel, wide, without_autocast


class Cam(nn.Module):
    """Auxiliary classifier on the average and the maximum of each feature map; its weights re-weight the maps.

    ``avg_fc`` and ``max_fc`` give the two logits of Eq. 5 and 6. The maps times ``avg_fc``'s weights, and times
    ``max_fc``'s, are concatenated and mixed by a 1x1 convolution. Scaling channels and mixing them is linear, so both
    are folded into one convolution of half the width and the concatenation is never built.

    Args:
        channels: C, of the maps.
        activation: after the 1x1 convolution.
        spectral: divide the classifiers' weights by their norm for the logits (a row's only singular value is its
            norm). The attention keeps the raw weights, as in the authors' discriminators.
    """

    def __init__(self, channels: int, activation: nn.Module, spectral: bool = False):
        super().__init__()
        self.avg_fc = nn.Linear(channels, 1, bias=False)
        self.max_fc = nn.Linear(channels, 1, bias=False)
        self.conv = nn.Conv2d(2 * channels, channels, 1)
        self.activation = activation
        self.spectral = spectral

    def logit(self, x: Tensor) -> Tensor:
        """``cam_logit``, N x 2, of maps N x C x H x W: average branch, maximum branch; in float32 at least."""
        avg, top = self.avg_fc.weight, self.max_fc.weight  # 1 C each
        if self.spectral:
            avg, top = F.normalize(avg, dim=1), F.normalize(top, dim=1)
        pooled_max = full_precision(F.adaptive_max_pool2d(x, 1).flatten(1))
        with without_autocast(x.device):
            return torch.cat([F.linear(mean_pixel(x), avg), F.linear(pooled_max, top)], 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps N x C x H x W to (attended maps N x C x H x W, ``cam_logit`` N x 2)."""
        mixed = self.few_pixels(x) if len(x) * x.shape[2] * x.shape[3] <= FEW else self.many_pixels(x)
        return self.activation(mixed), self.logit(x)

    def many_pixels(self, x: Tensor) -> Tensor:
        """Both branches folded into one convolution."""
        by_avg, by_max = self.conv.weight.chunk(2, 1)  # C C 1 1 each
        weight = by_avg * self.avg_fc.weight[:, :, None, None] + by_max * self.max_fc.weight[:, :, None, None]
        return F.conv2d(x, weight, self.conv.bias)

    def few_pixels(self, x: Tensor) -> Tensor:
        """Not folded: there are more weights to fold than pixels to weigh."""
        pixels = x.flatten(2).mT.flatten(0, 1)  # NHW C
        weighed = torch.cat([pixels * self.avg_fc.weight, pixels * self.max_fc.weight], 1)
        mixed = factored_product(weighed, self.conv.weight).unflatten(0, (len(x), -1)).mT.unflatten(2, x.shape[2:])
        return mixed if self.conv.bias is None else mixed + self.conv.bias[:, None, None]  # N C H W


def heatmap(attended: Tensor) -> Tensor:
    """Attention map of attended maps N x C x H x W: the sum over channels, N x 1 x H x W, not scaled."""
    return attended.sum(1, keepdim=True, dtype=wide(attended.dtype))
