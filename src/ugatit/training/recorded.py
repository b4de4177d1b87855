"""A training step as one recording: its thousands of kernels are launched by the card itself, not one by one.

On small networks and small batches that is most of a step's time: the processor takes longer to ask for a kernel than
the card to run it.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ugatit.io.errors import UserError, words_of

Step = Callable[[Tensor, Tensor], dict[str, Tensor]]
AS_USUAL = 3  # steps before one is recorded; in these libraries choose their methods, and optimisers get their memory


class Recorded:
    """A step of N x C x H x W pictures of both domains on an NVIDIA card, made as usual a few times, then recorded as
    a CUDA graph, and from then on played again.

    All that the step makes and changes must be on the card. Weights, buffers and the states of optimisers stay where
    they are in its memory; numbers that change from step to step must be tensors that do so too. Noise is drawn anew
    each time.

    Args:
        step: returns scalars by name.
        system: what it trains.
        generators: of random numbers that the step draws from, beside torch's own.

    Raises:
        UserError: the step cannot be recorded.
    """

    def __init__(self, step: Step, system: nn.Module, generators: Callable[[], list[torch.Generator]]):
        self.step, self.system, self.generators = step, system, generators
        self.made = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, real_a: Tensor, real_b: Tensor) -> dict[str, Tensor]:
        """Make a step; the scalars by name."""
        if self.made < AS_USUAL:
            self.made += 1
            return self.step(real_a, real_b)
        if self.graph is None:
            self.graph = self.record(real_a, real_b)
        torch._foreach_copy_([self.real_a, self.real_b], [real_a, real_b])
        self.graph.replay()
        return dict(zip(self.names, self.scalars.clone().unbind(), strict=True))

    def record(self, real_a: Tensor, real_b: Tensor) -> torch.cuda.CUDAGraph:
        """Record the step without making it."""
        self.real_a, self.real_b = real_a.clone(), real_b.clone()
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators():
            graph.register_generator_state(generator)
        try:
            # Another thread may bring pictures meanwhile, which is none of this one's recording.
            with torch.cuda.graph(graph, shared_pool(), capture_error_mode="thread_local"):
                made = in_place(self.step, self.system)(self.real_a, self.real_b)
                self.names, self.scalars = list(made), torch.stack([scalar.float() for scalar in made.values()])
        except RuntimeError as error:
            raise UserError(f"The card could not record a step ({words_of(error)}): use `graph=False`.") from error
        return graph


@cache
def shared_pool() -> Any:
    """The memory that all recordings use, one after the other; nothing in it outlives a step."""
    return torch.cuda.graph_pool_handle()


def in_place(step: Step, system: nn.Module) -> Step:
    """A step after which the buffers are where they were before: they are often replaced by new ones."""
    before = dict(system.named_buffers())

    def kept(real_a: Tensor, real_b: Tensor) -> dict[str, Tensor]:
        made = step(real_a, real_b)
        for name, buffer in list(system.named_buffers()):
            if buffer is not before[name]:
                module, _, own = name.rpartition(".")
                system.get_submodule(module)._buffers[own] = before[name].copy_(buffer)
        return made

    return kept


def take_from_card(optimizer: Optimizer) -> None:
    """Have an optimiser take from the card what changes from step to step: its learning rates and counts of steps."""
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"], device=group["params"][0].device)
        group["capturable"] = True
