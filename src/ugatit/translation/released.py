"""Checkpoints of the authors' PyTorch code: read them, and repeat their training step with our networks."""

import math
import re
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from ugatit.io.errors import UserError, first_problem, words_of
from ugatit.io.files import read_torch
from ugatit.io.terminal import say
from ugatit.nn.fast.factored import gradient
from ugatit.systems.base import Clock
from ugatit.systems.ugatit import UGATIT, UGATITConfig
from ugatit.translation.wrapped import unwrapped

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
NETWORKS = {
    "genA2B": "gen_a2b",
    "genB2A": "gen_b2a",
    "disGA": "disc_global_a",
    "disGB": "disc_global_b",
    "disLA": "disc_local_a",
    "disLB": "disc_local_b",
}
GENERATORS = ("genA2B", "genB2A")
JUDGES = NETWORKS.keys() - GENERATORS
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of norms that normalise each picture by itself


def generator_names(blocks: int) -> dict[str, str]:
    """Parameter names of a released generator with that many blocks, and ours."""
    names = {f"DownBlock.{4 * i + 1}.weight": f"down.{i}.0.weight" for i in range(3)}
    names |= {"gap_fc.weight": "cam.avg_fc.weight", "gmp_fc.weight": "cam.max_fc.weight"}
    names |= {f"conv1x1.{part}": f"cam.conv.{part}" for part in ("weight", "bias")}
    names |= {"FC.0.weight": "mlp.0.weight", "FC.2.weight": "mlp.2.weight"}
    names |= {"gamma.weight": "gamma.weight", "beta.weight": "beta.weight"}
    for i in range(blocks):
        for k in (1, 2):
            names[f"DownBlock.{12 + i}.conv_block.{4 * k - 3}.weight"] = f"encoder.{i}.conv{k}.weight"
            names[f"UpBlock1_{i + 1}.conv{k}.weight"] = f"decoder.{i}.conv{k}.weight"
            names[f"UpBlock1_{i + 1}.norm{k}.rho"] = f"decoder.{i}.norm{k}.rho"
    for i in range(2):
        names[f"UpBlock2.{5 * i + 2}.weight"] = f"up.{i}.conv.weight"
        names |= {f"UpBlock2.{5 * i + 3}.{part}": f"up.{i}.norm.{part}" for part in ("rho", "gamma", "beta")}
    return names | {"UpBlock2.11.weight": "out.0.weight"}


def discriminator_names(convolutions: int) -> dict[str, str]:
    """Names of a released discriminator's tensors with that many convolutions before its CAM, and ours."""
    spectral = {"weight_orig": "weight", "weight_u": "u", "weight_v": "v"}
    names = {"gap_fc.weight_orig": "cam.avg_fc.weight", "gmp_fc.weight_orig": "cam.max_fc.weight"}
    names |= {f"conv1x1.{part}": f"cam.conv.{part}" for part in ("weight", "bias")}
    names |= {f"conv.{theirs}": f"classifier.{ours}" for theirs, ours in spectral.items()}
    for i in range(convolutions):
        parts = spectral | {"bias": "bias"}
        names |= {f"model.{3 * i + 1}.{theirs}": f"encoder.{2 * i}.{ours}" for theirs, ours in parts.items()}
    return names


def is_released(found: Any) -> bool:
    """Whether a checkpoint is called like one of the authors' code, with a generator at least."""
    return isinstance(found, dict) and any(isinstance(found.get(name), dict) for name in GENERATORS)


def released_in(found: Any) -> dict[str, Any] | None:
    """The networks of the authors' code in a checkpoint, which others keep beside what else they save; None if there
    are none."""
    inside = found.values() if isinstance(found, dict) else ()
    return next((part for part in (found, *inside) if is_released(part)), None)


def is_generator(found: Any) -> bool:
    """Whether a checkpoint is the state of one generator of the authors' code alone."""
    return isinstance(found, dict) and "DownBlock.1.weight" in found


def weights_of(found: dict[str, Any]) -> dict[str, dict[str, Tensor]]:
    """State dicts of a released checkpoint by network: one generator or both, and the discriminators if all are whole.

    Raises:
        ValueError: something in a generator is no weight; the message is a phrase that says what.
    """
    spoilt = {name: no_weight_of(found[name]) for name in NETWORKS if isinstance(found.get(name), dict)}
    for name in GENERATORS:
        if spoilt.get(name):
            raise ValueError(f"is damaged ({name}.{spoilt[name]} is no weight)")
    whole = spoilt.keys() == NETWORKS.keys() and not any(spoilt.values())
    return {name: found[name] for name in spoilt if whole or name in GENERATORS}


def no_weight_of(state: dict[Any, Any]) -> str | None:
    """The name of what is no weight in a state dict; None if all are."""
    for name, tensor in state.items():
        if str(name).endswith(STATISTICS):
            continue
        right = isinstance(name, str) and isinstance(tensor, Tensor) and tensor.dtype in FLOATS
        if not right or not tensor.isfinite().all():
            return str(name)
    return None


class VariantError(ValueError):
    """The networks are not quite the authors'; the message is a phrase that says how."""


def side_of(pixels: int) -> int:
    """The side in pixels of a full model's pictures, whose flattened maps have so many pixels.

    Raises:
        VariantError: they were not square.
    """
    if math.isqrt(pixels) ** 2 != pixels:
        raise VariantError("its pictures were not square")
    return 4 * math.isqrt(pixels)


def released_config(states: dict[str, dict[str, Tensor]], size: int) -> UGATITConfig:
    """Settings of the networks as their shapes tell them.

    Args:
        states: from `weights_of`.
        size: of a light model's pictures, which no shape tells.
    """
    one_way = None if all(name in states for name in GENERATORS) else next(iter(states))
    gen = states[one_way or "genA2B"]
    width, channels = gen["DownBlock.1.weight"].shape[:2]
    blocks = sum(bool(re.fullmatch(r"UpBlock1_\d+\.conv1\.weight", name)) for name in gen)
    pixels = gen["FC.0.weight"].shape[1] // (4 * width)
    light = pixels == 1
    settings = {
        "size": size if light else side_of(pixels),
        "channels": channels,
        "width": width,
        "blocks": blocks,
        "light": light,
        "rho_residual": 0.9,
        "only": one_way and NETWORKS[one_way].removeprefix("gen_"),
    }
    return TypeAdapter(UGATITConfig).validate_python(settings)


def import_released(path: str | Path, size: int = 256) -> UGATIT:
    """Turn a released checkpoint into our system.

    Args:
        path: ``*_params_*.pt``, a dict of the state dicts ``genA2B genB2A disGA disGB disLA disLB``, or of the first
            two or one of them; without the others our system's discriminators stay on the meta device.
        size: side in pixels of the pictures a light model was trained on; a full model's is found in the file.

    Raises:
        UserError: the file is damaged or holds something else.
    """
    try:
        found = unwrapped(read_torch(path), NETWORKS)
    except ValueError as error:
        raise UserError(f"The checkpoint {path} {error}: check the path, or get the file again.") from None
    if not is_released(found):
        missing = [n for n in NETWORKS if not (isinstance(found, dict) and isinstance(found.get(n), dict))]
        raise UserError(
            f"The checkpoint {path} lacks {', '.join(missing)}: give a *_params_*.pt file of the authors' code."
        )
    return from_released(found, path, size)


def from_released(found: dict[str, Any], path: str | Path, size: int) -> UGATIT:
    """`import_released` of what was read from ``path``."""
    try:
        states = weights_of(found)
    except ValueError as error:
        raise UserError(f"The checkpoint {path} {error}: get it again.") from None
    try:
        config = released_config(states, size)
    except ValidationError as error:
        raise UserError(f"The checkpoint {path} does not fit U-GAT-IT: {first_problem(error)}.") from None
    except KeyError as error:
        raise UserError(
            f"The checkpoint {path} is not of the authors' networks: it lacks {error}: give a *_params_*.pt file of "
            "their code."
        ) from None
    except VariantError as error:
        raise UserError(variant(path, str(error))) from None
    except (IndexError, ValueError, ZeroDivisionError):
        raise UserError(
            f"The checkpoint {path} is not of the authors' networks (a generator's tensors have other shapes): "
            "give a *_params_*.pt file of their code."
        ) from None
    system = UGATIT.on_meta(config)
    left = "one is missing or damaged" if len(states) <= 2 and any(name in found for name in JUDGES) else ""
    for theirs, state in states.items():
        network = system.get_submodule(NETWORKS[theirs])
        names = released_names(system, NETWORKS[theirs])
        further = [name for name in state if name not in names and not name.endswith(STATISTICS)]
        if further and theirs in GENERATORS:  # discriminators have vectors of layers whose spectral norm is never used
            raise UserError(variant(path, f"{theirs} has {further[0]} too"))
        try:
            network.load_state_dict(
                {names[name]: tensor.float() for name, tensor in state.items() if name in names}, assign=True
            )
        except RuntimeError as error:
            if theirs in JUDGES:
                left = words_of(error, 1)
                break
            raise UserError(
                f"The checkpoint {path} does not fit the authors' networks ({words_of(error, 1)}): it is of a variant, "
                "which cannot be imported."
            ) from None
    if left:
        say(f"The discriminators of {path} are left out ({left}).", "yellow")
    return system


def variant(path: str | Path, how: str) -> str:
    """What is said of a checkpoint whose networks are not quite the authors'."""
    return f"The checkpoint {path} is of a variant of the authors' networks, as {how}: it cannot be imported."


def released_names(system: UGATIT, network: str) -> dict[str, str]:
    """Released names of one of our networks' tensors, and ours within it."""
    if network.startswith("gen"):
        return generator_names(system.config.blocks)
    return discriminator_names(len(getattr(system, network).encoder) // 2)


def record_step(
    path: str | Path, real_a: Tensor, real_b: Tensor, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    """Load a released checkpoint, run every network once and make one training step, all with our code.

    The step has the authors' settings (weights 1, 10, 10, 1000; Adam 1e-4, betas 0.5 and 0.999, decay 1e-4).

    Args:
        path: as for `import_released`.
        real_a, real_b: one batch of each domain, N x channels x size x size in [-1, 1].
        dtype: of the arithmetic. In float32 a unit that rounds to the other side of its ReLU moves some small gradients
            by several thousandths of their norm, on one machine and not on another; in float64 only the other code's
            rounding is left in a comparison.

    Returns:
        float32 tensors under the released names, NET being genA2B, genB2A, disGA, disGB, disLA or disLB:

        - ``out/NET(real_A).output``, ``.cam_logit``, ``.heatmap``: a pass in evaluation mode before the step (each
          network on its own domain's pictures);
        - ``loss/d_adv_GA``, ``d_cam_GA``, ..., ``g_adv_GA``, ``g_advcam_GA``, ..., ``g_cycle_A``, ``g_identity_A``,
          ``g_cam_A``, ...: every term, unweighted, and the weighted ``d_total``, ``g_total``;
        - ``grad_d/NET.PARAM``, ``grad_g/NET.PARAM``: gradients of the totals, the generators' taken after the
          discriminators' step;
        - ``after/NET.PARAM``: the generators' parameters after their step and the clipping of rho.

    Raises:
        UserError: it is no such checkpoint, lacks discriminators, or is of pictures of another size.
    """
    system = import_released(path, size=real_a.shape[-1])
    if any(parameter.is_meta for parameter in system.parameters()):
        raise UserError(f"{path} lacks networks that a training step needs: give a checkpoint with discriminators.")
    if real_a.shape[-1] != system.config.size:
        raise UserError(
            f"`real_a` has a side of {real_a.shape[-1]}, and this model's is {system.config.size}: resize it."
        )
    system = system.to(dtype)
    real_a, real_b = real_a.to(dtype), real_b.to(dtype)
    record = record_outputs(system.eval(), real_a, real_b)
    system.train()
    optimizers = system.optimizers()
    clock = Clock(0, 2)
    for update in system.updates(real_a, real_b, clock):
        (kind,) = update.optimizers
        update.loss.backward(inputs=[p for g in optimizers[kind].param_groups for p in g["params"]])
        record[f"loss/{kind[0]}_total"] = update.loss.detach()
        record |= {f"loss/{released_term(name)}": term.detach() for name, term in update.terms.items()}
        record |= by_released_name(system, kind, f"grad_{kind[0]}", gradient)
        optimizers[kind].step()
        optimizers[kind].zero_grad()
        system.after_update(update)
    record |= by_released_name(system, "gen", "after", lambda p: p.detach())
    return {name: value.float() for name, value in record.items()}


@torch.no_grad()
def record_outputs(system: UGATIT, real_a: Tensor, real_b: Tensor) -> dict[str, Tensor]:
    """Outputs of every network on its own domain's pictures."""
    record: dict[str, Tensor] = {}
    for theirs, ours in NETWORKS.items():
        side = theirs[3] if theirs.startswith("gen") else theirs[-1]  # the domain it looks at
        made = system.get_submodule(ours)({"A": real_a, "B": real_b}[side])
        record |= {
            f"out/{theirs}(real_{side}).{part}": t
            for part, t in zip(("output", "cam_logit", "heatmap"), made, strict=True)
        }
    return record


def released_term(name: str) -> str:
    """Our name of a loss term as the recorded numbers have it: gen/adv_cam_global_a is g_advcam_GA."""
    network, term = name.split("/")
    if term in ("cam_a2b", "cam_b2a"):  # theirs is named after the domain it makes
        return f"g_cam_{term[-1].upper()}"
    *words, domain = term.split("_")
    scale = {"global": "G", "local": "L"}.get(words[-1], "")
    kind = "".join(words[:-1] if scale else words)
    return f"{network[0]}_{kind}_{scale}{domain.upper()}"


def by_released_name(system: UGATIT, kind: str, prefix: str, value: Any) -> dict[str, Tensor]:
    """``value(parameter)`` of all generators ("gen") or discriminators ("disc"), by released name."""
    record: dict[str, Tensor] = {}
    for theirs, ours in NETWORKS.items():
        if not ours.startswith(kind):
            continue
        parameters = dict(system.get_submodule(ours).named_parameters())
        for name, renamed in released_names(system, ours).items():
            if renamed in parameters:
                record[f"{prefix}/{theirs}.{name}"] = value(parameters[renamed]).clone()
    return record
