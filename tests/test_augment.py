"""What is changed at random: training pictures, and what discriminators see of them and of translations."""

import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import TINY, run_here, tiny_model
from ugatit.cli import main
from ugatit.data.samples import to_tensor
from ugatit.data.sampling import TurnedCrop, train_transform
from ugatit.nn.augment import KINDS, DiffAugment, color, cutout, translation
from ugatit.systems import REGISTRY
from ugatit.systems.base import channels_of

# DiffAugment


def always(value, *shape):
    return torch.full((1, *shape), value)


def test_color_changes_brightness_saturation_and_contrast():
    x = torch.rand(1, 3, 8, 8) * 2 - 1
    same = color(x, partial(always, 0.5))  # no change of brightness, all of saturation and contrast
    assert torch.allclose(same, x, atol=1e-6)
    grey = color(x, partial(always, 0.0))
    assert torch.allclose(grey[:, 0], grey[:, 1], atol=1e-6) and torch.isclose(grey.mean(), x.mean() - 0.5, atol=1e-6)
    mean = x.mean(1, keepdim=True)
    assert torch.allclose(grey - grey.mean(), (mean - x.mean()) / 2, atol=1e-6)


@pytest.mark.parametrize(("value", "shift"), [(0.0, -2), (0.5, 0), (0.999, 2)])
def test_translation_moves_by_an_eighth_at_most_and_fills_with_0(value, shift):
    x = torch.rand(1, 2, 16, 16) + 1
    moved = translation(x, partial(always, value))
    rows = slice(max(0, shift), 16 + min(0, shift))
    source = slice(max(0, -shift), 16 - max(0, shift))
    assert torch.equal(moved[:, :, rows, rows], x[:, :, source, source])
    assert (moved != 0).sum() == 2 * (16 - abs(shift)) ** 2


@pytest.mark.parametrize(("value", "left"), [(0.0, 16**2 - 4**2), (0.5, 16**2 - 8**2), (0.999, 16**2 - 4**2)])
def test_cutout_is_a_square_of_half_the_side(value, left):
    assert cutout(torch.ones(1, 1, 16, 16), partial(always, value)).sum() == left


@pytest.mark.parametrize("kind", KINDS)
def test_every_picture_is_changed_otherwise_and_passes_its_gradient_on(kind):
    x = torch.linspace(-1, 1, 16 * 12).view(1, 1, 16, 12).repeat(8, 3, 1, 1).requires_grad_()
    made = DiffAugment((kind,))(x)
    assert made.shape == x.shape and len({tuple(one.flatten().tolist()) for one in made}) > 4
    made.sum().backward()
    assert x.grad.isfinite().all() and (x.grad != 0).any()


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_pictures_in_half_precision_are_changed_by_numbers_in_full(half, monkeypatch):
    """Half ones reach 1, once in some hundreds: a shift beyond the most, and a hole that begins beyond its range."""
    rand = torch.rand
    monkeypatch.setattr(torch, "rand", lambda *shape, device: torch.full_like(rand(*shape, device=device), 1 - 2**-24))
    x = torch.linspace(-1, 1, 3 * 256).view(1, 3, 16, 16)
    moved = DiffAugment(("translation",))(x.to(half))
    assert moved.dtype == half and torch.equal(moved[:, :, 2:, 2:], x.to(half)[:, :, :-2, :-2]), "by two, the most"
    cut = DiffAugment(("cutout",))(x.to(half))
    assert cut.dtype == half and (cut != 0).sum() == 3 * (16**2 - 4**2)
    bright, wanted = (DiffAugment(("color",))(each) for each in (x.to(half), x))
    assert bright.dtype == half
    torch.testing.assert_close(bright.float(), wanted, atol=0.02, rtol=0.01)


def test_several_processes_draw_numbers_of_their_own():
    made = []
    for rank in range(2):
        torch.manual_seed(0)
        made.append(DiffAugment(("color",), rank, 2)(torch.zeros(3, 3, 4, 4)))
        after = torch.rand(())
    assert not torch.equal(*made)
    torch.manual_seed(0)
    DiffAugment(("color",), 0, 2)(torch.zeros(3, 3, 4, 4))
    assert torch.rand(()) == after, "and leave their generators in the same state"


@pytest.mark.parametrize("name", REGISTRY)
def test_all_that_a_discriminator_is_shown_is_changed_in_both_updates(name, monkeypatch):
    system = tiny_model(name).train().requires_grad_(True)
    changed = []

    class Noted(DiffAugment):
        def __call__(self, x):
            changed.append(x.detach())
            return super().__call__(x)

    augment, calls = Noted(tuple(KINDS)), []
    for judge in system.judges:
        judge.register_forward_pre_hook(lambda _, given: calls.append(given[0].detach()))
        augment.watch(judge)
    real = [torch.rand(2, c, system.config.size, system.config.size) for c in channels_of(system.config)]
    for clock, _ in system.kinds_of_steps():
        for update in system.updates(*real, clock):
            update.loss.backward()
            assert update.loss.isfinite()
    assert calls and all(map(torch.equal, calls, changed)) and len(calls) == len(changed)
    assert {x.shape[1] for x in changed} <= set(channels_of(system.config)), "pictures, and no contents"
    changed.clear()
    system.eval()
    for judge, seen in zip(system.judges, calls, strict=False):
        judge(seen)
    assert not changed, "who looks at what a trained discriminator sees shows it the picture as it is"


def test_it_is_off_by_default_and_kept_in_the_run(data, tmp_path):
    few = [data, *TINY, "--steps", "2", "--preview-every", 0]
    kinds = ["--diff-augment", "color", "translation", "cutout"]
    for out, options in (("plain", []), ("again", []), ("augmented", kinds)):
        made = run_here("train", *few, *options, "-o", tmp_path / out)
        assert made.returncode == 0, made.stderr
    losses = [
        (tmp_path / out / "metrics.jsonl").read_text().split("steps_per")[0] for out in ("plain", "again", "augmented")
    ]
    assert losses[0] == losses[1] != losses[2]
    assert json.loads((tmp_path / "augmented" / "config.json").read_text())["recipe"]["diff_augment"] == kinds[1:]
    assert main(["train", str(data), "--diff-augment", "colour", "-o", str(tmp_path / "no")]) == 2


# Training pictures


def test_without_turning_the_crop_is_the_paper_s():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
    torch.manual_seed(3)
    plain = train_transform(32, 0.5)(picture)
    torch.manual_seed(3)
    assert torch.equal(train_transform(32, 0.5, 0.0, 0.0, 0.0)(picture), plain)


def test_a_crop_that_is_turned_by_nothing_is_a_crop():
    x = torch.rand(3, 40, 50)
    same = TurnedCrop(32, 0, 0).transform(x, {"down": 0.5, "right": 1.0, "angle": 0.0, "larger": 1.0})
    assert torch.allclose(same, x[:, 4:36, 18:50], atol=1e-5)


def test_turning_and_scaling_are_those_of_the_picture():
    x = torch.zeros(1, 41, 41)
    x[:, 20, 30] = 1  # ten to the right of the middle
    centre = {"down": 0.5, "right": 0.5}
    turned = TurnedCrop(41, 90, 0).transform(x, centre | {"angle": math.pi / 2, "larger": 1.0})
    assert turned[0, 10, 20] == pytest.approx(1, abs=1e-3), "a quarter turn to the left"
    larger = TurnedCrop(41, 0, 1).transform(x, centre | {"angle": 0.0, "larger": 1.5})
    assert larger[0, 20].argmax() == 35
    drawn = [TurnedCrop(32, 10, 0.25).make_params([]) for _ in range(200)]
    assert max(abs(one["angle"]) for one in drawn) == pytest.approx(math.radians(10), rel=0.1)
    assert 0.8 <= min(one["larger"] for one in drawn) < 0.82 and 1.22 < max(one["larger"] for one in drawn) <= 1.25


def test_what_lies_beyond_the_edge_is_mirrored():
    picture = Image.new("RGB", (40, 40), (255, 0, 0))
    for seed in range(20):
        torch.manual_seed(seed)
        made = train_transform(32, 0.5, turn=45, scale=0.5)(picture)
        assert made.shape == (3, 32, 32) and torch.allclose(
            made, torch.tensor([1.0, -1, -1])[:, None, None].expand(3, 32, 32)
        )


@pytest.mark.parametrize(
    "kind", [Image.new("L", (40, 40), 99), Image.new("RGB", (40, 44), (9, 99, 199)), torch.rand(5, 40, 40)]
)
def test_all_kinds_of_pictures_are_turned(kind):
    channels = len(to_tensor(kind))
    assert train_transform(32, 0.5, turn=20, scale=0.1)(kind).shape == (channels, 32, 32)


def test_jitter_changes_colours_and_needs_some(data, tmp_path, capsys):
    picture = Image.new("RGB", (40, 40), (120, 90, 60))
    torch.manual_seed(0)
    made = {tuple(train_transform(32, 0, jitter=0.3)(picture)[:, 0, 0].tolist()) for _ in range(5)}
    assert len(made) == 5
    few = [str(part) for part in (data, *TINY, "--steps", 1, "-o", tmp_path / "x", "--jitter", 0.2, "--channels", 4)]
    assert main(["train", *few]) == 2
    assert "--jitter is known for grey and colour pictures only" in capsys.readouterr().err
