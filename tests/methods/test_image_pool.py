import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imtrans import ImagePool
from imtrans.errors import ArgumentError, ShapeError
from imtrans.methods.image_pool import draws


def numbered(start, count, device="cpu"):
    """Images of one pixel, each of which is its own number."""
    return torch.arange(start, start + count, dtype=torch.float32, device=device).reshape(count, 1, 1, 1)


class PlainPool:
    """The law in plain Python: fill, then swap with probability 1/2; what it draws for an image is a hash."""

    def __init__(self, size, seed):
        self.size, self.stored, self.seed, self.seen = size, [], seed, 0

    def splitmix64(self):
        self.seen += 1
        bits = (self.seen + (self.seed << 32)) * 0x9E3779B97F4A7C15 % 2**64
        bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB % 2**64
        return bits ^ (bits >> 31)

    def __call__(self, image):
        bits = self.splitmix64()
        chosen, swap = (bits >> 32) % self.size, bits % 2 == 0
        if len(self.stored) < self.size:
            self.stored.append(image)
            return image
        if not swap:
            return image
        old, self.stored[chosen] = self.stored[chosen], image
        return old


batches = st.lists(st.integers(1, 4), min_size=1, max_size=12)


@given(size=st.integers(1, 5), batch_sizes=batches, seed=st.integers(0, 2**16))
def test_the_pool_follows_the_law(size, batch_sizes, seed):
    pool, plain, given_so_far = ImagePool(size, seed=seed), PlainPool(size, seed), 0
    for batch_size in batch_sizes:
        images = numbered(given_so_far, batch_size)
        given_so_far += batch_size
        expected = [plain(image) for image in images.flatten().tolist()]
        assert pool(images).flatten().tolist() == expected
    assert pool.get_extra_state()["images"].flatten().tolist()[: len(plain.stored)] == plain.stored


@given(size=st.integers(1, 5), batch_sizes=batches, seed=st.integers(0, 2**16))
def test_what_comes_back_was_given_now_or_earlier_and_while_filling_is_given_now(size, batch_sizes, seed):
    pool, given_so_far = ImagePool(size, seed=seed), 0
    for batch_size in batch_sizes:
        returned = pool(numbered(given_so_far, batch_size)).flatten().tolist()
        for i, value in enumerate(returned, start=given_so_far):
            assert value == i if i < size else value in range(i + 1)
        given_so_far += batch_size


@given(size=st.integers(1, 4), count=st.integers(1, 30), seed=st.integers(0, 2**16))
def test_no_image_is_lost_or_doubled(size, count, seed):
    pool = ImagePool(size, seed=seed)
    returned = pool(numbered(1, count)).flatten().tolist()
    stored = [value for value in pool.get_extra_state()["images"].flatten().tolist() if value]
    assert len(stored) == min(size, count)
    while_filling = range(1, len(stored) + 1)
    assert sorted(returned + stored) == sorted([*range(1, count + 1), *while_filling])


def test_once_full_half_of_the_images_are_old(device):
    pool = ImagePool(10)
    pool(numbered(0, 10, device))
    images = numbered(10, 2000, device)
    share = (pool(images) != images).float().mean().item()
    assert 0.45 < share < 0.55


def test_every_stored_image_is_as_likely_to_return(device):
    counts = torch.zeros(4)
    for seed in range(400):
        pool = ImagePool(4, seed=seed)
        pool(numbered(0, 4, device))
        returned = int(pool(numbered(4, 1, device)).item())
        if returned < 4:
            counts[returned] += 1
    assert (counts > 25).all()
    assert (counts < 75).all()


def test_a_pool_of_size_zero_returns_every_image():
    pool = ImagePool(0)
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    assert torch.equal(pool(images), images)
    assert not pool(images).requires_grad
    assert pool.get_extra_state() == {}


def test_what_comes_back_carries_no_gradient_and_is_no_view_of_the_pool(device):
    pool = ImagePool(2)
    first = torch.randn(2, 3, 4, 4, device=device, requires_grad=True)
    returned = pool(first)
    assert not returned.requires_grad
    assert returned.device.type == device.type
    returned.zero_()
    assert torch.equal(pool.get_extra_state()["images"], first.detach())


def test_a_pool_stored_and_restored_goes_on_as_it_would_have(device):
    pool = ImagePool(3, seed=5)
    for i in range(4):
        pool(numbered(2 * i, 2, device))
    state = copy.deepcopy(pool.state_dict())
    expected = [pool(numbered(100 + i, 3, device)) for i in range(10)]
    restored = ImagePool(3, seed=99)
    restored.load_state_dict(state)
    assert all(torch.equal(restored(numbered(100 + i, 3, device)), expected[i]) for i in range(10))


def test_a_restored_pool_can_be_stored_again_before_its_next_image():
    pool = ImagePool(2)
    pool(numbered(0, 5))
    restored = ImagePool(2)
    restored.load_state_dict(pool.state_dict())
    again = restored.get_extra_state()
    assert again.keys() == {"images", "seen", "seed"}
    assert all(torch.equal(again[key], value) for key, value in pool.get_extra_state().items())


def test_a_pool_stored_before_its_first_image_starts_afresh():
    pool = ImagePool(2)
    pool(numbered(0, 5))
    pool.load_state_dict(ImagePool(2).state_dict())
    fresh = ImagePool(2)
    assert torch.equal(pool(numbered(10, 9)), fresh(numbered(10, 9)))


def test_a_restored_pool_does_not_share_memory_with_the_state():
    pool = ImagePool(2)
    pool(numbered(0, 2))
    state = copy.deepcopy(pool.state_dict())
    restored = ImagePool(2)
    restored.load_state_dict(state)
    restored(numbered(10, 20))
    assert state["_extra_state"]["images"].flatten().tolist() == [0, 1]


def test_two_pools_of_one_seed_are_alike_and_of_two_are_not():
    images = numbered(0, 60)
    assert torch.equal(ImagePool(5, seed=1)(images), ImagePool(5, seed=1)(images))
    assert not torch.equal(ImagePool(5, seed=1)(images), ImagePool(5, seed=2)(images))


def test_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    ImagePool(3)(numbered(0, 20))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.cuda
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature")
def test_the_pool_never_waits_for_the_device():
    pool, images = ImagePool(2), numbered(0, 4, "cuda")
    pool(images)
    torch.cuda.set_sync_debug_mode("error")
    try:
        pool(images)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_pool_reads_no_value_of_a_tensor(monkeypatch):
    """What waits for a device goes through one of these."""
    pool, images = ImagePool(2), numbered(0, 4)

    def refuse(*args):
        raise AssertionError("a tensor's value was read")

    for name in ("item", "tolist", "__bool__", "__int__", "__float__", "__index__", "cpu", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    for _ in range(3):
        pool(images)


def test_the_pool_is_traced_as_one_graph():
    pool, plain = ImagePool(2), ImagePool(2)
    pool(numbered(0, 1)), plain(numbered(0, 1))
    traced = torch.compile(pool, fullgraph=True, backend="aot_eager")
    for start in range(1, 12, 2):
        assert torch.equal(traced(numbered(start, 2)), plain(numbered(start, 2)))


def test_draws_are_uniform_and_independent_of_one_another():
    number, swap = draws(torch.arange(40_000), 3, 8)
    table = torch.zeros(8, 2).index_put_((number, swap.long()), torch.ones(40_000), accumulate=True)
    assert (table / 40_000 - 1 / 16).abs().max() < 0.005
    later, _ = draws(torch.arange(1, 40_001), 3, 8)
    follows = torch.zeros(8, 8).index_put_((number, later), torch.ones(40_000), accumulate=True)
    assert (follows / 40_000 - 1 / 64).abs().max() < 0.003


def test_images_of_another_shape_are_refused():
    pool = ImagePool(2)
    pool(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ShapeError) as caught:
        pool(torch.zeros(1, 3, 8, 9))
    assert str(caught.value) == (
        "ImagePool: holds images of shape (3, 8, 8), got (3, 8, 9). A pool mixes images of one shape: use one pool "
        "for each, or size=0."
    )


def test_the_state_of_a_pool_of_another_size_is_refused():
    pool = ImagePool(2)
    pool(numbered(0, 2))
    with pytest.raises(ShapeError) as caught:
        ImagePool(3).load_state_dict(pool.state_dict())
    assert str(caught.value) == "ImagePool: the state is of a pool of 2 images, this one keeps 3."


@pytest.mark.parametrize("size", [-1, 1.5, True, None])
def test_an_impossible_size_is_refused(size):
    with pytest.raises(ArgumentError) as caught:
        ImagePool(size)
    assert str(caught.value) == f"ImagePool: size must be a whole number >= 0, got {size!r}."


def test_the_repr_tells_the_size():
    assert repr(ImagePool(50)) == "ImagePool(50)"
