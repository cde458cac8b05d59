import pytest
import torch
from tape import Operations

from imtrans.training.loss_meter import LossMeter


def test_means_since_the_last_reset():
    meter = LossMeter()
    for step, value in enumerate((1.0, 2.0, 6.0)):
        meter.add({"a": torch.tensor(value), "b": torch.tensor(-value)}, step)
    assert meter.means() == {"a": 3.0, "b": -3.0}
    assert meter.first_non_finite() is None
    assert meter.reset() > 0
    meter.add({"a": torch.tensor(5.0)}, 4)
    assert meter.means() == {"a": 5.0}


def test_adding_reads_nothing_and_changes_no_loss(monkeypatch):
    def refuse(*args):
        raise AssertionError("a tensor's value was read")

    loss, meter = torch.tensor(1.0), LossMeter()
    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "__bool__", "__int__", "__float__", "cpu", "numpy"):
            patch.setattr(torch.Tensor, name, refuse)
        for step in range(3):
            meter.add({"a": loss}, step)
    assert loss.item() == 1
    assert meter.means() == {"a": 1.0}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_loss_that_was_the_first_to_be_not_finite_is_named_with_its_step(value):
    meter, fine, bad = LossMeter(), torch.tensor(1.0), torch.tensor(value)
    assert meter.first_non_finite() is None
    for step, losses in enumerate([(fine, fine), (fine, bad), (bad, bad), (bad, fine)], start=7):
        meter.add(dict(zip("ab", losses, strict=True)), step)
    assert meter.first_non_finite() == ("b", 8)
    meter.reset()
    assert meter.first_non_finite() is None


def test_its_state_goes_on():
    meter, other = LossMeter(), LossMeter()
    meter.add({"a": torch.tensor(1.0)}, 1)
    other.load_state_dict(meter.state_dict(), torch.device("cpu"))
    for each in (meter, other):
        each.add({"a": torch.tensor(4.0)}, 2)
    assert other.means() == meter.means() == {"a": 2.5}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_in_half_precision_are_summed_in_float32(dtype):
    meter = LossMeter()
    for step in range(500):
        meter.add({"a": torch.tensor(1.0, dtype=dtype)}, step)
    assert meter.means() == {"a": 1.0}


def test_the_sums_are_those_of_one_addition_after_the_other():
    meter, sums = LossMeter(), torch.zeros(3)
    for step in range(100):
        values = torch.rand(3)
        meter.add(dict(zip("abc", values.unbind(), strict=True)), step)
        sums = sums + values
    assert torch.equal(torch.stack([*meter.sums.values()]), sums)
    assert meter.means() == {name: float(total) / 100 for name, total in zip("abc", sums, strict=True)}


def test_a_step_of_many_losses_launches_as_few_kernels_as_one_of_one():
    counts = []
    for number in (1, 8):
        meter, losses = LossMeter(), {str(i): torch.tensor(1.0) for i in range(number)}
        meter.add(losses, 1)
        with Operations() as operations:
            meter.add(losses, 2)
        counts.append(operations.count)
    assert counts == [5, 5]


def test_a_loss_of_some_steps_alone():
    meter = LossMeter()
    for step, losses in enumerate([{"a": 1.0}, {"a": 1.0, "b": 4.0}, {}, {"a": float("inf")}], start=5):
        meter.add({name: torch.tensor(value) for name, value in losses.items()}, step)
    assert meter.means() == {"a": float("inf"), "b": 1.0}
    assert meter.first_non_finite() == ("a", 8)


def test_a_state_of_before_may_hold_half_precision():
    meter = LossMeter()
    meter.load_state_dict({"sums": {"a": torch.tensor(3.0, dtype=torch.bfloat16)}, "logged": 1}, torch.device("cpu"))
    meter.add({"a": torch.tensor(1.0)}, 2)
    assert meter.means() == {"a": 2.0}
    assert meter.sums["a"].dtype == torch.float32
