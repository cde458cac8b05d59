"""The procedural facades as a data set: label maps and pictures, drawn from a seed, with no download."""

from PIL import Image

from imtrans.checks import at_least
from imtrans.data.cache import SingleSourceDataset
from imtrans.data.facades.plan import draw_facade
from imtrans.data.images import Jitter
from imtrans.data.loader import Batch


class ProceduralFacades(SingleSourceDataset):
    """Facades that nobody built: from label maps in the colours of CMP Facades to pictures.

    A sample is ``{"source": (3, size, size), "target": (3, size, size)}`` in [-1, 1], a function of
    (seed, epoch, index) alone. Each facade is drawn once and kept.

    Args:
        length: how many facades.
        size: height and width of a sample.
        seed: of the buildings and of the augmentation. Two data sets with different seeds share no building.
        augment: whether to jitter and flip, as `imtrans.data.paired.PairedImages` does.

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
        self._drawn: dict[int, Batch] = {}

    def __len__(self) -> int:
        return self.length

    def at(self, index: int) -> int:
        """`index`, if there is such a facade."""
        if not 0 <= index < self.length:
            raise IndexError(f"ProceduralFacades has {self.length} samples, no index {index}")
        return index

    def load(self, index: int) -> Batch:
        """The label map and the picture of facade `index`."""
        if index not in self._drawn:
            photo, labels = draw_facade(self.seed, index, self.loaded_size)
            images = [Image.fromarray(labels), Image.fromarray(photo)]
            source, target = self.jitter.load(images, self.loaded_size)
            self._drawn[index] = {"source": source, "target": target}
        return self._drawn[index]

    def __repr__(self) -> str:
        return f"{self.length} procedural facades of seed {self.seed}, labels to pictures, as {self.jitter}"
