"""What can be known without a card: training steps on a CUDA device of tensors that have shapes and no numbers.

Such tensors refuse to be mixed with those of other devices, and to tell their numbers, so a step that passes reads
nothing back from the device. Only torch's engine of backward passes asks for a real card: the graph is walked here
instead.
"""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from conftest import least_side, tiny_model
from ugatit.io.errors import UserError
from ugatit.nn.fast.adam import chunks
from ugatit.nn.pretrained import content_network
from ugatit.nn.switch import compile_networks
from ugatit.systems import REGISTRY
from ugatit.systems.base import Clock, channels_of
from ugatit.systems.pool import Pool
from ugatit.training import recorded
from ugatit.training.config import preset_config
from ugatit.training.recorded import in_place, take_from_card
from ugatit.training.trainer import Trainer
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
    monkeypatch.setattr(Pool, "place", lambda _: 0)  # drawn on the CPU, in numbers
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
    monkeypatch.setattr(torch.nn.Module, "compile", lambda part, **_: compiled.append(part))
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


@pytest.mark.parametrize("name", REGISTRY)
def test_networks_are_compiled_whole_and_once_for_each_kind_of_call(name, monkeypatch):
    """What stops the compiler within a network costs minutes at first, and then the speed."""
    with_code = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda part, **o: with_code(part, backend="eager", **o))
    monkeypatch.setattr("ugatit.systems.cartoongan.content_network", lambda *_: torch.nn.Conv2d(3, 4, 3, 2))
    system = tiny_model(name).train().requires_grad_(True)
    compile_networks(system)
    torch._dynamo.reset()
    counters.clear()
    real = [torch.rand(2, c, system.config.size, system.config.size) for c in channels_of(system.config)]
    frames = []
    for _ in range(2):
        for clock, _ in system.kinds_of_steps():
            for update in system.updates(*real, clock):
                update.loss.backward()
        frames.append(dict(counters["frames"]))
    torch._dynamo.reset()
    assert not counters["graph_break"] and frames[0]["ok"] == frames[0]["total"] <= 20
    assert frames[1] == frames[0], "the second time nothing is compiled any more"


# A step as a recording


def run_of(data, tmp_path, name, graph, **options):
    """A run whose steps can be recorded."""
    start = preset_config(name, "quick")
    model = replace(start.model, size=32, width=4, blocks=1)
    run = replace(start, model=model, recipe=replace(start.recipe, steps=20, batch=2), data=data, **options)
    trainer = Trainer(run, tmp_path / f"{name}-{graph}", resume=False)
    trainer.records = graph
    for optimizer in trainer.optimizers.values():
        take_from_card(optimizer)
    trainer.system.train()
    return trainer


def steps_of(trainer, count):
    """The losses of that many steps, of the same pictures each time."""
    side, device = trainer.config.model.size, trainer.accelerator.device
    pictures = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(count):
        real = (torch.rand(2, 2, 3, side, side, generator=pictures) * 2 - 1).to(device)
        losses.append({name: float(value) for name, value in trainer.train_step(*real).items()})
        trainer.step += 1
    return losses


class Graph:
    """Instead of a CUDA graph where there is no card: a recording makes the step, and is played by making another."""

    trainer: Trainer

    def __init__(self):
        self.played, self.generators = 0, []

    def register_generator_state(self, generator):
        self.generators.append(generator)

    def replay(self):
        self.played += 1
        if self.played > 1:
            owner = next(one for one in self.trainer.recorded.values() if one.graph is self)
            made = in_place(owner.step, owner.system)(owner.real_a, owner.real_b)
            owner.scalars.copy_(torch.stack(list(made.values())))


@contextmanager
def recording(graph, pool, capture_error_mode):
    yield


@pytest.fixture
def no_card(monkeypatch):
    """Recordings where there is no card."""
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(recorded, "shared_pool", lambda: None)


@pytest.mark.parametrize("averages", ["float32", "bfloat16"])
def test_recorded_steps_are_those_made_as_usual(averages, data, tmp_path, no_card, monkeypatch):
    as_usual, played = (run_of(data, tmp_path, "ugatit", graph) for graph in (False, True))
    monkeypatch.setattr(Graph, "trainer", played, raising=False)
    for trainer in (as_usual, played):
        trainer.optimizers["gen"].averages = getattr(torch, averages)
    assert steps_of(as_usual, recorded.AS_USUAL + 1) == steps_of(played, recorded.AS_USUAL + 1)
    places = {name: tensor.data_ptr() for name, tensor in played.system.state_dict().items()}
    assert steps_of(as_usual, 3) == steps_of(played, 3)
    (one,) = played.recorded.values()
    assert one.graph.played == 4 and len(one.graph.generators) == (averages == "bfloat16")
    after = played.system.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in as_usual.system.state_dict().items())
    assert {name: tensor.data_ptr() for name, tensor in after.items()} == places


def test_each_kind_of_step_has_a_recording(data, tmp_path, no_card, monkeypatch):
    trainer = run_of(data, tmp_path, "drit", False)
    monkeypatch.setattr(Graph, "trainer", trainer, raising=False)
    assert [trainer.system.kind_of_step(Clock(step, 20)) for step in (0, 1, 2, 3)] == [(0, 1), (1, 1), (2, 1), (0, 1)]
    cartoon = tiny_model("cartoongan")
    assert cartoon.kind_of_step(Clock(0, 20)) != cartoon.kind_of_step(Clock(19, 20))
    assert not tiny_model("cyclegan").recordable and not tiny_model("aggan").recordable


def test_a_step_that_cannot_be_recorded_says_what_helps(data, tmp_path, no_card, monkeypatch):
    def refused(*_, **__):
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "graph", refused)
    trainer = run_of(data, tmp_path, "ugatit", True)
    with pytest.raises(UserError, match=r"not permitted when stream is capturing\): use `graph=False`"):
        steps_of(trainer, recorded.AS_USUAL + 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA card here")
@pytest.mark.parametrize("name", [name for name in REGISTRY if name not in ("cyclegan", "aggan")])
def test_recorded_steps_are_those_made_as_usual_on_a_card(name, data, tmp_path):
    count = 3 * (recorded.AS_USUAL + 3)
    as_usual, played = (steps_of(run_of(data, tmp_path, name, graph), count) for graph in (False, True))
    for one, other in zip(as_usual, played, strict=True):
        assert one == pytest.approx(other, rel=0.05, abs=0.05)  # some of the card's sums differ from run to run
