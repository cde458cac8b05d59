import pytest
import torch

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
