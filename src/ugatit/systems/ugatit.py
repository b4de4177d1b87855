"""U-GAT-IT (Kim et al., ICLR 2020), in the order of the paper: Tables 4 to 6, Equations 2 to 7, appendix B.2.

Where paper and released code differ: targets of the least squares are real 1, fake 0 (code; Eq. 2 prints the mirror
image); weights start from N(0, 0.02) and the residual blocks' rho at 1 (paper; the PyTorch code has 0.9). Pictures
keep their shape: of one that is no square a step sees a square part, where the paper and the code squeeze it into one.
Real and translated pictures are judged in one pass, so that spectral norms iterate once for both. "A" is the paper's
source s, "B" its target t.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.checkpoint import checkpoint

from ugatit.io.errors import UserError
from ugatit.nn.blocks import OutConv, ResBlock, UpBlock, conv_in_relu, init_normal
from ugatit.nn.cam import Cam, heatmap
from ugatit.nn.discriminator import LOCAL_HALVINGS, CamDiscriminator, Judgement, global_halvings
from ugatit.nn.fast.adam import Average, ChunkedAdam
from ugatit.nn.linear import LargeLinear
from ugatit.nn.norm import LIN, AdaLIN, InstanceNorm, clip_rho
from ugatit.nn.precision import full_precision, mean_pixel
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
    toward,
)


@dataclass(frozen=True)
class UGATITConfig(SystemConfig):
    """Hyper-parameters of U-GAT-IT; the defaults are the paper's."""

    width: Annotated[int, Field(ge=1, le=1024)] = 64
    """Channels of the first layer of every network (ch)."""
    blocks: Annotated[int, Field(ge=1, le=64)] = 4
    """The number of residual blocks in the encoder, and in the decoder."""
    light: bool = False
    """Gamma and beta are made of pooled maps instead of flattened ones. That takes far fewer weights, and any size can
    be translated."""
    release: Literal["pytorch", "tensorflow"] = "pytorch"
    """Which of the authors' codes the generators follow. In tensorflow's, layers of decoder and classifiers have
    biases, the encoder's norms a learned scale and shift, and AdaLIN's variances are biased."""
    decoder_norm: Literal["adalin", "in", "ln", "gn", "adain"] = "adalin"
    """The normalisation of the decoder (Table 1). in, ln and gn have their own scale and shift; adain is adalin with
    rho fixed at 1."""
    cam: Literal["both", "none", "generator", "discriminator"] = "both"
    """Which networks have class activation maps (Table 1). Without them there is no auxiliary loss and no
    re-weighting."""
    init_std: Annotated[float, Field(gt=0)] = 0.02
    """The standard deviation of the initial weights. Narrow networks start better with more."""
    rho_residual: Annotated[float, Field(ge=0, le=1)] = 1.0
    """The value that rho starts from in the decoder's residual blocks. 1 is instance norm."""
    rho_up: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The value that rho starts from in the up-sampling blocks. 0 is layer norm."""
    adv_weight: Annotated[float, Field(ge=0)] = 1.0
    """The weight of the adversarial losses, lambda 1 of Eq. 7."""
    cycle_weight: Annotated[float, Field(ge=0)] = 10.0
    """The weight of the cycle loss, lambda 2 of Eq. 7."""
    identity_weight: Annotated[float, Field(ge=0)] = 10.0
    """The weight of the identity loss, lambda 3 of Eq. 7."""
    cam_weight: Annotated[float, Field(ge=0)] = 1000.0
    """The weight of the generators' CAM loss, lambda 4 of Eq. 7."""
    lr: Annotated[float, Field(gt=0)] = 1e-4
    """Adam's learning rate for generators and discriminators."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """The L2 weight decay, which is added to the gradient."""
    checkpointing: bool = False
    """The generators' layers are computed again for the backward pass instead of kept, which takes less memory and more
    time."""
    adam_averages: Average = "float32"
    """The type that Adam's two averages are kept in. bfloat16 takes half of the memory."""
    decay_from: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The share of the run after which the learning rate falls linearly to 0."""

    only: Direction | None = None
    """The direction of a model that has one generator and no discriminator, as a small one to share may have. It
    translates, and cannot be trained."""

    def __post_init__(self) -> None:
        need_equal_channels(self, "U-GAT-IT's identity and CAM losses give each generator pictures of both domains")


class Generated(NamedTuple):
    """What a generator makes of N pictures."""

    image: Tensor  # N x channels x H x W in [-1, 1]
    cam_logit: Tensor | None  # N x 2; None without CAM
    heatmap: Tensor | None  # N x 1 x H/4 x W/4, not scaled; None without CAM


def decoder_norms(config: UGATITConfig) -> tuple[Callable[[int], nn.Module], Callable[[int], nn.Module]]:
    """Makers of the norms of the decoder's residual and up-sampling blocks, from their number of channels."""
    correction = 0 if config.release == "tensorflow" else 1
    if config.decoder_norm == "adalin":
        return (
            partial(AdaLIN, rho=config.rho_residual, correction=correction),
            partial(LIN, rho=config.rho_up, correction=correction),
        )
    if config.decoder_norm == "gn":
        return (group_norm,) * 2
    fixed = partial(LIN, rho=0.0 if config.decoder_norm == "ln" else 1.0, learned=False, correction=correction)
    return (partial(AdaLIN, learned=False, correction=correction) if config.decoder_norm == "adain" else fixed), fixed


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm of Wu & He (2018): 32 groups, fewer where 32 does not divide the channels."""
    return nn.GroupNorm(math.gcd(32, channels), channels)


class Generator(nn.Module):
    """Table 4. Full (``light=False``) works at ``config.size`` only, light at any multiple of 4."""

    def __init__(self, config: UGATITConfig):
        super().__init__()
        w, deep, bias = config.width, 4 * config.width, config.release == "tensorflow"

        def encoder_norm(channels: int) -> InstanceNorm:
            return InstanceNorm(channels if config.release == "tensorflow" else None)

        # Encoder down-sampling and bottleneck; biases would go with the norms' means
        self.down = nn.Sequential(
            conv_in_relu(config.channels, w, encoder_norm(w), 7),
            conv_in_relu(w, 2 * w, encoder_norm(2 * w), 3, 2),
            conv_in_relu(2 * w, deep, encoder_norm(deep), 3, 2),
        )
        self.encoder = nn.Sequential(*[ResBlock(deep, encoder_norm) for _ in range(config.blocks)])
        # CAM of generator
        self.cam = Cam(deep, nn.ReLU(inplace=True), bias=bias) if config.cam in ("both", "generator") else None
        # Gamma, beta
        self.checkpointing = config.checkpointing
        self.light, self.adaptive = config.light, config.decoder_norm in ("adalin", "adain")
        if self.adaptive:
            flattened = deep * (config.size // 4) ** 2
            first = nn.Linear(deep, deep, bias) if config.light else LargeLinear(flattened, deep, bias)
            self.mlp = nn.Sequential(first, nn.ReLU(), nn.Linear(deep, deep, bias), nn.ReLU())
            self.gamma, self.beta = nn.Linear(deep, deep, bias), nn.Linear(deep, deep, bias)
        # Decoder bottleneck and up-sampling
        residual_norm, up_norm = decoder_norms(config)
        self.decoder = nn.ModuleList([ResBlock(deep, residual_norm, bias) for _ in range(config.blocks)])
        self.up = nn.Sequential(UpBlock(deep, 2 * w, up_norm, bias), UpBlock(2 * w, w, up_norm, bias))
        self.out = nn.Sequential(OutConv(w, config.channels, bias), nn.Tanh())

    def forward(self, x: Tensor) -> Generated:
        """Translate pictures N x channels x H x W in [-1, 1], H and W multiples of 4."""
        features = self.run([*self.down, *self.encoder], x)  # N 4w H/4 W/4
        attended, cam_logit = (features, None) if self.cam is None else self.cam(features)
        style = self.style(attended) if self.adaptive else ()
        y = self.run(self.decoder, attended, *style)
        image = self.run([*self.up, self.out], y)
        return Generated(image, cam_logit, None if self.cam is None else heatmap(attended))

    def run(self, blocks: Iterable[nn.Module], x: Tensor, *style: Tensor) -> Tensor:
        """``x`` through all ``blocks``, each with ``style``."""
        for block in blocks:
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, *style, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x, *style)
        return x

    def style(self, attended: Tensor) -> tuple[Tensor, Tensor]:
        """Gamma and beta, N x 4w x 1 x 1 each, of attended maps N x 4w x H/4 x W/4."""
        pooled = mean_pixel(attended) if self.light else attended
        style = self.mlp(pooled.flatten(1))  # N 4w
        return self.gamma(style)[:, :, None, None], self.beta(style)[:, :, None, None]


CHANCE = 2 * math.log(2)  # Eq. 5 of a classifier that guesses


def cam_loss(logit_source: Tensor, logit_target: Tensor) -> Tensor:
    """Eq. 5: binary cross entropy of the auxiliary classifier, source pictures 1, target pictures 0; logits N x 2."""
    return F.softplus(-full_precision(logit_source)).mean() + F.softplus(full_precision(logit_target)).mean()


class UGATIT(System):
    """Two generators and four discriminators, trained by Eq. 7."""

    Config = UGATITConfig
    recordable = True
    presets: ClassVar = {
        "paper": Preset(UGATITConfig(), Recipe()),
        "light": Preset(UGATITConfig(light=True), Recipe()),
        # For minutes on a laptop's CPU: small and narrow, stepped boldly, and weighted so that the generators learn to
        # draw first. With the paper's weights the CAM loss is 100 times the others until it is learned. No crop: small
        # pictures would be enlarged, that is blurred, for it.
        "quick": Preset(
            UGATITConfig(
                size=64,
                width=24,
                blocks=2,
                light=True,
                init_std=0.04,
                adv_weight=0.5,
                cam_weight=10,
                lr=5e-4,
                beta1=0.8,
                weight_decay=0,
            ),
            Recipe(steps=1700, ema=0.998, enlarge=1),
        ),
    }
    translators: tuple[str, ...] = ("gen_a2b", "gen_b2a")

    def __init__(self, config: UGATITConfig):
        super().__init__()
        self.config = config
        if config.only:
            self.directions, self.translators = (config.only,), (f"gen_{config.only}",)
            self.add_module(f"gen_{config.only}", Generator(config))
            return
        self.gen_a2b, self.gen_b2a = Generator(config), Generator(config)
        cam = config.cam in ("both", "discriminator")
        local = (config.channels, config.width, LOCAL_HALVINGS, cam)
        wide = (config.channels, config.width, global_halvings(config.size), cam)
        self.disc_local_a, self.disc_local_b = CamDiscriminator(*local), CamDiscriminator(*local)
        self.disc_global_a, self.disc_global_b = CamDiscriminator(*wide), CamDiscriminator(*wide)

    @property
    def any_size(self) -> bool:
        return self.config.light

    def init_weights(self) -> None:
        if self.config.only:
            raise UserError("`only` is for a model that translates one way: leave it out to train.")
        init_normal(self, self.config.init_std)

    def discriminators(self, domain: str) -> dict[str, CamDiscriminator]:
        """The local and the global discriminator of domain "a" or "b", by scale; none where one generator is all."""
        scales = () if self.config.only else ("local", "global")
        return {scale: getattr(self, f"disc_{scale}_{domain}") for scale in scales}

    # Equations 2 to 7

    def discriminator_update(self, domain: str, real: Tensor, fake: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 2 and 6 as ``domain``'s discriminators minimise them: real to 1, fake to 0.

        Args:
            real, fake: N x channels x size x size; no gradient flows into ``fake``.

        Returns:
            The weighted loss and its terms.
        """
        terms = {}
        for scale, disc in self.discriminators(domain).items():
            verdict: Judgement = disc(torch.cat([real, fake.detach()]))
            for term, logit in (("adv", verdict.logit), ("cam", verdict.cam_logit)):
                if logit is not None:
                    on_real, on_fake = logit.chunk(2)
                    terms[f"disc/{term}_{scale}_{domain}"] = toward(on_real, 1) + toward(on_fake, 0)
        return self.config.adv_weight * sum(terms.values()), terms

    def signs(self, means: dict[str, float]) -> list[str]:
        blind = any(name.startswith("gen/cam_") and mean > 0.98 * CHANCE for name, mean in means.items())
        sentence = (
            "The generators' CAM loss is as high as by guessing, so attention does not tell the domains apart: "
            "try a larger `cam_weight`, or a lower `lr`."
        )
        return super().signs(means) + [sentence] * blind

    @contextmanager
    def judging(self) -> Iterator[None]:
        """Within this block the discriminators are given, not trained: what their gradients are made of is kept with
        their weights (`ugatit.nn.fast.factored`), and the generators' loss has no part in it."""
        judges = [disc for domain in "ab" for disc in self.discriminators(domain).values()]
        for disc in judges:
            disc.requires_grad_(False)
        try:
            yield
        finally:
            for disc in judges:
                disc.requires_grad_(True)

    def adversarial_loss(self, domain: str, fake: Tensor) -> dict[str, Tensor]:
        """Eq. 2 and 6 as the generator into ``domain`` minimises them: fake to 1."""
        terms = {}
        for scale, disc in self.discriminators(domain).items():
            verdict: Judgement = disc(fake)
            terms[f"gen/adv_{scale}_{domain}"] = toward(verdict.logit, 1)
            if verdict.cam_logit is not None:
                terms[f"gen/adv_cam_{scale}_{domain}"] = toward(verdict.cam_logit, 1)
        return terms

    def updates(self, real_a: Tensor, real_b: Tensor, clock: Clock) -> Iterator[Update]:
        """Discriminators, then generators. The generators do not change in between, so each fake is made once."""
        # Translation and identity of one generator in one batch.
        from_a2b, from_b2a = self.gen_a2b(torch.cat([real_a, real_b])), self.gen_b2a(torch.cat([real_b, real_a]))
        fake_b, same_b = from_a2b.image.chunk(2)
        fake_a, same_a = from_b2a.image.chunk(2)

        loss_a, terms_a = self.discriminator_update("a", real_a, fake_a)
        loss_b, terms_b = self.discriminator_update("b", real_b, fake_b)
        yield Update(("disc",), loss_a + loss_b, terms_a | terms_b)

        config = self.config
        with self.judging():
            adversarial = self.adversarial_loss("a", fake_a) | self.adversarial_loss("b", fake_b)
        cycle = {
            "gen/cycle_a": l1(self.gen_b2a(fake_b).image, real_a),  # Eq. 3
            "gen/cycle_b": l1(self.gen_a2b(fake_a).image, real_b),
        }
        identity = {"gen/identity_a": l1(same_a, real_a), "gen/identity_b": l1(same_b, real_b)}  # Eq. 4
        cam = {
            f"gen/cam_{direction}": cam_loss(*made.cam_logit.chunk(2))  # Eq. 5
            for direction, made in (("a2b", from_a2b), ("b2a", from_b2a))
            if made.cam_logit is not None
        }
        loss = (  # Eq. 7
            config.adv_weight * sum(adversarial.values())
            + config.cycle_weight * sum(cycle.values())
            + config.identity_weight * sum(identity.values())
            + config.cam_weight * sum(cam.values())
        )
        yield Update(("gen",), loss, adversarial | cycle | identity | cam)

    # Appendix B.2

    def optimizers(self) -> dict[str, Optimizer]:
        groups = self.parameters_by(lambda name: name.split("_")[0])
        c = self.config
        return {
            name: ChunkedAdam(group, c.lr, (c.beta1, c.beta2), weight_decay=c.weight_decay, averages=c.adam_averages)
            for name, group in groups.items()
        }

    def lr_factor(self, clock: Clock) -> float:
        return clock.linear_decay(self.config.decay_from)

    def after_update(self, update: Update) -> None:
        if "gen" in update.optimizers:
            clip_rho(self)

    def translate(self, x: Tensor, direction: Direction) -> Translation:
        made: Generated = self.get_submodule(f"gen_{direction}")(x)
        return Translation(made.image, made.heatmap)

    def attention(self, x: Tensor, direction: Direction) -> dict[str, tuple[Tensor, Tensor]]:
        """Figure 2: the generator's on the source, the local and the global discriminator's on the translation."""
        made: Generated = self.get_submodule(f"gen_{direction}")(x)
        maps = {"generator": (x, made.heatmap)}
        for scale, disc in self.discriminators(direction[-1]).items():
            if not next(disc.parameters()).is_meta:  # a shared model may come without them
                maps[f"{scale} disc."] = (made.image, disc(made.image).heatmap)
        return {name: (seen, heatmap) for name, (seen, heatmap) in maps.items() if heatmap is not None}
