from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from imtrans.methods import optim
from imtrans.methods.loss_scale import scale_losses, scaler_of, without_scale
from imtrans.methods.optimizer_state import learning_rates, load_state, make_capturable, set_learning_rates, state_of

CPU = torch.device("cpu")


def trained(optimizer_of, steps=3, scaled=False):
    torch.manual_seed(0)
    layer = nn.Linear(3, 1)
    optimizer = optimizer_of(layer.parameters())
    if scaled:
        scale_losses({"one": optimizer}, CPU)
    for i in range(steps):
        optim.step(optimizer, (layer(torch.full((1, 3), float(i + 1))) - 2).square().sum())
    return layer, optimizer


@pytest.mark.parametrize("fused", [True, False])
def test_a_scaled_loss_gives_the_same_step(fused):
    plain, _ = trained(lambda p: Adam(p, lr=0.1, fused=fused))
    scaled, optimizer = trained(lambda p: Adam(p, lr=0.1, fused=fused), scaled=True)
    assert scaler_of(optimizer).is_enabled()
    assert torch.allclose(scaled.weight, plain.weight, atol=1e-6)


@pytest.mark.parametrize("fused", [True, False])
def test_a_gradient_that_overflows_is_left_out_and_the_scale_falls(fused):
    layer, optimizer = trained(lambda p: Adam(p, lr=0.1, fused=fused), scaled=True)
    before, scale = layer.weight.clone(), scaler_of(optimizer).get_scale()
    optim.step(optimizer, layer(torch.full((1, 3), float("inf"))).sum())
    assert torch.equal(layer.weight, before)
    assert scaler_of(optimizer).get_scale() == scale / 2


def test_the_scale_recovers_by_itself():
    """It falls until the gradients fit, and rises again after 2000 steps in which they did."""
    layer, optimizer = trained(lambda p: Adam(p, lr=1e-3), scaled=True)
    scaler, source = scaler_of(optimizer), torch.full((1, 3), 2e34)
    falling = []
    while not falling or scaler.get_scale() < falling[-1]:
        falling.append(scaler.get_scale())
        optim.step(optimizer, layer(source).sum())  # 65536 times 2e34 is more than a float holds
    assert len(falling) > 2
    assert layer.weight.isfinite().all()
    for _ in range(2001):
        optim.step(optimizer, layer(torch.ones(1, 3)).square().sum())
    assert scaler.get_scale() == 2 * falling[-1]
    assert layer.weight.isfinite().all()


def test_a_gradient_that_overflows_at_every_scale_is_noticed():
    layer, optimizer = trained(lambda p: Adam(p, lr=1e-3), scaled=True)
    optimizers = {"other": Adam([nn.Parameter(torch.ones(1))]), "one": optimizer}
    for overflows in range(34):
        assert (without_scale(optimizers) == "one") == (overflows > 32)
        optim.step(optimizer, layer(torch.full((1, 3), float("nan"))).sum())
    assert layer.weight.isfinite().all()


def test_the_scale_is_part_of_the_state():
    layer, optimizer = trained(lambda p: Adam(p, lr=0.1), scaled=True)
    optim.step(optimizer, layer(torch.full((1, 3), float("inf"))).sum())
    _, other = trained(lambda p: Adam(p, lr=0.1), scaled=True)
    load_state(other, deepcopy(state_of(optimizer)))
    assert scaler_of(other).get_scale() == scaler_of(optimizer).get_scale()
    _, unscaled = trained(lambda p: Adam(p, lr=0.1))
    load_state(unscaled, deepcopy(state_of(optimizer)))
    assert "scaler" not in state_of(unscaled)


def test_a_state_is_that_of_the_training_not_of_the_machine():
    """From a card, with learning_rates and counters in tensors, to a CPU, and back."""
    card = Adam([nn.Parameter(torch.ones(2))], lr=0.1, fused=True)
    make_capturable({"one": card}, CPU)
    card.param_groups[0]["params"][0].grad = torch.ones(2)
    card.step()
    plain = Adam([nn.Parameter(torch.ones(2))], lr=0.3)
    load_state(plain, state_of(card))
    (group,) = plain.param_groups
    assert (group["lr"], group["capturable"], group["fused"]) == (pytest.approx(0.1), False, None)
    assert isinstance(group["lr"], float)
    plain.param_groups[0]["params"][0].grad = torch.ones(2)
    plain.step()

    again = Adam([nn.Parameter(torch.ones(2))], lr=0.2, fused=True)
    make_capturable({"one": again}, CPU)
    load_state(again, state_of(plain))
    (group,) = again.param_groups
    assert group["capturable"]
    assert group["lr"].item() == pytest.approx(0.1)
    (state,) = again.state.values()
    assert state["step"].item() == 2


def test_a_state_of_other_groups_is_refused():
    optimizer = SGD([nn.Parameter(torch.ones(1))], lr=0.1)
    with pytest.raises(ValueError, match="0 parameter groups instead of 1"):
        load_state(optimizer, {"state": {}, "param_groups": []})


def test_rates_are_set_group_by_group():
    first, second = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizers = {"one": SGD([{"params": [first]}, {"params": [second], "lr": 0.5}], lr=1.0)}
    base = learning_rates(optimizers)
    set_learning_rates(optimizers, base, 0.5)
    assert base == [[1.0, 0.5]]
    assert learning_rates(optimizers) == [[0.5, 0.25]]
