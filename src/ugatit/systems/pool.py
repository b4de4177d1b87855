"""The pool of past fakes that discriminators are shown (Shrivastava et al., 2017)."""

import torch
from torch import Tensor, nn

from ugatit.systems.base import Clock


class Pool(nn.Module):
    """The last fakes, more or less: once it is full, each new one stays out or takes a random one's place, evens.

    It is a buffer, so that checkpoints keep it; how full it is is seen when one is taken up. Several processes hold
    the same one, which takes the fakes of all.

    Args:
        size: how many it holds.
        shape: of one, channels x height x width.
    """

    images: Tensor

    def __init__(self, size: int, *shape: int):
        super().__init__()
        self.register_buffer("images", torch.zeros(size, *shape))
        self.filled = 0  # places from the first on; no fake is zero throughout
        self.register_load_state_dict_post_hook(Pool.count)

    def count(self, _: object) -> None:
        """See how full the pool of a checkpoint is; where there are only shapes, nothing is seen."""
        if not self.images.is_meta:
            self.filled = int(self.images.flatten(1).any(1).sum())

    @torch.no_grad()
    def exchange(self, made: Tensor, clock: Clock) -> Tensor:
        """Offer this step's fakes, N x channels x height x width; what the discriminator is shown instead of them."""
        shown, everyone = [], clock.everyone(made.detach().to(self.images.dtype))
        for image in everyone:
            if self.filled < len(self.images):
                shown.append(image)
                self.images[self.filled] = image
                self.filled += 1
            elif (place := self.place()) is None:
                shown.append(image)
            else:
                shown.append(self.images[place].clone())
                self.images[place] = image
        return clock.own(torch.stack(shown))

    def place(self) -> int | None:
        """Where a fake goes if the pool is full; None if it stays out. Drawn on the CPU, whatever device the fakes are
        on: nothing has to wait for that."""
        return None if torch.rand(()) < 0.5 else int(torch.randint(len(self.images), ()))
