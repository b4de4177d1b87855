"""Products with large weights."""

import torch.nn.functional as F
from torch import Tensor, nn

from ugatit.nn.switch import switched


@switched
def product(x: Tensor, weight: Tensor) -> Tensor:
    """Rows R x C times the transpose of a weight C' x C; R x C'."""
    return F.linear(x, weight)


class LargeLinear(nn.Linear):
    """`product` with its weight, which is large beside the rows that it meets, and a bias if it has one."""

    def __init__(self, features_in: int, features_out: int, bias: bool = False):
        super().__init__(features_in, features_out, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """N x C to N x C'."""
        y = product(x, self.weight)
        return y if self.bias is None else y + self.bias
