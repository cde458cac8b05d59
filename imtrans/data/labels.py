"""Label maps: class ids from colours and back, and one-hot channels from ids."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from imtrans.checks import at_least
from imtrans.colours import Palette as Palette
from imtrans.colours import check_palette
from imtrans.errors import ArgumentError, ShapeError, join_names
from imtrans.nn.inputs import check_image


def one_hot(ids: Tensor, num_classes: int, *, instances: Tensor | None = None) -> Tensor:
    """Encode class ids as one channel per class, an input for a generator.

    It checks the ids, which waits for a CUDA device: use it when data is prepared, not in a training step.

    Shape: integers ``(b, h, w)`` or ``(b, 1, h, w)`` -> ``(b, num_classes, h, w)`` in {0, 1}, float32; one channel
    more with `instances`.

    Args:
        ids: from 0 to ``num_classes - 1``.
        instances: an integer for each object, in the shape of `ids`. Its `edges` become the last channel, which
            separates adjacent objects of one class.

    Raises:
        ArgumentError: ids out of range; ids or instances that are not integers.
        ShapeError: a tensor of another shape.

    Source: Wang et al. 2018 (arXiv:1711.11585), section 3.3.

    >>> one_hot(torch.tensor([[[0, 2]]]), 3)[0, :, 0].tolist()
    [[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]
    """
    at_least("one_hot", "num_classes", num_classes, 1)
    flat = _class_ids("one_hot", ids, num_classes, "num_classes")
    channels = rearrange(F.one_hot(flat, num_classes), "b h w k -> b k h w").float()
    if instances is None:
        return channels
    boundary = edges(instances)
    if boundary[:, 0].shape != flat.shape:
        raise ShapeError(
            f"one_hot: instances {tuple(instances.shape)} and ids {tuple(ids.shape)} must be of one batch and size."
        )
    return torch.cat([channels, boundary.to(channels.device)], dim=1)


def one_hot_from_colours(image: Tensor, palette: Palette, *, instances: Tensor | None = None) -> Tensor:
    """Encode a painted label map as `one_hot` does, by the classes of `palette`; errors as for `ids_from_colours`.

    Shape: ``(b, 3, h, w)`` in [-1, 1] -> ``(b, len(palette), h, w)`` in {0, 1}, float32; one channel more with
    `instances`.
    """
    return one_hot(ids_from_colours(image, palette), len(palette), instances=instances)


def edges(instances: Tensor) -> Tensor:
    """Mark the pixels with a neighbour (of four) that belongs to another object.

    Shape: integers ``(b, h, w)`` or ``(b, 1, h, w)`` -> ``(b, 1, h, w)`` in {0, 1}, float32. Errors and source as for
    `one_hot`.

    >>> edges(torch.tensor([[[7, 7, 7, 9]]])).tolist()
    [[[[0.0, 0.0, 1.0, 1.0]]]]
    """
    objects = _whole_numbers("edges", "instances", instances)
    down, right = objects.diff(dim=1) != 0, objects.diff(dim=2) != 0
    rows = F.pad(down, (0, 0, 1, 0)) | F.pad(down, (0, 0, 0, 1))
    columns = F.pad(right, (1, 0)) | F.pad(right, (0, 1))
    return (rows | columns)[:, None].float()


def ids_from_colours(image: Tensor, palette: Palette) -> Tensor:
    """Convert a painted label map to class ids: for each pixel, the class with the nearest colour.

    Shape: ``(b, 3, h, w)`` in [-1, 1] -> ``(b, h, w)``, int64.

    Raises:
        ArgumentError: an empty palette, or an invalid or repeated colour.
        ShapeError: not a batch of RGB images.

    >>> image = torch.tensor([-1.0, -0.9, 0.8])[None, :, None, None]  # nearly blue
    >>> ids_from_colours(image, [(0, 0, 0), (255, 0, 0), (0, 0, 255)]).item()
    2
    """
    check_image("ids_from_colours", image, 3)
    colours = _colours("ids_from_colours", palette, image.device)
    # One colour at a time needs less memory than a broadcast over all of them.
    distances = [(image.float() - colour[:, None, None]).square().sum(dim=1) for colour in colours]
    return torch.stack(distances).argmin(dim=0)


def colours_from_ids(ids: Tensor, palette: Palette) -> Tensor:
    """Paint a label map in the colours of `palette`, the inverse of `ids_from_colours`.

    Shape: integers ``(b, h, w)`` or ``(b, 1, h, w)`` -> ``(b, 3, h, w)`` in [-1, 1].
    Errors as for `one_hot` and `ids_from_colours`.

    >>> colours_from_ids(torch.tensor([[[1]]]), [(0, 0, 0), (255, 0, 0)]).flatten().tolist()
    [1.0, -1.0, -1.0]
    """
    colours = _colours("colours_from_ids", palette, ids.device)
    flat = _class_ids("colours_from_ids", ids, len(colours), "len(palette)")
    return rearrange(colours[flat], "b h w c -> b c h w").contiguous()


def _whole_numbers(owner: str, argument: str, ids: Tensor) -> Tensor:
    """Return the ids as int64 ``(b, h, w)``."""
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ArgumentError(
            f"{owner}: {argument} must be whole numbers, got {ids.dtype}. Use {argument}.long() if their values are."
        )
    if ids.ndim == 4 and ids.shape[1] == 1:
        ids = ids[:, 0]
    if ids.ndim != 3 or 0 in ids.shape:
        raise ShapeError(
            f"{owner}: expects {argument} (b, h, w) or (b, 1, h, w), got shape {tuple(ids.shape)}. "
            f"Add the batch axis with {argument}[None]."
        )
    # num_classes may exceed a small dtype, and torch has no comparison of unsigned integers beyond uint8.
    return ids.long()


def _class_ids(owner: str, ids: Tensor, classes: int, argument: str) -> Tensor:
    """Return the ids as int64 ``(b, h, w)``, each below `classes`."""
    flat = _whole_numbers(owner, "ids", ids)
    wrong = flat[(flat < 0) | (flat >= classes)].unique().tolist()
    if wrong:
        raise ArgumentError(
            f"{owner}: ids {join_names(wrong)} are out of range: with {argument}={classes} they go from 0 to "
            f"{classes - 1}. Raise the number of classes, or map such pixels to a class of their own first."
        )
    return flat


def _colours(owner: str, palette: Palette, device: torch.device) -> Tensor:
    """Return the palette as ``(classes, 3)`` in [-1, 1]."""
    return torch.tensor(check_palette(owner, palette), dtype=torch.float32, device=device) / 127.5 - 1
