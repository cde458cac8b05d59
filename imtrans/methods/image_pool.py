"""Buffer of earlier generated images for the discriminator."""

import torch
from torch import Tensor, nn

from imtrans.checks import at_least
from imtrans.distributed.data_parallel import current_shard
from imtrans.errors import ShapeError, counted


class ImagePool(nn.Module):
    """Buffer of generated images, from which the discriminator also sees images of earlier generators.

    Each image is handled in turn:

    - While the pool fills, the image is stored and returned.
    - When it is full, with probability 1/2 a random stored image is returned, and this one stored in its place.
    - Otherwise the image is returned, and the pool does not change.

    The choice for the n-th image depends on (seed, n) alone, and is computed on the images' device. The host never
    waits, and a captured step can be replayed. In a distributed step all ranks hold the same pool, of whole batches.

    Args:
        size: number of images stored; 0 returns every image unchanged.
        seed: seed of the random choices; part of the state.

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
        """Store some of `images`, and return a batch for the discriminator.

        Shape: ``(b, c, h, w) -> (b, c, h, w)``, detached.

        Raises:
            ShapeError: the images have another shape than the stored ones.
        """
        images, shard = images.detach(), current_shard()
        if self.size == 0:
            return images
        if shard is not None and self._images is None:
            shard.check_images(images)  # once a run: later images must have the shape of the stored ones
        stored, seen = self._storage(images)
        batch = images if shard is None else shard.gather(images)
        returned = []
        for image in batch:
            filling = seen < self.size
            chosen, swap = draws(seen, self.seed, self.size)
            slot = torch.where(filling, seen, chosen)
            old = stored.index_select(0, slot)[0]
            returned.append(torch.where(swap & ~filling, old, image))
            stored.index_copy_(0, slot, torch.where(swap | filling, image, old)[None])
            seen += 1
        pooled = torch.stack(returned)
        return pooled if shard is None else shard.local(pooled, default=images)

    def _storage(self, images: Tensor) -> tuple[Tensor, Tensor]:
        shape = images.shape[1:]
        if self._images is None or self._seen is None:
            self._images = images.new_zeros((self.size, *shape))
            self._seen = torch.zeros(1, dtype=torch.int64, device=images.device)
        if self._images.shape[1:] != shape:
            raise ShapeError(
                f"ImagePool: holds images of shape {tuple(self._images.shape[1:])}, got {tuple(shape)}. "
                "A pool mixes images of one shape: use one pool for each, or size=0."
            )
        self._images, self._seen = self._images.to(images.device), self._seen.to(images.device)
        return self._images, self._seen

    def get_extra_state(self) -> dict[str, Tensor]:
        """Return the stored images, the count of images seen and the seed; empty before the first image."""
        if self._images is None or self._seen is None:
            return {}
        return {"images": self._images, "seen": self._seen, "seed": torch.tensor(self.seed, dtype=torch.int64)}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Load what `get_extra_state` returned; a ShapeError says that it belongs to a pool of another size."""
        if state and len(state["images"]) != self.size:
            raise ShapeError(
                f"ImagePool: the state is of a pool of {counted(len(state['images']), 'image')}, this one keeps "
                f"{self.size}."
            )
        self._images = state["images"].clone() if state else None
        self._seen = state["seen"].clone() if state else None
        self.seed = int(state.get("seed", self.seed))

    def extra_repr(self) -> str:
        """Return the size, for ``print``."""
        return str(self.size)


def draws(count: Tensor, seed: int, size: int) -> tuple[Tensor, Tensor]:
    """Draw an integer below `size` and a bool for each element of `count`, int64, as a function of it and `seed` alone.

    Source: Steele et al. 2014, "Fast Splittable Pseudorandom Number Generators" (splitmix64); int64 wraps around.
    """
    bits = (count + 1 + (seed << 32) % 2**62) * -0x61C8864680B583EB
    bits = (bits ^ _shifted(bits, 30)) * -0x40A7B892E31B1A47
    bits = (bits ^ _shifted(bits, 27)) * -0x6B2FB644ECCEEE15
    bits = bits ^ _shifted(bits, 31)
    return _shifted(bits, 32) % size, bits % 2 == 0


def _shifted(bits: Tensor, by: int) -> Tensor:
    """Shift right and fill with zeros, where torch fills with the sign bit."""
    return (bits >> by) & ((1 << (64 - by)) - 1)
