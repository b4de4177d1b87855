"""The fast forms of the paper's functions against the plain ones, in double precision."""

import pytest
import torch

from conftest import least_side, tiny_model
from ugatit.nn.blocks import conv3, out_conv, up_conv
from ugatit.nn.cam import attend
from ugatit.nn.fast import FORMS, spectral, winograd
from ugatit.nn.fast.factored import FEW, factors_of, gradient, product, take_factors
from ugatit.nn.norm import layer_instance_norm
from ugatit.nn.spectral import SpectralConv2d, spectral_conv
from ugatit.nn.switch import fast_forms
from ugatit.systems import REGISTRY


def random(*shape):
    return torch.randn(shape, dtype=torch.float64)


def spectral_case(height, channels=3):
    u, v = (torch.nn.functional.normalize(random(n), dim=0) for n in (7, channels * 16))
    weight, bias = random(7, channels, 4, 4), random(7)
    return lambda x, w, b: spectral_conv(x, w, b, 2, u, v, True), (random(2, channels, height, 10), weight, bias)


def channels(n, *rows):
    """A number a channel."""
    return random(*(rows or (1,)), n, 1, 1)


def attention_case(height, width):
    return attend, (random(2, 5, height, width), random(1, 5), random(1, 5), random(5, 10, 1, 1), random(5))


CASES = {
    "AdaLIN": lambda: (layer_instance_norm, (random(3, 5, 3, 4), channels(5), channels(5, 3), channels(5, 3))),
    "LIN": lambda: (layer_instance_norm, (random(2, 4, 7, 5), channels(4), channels(4), channels(4))),
    "instance norm": lambda: (
        lambda x, w, b: layer_instance_norm(x, torch.ones(1, 1, 1, 1), w, b, 0),
        (random(2, 4, 7, 5), channels(4), channels(4)),
    ),
    "attend, many pixels": lambda: attention_case(9, 9),
    "attend, few pixels": lambda: attention_case(3, 4),
    "spectral, many pixels": lambda: spectral_case(60),
    "spectral, few pixels": lambda: spectral_case(8),
    "up": lambda: (up_conv, (random(2, 3, 4, 7), random(4, 3, 3, 3), random(4))),
    "up, one line": lambda: (up_conv, (random(2, 3, 1, 2), random(4, 3, 3, 3), random(4))),
    "conv3": lambda: (conv3, (random(2, 5, 8, 12), random(7, 5, 3, 3), random(7))),
    "out": lambda: (out_conv, (random(2, 16, 9, 11), random(3, 16, 7, 7), random(3))),
    "out, one map": lambda: (out_conv, (random(1, 16, 5, 4), random(1, 16, 7, 7), random(1))),
    "conv3, one tile": lambda: (conv3, (random(1, 3, 4, 4), random(7, 3, 3, 3), random(7))),
}


@pytest.mark.parametrize("case", CASES)
def test_fast_is_plain(case, monkeypatch):
    monkeypatch.setattr(winograd, "CHANNELS", 1)
    monkeypatch.setattr(winograd, "PIXELS", 1)
    function, inputs = CASES[case]()
    inputs = [x.requires_grad_() for x in inputs]
    made, slopes, upstream = {}, {}, None
    for fast in (False, True):
        with fast_forms(fast):
            y = function(*inputs)
        made[fast] = y if isinstance(y, tuple) else (y,)
        upstream = torch.randn_like(made[fast][0]) if upstream is None else upstream
        slopes[fast] = torch.autograd.grad(made[fast][0], inputs, upstream)
    for plain, fast in zip([*made[False], *slopes[False]], [*made[True], *slopes[True]], strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", [case for case in CASES if "few" not in case])  # which `product` gives in full
def test_fast_is_of_the_type_of_plain_under_mixed_precision(case):
    """A bias in float32 makes wide maps of half ones, and of all that follows them."""
    function, inputs = CASES[case]()
    inputs, kinds = [x.float() for x in inputs], []
    vectors = [cell for cell in function.__closure__ or () if isinstance(cell.cell_contents, torch.Tensor)]
    for cell in vectors:
        cell.cell_contents = cell.cell_contents.float()
    for fast in (False, True):
        with fast_forms(fast), torch.autocast("cpu", torch.bfloat16):
            made = function(*inputs)
        kinds.append([part.dtype for part in (made if isinstance(made, tuple) else (made,))])
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize("name", list(REGISTRY))
def test_blocks_are_in_half_precision_under_mixed_precision(name, monkeypatch):
    """Else a step takes the memory of float32: convolutions' outputs, and the sums of residual blocks."""
    content = torch.nn.Conv2d(3, 4, 8, 8)
    monkeypatch.setattr("ugatit.systems.cartoongan.content_network", lambda *_: content)
    system, side = tiny_model(name, **({"release": "tensorflow"} if name == "ugatit" else {})).train(), least_side(name)
    wide = set()

    def note(path, y):
        if torch.is_tensor(y) and y.ndim == 4 and len(y) * y.shape[2] * y.shape[3] > FEW and y.dtype != torch.bfloat16:
            wide.add(path)

    for path, part in system.named_modules():
        part.register_forward_hook(lambda _, __, y, path=path: note(path, y))
    pictures = torch.rand(2, 2, 3, side, side) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        for clock, _ in system.kinds_of_steps():
            for _ in system.updates(*pictures, clock):
                pass
    assert wide == set()


def test_every_fast_form_is_of_a_plain_function():
    plain = {f.__name__: f for f in (attend, conv3, layer_instance_norm, out_conv, spectral_conv, up_conv)} | {
        "product": None
    }
    assert plain.keys() == FORMS.keys()
    for name, (function, _) in FORMS.items():
        assert function.__name__ == name


@pytest.mark.parametrize("name", list(REGISTRY))
def test_whole_steps_are_the_same(name, monkeypatch):
    """Losses and all gradients of every system's steps."""
    content = torch.nn.Conv2d(3, 4, 8, 8).double()
    monkeypatch.setattr("ugatit.systems.cartoongan.content_network", lambda *_: content)
    options = {"ugatit": {"light": False}}.get(name, {})
    side = least_side(name)
    real_a, real_b = torch.rand(2, 2, 3, side, side, dtype=torch.float64) * 2 - 1
    found = {}
    for fast in (False, True):
        system = tiny_model(name, **options).double().train().requires_grad_(True)
        optimizers, values = system.optimizers(), []
        with fast_forms(fast):
            for clock, _ in system.kinds_of_steps():
                torch.manual_seed(0)
                for update in system.updates(real_a, real_b, clock):
                    parameters = [p for n in update.optimizers for g in optimizers[n].param_groups for p in g["params"]]
                    update.loss.backward(inputs=parameters)
                    trained = [p for p in parameters if p.grad is not None or factors_of(p)]
                    values += [update.loss.detach(), *[gradient(p).clone() for p in trained]]
                    for optimizer in optimizers.values():
                        optimizer.zero_grad()
        found[fast] = values
    for plain, fast in zip(found[False], found[True], strict=True):
        assert (fast - plain).norm() <= 1e-7 * plain.norm() + 1e-9


def test_few_pixels_leave_their_gradient_in_factors_of_who_takes_them(monkeypatch):
    conv, x = SpectralConv2d(3, 8, 4, 1).double().eval(), random(2, 3, 5, 5)
    slopes = []
    for few in (0, 1000):
        monkeypatch.setattr(spectral, "FEW", few)
        take_factors(conv.weight)
        conv(x).sin().sum().backward()
        assert (conv.weight.grad is None) == (few > 0)
        slopes.append(gradient(conv.weight).clone())
        conv.weight.grad = None
    torch.testing.assert_close(*slopes)


def test_winograd_s_rounding():
    x, weight = random(3, 64, 16, 16), random(7, 64, 3, 3)
    with fast_forms(False):
        exact = conv3(x, weight, None)
    single = winograd.conv3(x.float(), weight.float(), None)
    assert (single - exact).norm() < 1e-5 * exact.norm()


def test_the_switch_is_put_back():
    with pytest.raises(ZeroDivisionError), fast_forms(False):
        _ = 1 / 0
    x, one = random(1, 2, 3, 3).requires_grad_(), torch.ones(1, 2, 1, 1)
    assert "LayerInstanceNorm" in layer_instance_norm(x, one, one, one).grad_fn.name()


@pytest.mark.parametrize("kind", ["norm", "convolution", "product"])
def test_a_gradient_of_a_gradient_is_right_or_refused(kind):
    """A gradient penalty through a hand-written gradient would be another number, in silence."""
    x = random(2, 8, 8, 8).requires_grad_()
    if kind == "norm":
        one = torch.ones(1, 8, 1, 1, dtype=torch.float64, requires_grad=True)
        y = layer_instance_norm(x, 0.5 * one, one, one)
    elif kind == "convolution":
        y = winograd.conv3(x, random(8, 8, 3, 3).requires_grad_(), None)
    else:
        weight = random(4, 512).requires_grad_()
        take_factors(weight)
        y = product(x.flatten(1), weight)
    (grad,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.square().sum().backward()


def test_the_plain_forms_can_be_differentiated_twice():
    x, one = random(2, 3, 4, 4).requires_grad_(), torch.ones(1, 3, 1, 1, dtype=torch.float64)
    with fast_forms(False):
        assert torch.autograd.gradgradcheck(lambda x: layer_instance_norm(x, 0.3 * one, one, one), x)


def test_a_compiler_gets_the_plain_forms_as_one_graph():
    """With a back end that computes what was traced, forwards and backwards."""
    system = tiny_model(light=True).train().requires_grad_(True)
    x, found = torch.rand(1, 3, 32, 32) * 2 - 1, []
    for network in (system.gen_a2b, torch.compile(system.gen_a2b, fullgraph=True, backend="aot_eager")):
        made = network(x)
        made.image.square().mean().backward()
        found.append([made.image.detach(), *[p.grad for p in system.gen_a2b.parameters() if p.grad is not None]])
        system.zero_grad()
    for eager, compiled in zip(*found, strict=True):
        assert (eager - compiled).norm() <= 1e-4 * eager.norm() + 1e-7
