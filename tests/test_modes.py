import copy
import gc
import sys
import weakref

import pytest
import torch
from torch import nn

from imtrans import ResnetGenerator, UNetGenerator, running_as
from imtrans.errors import ArgumentError
from imtrans.modes import MODES, uses_input_stats

NETWORKS = {
    "batch": lambda: UNetGenerator(base_channels=4, depth=3),
    "tracking instance": lambda: UNetGenerator(
        base_channels=4, depth=3, norm=lambda c: nn.InstanceNorm2d(c, affine=True, track_running_stats=True)
    ),
    "not tracking batch": lambda: UNetGenerator(
        base_channels=4, depth=3, norm=lambda c: nn.BatchNorm2d(c, track_running_stats=False)
    ),
    "instance": lambda: ResnetGenerator(base_channels=4, num_blocks=1, dropout=0.5),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    network = NETWORKS[request.param]()
    with torch.no_grad():
        network(torch.randn(4, 3, 16, 16))  # running statistics leave their start
    return network


def images():
    return torch.randn(2, 3, 16, 16)


def flags(network):
    return [
        (name, module.training, getattr(module, "track_running_stats", None), getattr(module, "momentum", None))
        for name, module in network.named_modules()
    ]


def check_unchanged(network, state, was):
    assert flags(network) == was
    assert list(network.state_dict()) == list(state)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_everything_is_afterwards_as_it_was(network, mode, training):
    network.train(training)
    state, was = copy.deepcopy(network.state_dict()), flags(network)
    with torch.no_grad(), running_as(network, mode) as same:
        assert same is network
        for _ in range(2):
            network(images())
    check_unchanged(network, state, was)


@pytest.mark.parametrize("mode", MODES)
def test_everything_is_afterwards_as_it_was_when_the_block_raises(network, mode):
    def fail(*args):
        raise RuntimeError("on purpose")

    network.head.register_forward_pre_hook(fail)
    state, was = copy.deepcopy(network.state_dict()), flags(network)
    with pytest.raises(RuntimeError, match="on purpose"), torch.no_grad(), running_as(network, mode):
        network(images())
    check_unchanged(network, state, was)


def test_flags_that_differ_within_a_network_are_restored_each(network):
    network.train()
    network.head.eval()
    next(iter(network.modules())).training = False
    was = flags(network)
    with running_as(network, "paper"):
        pass
    assert flags(network) == was


@pytest.mark.parametrize("outer", MODES)
@pytest.mark.parametrize("inner", MODES)
def test_blocks_nest(network, outer, inner):
    network.eval()
    x = images()

    def run():
        torch.manual_seed(1)
        return network(x)

    state, was = copy.deepcopy(network.state_dict()), flags(network)
    with torch.no_grad():
        with running_as(network, inner):
            expected_inner = run()
        with running_as(network, outer):
            expected_outer = run()
            with running_as(network, inner):
                assert torch.equal(run(), expected_inner)
            assert torch.equal(run(), expected_outer)
    check_unchanged(network, state, was)


def norm_and_dropout():
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(0.5))
    network[0].running_mean.fill_(3.0)
    network[0].running_var.fill_(4.0)
    return network


def test_eval_uses_running_statistics_and_drops_nothing():
    network, x = norm_and_dropout(), torch.randn(2, 2, 8, 8)
    with torch.no_grad(), running_as(network, "eval"):
        torch.testing.assert_close(network(x), (x - 3) / 2, atol=1e-4, rtol=1e-4)


def test_batch_stats_uses_the_images_own_statistics_and_drops_nothing():
    network, x = norm_and_dropout(), 5 * torch.randn(2, 2, 8, 8) + 1
    with torch.no_grad(), running_as(network, "batch_stats"):
        torch.testing.assert_close(network(x), nn.functional.batch_norm(x, None, None, training=True))


def test_paper_uses_the_images_own_statistics_and_drops():
    network, x = norm_and_dropout(), 5 * torch.randn(2, 2, 8, 8) + 1
    normalised = nn.functional.batch_norm(x, None, None, training=True)
    with torch.no_grad(), running_as(network, "paper"):
        y = network(x)
    kept = y != 0
    torch.testing.assert_close(y[kept], 2 * normalised[kept])
    assert 0.3 < kept.float().mean() < 0.7


def test_an_image_comes_out_the_same_with_a_tracking_instance_norm_as_with_a_plain_one():
    tracking = nn.InstanceNorm2d(3, track_running_stats=True)
    tracking.running_mean.fill_(7.0)
    x = images()
    with torch.no_grad(), running_as(tracking, "batch_stats"):
        torch.testing.assert_close(tracking(x), nn.InstanceNorm2d(3)(x))
    assert tracking.running_mean.tolist() == [7.0] * 3


def test_an_unknown_mode_is_refused_before_anything_changes(network):
    was = flags(network)
    with pytest.raises(ArgumentError) as caught, running_as(network, "papr"):
        pass
    assert str(caught.value) == (
        "running_as: mode='papr' is not one of ['batch_stats', 'eval', 'paper']. Did you mean 'paper'?"
    )
    assert flags(network) == was


NORMS = {
    "batch": nn.BatchNorm2d(4),
    "batch without running statistics": nn.BatchNorm2d(4, track_running_stats=False),
    "instance": nn.InstanceNorm2d(4),
    "instance with running statistics": nn.InstanceNorm2d(4, track_running_stats=True),
    "group": nn.GroupNorm(2, 4),
    "none": nn.Identity(),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", NORMS)
def test_a_norm_uses_input_stats_exactly_if_it_removes_the_mean_of_its_input(name, training):
    norm = copy.deepcopy(NORMS[name]).train(training)
    removes = norm(torch.randn(2, 4, 8, 8) + 100).mean().abs().item() < 1
    assert uses_input_stats(norm) is removes
    assert uses_input_stats(norm.train(not training), training=training) is removes


def test_a_context_that_is_never_left_is_collected_with_its_network(monkeypatch):
    """As in `Translator`, which works on a copy of its own."""
    ignored = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    network = nn.Sequential(nn.BatchNorm2d(1))
    context = running_as(network, "batch_stats")
    context.__enter__()
    network.context = context  # a cycle
    gone = weakref.ref(network)
    del network, context
    gc.collect()
    assert gone() is None
    assert not ignored
