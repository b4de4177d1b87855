"""Exactly repeatable sampling: files in, batches of tensors out."""

import math
import signal
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from ugatit.data.finding import Skipped
from ugatit.data.kept import Kept, Picture
from ugatit.data.reading import read_samples
from ugatit.data.samples import UnscaledError, to_tensor
from ugatit.data.seeds import rng, seed_of
from ugatit.io.errors import UserError
from ugatit.io.terminal import endings
from ugatit.systems.base import Samples

FINER = 2  # times the pixels that are needed of a picture, to which it may be decoded before it is resized


@lru_cache(maxsize=4)
def shuffled(count: int, seed: int, domain: str, epoch: int) -> list[int]:
    """The order in which one epoch goes through a domain's ``count`` pictures."""
    return torch.randperm(count, generator=rng(seed, f"order {domain}", epoch)).tolist()


def train_transform(size: int, flip: float, turn: float = 0.0, scale: float = 0.0, jitter: float = 0.0) -> v2.Transform:
    """Appendix B.2: flip and random crop of a picture that has been resized to a little more than the size. Pictures
    that are not square keep their shape.

    Args:
        size: pixels of the crop's side.
        flip: the probability of a flip.
        turn: degrees that it is turned by at most.
        scale: the share by which it is made larger or smaller at most.
        jitter: the share by which brightness, contrast and saturation change at most.
    """
    steps: list[v2.Transform] = [v2.RandomHorizontalFlip(flip)]
    if jitter:
        steps.append(v2.ColorJitter(jitter, jitter, jitter))
    if turn or scale:
        return v2.Compose([*steps, to_tensor, TurnedCrop(size, turn, scale)])
    return v2.Compose([*steps, v2.RandomCrop(size), to_tensor])


class TurnedCrop(v2.Transform):
    """A random crop that is also turned and scaled, at random; beyond its edges the picture is mirrored.

    Args:
        size: pixels of its side.
        turn: degrees, at most, either way.
        scale: the picture is made up to 1 + ``scale`` as large or as small.
    """

    def __init__(self, size: int, turn: float, scale: float):
        super().__init__()
        self.size, self.turn, self.scale = size, turn, scale

    def make_params(self, flat_inputs: list[Tensor]) -> dict[str, float]:
        """Where the crop is, in [0, 1] of the room there is, its angle in radians, and how much larger the picture."""
        down, right, angle, larger = torch.rand(4).tolist()
        return {
            "down": down,
            "right": right,
            "angle": math.radians((2 * angle - 1) * self.turn),
            "larger": (1 + self.scale) ** (2 * larger - 1),
        }

    def transform(self, x: Tensor, params: dict[str, float]) -> Tensor:
        """channels x H x W to channels x size x size."""
        height, width = x.shape[1:]
        middle = [
            (place * (side - self.size) + self.size / 2) / side * 2 - 1
            for place, side in ((params["right"], width), (params["down"], height))
        ]
        half = self.size / params["larger"]
        cos, sin = math.cos(params["angle"]) * half, math.sin(params["angle"]) * half
        there = torch.tensor([[cos / width, -sin / width, middle[0]], [sin / height, cos / height, middle[1]]])
        grid = F.affine_grid(there[None], [1, len(x), self.size, self.size], align_corners=False)
        return F.grid_sample(x[None], grid, padding_mode="reflection", align_corners=False)[0]


def squared(size: int) -> v2.Transform:
    """Picture to channels x size x size, Pillow's in 8 bits: shorter side to ``size``, centre crop."""
    return v2.Compose([v2.Resize(size), v2.CenterCrop(size), v2.PILToTensor()])


def read_tests(files: list[Path], size: int, samples: Samples) -> Tensor:
    """Test pictures as one batch, N x channels x size x size in [-1, 1].

    Raises:
        UserError: samples need a range, and there is none, or a picture cannot be read any more.
    """
    transform, read = v2.Compose([squared(size), to_tensor]), []
    for file in files:
        try:
            read.append(transform(read_samples(file, samples).pixels))
        except UnscaledError as error:
            raise UserError(
                f"{file} {error}, and this model has no range for them: convert it to 8 or 16 bits, or train a model "
                "on such pictures."
            ) from None
        except ValueError as error:
            raise UserError(f"{file} {error}: put it back, or leave it out.") from None
    return torch.stack(read)


class Unpaired(Dataset):
    """Sample n: one augmented picture of each domain. Each domain is gone through in its own shuffled order.

    Args:
        train_a, train_b: the domains' files.
        transform: from picture to tensor, random by torch's generator.
        samples: by domain, "a" and "b", how its pictures are read.
        seed: of order and augmentation.
        side: pixels that a picture's shorter side gets before it is transformed.
        kept: keeps pictures of that size.
    """

    def __init__(
        self,
        train_a: list[Path],
        train_b: list[Path],
        transform: v2.Transform,
        samples: dict[str, Samples],
        seed: int,
        side: int,
        kept: Kept | None = None,
    ):
        self.files = {"a": train_a, "b": train_b}
        self.transform = transform
        self.samples = samples
        self.seed = seed
        self.side, self.resize, self.kept = side, v2.Resize(side), kept

    def picture(self, file: Path, domain: str) -> Picture:
        """The picture at the size that is needed.

        Raises:
            ValueError: it cannot be read.
        """
        samples = self.samples[domain]
        found = self.kept.get(file, (self.side, samples)) if self.kept else None
        if found is not None:
            return found
        picture = self.resize(read_samples(file, samples, least=FINER * self.side).pixels)
        if self.kept:
            self.kept.put(file, (self.side, samples), picture)
        return picture

    def __getitem__(self, n: int) -> tuple[Tensor, Tensor] | Skipped:
        """Two tensors, channels x size x size in [-1, 1]; or what is wrong with a file that was fine at the start."""
        pair = []
        with torch.random.fork_rng(devices=[]):
            for domain, files in self.files.items():
                epoch, place = divmod(n, len(files))
                file = files[shuffled(len(files), self.seed, domain, epoch)[place]]
                try:
                    picture = self.picture(file, domain)
                except ValueError as error:
                    return Skipped(file, str(error))
                torch.default_generator.manual_seed(seed_of(self.seed, f"augment {domain}", n))
                pair.append(self.transform(picture))
        return pair[0], pair[1]


def collate(samples: list[tuple[Tensor, Tensor] | Skipped]) -> tuple[Tensor, Tensor] | Skipped:
    """Batch samples: two tensors N x channels x size x size; or the first problem."""
    pairs = []
    for sample in samples:
        if isinstance(sample, Skipped):
            return sample
        pairs.append(sample)
    real_a, real_b = zip(*pairs, strict=True)
    return torch.stack(real_a), torch.stack(real_b)


class Slices:
    """The sample numbers of each step's batch in process ``rank`` of ``world``, of so many steps, after the ``seen``
    samples that were taken before."""

    def __init__(self, seen: int, steps: int, batch: int, rank: int = 0, world: int = 1):
        self.seen, self.steps, self.batch, self.rank, self.world = seen, steps, batch, rank, world

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.steps):
            first = self.seen + (step * self.world + self.rank) * self.batch
            yield list(range(first, first + self.batch))


def loader(dataset: Unpaired, slices: Slices, workers: int, pin: bool) -> DataLoader:
    """Batches in the order of ``slices``; ``workers=0`` decodes in the training process."""
    return DataLoader(
        dataset,
        batch_sampler=slices,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin,
        worker_init_fn=ignore_interrupt,
    )


def ignore_interrupt(_: int) -> None:
    """Leave Ctrl-C and its like, which all processes of a run may be sent, to the training process, which saves and
    ends its workers."""
    for number in (signal.SIGINT, *endings()):
        signal.signal(number, signal.SIG_IGN)
