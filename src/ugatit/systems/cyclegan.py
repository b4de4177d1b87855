"""CycleGAN (Zhu et al., ICCV 2017) as in its authors' PyTorch code.

Where paper and code differ: the identity loss, in the paper for some data sets only, is on by default, at half the
cycle's weight. Where the authors' Lua and PyTorch codes differ (Lua's instance norms have scale and shift), PyTorch's.
Pictures are resized bilinearly, in the code bicubically.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from ugatit.io.errors import UserError
from ugatit.nn.blocks import conv_block, init_normal, plain_res_block, up_block
from ugatit.nn.norm import InstanceNorm
from ugatit.nn.patch import PatchDiscriminator
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
    toward,
    weighted,
)
from ugatit.systems.pool import Pool


@dataclass(frozen=True)
class CycleGANConfig(SystemConfig):
    """Hyper-parameters of CycleGAN; the defaults are its authors'."""

    blocks: Annotated[int, Field(ge=1, le=64)] = 9
    """The number of residual blocks in each generator. The authors take 6 for pictures of 128 pixels."""
    cycle_weight: Annotated[float, Field(ge=0)] = 10.0
    """The weight of the cycle loss."""
    identity_weight: Annotated[float, Field(ge=0)] = 5.0
    """The weight of the identity loss."""
    pool: Annotated[int, Field(ge=1, le=10**6)] = 50
    """The number of past translations of each domain from which the discriminators' fakes are drawn."""
    lr: Annotated[float, Field(gt=0)] = 2e-4
    """Adam's learning rate for generators and discriminators."""
    decay_from: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The share of the run after which the learning rate falls linearly to 0."""

    only: Direction | None = None
    """The direction of a model that has one generator and no discriminator, as a published one may have. It translates,
    and cannot be trained."""

    def __post_init__(self) -> None:
        if self.identity_weight and not self.only:
            need_equal_channels(self, "the identity loss gives each generator pictures of both domains")


def generator(config: CycleGANConfig, channels_in: int, channels_out: int) -> nn.Sequential:
    """Pictures N x channels_in x H x W in [-1, 1] to N x channels_out x H x W, H and W multiples of 4."""
    w, relu = config.width, nn.ReLU(inplace=True)
    return nn.Sequential(
        conv_block(channels_in, w, 7, 1, InstanceNorm(), relu),
        conv_block(w, 2 * w, 3, 2, InstanceNorm(), relu, "zeros"),
        conv_block(2 * w, 4 * w, 3, 2, InstanceNorm(), relu, "zeros"),
        *[plain_res_block(4 * w) for _ in range(config.blocks)],
        up_block(4 * w, 2 * w, InstanceNorm()),
        up_block(2 * w, w, InstanceNorm()),
        conv_block(w, channels_out, 7, 1, None, nn.Tanh()),
    )


def discriminator(config: CycleGANConfig, channels: int) -> PatchDiscriminator:
    """The 70 x 70 PatchGAN; its first layer has no norm."""
    norms = [nn.Identity(), InstanceNorm(), InstanceNorm(), InstanceNorm()]
    return PatchDiscriminator(channels, config.width, norms)


class CycleGAN(System):
    """Two generators and two discriminators."""

    Config = CycleGANConfig
    presets: ClassVar = {
        # 200 epochs of selfie2anime, as many pictures as the larger domain has to an epoch.
        "paper": Preset(CycleGANConfig(), Recipe(steps=680_000)),
        "quick": Preset(CycleGANConfig(size=64, width=32, blocks=4, lr=4e-4), Recipe(steps=1700, ema=0.998, enlarge=1)),
    }
    translators: tuple[str, ...] = ("gen_a2b", "gen_b2a")
    remembered = ("pool_a", "pool_b")

    def __init__(self, config: CycleGANConfig):
        super().__init__()
        self.config = config
        a, b = channels_of(config)
        if config.only:
            self.directions, self.translators = (config.only,), (f"gen_{config.only}",)
            self.add_module(f"gen_{config.only}", generator(config, *((a, b) if config.only == "a2b" else (b, a))))
            return
        self.gen_a2b, self.gen_b2a = generator(config, a, b), generator(config, b, a)
        self.disc_a, self.disc_b = discriminator(config, a), discriminator(config, b)
        self.pool_a, self.pool_b = (Pool(config.pool, channels, config.size, config.size) for channels in (a, b))

    def init_weights(self) -> None:
        if self.config.only:
            raise UserError("`only` is for a model that translates one way: leave it out to train.")
        init_normal(self)

    def updates(self, real_a: Tensor, real_b: Tensor, clock: Clock) -> Iterator[Update]:
        """Generators, then discriminators, which see fakes from the pool."""
        identity = {}
        if self.config.identity_weight:  # translation and identity of one generator in one batch
            fake_b, same_b = self.gen_a2b(torch.cat([real_a, real_b])).chunk(2)
            fake_a, same_a = self.gen_b2a(torch.cat([real_b, real_a])).chunk(2)
            identity["identity"] = {"a": l1(same_a, real_a), "b": l1(same_b, real_b)}
        else:
            fake_b, fake_a = self.gen_a2b(real_a), self.gen_b2a(real_b)
        terms = {
            "adv": {"a": toward(self.disc_a(fake_a), 1), "b": toward(self.disc_b(fake_b), 1)},
            "cycle": {"a": l1(self.gen_b2a(fake_b), real_a), "b": l1(self.gen_a2b(fake_a), real_b)},
            **identity,
        }
        weights = {"adv": 1.0, "cycle": self.config.cycle_weight, "identity": self.config.identity_weight}
        yield weighted(("gen",), "gen", terms, weights)

        pooled_a, pooled_b = self.pool_a.exchange(fake_a, clock), self.pool_b.exchange(fake_b, clock)
        terms = {
            "adv": {
                "a": self.discriminator_loss(self.disc_a, real_a, pooled_a),
                "b": self.discriminator_loss(self.disc_b, real_b, pooled_b),
            }
        }
        yield weighted(("disc",), "disc", terms, {"adv": 1.0})

    def discriminator_loss(self, disc: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Half the least squares of real pictures to 1 and of fakes to 0."""
        on_real, on_fake = disc(torch.cat([real, fake])).chunk(2)
        return 0.5 * (toward(on_real, 1) + toward(on_fake, 0))

    def optimizers(self) -> dict[str, Optimizer]:
        c = self.config
        groups = self.parameters_by(lambda name: name.split("_")[0])
        return {name: Adam(group, c.lr, (c.beta1, c.beta2)) for name, group in groups.items()}

    def lr_factor(self, clock: Clock) -> float:
        return clock.linear_decay(self.config.decay_from)

    def translate(self, x: Tensor, direction: Direction) -> Translation:
        return Translation(self.get_submodule(f"gen_{direction}")(x), None)
