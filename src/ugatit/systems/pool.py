"""The pool of past fakes that discriminators are shown (Shrivastava et al., 2017)."""

import torch
from torch import Tensor, nn

from ugatit.systems.base import Clock


class Pool(nn.Module):
    """The last fakes, more or less: once it is full, each new one stays out or takes a random one's place, evens.

    It is a buffer, so that checkpoints keep it; how full it is follows from the step. Several processes hold the same
    one, which takes the fakes of all.

    Args:
        size: how many it holds.
        shape: of one, channels x height x width.
    """

    images: Tensor

    def __init__(self, size: int, *shape: int):
        super().__init__()
        self.register_buffer("images", torch.zeros(size, *shape))

    @torch.no_grad()
    def exchange(self, made: Tensor, clock: Clock) -> Tensor:
        """Offer this step's fakes, N x channels x height x width; what the discriminator is shown instead of them."""
        shown, everyone = [], clock.everyone(made.detach().to(self.images.dtype))
        for number, image in enumerate(everyone, start=clock.step * len(everyone)):
            place = self.place_of(number)
            if place is None:
                shown.append(image)
                continue
            shown.append(self.images[place].clone() if number >= len(self.images) else image)
            self.images[place] = image
        return clock.own(torch.stack(shown))

    def place_of(self, number: int) -> int | None:
        """Where the fake of that number goes; None if it stays out. Drawn on the CPU, whatever device the fakes are on:
        nothing has to wait for that."""
        if number < len(self.images):
            return number
        return None if torch.rand(()) < 0.5 else int(torch.randint(len(self.images), ()))
