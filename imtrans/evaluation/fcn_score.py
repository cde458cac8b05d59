"""The FCN-score: can a network that knows real photos read the generated ones?"""

from collections.abc import Iterable
from itertools import zip_longest

import torch
from torch import Tensor, nn

from imtrans.checks import at_least
from imtrans.errors import ArgumentError, ShapeError
from imtrans.modes import running_as


class ConfusionMatrix:
    """Counts, pixel by pixel, which class was found where which one is.

    Args:
        num_classes: how many there are; ids go from 0 to ``num_classes - 1``.
        ignore: the id of pixels that nobody labelled, which do not count; None if there are none. It may lie outside
            the classes.

    Raises:
        ArgumentError: a value that is not allowed.

    >>> matrix = ConfusionMatrix(2)
    >>> matrix.add(torch.tensor([[0, 0, 1]]), torch.tensor([[0, 1, 1]]))
    >>> matrix.scores()
    {'pixel_accuracy': 0.6666666666666666, 'class_accuracy': 0.75, 'iou': 0.5}
    """

    counts: Tensor
    """``(num_classes, num_classes)``, int64: a row for each true class, a column for each one found."""

    def __init__(self, num_classes: int, *, ignore: int | None = None) -> None:
        self.num_classes = at_least("ConfusionMatrix", "num_classes", num_classes, 1)
        if ignore is not None and (isinstance(ignore, bool) or not isinstance(ignore, int)):
            raise ArgumentError(f"ConfusionMatrix: ignore must be None or a class id, got {ignore!r}.")
        self.ignore = ignore
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def add(self, found: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Shape: two tensors of ids of one shape, ``(b, h, w)`` as a rule.

        Raises:
            ShapeError: the shapes differ.
            ArgumentError: ids that are no whole numbers, or are out of range.
        """
        if found.shape != labels.shape:
            raise ShapeError(f"ConfusionMatrix: found {tuple(found.shape)} and labels {tuple(labels.shape)} differ.")
        for name, ids in (("found", found), ("labels", labels)):
            if ids.is_floating_point():
                raise ArgumentError(f"ConfusionMatrix: {name} must be class ids, whole numbers, got {ids.dtype}.")
        found, labels = found.flatten().long(), labels.flatten().long()
        if self.ignore is not None:
            counted = labels != self.ignore
            found, labels = found[counted], labels[counted]
        for name, ids in (("found", found), ("labels", labels)):
            if ids.numel() and not (ids.min() >= 0 and ids.max() < self.num_classes):
                raise ArgumentError(
                    f"ConfusionMatrix: {name} has ids from {ids.min()} to {ids.max()}, and num_classes="
                    f"{self.num_classes} allows 0 to {self.num_classes - 1}. Pixels without a class can have the id "
                    "that ignore= names."
                )
        pairs = torch.bincount(labels * self.num_classes + found, minlength=self.num_classes**2)
        self.counts += pairs.reshape(self.num_classes, self.num_classes).cpu()

    def scores(self) -> dict[str, float]:
        """``pixel_accuracy``, ``class_accuracy`` and ``iou``, each in [0, 1].

        The last two are means over the classes that the labels have: of the share of a class's pixels that was found,
        and of intersection over union. NaN if nothing was counted.

        Source: Long et al. 2015, "Fully Convolutional Networks for Semantic Segmentation", section 5.
        """
        right, there, seen = self.counts.diag().double(), self.counts.sum(1).double(), self.counts.sum(0).double()
        present = there > 0
        union = there + seen - right
        return {
            "pixel_accuracy": (right.sum() / there.sum()).item(),
            "class_accuracy": (right / there)[present].mean().item(),
            "iou": (right / union)[present].mean().item(),
        }


@torch.no_grad()
def fcn_score(
    generated: Tensor | Iterable[Tensor],
    labels: Tensor | Iterable[Tensor],
    segmenter: nn.Module,
    *,
    ignore: int | None = None,
) -> dict[str, float]:
    """Segment generated photos with a network trained on real ones, and compare with the labels they were made from.

    The better a photo, the more of its objects are recognised. Score the real photos first: theirs is the score to
    reach, and it is below 1.

    Shape: `generated` ``(b, c, h, w)`` in [-1, 1]; `labels` ``(b, h, w)``, class ids; or two iterables of such
    batches, which are counted as one set.

    Args:
        generated: photos that a generator made of `labels`.
        labels: the ids; see `imtrans.data.labels.ids_from_colours`.
        segmenter: maps photos to logits ``(b, num_classes, h, w)``; it is run in evaluation mode, on its device.
        ignore: the id of pixels that nobody labelled; None if there are none.

    Returns:
        ``{"pixel_accuracy": ..., "class_accuracy": ..., "iou": ...}``, see `ConfusionMatrix.scores`.

    Raises:
        ShapeError: photos and labels that differ in number or size, or a segmenter that gives another size.
        ArgumentError: labels that are no ids of the segmenter, or no photos at all.

    Source: Isola et al. 2017, section 4.1.

    >>> blue_or_not = nn.Conv2d(3, 2, 1)
    >>> photos, ids = torch.rand(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.int64)
    >>> sorted(fcn_score(photos, ids, blue_or_not))
    ['class_accuracy', 'iou', 'pixel_accuracy']
    """
    weight = next(segmenter.parameters(), torch.empty(0))
    matrix: ConfusionMatrix | None = None
    with running_as(segmenter, "eval"):
        for photos, ids in zip_longest(_batches(generated), _batches(labels)):
            if photos is None or ids is None or photos.shape[:1] + photos.shape[-2:] != ids.shape:
                shapes = [None if t is None else tuple(t.shape) for t in (photos, ids)]
                raise ShapeError(
                    f"fcn_score: generated and labels do not fit: {shapes[0]} beside {shapes[1]} in one batch. "
                    "For each photo (c, h, w) there must be class ids (h, w)."
                )
            logits = segmenter(photos.to(weight.device, weight.dtype))
            if logits.shape[-2:] != ids.shape[-2:]:
                raise ShapeError(
                    f"fcn_score: the segmenter made {tuple(logits.shape)} of photos {tuple(photos.shape)}. It must "
                    "give logits of each pixel."
                )
            matrix = matrix or ConfusionMatrix(logits.shape[1], ignore=ignore)
            matrix.add(logits.argmax(dim=1), ids.to(logits.device))
    if matrix is None:
        raise ArgumentError("fcn_score: there are no photos to score.")
    return matrix.scores()


def _batches(tensors: Tensor | Iterable[Tensor]) -> Iterable[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else tensors
