"""Class activation map attention (paper section 2.1, Zhou et al. 2016), in generators and discriminators alike."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ugatit.nn.precision import full_precision, mean_pixel, wide, without_autocast
from ugatit.nn.switch import switched


@switched
def attend(x: Tensor, avg: Tensor, top: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The maps weighed by both classifiers' weights, one under the other, and mixed by a 1x1 convolution (Table 4).

    Args:
        x: feature maps, N x C x H x W.
        avg, top: weights of the classifiers of the average and of the maximum, 1 x C each.
        weight, bias: of the convolution, C x 2C x 1 x 1 and C.

    Returns:
        N x C x H x W.
    """
    weighed = torch.cat([x * avg[:, :, None, None], x * top[:, :, None, None]], 1)  # N 2C H W
    return F.conv2d(weighed, weight, bias)


class Cam(nn.Module):
    """Auxiliary classifier on the average and the maximum of each feature map; its weights re-weight the maps.

    ``avg_fc`` and ``max_fc`` give the two logits of Eq. 5 and 6.

    Args:
        channels: C, of the maps.
        activation: after the 1x1 convolution.
        spectral: divide the classifiers' weights by their norm for the logits (a row's only singular value is its
            norm). The attention keeps the raw weights, as in the authors' discriminators.
        bias: the classifiers have one, in common, and attention is by weight plus bias, as in the authors' TensorFlow
            code. ``avg_fc`` and ``max_fc`` hold that sum.
    """

    def __init__(self, channels: int, activation: nn.Module, spectral: bool = False, bias: bool = False):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(())) if bias else None
        self.avg_fc = nn.Linear(channels, 1, bias=False)
        self.max_fc = nn.Linear(channels, 1, bias=False)
        self.conv = nn.Conv2d(2 * channels, channels, 1)
        self.activation = activation
        self.spectral = spectral

    def logit(self, x: Tensor) -> Tensor:
        """``cam_logit``, N x 2, of maps N x C x H x W: average branch, maximum branch; in float32 at least."""
        avg, top = self.avg_fc.weight, self.max_fc.weight  # 1 C each
        if self.bias is not None:
            avg, top = avg - self.bias, top - self.bias
        if self.spectral:
            avg, top = F.normalize(avg, dim=1), F.normalize(top, dim=1)
        pooled_max = full_precision(x.flatten(2).max(2).values)
        with without_autocast(x.device):
            logit = torch.cat([F.linear(mean_pixel(x), avg), F.linear(pooled_max, top)], 1)
            return logit if self.bias is None else logit + self.bias

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps N x C x H x W to (attended maps N x C x H x W, ``cam_logit`` N x 2)."""
        attended = attend(x, self.avg_fc.weight, self.max_fc.weight, self.conv.weight, self.conv.bias)
        return self.activation(attended), self.logit(x)


def heatmap(attended: Tensor) -> Tensor:
    """Attention map of attended maps N x C x H x W: the sum over channels, N x 1 x H x W, not scaled."""
    return attended.sum(1, keepdim=True, dtype=wide(attended.dtype))
