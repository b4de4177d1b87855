"""Sizes, shapes and layer facts of the paper's tables."""

import pytest
import torch
import torch.nn.functional as F

from ugatit.nn.discriminator import global_halvings
from ugatit.nn.norm import LIN, AdaLIN, InstanceNorm, clip_rho, layer_instance_norm
from ugatit.nn.spectral import SpectralConv2d
from ugatit.nn.switch import fast_forms
from ugatit.systems.base import Clock
from ugatit.systems.ugatit import UGATIT, UGATITConfig


def count(module) -> int:
    return sum(p.numel() for p in module.parameters())


def on_meta(**settings) -> UGATIT:
    with torch.device("meta"):
        return UGATIT(UGATITConfig(**settings))


def test_parameter_counts_of_the_released_networks():
    assert count(on_meta().gen_a2b) == 278_959_808
    light = on_meta(light=True)
    assert count(light.gen_b2a) == 10_589_888
    assert count(light.disc_global_a) == 53_130_176
    assert count(light.disc_local_b) == 3_290_560


@pytest.mark.parametrize("decoder_norm", ["adalin", "adain", "in", "ln"])
def test_variances_of_every_decoder_norm_are_those_of_the_release(decoder_norm):
    for release, correction in (("pytorch", 1), ("tensorflow", 0)):
        gen = on_meta(decoder_norm=decoder_norm, release=release).gen_a2b
        assert {part.correction for part in gen.modules() if isinstance(part, AdaLIN | LIN)} == {correction}


@pytest.mark.parametrize("size, halvings", [(32, 3), (60, 3), (64, 4), (124, 4), (128, 5), (256, 5), (1024, 5)])
def test_global_discriminator_leaves_a_map_of_at_least_four(size, halvings):
    assert global_halvings(size) == halvings
    disc = UGATIT(UGATITConfig(size=max(size, 32), width=1, blocks=1, light=True)).disc_global_a
    x = torch.zeros(1, 3, size, size)
    for layer in list(disc.encoder)[: 2 * halvings]:
        x = layer(x)
    assert x.shape[-1] >= 4


@pytest.mark.parametrize("size, channels, light", [(32, 1, False), (36, 3, False), (44, 3, True), (128, 1, True)])
def test_shapes_for_every_kind_of_picture(size, channels, light):
    system = UGATIT(UGATITConfig(size=size, channels=channels, width=2, blocks=1, light=light))
    x = torch.rand(2, channels, size, size) * 2 - 1
    made = system.gen_a2b(x)
    assert made.image.shape == x.shape and made.image.abs().max() <= 1
    assert made.cam_logit.shape == (2, 2) and made.heatmap.shape == (2, 1, size // 4, size // 4)
    verdict = system.disc_local_a(x)
    assert verdict.logit.shape == (2, 1, size // 8 - 2, size // 8 - 2)
    assert verdict.heatmap.shape == (2, 1, size // 8 - 1, size // 8 - 1)


def test_light_translates_any_multiple_of_four():
    system = UGATIT(UGATITConfig(size=32, width=2, blocks=1, light=True))
    assert system.translate(torch.zeros(1, 3, 52, 76), "b2a").image.shape == (1, 3, 52, 76)


def test_initial_weights_are_the_paper_s():
    system = UGATIT(UGATITConfig(size=64, width=16, light=True))
    system.init_weights()
    weight = system.gen_a2b.encoder[0].conv1.weight
    assert abs(weight.std() - 0.02) < 1e-3 and abs(weight.mean()) < 1e-3
    assert (system.gen_a2b.decoder[0].norm1.rho == 1).all()
    assert (system.gen_a2b.up[0].norm.rho == 0).all()
    assert (system.disc_local_a.cam.conv.bias == 0).all()


def test_spectral_norm_converges_to_the_largest_singular_value():
    conv = SpectralConv2d(3, 8, 4, 1)
    for _ in range(200):
        conv(torch.zeros(1, 3, 8, 8))
    rows = conv.weight.flatten(1)
    torch.testing.assert_close(conv.u @ rows @ conv.v, torch.linalg.svdvals(rows)[0], rtol=1e-4, atol=0)
    conv.eval()
    u = conv.u.clone()
    conv(torch.zeros(1, 3, 8, 8))
    assert (conv.u == u).all()


def test_rho_is_clipped():
    system = UGATIT(UGATITConfig(size=32, width=2, blocks=1))
    rho = system.gen_a2b.up[1].norm.rho
    rho.data.copy_(torch.tensor([-0.5, 1.5]).view(1, 2, 1, 1))
    clip_rho(system)
    assert rho.flatten().tolist() == [0, 1]


def test_learning_rate_is_constant_for_the_first_half_then_falls_to_zero():
    system = on_meta()
    factors = [system.lr_factor(Clock(step, 1_000_000)) for step in (0, 499_999, 500_000, 750_000, 999_999)]
    assert factors == pytest.approx([1, 1, 1, 0.5, 2e-6])


@pytest.mark.parametrize("fast", [False, True])
def test_half_precision_does_not_overflow_in_the_norm(fast):
    x, one = 3000 * torch.randn(1, 8, 8, 8), torch.ones(1, 8, 1, 1)
    with fast_forms(fast):
        wanted, made = (layer_instance_norm(each, one / 2, one, 0 * one) for each in (x.half().double(), x.half()))
    assert (made - wanted).abs().max() < 5e-3


@pytest.mark.parametrize("batch", [1, 3])
def test_gradient_of_the_layer_instance_norm(batch):
    torch.manual_seed(batch)
    x, gamma = torch.randn(3, 5, 3, 4).double(), torch.randn(batch, 5, 1, 1).double()
    rho, beta = torch.rand(1, 5, 1, 1).double(), torch.randn(batch, 5, 1, 1).double()
    inputs = [t.requires_grad_() for t in (x, rho, gamma, beta)]
    assert torch.autograd.gradcheck(layer_instance_norm, inputs)


def test_instance_norm_is_torch_s():
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    norm = InstanceNorm()
    wanted = F.instance_norm(x)
    torch.testing.assert_close(norm(x), wanted)
    grad = torch.randn_like(x)
    (slope,) = torch.autograd.grad(wanted, x, grad)
    for layout in (torch.contiguous_format, torch.channels_last):
        (found,) = torch.autograd.grad(norm(x), x, grad.to(memory_format=layout))
        torch.testing.assert_close(found, slope)
