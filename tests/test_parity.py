"""Our code against the numbers recorded from the authors' code (../shared/parity)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ugatit.translation.released import import_released, record_step

OUTPUT, GRADIENT = 1e-4, 1e-3  # relative to the tensor's norm
STEP = 0.02  # relative to the norm of what a step changes
ROUNDINGS = 8


def released_checkpoint(archive, path: Path) -> Path:
    """The recorded state dicts as a *_params_*.pt file."""
    states: dict[str, dict] = {}
    for key in archive.files:
        if key.startswith("state/"):
            network, name = key.removeprefix("state/").split(".", 1)
            states.setdefault(network, {})[name] = torch.from_numpy(archive[key])
    torch.save(states, path)
    return path


def relative(value, want) -> float:
    return float((value - want).norm() / want.norm())


def agrees(key: str, value, archive) -> bool:
    want = torch.from_numpy(np.asarray(archive[key]))
    if key.startswith("after/"):  # against the size of the step itself: a wrong gradient would show
        before = torch.from_numpy(archive[key.replace("after/", "state/")])
        return float((value - want).norm()) < STEP * float((want - before).norm())
    return relative(value, want) < (GRADIENT if key.startswith("grad") else OUTPUT)


@pytest.mark.parametrize("kind", ["light", "full"])
def test_recorded_step(kind, shared, tmp_path):
    """Every recorded number.

    They are float32's. Some units of the cycle pass lie so close to their ReLU's 0 (2e-6; rounding is 3e-5 there) that
    the sign is chance: either choice is a correct gradient, and the two are up to 3e-2 of the smallest gradients' norm
    apart. So what follows from the generators' gradients may agree with the exact numbers, or with those of inputs that
    are moved by float32's rounding, always by the same.
    """
    archive = np.load(shared / "parity" / f"{kind}_ch4_128.npz")
    checkpoint = released_checkpoint(archive, tmp_path / "x_params_0000001.pt")
    config = import_released(checkpoint, size=128).config
    assert (config.light, config.width, config.blocks, config.size) == (kind == "light", 4, 4, 128)
    inputs = torch.stack([torch.from_numpy(archive[name]) for name in ("real_A", "real_B")]).double()

    expected = [k for k in archive.files if k.split("/")[0] in ("out", "loss", "grad_d", "grad_g", "after")]
    assert {"out", "loss", "grad_d", "grad_g", "after"} == {k.split("/")[0] for k in expected}
    record = record_step(checkpoint, *inputs)
    wrong = [key for key in expected if not agrees(key, record[key], archive)]
    assert not [key for key in wrong if key.split("/")[0] not in ("grad_g", "after")]

    noise = torch.Generator().manual_seed(0)
    for _ in range(ROUNDINGS):
        if not wrong:
            break
        moved = inputs + 1e-7 * torch.randn(inputs.shape, generator=noise, dtype=inputs.dtype)
        record = record_step(checkpoint, *moved)
        wrong = [key for key in wrong if not agrees(key, record[key], archive)]
    assert not wrong


@pytest.mark.parametrize("kind", ["light", "full"])
def test_single_precision_is_enough(kind, shared, tmp_path):
    archive = np.load(shared / "parity" / f"{kind}_ch4_128.npz")
    checkpoint = released_checkpoint(archive, tmp_path / "x_params_0000001.pt")
    inputs = torch.from_numpy(archive["real_A"]), torch.from_numpy(archive["real_B"])
    single, double = (record_step(checkpoint, *inputs, dtype=d) for d in (torch.float32, torch.float64))
    for part, limit in (("out", OUTPUT), ("loss", OUTPUT), ("grad_d", OUTPUT), ("grad_g", GRADIENT)):
        for network in ("genA2B", "genB2A", "disGA", "disGB", "disLA", "disLB", "d_", "g_"):
            names = [k for k in single if k.startswith(f"{part}/{network}")]
            ours, exact = (torch.cat([r[k].flatten() for k in names] or [torch.ones(1)]) for r in (single, double))
            assert (ours - exact).norm() < limit * exact.norm(), (part, network)
