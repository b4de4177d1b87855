"""Our code against the numbers recorded from the authors' code (../shared/parity)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ugatit.released import import_released, record_step

OUTPUT, GRADIENT = 1e-4, 1e-3  # relative to the tensor's norm


def released_checkpoint(archive, path: Path) -> Path:
    """The recorded state dicts as a *_params_*.pt file."""
    states: dict[str, dict] = {}
    for key in archive.files:
        if key.startswith("state/"):
            network, name = key.removeprefix("state/").split(".", 1)
            states.setdefault(network, {})[name] = torch.from_numpy(archive[key])
    torch.save(states, path)
    return path


@pytest.mark.parametrize("kind", ["light", "full"])
def test_recorded_step(kind, shared, tmp_path):
    archive = np.load(shared / "parity" / f"{kind}_ch4_128.npz")
    checkpoint = released_checkpoint(archive, tmp_path / "x_params_0000001.pt")
    config = import_released(checkpoint, size=128).config
    assert (config.light, config.width, config.blocks, config.size) == (kind == "light", 4, 4, 128)

    record = record_step(checkpoint, torch.from_numpy(archive["real_A"]), torch.from_numpy(archive["real_B"]))

    expected = [k for k in archive.files if k.split("/")[0] in ("out", "loss", "grad_d", "grad_g", "after")]
    assert {"out", "loss", "grad_d", "grad_g", "after"} == {k.split("/")[0] for k in expected}
    for key in expected:
        want = torch.from_numpy(np.asarray(archive[key]))
        error = (record[key] - want).norm() / want.norm()
        if key.startswith("after/"):  # against the size of the step itself: a wrong gradient would show
            before = torch.from_numpy(archive[key.replace("after/", "state/")])
            assert error < OUTPUT or (record[key] - want).norm() < 0.02 * (want - before).norm(), key
        else:
            assert error < (GRADIENT if key.startswith("grad") else OUTPUT), (key, float(error))
