"""What a trained model is like: what it costs, what its rho chose, where its networks look."""

from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ugatit.io.errors import UserError, package
from ugatit.io.files import write_json, writing
from ugatit.io.sheet import draw_sheet, save_figure
from ugatit.nn.norm import AdaLIN
from ugatit.nn.precision import tf32
from ugatit.systems.base import Direction, System, channels_of
from ugatit.translation.columns import sheet_columns
from ugatit.translation.translator import Translator

FLOAT = 4  # bytes


# What it costs. All is computed on the meta device, where tensors have shapes but no numbers.


class Cost(NamedTuple):
    """Of one translation, or of one training step."""

    multiply_adds: int
    bytes: int


class SavedBytes:
    """Bytes that autograd keeps for backward passes while it is entered: now, and the most so far.

    Args:
        weights: tensors that are there anyway and do not count.
    """

    def __init__(self, weights: list[Tensor]):
        self.now = self.most = 0
        self.held: Counter[int] = Counter()
        self.weights = {storage(weight) for weight in weights}
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda kept: kept.tensor)

    def pack(self, tensor: Tensor) -> "Kept":
        """Called by autograd for each tensor that it saves."""
        self.change(tensor, 1)
        return Kept(tensor.detach(), self)

    def change(self, tensor: Tensor, by: int) -> None:
        """Count a tensor that is saved (1) or let go (-1); several of one storage count once."""
        key = storage(tensor)
        if key in self.weights:
            return
        before = self.held[key] > 0
        self.held[key] += by
        self.now += (int(self.held[key] > 0) - int(before)) * tensor.untyped_storage().nbytes()
        self.most = max(self.most, self.now)


class Kept:
    """A tensor saved for a backward pass, and who counts it."""

    def __init__(self, tensor: Tensor, counter: SavedBytes):
        self.tensor, self.counter = tensor, counter

    def __del__(self) -> None:
        self.counter.change(self.tensor, -1)


def storage(tensor: Tensor) -> int:
    """What is the same for tensors that share memory; meta tensors have no address."""
    return tensor.untyped_storage()._cdata


class WorkingSet(TorchDispatchMode):
    """Most bytes that one operation reads and writes, weights left out."""

    def __init__(self, weights: list[Tensor]):
        super().__init__()
        self.weights, self.most = {storage(weight) for weight in weights}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        tensors = {storage(t): t for t in tree_leaves((args, kwargs, made)) if isinstance(t, Tensor)}
        self.most = max(
            self.most, sum(t.untyped_storage().nbytes() for k, t in tensors.items() if k not in self.weights)
        )
        return made


def translation_cost(system: System, size: int) -> Cost:
    """Of translating one picture of size x size one way: all weights that are loaded, and the largest layer."""
    copy = system.on_meta(system.config).eval().requires_grad_(False)
    x = torch.empty(1, channels_of(copy.config)[copy.directions[0] == "b2a"], size, size, device="meta")
    weights = list(copy.state_dict().values())
    with FlopCounterMode(display=False) as flops, WorkingSet(weights) as working:
        copy.translate(x, copy.directions[0])
    return Cost(flops.get_total_flops() // 2, held_bytes(system) + working.most)


def held_bytes(system: System) -> int:
    """Bytes of the weights that translating needs."""
    return sum(count(system.get_submodule(name)) for name in system.translators) * FLOAT


def training_cost(system: System, batch: int) -> Cost:
    """Of one step at the size the model is trained at: multiply-adds on average over a run; memory of its largest step,
    with weights, Adam's averages, the larger update's gradients, and what the backward passes need, but not what the
    device's libraries take for themselves.
    """
    copy = system.on_meta(system.config).train()
    size = copy.config.size
    real_a, real_b = (torch.empty(batch, c, size, size, device="meta") for c in channels_of(copy.config))
    optimizers = copy.optimizers()
    parameters = {name: [p for group in o.param_groups for p in group["params"]] for name, o in optimizers.items()}
    averages = sum(
        2 * getattr(optimizer, "averages", torch.float32).itemsize * sum(p.numel() for p in parameters[name])
        for name, optimizer in optimizers.items()
    )
    weights = [tensor for values in parameters.values() for tensor in values]
    saved, gradients, operations = SavedBytes(weights), 0, 0.0
    for clock, share in copy.kinds_of_steps():
        with FlopCounterMode(display=False) as flops, saved.hooks:
            for update in copy.updates(real_a, real_b, clock):
                updated = [p for name in update.optimizers for p in parameters[name]]
                update.loss.backward(inputs=updated)
                gradients = max(gradients, sum(p.numel() for p in updated if p.grad is not None))
                for name in update.optimizers:
                    optimizers[name].zero_grad()
        operations += share * flops.get_total_flops() / 2
    held = (sum(weight.numel() for weight in weights) + gradients) * FLOAT + averages
    return Cost(round(operations), held + saved.most)


def count(part: nn.Module) -> int:
    """How many weights a network has."""
    return sum(parameter.numel() for parameter in part.parameters())


def cost_table(system: System, size: int, batch: int) -> tuple[Table, dict[str, Any]]:
    """Weights, multiply-adds and memory as a table for the terminal, and as numbers; of a model that translates one way
    alone, and so is never trained, without the training step."""
    costs = {f"translating a {size} px picture": translation_cost(system, size)}
    numbers = {
        "parameters": {name: count(part) for name, part in system.on_meta(system.config).named_children()},
        "translation": {"size": size, **costs[f"translating a {size} px picture"]._asdict()},
    }
    if not getattr(system.config, "only", None):
        training, side = training_cost(system, batch), system.config.size
        costs[f"a training step, {side} px, batch {batch}"] = training
        numbers["training_step"] = {"size": side, "batch": batch, **training._asdict()}
    table = Table("", "", title=f"{type(system).__name__}, computed")
    for name, weights in numbers["parameters"].items():
        table.add_row(f"weights of {name}", f"{weights:,}")
    for what, cost in costs.items():
        table.add_row(f"multiply-adds, {what}", f"{cost.multiply_adds / 1e9:,.2f} G")
        table.add_row(f"memory, {what}", f"{cost.bytes / 2**20:,.0f} MiB")
    return table, numbers


# What rho chose (section 3.3.2)


def rho_by_layer(system: System) -> dict[str, dict[str, Tensor]]:
    """Every learned rho of the networks that translate: by network, then by layer in order, C values in [0, 1]."""
    return {
        network: {
            name: part.rho.detach().flatten().cpu()
            for name, part in system.get_submodule(network).named_modules()
            if isinstance(part, AdaLIN) and isinstance(part.rho, nn.Parameter)
        }
        for network in system.translators
    }


def draw_rho(rhos: dict[str, dict[str, Tensor]], path: Path) -> None:
    """A picture of rho: one column a layer, one dot a channel, a bar at the mean."""
    figure = package("matplotlib.figure", "evaluate").Figure(figsize=(10, 3.2 * len(rhos)), layout="constrained")
    for axes, (network, layers) in zip(figure.subplots(len(rhos), squeeze=False)[:, 0], rhos.items(), strict=True):
        for place, values in enumerate(layers.values()):
            spread = place + torch.linspace(-0.3, 0.3, len(values))
            axes.scatter(spread, values, s=4, alpha=0.5)
            axes.hlines(values.mean().item(), place - 0.4, place + 0.4, color="black")
        axes.set(title=network, xlim=(-0.6, len(layers) - 0.4), ylim=(-0.05, 1.05), ylabel="rho")
        axes.set_xticks(range(len(layers)), list(layers), rotation=30, ha="right")
        axes.set_yticks([0, 0.5, 1], ["0: layer norm", "0.5", "1: instance norm"])
    save_figure(figure, path)


def rho_table(rhos: dict[str, dict[str, Tensor]]) -> Table:
    """Mean, least and most of each rho."""
    table = Table("network", "layer", "mean rho", "from", "to", title="1 is instance norm, 0 is layer norm")
    for network, layers in rhos.items():
        for layer, values in layers.items():
            table.add_row(network, layer, *[f"{v:.3f}" for v in (values.mean(), values.min(), values.max())])
    return table


# Where it looks (Figures 2 and 5)


@tf32(False)
def attention_columns(translator: Translator, x: Tensor, direction: Direction) -> dict[str, Tensor]:
    """Source, all attention maps and translation as a sheet's columns, for pictures N x channels x side x side."""
    with torch.inference_mode():
        found = translator.system.attention(x.to(translator.device), direction)
    maps = {f"{name} {direction}": seen for name, seen in found.items()}
    return sheet_columns(translator.at_size, x, direction, back=False, maps=maps)


def inspect(
    translator: Translator,
    tests: dict[str, Tensor],
    size: int,
    batch: int,
    out: Path,
    console,
    measured: dict[str, Any],
) -> dict[str, Any]:
    """Print and write all of it; returns what ``inspection.json`` gets.

    Args:
        translator: the model, with its training networks if their attention is wanted.
        tests: pictures to look at by domain, "A" and "B", N x channels x side x side in [-1, 1]; may be empty.
        size: of the picture whose translation is costed.
        batch: of the training step that is costed.
        out: folder for ``inspection.json``, ``rho.png`` and ``attention.png``.
        console: to print on.
        measured: what else is written to ``inspection.json``.

    Raises:
        UserError: ``out`` cannot be written, or the model does not translate that size.
    """
    system = translator.system
    if not system.any_size and size != translator.side:
        raise UserError(f"`size={size}`: this model only translates {translator.side} x {translator.side} pictures.")
    table, numbers = cost_table(system, size, batch)
    numbers |= measured
    console.print(table)
    rhos = rho_by_layer(system)
    numbers["rho"] = {net: {k: v.tolist() for k, v in layers.items()} for net, layers in rhos.items()}
    with writing(out):
        write_json(out / "inspection.json", numbers, indent=2)
        columns: dict[str, Tensor] = {}
        for direction in system.directions:
            if (x := tests.get(direction[0].upper())) is not None:
                columns |= attention_columns(translator, x, direction)
        if columns:
            draw_sheet(columns, out / "attention.png")
        if any(rhos.values()):
            console.print(rho_table(rhos))
            if find_spec("matplotlib"):
                draw_rho(rhos, out / "rho.png")
            else:
                console.print("rho.png, the table as a picture, needs matplotlib: pip install 'ugatit[evaluate]'.")
    return numbers
