"""The running average of the weights that translation uses."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ugatit.systems.base import System


class Ema:
    """Running average of the weights that translation uses.

    It is over about the last tenth of the steps so far, until that is longer than the decay's 1 / (1 - decay) steps.
    """

    def __init__(self, system: System, decay: float):
        self.decay = decay
        self.live = {k: p for k, p in system.named_parameters() if k.split(".")[0] in system.translators}
        self.average = {k: p.detach().clone() for k, p in self.live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the weights after step number ``step``, counted from 0."""
        move = get_ema_multi_avg_fn(min(self.decay, (step + 1) / (step + 10)))
        move(list(self.average.values()), list(self.live.values()), step)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within this block the system has the averaged weights."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def swap(self) -> None:
        """Exchange the weights and their average."""
        for name, parameter in self.live.items():
            parameter.data, self.average[name] = self.average[name], parameter.data
