"""The procedural facades as a data set: label maps and pictures, drawn from a seed, with no download."""

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from imtrans.errors import at_least
from imtrans.facade_plan import draw_facade
from imtrans.images import Jitter


class ProceduralFacades(Dataset[dict[str, Tensor]]):
    """Facades that nobody built: from label maps in the colours of CMP Facades to pictures.

    A sample is ``{"source": (3, size, size), "target": (3, size, size)}`` in [-1, 1], a function of
    (seed, epoch, index) alone. Each facade is drawn once and kept.

    Args:
        length: how many facades.
        size: height and width of a sample.
        seed: of the buildings and of the augmentation. Two data sets with different seeds share no building.
        augment: whether to jitter and flip, as `imtrans.data.PairedImages` does.

    Raises:
        ArgumentError: a `length` below 1, a `size` below 16, or a negative `seed`.

    >>> sample = ProceduralFacades(4, size=32)[0]
    >>> sample["source"].shape, sample["target"].shape
    (torch.Size([3, 32, 32]), torch.Size([3, 32, 32]))
    """

    def __init__(self, length: int, *, size: int = 128, seed: int = 0, augment: bool = True) -> None:
        self.length = at_least("ProceduralFacades", "length", length, 1)
        self.jitter = Jitter(at_least("ProceduralFacades", "size", size, 16))
        self.seed = at_least("ProceduralFacades", "seed", seed, 0)
        self.augment = augment
        self._drawn: dict[int, tuple[Image.Image, Image.Image]] = {}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.draw(index, epoch=0)

    def draw(self, index: int, epoch: int) -> dict[str, Tensor]:
        """Return sample `index` as it is augmented in `epoch`."""
        if not 0 <= index < self.length:
            raise IndexError(f"ProceduralFacades has {self.length} samples, no index {index}")
        if index not in self._drawn:
            size = self.jitter.large if self.augment else self.jitter.size
            photo, labels = draw_facade(self.seed, index, size)
            self._drawn[index] = Image.fromarray(labels), Image.fromarray(photo)
        rng = np.random.default_rng((self.seed, epoch, index)) if self.augment else None
        source, target = self.jitter(self._drawn[index], rng)
        return {"source": source, "target": target}

    def __repr__(self) -> str:
        return f"{self.length} procedural facades of seed {self.seed}, labels to pictures, as {self.jitter}"
