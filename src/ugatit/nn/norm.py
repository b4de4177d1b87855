"""Layer-instance normalisation (paper section 2.1.1, Eq. 1)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ugatit.nn.precision import full_precision

EPS = 1e-5


class LayerInstanceNorm(torch.autograd.Function):
    """`layer_instance_norm` and its gradient, written out: both are sums over pixels and one multiply-add a channel.

    Only the input and numbers a channel are kept for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, rho: Tensor, gamma: Tensor, beta: Tensor, correction: int) -> Tensor:
        pixels, channels = x.shape[2] * x.shape[3], x.shape[1]
        wide = full_precision(x)
        var_i, mean_i = torch.var_mean(wide, dim=(2, 3), correction=correction, keepdim=True)  # N C 1 1
        mean_l = mean_i.mean(1, keepdim=True)  # N 1 1 1
        squares = (pixels - correction) * var_i + pixels * (mean_i - mean_l).square()  # about the layer's mean
        var_l = squares.sum(1, keepdim=True) / (channels * pixels - correction)
        inv_i, inv_l = torch.rsqrt(var_i + EPS), torch.rsqrt(var_l + EPS)
        share_i, share_l = rho * inv_i, (1 - rho) * inv_l
        scale = gamma * (share_i + share_l)
        shift = beta - gamma * (share_i * mean_i + share_l * mean_l)
        ctx.correction = correction
        ctx.save_for_backward(x, rho, gamma, beta, mean_i, mean_l, inv_i, inv_l, scale)
        return torch.addcmul(shift, wide, scale).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        x, rho, gamma, beta, mean_i, mean_l, inv_i, inv_l, scale = ctx.saved_tensors
        pixels, channels = x.shape[2] * x.shape[3], x.shape[1]
        wide, grad = full_precision(x), full_precision(grad)
        total = grad.sum((2, 3), keepdim=True)  # N C 1 1
        moment = (grad * wide).sum((2, 3), keepdim=True)
        along_i = (moment - mean_i * total) * inv_i  # sum over pixels of grad times the normalised map
        along_l = (moment - mean_l * total) * inv_l
        to_i, to_l = gamma * rho, gamma * (1 - rho)
        # Through mean and variance of the channel, and of the layer: a constant and a multiple of x.
        slope_i = inv_i.square() * to_i * along_i / (pixels - ctx.correction)
        slope_l = inv_l.square() * (to_l * along_l).sum(1, keepdim=True) / (channels * pixels - ctx.correction)
        constant_i = slope_i * mean_i - inv_i * to_i * total / pixels
        constant_l = slope_l * mean_l - inv_l * (to_l * total).sum(1, keepdim=True) / (channels * pixels)
        grad_x = torch.addcmul(torch.addcmul(constant_i + constant_l, grad, scale), wide, -(slope_i + slope_l))
        return (
            grad_x.to(x.dtype),
            (gamma * (along_i - along_l)).sum_to_size(rho.shape),
            (rho * along_i + (1 - rho) * along_l).sum_to_size(gamma.shape),
            total.sum_to_size(beta.shape),
            None,
        )


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
    return LayerInstanceNorm.apply(x, rho, gamma, beta, 1)


class InstanceNorm(nn.Module):
    """Instance norm as in the encoder: variance over N, not over N - 1.

    Stands in for `torch.nn.InstanceNorm2d`, whose gradient on the CPU is wrong where the gradient that comes in lies
    in memory with channels last and the maps do not.

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
            return LayerInstanceNorm.apply(x, one, one, torch.zeros_like(one), 0)
        return LayerInstanceNorm.apply(x, one, self.weight[:, None, None], self.bias[:, None, None], 0)


def adaptive_instance_norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """AdaIN (Huang & Belongie, 2017): instance norm of N x C x H x W, biased variance, with scale and shift from
    outside, N x C x 1 x 1 each."""
    return LayerInstanceNorm.apply(x, full_precision(x.new_ones(1, 1, 1, 1)), gamma, beta, 0)


class LayerNorm(nn.Module):
    """Layer norm over a whole picture's channels and pixels, with a learned scale and shift a channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x``, N x C x H x W."""
        zero = full_precision(x.new_zeros(1, 1, 1, 1))
        return LayerInstanceNorm.apply(x, zero, self.weight[:, None, None], self.bias[:, None, None], 0)


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
    """

    rho: Tensor

    def __init__(self, channels: int, rho: float = 1.0, learned: bool = True):
        super().__init__()
        start = torch.full((1, channels, 1, 1), rho)
        if learned:
            self.rho = nn.Parameter(start)
        else:
            self.register_buffer("rho", start)

    def forward(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        """Normalise ``x`` (N x C x H x W) with ``gamma``, ``beta`` of N x C x 1 x 1."""
        return layer_instance_norm(x, self.rho, gamma, beta)


class LIN(AdaLIN):
    """AdaLIN with its own learned ``gamma`` and ``beta``, as in the up-sampling blocks."""

    def __init__(self, channels: int, rho: float = 0.0, learned: bool = True):
        super().__init__(channels, rho, learned)
        self.gamma = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Normalise ``x``, N x C x H x W."""
        return layer_instance_norm(x, self.rho, self.gamma, self.beta)


@torch.no_grad()
def clip_rho(module: nn.Module) -> None:
    """Clip every ``rho`` inside ``module`` to [0, 1], as Eq. 1 asks after each optimiser step."""
    for part in module.modules():
        if isinstance(part, AdaLIN):
            part.rho.clamp_(0, 1)
