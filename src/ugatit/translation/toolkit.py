"""Generators of the CycleGAN toolkit (junyanz/pytorch-CycleGAN-and-pix2pix and its heirs): ``latest_net_G*.pth``."""

import re
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ugatit.io.errors import UserError, words_of
from ugatit.systems.base import Direction
from ugatit.systems.cyclegan import CycleGAN, CycleGANConfig
from ugatit.translation.released import STATISTICS

PLACES = (None, "1", "5", "6")  # of convolutions in a block: after a padding layer each, with dropout or without
LAYER = re.compile(r"model\.(\d+)\.(?:conv_block\.(\d+)\.)?(weight|bias)")
OUTSIDE = 6  # convolutions that are in no residual block


def is_toolkit(state: dict[str, Tensor]) -> bool:
    """Whether tensors are called as in a ResNet generator of the toolkit."""
    return "model.1.weight" in state and any(".conv_block." in name for name in state)


def in_order(state: dict[str, Tensor]) -> list[Tensor]:
    """Weights and biases in the order of the layers; the running statistics of old files, which instance norm never
    uses, are passed over.

    Raises:
        ValueError: there is something else; the message is a phrase that says so.
    """
    found = {}
    for name, tensor in state.items():
        if name.rsplit(".", 1)[-1] in STATISTICS:
            continue
        layer = LAYER.fullmatch(name)
        if name.endswith(".filt"):
            raise ValueError("it is CUT's, which samples down and up otherwise")
        if layer is None:
            raise ValueError(f"{name} is of another network")
        if tensor.ndim == 1 and name.endswith("weight"):
            raise ValueError("its norms have weights, as batch norm has")
        if layer[2] not in PLACES:
            raise ValueError("its blocks are padded otherwise than by reflection")
        found[int(layer[1]), int(layer[2] or 0), layer[3] == "bias"] = tensor.float()
    return [tensor for _, tensor in sorted(found.items())]


def config_of(state: dict[str, Tensor], direction: Direction, size: int) -> CycleGANConfig:
    """Settings of one generator as its shapes tell them.

    Raises:
        ValueError, IndexError: it is none.
    """
    tensors = in_order(state)
    width, channels_in = tensors[0].shape[:2]
    channels = channels_in, len(tensors[-1])
    a, b = channels if direction == "a2b" else channels[::-1]
    blocks, odd = divmod(len(tensors) // 2 - OUTSIDE, 2)
    if odd or len(tensors) % 2 or blocks < 1:
        raise ValueError("its layers are not in pairs of weight and bias")
    return CycleGANConfig(
        size=size, channels=a, channels_b=None if a == b else b, width=width, blocks=blocks, only=direction
    )


def import_toolkit(states: dict[Direction, dict[str, Tensor]], path: Path, size: int = 256) -> CycleGAN:
    """One or two generators of the toolkit as our system, which then has as many directions and no discriminators.

    Args:
        states: by the direction that they translate in.
        path: where they are from.
        size: side in pixels of the pictures that they were trained on, which no shape tells.

    Raises:
        UserError: they are others, or two that do not go together.
    """
    try:
        configs = {direction: config_of(state, direction, size) for direction, state in states.items()}
    except (ValueError, IndexError, TypeError) as error:
        raise UserError(not_read(path, str(error))) from None
    config, *others = configs.values()
    if others:
        if any(replace(other, only=config.only) != config for other in others):
            raise UserError("The two generators have other layers or channels: give the two of one training.")
        config = replace(config, only=None, identity_weight=config.identity_weight if config.channels_b is None else 0)
    system = CycleGAN.on_meta(config)
    for direction, state in states.items():
        network = system.get_submodule(f"gen_{direction}")
        try:
            network.load_state_dict(dict(zip(network.state_dict(), in_order(state), strict=True)), assign=True)
        except (RuntimeError, ValueError) as error:
            raise UserError(not_read(path, words_of(error, -1))) from None
    return system


def not_read(path: Path, how: str) -> str:
    """What is said of another generator."""
    return (
        f"The checkpoint {path} is not a ResNet generator with instance norm of the CycleGAN toolkit ({how}): give one."
    )
