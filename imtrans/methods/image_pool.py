"""The pool of earlier fakes that a discriminator is shown."""

import torch
from torch import Tensor, nn

from imtrans.checks import at_least
from imtrans.distributed.data_parallel import current_shard
from imtrans.errors import ShapeError


class ImagePool(nn.Module):
    """A buffer of the last generated images, so that the discriminator does not forget its earlier opponents.

    Image by image: while the pool fills, an image is stored and returned. Once it is full, with probability
    1/2 the image takes the place of a stored one, chosen at random, which is returned instead; otherwise the
    image itself is returned and the pool stays as it is. What happens to the n-th image is a function of
    (seed, n) alone, in tensor arithmetic on the images' device: nothing waits for a random number or a
    counter, and a step that was recorded once can be replayed. Processes that shard a step have one pool, through
    which the images of the whole batch pass in its order.

    Args:
        size: how many images it keeps; 0 returns every image unchanged.
        seed: of what it draws; part of its state.

    Raises:
        ArgumentError: a negative size.

    Source: Shrivastava et al. 2017, section 2.3; Zhu et al. 2017 (size 50).

    >>> pool = ImagePool(2)
    >>> pool(torch.zeros(3, 1, 4, 4)).shape
    torch.Size([3, 1, 4, 4])
    """

    def __init__(self, size: int, *, seed: int = 0) -> None:
        super().__init__()
        self.size = at_least("ImagePool", "size", size, 0)
        self.seed = seed
        self._images: Tensor | None = None
        self._seen: Tensor | None = None

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return a batch for the discriminator, and remember some of `images`.

        Shape: ``(b, c, h, w) -> (b, c, h, w)``, detached.

        Raises:
            ShapeError: the images differ in shape from those in the pool.
        """
        if self.size == 0:
            return images.detach()
        shard = current_shard()
        # One pool for all processes: each of them sees every image, and so has the same pool.
        every = images.detach() if shard is None else shard.gather(images.detach())
        stored, seen = self._on_device_of(every)
        returned = []
        for image in every:
            filling = seen < self.size
            chosen, swap = draws(seen, self.seed, self.size)
            slot = torch.where(filling, seen, chosen)
            old = stored.index_select(0, slot)[0]
            returned.append(torch.where(swap & ~filling, old, image))
            stored.index_copy_(0, slot, torch.where(swap | filling, image, old)[None])
            seen += 1
        pooled = torch.stack(returned)
        return pooled if shard is None else shard.local(pooled, default=images.detach())

    def _on_device_of(self, images: Tensor) -> tuple[Tensor, Tensor]:
        shape, device = images.shape[1:], images.device
        if self._images is None or self._seen is None:
            self._images = images.new_zeros((self.size, *shape))
            self._seen = torch.zeros(1, dtype=torch.int64, device=device)
        if self._images.shape[1:] != shape:
            raise ShapeError(
                f"ImagePool: holds images of shape {tuple(self._images.shape[1:])}, got {tuple(shape)}. "
                "A pool mixes images of one shape: use one pool for each, or size=0."
            )
        if self._images.device != device:
            self._images, self._seen = self._images.to(device), self._seen.to(device)
        return self._images, self._seen

    def get_extra_state(self) -> dict[str, Tensor]:
        """Everything that decides what the pool returns next; empty before its first image."""
        if self._images is None or self._seen is None:
            return {}
        seed = torch.tensor(self.seed, dtype=torch.int64)
        return {"images": self._images, "seen": self._seen, "seed": seed}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Take up a state that `get_extra_state` gave.

        Raises:
            ShapeError: it is that of a pool of another size.
        """
        if state and len(state["images"]) != self.size:
            raise ShapeError(
                f"ImagePool: the state is of a pool of {len(state['images'])} images, this one keeps {self.size}."
            )
        self._images = state["images"].clone() if state else None
        self._seen = state["seen"].clone() if state else None
        self.seed = int(state["seed"]) if state else self.seed

    def extra_repr(self) -> str:
        """The size, for ``print``."""
        return str(self.size)


def draws(count: Tensor, seed: int, size: int) -> tuple[Tensor, Tensor]:
    """Draw a whole number below `size`, and a bool, as a function of `count` and `seed` alone.

    Shape: ``count``, int64 of any shape -> twice that shape.

    Source: Steele et al. 2014, "Fast Splittable Pseudorandom Number Generators" (splitmix64); int64 wraps around.
    """
    bits = (count + 1 + (seed << 32) % 2**62) * -0x61C8864680B583EB
    bits = (bits ^ _shifted(bits, 30)) * -0x40A7B892E31B1A47
    bits = (bits ^ _shifted(bits, 27)) * -0x6B2FB644ECCEEE15
    bits = bits ^ _shifted(bits, 31)
    return _shifted(bits, 32) % size, bits % 2 == 0


def _shifted(bits: Tensor, by: int) -> Tensor:
    """Shift right and fill with zeros; torch fills with the sign."""
    return (bits >> by) & ((1 << (64 - by)) - 1)
