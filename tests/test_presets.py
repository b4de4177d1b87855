"""The presets ``paper`` are what the paper and the six systems' authors trained with, number by number."""

import math
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from ugatit.nn.norm import InstanceNorm
from ugatit.systems import REGISTRY
from ugatit.systems.base import Clock

SHARED = {"channels": 3, "channels_b": None, "range": "type", "range_b": None, "faces_a": None, "faces_b": None}
SHARED |= {"beta1": 0.5, "beta2": 0.999}
PLAIN = {"turn": 0.0, "scale": 0.0, "jitter": 0.0, "diff_augment": (), "ema": 0.0}
LINEAR = [1, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]  # at each tenth of the steps
HALVED = [0.5**n for n in range(10)]

MODELS = {
    "ugatit": {
        "size": 256, "width": 64, "blocks": 4, "light": False, "release": "pytorch", "decoder_norm": "adalin",
        "cam": "both", "init_std": 0.02, "rho_residual": 1.0, "rho_up": 0.0, "adv_weight": 1.0, "cycle_weight": 10.0,
        "identity_weight": 10.0, "cam_weight": 1000.0, "lr": 1e-4, "weight_decay": 1e-4, "checkpointing": False,
        "adam_averages": "float32", "decay_from": 0.5, "only": None,
    },
    "cyclegan": {
        "size": 256, "width": 64, "blocks": 9, "cycle_weight": 10.0, "identity_weight": 5.0, "pool": 50, "lr": 2e-4,
        "decay_from": 0.5, "only": None,
    },
    "unit": {
        "size": 256, "width": 64, "blocks": 4, "adv_weight": 1.0, "recon_weight": 10.0, "kl_weight": 0.01,
        "cycle_weight": 10.0, "cycle_kl_weight": 0.01, "lr": 1e-4, "weight_decay": 1e-4, "halve_every": 100_000,
    },
    "munit": {
        "size": 256, "width": 64, "blocks": 4, "hidden": 256, "adv_weight": 1.0, "recon_weight": 10.0,
        "style_weight": 1.0, "content_weight": 1.0, "cycle_weight": 0.0, "vgg_weight": 0.0, "vgg": None, "lr": 1e-4,
        "weight_decay": 1e-4, "halve_every": 100_000,
    },
    "drit": {
        "size": 216, "width": 64, "blocks": 3, "content_weight": 1.0, "cycle_weight": 10.0, "recon_weight": 10.0,
        "latent_weight": 10.0, "kl_weight": 0.01, "init_std": 0.02, "lr": 1e-4, "weight_decay": 1e-4, "decay_from": 0.5,
    },
    "aggan": {
        "size": 256, "width": 32, "blocks": 9, "cycle_weight": 10.0, "attention_until": 0.3, "threshold": 0.1,
        "pool": 50, "lr": 1e-4, "decay_from": 0.5,
    },
    "cartoongan": {
        "size": 256, "width": 64, "blocks": 8, "content_weight": 10.0, "content": "vgg19", "vgg": None,
        "first": 10 / 110, "lr": 2e-4,
    },
}  # fmt: skip
RECIPES = {  # steps, batch, enlarge, flip; of selfie2anime's 3,400 pictures where the authors count epochs
    "ugatit": (1_000_000, 1, 286 / 256, 0.5),
    "cyclegan": (200 * 3400, 1, 286 / 256, 0.5),
    "unit": (1_000_000, 1, 1, 0.5),
    "munit": (1_000_000, 1, 1, 0.5),
    "drit": (3 * 500_000, 2, 256 / 216, 0.5),
    "aggan": (100 * 3400, 1, 286 / 256, 0.5),
    "cartoongan": (110 * 3400 // 8, 8, 1, 0),
}
RATES = {
    "ugatit": {"gen": (1e-4, 1e-4), "disc": (1e-4, 1e-4)},  # learning rate and weight decay
    "cyclegan": {"gen": (2e-4, 0), "disc": (2e-4, 0)},
    "unit": {"gen": (1e-4, 1e-4), "disc": (1e-4, 1e-4)},
    "munit": {"gen": (1e-4, 1e-4), "disc": (1e-4, 1e-4)},
    "drit": dict.fromkeys(("content", "attribute", "gen", "disc"), (1e-4, 1e-4)) | {"judge_content": (4e-5, 1e-4)},
    "aggan": dict.fromkeys(("gen_a2b", "gen_b2a", "att_a", "att_b", "disc_a", "disc_b"), (1e-4, 0)),
    "cartoongan": {"gen": (2e-4, 0), "disc": (2e-4, 0)},
}
FACTORS = dict.fromkeys(("ugatit", "cyclegan", "drit", "aggan"), LINEAR) | dict.fromkeys(("unit", "munit"), HALVED)
FACTORS |= {"cartoongan": [1, 1, 1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01]}  # the first eleventh is the first phase's
WITHIN_2 = 0.8796  # the standard deviation of a normal distribution that is cut at two of its own


@pytest.mark.parametrize("name", REGISTRY)
def test_the_paper_presets_are_the_authors(name):
    preset = REGISTRY[name].presets["paper"]
    assert asdict(preset.model) == SHARED | MODELS[name]
    steps, batch, enlarge, flip = RECIPES[name]
    assert asdict(preset.recipe) == PLAIN | {"steps": steps, "batch": batch, "enlarge": enlarge, "flip": flip}
    with torch.device("meta"):
        system = REGISTRY[name](preset.model)
    optimizers = system.optimizers()
    found = {part: (o.param_groups[0]["lr"], o.param_groups[0]["weight_decay"]) for part, o in optimizers.items()}
    assert found == RATES[name]
    assert {(len(o.param_groups), o.param_groups[0]["betas"]) for o in optimizers.values()} == {(1, (0.5, 0.999))}
    trained = {id(p) for o in optimizers.values() for p in o.param_groups[0]["params"]}
    assert trained == {id(p) for p in system.parameters()}
    clocks = [Clock(n * steps // 10, steps, 0, 1) for n in range(10)]
    assert [system.lr_factor(clock) for clock in clocks] == pytest.approx(FACTORS[name])


@pytest.mark.parametrize("name", REGISTRY)
def test_weights_start_as_the_authors_do(name):
    model = replace(REGISTRY[name].presets["paper"].model, size=64, width=16)
    if name == "cartoongan":
        model = replace(model, content="efficientnet-lite0")
    torch.manual_seed(0)
    system = REGISTRY[name](model)
    system.init_weights()
    drawn: dict[float, list[torch.Tensor]] = {}  # weights in units of what they should deviate, by that
    for path, part in system.named_modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            kaiming = name in ("unit", "munit") and not path.startswith("disc")
            if name == "drit" and isinstance(part, nn.Linear):  # as torch draws them, uniformly
                wanted = 1 / math.sqrt(3 * part.in_features)
            else:
                wanted = math.sqrt(2 / part.weight[0].numel()) if kaiming else 0.02
            wanted *= WITHIN_2 if name == "aggan" else 1
            drawn.setdefault(wanted, []).append(part.weight.detach().flatten() / wanted)
            if part.bias is not None and name != "drit":
                assert not part.bias.any(), path
        elif name == "aggan" and isinstance(part, InstanceNorm):
            drawn.setdefault(1.0, []).append((part.weight.detach() - 1) / (0.02 * WITHIN_2))
    for wanted, parts in drawn.items():
        values = torch.cat(parts)
        assert float(values.std()) == pytest.approx(1, abs=5 / math.sqrt(len(values))), wanted
        assert float(values.mean()) == pytest.approx(0, abs=5 / math.sqrt(len(values))), wanted


def test_drit_clips_the_gradient_of_its_content_discriminator_alone():
    model = REGISTRY["drit"].presets["paper"].model
    system = REGISTRY["drit"](replace(model, size=64, width=8))
    pictures = torch.rand(2, 2, 3, 64, 64) * 2 - 1
    clips = [
        (update.optimizers, update.clip)
        for step in range(3)
        for update in system.updates(*pictures, Clock(step, 3, 0, 1))
    ]
    assert {clip for names, clip in clips if names == ("judge_content",)} == {5.0}
    assert {clip for names, clip in clips if names != ("judge_content",)} == {None}
