import json
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from imtrans import fcn_score
from imtrans.errors import ArgumentError, ShapeError
from imtrans.evaluation.fcn_score import ConfusionMatrix


def matrix_of(found, labels, num_classes, **settings):
    matrix = ConfusionMatrix(num_classes, **settings)
    matrix.add(torch.tensor(found), torch.tensor(labels))
    return matrix


def test_a_matrix_by_hand():
    matrix = matrix_of([[0, 0, 0, 1, 1, 2]], [[0, 0, 1, 1, 1, 1]], 3)
    assert matrix.counts.tolist() == [[2, 0, 0], [1, 2, 1], [0, 0, 0]]
    scores = matrix.scores()
    assert scores == {
        "pixel_accuracy": pytest.approx(4 / 6),
        "class_accuracy": pytest.approx((1 + 2 / 4) / 2),
        "iou": pytest.approx((2 / 3 + 2 / 4) / 2),
    }
    assert json.loads(json.dumps(scores)) == scores


@given(seed=st.integers(0, 2**16), classes=st.integers(1, 5))
def test_the_scores_are_those_of_the_formulas_pixel_by_pixel(seed, classes):
    rng = np.random.default_rng(seed)
    found, labels = rng.integers(0, classes, (2, 3, 4, 5))
    labels[rng.random(labels.shape) < 0.2] = 99
    scores = matrix_of(found, labels, classes, ignore=99).scores()
    here = labels != 99
    present = [k for k in range(classes) if (labels == k).any()]
    recalls = [(found[labels == k] == k).mean() for k in present]
    ious = [((found == k) & (labels == k)).sum() / ((((found == k) & here) | (labels == k)).sum()) for k in present]
    assert scores["pixel_accuracy"] == pytest.approx((found == labels)[here].mean())
    assert scores["class_accuracy"] == pytest.approx(np.mean(recalls))
    assert scores["iou"] == pytest.approx(np.mean(ious))


def test_batches_add_up_to_one_set():
    found, labels = torch.randint(0, 4, (2, 6, 8, 8))
    whole, parts = ConfusionMatrix(4), ConfusionMatrix(4)
    whole.add(found, labels)
    for part in (slice(0, 1), slice(1, 6)):
        parts.add(found[part], labels[part])
    assert torch.equal(whole.counts, parts.counts)
    assert whole.counts.sum() == found.numel()


def test_a_class_that_the_labels_lack_is_no_mean_s_part_but_costs_where_it_is_found():
    assert matrix_of([[0, 0]], [[0, 0]], 7).scores() == {"pixel_accuracy": 1, "class_accuracy": 1, "iou": 1}
    assert matrix_of([[0, 3]], [[0, 0]], 7).scores() == {"pixel_accuracy": 0.5, "class_accuracy": 0.5, "iou": 0.5}


def test_an_ignored_class_is_not_counted_and_finding_it_is_wrong():
    matrix = matrix_of([[1, 0, 0]], [[0, 0, 1]], 2, ignore=0)
    assert matrix.counts.tolist() == [[0, 0], [1, 0]]


def test_nothing_counted_has_no_score():
    assert all(math.isnan(value) for value in matrix_of([[0]], [[0]], 2, ignore=0).scores().values())


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: ConfusionMatrix(0), "ConfusionMatrix: num_classes must be a whole number >= 1, got 0."),
        (lambda: ConfusionMatrix(2, ignore=True), "ConfusionMatrix: ignore must be None or a class id, got True."),
        (
            lambda: matrix_of([[0, 1]], [[0, 2]], 2),
            "ConfusionMatrix: labels has ids from 0 to 2, and num_classes=2 allows 0 to 1. Give pixels without a "
            "class the id of ignore=.",
        ),
        (lambda: matrix_of([[-1]], [[0]], 2), "ConfusionMatrix: found has ids from -1 to -1, and num_classes=2"),
        (lambda: matrix_of([[0.5]], [[0]], 2), "found must be integer class ids, got torch.float32."),
    ],
)
def test_what_is_no_class_is_refused(act, message):
    with pytest.raises(ArgumentError, match=re.escape(message)):
        act()


def test_two_shapes_are_refused():
    with pytest.raises(ShapeError, match=re.escape("ConfusionMatrix: found (1, 2) and labels (2, 1) differ.")):
        matrix_of([[0, 1]], [[0], [1]], 2)


class Reds(nn.Module):
    """Class 1 where a photo is red; it must not be in training mode, nor learn."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1, affine=False)
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, photos):
        assert not self.training
        red = self.norm(photos[:, :1]) * self.weight
        return torch.cat([-red, red], dim=1)


def photos_and_labels(count=4):
    labels = torch.randint(0, 2, (count, 6, 7))
    return torch.where(labels[:, None] == 1, 0.9, -0.9).expand(-1, 3, -1, -1), labels


def test_photos_that_show_their_labels_have_the_full_score_and_others_have_not():
    segmenter = Reds()
    photos, labels = photos_and_labels()
    assert fcn_score(photos, labels, segmenter) == {"pixel_accuracy": 1, "class_accuracy": 1, "iou": 1}
    assert fcn_score(-photos, labels, segmenter)["pixel_accuracy"] == 0
    assert segmenter.training
    assert segmenter.norm.num_batches_tracked == 0
    assert segmenter.weight.grad is None


def test_batches_of_any_iterable_score_as_one_set():
    photos, labels = photos_and_labels()
    photos = photos + torch.randn(photos.shape)
    whole = fcn_score(photos, labels, Reds(), ignore=0)
    assert whole == fcn_score(photos.split(3), (part for part in labels.split(3)), Reds(), ignore=0)
    assert whole["pixel_accuracy"] < 1


@pytest.mark.parametrize(
    ("generated", "labels", "message"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(1, 4, 4).long(), "(2, 3, 4, 4) and (1, 4, 4)"),
        (torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 5).long(), "(1, 3, 4, 4) and (1, 4, 5)"),
        ([torch.zeros(1, 3, 4, 4)] * 2, [torch.zeros(1, 4, 4).long()], "(1, 3, 4, 4) and None"),
        ([], [torch.zeros(1, 4, 4).long()], "None and (1, 4, 4)"),
    ],
)
def test_photos_without_their_labels_are_refused(generated, labels, message):
    whole = f"fcn_score: generated and labels do not match: a batch has {message}. Each photo (c, h, w) needs class ids"
    with pytest.raises(ShapeError, match=re.escape(whole)):
        fcn_score(generated, labels, Reds())


def test_no_photos_are_refused_and_so_is_a_segmenter_of_another_size():
    with pytest.raises(ArgumentError, match=re.escape("fcn_score: generated has no photos.")):
        fcn_score([], [], Reds())
    message = "fcn_score: the segmenter maps photos (1, 3, 4, 4) to (1, 2, 2, 2). It must return logits for each pixel."
    with pytest.raises(ShapeError, match=re.escape(message)):
        fcn_score(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4).long(), nn.Conv2d(3, 2, 2, 2))
