"""Large weights that meet few rows: the gradient stays in factors.

The gradient of ``x @ weight.T`` is ``grad.T @ x``. Where x has far fewer rows than the weight, these two are a small
fraction of it, so they are kept on the parameter and the optimiser (`ugatit.nn.fast.adam`) forms the gradient a few
rows at a time; it never exists as a whole. That optimiser asks for it (`take_factors`); others get whole gradients.
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


def take_factors(weight: Tensor) -> None:
    """Have the gradient of a weight left in factors from now on; who asks for that must use and clear them."""
    weight.factors = []  # type: ignore[attr-defined]


def factors_of(weight: Tensor) -> Factors:
    """The part of a weight's gradient that was left in factors: a list to change and to clear."""
    return getattr(weight, "factors", [])


def in_factors(weight: Tensor) -> bool:
    """Whether a weight was used so that its gradient comes in factors."""
    return getattr(weight, "in_factors", False)


def product(x: Tensor, weight: Tensor) -> Tensor:
    """Rows R x C times the transpose of a weight, C' x C or C' x ... with C numbers a row; R x C'.

    Reading the weight is the work, so nothing is gained by half precision and the result is in full.
    """
    with without_autocast(x.device):
        x = full_precision(x)
        if torch.is_grad_enabled() and weight.requires_grad and hasattr(weight, "factors"):
            weight.in_factors = True  # type: ignore[attr-defined]
            return FactoredProduct.apply(x, weight)
        return x @ weight.flatten(1).T


@torch.no_grad()
def gradient(weight: Tensor, rows: slice = slice(None)) -> Tensor:
    """Some rows of a weight's gradient, the factors multiplied out."""
    parts = [] if weight.grad is None else [torch.atleast_1d(weight.grad)[rows]]
    factors = factors_of(weight)
    if len(factors) > 1:  # joined for good: asked for a few rows at a time, the copy would be made each time
        factors[:] = [(torch.cat([grad for grad, _ in factors]), torch.cat([x for _, x in factors]))]
    parts += [(grad[:, rows].T @ x).view_as(weight[rows]) for grad, x in factors]
    return sum(parts[1:], start=parts[0])


def show_overflow(parameters: list[nn.Parameter]) -> None:
    """Carry what is not finite in factored gradients to a whole one, where the scaler of fp16 looks for it."""
    whole = next((p.grad for p in parameters if p.grad is not None), None)
    for grad, x in (pair for p in parameters for pair in factors_of(p)):
        assert whole is not None, "every network has weights whose gradients are whole"
        whole += 0 * grad.sum(dtype=torch.float32) * x.sum(dtype=torch.float32)  # nothing, or NaN
