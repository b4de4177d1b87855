"""How many digits are computed with: what stays in float32 under mixed precision, and what float32 means on a card."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def constant(numbers: tuple[float, ...], device: torch.device) -> Tensor:
    """Numbers on a device, which are brought there once: to bring them there has the processor wait for it."""
    return torch.tensor(numbers, device=device)


def wide(kind: torch.dtype) -> torch.dtype:
    """What sums of numbers of a type are kept in: float32 for half precision, else the same."""
    return torch.promote_types(kind, torch.float32)


def full_precision(x: Tensor) -> Tensor:
    """Half-precision numbers as float32, others as they are."""
    return x.to(wide(x.dtype))


def biased(maps: Tensor, bias: Tensor | None) -> Tensor:
    """Maps N x C x H x W and a bias for each, C, if there is one; in the maps' type, as convolutions add theirs."""
    return maps if bias is None else maps + bias.to(maps.dtype)[:, None, None]


def mean_pixel(x: Tensor) -> Tensor:
    """The mean of each map, N x C, of maps N x C x H x W; in float32 at least."""
    return x.mean((2, 3), dtype=wide(x.dtype))


def without_autocast(device: torch.device) -> AbstractContextManager:
    """Within this context mixed precision is off."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Within this context float32 convolutions and matrix products on NVIDIA cards from Ampere on keep 10 of their
    factors' 23 bits, or all; torch alone keeps all of a product's and 10 of a convolution's."""
    backends: Any = torch.backends
    before: tuple[str, Any]  # of products and of convolutions
    now: tuple[str, Any]
    switch: Callable[[str, Any], None]
    try:
        before = torch.get_float32_matmul_precision(), backends.cudnn.allow_tf32
        switch, now = set_for_all, ("high" if allowed else "highest", allowed)
    except RuntimeError:  # the program has used torch's switches of each operator, and they are at odds with the others
        before = backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision
        switch, now = set_for_each, ("tf32" if allowed else "ieee",) * 2
    try:
        switch(*now)
        yield
    finally:
        switch(*before)


def set_for_all(products: str, convolutions: bool) -> None:
    """Torch's older switches."""
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions


def set_for_each(products: str, convolutions: str) -> None:
    """Torch's newer switches, of each operator."""
    backends: Any = torch.backends
    backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision = products, convolutions
