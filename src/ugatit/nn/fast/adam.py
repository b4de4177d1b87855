"""Adam (Kingma & Ba, 2015) in little memory: for gradients in factors, and with averages in bfloat16."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Adam
from torch.optim.adam import adam

from ugatit.nn.fast.factored import factors_of, gradient, take_factors

# Numbers that are updated at once: on a CPU a gradient of 4 MB, which stays in the cache; on a card one of 64 MB, for
# there each chunk costs the launch of a dozen kernels.
CHUNK, CARDS_CHUNK = 1 << 20, 1 << 24
AVERAGES = ("exp_avg", "exp_avg_sq")
Average = Literal["float32", "bfloat16"]


class ChunkedAdam(Adam):
    """`torch.optim.Adam`, fused, that forms the gradient of a factored weight a few rows at a time.

    The arithmetic is Adam's in float32 whatever the averages are kept in. In bfloat16 the average of squares is rounded
    up or down at random, so that it is right on average: its steps of 1 - beta2 are smaller than the distance between
    two such numbers, and rounded to the nearest it would never fall. What is drawn for that depends on the ``seed`` of
    a parameter group alone, which whoever trains sets before each step as it sets ``lr``: processes that train one
    network draw the same, whatever else each of them draws.

    Args:
        averages: what Adam's two averages are kept in.
    """

    def __init__(self, params: Any, *args: Any, averages: Average = "float32", **kwargs: Any):
        super().__init__(params, *args, fused=True, **kwargs)
        self.averages = getattr(torch, averages)
        self.generators: dict[torch.device, torch.Generator] = {}  # by device
        for group in self.param_groups:
            group.setdefault("seed", 0)
            for weight in group["params"]:
                take_factors(weight)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every weight that has a gradient, whole or in factors."""
        noise: dict[torch.device, Tensor] = {}
        for group in self.param_groups:
            for weight in group["params"]:
                if factors_of(weight) or (weight.grad is not None and self.averages != torch.float32):
                    self.update_in_chunks(weight, group, noise)
                    weight.grad = None
                    factors_of(weight).clear()
        super().step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, whole and in factors."""
        super().zero_grad(set_to_none)
        for group in self.param_groups:
            for weight in group["params"]:
                factors_of(weight).clear()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state; torch makes its averages float32 on the way."""
        super().load_state_dict(state_dict)
        for values in self.state.values():
            for key in AVERAGES:
                values[key] = values[key].to(self.averages)

    def update_in_chunks(self, weight: Tensor, group: dict[str, Any], noise: dict[torch.device, Tensor]) -> None:
        """One update of one weight; ``noise`` is made once a step and device, for rounding."""
        state = self.state[weight]
        if not state:
            state["step"] = torch.zeros((), device=weight.device)
            state |= {key: torch.zeros_like(weight, dtype=self.averages) for key in AVERAGES}
        whole = torch.atleast_1d(weight)  # a scalar has one row
        for rows in chunks(whole):
            narrow = [torch.atleast_1d(state[key])[rows] for key in AVERAGES]
            wide = [average.to(weight.dtype) for average in narrow]  # the same tensor if it is float32
            step = state["step"].clone()
            adam(
                [whole[rows]], [gradient(weight, rows)], [wide[0]], [wide[1]], [], [step],
                fused=True, amsgrad=False, maximize=False, beta1=group["betas"][0], beta2=group["betas"][1],
                lr=group["lr"], weight_decay=group["weight_decay"], eps=group["eps"],
                grad_scale=getattr(self, "grad_scale", None), found_inf=getattr(self, "found_inf", None),
            )  # fmt: skip
            if self.averages == torch.bfloat16:
                if weight.device not in noise:
                    noise[weight.device] = self.noise(weight.device, group["seed"])
                narrow[0].copy_(wide[0])
                narrow[1].copy_(rounded_at_random(wide[1], noise[weight.device]))
        state["step"].copy_(step)

    def noise(self, device: torch.device, seed: int) -> Tensor:
        """16 random bits for each number of the largest part of a weight that is updated at once."""
        if device not in self.generators:
            self.generators[device] = torch.Generator(device)
        weights = [weight for group in self.param_groups for weight in group["params"] if weight.device == device]
        most = max(chunk_of(weight) for weight in weights)
        longest = max(weight.numel() // len(torch.atleast_1d(weight)) for weight in weights)  # a row is never cut
        generator = self.generators[device].manual_seed(seed)
        return torch.randint(1 << 16, (max(most, longest),), dtype=torch.int32, device=device, generator=generator)


def chunk_of(weight: Tensor) -> int:
    """How many numbers of a weight are updated at once, about."""
    return CHUNK if weight.device.type == "cpu" else CARDS_CHUNK


def chunks(weight: Tensor) -> Iterator[slice]:
    """Rows of a weight, as many as are updated at once."""
    rows = max(1, chunk_of(weight) * len(weight) // weight.numel())
    return (slice(start, start + rows) for start in range(0, len(weight), rows))


def rounded_at_random(x: Tensor, noise: Tensor) -> Tensor:
    """Float32 numbers from 0 up that bfloat16 holds exactly: the next lower or higher, in proportion to nearness.

    Args:
        x: of any shape.
        noise: at least as many integers from 0 to 65535, at random.
    """
    bits = x.view(torch.int32) + noise[: x.numel()].view_as(x)
    return (bits & -65536).view(torch.float32)
