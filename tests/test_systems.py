"""The systems that the paper compares with: published sizes, forward passes and losses against plain transcriptions."""

import shutil
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchvision.models import VGG19_Weights, vgg16, vgg19

from conftest import EMOJI, least_side, run_here, tiny_model
from test_train import assert_same_run
from ugatit.data.finding import find_files
from ugatit.io.errors import UserError
from ugatit.nn.edges import canny, grey, joined, smooth_edges
from ugatit.nn.pretrained import content_network
from ugatit.nn.spectral import SpectralConv2d
from ugatit.systems import REGISTRY
from ugatit.systems.aggan import AGGAN, AGGANConfig, DoublingConv, HalvingConv
from ugatit.systems.base import Clock
from ugatit.systems.cartoongan import CartoonGAN, CartoonGANConfig
from ugatit.systems.cyclegan import CycleGAN, CycleGANConfig
from ugatit.systems.drit import DRIT, DRITConfig
from ugatit.systems.munit import MUNIT, MUNITConfig
from ugatit.systems.pool import Pool
from ugatit.systems.unit import UNIT, UNITConfig
from ugatit.training.config import TrainConfig, preset_config
from ugatit.training.trainer import train
from ugatit.translation.folder import load_model, save_model
from ugatit.translation.translator import Translator

OTHERS = [name for name in REGISTRY if name != "ugatit"]


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        (CycleGAN, {"gen_a2b": 11_378_179, "disc_a": 2_764_737}),
        (UNIT, {"enc_a": 5_385_856, "dec_a": 5_754_627, "disc_a": 8_271_171}),
        (MUNIT, {"gen_a": 15_026_187, "disc_a": 8_271_171}),
        (
            DRIT,
            {
                "content": 9_018_112,
                "attribute_a": 2_764_936,
                "gen_a": 8_573_187,
                "disc_a": 8_271_171,
                "judge_content": 10_683_649,
            },
        ),
        (AGGAN, {"gen_a2b": 2_855_811, "att_a": 104_001, "disc_a": 2_766_657}),
        (CartoonGAN, {"gen_a2b": 11_129_667, "disc_b": 1_128_385}),
    ],
)
def test_parameter_counts_are_the_published_codes(kind, sizes):
    with torch.device("meta"):
        system = kind(kind.Config())
    found = {name: sum(p.numel() for p in system.get_submodule(name).parameters()) for name in sizes}
    assert found == sizes


# Networks as their authors' code lists them, out of torch's own layers


def reflect(n):
    return nn.ReflectionPad2d(n)


def norm(c, affine):
    return nn.InstanceNorm2d(c, affine=affine)


class Residual(nn.Module):
    def __init__(self, *layers, relu=False):
        super().__init__()
        self.body, self.relu = nn.Sequential(*layers), relu

    def forward(self, x):
        y = x + self.body(x)
        return y.relu() if self.relu else y


def plain_residual(c):
    half = [reflect(1), nn.Conv2d(c, c, 3), norm(c, False)]
    return Residual(*half, nn.ReLU(), reflect(1), nn.Conv2d(c, c, 3), norm(c, False))


def up(i, o):
    return [nn.ConvTranspose2d(i, o, 3, 2, 1, 1), norm(o, False), nn.ReLU()]


def cyclegan_generator(w, blocks):
    return nn.Sequential(
        *[reflect(3), nn.Conv2d(3, w, 7), norm(w, False), nn.ReLU()],
        *[nn.Conv2d(w, 2 * w, 3, 2, 1), norm(2 * w, False), nn.ReLU()],
        *[nn.Conv2d(2 * w, 4 * w, 3, 2, 1), norm(4 * w, False), nn.ReLU()],
        *[plain_residual(4 * w) for _ in range(blocks)],
        *up(4 * w, 2 * w),
        *up(2 * w, w),
        *[reflect(3), nn.Conv2d(w, 3, 7), nn.Tanh()],
    )


def cyclegan_discriminator(w):
    def layer(i, o, stride):
        return [nn.Conv2d(i, o, 4, stride, 1), norm(o, False), nn.LeakyReLU(0.2)]

    return nn.Sequential(
        *[nn.Conv2d(3, w, 4, 2, 1), nn.LeakyReLU(0.2)],
        *layer(w, 2 * w, 2),
        *layer(2 * w, 4 * w, 2),
        *layer(4 * w, 8 * w, 1),
        nn.Conv2d(8 * w, 1, 4, 1, 1),
    )


class MunitNorm(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.rand(c)), nn.Parameter(torch.zeros(c))

    def forward(self, x):
        flat = x.reshape(len(x), -1)
        mean, std = flat.mean(1).view(-1, 1, 1, 1), flat.std(1).view(-1, 1, 1, 1)
        return (x - mean) / (std + 1e-5) * self.gamma.view(1, -1, 1, 1) + self.beta.view(1, -1, 1, 1)


def unit_encoder(w, blocks):
    return nn.Sequential(
        *[reflect(3), nn.Conv2d(3, w, 7), norm(w, False), nn.ReLU()],
        *[reflect(1), nn.Conv2d(w, 2 * w, 4, 2), norm(2 * w, False), nn.ReLU()],
        *[reflect(1), nn.Conv2d(2 * w, 4 * w, 4, 2), norm(4 * w, False), nn.ReLU()],
        *[plain_residual(4 * w) for _ in range(blocks)],
    )


def unit_decoder(w, blocks):
    return nn.Sequential(
        *[plain_residual(4 * w) for _ in range(blocks)],
        *[nn.Upsample(scale_factor=2), reflect(2), nn.Conv2d(4 * w, 2 * w, 5), MunitNorm(2 * w), nn.ReLU()],
        *[nn.Upsample(scale_factor=2), reflect(2), nn.Conv2d(2 * w, w, 5), MunitNorm(w), nn.ReLU()],
        *[reflect(3), nn.Conv2d(w, 3, 7), nn.Tanh()],
    )


class UnitDiscriminator(nn.Module):
    def __init__(self, w, slope=0.2):
        super().__init__()
        widths = [3, w, 2 * w, 4 * w, 8 * w]
        self.scales = nn.ModuleList()
        for _ in range(3):
            layers = []
            for i, o in pairwise(widths):
                layers += [reflect(1), nn.Conv2d(i, o, 4, 2), nn.LeakyReLU(slope)]
            self.scales.append(nn.Sequential(*layers, nn.Conv2d(8 * w, 1, 1)))
        self.halve = nn.AvgPool2d(3, stride=2, padding=[1, 1], count_include_pad=False)

    def forward(self, x):
        return [self.scales[0](x), self.scales[1](self.halve(x)), self.scales[2](self.halve(self.halve(x)))]


def aggan_residual(c, pad):
    half = [pad, nn.Conv2d(c, c, 3), norm(c, True)]
    return Residual(*half, nn.ReLU(), pad, nn.Conv2d(c, c, 3), norm(c, True), relu=True)


def aggan_down(i, o):
    return [nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(i, o, 3, 2), norm(o, True), nn.ReLU()]


def aggan_up(i, o):
    return [nn.ConvTranspose2d(i, o, 3, 2), nn.ZeroPad2d((0, -1, 0, -1)), norm(o, True), nn.ReLU()]


def aggan_generator(w, blocks):
    return nn.Sequential(
        *[nn.ZeroPad2d(3), nn.Conv2d(3, w, 7), norm(w, True), nn.ReLU()],
        *aggan_down(w, 2 * w),
        *aggan_down(2 * w, 4 * w),
        *[aggan_residual(4 * w, nn.ZeroPad2d(1)) for _ in range(blocks)],
        *aggan_up(4 * w, 2 * w),
        *aggan_up(2 * w, w),
        *[nn.ZeroPad2d(3), nn.Conv2d(w, 3, 7), nn.Tanh()],
    )


def aggan_attention(w):
    return nn.Sequential(
        *[reflect(3), nn.Conv2d(3, w, 7, 2), norm(w, True), nn.ReLU()],
        *aggan_down(w, 2 * w),
        aggan_residual(2 * w, reflect(1)),
        *[nn.Upsample(scale_factor=2), nn.Conv2d(2 * w, 2 * w, 1), norm(2 * w, True), nn.ReLU()],
        *[nn.Upsample(scale_factor=2), nn.Conv2d(2 * w, w, 1), norm(w, True), nn.ReLU()],
        *[nn.Conv2d(w, 1, 1), nn.Sigmoid()],
    )


def aggan_discriminator(w, normed):
    widths, strides, layers = [3, w, 2 * w, 4 * w, 8 * w], (2, 2, 2, 1), []
    for i, o, stride in zip(widths, widths[1:], strides, strict=False):
        layers += [nn.ZeroPad2d(2), nn.Conv2d(i, o, 4, stride), *([norm(o, True)] if normed else []), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.ZeroPad2d(2), nn.Conv2d(8 * w, 1, 4))


def twin(plain, network, skip_norms=False):
    """``plain`` with the weights of ``network``: both list them in the same order within a kind of layer."""

    def weights(module, kinds):
        return [p for part in module.modules() if isinstance(part, kinds) for p in part.parameters(recurse=False)]

    convs = (nn.Conv2d, nn.ConvTranspose2d)
    pairs = list(zip(weights(plain, convs), weights(network, convs), strict=True))
    if not skip_norms:
        others = [
            [p for part in m.modules() if not isinstance(part, convs) for p in part.parameters(recurse=False)]
            for m in (plain, network)
        ]
        pairs += list(zip(*others, strict=True))
    plain.to(pairs[0][1].dtype)
    for mine, theirs in pairs:
        mine.data = theirs.detach().clone()
    return plain


def random(system):
    """``system`` in double precision with every weight random, norms' too."""
    for name, parameter in system.double().named_parameters():
        nn.init.normal_(parameter, 1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.1)
    return system


def step(system, real_a, real_b, clock):
    """The losses by their optimisers; nothing is updated in between."""
    return {update.optimizers: update.loss for update in system.updates(real_a, real_b, clock)}


def squares(x, target):
    return ((x - target) ** 2).mean()


def pictures(size, batch=2):
    torch.manual_seed(1)
    return torch.rand(2, batch, 3, size, size, dtype=torch.float64) * 2 - 1


def test_cyclegan_is_the_textbook_s():
    system = random(CycleGAN(CycleGANConfig(size=32, width=4, blocks=2, cycle_weight=7, identity_weight=3)))
    ab, ba = (twin(cyclegan_generator(4, 2), getattr(system, n)) for n in ("gen_a2b", "gen_b2a"))
    d_a, d_b = (twin(cyclegan_discriminator(4), getattr(system, n)) for n in ("disc_a", "disc_b"))
    a, b = pictures(32)
    losses = step(system, a, b, Clock(0, 10))
    fake_a, fake_b = ba(b), ab(a)
    gen = squares(d_a(fake_a), 1) + squares(d_b(fake_b), 1)
    gen = (
        gen
        + 7 * (F.l1_loss(ba(fake_b), a) + F.l1_loss(ab(fake_a), b))
        + 3 * (F.l1_loss(ab(b), b) + F.l1_loss(ba(a), a))
    )
    disc = 0.5 * sum(squares(d(r), 1) + squares(d(f), 0) for d, r, f in ((d_a, a, fake_a), (d_b, b, fake_b)))
    torch.testing.assert_close(losses["gen",], gen, rtol=1e-9, atol=0)
    torch.testing.assert_close(losses["disc",], disc, rtol=1e-9, atol=0)
    for mine, theirs, loss in ((system.gen_a2b, ab, gen), (system.disc_b, d_b, disc)):
        kind = "gen" if mine is system.gen_a2b else "disc"
        first = next(mine.parameters()), next(theirs.parameters())
        grads = torch.autograd.grad(losses[kind,], first[0]), torch.autograd.grad(loss, first[1], retain_graph=True)
        torch.testing.assert_close(*grads, rtol=1e-7, atol=1e-12)


def test_unit_is_the_textbook_s(monkeypatch):
    system = random(UNIT(UNITConfig(size=64, width=4, blocks=2, kl_weight=0.3, cycle_kl_weight=0.2, recon_weight=7)))
    e_a, e_b = (twin(unit_encoder(4, 2), getattr(system, n)) for n in ("enc_a", "enc_b"))
    g_a, g_b = (twin(unit_decoder(4, 2), getattr(system, n)) for n in ("dec_a", "dec_b"))
    d_a, d_b = (twin(UnitDiscriminator(4), getattr(system, n)) for n in ("disc_a", "disc_b"))
    a, b = pictures(64)
    # In the order in which the step draws: for the discriminators a, b; then a, b, cycle of a, cycle of b.
    n = torch.randn(6, 2, 16, 16, 16, dtype=torch.float64)
    noise = iter(n)
    monkeypatch.setattr(torch, "randn", lambda *_, **__: next(noise))
    losses = step(system, a, b, Clock(0, 10))
    fake_b, fake_a = g_b(e_a(a) + n[0]), g_a(e_b(b) + n[1])
    disc = sum(
        squares(r, 1) + squares(f, 0)
        for d, real, fake in ((d_a, a, fake_a), (d_b, b, fake_b))
        for r, f in zip(d(real), d(fake), strict=True)
    )
    h_a, h_b = e_a(a), e_b(b)
    z_a, z_b = h_a + n[2], h_b + n[3]
    fake_a, fake_b = g_a(z_b), g_b(z_a)
    h2_a, h2_b = e_b(fake_b), e_a(fake_a)
    gen = sum(squares(o, 1) for d, f in ((d_a, fake_a), (d_b, fake_b)) for o in d(f))
    gen = gen + 7 * (F.l1_loss(g_a(z_a), a) + F.l1_loss(g_b(z_b), b)) + 0.3 * ((h_a**2).mean() + (h_b**2).mean())
    gen = gen + 10 * (F.l1_loss(g_a(h2_a + n[4]), a) + F.l1_loss(g_b(h2_b + n[5]), b))
    gen = gen + 0.2 * ((h2_a**2).mean() + (h2_b**2).mean())
    torch.testing.assert_close(losses["disc",], disc, rtol=1e-9, atol=0)
    torch.testing.assert_close(losses["gen",], gen, rtol=1e-9, atol=0)


class MunitDecoder(nn.Module):
    def __init__(self, w, blocks, hidden):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(8, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, blocks * 16 * w)
        )
        self.convs = nn.ModuleList([nn.Conv2d(4 * w, 4 * w, 3) for _ in range(2 * blocks)])
        self.rest = nn.Sequential(*unit_decoder(w, 0))

    def forward(self, x, style):
        numbers, c = self.mlp(style), x.shape[1]
        for i in range(0, len(self.convs), 2):
            y = x
            for j, conv in enumerate(self.convs[i : i + 2]):
                start = (i + j) * 2 * c
                shift, scale = numbers[:, start : start + c], numbers[:, start + c : start + 2 * c]
                y = F.instance_norm(conv(F.pad(y, (1, 1, 1, 1), mode="reflect"))) * scale[..., None, None]
                y = y + shift[..., None, None]
                y = y.relu() if j == 0 else y
            x = x + y
        return self.rest(x)


def munit_style(w):
    layers = [reflect(3), nn.Conv2d(3, w, 7), nn.ReLU()]
    for i, o in ((w, 2 * w), (2 * w, 4 * w), (4 * w, 4 * w), (4 * w, 4 * w)):
        layers += [reflect(1), nn.Conv2d(i, o, 4, 2), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Conv2d(4 * w, 8, 1), nn.Flatten())


@pytest.mark.parametrize(("cycle", "vgg"), [(0.0, 0.0), (10.0, 0.0), (10.0, 5.0)])
def test_munit_is_the_textbook_s(cycle, vgg, monkeypatch):
    weights = {"style_weight": 2, "content_weight": 3, "cycle_weight": cycle, "vgg_weight": vgg}
    config = MUNITConfig(size=64, width=4, blocks=2, hidden=16, **weights)
    content = nn.Conv2d(3, 4, 8, 8).double()
    monkeypatch.setattr("ugatit.systems.munit.content_network", lambda *_: content)
    system = random(MUNIT(config))
    c_a, c_b = (twin(unit_encoder(4, 2), g.content) for g in (system.gen_a, system.gen_b))
    s_a, s_b = (twin(munit_style(4), g.style) for g in (system.gen_a, system.gen_b))
    g_a, g_b = (twin(MunitDecoder(4, 2, 16), g.decode) for g in (system.gen_a, system.gen_b))
    d_a, d_b = (twin(UnitDiscriminator(4), getattr(system, n)) for n in ("disc_a", "disc_b"))
    a, b = pictures(64)
    drawn = torch.randn(2, 2, 2, 8, dtype=torch.float64)  # for the discriminators, then for the generators
    styles = iter(drawn.flatten(0, 1))
    monkeypatch.setattr(torch, "randn", lambda *_, **__: next(styles))
    losses = step(system, a, b, Clock(0, 10))
    z_a, z_b = drawn[0]
    disc = sum(
        squares(r, 1) + squares(f, 0)
        for d, real, fake in ((d_a, a, g_a(c_b(b), z_a)), (d_b, b, g_b(c_a(a), z_b)))
        for r, f in zip(d(real), d(fake), strict=True)
    )
    z_a, z_b = drawn[1]
    fake_a, fake_b = g_a(c_b(b), z_a), g_b(c_a(a), z_b)
    gen = sum(squares(o, 1) for d, f in ((d_a, fake_a), (d_b, fake_b)) for o in d(f))
    gen = gen + 10 * (F.l1_loss(g_a(c_a(a), s_a(a)), a) + F.l1_loss(g_b(c_b(b), s_b(b)), b))
    gen = gen + 2 * (F.l1_loss(s_a(fake_a), z_a) + F.l1_loss(s_b(fake_b), z_b))
    gen = gen + 3 * (F.l1_loss(c_b(fake_b), c_a(a)) + F.l1_loss(c_a(fake_a), c_b(b)))
    back_a, back_b = g_a(c_b(fake_b), s_a(a)), g_b(c_a(fake_a), s_b(b))
    gen = gen + cycle * (F.l1_loss(back_a, a) + F.l1_loss(back_b, b))
    seen = [F.instance_norm(content(x)) for x in (fake_a, b, fake_b, a)]
    gen = gen + vgg * (F.mse_loss(seen[0], seen[1]) + F.mse_loss(seen[2], seen[3]))
    torch.testing.assert_close(losses["disc",], disc, rtol=1e-9, atol=0)
    torch.testing.assert_close(losses["gen",], gen, rtol=1e-9, atol=0)


class DritEncoder(nn.Module):
    def __init__(self, w, blocks):
        super().__init__()

        def branch():
            return nn.Sequential(
                *[reflect(3), nn.Conv2d(3, w, 7), nn.LeakyReLU(0.01)],
                *[reflect(1), nn.Conv2d(w, 2 * w, 3, 2), norm(2 * w, False), nn.ReLU()],
                *[reflect(1), nn.Conv2d(2 * w, 4 * w, 3, 2), norm(4 * w, False), nn.ReLU()],
                *[plain_residual(4 * w) for _ in range(blocks)],
            )

        self.a, self.b, self.shared = branch(), branch(), plain_residual(4 * w)


class DritNorm(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(c)), nn.Parameter(torch.zeros(c))

    def forward(self, x):
        y = F.layer_norm(x, x.shape[1:])
        return y * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


class DritGenerator(nn.Module):
    def __init__(self, w, blocks):
        super().__init__()
        c = 4 * w
        self.mlp = nn.Sequential(nn.Linear(8, c), nn.ReLU(), nn.Linear(c, c), nn.ReLU(), nn.Linear(c, blocks * c))
        self.parts = nn.ModuleList()
        for _ in range(blocks):
            self.parts += [nn.Sequential(reflect(1), nn.Conv2d(c, c, 3), norm(c, False)) for _ in range(2)]
            for _ in range(2):
                mix = [nn.Conv2d(2 * c, 2 * c, 1), nn.ReLU(), nn.Conv2d(2 * c, c, 1), nn.ReLU()]
                self.parts.append(nn.Sequential(*mix))
        self.up = nn.Sequential(
            *[nn.ConvTranspose2d(c, 2 * w, 3, 2, 1, 1), DritNorm(2 * w), nn.ReLU()],
            *[nn.ConvTranspose2d(2 * w, w, 3, 2, 1, 1), DritNorm(w), nn.ReLU()],
            *[nn.ConvTranspose2d(w, 3, 1), nn.Tanh()],
        )

    def forward(self, x, z):
        for i, part in enumerate(self.mlp(z).split(x.shape[1], 1)):
            conv1, conv2, mix1, mix2 = self.parts[4 * i : 4 * i + 4]
            wide = part[..., None, None].repeat(1, 1, *x.shape[2:])
            y = mix1(torch.cat([conv1(x), wide], 1))
            x = x + mix2(torch.cat([conv2(y), wide], 1))
        return self.up(x)


def entropy(x, target):
    p = x.sigmoid()
    return -(target * p.log() + (1 - target) * (1 - p).log()).mean()


def test_drit_is_the_textbook_s(monkeypatch):
    config = DRITConfig(size=64, width=4, blocks=1, kl_weight=0.3, cycle_weight=7, recon_weight=5, latent_weight=3)
    system = random(DRIT(config))
    e = twin(DritEncoder(4, 1), system.content)
    s_a, s_b = (twin(munit_style(4), getattr(system, n)) for n in ("attribute_a", "attribute_b"))
    g_a, g_b = (twin(DritGenerator(4, 2), getattr(system, n)) for n in ("gen_a", "gen_b"))
    names = ("disc_a", "disc_b", "disc_random_a", "disc_random_b")
    d_a, d_b, d2_a, d2_b = (twin(UnitDiscriminator(4, 0.01), getattr(system, n)) for n in names)
    plain = nn.Sequential(
        *[reflect(1), nn.Conv2d(16, 16, 7, 2), nn.LeakyReLU(0.01)],
        *[nn.Conv2d(16, 16, 4), nn.LeakyReLU(0.01), nn.Conv2d(16, 1, 1)],
    )
    d_c = twin(plain, system.judge_content)
    real_a, real_b = pictures(64)
    (a, b), (other_a, other_b) = ([x[i : i + 1] for x in (real_a, real_b)] for i in (0, 1))
    n, z, m = (torch.randn(*shape, dtype=torch.float64) for shape in ((2, 1, 16, 16, 16), (1, 8), (2, 1, 16, 16, 16)))

    def content(x, branch, noise):
        return e.shared(branch(x)) + noise

    c_a, c_b = content(a, e.a, n[0]), content(b, e.b, n[1])
    about_content = entropy(d_c(c_a), 0) + entropy(d_c(c_b), 1)
    monkeypatch.setattr(torch, "randn", lambda *_, **__: next(drawn))
    drawn = iter(n)
    assert list(step(system, real_a, real_b, Clock(3, 9))) == [("judge_content",)]
    drawn = iter([*n, z, *m])
    losses = step(system, real_a, real_b, Clock(5, 9))
    fake_a, fake_b = g_a(c_b, s_a(a)), g_b(c_a, s_b(b))
    random_a, random_b = g_a(c_b, z), g_b(c_a, z)
    pairs = ((d_a, a, fake_a), (d_b, b, fake_b), (d2_a, other_a, random_a), (d2_b, other_b, random_b))
    disc = sum(entropy(o, 1) for d, real, _ in pairs for o in d(real))
    disc = disc + sum(entropy(o, 0) for d, _, fake in pairs for o in d(fake))
    back_b, back_a = content(fake_a, e.a, m[0]), content(fake_b, e.b, m[1])
    both = sum(entropy(o, 1) for d, f in ((d_a, fake_a), (d_b, fake_b)) for o in d(f))
    both = both + entropy(d_c(c_a), 0.5) + entropy(d_c(c_b), 0.5)
    both = both + 7 * (F.l1_loss(g_a(back_a, s_a(fake_a)), a) + F.l1_loss(g_b(back_b, s_b(fake_b)), b))
    both = both + 5 * (F.l1_loss(g_a(c_a, s_a(a)), a) + F.l1_loss(g_b(c_b, s_b(b)), b))
    both = both + 0.3 * sum((x**2).mean() for x in (c_a, c_b, s_a(a), s_b(b)))
    alone = sum(entropy(o, 1) for d, f in ((d2_a, random_a), (d2_b, random_b)) for o in d(f))
    alone = alone + 3 * (F.l1_loss(s_a(random_a), z) + F.l1_loss(s_b(random_b), z))
    expected = {
        ("disc",): disc,
        ("judge_content",): about_content,
        ("gen", "content", "attribute"): both,
        ("content", "gen"): alone,
    }
    assert list(losses) == list(expected)
    for names, loss in expected.items():
        torch.testing.assert_close(losses[names], loss, rtol=1e-9, atol=0)


def test_styles_come_from_seeds_and_from_pictures(data, tmp_path):
    torch.manual_seed(3)
    system = MUNIT(MUNITConfig(size=64, width=4, blocks=1, hidden=16))
    system.init_weights()
    translator, again = Translator(system, "cpu"), Translator(system, "cpu")
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    pair = translator(torch.cat([x, x]))
    assert not torch.equal(pair[0], pair[1]), "every picture gets another style"
    assert torch.equal(pair, again(torch.cat([x, x])))
    again.set_style(1)
    assert not torch.equal(pair, again(torch.cat([x, x])))
    reference = Image.fromarray(torch.randint(256, (64, 64, 3), dtype=torch.uint8).numpy())
    translator.set_style(reference)
    first, second = translator(torch.cat([x, x]))
    torch.testing.assert_close(first, second)
    with torch.no_grad():
        style = system.style_of(translator.to_tensor(reference), "a2b")
        torch.testing.assert_close(first[None], system.translate(x, "a2b", style).image)
    model, source = tmp_path / "model", next((data / "trainA").iterdir())
    translator.save(model)
    done = run_here("translate", model, source, "-o", tmp_path / "out", "--samples", 2, "--style", 5)
    assert done.returncode == 0, done.stderr
    one, other = sorted((tmp_path / "out").iterdir())
    assert [one.stem, other.stem] == [f"{source.stem}-1", f"{source.stem}-2"]
    assert one.read_bytes() != other.read_bytes()
    done = run_here("translate", model, source, "-o", tmp_path / "out", "--style", tmp_path / "nothing.png")
    assert done.returncode == 2 and "nothing.png" in done.stderr and "Traceback" not in done.stderr


def test_what_aggan_halves_and_doubles_stays_where_it_is():
    layers = nn.Sequential(HalvingConv(1, 1), HalvingConv(1, 1), DoublingConv(1, 1), DoublingConv(1, 1))
    for layer in layers:
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)
    shifts = []
    for place in range(16, 20):  # all that a stride of 4 tells apart
        x = torch.zeros(1, 1, 36, 36)
        x[..., place, place] = 1
        column = layers(x)[0, 0].sum(1)
        shifts.append((column * torch.arange(36)).sum().item() / column.sum().item() - place)
    assert sum(shifts) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("attended", [False, True])
def test_aggan_is_the_textbook_s(attended):
    system = random(AGGAN(AGGANConfig(size=32, width=4, blocks=2)))
    ab, ba = (twin(aggan_generator(4, 2), getattr(system, n)) for n in ("gen_a2b", "gen_b2a"))
    at_a, at_b = (twin(aggan_attention(4), getattr(system, n)) for n in ("att_a", "att_b"))
    d_a, d_b = (twin(aggan_discriminator(8, not attended), getattr(system, n), attended) for n in ("disc_a", "disc_b"))
    a, b = pictures(32)
    m_a, m_b = at_a(a), at_b(b)
    threshold = m_a.median().item()  # so that it decides something
    system.config = replace(system.config, threshold=threshold)
    losses = step(system, a, b, Clock(3 if attended else 0, 10))
    fake_b, fake_a = m_a * ab(a) + (1 - m_a) * a, m_b * ba(b) + (1 - m_b) * b
    m2_b, m2_a = at_b(fake_b), at_a(fake_a)
    cycle_a, cycle_b = m2_b * ba(fake_b) + (1 - m2_b) * fake_b, m2_a * ab(fake_a) + (1 - m2_a) * fake_a
    cycles = 10 * (F.l1_loss(cycle_a, a) + F.l1_loss(cycle_b, b))
    seen = [(x * (m >= threshold) if attended else x) for x, m in ((a, m_a), (b, m_b), (fake_a, m_b), (fake_b, m_a))]
    assert 0 < (m_a >= threshold).double().mean() < 1
    real_a, real_b, seen_a, seen_b = seen
    expected = {
        "gen_a2b": cycles + squares(d_b(seen_b), 1),
        "disc_b": 0.5 * (squares(d_b(real_b), 1) + squares(d_b(seen_b), 0)),
        "gen_b2a": cycles + squares(d_a(seen_a), 1),
        "disc_a": 0.5 * (squares(d_a(real_a), 1) + squares(d_a(seen_a), 0)),
    }
    assert [names[0] for names in losses] == list(expected)
    for names, loss in losses.items():
        torch.testing.assert_close(loss, expected[names[0]], rtol=1e-9, atol=0)
        assert len(names) == (1 if attended or names[0].startswith("disc") else 2)
    said = {name: term for update in system.updates(a, b, Clock(0, 10)) for name, term in update.terms.items()}
    assert (said["att/mean_a"], said["att/mean_b"]) == (m_a.mean(), m_b.mean())


def test_attention_of_a_padded_picture_has_the_picture_s_size():
    system = AGGAN(AGGANConfig(size=32, width=2, blocks=1))
    system.init_weights()
    made = Translator(system, "cpu").translate(torch.rand(1, 3, 33, 46) * 2 - 1, "a2b", "keep")
    assert made.image.shape == (1, 3, 33, 46) and made.heatmap.shape == (1, 1, 33, 46)


def cartoongan_generator(w, blocks):
    def zeros(i, o):
        return nn.Conv2d(i, o, 3, padding=1)

    def residual(c):
        half = [reflect(1), nn.Conv2d(c, c, 3), norm(c, True)]
        return Residual(*half, nn.ReLU(), reflect(1), nn.Conv2d(c, c, 3), norm(c, True))

    layers = [reflect(3), nn.Conv2d(3, w, 7), norm(w, True), nn.ReLU()]
    for i in (1, 2):
        layers += [nn.Conv2d(w * i, 2 * w * i, 3, 2, 1), zeros(2 * w * i, 2 * w * i), norm(2 * w * i, True), nn.ReLU()]
    layers += [residual(4 * w) for _ in range(blocks)]
    for i in (2, 1):
        layers += [nn.ConvTranspose2d(2 * w * i, w * i, 3, 2, 1, 1), zeros(w * i, w * i), norm(w * i, True), nn.ReLU()]
    return nn.Sequential(*layers, reflect(3), nn.Conv2d(w, 3, 7), nn.Tanh())


def cartoongan_discriminator(w):
    layers = [nn.Conv2d(3, w, 3, 1, 1), nn.LeakyReLU(0.2)]
    for i, middle, out in ((w, 2 * w, 4 * w), (4 * w, 4 * w, 8 * w)):
        layers += [nn.Conv2d(i, middle, 3, 2, 1), nn.LeakyReLU(0.2)]
        layers += [nn.Conv2d(middle, out, 3, 1, 1), norm(out, False), nn.LeakyReLU(0.2)]
    layers += [nn.Conv2d(8 * w, 8 * w, 3, 1, 1), norm(8 * w, False), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(8 * w, 1, 3, 1, 1))


@pytest.mark.parametrize("first", [True, False])
def test_cartoongan_is_the_textbook_s(first, monkeypatch):
    content = nn.Conv2d(3, 2, 8, 8).double()
    monkeypatch.setattr("ugatit.systems.cartoongan.content_network", lambda *_: content)
    system = random(CartoonGAN(CartoonGANConfig(size=32, width=4, blocks=2, content_weight=7, first=0.2)))
    gen, disc = twin(cartoongan_generator(4, 2), system.gen_a2b), twin(cartoongan_discriminator(2), system.disc_b)
    a, b = pictures(32)
    losses = step(system, a, b, Clock(1 if first else 2, 10))
    kept = 7 * (content(gen(a)) - content(a)).abs().mean()
    if first:
        assert list(losses) == [("gen",)]
        torch.testing.assert_close(losses["gen",], kept, rtol=1e-9, atol=0)
        return
    shown = [disc(x).sigmoid() for x in (b, gen(a), smooth_edges(b))]
    against = sum(F.binary_cross_entropy(x, torch.full_like(x, t)) for x, t in zip(shown, (1, 0, 0), strict=True))
    torch.testing.assert_close(losses["disc",], against, rtol=1e-9, atol=0)
    torch.testing.assert_close(losses["gen",], kept - shown[1].log().mean(), rtol=1e-9, atol=0)
    assert [system.lr_factor(Clock(s, 100)) for s in (0, 59, 61, 79, 81, 99)] == [1, 1, 0.1, 0.1, 0.01, 0.01]


def serpentine(side: int) -> torch.Tensor:
    """A path through a whole square, of side * side / 2 pixels."""
    path = torch.zeros(1, 1, side, side, dtype=torch.bool)
    path[..., ::2, :] = True
    path[..., 1::4, -1], path[..., 3::4, 0] = True, True
    return path


@pytest.mark.parametrize("flips", [(), (2,), (3,), (2, 3)])
def test_the_longest_edges_are_followed_to_their_end(flips):
    weak = serpentine(65).flip(flips)
    weak = torch.cat([weak, weak.mT])
    strong = torch.zeros_like(weak)
    strong[:, :, 0, 0] = weak[:, :, 0, 0]
    assert strong.any((1, 2, 3)).all() and torch.equal(joined(weak, strong), weak)
    assert not joined(weak, torch.zeros_like(weak)).any()
    apart = weak.clone()
    apart[:, :, 32] = apart[:, :, 33] = False  # the second half hangs on nothing
    found = joined(apart, strong & apart)
    assert torch.equal(found[0, :, :32], apart[0, :, :32]) and not found[0, :, 34:].any()


def test_edges_are_opencv_s():
    for file in find_files(EMOJI / "testB")[:4]:
        picture = np.array(Image.open(file).convert("RGB").resize((90, 86)))
        x = torch.tensor(picture).permute(2, 0, 1)[None] / 127.5 - 1
        light = grey(x)
        assert np.abs(light[0, 0].numpy() - cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)).max() <= 1  # of 255, by rounding
        edges = cv2.Canny(light[0, 0].numpy().astype(np.uint8), 100, 200)
        assert edges.any()
        assert np.array_equal(canny(light)[0, 0].numpy(), edges > 0)
        near = cv2.dilate(edges, np.ones((5, 5), np.uint8))[None, None] > 0
        soft = cv2.GaussianBlur(picture.astype(np.float64), (5, 5), 0, borderType=cv2.BORDER_REFLECT_101)
        smoothed = (smooth_edges(x) + 1) * 127.5
        expected = torch.where(torch.tensor(near), torch.tensor(soft).permute(2, 0, 1)[None].float(), (x + 1) * 127.5)
        torch.testing.assert_close(smoothed, expected, rtol=0, atol=1e-3)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal((smooth_edges(x) + 1) * 127.5, smoothed)


@pytest.mark.parametrize(("name", "build", "last"), [("vgg19", vgg19, 25), ("vgg16", vgg16, 29)])
def test_vgg_is_torchvision_s_up_to_the_layer_that_is_meant(name, build, last, tmp_path):
    """conv4_4 of VGG19 before its ReLU; conv5_3 of VGG16 after it, without the last pooling, as in MUNIT's code."""
    torch.manual_seed(0)
    whole = build()
    names = [key for key in whole.state_dict() if key.startswith("features")]
    torch.save({key: whole.state_dict()[key] for key in names}, tmp_path / "vgg.pth")
    net = content_network(name, tmp_path / "vgg.pth", torch.device("cpu"))
    x = torch.rand(1, 3, 64, 64) * 2 - 1
    seen = VGG19_Weights.IMAGENET1K_V1.transforms(crop_size=64, resize_size=64)((x + 1) / 2)
    pools = [i for i, layer in enumerate(whole.features[:last]) if isinstance(layer, nn.MaxPool2d)]
    kept = nn.Sequential(*[layer for i, layer in enumerate(whole.features[: last + 1]) if i not in pools[3:]])
    torch.testing.assert_close(net(x), kept(seen), rtol=1e-5, atol=1e-6)
    assert sum(isinstance(layer, nn.Conv2d) for layer in kept) == (12 if name == "vgg19" else 13)
    assert isinstance(kept[-1], nn.Conv2d if name == "vgg19" else nn.ReLU)
    assert not any(p.requires_grad for p in net.parameters())
    assert net(x[:, :1]).shape == (1, 512, 8, 8)


def test_content_networks_that_cannot_be_had_are_explained(data, tmp_path):
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(b"no weights")
    for given, reason in ((tmp_path / "none.pth", "does not exist"), (damaged, "no file of PyTorch")):
        done = run_here("train", data, "--system", "cartoongan", "--vgg", given, "-o", tmp_path / "run")
        assert done.returncode == 2 and reason in done.stderr and "Traceback" not in done.stderr
        assert not (tmp_path / "run").exists(), "nothing is left that a second try would trip over"
    with pytest.raises(UserError, match='`vgg` is for `content="vgg19"`'):
        content_network("efficientnet-lite0", damaged, torch.device("cpu"))


def test_a_shared_model_does_not_tell_where_files_lay(tmp_path):
    system = CartoonGAN(CartoonGANConfig(size=32, width=2, blocks=1, vgg=tmp_path / "vgg.pth"))
    save_model(system, tmp_path / "model", step=0)
    assert "vgg.pth" not in (tmp_path / "model" / "config.json").read_text()
    assert load_model(tmp_path / "model").config == replace(system.config, vgg=None)


def test_pool_is_filled_then_exchanges_half_of_the_time():
    torch.manual_seed(0)
    pool, made = Pool(5, 1, 1, 1), torch.arange(1, 2001.0).view(-1, 1, 1, 1, 1)
    shown = [float(pool.exchange(image, Clock(step, 200))) for step, image in enumerate(made)]
    assert shown[:5] == [1, 2, 3, 4, 5]
    new = sum(value == i for i, value in enumerate(shown[5:], start=6)) / len(shown[5:])
    assert 0.46 < new < 0.54
    old = [value for i, value in enumerate(shown[5:], start=6) if value != i]
    assert len(set(old)) == len(old), "what was shown from the pool has left it"


def test_a_pool_that_is_taken_up_with_a_larger_batch_shows_only_what_it_holds():
    pool, other = Pool(9, 1, 1, 1), Pool(9, 1, 1, 1)
    for step in range(3):
        pool.exchange(torch.ones(1, 1, 1, 1), Clock(step, 200))
    other.load_state_dict(pool.state_dict())
    assert other.filled == 3
    shown = [other.exchange(torch.ones(4, 1, 1, 1), Clock(step, 200)) for step in range(3, 30)]
    assert torch.cat(shown).all() and other.images.all()


def quick(system: str, data, run, steps: int) -> TrainConfig:
    config = preset_config(system, "quick")
    model = replace(config.model, size=least_side(system), width=4, blocks=1)
    return replace(
        config,
        model=model,
        recipe=replace(config.recipe, steps=steps),
        data=data,
        out=run,
        workers=0,
        checkpoint_every=3,
        preview_every=0,
        log_every=2,
    )


@pytest.mark.parametrize("system", OTHERS)
def test_each_trains_resumes_bit_for_bit_and_translates(system, data, tmp_path):
    whole, again = tmp_path / "whole", tmp_path / "again"
    folder = train(quick(system, data, whole, 6))
    shutil.copytree(whole, again)
    shutil.rmtree(again / "checkpoints" / "step-00000006")
    train(quick(system, data, again, 6), resume=True)
    assert_same_run(whole, again)
    translator = Translator.load(folder)
    x = torch.rand(1, 3, 64, 96) * 2 - 1
    for direction in translator.system.directions:
        made = translator(x, direction, size="keep")
        assert made.shape == x.shape and made.isfinite().all() and not torch.equal(made, x)


# What the trainer and the costs ask of every system


LAYERS = ("convolution", "mm", "addmm", "avg_pool2d")  # half precision is for these
EXACT = ("max", "slice", "split", "unbind", "new_ones", "new_zeros", "view", "expand")


class Reductions(TorchDispatchMode):
    """Collects the operations that make less of half-precision numbers and keep it in half precision."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        given, out = ([t for t in tree_leaves(x) if isinstance(t, Tensor)] for x in ((args, kwargs), made))
        fewer = given and out and max(t.numel() for t in out) < max(t.numel() for t in given)
        if fewer and any(t.dtype in (torch.bfloat16, torch.float16) for t in out):
            self.seen.add(function.overloadpacket.__name__)
        return made


@pytest.mark.parametrize("name", list(REGISTRY))
def test_all_sums_are_in_float32_under_mixed_precision(name):
    options = {"cartoongan": {"content": "efficientnet-lite0"}, "munit": {"cycle_weight": 1.0}}.get(name, {})
    system = tiny_model(name, **options).train().requires_grad_(True)
    side, reductions = least_side(name), Reductions()
    real_a, real_b = torch.rand(2, 2, 3, side, side) * 2 - 1
    for clock, _ in system.kinds_of_steps():
        with torch.autocast("cpu", torch.bfloat16), reductions:
            for update in system.updates(real_a, real_b, clock):
                assert all(term.dtype == torch.float32 for term in (update.loss, *update.terms.values()))
    assert "convolution" in reductions.seen, "the precision is mixed"
    assert reductions.seen <= {*LAYERS, *EXACT}


def test_spectral_norm_divides_by_the_same_number_under_mixed_precision():
    layer = SpectralConv2d(3, 8, 4, 2, bias=False).eval()
    sigma = layer.u @ layer.weight.flatten(1) @ layer.v
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        made, plain = layer(x), layer._conv_forward(x, layer.weight, None)
    assert torch.equal(made, plain / sigma)


@pytest.mark.parametrize("name", list(REGISTRY))
def test_the_kinds_of_steps_are_all_that_a_run_has(name):
    system = tiny_model(name, **({"content": "efficientnet-lite0"} if name == "cartoongan" else {}))
    kinds = system.kinds_of_steps()
    assert sum(share for _, share in kinds) == pytest.approx(1)
    parts = {"drit": [1 / 3] * 3, "aggan": [0.3, 0.7], "cartoongan": [0.25, 0.75]}.get(name, [1.0])
    assert [share for _, share in kinds] == pytest.approx(parts)

    def done(step, steps):
        side = least_side(name)
        with torch.no_grad():
            updates = system.updates(*torch.rand(2, 2, 3, side, side), Clock(step, steps))
            return tuple((update.optimizers, tuple(update.terms)) for update in updates)

    everywhere = {done(step, 33) for step in range(33)}
    assert {done(clock.step, clock.steps) for clock, _ in kinds} == everywhere


def test_processes_draw_what_one_draws_for_all():
    like = torch.zeros(4, 3)
    torch.manual_seed(1)
    alone = Clock(0, 9).noise(like, 2, 5)
    parts = []
    for rank in range(2):
        torch.manual_seed(1)
        parts.append(Clock(0, 9, rank, 2).noise(like[:2], 2, 5))
    assert torch.equal(torch.cat(parts), alone)
