"""MUNIT (Huang et al., ECCV 2018) as in its authors' code.

A picture is a content, which translation keeps, and a style of eight numbers, which it replaces. The domain-invariant
perceptual loss is off, as in the authors' settings for 256 pixels; its VGG16 is torchvision's instead of Caffe's. The
preset `quick` has a cycle loss, which is off in `paper`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from ugatit.nn.blocks import init_normal
from ugatit.nn.latent import StyledDecoder, content_encoder, init_kaiming, style_encoder
from ugatit.nn.norm import InstanceNorm
from ugatit.nn.patch import MultiScaleDiscriminator
from ugatit.nn.precision import full_precision
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
    channels_of,
    l1,
    need_equal_channels,
    need_photographs,
    toward_each,
    weighted,
)

STYLE = 8  # numbers


@dataclass(frozen=True)
class MUNITConfig(SystemConfig):
    """Hyper-parameters of MUNIT; the defaults are its authors'."""

    size: Annotated[int, Field(ge=64, le=4096, multiple_of=4)] = 256
    """The side of the training pictures in pixels, a multiple of 4 from 64 up."""
    blocks: Annotated[int, Field(ge=1, le=64)] = 4
    """The number of residual blocks in each content encoder, and in each decoder."""
    hidden: Annotated[int, Field(ge=1, le=4096)] = 256
    """The units of the layers that make scales and shifts out of a style."""
    adv_weight: Annotated[float, Field(ge=0)] = 1.0
    """The weight of the adversarial loss."""
    recon_weight: Annotated[float, Field(ge=0)] = 10.0
    """The weight of the reconstruction of a picture from its own content and style."""
    style_weight: Annotated[float, Field(ge=0)] = 1.0
    """The weight of the reconstruction of the style that a translation was given."""
    content_weight: Annotated[float, Field(ge=0)] = 1.0
    """The weight of the reconstruction of a translation's content."""
    cycle_weight: Annotated[float, Field(ge=0)] = 0.0
    """The weight of the reconstruction of the picture from its translation. The authors take 10 where
    shapes stay (summer and winter), 0 where they change."""
    vgg_weight: Annotated[float, Field(ge=0)] = 0.0
    """The weight of the distance of source and translation in VGG16's instance-normalised features. The authors take 1
    for the street scenes at 512 pixels."""
    vgg: Path | None = None
    """The file of VGG16's weights, torchvision's. If it is not given and --vgg-weight is not 0, they are downloaded
    once."""
    lr: Annotated[float, Field(gt=0)] = 1e-4
    """Adam's learning rate for generators and discriminators."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """The L2 weight decay, which is added to the gradient."""
    halve_every: Annotated[int, Field(ge=1)] = 100_000
    """After every so many steps the learning rate is halved."""

    def __post_init__(self) -> None:
        if self.vgg and not self.vgg_weight:
            raise ValueError("`vgg` is used with `vgg_weight` alone: give that too, or leave it out")
        if self.vgg_weight:
            need_equal_channels(self, "`vgg_weight` compares a translation with its source")
            need_photographs(self, "`vgg_weight` asks a network that has seen photographs only")


class Autoencoder(nn.Module):
    """One domain's encoders of content and style, and its decoder."""

    def __init__(self, config: MUNITConfig, channels: int):
        super().__init__()
        self.content = content_encoder(channels, config.width, config.blocks)
        self.style = style_encoder(channels, config.width, STYLE)
        self.decode = StyledDecoder(channels, config.width, config.blocks, STYLE, config.hidden)


class MUNIT(System):
    """An auto-encoder and a discriminator a domain."""

    Config = MUNITConfig
    presets: ClassVar = {
        "paper": Preset(MUNITConfig(), Recipe(enlarge=1)),
        "quick": Preset(
            MUNITConfig(size=64, width=24, blocks=2, hidden=128, cycle_weight=10, lr=4e-4, weight_decay=0),
            Recipe(steps=1700, ema=0.998, enlarge=1),
        ),
    }
    translators = ("gen_a", "gen_b")
    recordable = True
    styles = STYLE

    def __init__(self, config: MUNITConfig):
        super().__init__()
        self.config = config
        both = channels_of(config)
        self.gen_a, self.gen_b = (Autoencoder(config, channels) for channels in both)
        self.disc_a, self.disc_b = (MultiScaleDiscriminator(channels, config.width) for channels in both)

    def init_weights(self) -> None:
        if self.config.vgg_weight:
            content_network("vgg16", self.config.vgg, torch.device("cpu"))  # to fail before the run
        for name, network in self.named_children():
            (init_normal if name.startswith("disc") else init_kaiming)(network)

    def perceptual(self, fake: Tensor, source: Tensor) -> Tensor:
        """The domain-invariant perceptual loss: what instance norm takes away differs between domains."""
        vgg = content_network("vgg16", self.config.vgg, source.device)
        with torch.no_grad():
            wanted = InstanceNorm()(vgg(source))
        return F.mse_loss(full_precision(InstanceNorm()(vgg(fake))), full_precision(wanted))

    def updates(self, real_a: Tensor, real_b: Tensor, clock: Clock) -> Iterator[Update]:
        """Discriminators, then auto-encoders; each with styles of its own, so translations are made twice."""
        gen_a, gen_b = self.gen_a, self.gen_b
        style_a, style_b = clock.noise(real_a, STYLE), clock.noise(real_b, STYLE)
        with torch.no_grad():
            fake_a = gen_a.decode(gen_b.content(real_b), style_a)
            fake_b = gen_b.decode(gen_a.content(real_a), style_b)
        terms = {
            "adv": {
                "a": toward_each(self.disc_a(real_a), 1) + toward_each(self.disc_a(fake_a), 0),
                "b": toward_each(self.disc_b(real_b), 1) + toward_each(self.disc_b(fake_b), 0),
            }
        }
        yield weighted(("disc",), "disc", terms, {"adv": self.config.adv_weight})

        style_a, style_b = clock.noise(real_a, STYLE), clock.noise(real_b, STYLE)
        content_a, content_b = gen_a.content(real_a), gen_b.content(real_b)
        own_a, own_b = gen_a.style(real_a), gen_b.style(real_b)
        # Reconstruction and translation of one decoder in one batch.
        same_a, fake_a = gen_a.decode(torch.cat([content_a, content_b]), torch.cat([own_a, style_a])).chunk(2)
        same_b, fake_b = gen_b.decode(torch.cat([content_b, content_a]), torch.cat([own_b, style_b])).chunk(2)
        found_a, found_b = gen_b.content(fake_b), gen_a.content(fake_a)  # contents of a and of b, from translations
        terms = {
            "adv": {"a": toward_each(self.disc_a(fake_a), 1), "b": toward_each(self.disc_b(fake_b), 1)},
            "recon": {"a": l1(same_a, real_a), "b": l1(same_b, real_b)},
            "style": {"a": l1(gen_a.style(fake_a), style_a), "b": l1(gen_b.style(fake_b), style_b)},
            "content": {"a": l1(found_a, content_a), "b": l1(found_b, content_b)},
        }
        if self.config.cycle_weight:
            back_a, back_b = gen_a.decode(found_a, own_a), gen_b.decode(found_b, own_b)
            terms["cycle"] = {"a": l1(back_a, real_a), "b": l1(back_b, real_b)}
        if self.config.vgg_weight:
            terms["vgg"] = {"a": self.perceptual(fake_a, real_b), "b": self.perceptual(fake_b, real_a)}
        yield weighted(("gen",), "gen", terms, {kind: getattr(self.config, f"{kind}_weight") for kind in terms})

    def optimizers(self) -> dict[str, Optimizer]:
        c = self.config
        groups = self.parameters_by(lambda name: name.split("_")[0])
        return {
            name: Adam(group, c.lr, (c.beta1, c.beta2), weight_decay=c.weight_decay) for name, group in groups.items()
        }

    def lr_factor(self, clock: Clock) -> float:
        return 0.5 ** (clock.step // self.config.halve_every)

    def translate(self, x: Tensor, direction: Direction, style: Tensor | None = None) -> Translation:
        source, target = direction.split("2")
        if style is None:
            style = torch.randn(len(x), STYLE, device=x.device, dtype=x.dtype)
        content = self.get_submodule(f"gen_{source}.content")(x)
        return Translation(self.get_submodule(f"gen_{target}.decode")(content, style.expand(len(x), -1)), None)

    def style_of(self, x: Tensor, direction: Direction) -> Tensor:
        return self.get_submodule(f"gen_{direction[-1]}.style")(x)
