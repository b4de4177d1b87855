"""Layer-instance normalisation (paper section 2.1.1, Eq. 1)."""

import torch
from torch import Tensor, nn

from ugatit.nn.precision import full_precision
from ugatit.nn.switch import switched

EPS = 1e-5


@switched
def layer_instance_norm(x: Tensor, rho: Tensor, gamma: Tensor, beta: Tensor, correction: int = 1) -> Tensor:
    """Eq. 1: ``gamma * (rho * IN(x) + (1 - rho) * LN(x)) + beta``.

    Args:
        x: feature maps, N x C x H x W, with H * W > 1.
        rho: share of instance norm, 1 x C x 1 x 1 in [0, 1].
        gamma, beta: scale and shift, N x C x 1 x 1 or 1 x C x 1 x 1.
        correction: variances are divided by the number of values less this; AdaLIN's are unbiased, as in the authors'
            code.

    Returns:
        N x C x H x W in the type of ``x``; half precision is widened inside, its variance would overflow.
    """
    wide = full_precision(x)
    instance_norm = normalised(wide, (2, 3), correction)
    layer_norm = normalised(wide, (1, 2, 3), correction)
    return (gamma * (rho * instance_norm + (1 - rho) * layer_norm) + beta).to(x.dtype)


def normalised(x: Tensor, dims: tuple[int, ...], correction: int) -> Tensor:
    """``x`` with mean 0 and variance 1 over ``dims``."""
    variance, mean = torch.var_mean(x, dims, correction=correction, keepdim=True)
    return (x - mean) / torch.sqrt(variance + EPS)


class InstanceNorm(nn.Module):
    """Instance norm as in the encoder: variance over N, not over N - 1.

    Eq. 1 with rho 1. `torch.nn.InstanceNorm2d`'s gradient on the CPU is wrong where the gradient that comes in lies in
    memory with channels last and the maps do not.

    Args:
        channels: C, for a learned scale and shift a channel; neither if not given.
    """

    def __init__(self, channels: int | None = None):
        super().__init__()
        self.weight = None if channels is None else nn.Parameter(torch.ones(channels))
        self.bias = None if channels is None else nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x``, N x C x H x W."""
        one = full_precision(x.new_ones(1, 1, 1, 1))
        if self.weight is None or self.bias is None:
            return layer_instance_norm(x, one, one, torch.zeros_like(one), 0)
        return layer_instance_norm(x, one, self.weight[:, None, None], self.bias[:, None, None], 0)


def adaptive_instance_norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """AdaIN (Huang & Belongie, 2017): instance norm of N x C x H x W, biased variance, with scale and shift from
    outside, N x C x 1 x 1 each."""
    return layer_instance_norm(x, full_precision(x.new_ones(1, 1, 1, 1)), gamma, beta, 0)


class LayerNorm(nn.Module):
    """Layer norm over a whole picture's channels and pixels, with a learned scale and shift a channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x``, N x C x H x W."""
        zero = full_precision(x.new_zeros(1, 1, 1, 1))
        return layer_instance_norm(x, zero, self.weight[:, None, None], self.bias[:, None, None], 0)


class WholeNorm(nn.Module):
    """MUNIT's layer norm: over all of a picture, divided by the unbiased deviation plus 1e-5; scale from U(0, 1)."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x``, N x C x H x W."""
        wide = full_precision(x)
        std, mean = torch.std_mean(wide, dim=(1, 2, 3), keepdim=True)
        scale = self.weight[:, None, None] / (std + EPS)  # N C 1 1
        return torch.addcmul(self.bias[:, None, None] - mean * scale, wide, scale).to(x.dtype)


class AdaLIN(nn.Module):
    """Adaptive layer-instance normalisation: ``gamma`` and ``beta`` come from outside (Eq. 1).

    Args:
        channels: C.
        rho: where it starts, in [0, 1]; 1 is instance norm, 0 layer norm.
        learned: whether ``rho`` is a parameter, or stays as it is.
        correction: of the variances, as `layer_instance_norm` takes it; 0 in the authors' TensorFlow code.
    """

    rho: Tensor

    def __init__(self, channels: int, rho: float = 1.0, learned: bool = True, correction: int = 1):
        super().__init__()
        self.correction = correction
        start = torch.full((1, channels, 1, 1), rho)
        if learned:
            self.rho = nn.Parameter(start)
        else:
            self.register_buffer("rho", start)

    def forward(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        """Normalise ``x`` (N x C x H x W) with ``gamma``, ``beta`` of N x C x 1 x 1."""
        return layer_instance_norm(x, self.rho, gamma, beta, self.correction)


class LIN(AdaLIN):
    """AdaLIN with its own learned ``gamma`` and ``beta``, as in the up-sampling blocks."""

    def __init__(self, channels: int, rho: float = 0.0, learned: bool = True, correction: int = 1):
        super().__init__(channels, rho, learned, correction)
        self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Normalise ``x``, N x C x H x W."""
        return layer_instance_norm(x, self.rho, self.gamma, self.beta, self.correction)


@torch.no_grad()
def clip_rho(module: nn.Module) -> None:
    """Clip every ``rho`` inside ``module`` to [0, 1], as Eq. 1 asks after each optimiser step."""
    for part in module.modules():
        if isinstance(part, AdaLIN):
            part.rho.clamp_(0, 1)
