"""The pool of earlier fakes that a discriminator is shown."""

import torch
from torch import Tensor, nn

from imtrans.errors import ShapeError, at_least


class ImagePool(nn.Module):
    """A buffer of the last generated images, so that the discriminator does not forget its earlier opponents.

    Image by image: while the pool fills, an image is stored and returned. Once it is full, with probability
    1/2 the image takes the place of a stored one, chosen at random, which is returned instead; otherwise the
    image itself is returned and the pool stays as it is. All of it is tensor arithmetic on the images'
    device: nothing waits for a random number or a counter.

    Args:
        size: how many images it keeps; 0 returns every image unchanged.
        seed: of its own generator, which is part of its state.

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
        self._count: Tensor | None = None
        self._generator: torch.Generator | None = None
        self._generator_state: Tensor | None = None

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return a batch for the discriminator, and remember some of `images`.

        Shape: ``(b, c, h, w) -> (b, c, h, w)``, detached.

        Raises:
            ShapeError: the images differ in shape from those in the pool.
        """
        if self.size == 0:
            return images.detach()
        stored, count, generator = self._on_device_of(images)
        returned = []
        for image in images.detach():
            filling = count < self.size
            chosen = torch.randint(self.size, (1,), device=image.device, generator=generator)
            swap = torch.rand(1, device=image.device, generator=generator) < 0.5
            slot = torch.where(filling, count, chosen)
            old = stored.index_select(0, slot)[0]
            returned.append(torch.where(swap & ~filling, old, image))
            stored.index_copy_(0, slot, torch.where(swap | filling, image, old)[None])
            count += filling
        return torch.stack(returned)

    def _on_device_of(self, images: Tensor) -> tuple[Tensor, Tensor, torch.Generator]:
        shape, device = images.shape[1:], images.device
        if self._images is None or self._count is None:
            self._images = images.new_zeros((self.size, *shape))
            self._count = torch.zeros(1, dtype=torch.int64, device=device)
        if self._images.shape[1:] != shape:
            raise ShapeError(
                f"ImagePool: holds images of shape {tuple(self._images.shape[1:])}, got {tuple(shape)}. "
                "A pool mixes images of one shape: use one pool for each, or size=0."
            )
        if self._generator is None or self._generator.device != device:
            self._images, self._count = self._images.to(images), self._count.to(device)
            self._generator = torch.Generator(device).manual_seed(self.seed)
            if self._generator_state is not None:
                self._generator.set_state(self._generator_state)
        return self._images, self._count, self._generator

    def get_extra_state(self) -> dict[str, Tensor]:
        """Everything that decides what the pool returns next; empty before its first image."""
        drawn = self._generator_state if self._generator is None else self._generator.get_state()
        if self._images is None or self._count is None or drawn is None:
            return {}
        return {"images": self._images, "count": self._count, "generator": drawn}

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
        self._count = state["count"].clone() if state else None
        self._generator_state = state["generator"].cpu().clone() if state else None
        self._generator = None

    def extra_repr(self) -> str:
        """The size, for ``print``."""
        return str(self.size)
