"""The noise of UNetGenerator, at the input and at the bottleneck; a network without noise is as it was."""

import copy
import re

import numpy as np
import pytest
import torch

from imtrans import UNetGenerator, load_pretrained, mode_seeking_loss, receptive_field
from imtrans.errors import ArgumentError, ShapeError
from imtrans.nn.noise import append_noise, draw_noise, noise_channels

PLACES = ("input", "bottleneck")
OPTIONS = [
    {},
    {"depth": 1},
    {"stem": True, "downsample": "pool", "num_convs": 2, "deconv_size": 2, "norm": "none"},
    {"attention": (0, 2), "norm": "group", "upsample": "shuffle"},
    {"skips": "none", "norm": "instance", "downsample": "blur", "upsample": "nearest"},
    {"base_channels": 64, "channels": (3, 5, 7)},
]


def build(noise_at, **changes):
    return UNetGenerator(**{"base_channels": 4, "depth": 3, "noise_channels": 5, "noise_at": noise_at, **changes})


def images(size=(32, 32), **kwargs):
    return torch.rand(2, 3, *size, **kwargs) * 2 - 1


@pytest.mark.parametrize("noise_at", PLACES)
@pytest.mark.parametrize("changes", OPTIONS, ids=str)
def test_the_output_depends_on_the_noise_and_backward_reaches_it_and_every_parameter(noise_at, changes):
    network = build(noise_at, **changes)
    source, noise = images((30, 37)).requires_grad_(), torch.randn(2, 5).requires_grad_()
    output = network(source, noise)
    assert output.shape == (2, 3, 30, 37)
    (output - torch.rand_like(output)).square().sum().backward()
    for tensor in (source, noise, *network.parameters()):
        assert tensor.grad.isfinite().all()
    assert noise.grad.abs().sum(dim=1).min() > 0
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize("noise_at", PLACES)
@pytest.mark.parametrize("changes", OPTIONS, ids=str)
def test_saved_and_loaded_it_gives_equal_outputs(noise_at, changes, tmp_path):
    network = build(noise_at, **changes)
    network(images())
    network.save_pretrained(tmp_path)
    network.eval()
    source, noise = images(), torch.randn(2, 5)
    loaded = load_pretrained(tmp_path)
    assert loaded.config == network.config
    assert (loaded.noise_channels, loaded.noise_at) == (5, noise_at)
    assert torch.equal(loaded(source, noise), network(source, noise))
    assert torch.equal(copy.deepcopy(network)(source, noise), network(source, noise))


def test_a_file_of_before_has_no_noise(tmp_path):
    UNetGenerator(base_channels=4, depth=3).save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    text = re.sub(r',\s*"noise_(channels|at)": [^,}\n]+', "", config.read_text())
    assert "noise" not in text
    config.write_text(text)
    assert load_pretrained(tmp_path).noise_channels == 0


@pytest.mark.parametrize("noise_at", PLACES)
@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
def test_without_noise_it_is_drawn_from_the_global_generator(noise_at, mode):
    network, source = build(noise_at, dropout=()).train(mode), images()
    torch.manual_seed(3)
    drawn = network(source)
    assert not torch.equal(network(source), drawn)
    torch.manual_seed(3)
    assert torch.equal(network(source), drawn)
    torch.manual_seed(3)
    assert torch.equal(network(source, draw_noise(source, 5)), drawn)


def test_a_network_without_noise_draws_nothing_and_has_the_same_tensors():
    """Bit for bit: the same initial weights and outputs, and no random number more."""
    torch.manual_seed(3)
    network = UNetGenerator(base_channels=4, depth=3)
    state = torch.get_rng_state()
    torch.manual_seed(3)
    same = UNetGenerator(base_channels=4, depth=3, noise_channels=0)
    assert torch.equal(torch.get_rng_state(), state)
    network.eval()
    network(images())
    images()
    assert not torch.equal(torch.get_rng_state(), state)
    torch.set_rng_state(state)
    source = images()
    state = torch.get_rng_state()
    output = network(source)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(same.eval()(source, None), output)
    assert noise_channels(network) == noise_channels(torch.nn.Identity()) == 0


def test_the_noise_is_constant_over_the_image():
    x, noise = torch.rand(2, 3, 4, 5), torch.randn(2, 6)
    made = append_noise(x, noise)
    assert torch.equal(made[:, :3], x)
    assert torch.equal(made[:, 3:], noise[:, :, None, None].expand(2, 6, 4, 5))
    assert append_noise(x, None) is x


@pytest.mark.parametrize(("noise_at", "wide"), [("input", "encoder.0.conv"), ("bottleneck", "decoder.0.up")])
def test_one_convolution_is_wider_and_the_others_are_as_they_were(noise_at, wide):
    plain, noisy = UNetGenerator(base_channels=4, depth=3).state_dict(), build(noise_at).state_dict()
    assert list(plain) == list(noisy)
    assert [name for name in plain if plain[name].shape != noisy[name].shape] == [f"{wide}.weight"]


@pytest.mark.parametrize("noise_at", PLACES)
def test_one_image_has_one_noise(noise_at):
    """Each image of a batch depends on its own noise alone."""
    network, source, noise = build(noise_at).eval(), images(), torch.randn(2, 5)
    other = torch.stack([noise[0], noise[1] + 1])
    one, two = network(source, noise), network(source, other)
    assert torch.equal(one[0], two[0])
    assert not torch.equal(one[1], two[1])


@pytest.mark.parametrize("noise_at", PLACES)
def test_it_is_compiled_and_exported_with_the_noise_as_an_input(noise_at):
    torch._dynamo.reset()
    network, source, noise = build(noise_at).eval(), images(), torch.randn(2, 5)
    expected = network(source, noise)
    assert torch.equal(torch.compile(network, fullgraph=True, backend="eager")(source, noise), expected)
    exported = torch.export.export(network, (source, noise), strict=False).module()
    assert torch.equal(exported(source, noise), expected)
    assert not torch.equal(exported(source, noise + 1), expected)


@pytest.mark.parametrize("noise_at", PLACES)
def test_other_formats_and_precisions(noise_at):
    network, source, noise = build(noise_at).eval(), images(), torch.randn(2, 5)
    expected = network(source, noise)
    network.to(memory_format=torch.channels_last)
    last = network(source.to(memory_format=torch.channels_last), noise)
    torch.testing.assert_close(last, expected, atol=1e-5, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(network(source, noise).float(), expected, atol=0.05, rtol=0.1)
    half = network.to(torch.bfloat16)
    for given in (noise, noise.bfloat16(), None):
        assert half(source.bfloat16(), given).dtype == torch.bfloat16


@pytest.mark.parametrize("noise_at", PLACES)
def test_its_receptive_field_and_summary(noise_at):
    network, plain = build(noise_at), UNetGenerator(base_channels=4, depth=3)
    assert receptive_field(network, in_channels=3) == receptive_field(plain)
    first, *levels = network.summary().splitlines()
    assert first.startswith(f"UNetGenerator: 3 -> 3 channels, 5 of noise at the {noise_at}, ")
    assert levels == plain.summary().splitlines()[1:]


def test_noise_for_a_network_that_takes_none_is_refused():
    with pytest.raises(ArgumentError) as caught:
        UNetGenerator(base_channels=4, depth=3)(images(), torch.randn(2, 5))
    assert str(caught.value) == (
        "UNetGenerator: takes no noise (noise_channels=0), but noise was given. Leave it out, or build the network "
        "with noise_channels=8."
    )


@pytest.mark.parametrize("shape", [(5,), (1, 5), (2, 4), (2, 5, 1, 1)])
def test_noise_of_another_shape_is_refused(shape):
    with pytest.raises(ShapeError) as caught:
        build("input")(images(), torch.zeros(shape))
    assert str(caught.value) == (
        f"UNetGenerator: expects noise (2, 5), a vector for each image, got a tensor of shape {shape}. For example "
        "torch.randn(2, 5)."
    )


def test_noise_that_is_no_tensor_is_refused():
    with pytest.raises(ArgumentError) as caught:
        build("input")(images(), np.zeros((2, 5)))
    assert str(caught.value) == (
        "UNetGenerator: noise must be a tensor (b, 5), got a ndarray. For a NumPy array: torch.from_numpy(x)."
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise_channels": -1}, "UNetGenerator: noise_channels must be a whole number >= 0, got -1."),
        ({"noise_channels": True}, "UNetGenerator: noise_channels must be a whole number >= 0, got True."),
        (
            {"noise_channels": 8, "noise_at": "botleneck"},
            "UNetGenerator: noise_at='botleneck' is not one of ['bottleneck', 'input']. Did you mean 'bottleneck'?",
        ),
        (
            {"noise_at": "bottleneck"},
            "UNetGenerator: noise_at='bottleneck' applies only to noise, got noise_channels=0. Give noise_channels, "
            "for example 8, or leave noise_at out.",
        ),
    ],
)
def test_arguments_that_are_refused(arguments, message):
    with pytest.raises(ArgumentError) as caught:
        UNetGenerator(base_channels=4, depth=3, **arguments)
    assert str(caught.value) == message


# The loss


def test_the_loss_is_the_mean_of_the_inverse_ratios():
    first, second, z1, z2 = torch.rand(3, 3, 4, 5), torch.rand(3, 3, 4, 5), torch.randn(3, 8), torch.randn(3, 8)
    expected = 0.0
    for a, b, one, other in zip(*(t.double().numpy() for t in (first, second, z1, z2)), strict=True):
        expected += 1 / (np.abs(a - b).mean() / np.abs(one - other).mean() + 0.01) / 3
    assert mode_seeking_loss(first, second, z1, z2, eps=0.01).item() == pytest.approx(expected, rel=1e-5)


def test_its_gradient_drives_two_images_apart():
    first, second = (torch.rand(2, 3, 4, 4).requires_grad_() for _ in range(2))
    noises = torch.randn(2, 8), torch.randn(2, 8)
    loss = mode_seeking_loss(first, second, *noises)
    loss.backward()
    with torch.no_grad():
        assert torch.equal(first.grad.sign(), -(first - second).sign())
        apart = [image - 1e-3 * image.grad for image in (first, second)]
        assert mode_seeking_loss(*apart, *noises) < loss


def test_equal_images_have_a_finite_loss_and_gradient_also_in_half_precision():
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        image = torch.zeros(1, 3, 4, 4, dtype=dtype, requires_grad=True)
        loss = mode_seeking_loss(image, image * 1, torch.zeros(1, 8, dtype=dtype), torch.ones(1, 8, dtype=dtype))
        loss.backward()
        assert loss.item() == pytest.approx(1e5)
        assert loss.dtype == torch.float32
        assert image.grad.isfinite().all()


def test_the_loss_refuses_other_shapes_and_no_eps():
    image, noise = torch.zeros(2, 3, 4, 4), torch.zeros(2, 8)
    for wrong in (
        (image[:1], image, noise, noise),
        (image, image, noise, noise[:, :4]),
        (image, image, noise[:1], noise[:1]),
    ):
        with pytest.raises(
            ShapeError, match=r"mode_seeking_loss: two images \(b, c, h, w\) and their two noises"
        ) as caught:
            mode_seeking_loss(*wrong)
        assert str([tuple(each.shape) for each in wrong]) in str(caught.value)
    for eps in (0, -1, float("nan")):
        with pytest.raises(ArgumentError, match=re.escape(f"mode_seeking_loss: eps must be above 0, got {eps}.")):
            mode_seeking_loss(image, image, noise, noise, eps=eps)
