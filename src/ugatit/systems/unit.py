"""UNIT (Liu et al., NIPS 2017) as in its authors' later code, the one that MUNIT came with.

That code and the paper differ: it shares no weights between the domains, its posterior has variance 1, so that the KL
divergence is the mean square of the latent code up to constants, and its networks and loss weights are MUNIT's. The
code as of the paper is kept in the branch version_02 of the authors' repository.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from ugatit.nn.blocks import init_normal, plain_res_block
from ugatit.nn.latent import content_encoder, init_kaiming, up_sampler
from ugatit.nn.patch import MultiScaleDiscriminator
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
    mean_square,
    toward_each,
    weighted,
)


@dataclass(frozen=True)
class UNITConfig(SystemConfig):
    """Hyper-parameters of UNIT; the defaults are its authors'."""

    size: Annotated[int, Field(ge=64, le=4096, multiple_of=4)] = 256
    """The side of the training pictures in pixels, a multiple of 4 from 64 up."""
    blocks: Annotated[int, Field(ge=1, le=64)] = 4
    """The number of residual blocks in each encoder, and in each decoder."""
    adv_weight: Annotated[float, Field(ge=0)] = 1.0
    """The weight of the adversarial loss."""
    recon_weight: Annotated[float, Field(ge=0)] = 10.0
    """The weight of the reconstruction of a picture from its own latent code."""
    kl_weight: Annotated[float, Field(ge=0)] = 0.01
    """The weight of the mean square of a picture's latent code."""
    cycle_weight: Annotated[float, Field(ge=0)] = 10.0
    """The weight of the reconstruction from the translation's latent code."""
    cycle_kl_weight: Annotated[float, Field(ge=0)] = 0.01
    """The weight of the mean square of the translation's latent code."""
    lr: Annotated[float, Field(gt=0)] = 1e-4
    """Adam's learning rate for generators and discriminators."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """The L2 weight decay, which is added to the gradient."""
    halve_every: Annotated[int, Field(ge=1)] = 100_000
    """After every so many steps the learning rate is halved."""


def decoder(config: UNITConfig, channels: int) -> nn.Sequential:
    """Codes N x 4w x h x w to pictures N x channels x 4h x 4w in [-1, 1]."""
    return nn.Sequential(
        *[plain_res_block(4 * config.width) for _ in range(config.blocks)],
        *up_sampler(channels, config.width),
    )


class UNIT(System):
    """An encoder, a decoder and a discriminator a domain."""

    Config = UNITConfig
    presets: ClassVar = {
        "paper": Preset(UNITConfig(), Recipe(enlarge=1)),
        "quick": Preset(
            UNITConfig(size=64, width=24, blocks=2, lr=4e-4, weight_decay=0), Recipe(steps=1700, ema=0.998, enlarge=1)
        ),
    }
    translators = ("enc_a", "enc_b", "dec_a", "dec_b")
    recordable = True

    def __init__(self, config: UNITConfig):
        super().__init__()
        self.config = config
        both = channels_of(config)
        self.enc_a, self.enc_b = (content_encoder(channels, config.width, config.blocks) for channels in both)
        self.dec_a, self.dec_b = (decoder(config, channels) for channels in both)
        self.disc_a, self.disc_b = (MultiScaleDiscriminator(channels, config.width) for channels in both)

    def init_weights(self) -> None:
        for name, network in self.named_children():
            (init_normal if name.startswith("disc") else init_kaiming)(network)

    def updates(self, real_a: Tensor, real_b: Tensor, clock: Clock) -> Iterator[Update]:
        """Discriminators, then encoders and decoders; each with noise of its own, so translations are made twice."""
        with torch.no_grad():
            fake_b = self.dec_b(noisy(self.enc_a(real_a), clock))
            fake_a = self.dec_a(noisy(self.enc_b(real_b), clock))
        terms = {
            "adv": {
                "a": toward_each(self.disc_a(real_a), 1) + toward_each(self.disc_a(fake_a), 0),
                "b": toward_each(self.disc_b(real_b), 1) + toward_each(self.disc_b(fake_b), 0),
            }
        }
        yield weighted(("disc",), "disc", terms, {"adv": self.config.adv_weight})

        code_a, code_b = self.enc_a(real_a), self.enc_b(real_b)
        latent_a, latent_b = noisy(code_a, clock), noisy(code_b, clock)
        # Reconstruction and translation of one decoder in one batch.
        same_a, fake_a = self.dec_a(torch.cat([latent_a, latent_b])).chunk(2)
        same_b, fake_b = self.dec_b(torch.cat([latent_b, latent_a])).chunk(2)
        code_fake_a, code_fake_b = self.enc_a(fake_a), self.enc_b(fake_b)
        terms = {
            "adv": {"a": toward_each(self.disc_a(fake_a), 1), "b": toward_each(self.disc_b(fake_b), 1)},
            "recon": {"a": l1(same_a, real_a), "b": l1(same_b, real_b)},
            "kl": {"a": mean_square(code_a), "b": mean_square(code_b)},
            "cycle": {
                "a": l1(self.dec_a(noisy(code_fake_b, clock)), real_a),
                "b": l1(self.dec_b(noisy(code_fake_a, clock)), real_b),
            },
            "cycle_kl": {"a": mean_square(code_fake_b), "b": mean_square(code_fake_a)},
        }
        yield weighted(("gen",), "gen", terms, {kind: getattr(self.config, f"{kind}_weight") for kind in terms})

    def optimizers(self) -> dict[str, Optimizer]:
        groups = self.parameters_by(lambda name: "disc" if name.startswith("disc") else "gen")
        c = self.config
        return {
            name: Adam(group, c.lr, (c.beta1, c.beta2), weight_decay=c.weight_decay) for name, group in groups.items()
        }

    def lr_factor(self, clock: Clock) -> float:
        return 0.5 ** (clock.step // self.config.halve_every)

    def translate(self, x: Tensor, direction: Direction) -> Translation:
        source, target = direction.split("2")
        code = self.get_submodule(f"enc_{source}")(x)
        return Translation(self.get_submodule(f"dec_{target}")(code), None)


def noisy(code: Tensor, clock: Clock) -> Tensor:
    """A sample of the posterior, N(code, 1)."""
    return code + clock.noise(code, *code.shape[1:])
