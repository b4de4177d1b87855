"""What can be known without a card: training steps on a CUDA device of tensors that have shapes and no numbers.

Such tensors refuse to be mixed with those of other devices, and to tell their numbers, so a step that passes reads
nothing back from the device. Only torch's engine of backward passes asks for a real card: the graph is walked here
instead.
"""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from conftest import least_side, tiny_model
from ugatit.nn.fast.adam import chunks
from ugatit.nn.pretrained import content_network
from ugatit.nn.switch import compile_networks
from ugatit.systems import REGISTRY
from ugatit.systems.base import channels_of
from ugatit.systems.pool import Pool
from ugatit.translation.translator import Translator


def in_order(root):
    """All nodes of a graph of backward functions, each before those that it hands gradients to."""
    found, seen, left = [], set(), [(root, False)]
    while left:
        node, visited = left.pop()
        if visited:
            found.append(node)
        elif node not in seen:
            seen.add(node)
            left += [(node, True), *((child, False) for child, _ in node.next_functions if child is not None)]
    return found[::-1]


def backward(loss, parameters):
    """``loss.backward(inputs=parameters)``, node by node."""
    grads, wanted = {loss.grad_fn: {0: torch.ones_like(loss)}}, {id(p) for p in parameters}
    for node in in_order(loss.grad_fn):
        own = grads.pop(node, {})
        if not own:
            continue
        if hasattr(node, "variable"):
            if id(node.variable) in wanted:
                node.variable.grad = own[0] if node.variable.grad is None else node.variable.grad + own[0]
            continue
        given = [own.get(i) for i in range(len(node._input_metadata))]
        written = getattr(type(node), "_forward_cls", None)  # of a torch.autograd.Function
        made = written.backward(node, *given) if written else node(*given)
        for grad, (child, place) in zip(
            made if isinstance(made, tuple) else (made,), node.next_functions, strict=False
        ):
            if child is not None and grad is not None:
                shape = child._input_metadata[place].shape
                grad = grad if grad.shape == shape else grad.sum_to_size(shape)
                before = grads.setdefault(child, {}).get(place)
                grads[child][place] = grad if before is None else before + grad


@contextmanager
def imagined():
    """Within this block all tensors are without numbers."""
    content_network.cache_clear()
    with FakeTensorMode(allow_non_fake_inputs=False):
        yield
    content_network.cache_clear()


def small(name, **options):
    """A system on a CUDA device."""
    kind = REGISTRY[name]
    if name == "cartoongan":
        options["content_weight"] = 0.2
    with torch.device("cuda"):
        return kind(replace(kind.presets["quick"].model, size=least_side(name), width=4, blocks=1, **options))


SETTINGS = [(name, {}) for name in REGISTRY] + [
    ("ugatit", {"light": False}),
    ("ugatit", {"release": "tensorflow"}),
]


@pytest.mark.parametrize(("name", "options"), SETTINGS)
def test_a_step_on_a_card_mixes_no_devices_and_reads_nothing_back(name, options, monkeypatch):
    """All kinds of steps of a system, each with its updates, optimisers and what follows them."""
    monkeypatch.setattr("ugatit.systems.cartoongan.content_network", features_on_card)
    monkeypatch.setattr(
        Pool, "place_of", lambda pool, number: number % len(pool.images)
    )  # drawn on the CPU, in numbers
    with imagined():
        system = small(name, **options).train()
        optimizers = system.optimizers()
        for clock, _ in system.kinds_of_steps():
            real = [torch.rand(2, c, system.config.size, system.config.size, device="cuda") for c in
                    channels_of(system.config)]  # fmt: skip
            updates = list_of(system, real, clock, optimizers)
            assert updates and all(loss.device.type == "cuda" for loss in updates)


def list_of(system, real, clock, optimizers):
    """The losses of all updates of a step, each of which is made before the next is asked for."""
    losses = []
    for update in system.updates(*real, clock):
        parameters = [p for name in update.optimizers for g in optimizers[name].param_groups for p in g["params"]]
        backward(update.loss, parameters)
        for name in update.optimizers:
            optimizers[name].step()
            optimizers[name].zero_grad()
        system.after_update(update)
        losses += [update.loss, *update.terms.values()]
    return losses


def features_on_card(*_):
    """Instead of a network whose weights are in a file."""
    with torch.device("cuda"):
        return torch.nn.Conv2d(3, 4, 3, 2)


@pytest.mark.parametrize("size", ["model", "keep", "tiles"])
@pytest.mark.parametrize("name", REGISTRY)
def test_translation_on_a_card(name, size, monkeypatch):
    with imagined():
        monkeypatch.setattr("ugatit.translation.translator.find_device", torch.device)
        monkeypatch.setattr(torch.nn.Module, "to", lambda module, _: module)  # it is there
        translator = Translator(small(name), "cuda")
        direction = translator.system.directions[0]
        x = torch.rand(2, 3, 100, 72, device="cuda")
        made = translator.translate(x, direction, size)
        side = translator.side
        assert made.image.shape == ((2, 3, round(side * 100 / 72), side) if size == "model" else x.shape)
        assert made.image.device.type == "cuda"


def test_chunks_are_a_cache_on_a_processor_and_more_on_a_card():
    with imagined():
        for device, count in (("cpu", 256), ("cuda", 16)):
            weight = torch.empty(256, 1 << 20, device=device)
            assert len(list(chunks(weight))) == count


def test_a_number_that_is_read_is_found():
    """The test above can fail."""
    with imagined(), pytest.raises(DataDependentOutputException):
        torch.rand(1, device="cuda").item()


@pytest.mark.parametrize("name", REGISTRY)
def test_what_is_compiled_is_every_network_that_is_called(name, monkeypatch):
    compiled, called = [], []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda part: compiled.append(part))
    system = tiny_model(name)
    before = list(system.state_dict())
    compile_networks(system)
    for part in compiled:
        part.register_forward_pre_hook(lambda part, _: called.append(part))
    real = [torch.rand(2, c, system.config.size, system.config.size) for c in channels_of(system.config)]
    for clock, _ in system.kinds_of_steps():
        for update in system.updates(*real, clock):
            assert update.loss.isfinite()
    assert set(called) == set(compiled) and list(system.state_dict()) == before
