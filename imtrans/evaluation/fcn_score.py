"""FCN-score: semantic segmentation of generated photos, by a network trained on real ones.

torchmetrics counts the confusion matrix. The scores are computed here, because its class means include classes that
occur only in the predictions.
"""

from collections.abc import Iterable
from itertools import zip_longest

import torch
from torch import Tensor, nn

from imtrans.checks import at_least
from imtrans.errors import ArgumentError, ShapeError
from imtrans.modes import running_as


class ConfusionMatrix:
    """Confusion matrix of pixels: `counts`, int64, with a row for each true class, a column for each predicted one.

    Args:
        num_classes: number of classes; ids go from 0 to ``num_classes - 1``.
        ignore: label of the pixels that are not counted; None counts all. It may lie outside the classes.

    Raises:
        ArgumentError: a value that is not allowed.

    >>> matrix = ConfusionMatrix(2)
    >>> matrix.add(torch.tensor([[0, 0, 1]]), torch.tensor([[0, 1, 1]]))
    >>> matrix.scores()
    {'pixel_accuracy': 0.6666666666666666, 'class_accuracy': 0.75, 'iou': 0.5}
    """

    def __init__(self, num_classes: int, *, ignore: int | None = None) -> None:
        self.num_classes = at_least("ConfusionMatrix", "num_classes", num_classes, 1)
        if ignore is not None and (isinstance(ignore, bool) or not isinstance(ignore, int)):
            raise ArgumentError(f"ConfusionMatrix: ignore must be None or a class id, got {ignore!r}.")
        self.ignore = ignore
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)

    def add(self, found: Tensor, labels: Tensor) -> None:
        """Count a batch of predicted ids, `found`, and true ids, of one shape, usually ``(b, h, w)``.

        Raises:
            ShapeError: the shapes differ.
            ArgumentError: ids that are not integers, or are out of range.
        """
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        if found.shape != labels.shape:
            raise ShapeError(f"ConfusionMatrix: found {tuple(found.shape)} and labels {tuple(labels.shape)} differ.")
        counted = torch.ones_like(labels, dtype=torch.bool) if self.ignore is None else labels != self.ignore
        for name, ids in (("found", found), ("labels", labels)):
            if ids.is_floating_point():
                raise ArgumentError(f"ConfusionMatrix: {name} must be integer class ids, got {ids.dtype}.")
            ids = ids[counted]
            if ids.numel() and not (ids.min() >= 0 and ids.max() < self.num_classes):
                raise ArgumentError(
                    f"ConfusionMatrix: {name} has ids from {ids.min()} to {ids.max()}, and num_classes="
                    f"{self.num_classes} allows 0 to {self.num_classes - 1}. Give pixels without a class the id of "
                    "ignore=."
                )
        found, labels = found[counted].long(), labels[counted].long()
        self.counts += multiclass_confusion_matrix(found, labels, self.num_classes, validate_args=False).cpu()

    def scores(self) -> dict[str, float]:
        """Return ``pixel_accuracy``, ``class_accuracy`` and ``iou``, each in [0, 1]; NaN if no pixel was counted.

        ``class_accuracy`` (recall) and ``iou`` (intersection over union) are means over the classes in the labels.

        Source: Long et al. 2015, "Fully Convolutional Networks for Semantic Segmentation", section 5.
        """
        counts = self.counts.double()
        hits, labelled, predicted = counts.diag(), counts.sum(1), counts.sum(0)
        present = labelled > 0
        return {
            "pixel_accuracy": (hits.sum() / labelled.sum()).item(),
            "class_accuracy": (hits / labelled)[present].mean().item(),
            "iou": (hits / (labelled + predicted - hits))[present].mean().item(),
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

    A realistic photo is segmented correctly. Score the real photos first: their score, below 1, is the upper bound.
    `ConfusionMatrix.scores` explains the values returned.

    Args:
        generated: photos ``(b, c, h, w)`` in [-1, 1], or an iterable of such batches, which are scored as one set.
        labels: class ids ``(b, h, w)``, or an iterable of such batches; see `imtrans.data.labels.ids_from_colours`.
        segmenter: maps photos to logits ``(b, num_classes, h, w)``; runs in eval mode, on its device.
        ignore: label of the pixels that are not scored; None scores all.

    Raises:
        ShapeError: photos and labels differ in number or size, or the segmenter changes the size.
        ArgumentError: labels that are not class ids of the segmenter, or no photos.

    Source: Isola et al. 2017, section 4.1.

    >>> segmenter = nn.Conv2d(3, 2, 1)
    >>> photos, ids = torch.rand(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.int64)
    >>> sorted(fcn_score(photos, ids, segmenter))
    ['class_accuracy', 'iou', 'pixel_accuracy']
    """
    weight = next(segmenter.parameters(), torch.empty(0))
    matrix: ConfusionMatrix | None = None
    batches = ([tensors] if isinstance(tensors, Tensor) else tensors for tensors in (generated, labels))
    with running_as(segmenter, "eval"):
        for photos, ids in zip_longest(*batches):
            if photos is None or ids is None or photos.shape[:1] + photos.shape[-2:] != ids.shape:
                shapes = [None if t is None else tuple(t.shape) for t in (photos, ids)]
                raise ShapeError(
                    f"fcn_score: generated and labels do not match: a batch has {shapes[0]} and {shapes[1]}. Each "
                    "photo (c, h, w) needs class ids (h, w)."
                )
            logits = segmenter(photos.to(weight.device, weight.dtype))
            if logits.shape[-2:] != ids.shape[-2:]:
                raise ShapeError(
                    f"fcn_score: the segmenter maps photos {tuple(photos.shape)} to {tuple(logits.shape)}. It must "
                    "return logits for each pixel."
                )
            matrix = matrix or ConfusionMatrix(logits.shape[1], ignore=ignore)
            matrix.add(logits.argmax(dim=1), ids.to(logits.device))
    if matrix is None:
        raise ArgumentError("fcn_score: generated has no photos.")
    return matrix.scores()
