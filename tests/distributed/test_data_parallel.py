"""A step that processes shard is the step of one process with all their samples."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import together
from torch import nn
from torch.optim import SGD

from imtrans import ImagePool
from imtrans.distributed.data_parallel import batch_shard, current_shard, shard_range, shard_sizes
from imtrans.distributed.process_group import init_process_group
from imtrans.errors import ShapeError, TrainingError
from imtrans.methods import optim
from imtrans.methods.loss_scale import scale_losses, scaler_of

CPU = torch.device("cpu")
BATCHES = (2, 4, 5, 1, 3)  # of two processes: even, uneven, and one without a sample


def group():
    return init_process_group(CPU)


@given(samples=st.integers(0, 99), size=st.integers(1, 20))
def test_each_sample_is_that_of_one_process(samples, size):
    parts = [shard_range(samples, rank, size) for rank in range(size)]
    assert [i for p in parts for i in p] == list(range(samples))
    assert shard_sizes(samples, size) == [len(p) for p in parts]
    assert max(shard_sizes(samples, size)) - min(shard_sizes(samples, size)) <= 1


def own(batch):
    """The samples of this rank, or one of another rank if it has none."""
    chosen = shard_range(len(batch), group().rank, group().world_size)
    return batch[chosen.start : chosen.stop] if chosen else batch[-1:]


def steps(scaled=False):
    """Train on batches; return the weights after each, and the losses."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = SGD(net.parameters(), lr=0.1)
    if scaled:
        scale_losses({"one": optimizer}, CPU)
    weights, losses = [], []
    for samples in BATCHES:
        batch = torch.randn(samples, 3)
        with batch_shard(group(), shard_sizes(samples, group().world_size)) as shard:
            loss = net(own(batch)).square().mean()
            optim.step(optimizer, loss)
            shown = {"square": loss.detach(), "half": loss.detach() / 2}
            losses.append(shown if shard is None else shard.mean(shown))
        weights.append([p.detach().clone() for p in net.parameters()])
    return weights, losses


def overflows():
    """In one of them alone."""
    layer = nn.Linear(1, 1)
    optimizer = SGD(layer.parameters(), lr=0.1)
    scale_losses({"one": optimizer}, CPU)
    before = layer.weight.clone(), scaler_of(optimizer).get_scale()
    with batch_shard(group(), [1, 1]):
        optim.step(optimizer, layer(torch.tensor([[float("inf") if group().rank else 1.0]])).sum())
    return torch.equal(layer.weight, before[0]), scaler_of(optimizer).get_scale() / before[1]


def pools():
    pool, returned = ImagePool(3, seed=5), []
    generator = torch.Generator().manual_seed(0)
    for samples in BATCHES * 3:
        batch = torch.rand(samples, 1, 2, 2, generator=generator)
        chosen = shard_sizes(samples, group().world_size)
        with batch_shard(group(), chosen):
            returned.append(pool(own(batch))[: chosen[group().rank]])
    return returned, pool.get_extra_state()


def pictures_of_two_sizes():
    try:
        with batch_shard(group(), [1, 1]):
            ImagePool(2)(torch.zeros(1, 3, 4, 4 + group().rank))
    except ShapeError as error:
        return str(error)


def rounds():
    """What a pool asks the other processes on the host, in the first step and in later ones."""

    class Counting:
        """A process group that counts its objects."""

        def __init__(self):
            self.objects = 0

        def __getattr__(self, name):
            return getattr(group(), name)

        def all_gather_object(self, value):
            self.objects += 1
            return group().all_gather_object(value)

    counting, counts, pool = Counting(), [], ImagePool(2)
    for _ in range(3):
        with batch_shard(counting, [1, 1]):
            pool(torch.zeros(1, 3, 4, 4))
        counts.append(counting.objects)
    return counts


def large_gradients():
    """In any memory format."""
    gradients = [torch.arange(24.0).reshape(2, 3, 2, 2).contiguous(memory_format=torch.channels_last), torch.ones(2)]
    with batch_shard(group(), [1, 1]) as shard:
        shard.all_reduce_gradients(gradients)
    return gradients, gradients[0].is_contiguous(memory_format=torch.channels_last)


def a_step_of_its_own_kind():
    try:
        with batch_shard(group(), [1, 1]) as shard:
            loss = nn.Linear(1, 1)(torch.ones(1, 1)).sum()
            loss.backward()
            shard.mean({"loss": loss.detach()})
    except TrainingError as error:
        return str(error), current_shard()


CASES = (steps, overflows, pools, rounds, large_gradients, pictures_of_two_sizes, a_step_of_its_own_kind)


def all_cases():
    init_process_group(CPU)
    return {**{case.__name__: case() for case in CASES}, "scaled": steps(scaled=True)}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    first, second = together("test_data_parallel", "all_cases", tmp_path_factory.mktemp("found"))
    return {name: [first[name], second[name]] for name in first}


@pytest.mark.parametrize("kind", ["steps", "scaled"])
def test_gradients_and_losses_are_those_of_the_whole_batch(found, kind):
    (first, first_losses), (second, second_losses) = found[kind]
    expected, losses = steps()
    torch.testing.assert_close(first, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(first, second, atol=0, rtol=0)
    torch.testing.assert_close(first_losses, losses, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(first_losses, second_losses, atol=0, rtol=0)


def test_large_gradients_go_in_several_messages(monkeypatch):
    from imtrans.distributed import data_parallel as room

    monkeypatch.setattr(room, "BUCKET", 5)
    sizes = [[t.numel() for t in b] for b in room._buckets([torch.zeros(n) for n in (2, 3, 1, 9, 1, 4)])]
    assert sizes == [[2, 3], [1], [9], [1, 4]]


def test_a_pool_asks_for_the_shapes_of_images_once_a_run(found):
    assert found["rounds"] == [[1, 1, 1]] * 2


def test_gradients_are_summed_in_their_memory_format(found):
    for gradients, kept in found["large_gradients"]:
        torch.testing.assert_close(gradients, [2 * torch.arange(24.0).reshape(2, 3, 2, 2), 2 * torch.ones(2)])
        assert kept


def test_what_overflows_in_one_process_is_left_out_in_all(found):
    assert found["overflows"] == [(True, 0.5), (True, 0.5)]


def test_all_processes_have_the_pool_that_one_would_have(found):
    (first, first_state), (second, second_state) = found["pools"]
    expected, state = pools()
    together_ = [torch.cat(both) for both in zip(first, second, strict=True)]
    torch.testing.assert_close(together_, expected, atol=0, rtol=0)
    torch.testing.assert_close(first_state, state, atol=0, rtol=0)
    torch.testing.assert_close(second_state, state, atol=0, rtol=0)


def test_a_pool_refuses_pictures_of_two_sizes_in_every_process(found):
    text = (
        "the processes have images of shapes [(3, 4, 4), (3, 4, 5)] in one step, and a pool mixes images of one "
        "shape. Give pictures of one size, or use pool_size=0."
    )
    assert found["pictures_of_two_sizes"] == [text] * 2


def test_a_step_that_would_let_the_networks_drift_apart_is_refused(found):
    text = (
        "the method's step did not update through imtrans.methods.optim.step, so that the weights would "
        "differ between the processes. Use it instead of loss.backward() and optimizer.step()."
    )
    assert found["a_step_of_its_own_kind"] == [(text, None)] * 2
