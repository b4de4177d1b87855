"""AGGAN, Unsupervised Attention-guided Image-to-Image Translation (Mejjati et al., NeurIPS 2018), as in its code.

An attention network a domain says where to translate; elsewhere the source stays. Where the code is not what was
meant: the three last convolutions of the attention network are called so that their kernels are 1 x 1 instead of 3 x 3,
3 x 3 and 7 x 7; here as executed. The code goes through both domains in a fixed order and pairing; here they are
shuffled, like every system's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from ugatit.nn.blocks import conv_block
from ugatit.nn.norm import InstanceNorm
from ugatit.nn.patch import PatchDiscriminator
from ugatit.nn.precision import full_precision
from ugatit.systems.base import (
    Clock,
    Direction,
    Preset,
    Recipe,
    System,
    SystemConfig,
    Translation,
    Update,
    l1,
    need_equal_channels,
    opposite,
    toward,
    weighted,
)
from ugatit.systems.pool import Pool

SHUT = 0.1  # the mean attention below which hardly anything is translated


@dataclass(frozen=True)
class AGGANConfig(SystemConfig):
    """Hyper-parameters of AGGAN; the defaults are its authors'."""

    width: Annotated[int, Field(ge=1, le=1024)] = 32
    """The channels of the first layer of generators and attention networks. Discriminators have twice as many."""
    blocks: Annotated[int, Field(ge=1, le=64)] = 9
    """The number of residual blocks in each generator."""
    cycle_weight: Annotated[float, Field(ge=0)] = 10.0
    """The weight of the cycle loss."""
    attention_until: Annotated[float, Field(ge=0, le=1)] = 0.3
    """The share of the run after which the attention networks stay as they are, and the discriminators see only what is
    attended to. The authors have 30 of 100 epochs."""
    threshold: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """The least attention of the pixels that the discriminators then see."""
    pool: Annotated[int, Field(ge=1, le=10**6)] = 50
    """The number of past translations of each domain, with their attention, from which the discriminators' fakes are
    drawn."""
    lr: Annotated[float, Field(gt=0)] = 1e-4
    """Adam's learning rate for every network."""
    decay_from: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The share of the run after which the learning rate falls linearly to 0."""

    def __post_init__(self) -> None:
        need_equal_channels(self, "AGGAN's translation keeps the source where its attention is low")


class SumResBlock(nn.Module):
    """conv3-norm-ReLU-conv3-norm plus the input, and a ReLU after the sum."""

    def __init__(self, channels: int, padding: Literal["reflect", "zeros"]):
        super().__init__()
        self.body = nn.Sequential(
            conv_block(channels, channels, 3, 1, InstanceNorm(channels), nn.ReLU(inplace=True), padding),
            conv_block(channels, channels, 3, 1, InstanceNorm(channels), None, padding),
        )

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to the same."""
        return F.relu(x + self.body(x), inplace=True)


class HalvingConv(nn.Conv2d):
    """3x3 convolution of stride 2 as TensorFlow pads it: with zeros on the right and below only."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__(channels_in, channels_out, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """N x C x H x W to N x C' x H/2 x W/2."""
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class DoublingConv(nn.ConvTranspose2d):
    """3x3 transposed convolution of stride 2 as TensorFlow aligns it, so that it undoes the shift of `HalvingConv`."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__(channels_in, channels_out, 3, 2)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """N x C x H x W to N x C' x 2H x 2W."""
        return super().forward(x, output_size)[..., :-1, :-1]


def down_block(channels_in: int, channels_out: int) -> nn.Sequential:
    """Half the size, norm, ReLU."""
    return nn.Sequential(HalvingConv(channels_in, channels_out), InstanceNorm(channels_out), nn.ReLU(inplace=True))


def up_block(channels_in: int, channels_out: int) -> nn.Sequential:
    """Twice the size, norm, ReLU."""
    return nn.Sequential(DoublingConv(channels_in, channels_out), InstanceNorm(channels_out), nn.ReLU(inplace=True))


def generator(config: AGGANConfig) -> nn.Sequential:
    """Pictures N x channels x H x W in [-1, 1] to the same, H and W multiples of 4."""
    w = config.width
    return nn.Sequential(
        conv_block(config.channels, w, 7, 1, InstanceNorm(w), nn.ReLU(inplace=True), "zeros"),
        down_block(w, 2 * w),
        down_block(2 * w, 4 * w),
        *[SumResBlock(4 * w, "zeros") for _ in range(config.blocks)],
        up_block(4 * w, 2 * w),
        up_block(2 * w, w),
        conv_block(w, config.channels, 7, 1, None, nn.Tanh(), "zeros"),
    )


def attention(config: AGGANConfig) -> nn.Sequential:
    """Pictures N x channels x H x W in [-1, 1] to masks N x 1 x H x W in [0, 1], H and W multiples of 4."""
    w, relu = config.width, nn.ReLU(inplace=True)
    return nn.Sequential(
        conv_block(config.channels, w, 7, 2, InstanceNorm(w), relu),
        down_block(w, 2 * w),
        SumResBlock(2 * w, "reflect"),
        nn.Upsample(scale_factor=2),
        conv_block(2 * w, 2 * w, 1, 1, InstanceNorm(2 * w), relu),
        nn.Upsample(scale_factor=2),
        conv_block(2 * w, w, 1, 1, InstanceNorm(w), relu),
        conv_block(w, 1, 1, 1, None, nn.Sigmoid()),
    )


def discriminator(config: AGGANConfig) -> PatchDiscriminator:
    """A PatchGAN with zeros two deep at each side."""
    w = 2 * config.width
    return PatchDiscriminator(config.channels, w, [InstanceNorm(w << i) for i in range(4)], padding=2)


class AGGAN(System):
    """A generator a direction, an attention network and a discriminator a domain."""

    Config = AGGANConfig
    presets: ClassVar = {
        # 100 epochs of selfie2anime, as many pictures as the larger domain has to an epoch.
        "paper": Preset(AGGANConfig(), Recipe(steps=340_000)),
        "quick": Preset(
            AGGANConfig(size=64, blocks=4, cycle_weight=1, lr=4e-4), Recipe(steps=1700, ema=0.998, enlarge=1)
        ),
    }
    translators = ("gen_a2b", "gen_b2a", "att_a", "att_b")
    remembered = ("pool_a", "pool_b")

    def __init__(self, config: AGGANConfig):
        super().__init__()
        self.config = config
        self.gen_a2b, self.gen_b2a = generator(config), generator(config)
        self.att_a, self.att_b = attention(config), attention(config)
        self.disc_a, self.disc_b = discriminator(config), discriminator(config)
        shape = config.channels + 1, config.size, config.size
        self.pool_a, self.pool_b = Pool(config.pool, *shape), Pool(config.pool, *shape)
        self.phases = (0.0, config.attention_until) if config.attention_until else (0.0,)

    def init_weights(self) -> None:
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.trunc_normal_(part.weight, 0.0, 0.02, -0.04, 0.04)
                nn.init.zeros_(part.bias)  # type: ignore[arg-type]
            elif isinstance(part, InstanceNorm):
                nn.init.trunc_normal_(part.weight, 1.0, 0.02, 0.96, 1.04)  # type: ignore[arg-type]

    def paste(self, x: Tensor, direction: Direction) -> tuple[Tensor, Tensor]:
        """The translation where the source's attention is, the source elsewhere; and that attention, N x 1 x H x W."""
        mask = self.get_submodule(f"att_{direction[0]}")(x)
        return mask * self.get_submodule(f"gen_{direction}")(x) + (1 - mask) * x, mask

    def judge(self, domain: str, x: Tensor, mask: Tensor, clock: Clock) -> Tensor:
        """What ``domain``'s discriminator says: first of all of ``x``, later of what is attended, without norms."""
        masked = clock.share >= self.config.attention_until
        seen = x * (mask >= self.config.threshold) if masked else x
        return self.get_submodule(f"disc_{domain}")(seen, normed=not masked)

    def generator_update(
        self, direction: Direction, real: dict[str, Tensor], clock: Clock
    ) -> tuple[Update, tuple[Tensor, Tensor]]:
        """Of one direction's generator and, in the first part of the run, its source's attention.

        Returns:
            The update, and the translation and its mask.
        """
        source, target = direction.split("2")
        back = opposite(direction)
        fake, mask = self.paste(real[source], direction)
        with torch.no_grad():
            fake_back, _ = self.paste(real[target], back)
        terms = {
            "adv": {"": toward(self.judge(target, fake, mask, clock), 1)},
            "cycle": {
                source: l1(self.paste(fake, back)[0], real[source]),
                target: l1(self.paste(fake_back, direction)[0], real[target]),
            },
        }
        learning = clock.share < self.config.attention_until
        trained = (f"gen_{direction}", f"att_{source}") if learning else (f"gen_{direction}",)
        update = weighted(trained, f"gen_{direction}", terms, {"adv": 1.0, "cycle": self.config.cycle_weight})
        update.terms[f"att/mean_{source}"] = full_precision(mask.detach()).mean()
        return update, (fake, mask)

    def discriminator_update(self, domain: str, real: Tensor, fake: tuple[Tensor, Tensor], clock: Clock) -> Update:
        """Half the least squares of real pictures to 1 and of the pool's fakes to 0."""
        pool: Pool = getattr(self, f"pool_{domain}")
        pooled = pool.exchange(torch.cat(fake, 1), clock)
        with torch.no_grad():
            mask = self.get_submodule(f"att_{domain}")(real)
        on_real = self.judge(domain, real, mask, clock)
        on_fake = self.judge(domain, pooled[:, :-1], pooled[:, -1:], clock)
        loss = 0.5 * (toward(on_real, 1) + toward(on_fake, 0))
        return Update((f"disc_{domain}",), loss, {f"disc/adv_{domain}": loss})

    def updates(self, real_a: Tensor, real_b: Tensor, clock: Clock) -> Iterator[Update]:
        """A to B's generator, B's discriminator, B to A's generator, A's discriminator."""
        real = {"a": real_a, "b": real_b}
        for direction in self.directions:
            update, made = self.generator_update(direction, real, clock)
            yield update
            target = direction[-1]
            yield self.discriminator_update(target, real[target], made, clock)

    def optimizers(self) -> dict[str, Optimizer]:
        c = self.config
        return {
            name: Adam(network.parameters(), c.lr, (c.beta1, c.beta2))
            for name, network in self.named_children()
            if not name.startswith("pool")
        }

    def signs(self, means: dict[str, float]) -> list[str]:
        shut = any(name.startswith("att/mean_") and mean < SHUT for name, mean in means.items())
        sentence = (
            "The attention networks attend to next to nothing, so pictures stay as they are: try a smaller "
            "`cycle_weight`; the cycle loss is lowest where nothing changes."
        )
        return super().signs(means) + [sentence] * shut

    def lr_factor(self, clock: Clock) -> float:
        return clock.linear_decay(self.config.decay_from)

    def translate(self, x: Tensor, direction: Direction) -> Translation:
        return Translation(*self.paste(x, direction))
