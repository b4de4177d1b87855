"""KID and FID as torch-fidelity computes them, distance to the truth, and what attention is worth."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from ugatit.data.reading import read_picture
from ugatit.data.sampling import squared
from ugatit.evaluation.features import FeatureName, FeatureNetwork, perceptual_distance
from ugatit.evaluation.sharing import shared
from ugatit.io.errors import UserError
from ugatit.io.terminal import counted
from ugatit.nn.precision import tf32
from ugatit.systems.base import Range

BATCH = 16
LEAST = 4  # pictures in a set


@dataclass(frozen=True)
class Protocol:
    """What figures depend on besides the pictures."""

    features: FeatureName = "inception"
    """The network whose features are compared. Figures of different networks cannot be compared."""
    weights: Path | None = None
    """The file of Inception's weights. If it is not given, they are downloaded once."""
    subsets: Annotated[int, Field(ge=2)] = 100
    """The number of random subsets that KID's mean and standard deviation are taken over."""
    subset_size: Annotated[int | None, Field(ge=2)] = None
    """The number of pictures in each subset, drawn without repetition. If it is not given, half of the smaller set, at
    most 1000."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """The random seed of the subsets."""


class Files(NamedTuple):
    """Pictures of one kind, the side in pixels that they are compared at, and the range that they are read with."""

    files: list[Path]
    side: int
    range: Range | None = None


class Squares:
    """Pictures as 8-bit RGB squares: shorter side to ``side``, centre crop. UserError names one that cannot be read."""

    def __init__(self, pictures: Files):
        self.pictures = pictures
        self.transform = squared(pictures.side)

    def __len__(self) -> int:
        return len(self.pictures.files)

    def __getitem__(self, n: int) -> Tensor:
        """uint8, 3 x side x side."""
        try:
            return self.transform(read_picture(self.pictures.files[n], range=self.pictures.range))
        except ValueError as error:
            raise UserError(f"{self.pictures.files[n]} {error}: put it back, or leave it out.") from None

    def batch(self, number: int) -> Tensor:
        """`BATCH` of them, N x 3 x side x side."""
        return torch.stack([self[n] for n in range(len(self))[number * BATCH : (number + 1) * BATCH]])

    @property
    def batches(self) -> int:
        """How many there are."""
        return math.ceil(len(self) / BATCH)


@torch.no_grad()
@tf32(False)
def extract(network: FeatureNetwork, pictures: Files, device: torch.device) -> Tensor:
    """Features of pictures, N x C in float64, on the CPU; all processes share the work."""
    squares = Squares(pictures)

    def part(number: int) -> Tensor:
        return network.pool(squares.batch(number).to(device)).cpu().double()

    return torch.cat(shared(part, squares.batches, "measuring"))


def check_subsets(protocol: Protocol, *counts: int) -> int:
    """The size of the subsets of sets of so many pictures.

    Raises:
        UserError: a set is smaller than the subsets.
    """
    smaller = min(counts)
    if smaller < LEAST:
        raise UserError(f"The smaller set has {counted(smaller, 'picture')}, at least {LEAST} are needed: add more.")
    size = min(1000, smaller // 2) if protocol.subset_size is None else protocol.subset_size
    if size < 2 or protocol.subsets < 2:
        raise UserError(f"`subset_size={size}` and `subsets={protocol.subsets}`: give 2 or more of each.")
    if size > smaller:
        raise UserError(f"`subset_size={size}` is more than the {smaller} pictures of the smaller set: give less.")
    return size


def kid(real: Tensor, fake: Tensor, protocol: Protocol) -> tuple[float, float, int]:
    """Kernel Inception distance (Binkowski et al., 2018): the unbiased MMD with the kernel (x y / C + 1)^3.

    Args:
        real, fake: features, N x C and M x C.
        protocol: number, size and seed of the subsets.

    Returns:
        Mean and standard deviation over the subsets, both times 100, and the subsets' size.

    Raises:
        UserError: a set is smaller than the subsets, or they are no features of one network.
    """
    need_alike(real, fake)
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    size = check_subsets(protocol, len(real), len(fake))
    found = kid_features_to_metric(
        real, fake, kid_subsets=protocol.subsets, kid_subset_size=size, rng_seed=protocol.seed, verbose=False
    )
    return 100 * found[KEY_METRIC_KID_MEAN], 100 * found[KEY_METRIC_KID_STD], size


def need_alike(real: Tensor, fake: Tensor) -> None:
    """Raises UserError if features are not tensors, N x C and M x C."""
    tensors = isinstance(real, Tensor) and isinstance(fake, Tensor)
    if not tensors or not real.ndim == fake.ndim == 2 or real.shape[1] != fake.shape[1]:
        raise UserError("`real` and `fake` are no features of one network: give tensors, N x C and M x C.")


def fid(real: Tensor, fake: Tensor) -> float:
    """Frechet distance of normal distributions fitted to features, N x C and M x C (Heusel et al., 2017).

    Raises:
        UserError: they are no features of one network.
    """
    need_alike(real, fake)
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    statistics = (fid_features_to_statistics(features) for features in (real, fake))
    return fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID]


@torch.no_grad()
@tf32(False)
def paired(network: FeatureNetwork, fake: Files, truth: Files, device: torch.device) -> dict[str, float]:
    """Distances of translations to their true counterparts, the n-th of ``fake`` to the n-th of ``truth``.

    Returns:
        ``l1``: mean absolute difference, 0 to 1; ``ssim``: structural similarity, up to 1 (Wang et al., 2004);
        ``perceptual``: see `ugatit.evaluation.features.perceptual_distance`.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    fakes, truths = Squares(fake), Squares(truth)

    def part(number: int) -> dict[str, Tensor]:
        made, wanted = (squares.batch(number).to(device) for squares in (fakes, truths))
        x, y = made / 255, wanted / 255
        found = {
            "l1": (x - y).abs().mean((1, 2, 3)),
            "ssim": torch.as_tensor(ssim(x, y, data_range=1.0, reduction="none")).reshape(-1),
            "perceptual": perceptual_distance(network, made, wanted),
        }
        return {name: values.cpu() for name, values in found.items()}

    return means(shared(part, fakes.batches, "comparing"))


def means(parts: list[dict[str, Tensor]]) -> dict[str, float]:
    """The mean of each kind of numbers over all parts."""
    return {name: torch.cat([part[name] for part in parts]).mean().item() for name in parts[0]}


def attention_rank(heatmap: Tensor, x: Tensor, truth: Tensor) -> Tensor:
    """How well attention tells where the domains differ: Spearman's rank correlation over pixels, one a picture.

    Args:
        heatmap: N x 1 x h x w.
        x, truth: pictures and their true counterparts, N x channels x H x W; their absolute difference is averaged over
            channels and over each of the heat map's cells.

    Returns:
        N correlations in [-1, 1].
    """
    from torchmetrics.functional import spearman_corrcoef

    height, width = heatmap.shape[2:]
    change = F.adaptive_avg_pool2d((x - truth).abs().mean(1, keepdim=True), (height, width))
    pairs = zip(heatmap.flatten(1), change.flatten(1), strict=True)
    return torch.stack([spearman_corrcoef(attention.float(), true.float()) for attention, true in pairs])
