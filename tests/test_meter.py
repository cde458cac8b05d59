import pytest
import torch

from imtrans.errors import TrainingError
from imtrans.meter import Meter


def test_means_since_the_last_restart():
    meter = Meter()
    for value in (1.0, 2.0, 6.0):
        meter.add({"a": torch.tensor(value), "b": torch.tensor(-value)})
    assert meter.means(3) == {"a": 3.0, "b": -3.0}
    assert meter.restart() > 0
    meter.add({"a": torch.tensor(5.0)})
    assert meter.means(4) == {"a": 5.0}


def test_adding_reads_nothing_and_changes_no_loss(monkeypatch):
    def refuse(*args):
        raise AssertionError("a tensor's value was read")

    loss, meter = torch.tensor(1.0), Meter()
    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "__bool__", "__int__", "__float__", "cpu", "numpy"):
            patch.setattr(torch.Tensor, name, refuse)
        for _ in range(3):
            meter.add({"a": loss})
    assert loss.item() == 1
    assert meter.means(1) == {"a": 1.0}


def test_a_loss_that_is_not_finite_is_named():
    meter = Meter()
    meter.add({"a": torch.tensor(1.0), "b": torch.tensor(float("inf"))})
    with pytest.raises(TrainingError) as caught:
        meter.means(7)
    assert str(caught.value) == (
        "the loss b became inf within the 1 steps before step 7. The last checkpoint is from before. Lower the "
        "learning rate, or look at the data."
    )


def test_its_state_goes_on():
    meter, other = Meter(), Meter()
    meter.add({"a": torch.tensor(1.0)})
    other.load(meter.state(), torch.device("cpu"))
    for each in (meter, other):
        each.add({"a": torch.tensor(4.0)})
    assert other.means(2) == meter.means(2) == {"a": 2.5}
