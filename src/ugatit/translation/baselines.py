"""Checkpoints of other methods' own codes: MUNIT's and UNIT's (NVlabs/MUNIT), DRIT's (HsinYingLee/DRIT), CartoonGAN's
released generators as they were converted from Torch (Yijunmaverick/CartoonGAN-Test-Pytorch-Torch).

Their networks are ours in other names, layer by layer, so tensors are taken over in the order of the layers.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ugatit.io.errors import UserError, words_of
from ugatit.nn.norm import EPS
from ugatit.systems.base import System
from ugatit.systems.cartoongan import CartoonGAN, CartoonGANConfig
from ugatit.systems.drit import DRIT, DRITConfig
from ugatit.systems.munit import MUNIT, STYLE, MUNITConfig
from ugatit.systems.unit import UNIT, UNITConfig
from ugatit.translation.released import STATISTICS

State = dict[str, Tensor]
SECOND = ("bias", "beta", "shift")  # of two tensors of a layer; weight, gamma and scale are the first
MIXING = ("conv1", "conv2", "blk1", "blk2")  # layers of DRIT's blocks, in our order
CARTOON_EPS = 1e-9  # of CartoonGAN's norms
DIRECT = "the other variant of DRIT (--concat 1), of which this package has no networks"


def import_baseline(found: Any, path: Path, size: int) -> System | None:
    """What was read from a checkpoint as our system; None if it is of none of these codes.

    Args:
        found: containers of tensors.
        path: where they are from.
        size: side in pixels of the pictures that it was trained on, which no shape tells.

    Raises:
        UserError: it is one, but with other layers than ours.
    """
    if not isinstance(found, dict):
        return None
    kinds: dict[str, tuple[tuple[str, ...], str, Callable[[Any, int], System]]] = {
        "MUNIT": (("a", "b"), "enc_content.model.0.conv.weight", import_munit),
        "UNIT": (("a", "b"), "enc.model.0.conv.weight", import_unit),
        "DRIT": (("enc_c", "enc_a", "gen"), "convA.0.model.1.weight", import_drit),
    }
    for name, (parts, first, read) in kinds.items():
        if all(isinstance(found.get(part), dict) for part in parts) and first in found[parts[0]]:
            return fitting(f"{path} is of {name}'s code", read, found, size)
    if "in13_1.scale" in found:
        return fitting(f"{path} is of CartoonGAN's code", import_cartoongan, found, size)
    return None


def fitting(what: str, read: Callable[[Any, int], System], found: Any, size: int) -> System:
    """``read(found, size)``; what goes wrong in it is told as a checkpoint that does not fit."""
    try:
        system = read(found, size)
        if not all(tensor.isfinite().all() for tensor in system.state_dict().values() if not tensor.is_meta):
            raise ValueError("a weight is no number")
        return system
    except (ValueError, RuntimeError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else words_of(error, -1)
        raise UserError(
            f"The checkpoint {what}, but with other layers than this package has ({reason}): give another."
        ) from None


def in_order(state: State, prefix: str) -> list[Tensor]:
    """The tensors below a name in the order of their layers, in each layer the weight first."""

    def place(name: str) -> tuple:
        parts = name.removeprefix(prefix).split(".")
        numbered = [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts[:-1]]
        return numbered, parts[-1] in SECOND

    names = [name for name in state if name.startswith(prefix) and name.rsplit(".", 1)[-1] not in STATISTICS]
    return [state[name].float() for name in sorted(names, key=place)]


def fill(network: nn.Module, tensors: list[Tensor]) -> None:
    """Give a network on the meta device its tensors, in its own order.

    Raises:
        ValueError, RuntimeError: there are more or fewer, or of other shapes.
    """
    own = network.state_dict()
    if len(own) != len(tensors):
        raise ValueError(f"it has {len(tensors)} tensors where {len(own)} are needed")
    shaped = [tensor.view(want.shape) if tensor.numel() == want.numel() == want.shape[0] else tensor
              for tensor, want in zip(tensors, own.values(), strict=True)]  # fmt: skip
    network.load_state_dict(dict(zip(own, shaped, strict=True)), assign=True)


def count(state: State, pattern: str) -> int:
    """The number of layers that a pattern's group numbers.

    Raises:
        ValueError: there are none.
    """
    numbers = [int(found[1]) for name in state if (found := re.match(pattern, name))]
    if not numbers:
        raise ValueError(f"none is called {pattern.replace(chr(92), '')}")
    return 1 + max(numbers)


# MUNIT and UNIT


def import_munit(found: dict[str, State], size: int) -> MUNIT:
    """``gen_*.pt`` of MUNIT, whose discriminators are in another file."""
    a, b = found["a"], found["b"]
    width, channels = a["enc_content.model.0.conv.weight"].shape[:2]
    hidden, numbers = a["mlp.model.0.fc.weight"].shape
    if numbers != STYLE:
        raise ValueError(f"its styles have {numbers} numbers, not {STYLE}")
    other = b["enc_content.model.0.conv.weight"].shape[1]
    blocks = count(a, r"enc_content\.model\.3\.model\.(\d+)")
    config = MUNITConfig(size=size, channels=channels, channels_b=None if other == channels else other, width=width,
                         blocks=blocks, hidden=hidden)  # fmt: skip
    system = MUNIT.on_meta(config)
    for name, state in (("gen_a", a), ("gen_b", b)):
        fill(system.get_submodule(f"{name}.content"), in_order(state, "enc_content.model."))
        fill(system.get_submodule(f"{name}.style"), in_order(state, "enc_style.model."))
        fill(system.get_submodule(f"{name}.decode"), in_order(state, "mlp.model.") + in_order(state, "dec.model."))
    return system


def import_unit(found: dict[str, State], size: int) -> UNIT:
    """``gen_*.pt`` of UNIT's later code, which is MUNIT's; its discriminators are in another file."""
    a, b = found["a"], found["b"]
    width, channels = a["enc.model.0.conv.weight"].shape[:2]
    other = b["enc.model.0.conv.weight"].shape[1]
    config = UNITConfig(size=size, channels=channels, channels_b=None if other == channels else other, width=width,
                        blocks=count(a, r"enc\.model\.3\.model\.(\d+)"))  # fmt: skip
    system = UNIT.on_meta(config)
    for domain, state in (("a", a), ("b", b)):
        fill(system.get_submodule(f"enc_{domain}"), in_order(state, "enc.model."))
        fill(system.get_submodule(f"dec_{domain}"), in_order(state, "dec.model."))
    return system


# DRIT


def import_drit(found: dict[str, State], size: int) -> DRIT:
    """A checkpoint of DRIT, with its discriminators if they are those of its settings."""
    content, attribute, gen = (found[part] for part in ("enc_c", "enc_a", "gen"))
    if any(name.startswith("dec_share.") for name in gen):
        raise ValueError(f"it is {DIRECT}")
    width, channels = content["convA.0.model.1.weight"].shape[:2]
    other = content["convB.0.model.1.weight"].shape[1]
    config = DRITConfig(size=size, channels=channels, channels_b=None if other == channels else other, width=width,
                        blocks=count(content, r"convA\.(\d+)") - 3)  # fmt: skip
    system = DRIT.on_meta(config)
    fill(system.content.shared, in_order(content, "conv_share."))
    for domain in "ab":
        fill(system.content.get_submodule(domain), in_order(content, f"conv{domain.upper()}."))
        fill(system.get_submodule(f"attribute_{domain}"), in_order(attribute, f"model_{domain}."))
        generator = system.get_submodule(f"gen_{domain}")
        mixing = [f"{number}.{part}" for number in range(1, config.blocks + 2) for part in MIXING]
        parts = [f"mlp{domain.upper()}", *(f"dec{domain.upper()}{part}" for part in (*mixing, config.blocks + 2))]
        fill(generator, [tensor for part in parts for tensor in in_order(gen, f"{part}.")])
    judges = {"disc_a": "disA", "disc_b": "disB", "disc_random_a": "disA2", "disc_random_b": "disB2"}
    for ours, theirs in (judges | {"judge_content": "disContent"}).items():
        tensors = in_order(found.get(theirs, {}), "")
        wanted = [part.shape for part in system.get_submodule(ours).state_dict().values()]
        if [tensor.shape for tensor in tensors] == wanted:  # not with other scales, or spectral norm
            fill(system.get_submodule(ours), tensors)
    return system


# CartoonGAN


def import_cartoongan(state: State, size: int) -> CartoonGAN:
    """A released generator of CartoonGAN, which has no discriminator.

    It takes blue first and red last, which is turned round in its first and last layers. Its norms add 1e-9 to
    variances where ours add 1e-5: maps that come in a hundred times as large make that the same.
    """
    width, blocks = len(state["conv01_1.weight"]), count(state, r"conv(\d+)_1\.") - 4
    system = CartoonGAN.on_meta(CartoonGANConfig(size=size, width=width, blocks=blocks))
    larger = (EPS / CARTOON_EPS) ** 0.5

    def layer(name: str, by: float = 1.0) -> list[Tensor]:
        return [state[f"{name}.weight"].float() * by, state[f"{name}.bias"].float() * by]

    def norm(number: int, place: int = 1) -> list[Tensor]:
        return [state[f"in{number:02d}_{place}.{part}"].float().flatten() for part in ("scale", "shift")]

    tensors = layer("conv01_1", larger) + norm(1)
    for number in (2, 3):
        tensors += layer(f"conv{number:02d}_1") + layer(f"conv{number:02d}_2", larger) + norm(number)
    for number in range(4, 4 + blocks):
        tensors += layer(f"conv{number:02d}_1", larger) + layer(f"conv{number:02d}_2", larger)
        tensors += norm(number) + norm(number, 2)
    for number in (1, 2):
        tensors += layer(f"deconv{number:02d}_1") + layer(f"deconv{number:02d}_2", larger) + norm(3 + blocks + number)
    tensors += layer("deconv03_1")
    tensors[0], tensors[-2], tensors[-1] = tensors[0].flip(1), tensors[-2].flip(0), tensors[-1].flip(0)
    fill(system.gen_a2b, tensors)
    return system
