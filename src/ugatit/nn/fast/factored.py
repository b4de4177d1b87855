"""Large weights that meet few rows: the gradient stays in factors.

The gradient of ``x @ weight.T`` is ``grad.T @ x``. Where x has far fewer rows than the weight, these two are a small
fraction of it, so they are kept on the parameter (``weight.factors``) and the optimiser (`ugatit.nn.fast.adam`) forms
the gradient a few rows at a time; it never exists as a whole.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ugatit.nn.precision import full_precision, without_autocast

FEW = 64  # pixels of a batch up to which a convolution of a large weight is better done as a product of matrices
Factors = list[tuple[Tensor, Tensor]]  # pairs of R x C' and R x C; the gradient is the sum of their products


class FactoredProduct(torch.autograd.Function):
    """``x @ weight.T``; the gradient of the weight is appended to its factors instead of returned."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.weight = weight  # hooks on saved tensors may give back another one, without its factors
        return x @ weight.flatten(1).T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:
        x, weight = ctx.saved_tensors
        factors_of(ctx.weight).append((grad, x))
        return grad @ weight.flatten(1) if ctx.needs_input_grad[0] else None, None


def factors_of(weight: Tensor) -> Factors:
    """The gradient that was left on a weight: a list to append to, and to clear."""
    if not hasattr(weight, "factors"):
        weight.factors = []  # type: ignore[attr-defined]
    return weight.factors  # type: ignore[attr-defined]


def factored_product(x: Tensor, weight: Tensor) -> Tensor:
    """Rows R x C times the transpose of a weight, C' x C or C' x ... with C numbers a row; R x C'.

    Reading the weight is the work, so nothing is gained by half precision and the result is in full.
    """
    with without_autocast(x.device):
        x = full_precision(x)
        if not (torch.is_grad_enabled() and weight.requires_grad):
            return x @ weight.flatten(1).T
        return FactoredProduct.apply(x, weight)


class FactoredLinear(nn.Linear):
    """`nn.Linear` without bias whose weight has its gradient in factors."""

    def __init__(self, features_in: int, features_out: int):
        super().__init__(features_in, features_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """N x C to N x C'."""
        return factored_product(x, self.weight)


@torch.no_grad()
def gradient(weight: Tensor, rows: slice = slice(None)) -> Tensor:
    """Some rows of a weight's gradient, the factors multiplied out."""
    parts = [] if weight.grad is None else [weight.grad[rows]]
    factors = factors_of(weight)
    if len(factors) > 1:  # joined for good: asked for a few rows at a time, the copy would be made each time
        factors[:] = [(torch.cat([grad for grad, _ in factors]), torch.cat([x for _, x in factors]))]
    parts += [(grad[:, rows].T @ x).view_as(weight[rows]) for grad, x in factors]
    return sum(parts[1:], start=parts[0])
