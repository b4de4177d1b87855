"""What trainers put around the weights of networks in a checkpoint, taken away."""

import re
from collections.abc import Iterable
from typing import Any

from torch import Tensor

PREFIX = re.compile(r"\A(?:module\.|_orig_mod\.)+")  # of names, of networks on several devices, or compiled ones
DEEPEST = 4  # dicts in dicts that are gone through
INNER = ("state_dict", "model_state_dict", "model", "weights", "params", "networks", "nets", "net")
OTHERS = {  # names of layers in Lornatang/UGATIT-PyTorch, whose networks are the authors', and theirs
    "down_layer.": "DownBlock.",
    "up_layer.": "UpBlock2.",
    "fc.": "FC.",
    "ResNetAdaILNBlock_": "UpBlock1_",
}
OTHER = re.compile(rf"\A(?:{'|'.join(map(re.escape, OTHERS))})")


def by_authors_names(state: dict[str, Any]) -> dict[str, Any]:
    """A generator's state dict with its layers called as in the authors' code; others as they are."""
    if "down_layer.1.weight" not in state:
        return state
    return {OTHER.sub(lambda found: OTHERS[found[0]], name): tensor for name, tensor in state.items()}


def unwrapped(found: Any, networks: Iterable[str] = (), depth: int = 0) -> Any:
    """What was read from a checkpoint, as its networks would be saved alone: without prefixes of names, dicts around
    state dicts, and numbers beside weights.

    Args:
        found: containers of tensors.
        networks: names of networks that may stand before those of weights, as in ``genA2B.DownBlock.1.weight``.
        depth: of what was read within the checkpoint.
    """
    if not isinstance(found, dict) or depth > DEEPEST or not all(isinstance(name, str) for name in found):
        return found
    names = tuple(networks)
    parts: dict[str, Any] = {}
    for name, value in found.items():
        bare = PREFIX.sub("", name)
        network, dot, weight = bare.partition(".")
        if dot and network in names:
            parts.setdefault(network, {})[PREFIX.sub("", weight)] = value
        else:
            parts[bare] = unwrapped(value, names, depth + 1)
    if any(isinstance(value, Tensor) and "." in name for name, value in parts.items()):  # weights, with what is none
        return by_authors_names({name: value for name, value in parts.items() if "." in name})
    inner = next((parts[name] for name in INNER if holds_weights(parts.get(name))), None)
    return parts if inner is None or any(name in parts for name in names) else inner


def holds_weights(part: Any) -> bool:
    """Whether a part of a checkpoint has tensors, or dicts that may have some."""
    return isinstance(part, dict) and any(isinstance(value, Tensor | dict) for value in part.values())
