"""The package's step against the textbook's, on random settings, in double precision."""

from unittest.mock import patch

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import oracle
from ugatit.nn.fast import cam, winograd
from ugatit.nn.fast.factored import gradient
from ugatit.nn.switch import fast_forms
from ugatit.systems.base import Clock
from ugatit.systems.ugatit import UGATIT, UGATITConfig


def random_system(config: UGATITConfig, seed: int) -> UGATIT:
    """Weights with every part at work: rho anywhere in [0, 1], the norms' own scales, shifts and all biases random."""
    torch.manual_seed(seed)
    system = UGATIT(config).double()
    for name, parameter in system.named_parameters():
        if name.endswith("rho"):
            torch.nn.init.uniform_(parameter)
        else:
            torch.nn.init.normal_(parameter, 0.5 if name.endswith(("norm.gamma", "norm.weight")) else 0, 0.15)
    return system


def package_step(system: UGATIT, real_a, real_b):
    optimizers, terms, gradients = system.optimizers(), {}, {}
    for update in system.updates(real_a, real_b, Clock(0, 2)):
        (kind,) = update.optimizers
        update.loss.backward(inputs=[p for g in optimizers[kind].param_groups for p in g["params"]])
        gradients |= {n: gradient(p).clone() for n, p in system.named_parameters() if n.startswith(kind)}
        optimizers[kind].step()
        optimizers[kind].zero_grad()
        system.after_update(update)
        terms |= {k: v.detach() for k, v in update.terms.items()}
    return terms, gradients


@settings(max_examples=16, deadline=None)
@given(
    size=st.sampled_from([32, 36, 44, 64]),
    channels=st.sampled_from([1, 3]),
    width=st.integers(1, 5),
    blocks=st.integers(1, 3),
    batch=st.integers(1, 3),
    light=st.booleans(),
    decoder_norm=st.sampled_from(["adalin", "adalin", "in", "ln", "gn", "adain"]),
    cams=st.sampled_from(["both", "both", "none", "generator", "discriminator"]),
    weights=st.fixed_dictionaries({k: st.floats(0.5, 50) for k in oracle.WEIGHTS}),
    form=st.sampled_from(["plain", "fast", "fast everywhere"]),
    checkpointing=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_step_is_the_textbook_s(
    size, channels, width, blocks, batch, light, decoder_norm, cams, weights, form, checkpointing, seed
):
    config = UGATITConfig(
        size=size, channels=channels, width=width, blocks=blocks, light=light, decoder_norm=decoder_norm, cam=cams,
        adv_weight=weights["adv"], cycle_weight=weights["cycle"],
        identity_weight=weights["identity"], cam_weight=weights["cam"], checkpointing=checkpointing,
    )  # fmt: skip
    system = random_system(config, seed)
    real_a, real_b = torch.rand(2, batch, channels, size, size, dtype=torch.float64) * 2 - 1
    params = {k: v.detach().clone() for k, v in system.state_dict().items()}
    for name, _ in system.named_parameters():
        params[name].requires_grad_()

    setting = oracle.Setting(
        blocks, light, decoder_norm, cams in ("both", "generator"), cams in ("both", "discriminator")
    )
    expected_terms, expected_gradients = oracle.step(params, real_a, real_b, setting, weights)
    with (
        fast_forms(form != "plain"),
        patch.object(winograd, "CHANNELS", 1 if form == "fast everywhere" else 1000),
        patch.object(winograd, "PIXELS", 1),
        patch.object(cam, "FEW", 64 if form == "fast everywhere" else 0),
    ):
        terms, gradients = package_step(system, real_a, real_b)

    assert terms.keys() == expected_terms.keys()
    for name, value in terms.items():
        torch.testing.assert_close(value, expected_terms[name], rtol=1e-9, atol=1e-12, msg=name)
    assert gradients.keys() == expected_gradients.keys() == {n for n, _ in system.named_parameters()}
    for name, found in gradients.items():
        wanted = expected_gradients[name]
        assert (found - wanted).norm() <= 1e-7 * wanted.norm() + 1e-10, name
    for name, value in system.state_dict().items():
        if name.endswith("rho"):
            assert value.min() >= 0 and value.max() <= 1
        if name.endswith((".u", ".v")):
            torch.testing.assert_close(value, params[name].detach())


def test_parameters_after_the_step_are_the_textbook_s():
    system = random_system(UGATITConfig(size=32, width=3, blocks=2, light=True), 5)
    real_a, real_b = torch.rand(2, 2, 3, 32, 32, dtype=torch.float64) * 2 - 1
    params = {k: v.detach().clone() for k, v in system.state_dict().items()}
    for name, _ in system.named_parameters():
        params[name].requires_grad_()
    oracle.step(params, real_a, real_b, oracle.Setting(blocks=2, light=True))
    package_step(system, real_a, real_b)
    for name, value in system.named_parameters():
        torch.testing.assert_close(value, params[name], rtol=0, atol=1e-8, msg=name)
