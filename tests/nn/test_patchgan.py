"""PatchDiscriminator and PixelDiscriminator: what they promise beside the contract of all networks."""

import copy

import pytest
import torch
from networks import (
    images_for,
    same,
)

from imtrans import (
    PatchDiscriminator,
    PixelDiscriminator,
)
from imtrans.errors import ArgumentError, ShapeError


def test_spectral_norm_compiles_as_one_graph_in_training_mode():
    torch._dynamo.reset()
    network = PatchDiscriminator(base_channels=4, n_layers=1, spectral_norm=True)
    compiled = torch.compile(copy.deepcopy(network), fullgraph=True, backend="eager")
    images = images_for(network)
    assert same(compiled(images), network(images))


def test_a_discriminator_refuses_an_image_that_its_layers_eat_up():
    with pytest.raises(ShapeError) as caught:
        PatchDiscriminator(base_channels=1)(torch.zeros(1, 6, 20, 32))
    assert str(caught.value) == (
        "PatchDiscriminator: an image of 20x32 is too small for 5 layers. Use larger images or fewer layers."
    )


@pytest.mark.parametrize(
    ("norm", "batch", "kind"),
    [("batch", 1, "BatchNorm2d"), ("instance", 1, "InstanceNorm2d"), ("instance", 2, "InstanceNorm2d")],
)
def test_a_discriminator_refuses_an_image_of_which_a_norm_would_see_one_value(norm, batch, kind):
    network = PatchDiscriminator(base_channels=1, n_layers=1, norm=norm)
    with pytest.raises(ShapeError) as caught:
        network(torch.zeros(batch, 6, 4, 4))
    assert str(caught.value) == (
        f"PatchDiscriminator: the image is so small that a {kind} inside would see a single value "
        f"(batch {batch}, 1x1 there) and return zeros. Use a larger image, or norm='group'."
    )


def test_one_pixel_is_enough_for_a_pixel_discriminator_that_does_not_normalise_it_alone():
    one_pixel = torch.zeros(1, 6, 1, 1)
    network = PixelDiscriminator(base_channels=1)
    with pytest.raises(ShapeError, match="would see a single value"):
        network(one_pixel)
    assert network(one_pixel.expand(2, -1, -1, -1)).shape == (2, 1, 1, 1)
    assert network.eval()(one_pixel).shape == (1, 1, 1, 1)


@pytest.mark.parametrize(("n_layers", "size"), [(1, 16), (2, 34), (3, 70), (4, 142), (5, 286), (6, 574)])
def test_the_receptive_field_and_its_inverse(n_layers, size):
    assert PatchDiscriminator(base_channels=1, n_layers=n_layers).receptive_field == size
    found = PatchDiscriminator.for_receptive_field(size, 3, base_channels=1, norm="none")
    assert found.config == PatchDiscriminator(3, base_channels=1, n_layers=n_layers, norm="none").config


def test_the_pixel_discriminator_sees_one_pixel():
    assert PixelDiscriminator().receptive_field == 1


@pytest.mark.parametrize(
    ("size", "nearest"),
    [
        (69, "34 and 70"),
        (71, "70 and 142"),
        (3, "1 (a PixelDiscriminator) and 16"),
    ],
)
def test_a_receptive_field_that_no_stack_has_is_refused_with_the_nearest(size, nearest):
    with pytest.raises(ArgumentError) as caught:
        PatchDiscriminator.for_receptive_field(size)
    assert str(caught.value) == (
        f"PatchDiscriminator: no n_layers gives a receptive field of {size}. The nearest are {nearest}."
    )


def test_a_receptive_field_of_one_pixel_is_another_class():
    with pytest.raises(ArgumentError) as caught:
        PatchDiscriminator.for_receptive_field(1, 4)
    assert str(caught.value) == (
        "PatchDiscriminator: the smallest receptive field is 16. For single pixels, use PixelDiscriminator(4)."
    )


@pytest.mark.parametrize(("n_layers", "size"), [(1, 126), (2, 62), (3, 30), (4, 14), (5, 6), (6, 2)])
def test_the_logit_map_of_a_256_image(n_layers, size):
    with torch.device("meta"):
        logits = PatchDiscriminator(base_channels=1, n_layers=n_layers)(torch.zeros(1, 6, 256, 256))
        assert logits.shape == (1, 1, size, size)
        assert PixelDiscriminator(base_channels=1)(torch.zeros(1, 6, 256, 256)).shape == (1, 1, 256, 256)


def test_the_discriminator_has_no_norm_on_its_first_and_last_convolution_and_biases_there():
    layers = PatchDiscriminator(base_channels=2).layers
    assert [type(layer.norm).__name__ for layer in layers] == ["Identity", *["BatchNorm2d"] * 3, "Identity"]
    assert [layer.conv.bias is not None for layer in layers] == [True, False, False, False, True]
    layers = PatchDiscriminator(base_channels=2, bias=True, first_bias=False).layers
    assert [layer.conv.bias is not None for layer in layers] == [False, True, True, True, True]
    with pytest.raises(ArgumentError, match=r"^PatchDiscriminator: first_bias must be True or False, got None\.$"):
        PatchDiscriminator(first_bias=None)


def test_the_discriminator_of_tensorflow_sees_70_pixels():
    assert PatchDiscriminator.preset("tensorflow/patchgan", base_channels=1).receptive_field == 70


@pytest.mark.parametrize("cls", [PatchDiscriminator, PixelDiscriminator])
def test_spectral_norm_makes_the_largest_singular_value_of_each_convolution_1(cls):
    torch.manual_seed(0)
    network = cls(base_channels=4, spectral_norm=True)
    images = torch.rand(1, 6, 64, 64)
    for _ in range(30):  # one power iteration each
        network(images).sum().backward()
    for layer in network.layers:
        assert torch.linalg.matrix_norm(layer.conv.weight.flatten(1), 2).item() == pytest.approx(1, rel=0.05)
        assert layer.conv.parametrizations.weight.original.grad.abs().sum() > 0
