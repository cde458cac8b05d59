"""A batch norm that processes shard computes what one process computes on all their samples."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import together
from torch import nn

from imtrans import UNetGenerator, running_as
from imtrans.distributed.data_parallel import batch_shard, shard_range, shard_sizes
from imtrans.distributed.process_group import init_process_group
from imtrans.distributed.sync_batchnorm import convert_sync_batchnorm
from imtrans.errors import ArgumentError
from imtrans.nn.layers import KerasBatchNorm

CPU = torch.device("cpu")
SETTINGS = ({}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}, {"kind": KerasBatchNorm})
BATCHES = (4, 3, 1)
CANCELLED = ("0.bias", "3.bias")  # by the norm that follows: their gradients are what rounding leaves of zero


def group():
    return init_process_group(CPU)


def nets():
    torch.manual_seed(0)
    for settings in SETTINGS:
        kind = settings.get("kind", partial(nn.BatchNorm2d, **settings))
        norms = [kind(3), kind(2)]
        for norm in norms:
            if norm.affine:
                nn.init.normal_(norm.weight)
                nn.init.normal_(norm.bias)
        # Far from zero: a variance out of the mean of squares would be off here.
        shift = nn.Conv2d(3, 3, 1)
        nn.init.constant_(shift.bias, 30.0)
        net = nn.Sequential(shift, norms[0], nn.Tanh(), nn.Conv2d(3, 2, 3), norms[1], nn.Tanh())
        if group().world_size > 1:
            convert_sync_batchnorm(net)
        yield net


def steps():
    """Outputs, gradients and buffers of some batches, which the processes shard."""
    found = []
    for net in nets():
        for samples in BATCHES:
            batch = torch.randn(samples, 3, 5, 5)
            chosen = shard_range(samples, group().rank, group().world_size)
            own = batch[chosen.start : chosen.stop] if chosen else batch[-1:]
            net.zero_grad()
            with batch_shard(group(), shard_sizes(samples, group().world_size)) as shard:
                out = net(own)
                loss = (out * torch.linspace(-1, 1, 18).view(1, 2, 3, 3)).square().mean()
                (loss if shard is None else shard.weight * loss).backward()
                if shard is not None:
                    shard.all_reduce_gradients([p.grad for p in net.parameters()])
            gradients = [p.grad.clone() for name, p in net.named_parameters() if name not in CANCELLED]
            found.append((out.detach()[: len(chosen)], gradients, [b.clone() for b in net.buffers()]))
    return found


def alone():
    """What only one of them does must not wait for the other."""
    if group().rank == 1:
        return None
    net = next(nets())
    batch = torch.randn(2, 3, 5, 5)
    shown = [net(batch).detach()]
    for mode in ("eval", "batch_stats", "paper"):
        with running_as(net, mode):
            shown.append(net(batch).detach())
    return shown


def all_cases():
    init_process_group(CPU)
    return {"steps": steps(), "alone": alone()}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    first, second = together("test_sync_batchnorm", "all_cases", tmp_path_factory.mktemp("found"))
    return {name: [first[name], second[name]] for name in first}


def test_outputs_gradients_and_statistics_are_those_of_the_whole_batch(found):
    first, second = found["steps"]
    for one, other, (out, gradients, buffers) in zip(first, second, steps(), strict=True):
        torch.testing.assert_close(torch.cat([one[0], other[0]]), out, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(one[1], gradients, atol=1e-5, rtol=1e-3)
        torch.testing.assert_close(other[1], one[1], atol=0, rtol=0)
        torch.testing.assert_close(one[2], buffers, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(other[2], one[2], atol=0, rtol=0)


def test_one_process_runs_it_alone_outside_of_a_shared_step(found):
    torch.testing.assert_close(found["alone"][0], alone(), atol=0, rtol=0)


@given(seed=st.integers(0, 999), training=st.booleans())
def test_in_one_process_it_computes_what_it_did(seed, training):
    torch.manual_seed(seed)
    shapes = {nn.BatchNorm1d: (), nn.BatchNorm2d: (3, 2), nn.BatchNorm3d: (2, 3, 2), KerasBatchNorm: (3, 2)}
    for kind, axes in shapes.items():
        plain = kind(2).train(training)
        changed = deepcopy(plain)
        convert_sync_batchnorm(changed)
        x = torch.randn(3, 2, *axes)
        assert torch.equal(changed(x), plain(x))
        assert isinstance(changed, kind)
        torch.testing.assert_close(changed.state_dict(), plain.state_dict(), atol=0, rtol=0)


def test_a_network_keeps_its_keys_and_its_parameters():
    network = UNetGenerator(base_channels=4, depth=3)
    keys, parameters = list(network.state_dict()), [id(p) for p in network.parameters()]
    convert_sync_batchnorm(network)
    convert_sync_batchnorm(network)
    assert (list(network.state_dict()), [id(p) for p in network.parameters()]) == (keys, parameters)
    names = {type(m).__name__ for m in network.modules() if isinstance(m, nn.BatchNorm2d)}
    assert names == {"SyncBatchNorm2d"}


def test_a_network_of_tensorflow_is_saved_as_what_it_was_and_takes_one_value():
    network = UNetGenerator.preset("tensorflow/unet", base_channels=2, depth=3)
    description, image = network.description(), torch.randn(1, 3, 8, 8)
    with torch.no_grad(), running_as(network, "batch_stats"):
        expected = network(image)
    convert_sync_batchnorm(network)
    assert {type(m).__name__ for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {"SyncKerasBatchNorm"}
    assert network.description() == description
    with torch.no_grad(), running_as(network, "batch_stats"):
        assert torch.equal(network(image), expected)


class Mine(nn.BatchNorm2d):
    """Somebody's own."""


@pytest.mark.parametrize("norm", [Mine(2), nn.SyncBatchNorm(2)])
def test_a_batch_norm_of_another_kind_is_refused(norm):
    with pytest.raises(ArgumentError) as caught:
        convert_sync_batchnorm(nn.Sequential(norm))
    assert str(caught.value) == (
        f"0 is a {type(norm).__name__}; the batch norms that can train in several processes are torch.nn.BatchNorm1d, "
        "2d and 3d. Use one of these, or norm='instance'."
    )
