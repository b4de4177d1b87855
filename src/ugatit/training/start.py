"""Beginning a run with the weights of a model: one's own, an imported one, or that of smaller pictures."""

from pathlib import Path

import torch

from ugatit.io.errors import UserError
from ugatit.systems.base import System
from ugatit.translation.folder import load_model
from ugatit.translation.hub import find_model


def model_to_start(path: Path, system: type[System]) -> System:
    """A model whose weights a run may begin with, with all its networks as far as it has them.

    Args:
        path: its folder.
        system: the method of the run.

    Raises:
        UserError: it is damaged, or another method's.
    """
    folder = find_model(path)
    model = load_model(folder, with_training=(folder / "training.safetensors").exists())
    if type(model) is not system:
        method = type(model).__name__
        raise UserError(f"`start={path}` is a model of {method}, not of {system.__name__}: give `system` as it has it.")
    return model


@torch.no_grad()
def take_weights(system: System, model: System) -> tuple[list[str], list[str]]:
    """Give a system the weights of a model wherever they fit: another size of the pictures keeps a light generator and
    the local discriminators.

    Returns:
        The names of the parts that begin afresh, as the model lacks them or has other shapes; and of those of the
        model that the system lacks.

    Raises:
        UserError: nothing of what translates fits, or the model is built like another release.
    """
    ours, theirs = (getattr(each.config, "release", None) for each in (system, model))
    if ours != theirs:
        raise UserError(f"The model of `start` is built like the authors' {theirs} release: give `release={theirs}`.")
    given = {name: tensor for name, tensor in model.state_dict().items() if not tensor.is_meta}
    own = system.learned()
    trained = dict(model.named_parameters()).keys() - dict(system.named_parameters()).keys()
    afresh, taken = [], set()
    for name, tensor in own.items():
        if name in trained:  # what is constant here, such as the rho of AdaIN
            continue
        if name in given and given[name].shape == tensor.shape:
            tensor.copy_(given[name])
            taken.add(name.split(".")[0])
        else:
            afresh.append(".".join(name.split(".")[:2]))
    left = {".".join(name.split(".")[:2]) for name in given if name not in own}
    if not taken.intersection(system.translators):
        ours, theirs = (f"width {each.config.width}" for each in (system, model))
        raise UserError(f"Nothing of the model of `start` fits ({theirs}, here {ours}): give its width and blocks.")
    whole = {name.split(".")[0] for name in afresh} - taken
    return sorted({name.split(".")[0] if name.split(".")[0] in whole else name for name in afresh}), sorted(left)
