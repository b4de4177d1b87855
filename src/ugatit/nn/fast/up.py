"""Up-sampling and a convolution at the resolution from before."""

import torch
import torch.nn.functional as F
from torch import Tensor


def merge_taps(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """What three taps along ``dim`` do to doubled pixels, as two taps on the single ones: for the first and the second
    pixel of each pair."""
    first, middle, last = weight.unbind(dim)
    return torch.stack([first, middle + last], dim), torch.stack([first + middle, last], dim)


def up_conv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Nearest x2, then a reflection-padded 3x3 convolution, with 2.25 times less work than that.

    Each output pixel sees only 2 x 2 different input pixels, so it is one of four 2x2 convolutions, by its row's and
    column's parity, with the taps that fall on the same pixel added up. Reflection at the doubled size is replication
    at the single one.

    Args:
        x: N x C x H x W.
        weight, bias: C' x C x 3 x 3, and C' if there is one.

    Returns:
        N x C' x 2H x 2W, equal up to rounding.
    """
    phases = torch.cat([phase for rows in merge_taps(weight, 2) for phase in merge_taps(rows, 3)])  # 4C' C 2 2
    biases = None if bias is None else bias.repeat(4)
    y = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), phases, biases)  # N 4C' H+1 W+1
    upper, lower = y.unflatten(1, (2, 2, -1)).unbind(1)  # N 2 C' H+1 W+1 each
    lines = [
        torch.stack([left[..., :-1], right[..., 1:]], -1).flatten(-2)  # N C' H 2W
        for left, right in (upper[..., :-1, :].unbind(1), lower[..., 1:, :].unbind(1))
    ]
    return torch.stack(lines, -2).flatten(-3, -2)
