"""Gradients in factors and the optimiser that uses them, against torch's own."""

import pytest
import torch
from torch import nn

from ugatit.nn.fast import adam
from ugatit.nn.fast.adam import ChunkedAdam, rounded_at_random
from ugatit.nn.fast.factored import factors_of, gradient, take_factors
from ugatit.nn.linear import LargeLinear
from ugatit.training.checkpoint import pack_optimizers, unpack_optimizers

SETTINGS = {"lr": 1e-2, "betas": (0.5, 0.999), "weight_decay": 1e-2}


def train(linear: nn.Linear, optimizer: torch.optim.Optimizer, steps: int) -> None:
    torch.manual_seed(1)
    for pair in torch.randn(steps, 2, 3, 40):
        for x in pair:  # two passes into one gradient
            linear(x).sin().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def pair() -> tuple[LargeLinear, nn.Linear]:
    torch.manual_seed(0)
    factored, plain = LargeLinear(40, 10), nn.Linear(40, 10, bias=False)
    take_factors(factored.weight)
    plain.load_state_dict(factored.state_dict())
    return factored, plain


def test_averages_in_bfloat16_of_rows_that_are_longer_than_a_part(monkeypatch):
    monkeypatch.setattr(adam, "CHUNK", 16)
    weights = [nn.Parameter(torch.ones(2, 4)), nn.Parameter(torch.ones(3, 40))]
    optimizer = ChunkedAdam(weights, averages="bfloat16", **SETTINGS)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    assert all(weight.detach().unique().numel() == 1 and weight.detach()[0, 0] < 1 for weight in weights)


def test_the_factors_are_the_gradient():
    factored, plain = pair()
    x = torch.randn(5, 40, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    factored(x).sin().sum().backward()
    plain(y).sin().sum().backward()
    assert factored.weight.grad is None
    torch.testing.assert_close(gradient(factored.weight), plain.weight.grad)
    torch.testing.assert_close(gradient(factored.weight, slice(2, 4)), plain.weight.grad[2:4])
    torch.testing.assert_close(x.grad, y.grad)


def test_nothing_is_kept_where_no_gradient_is_wanted():
    factored, _ = pair()
    with torch.no_grad():
        factored(torch.randn(5, 40))
    factored.requires_grad_(False)
    factored(torch.randn(5, 40, requires_grad=True)).sum().backward()
    assert not factors_of(factored.weight)


def test_other_optimisers_get_whole_gradients():
    layer, plain = LargeLinear(40, 10), nn.Linear(40, 10, bias=False)
    plain.load_state_dict(layer.state_dict())
    for part in (layer, plain):
        train(part, torch.optim.SGD(part.parameters(), 0.1), 3)
    torch.testing.assert_close(layer.weight, plain.weight)


@pytest.mark.parametrize("chunk", [1, 130, 1 << 20])
def test_it_is_torch_s_adam(chunk, monkeypatch):
    monkeypatch.setattr(adam, "CHUNK", chunk)
    factored, plain = pair()
    train(factored, ChunkedAdam(factored.parameters(), **SETTINGS), 20)
    train(plain, torch.optim.Adam(plain.parameters(), **SETTINGS), 20)
    torch.testing.assert_close(factored.weight, plain.weight, rtol=1e-5, atol=1e-6)


def test_bfloat16_averages_stay_close_and_resume_exactly(monkeypatch):
    monkeypatch.setattr(adam, "CHUNK", 130)
    factored, plain = pair()
    optimizer = ChunkedAdam(factored.parameters(), averages="bfloat16", **SETTINGS)
    train(factored, optimizer, 20)
    train(plain, torch.optim.Adam(plain.parameters(), **SETTINGS), 20)
    assert optimizer.state[factored.weight]["exp_avg_sq"].dtype == torch.bfloat16
    start, _ = pair()
    moved, wanted = factored.weight - start.weight, plain.weight - start.weight
    assert (moved - wanted).norm() < 0.05 * wanted.norm()

    other, _ = pair()
    other.load_state_dict(factored.state_dict())
    resumed = ChunkedAdam(other.parameters(), averages="bfloat16", **SETTINGS)
    saved = {name: tensor.clone() for name, tensor in pack_optimizers({"gen": optimizer}).items()}
    unpack_optimizers({"gen": resumed}, saved)
    train(factored, optimizer, 3)
    train(other, resumed, 3)
    assert (factored.weight == other.weight).all()


def test_rounding_is_right_on_average():
    torch.manual_seed(0)
    x = torch.full((200_000,), 1.001)  # bfloat16 has 1 and 1.0078125
    rounded = rounded_at_random(x, torch.randint(1 << 16, x.shape, dtype=torch.int32))
    assert set(rounded.tolist()) == {1.0, 1.0078125} and (rounded == rounded.bfloat16()).all()
    assert abs(rounded.double().mean().item() - 1.001) < 5e-5


def test_an_overflow_of_half_precision_skips_the_step():
    factored, _ = pair()
    before = factored.weight.detach().clone()
    optimizer = ChunkedAdam(factored.parameters(), **SETTINGS)
    factored(torch.randn(3, 40)).sum().backward()
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(2.0), torch.tensor(1.0)  # as a gradient scaler sets them
    optimizer.step()
    assert (factored.weight == before).all()


def test_a_scalar_is_a_weight_of_one_row():
    plain, ours = (nn.Parameter(torch.tensor(1.5)) for _ in range(2))
    first, second = torch.optim.Adam([plain], **SETTINGS), ChunkedAdam([ours], **SETTINGS)
    half = nn.Parameter(torch.tensor(1.5))
    third = ChunkedAdam([half], **SETTINGS, averages="bfloat16")
    for _ in range(3):
        for weight, optimizer in ((plain, first), (ours, second), (half, third)):
            weight.sin().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert ours.item() == pytest.approx(plain.item(), abs=1e-6) and half.item() == pytest.approx(plain.item(), abs=1e-3)
