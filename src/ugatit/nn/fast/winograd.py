"""3x3 convolutions with a quarter of the multiplications, for the CPU (Lavin & Gray, 2016, F(4x4, 3x3)).

An output tile of 4 x 4 pixels comes from an input tile of 6 x 6, which overlaps its neighbours by two. Both are
polynomials: in the values at the points 0, 1, -1, 2, -2 and infinity a convolution is one product each, so summing over
channels becomes 36 matrix products of channels by channels and channels by tiles.
"""

import math
import threading
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ugatit.nn.precision import biased

TILE = 4  # output pixels on a tile's side
PAD = (1, 1, 1, 1)
CHANNELS, PIXELS = 128, 1024  # with fewer of either the products saved are not worth the transforms


@lru_cache
def transforms(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices that take a flattened input tile (36 x 36), kernel (36 x 9) and product (16 x 36) to the other side."""
    tile = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1]]  # fmt: skip
    kernel = [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6],
              [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]  # fmt: skip
    product = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]
    both_axes = [torch.tensor(m, dtype=torch.float64) for m in (tile, kernel, product)]
    return tuple(torch.kron(m, m).to(dtype) for m in both_axes)  # type: ignore[return-value]


class Scratch(threading.local):
    """Memory for what lives no longer than a layer, kept from call to call: to get it from the system takes as long as
    to compute what goes in. A thread has its own."""

    def __init__(self) -> None:
        self.kept: dict[tuple, Tensor] = {}

    def take(self, purpose: str, like: Tensor, *shape: int) -> Tensor:
        """A tensor of that shape; what the last one for this purpose held is lost."""
        key = (purpose, like.dtype, torch.is_inference_mode_enabled())
        size = math.prod(shape)
        if key not in self.kept or self.kept[key].numel() < size:
            self.kept[key] = torch.empty(size, dtype=like.dtype)
        return self.kept[key][:size].view(shape)


SCRATCH = Scratch()


def tiles_of(x: Tensor) -> Tensor:
    """Reflection-padded input tiles of N x C x H x W, transformed: 36 x C x N T, T tiles a picture."""
    padded = F.pad(x, PAD, mode="reflect")
    tiles = padded.unfold(2, TILE + 2, TILE).unfold(3, TILE + 2, TILE).permute(4, 5, 1, 0, 2, 3)  # 6 6 C N H/4 W/4
    plain = SCRATCH.take("plain", x, *tiles.shape).copy_(tiles).view(36, -1)
    made = SCRATCH.take("tiles", x, *plain.shape)
    return torch.mm(transforms(x.dtype)[0], plain, out=made).view(36, x.shape[1], -1)


def kernels_of(weight: Tensor) -> Tensor:
    """Kernels C' x C x 3 x 3, transformed: 36 x C' x C."""
    made = SCRATCH.take("kernels", weight, 36, weight.numel() // 9)
    flat = weight.permute(2, 3, 0, 1).reshape(9, -1)
    return torch.mm(transforms(weight.dtype)[1], flat, out=made).view(36, *weight.shape[:2])


def product(purpose: str, a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` of 36 x R x S and 36 x S x Q; 36 x R x Q."""
    return torch.bmm(a, b, out=SCRATCH.take(purpose, a, 36, a.shape[1], b.shape[2]))


class WinogradConv(torch.autograd.Function):
    """Reflection-padded 3x3 convolution and its gradient, each the other's transpose; only the input is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        n, _, h, w = x.shape
        products = product("products", kernels_of(weight), tiles_of(x))  # 36 C' NT
        y = (transforms(x.dtype)[2] @ products.flatten(1)).view(TILE, TILE, -1, n, h // TILE, w // TILE)
        return y.permute(3, 2, 4, 0, 5, 1).reshape(n, -1, h, w)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        to_tile, to_kernel, to_product = transforms(x.dtype)
        n, c, h, w = x.shape
        blocks = grad.reshape(n, -1, h // TILE, TILE, w // TILE, TILE).permute(3, 5, 1, 0, 2, 4).reshape(16, -1)
        made = SCRATCH.take("products", grad, 36, blocks.shape[1])
        products = torch.mm(to_product.T, blocks, out=made).view(36, weight.shape[0], -1)  # 36 C' NT
        grad_x = grad_weight = None
        if ctx.needs_input_grad[1]:
            kernels = product("kernels", products, tiles_of(x).mT)
            grad_weight = (to_kernel.T @ kernels.flatten(1)).view(3, 3, *weight.shape[:2]).permute(2, 3, 0, 1)
            grad_weight = grad_weight.contiguous()
        if ctx.needs_input_grad[0]:
            tiles = product("tiles", kernels_of(weight).mT, products)
            back = SCRATCH.take("plain", grad, 36, tiles[0].numel())
            columns = torch.mm(to_tile.T, tiles.flatten(1), out=back).view(36, c, n, -1)
            columns = columns.permute(2, 1, 0, 3).reshape(n, 36 * c, -1)
            padded = F.fold(columns, (h + 2, w + 2), TILE + 2, stride=TILE)
            grad_x = torch.ops.aten.reflection_pad2d_backward(padded, x, PAD)
        return grad_x, grad_weight


def winograd_wins(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether pictures N x C x H x W are such that this method can be used and is the faster.

    Never in a graph that is compiled or exported: others' engines have their own way with a plain convolution.
    """
    if torch.compiler.is_compiling():
        return False
    pictures, channels, height, width = x.shape
    whole = height % TILE == 0 and width % TILE == 0
    plain = torch.is_autocast_enabled("cpu") or x.dtype not in (torch.float32, torch.float64)
    large = channels >= CHANNELS and pictures * height * width >= PIXELS
    return x.device.type == "cpu" and whole and large and not plain


def conv3(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve reflection-padded pictures, float32 or float64 on the CPU, sides multiples of 4; in float32 about 3e-6
    from the exact result, relative."""
    return biased(WinogradConv.apply(x, weight), bias)
