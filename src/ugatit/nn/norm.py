"""Layer-instance normalisation (paper section 2.1.1, Eq. 1) and spectral normalisation."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-5


def full_precision(x: Tensor) -> Tensor:
    """Half-precision numbers as float32, others as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def layer_instance_norm(x: Tensor, rho: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """Eq. 1: ``gamma * (rho * IN(x) + (1 - rho) * LN(x)) + beta``.

    Variances are unbiased, as in the authors' code. The layer's statistics follow from the channels', and both
    normalisations together are one multiply-add a channel, so ``x`` is read twice and no second map is built.

    Args:
        x: feature maps, N x C x H x W, with H * W > 1.
        rho: share of instance norm, 1 x C x 1 x 1 in [0, 1].
        gamma, beta: scale and shift, N x C x 1 x 1 or 1 x C x 1 x 1.

    Returns:
        N x C x H x W in the type of ``x``; half precision is widened inside, its variance would overflow.
    """
    pixels, channels = x.shape[2] * x.shape[3], x.shape[1]
    wide = full_precision(x)
    var_i, mean_i = torch.var_mean(wide, dim=(2, 3), keepdim=True)  # N C 1 1
    mean_l = mean_i.mean(1, keepdim=True)  # N 1 1 1
    squares = (pixels - 1) * var_i + pixels * (mean_i - mean_l).square()  # about the layer's mean
    var_l = squares.sum(1, keepdim=True) / (channels * pixels - 1)
    inv_i, inv_l = rho * torch.rsqrt(var_i + EPS), (1 - rho) * torch.rsqrt(var_l + EPS)
    scale = gamma * (inv_i + inv_l)
    shift = beta - gamma * (inv_i * mean_i + inv_l * mean_l)
    return torch.addcmul(shift, wide, scale).to(x.dtype)


class AdaLIN(nn.Module):
    """Adaptive layer-instance normalisation: ``rho`` is learned, ``gamma`` and ``beta`` come from outside (Eq. 1)."""

    def __init__(self, channels: int, rho: float = 1.0):
        super().__init__()
        self.rho = nn.Parameter(torch.full((1, channels, 1, 1), rho))

    def forward(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        """Normalise ``x`` (N x C x H x W) with ``gamma``, ``beta`` of N x C x 1 x 1."""
        return layer_instance_norm(x, self.rho, gamma, beta)


class LIN(nn.Module):
    """Layer-instance normalisation: AdaLIN with its own learned ``gamma`` and ``beta`` (the up-sampling blocks)."""

    def __init__(self, channels: int, rho: float = 0.0):
        super().__init__()
        self.rho = nn.Parameter(torch.full((1, channels, 1, 1), rho))
        self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x``, N x C x H x W."""
        return layer_instance_norm(x, self.rho, self.gamma, self.beta)


@torch.no_grad()
def clip_rho(module: nn.Module) -> None:
    """Clip every ``rho`` inside ``module`` to [0, 1], as Eq. 1 asks after each optimiser step."""
    for part in module.modules():
        if isinstance(part, AdaLIN | LIN):
            part.rho.clamp_(0, 1)


class SpectralConv2d(nn.Conv2d):
    """Convolution with its weight divided by its largest singular value (Miyato et al., 2018).

    The division is applied to the output, which is smaller than the weight in the deep layers; by linearity the
    result and its gradient are the same. ``u`` and ``v`` follow the weight by one power iteration each forward pass
    in training mode.
    """

    u: Tensor
    v: Tensor

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        rows = self.weight.flatten(1)
        self.register_buffer("u", F.normalize(torch.randn(rows.shape[0]), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(rows.shape[1]), dim=0))

    def sigma(self) -> Tensor:
        """Estimate of the weight's largest singular value, a scalar with gradient."""
        with torch.autocast(self.weight.device.type, enabled=False):
            rows = self.weight.flatten(1)
            if self.training:
                with torch.no_grad():
                    self.v = F.normalize(rows.T @ self.u, dim=0)
                    self.u = F.normalize(rows @ self.v, dim=0)
            return self.u @ (rows @ self.v)

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to N x C' x H' x W'."""
        y = self._conv_forward(x, self.weight, None) / self.sigma()
        return y if self.bias is None else y + self.bias[:, None, None]
