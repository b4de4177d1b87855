"""DRIT (Lee et al., ECCV 2018) as in its authors' code, without the mode seeking that came with DRIT++.

Of the code's two variants this is the one that its authors advise where shapes change (``--concat 0``). In the code
the discriminators' instance norm is asked for but never applied, as two string literals are compared; nor is it here.
The code's last update of a step back-propagates through weights that the one before has changed; here its branch is
computed again, with the same noise. The second half of the steps brings the learning rate to 0; the code's 600 epochs
of decay end wherever 500,000 full steps do, which depends on the number of pictures. Pictures are resized bilinearly,
in the code bicubically.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from ugatit.nn.blocks import conv_block, plain_res_block
from ugatit.nn.latent import style_encoder
from ugatit.nn.norm import InstanceNorm, LayerNorm
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
    cross_entropy,
    l1,
    mean_square,
    weighted,
)

ATTRIBUTE = 8  # numbers
SLOPE = 0.01  # of every leaky ReLU


@dataclass(frozen=True)
class DRITConfig(SystemConfig):
    """Hyper-parameters of DRIT; the defaults are its authors'."""

    size: Annotated[int, Field(ge=64, le=4096, multiple_of=4)] = 216
    """The side of the training pictures in pixels, a multiple of 4 from 64 up. The authors crop 216 out of 256."""
    blocks: Annotated[int, Field(ge=1, le=64)] = 3
    """The number of residual blocks in each domain's content encoder. One more is shared, and a generator has one
    more."""
    content_weight: Annotated[float, Field(ge=0)] = 1.0
    """The weight of hiding from the content discriminator which domain a content is of."""
    cycle_weight: Annotated[float, Field(ge=0)] = 10.0
    """The weight of the reconstruction after content and attribute were exchanged twice."""
    recon_weight: Annotated[float, Field(ge=0)] = 10.0
    """The weight of the reconstruction of a picture from its own content and attribute."""
    latent_weight: Annotated[float, Field(ge=0)] = 10.0
    """The weight of finding the random attribute again in the translation that it made."""
    kl_weight: Annotated[float, Field(ge=0)] = 0.01
    """The weight of the mean squares of contents and attributes."""
    init_std: Annotated[float, Field(gt=0)] = 0.02
    """The standard deviation of the convolutions' initial weights. Narrow networks start better with more."""
    lr: Annotated[float, Field(gt=0)] = 1e-4
    """Adam's learning rate. The content discriminator's is 2.5 times lower."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """The L2 weight decay, which is added to the gradient."""
    decay_from: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The share of the run after which the learning rate falls linearly to 0."""


class ContentEncoder(nn.Module):
    """An encoder a domain, and a last block that they share."""

    def __init__(self, config: DRITConfig):
        super().__init__()
        w, relu = config.width, nn.ReLU(inplace=True)
        self.a, self.b = (
            nn.Sequential(
                conv_block(channels, w, 7, 1, None, nn.LeakyReLU(SLOPE, inplace=True)),
                conv_block(w, 2 * w, 3, 2, InstanceNorm(), relu),
                conv_block(2 * w, 4 * w, 3, 2, InstanceNorm(), relu),
                *[plain_res_block(4 * w) for _ in range(config.blocks)],
            )
            for channels in channels_of(config)
        )
        self.shared = plain_res_block(4 * w)

    def forward(self, x: Tensor, domain: str, noise: Tensor | None = None) -> Tensor:
        """Pictures N x channels x H x W of domain "a" or "b" to contents N x 4w x H/4 x W/4; noise is of that shape."""
        content = self.shared(self.get_submodule(domain)(x))
        return content if noise is None else content + noise.to(content.dtype)


class MixingBlock(nn.Module):
    """conv3-norm and two 1x1 convolutions that mix the attribute in, twice, plus the input."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1, self.conv2 = (conv_block(channels, channels, 3, 1, InstanceNorm()) for _ in range(2))
        self.mix1, self.mix2 = (
            nn.Sequential(
                conv_block(2 * channels, 2 * channels, 1, 1, None, nn.ReLU(inplace=True)),
                conv_block(2 * channels, channels, 1, 1, None, nn.ReLU(inplace=True)),
            )
            for _ in range(2)
        )

    def forward(self, x: Tensor, attribute: Tensor) -> Tensor:
        """N x C x H x W to the same; ``attribute`` is N x C."""
        everywhere = attribute[:, :, None, None].expand_as(x)
        hidden = self.mix1(torch.cat([self.conv1(x), everywhere], 1))
        return x + self.mix2(torch.cat([self.conv2(hidden), everywhere], 1))


class Generator(nn.Module):
    """Contents and attributes to pictures of one domain."""

    def __init__(self, config: DRITConfig, channels: int):
        super().__init__()
        w, blocks, relu = config.width, config.blocks + 1, nn.ReLU(inplace=True)
        self.mlp = nn.Sequential(
            nn.Linear(ATTRIBUTE, 4 * w), nn.ReLU(), nn.Linear(4 * w, 4 * w), nn.ReLU(),
            nn.Linear(4 * w, blocks * 4 * w),
        )  # fmt: skip
        self.blocks = nn.ModuleList([MixingBlock(4 * w) for _ in range(blocks)])
        self.up = nn.Sequential(
            nn.ConvTranspose2d(4 * w, 2 * w, 3, 2, padding=1, output_padding=1), LayerNorm(2 * w), relu,
            nn.ConvTranspose2d(2 * w, w, 3, 2, padding=1, output_padding=1), LayerNorm(w), relu,
            nn.ConvTranspose2d(w, channels, 1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, content: Tensor, attribute: Tensor) -> Tensor:
        """N x 4w x h x w and N x 8 to N x channels x 4h x 4w in [-1, 1]."""
        for block, part in zip(self.blocks, self.mlp(attribute).chunk(len(self.blocks), 1), strict=True):
            content = block(content, part)
        return self.up(content)


def content_discriminator(config: DRITConfig) -> nn.Sequential:
    """Contents N x 4w x h x w to N x 1 x h' x w', one number at the authors' size.

    Three halvings, fewer where less than 4 x 4 would be left.
    """
    layers: list[nn.Module] = []
    c, side = 4 * config.width, config.size // 4
    while len(layers) < 3 and (side - 5) // 2 + 1 >= 4:
        layers.append(
            nn.Sequential(nn.Conv2d(c, c, 7, 2, padding=1, padding_mode="reflect"), nn.LeakyReLU(SLOPE, inplace=True))
        )
        side = (side - 5) // 2 + 1
    return nn.Sequential(*layers, nn.Conv2d(c, c, 4), nn.LeakyReLU(SLOPE, inplace=True), nn.Conv2d(c, 1, 1))


def judged(verdicts: list[Tensor], target: float) -> Tensor:
    """`cross_entropy` of each scale, added up."""
    return torch.stack([cross_entropy(logit, target) for logit in verdicts]).sum()


class Latents(NamedTuple):
    """Contents, N x 4w x h x w, and attributes, N x 8, of both domains' pictures."""

    content_a: Tensor
    content_b: Tensor
    attribute_a: Tensor
    attribute_b: Tensor


class DRIT(System):
    """Content and attribute encoders, a generator and two discriminators a domain, and one of contents."""

    Config = DRITConfig
    presets: ClassVar = {
        # The authors stop after 500,000 whole updates, which every third step has.
        "paper": Preset(DRITConfig(), Recipe(steps=1_500_000, batch=2, enlarge=256 / 216)),
        "quick": Preset(
            DRITConfig(size=64, width=24, blocks=1, init_std=0.033, lr=4e-4, weight_decay=0),
            Recipe(steps=3600, batch=2, ema=0.995, enlarge=1),  # of which a third are whole
        ),
    }
    translators = ("content", "attribute_a", "attribute_b", "gen_a", "gen_b")
    styles = ATTRIBUTE
    cycle = 3
    recordable = True

    def __init__(self, config: DRITConfig):
        super().__init__()
        self.config = config
        self.content = ContentEncoder(config)
        both = channels_of(config)
        self.attribute_a, self.attribute_b = (style_encoder(channels, config.width, ATTRIBUTE) for channels in both)
        self.gen_a, self.gen_b = (Generator(config, channels) for channels in both)
        self.disc_a, self.disc_b, self.disc_random_a, self.disc_random_b = (
            MultiScaleDiscriminator(channels, config.width, SLOPE) for channels in (*both, *both)
        )
        self.judge_content = content_discriminator(config)

    def init_weights(self) -> None:
        """Convolutions' weights from a normal distribution; biases and linear layers as torch draws them."""
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(part.weight, 0.0, self.config.init_std)

    def content_update(self, content_a: Tensor, content_b: Tensor) -> Update:
        """The content discriminator: contents of A to 0, of B to 1; its gradient is clipped to the norm 5."""
        loss = cross_entropy(self.judge_content(content_a.detach()), 0.0)
        loss = loss + cross_entropy(self.judge_content(content_b.detach()), 1.0)
        return Update(("judge_content",), loss, {"disc/content": loss}, clip=5.0)

    def encode(self, a: Tensor, b: Tensor, noise: tuple[Tensor, Tensor]) -> Latents:
        """Contents and attributes of pictures of A and of B."""
        return Latents(
            self.content(a, "a", noise[0]), self.content(b, "b", noise[1]), self.attribute_a(a), self.attribute_b(b)
        )

    def noise(self, x: Tensor, clock: Clock) -> tuple[Tensor, Tensor]:
        """Noise of the contents of ``x`` and of as many pictures of the other domain."""
        shape = 4 * self.config.width, x.shape[2] // 4, x.shape[3] // 4
        return clock.noise(x, *shape), clock.noise(x, *shape)

    def updates(self, real_a: Tensor, real_b: Tensor, clock: Clock) -> Iterator[Update]:
        """Two steps of three train the content discriminator alone; the third trains all.

        Every other picture of a batch is translated, from the first on; the rest are the real pictures that
        translations with random attributes are told from, or the same where the batch is 1.
        """
        a, b = real_a[::2], real_b[::2]
        noise = self.noise(a, clock)
        if clock.step % self.cycle != 2:
            with torch.no_grad():
                content_a, content_b = self.content(a, "a", noise[0]), self.content(b, "b", noise[1])
            yield self.content_update(content_a, content_b)
            return

        others_a, others_b = (x[1::2] if len(x) > 1 else x for x in (real_a, real_b))
        random = clock.noise(a, ATTRIBUTE)
        own = self.encode(a, b, noise)
        # Exchanged attributes, random ones and the picture's own in one batch a generator.
        fake_a, random_a, same_a = self.gen_a(
            torch.cat([own.content_b, own.content_b, own.content_a]),
            torch.cat([own.attribute_a, random, own.attribute_a]),
        ).chunk(3)
        fake_b, random_b, same_b = self.gen_b(
            torch.cat([own.content_a, own.content_a, own.content_b]),
            torch.cat([own.attribute_b, random, own.attribute_b]),
        ).chunk(3)

        terms = {
            "adv": {
                name: judged(disc(real), 1.0) + judged(disc(fake.detach()), 0.0)
                for name, disc, real, fake in (
                    ("a", self.disc_a, a, fake_a),
                    ("b", self.disc_b, b, fake_b),
                    ("random_a", self.disc_random_a, others_a, random_a),
                    ("random_b", self.disc_random_b, others_b, random_b),
                )
            }
        }
        yield weighted(("disc",), "disc", terms, {"adv": 1.0})
        yield self.content_update(own.content_a, own.content_b)
        yield self.encoders_update(a, b, own, (fake_a, fake_b), (same_a, same_b), clock)
        yield self.generators_update(a, b, random, noise)

    def encoders_update(
        self,
        a: Tensor,
        b: Tensor,
        own: Latents,
        fake: tuple[Tensor, Tensor],
        same: tuple[Tensor, Tensor],
        clock: Clock,
    ) -> Update:
        """Encoders and generators, from translations with the attribute of a picture of the target."""
        config = self.config
        # Exchanged again: the content of A is in the picture of B.
        back = self.encode(*fake, self.noise(a, clock))
        judge = self.judge_content
        terms = {
            "adv": {"a": judged(self.disc_a(fake[0]), 1.0), "b": judged(self.disc_b(fake[1]), 1.0)},
            "content": {
                "a": cross_entropy(judge(own.content_a), 0.5),
                "b": cross_entropy(judge(own.content_b), 0.5),
            },
            "cycle": {
                "a": l1(self.gen_a(back.content_b, back.attribute_a), a),
                "b": l1(self.gen_b(back.content_a, back.attribute_b), b),
            },
            "recon": {"a": l1(same[0], a), "b": l1(same[1], b)},
            "kl": {
                "a": mean_square(own.content_a) + mean_square(own.attribute_a),
                "b": mean_square(own.content_b) + mean_square(own.attribute_b),
            },
        }
        weights = {"adv": 1.0} | {k: getattr(config, f"{k}_weight") for k in ("content", "cycle", "recon", "kl")}
        return weighted(("gen", "content", "attribute"), "gen", terms, weights)

    def generators_update(self, a: Tensor, b: Tensor, random: Tensor, noise: tuple[Tensor, Tensor]) -> Update:
        """Content encoders and generators alone, from translations with a random attribute."""
        fake_a = self.gen_a(self.content(b, "b", noise[1]), random)
        fake_b = self.gen_b(self.content(a, "a", noise[0]), random)
        terms = {
            "adv_random": {"a": judged(self.disc_random_a(fake_a), 1.0), "b": judged(self.disc_random_b(fake_b), 1.0)},
            "latent": {"a": l1(self.attribute_a(fake_a), random), "b": l1(self.attribute_b(fake_b), random)},
        }
        weights = {"adv_random": 1.0, "latent": self.config.latent_weight}
        return weighted(("content", "gen"), "gen", terms, weights)

    def optimizers(self) -> dict[str, Optimizer]:
        content = "judge_content"
        groups = self.parameters_by(lambda name: content if name.startswith(content) else re.split("[._]", name)[0])
        c = self.config
        return {
            name: Adam(
                group,
                c.lr / 2.5 if name == content else c.lr,
                (c.beta1, c.beta2),
                weight_decay=c.weight_decay,
            )
            for name, group in groups.items()
        }

    def lr_factor(self, clock: Clock) -> float:
        return clock.linear_decay(self.config.decay_from)

    def translate(self, x: Tensor, direction: Direction, style: Tensor | None = None) -> Translation:
        source, target = direction.split("2")
        if style is None:
            style = torch.randn(len(x), ATTRIBUTE, device=x.device, dtype=x.dtype)
        content = self.content(x, source)
        return Translation(self.get_submodule(f"gen_{target}")(content, style.expand(len(x), -1)), None)

    def style_of(self, x: Tensor, direction: Direction) -> Tensor:
        return self.get_submodule(f"attribute_{direction[-1]}")(x)
