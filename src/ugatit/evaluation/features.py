"""Networks in whose features pictures are compared, each named and identified by the hash of its weights."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ugatit.io.errors import UserError, package, words_of
from ugatit.io.files import digest, read_torch
from ugatit.nn.pretrained import EfficientNetLite0

FeatureName = Literal["inception", "efficientnet-lite0"]


class FeatureNetwork(NamedTuple):
    """A pretrained network as a measuring instrument."""

    name: str
    weights: str  # SHA-256 of its weights' file, as hex
    resize: str  # what it does to pictures of another size than its own
    net: nn.Module  # evaluation mode
    pool: Callable[[Tensor], Tensor]  # pictures, uint8, N x 3 x H x W, to N x C
    stages: list[nn.Module]  # parts of net, from fine to coarse, whose outputs `perceptual_distance` compares


@torch.random.fork_rng(devices=[])
def load_features(name: FeatureName, weights: Path | None, device: torch.device) -> FeatureNetwork:
    """A feature network on ``device``.

    Args:
        name: "inception" is FID's Inception v3, whose weights are downloaded once; "efficientnet-lite0" needs no
            download.
        weights: Inception's weights, the file that torch-fidelity downloads, where there is no network.
        device: to run it on.

    Raises:
        UserError: its package is not installed, or its weights cannot be had.
    """
    if name not in get_args(FeatureName):
        raise UserError(f"`features={name}` is not known: use {' or '.join(get_args(FeatureName))}.")
    if name == "efficientnet-lite0":
        if weights is not None:
            raise UserError('`weights` is for `features="inception"`: efficientnet-lite0 brings its own, leave it out.')
        lite = EfficientNetLite0()
        lite = lite.eval().requires_grad_(False).to(device)
        blocks = lite.net._blocks
        stages = [blocks[i] for i in (0, 2, 4, 10, 15)]  # the last before each halving
        return FeatureNetwork(
            name, digest(lite.weights()), "to 224 x 224, bicubic with antialiasing", lite, lite, stages
        )
    net, path = inception(weights)
    net = net.to(device)
    stages = [
        net.get_submodule(part) for part in ("Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c")
    ]
    resize = "to 299 x 299, bilinear as in TensorFlow 1, without antialiasing"
    return FeatureNetwork(name, digest(path), resize, net, lambda x: net(x)[0], stages)


def inception(weights: Path | None) -> tuple[nn.Module, Path]:
    """FID's Inception v3 and the file its weights are in."""
    extractor = package("torch_fidelity.feature_extractor_inceptionv3", "evaluate")
    address = extractor.URL_INCEPTION_V3
    if weights is not None:
        try:
            read_torch(weights)  # torch-fidelity would unpickle anything
        except ValueError as error:
            raise UserError(f"`weights={weights}` {error}: check the path, or get the file again.") from None
    try:
        with warnings.catch_warnings(action="ignore"):
            net = extractor.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], weights and str(weights))
    except OSError as error:
        raise UserError(
            f"Inception's weights cannot be downloaded ({error}): give their file with `weights` (from "
            f'{address}), or use `features="efficientnet-lite0"`.'
        ) from None
    except RuntimeError as error:
        raise UserError(
            f"`weights={weights}` does not fit FID's Inception ({words_of(error)}): give the file "
            f"{address.rsplit('/', 1)[1]} of torch-fidelity."
        ) from None
    cached = Path(torch.hub.get_dir()) / "checkpoints" / address.rsplit("/", 1)[1]
    return net, weights or cached


@torch.no_grad()
def perceptual_distance(network: FeatureNetwork, x: Tensor, y: Tensor) -> Tensor:
    """LPIPS without its learned weights: squared distance of unit-length feature vectors, averaged over the pixels of
    each stage and summed over the stages.

    Args:
        network: whose stages are compared.
        x, y: pictures, uint8, N x 3 x H x W.

    Returns:
        One distance a pair, N, from 0 for the same picture to at most 4 a stage.
    """
    total = torch.zeros(len(x), device=x.device)
    for of_x, of_y in zip(stage_maps(network, x), stage_maps(network, y), strict=True):
        gap = F.normalize(of_x.float(), dim=1) - F.normalize(of_y.float(), dim=1)
        total += gap.square().sum(1).mean((1, 2))
    return total


def stage_maps(network: FeatureNetwork, x: Tensor) -> list[Tensor]:
    """Outputs of the network's stages, N x C x h x w each."""
    maps: list[Tensor] = []
    handles = [stage.register_forward_hook(lambda _m, _i, output: maps.append(output)) for stage in network.stages]
    try:
        network.pool(x)
    finally:
        for handle in handles:
            handle.remove()
    return maps
