import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imtrans import ProceduralFacades
from imtrans.data.facades.plan import LABELS
from imtrans.data.labels import colours_from_ids, edges, ids_from_colours, one_hot
from imtrans.errors import ArgumentError, ShapeError

RGB = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def random_ids(seed, size, classes):
    return torch.randint(classes, (2, *size), generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 2**16), st.tuples(st.integers(1, 6), st.integers(1, 6)), st.integers(1, 9), st.booleans())
def test_each_pixel_is_1_in_the_channel_of_its_class_alone(seed, size, classes, with_channel):
    ids = random_ids(seed, size, classes)
    hot = one_hot(ids[:, None] if with_channel else ids, classes)
    assert hot.shape == (2, classes, *size)
    assert hot.dtype == torch.float32
    assert torch.equal(hot.argmax(dim=1), ids)
    assert torch.equal(hot.sum(dim=1), torch.ones(2, *size))
    assert set(hot.unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32])
def test_ids_of_any_whole_numbers(dtype):
    ids = random_ids(0, (3, 4), 5)
    assert torch.equal(one_hot(ids.to(dtype), 5), one_hot(ids, 5))
    assert torch.equal(edges(ids.to(dtype)), edges(ids))


@pytest.mark.parametrize(("dtype", "classes"), [(torch.int8, 128), (torch.uint8, 256), (torch.uint8, 300)])
def test_there_may_be_more_classes_than_the_ids_have_numbers(dtype, classes):
    ids = torch.tensor([[[0, 44, 127]]], dtype=dtype)
    assert one_hot(ids, classes).argmax(dim=1).tolist() == [[[0, 44, 127]]]
    palette = [(i % 256, i // 256, 0) for i in range(classes)]
    assert torch.equal(ids_from_colours(colours_from_ids(ids, palette), palette), ids.long())


@given(st.integers(0, 2**16), st.tuples(st.integers(1, 5), st.integers(1, 5)))
def test_an_edge_is_where_one_of_four_neighbours_is_another_object(seed, size):
    objects = random_ids(seed, size, 3)
    found = edges(objects)
    assert found.shape == (2, 1, *size)
    for b, y, x in ((b, y, x) for b in range(2) for y in range(size[0]) for x in range(size[1])):
        around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
        inside = [(v, u) for v, u in around if 0 <= v < size[0] and 0 <= u < size[1]]
        assert found[b, 0, y, x].item() == any(objects[b, v, u] != objects[b, y, x] for v, u in inside)


def test_the_edges_of_instances_are_the_last_channel():
    ids, instances = torch.zeros(1, 2, 4, dtype=torch.long), torch.tensor([[[1, 1, 2, 2], [1, 1, 2, 2]]])
    hot = one_hot(ids, 2, instances=instances)
    assert hot.shape == (1, 3, 2, 4)
    assert torch.equal(hot[:, :2], one_hot(ids, 2))
    assert hot[0, 2].tolist() == [[0, 1, 1, 0]] * 2


def test_ids_out_of_range_are_named():
    ids = torch.tensor([[[0, 3, -1, 255, 255]]])
    with pytest.raises(ArgumentError, match=re.escape("one_hot: ids -1, 3, 255 are out of range: with num_classes=3")):
        one_hot(ids, 3)
    with pytest.raises(ArgumentError, match=re.escape("colours_from_ids: ids -1, 3, 255 are out of range")):
        colours_from_ids(ids, RGB)
    many = torch.arange(20).reshape(1, 4, 5)
    with pytest.raises(ArgumentError, match=re.escape("ids 3, 4, 5, 6, 7 and 12 more are out of range")):
        one_hot(many, 3)


@pytest.mark.parametrize("call", [lambda ids: one_hot(ids, 3), edges, lambda ids: colours_from_ids(ids, RGB)])
def test_what_is_no_id_map(call):
    for dtype in (torch.float32, torch.bool):
        with pytest.raises(ArgumentError, match=r"must be whole numbers, got torch\.\w+\. Use \w+\.long\(\)"):
            call(torch.zeros(1, 2, 2, dtype=dtype))
    for shape in ((2, 2), (1, 3, 2, 2), (1, 0, 2)):
        with pytest.raises(ShapeError, match=re.escape(f"got shape {shape}. Add the batch axis")):
            call(torch.zeros(shape, dtype=torch.long))


def test_one_hot_refuses_other_arguments():
    ids = torch.zeros(1, 2, 2, dtype=torch.long)
    with pytest.raises(ArgumentError, match="num_classes must be a whole number >= 1, got 0"):
        one_hot(ids, 0)
    with pytest.raises(ShapeError, match=re.escape("instances (1, 2, 3) and ids (1, 2, 2) must be of one batch")):
        one_hot(ids, 2, instances=torch.zeros(1, 2, 3, dtype=torch.long))


@given(st.integers(0, 2**16), st.floats(0, 0.3))
def test_painted_ids_are_read_back_through_a_blur(seed, noise):
    """No two of these colours are nearer than 85 of 255: 2/3 in [-1, 1]; half of it, in all three, is no harm."""
    ids = random_ids(seed, (5, 4), len(LABELS))
    painted = colours_from_ids(ids, LABELS.values())
    assert painted.shape == (2, 3, 5, 4)
    blurred = painted + noise * torch.nn.functional.normalize(torch.randn(painted.shape), dim=1)
    assert torch.equal(ids_from_colours(blurred, LABELS.values()), ids)


def test_colours_are_those_of_the_palette():
    assert colours_from_ids(torch.tensor([[[2, 0]]]), RGB)[0, :, 0].tolist() == [[-1, 1], [-1, -1], [1, -1]]
    ids = ids_from_colours(ProceduralFacades(1, size=32, augment=False)[0]["source"][None], LABELS.values())
    assert ids.dtype == torch.int64
    assert len(ids.unique()) > 2


def test_equally_near_colours_give_the_first():
    assert ids_from_colours(torch.zeros(1, 3, 1, 1), [(0, 0, 0), (255, 255, 255)]).item() == 0


@pytest.mark.parametrize(
    ("palette", "said"),
    [
        ([], "the palette is empty"),
        ([(0, 0, 0), (1, 1, 1), (0, 0, 0)], "the palette has (0, 0, 0) more than once"),
        ([(0, 0)], "three whole numbers from 0 to 255, got (0, 0)"),
        ([(0, 0, 256)], "three whole numbers from 0 to 255, got (0, 0, 256)"),
        ([(0.5, 0, 0)], "three whole numbers from 0 to 255, got (0.5, 0, 0)"),
    ],
)
def test_what_is_no_palette(palette, said):
    with pytest.raises(ArgumentError, match=re.escape(f"ids_from_colours: {'a colour of ' * ('three' in said)}")) as e:
        ids_from_colours(torch.zeros(1, 3, 2, 2), palette)
    assert said in str(e.value)
    with pytest.raises(ArgumentError, match=r"^colours_from_ids: "):
        colours_from_ids(torch.zeros(1, 2, 2, dtype=torch.long), palette)


def test_a_label_map_in_colours_is_an_image():
    with pytest.raises(ShapeError, match=re.escape("ids_from_colours: expects images (b, 3, h, w)")):
        ids_from_colours(torch.zeros(3, 4, 4), RGB)
    with pytest.raises(ArgumentError, match="ids_from_colours: expects float images"):
        ids_from_colours(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), RGB)
