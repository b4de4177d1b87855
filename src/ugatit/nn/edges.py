"""Edges of pictures found (Canny, 1986, as OpenCV computes it) and smoothed away: CartoonGAN's third kind of input.

On whatever device the pictures are, and equal to OpenCV's results, so that nothing has to be prepared on the disk.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ugatit.nn.precision import constant, without_autocast

LOW, HIGH = 100, 200  # gradients of 8-bit grey from which an edge goes on, and from which one begins
TAN_22 = 0.4142135623730951  # of 22.5 degrees


def grey(x: Tensor) -> Tensor:
    """Luma in whole steps of 8 bits: N x 1 or 3 x H x W in [-1, 1] to N x 1 x H x W in 0, 1, ..., 255."""
    eight_bit = ((x.float() + 1) * 127.5).round().clamp(0, 255)
    if x.shape[1] == 1:
        return eight_bit
    weights = constant((0.299, 0.587, 0.114), x.device)[:, None, None]
    return (eight_bit * weights).sum(1, keepdim=True).round()


def shifted(x: Tensor, down: int, right: int) -> Tensor:
    """For each pixel of N x 1 x H x W the one that lies ``down`` and ``right`` of it, 0 outside."""
    height, width = x.shape[2:]
    return F.pad(x, (1, 1, 1, 1))[:, :, 1 + down : 1 + down + height, 1 + right : 1 + right + width]


def canny(light: Tensor) -> Tensor:
    """Edges of pictures N x 1 x H x W in 0, 1, ..., 255, as booleans of that shape."""
    slope = constant((-1.0, 0.0, 1.0), light.device)
    sobel = constant((1.0, 2.0, 1.0), light.device)[:, None] * slope
    kernels = torch.stack([sobel, sobel.T])[:, None]  # 2 1 3 3
    dx, dy = F.conv2d(F.pad(light, (1, 1, 1, 1), "replicate"), kernels).split(1, 1)
    size = dx.abs() + dy.abs()

    def peak(down: int, right: int) -> Tensor:
        """Whether the gradient is larger than on one side, and than on the other or as large."""
        return (size > shifted(size, -down, -right)) & (size >= shifted(size, down, right))

    flat, steep = dy.abs() < dx.abs() * TAN_22, dy.abs() > dx.abs() * (2 + TAN_22)
    falling, rising = ((size > shifted(size, -1, -s)) & (size > shifted(size, 1, s)) for s in (1, -1))
    diagonal = torch.where(dx * dy >= 0, falling, rising)
    thin = torch.where(flat, peak(0, 1), torch.where(steep, peak(1, 0), diagonal))
    return joined(thin & (size > LOW), thin & (size > HIGH))


def joined(weak: Tensor, strong: Tensor) -> Tensor:
    """The weak edges that hang together with a strong one, over sides and corners; booleans N x 1 x H x W.

    Connected components as in FastSV (Zhang et al., 2020): each pixel points at another of its component, and takes the
    lowest number that its neighbours' pointers lead to, until all point at one. The rounds needed grow with the
    logarithm of the pixels and are not counted, for that would have the processor wait for the device.
    """
    height, width = weak.shape[2:]
    own = torch.arange(height * width, device=weak.device).expand(len(weak), -1)  # N HW
    to, inside = own, weak.flatten(1)
    for _ in range(2 * (height * width).bit_length()):
        next_to = to.gather(1, to)
        numbers = torch.where(inside, next_to, height * width).view_as(weak).float()
        lowest = (-F.max_pool2d(-numbers, 3, 1, 1)).long().flatten(1)
        lowest = torch.where(inside, lowest, own)
        to = torch.minimum(to.scatter_reduce(1, to, lowest, "amin"), torch.minimum(lowest, next_to))
    found = torch.zeros_like(to).scatter_reduce(1, to, strong.flatten(1).long(), "amax")
    return (inside & (found.gather(1, to) > 0)).view_as(weak)


def dilated(mask: Tensor, side: int) -> Tensor:
    """A boolean mask, N x 1 x H x W, grown by a square of ``side`` pixels."""
    return F.max_pool2d(mask.float(), side, 1, side // 2) > 0


def smooth_edges(x: Tensor) -> Tensor:
    """Pictures N x 1 or 3 x H x W in [-1, 1] with what lies within two pixels of an edge smoothed, 5 x 5 binomially."""
    with without_autocast(x.device):
        near = dilated(canny(grey(x)), 5)
        taps = constant((1.0, 4.0, 6.0, 4.0, 1.0), x.device).to(x.dtype) / 16
        kernel = (taps[:, None] * taps).expand(x.shape[1], 1, 5, 5)
        soft = F.conv2d(F.pad(x, (2, 2, 2, 2), "reflect"), kernel, groups=x.shape[1])
        return torch.where(near, soft, x)
