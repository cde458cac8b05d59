"""Data sets of procedural facades, which need no download."""

from imtrans.checks import at_least, one_of
from imtrans.data.crop_dataset import Batch, SingleSourceDataset
from imtrans.data.derived import DerivedPairs
from imtrans.data.facades.paint import Picture
from imtrans.data.facades.plan import WEATHERS, draw_day_and_night, draw_facade
from imtrans.data.paired import DIRECTIONS
from imtrans.data.procedural import ProceduralPairs
from imtrans.data.unpaired import Unpaired


class ProceduralFacades(ProceduralPairs):
    """Label maps in the colours of CMP Facades as sources, and matching pictures as targets.

    Samples and errors are as in `imtrans.data.procedural.ProceduralPairs`.

    Args:
        length: the number of facades.
        size: height and width of a sample.
        seed: the seed of the buildings and of the augmentation. Data sets with different seeds share no building.
        augment: whether to crop and flip, as `imtrans.data.paired.PairedImages` does.
        weather: ``"clear" | "golden" | "overcast" | "dusk"``: all buildings have this sky, and light from the left,
            which a network cannot read from a label map. None draws both for each building. The buildings and their
            label maps do not depend on it.

    >>> sample = ProceduralFacades(4, size=32)[0]
    >>> sample["source"].shape, sample["target"].shape
    (torch.Size([3, 32, 32]), torch.Size([3, 32, 32]))
    """

    subject, content = "facade", ("labels", "pictures")

    def __init__(
        self, length: int, *, size: int = 128, seed: int = 0, augment: bool = True, weather: str | None = None
    ) -> None:
        super().__init__(length, size=size, seed=seed, augment=augment)
        self.weather = None if weather is None else one_of("ProceduralFacades", "weather", weather, WEATHERS)

    def draw_pair(self, index: int, size: int) -> tuple[Picture, Picture]:
        """Draw the label map and the picture of facade `index`."""
        photo, labels = draw_facade(self.seed, index, size, weather=self.weather)
        return labels, photo

    def describe_images(self) -> str:
        """Return the part of the ``repr`` about the pictures."""
        return super().describe_images() + (f" in {self.weather} weather" if self.weather else "")


class NightFacades(ProceduralPairs):
    """Facades by day (A) and the same ones by night (B), with lit windows and street lamps.

    Arguments, samples and errors are as in `imtrans.data.procedural.ProceduralPairs`.

    >>> NightFacades(4, size=32)
    4 procedural facades of seed 0, day to night, as Jitter(size=32, load_size=None, flip=True)
    """

    subject, content = "facade", ("day", "night")

    def draw_pair(self, index: int, size: int) -> tuple[Picture, Picture]:
        """Draw facade `index` by day and by night."""
        return draw_day_and_night(self.seed, index, size)


class LabFacades(DerivedPairs):
    """The pictures of `ProceduralFacades` in CIE Lab; samples as in `imtrans.data.derived.LabImages`.

    Arguments and errors are as for `ProceduralFacades`.

    >>> sample = LabFacades(4, size=32)[0]
    >>> sample["source"].shape, sample["target"].shape
    (torch.Size([1, 32, 32]), torch.Size([2, 32, 32]))
    """

    def __init__(self, length: int, *, size: int = 128, seed: int = 0, augment: bool = True) -> None:
        super().__init__(ProceduralFacades(length, size=size, seed=seed, augment=augment), "lab")


class UnpairedFacades(Unpaired):
    """Label maps of some procedural facades, and pictures of other ones.

    Samples are as in `imtrans.data.unpaired.UnpairedImages`. Other arguments and errors are as for `ProceduralFacades`.

    Args:
        length: the number of label maps, and of pictures.
        direction: ``"AtoB"``: label maps are the sources and pictures the targets; or ``"BtoA"``. Another one raises
            an ArgumentError.
    """

    def __init__(
        self, length: int, *, size: int = 128, seed: int = 0, augment: bool = True, direction: str = "AtoB"
    ) -> None:
        self.direction = one_of("UnpairedFacades", "direction", direction, DIRECTIONS)
        at_least("UnpairedFacades", "length", length, 1)
        pairs = ProceduralFacades(2 * length, size=size, seed=seed, augment=augment)
        self.jitter, self.augment, self.seed = pairs.jitter, augment, seed
        self.a = _OneOfPair(pairs, "source", self.names[0], range(0, 2 * length, 2))
        self.b = _OneOfPair(pairs, "target", self.names[1], range(1, 2 * length, 2))

    def __repr__(self) -> str:
        count = len(self)
        sides = f"labels of {count}, pictures of {count} other procedural facades of seed {self.seed}"
        return f"{sides}, {self.direction}, {self._describe_crops()}"


class _OneOfPair:
    """An image source: the images `key` of the pairs at `indices`, renamed to `name`."""

    def __init__(self, pairs: SingleSourceDataset, key: str, name: str, indices: range) -> None:
        self.pairs, self.key, self.name, self.indices = pairs, key, name, indices

    def __len__(self) -> int:
        return len(self.indices)

    def load(self, index: int) -> Batch:
        return {self.name: self.pairs.load(self.indices[index])[self.key]}
