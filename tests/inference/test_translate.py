from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from imtrans import ResnetGenerator, UNetGenerator, load_pretrained, running_as, translate
from imtrans.data.images import to_image, to_tensor
from imtrans.errors import ArgumentError, DataError, ShapeError


@pytest.fixture
def generator():
    network = UNetGenerator(base_channels=4, depth=3)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
        for parameter in network.parameters():
            parameter.mul_(8)
    return network.eval()


def picture(height=37, width=50, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def by_hand(network, images, mode):
    with torch.no_grad(), running_as(network, mode):
        return network(images)


class Identity(nn.Module):
    """Gives back what it gets, and has no parameters."""

    def __init__(self, in_channels):
        super().__init__()
        self.in_channels = in_channels

    def forward(self, x):
        return x


def test_the_three_lines_of_the_consumer(generator, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generator.save_pretrained("weights")
    picture().save("labels.png")

    translate(load_pretrained("weights"), "labels.png").save("photo.png")

    with Image.open("photo.png") as made:
        assert (made.mode, made.size) == ("RGB", (50, 37))
        expected = to_image(by_hand(generator, to_tensor(picture())[None], "eval")[0])
        assert np.array_equal(np.asarray(made), np.asarray(expected))


def test_a_path_may_be_a_string_or_a_path(generator, tmp_path):
    path = tmp_path / "a.png"
    picture().save(path)
    one, two, three = (np.asarray(translate(generator, given)) for given in (path, str(path), picture()))
    assert np.array_equal(one, two)
    assert np.array_equal(one, three)


@pytest.mark.parametrize("content", [None, b"", b"<html>"])
def test_a_file_that_is_no_picture_is_named(generator, tmp_path, content):
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        translate(generator, path)
    assert str(caught.value).startswith(f"{path} cannot be read as a picture (")


def test_every_kind_of_picture_gives_the_same(generator):
    image = picture()
    tensor = to_tensor(image)
    expected = by_hand(generator, tensor[None], "eval")
    assert expected.std() > 0.1
    assert torch.equal(translate(generator, tensor), expected[0])
    assert torch.equal(translate(generator, tensor[None]), expected)
    assert np.array_equal(np.asarray(translate(generator, image)), np.asarray(to_image(expected[0])))
    assert np.array_equal(translate(generator, np.asarray(image)), np.asarray(to_image(expected[0])))
    floats = translate(generator, np.asarray(image).astype(np.float32) / 255)
    assert floats.dtype == np.float32
    assert np.abs(floats - (expected[0].permute(1, 2, 0).numpy() + 1) / 2).max() < 1e-5


def test_a_batch_is_its_pictures_one_by_one(generator):
    batch = torch.rand(3, 3, 20, 30) * 2 - 1
    whole = translate(generator, batch)
    for one, of_batch in zip(batch, whole, strict=True):
        torch.testing.assert_close(translate(generator, one), of_batch, atol=1e-5, rtol=0)
    arrays = (batch.permute(0, 2, 3, 1).numpy() + 1) / 2
    made = translate(generator, arrays)
    assert made.shape == (3, 20, 30, 3)
    assert np.abs(made * 2 - 1 - whole.permute(0, 2, 3, 1).numpy()).max() < 1e-5


@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 99))
def test_any_size_goes_in_and_comes_out(height, width, seed):
    torch.manual_seed(seed)
    for network in (UNetGenerator(base_channels=2, depth=3), ResnetGenerator(base_channels=2, num_blocks=1)):
        made = translate(network, torch.rand(3, height, width))
        assert made.shape == (3, height, width)
        assert translate(network, picture(height, width)).size == (width, height)


@pytest.mark.parametrize(("given", "made"), [(1, 1), (1, 3), (2, 5), (3, 1), (4, 4), (7, 2)])
def test_any_number_of_channels(given, made):
    network = UNetGenerator(given, made, base_channels=2, depth=2)
    assert translate(network, torch.zeros(given, 9, 8)).shape == (made, 9, 8)
    assert translate(network, np.zeros((9, 8, given), np.uint8)).shape == (9, 8, made)
    assert translate(network, np.zeros((2, 9, 8, given), np.float32)).shape == (2, 9, 8, made)
    if given in (1, 3, 4) and made in (1, 3, 4):
        assert translate(network, picture()).getbands() == {1: ("L",), 3: tuple("RGB"), 4: tuple("RGBA")}[made]


def test_pictures_have_one_three_or_four_channels():
    with pytest.raises(ArgumentError) as caught:
        translate(UNetGenerator(2, 3, base_channels=2, depth=2), picture())
    assert str(caught.value) == (
        "translate: an image file or PIL image cannot hold the 2 input channels of the generator. "
        "Give an array (h, w, c) or a tensor (c, h, w)."
    )
    with pytest.raises(ArgumentError) as caught:
        translate(UNetGenerator(3, 2, base_channels=2, depth=2), picture())
    assert str(caught.value) == (
        "translate: the generator's 2 output channels fit no PIL image. Give the source as an array or a tensor; the "
        "output is then one too."
    )


# Modes


@pytest.mark.parametrize("mode", ["eval", "batch_stats"])
def test_the_mode_is_that_of_the_model_unless_given(generator, mode):
    source = torch.rand(3, 24, 24)
    generator.inference_mode = mode
    assert torch.equal(translate(generator, source), by_hand(generator, source[None], mode)[0])
    other = {"eval": "batch_stats", "batch_stats": "eval"}[mode]
    assert torch.equal(translate(generator, source, mode=other), by_hand(generator, source[None], other)[0])
    assert not torch.allclose(translate(generator, source), translate(generator, source, mode=other), atol=0.01)


def test_paper_mode_drops_out_by_the_global_generator(generator):
    source = torch.rand(3, 24, 24)
    torch.manual_seed(5)
    one = translate(generator, source, mode="paper")
    torch.manual_seed(5)
    assert torch.equal(translate(generator, source, mode="paper"), one)
    assert not torch.equal(translate(generator, source, mode="paper"), one)


@pytest.mark.parametrize("tile", [None, 16])
def test_a_seed_fixes_the_dropout_and_leaves_the_global_generator(generator, device, tile):
    generator.to(device)
    source, settings = torch.rand(3, 24, 24), {"mode": "paper", "tile": tile}
    one = translate(generator, source, **settings, seed=0)
    before = torch.get_rng_state()
    assert torch.equal(translate(generator, source, **settings, seed=0), one)
    assert not torch.equal(translate(generator, source, **settings, seed=1), one)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ArgumentError, match="translate: seed must be a whole number"):
        translate(generator, source, seed=0.5)


def test_a_module_without_a_mode_runs_in_eval():
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout(0.5))
    network.in_channels = 3
    source = torch.rand(3, 8, 8)
    assert torch.equal(translate(network, source), by_hand(network, source[None], "eval")[0])


@pytest.mark.parametrize("mode", [None, "eval", "batch_stats", "paper"])
@pytest.mark.parametrize("fail", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_generator_comes_back_as_it_was(generator, mode, fail, training):
    generator.train(training)
    generator.encoder[1].eval()  # a flag of its own
    hook = generator.encoder[0].register_forward_hook(lambda *_: None)
    if fail:
        generator.head.register_forward_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("mine")))
    flags = {name: (m.training, dict(vars(m), training=None).keys()) for name, m in generator.named_modules()}
    hooks = {name: (list(m._forward_hooks), list(m._forward_pre_hooks)) for name, m in generator.named_modules()}
    state = {key: value.clone() for key, value in generator.state_dict().items()}
    with pytest.raises(RuntimeError, match="mine") if fail else nullcontext():
        translate(generator, torch.rand(3, 20, 20), mode=mode)
    assert flags == {name: (m.training, dict(vars(m), training=None).keys()) for name, m in generator.named_modules()}
    assert hooks == {n: (list(m._forward_hooks), list(m._forward_pre_hooks)) for n, m in generator.named_modules()}
    assert all(torch.equal(value, state[key]) for key, value in generator.state_dict().items())
    assert generator.inference_mode == "eval"
    assert hook.id in generator.encoder[0]._forward_hooks


def test_no_gradients_and_no_change_of_the_input(generator):
    source = torch.rand(3, 16, 16, requires_grad=True)
    before = source.detach().clone()
    assert not translate(generator, source).requires_grad
    assert torch.equal(source, before)
    array = np.random.default_rng(0).random((16, 16, 3), dtype=np.float32)
    copy = array.copy()
    translate(generator, array)
    assert np.array_equal(array, copy)


# Precision and types


def test_bf16_is_close_to_fp32(generator):
    source = torch.rand(3, 32, 32) * 2 - 1
    exact = translate(generator, source, precision="fp32")
    assert torch.equal(exact, translate(generator, source))
    rough = translate(generator, source, precision="bf16")
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().mean() < 0.03


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_keep_their_type_whatever_that_of_the_weights(generator, dtype):
    source = (torch.rand(3, 16, 16) * 2 - 1).to(dtype)
    expected = translate(generator, source.float())
    made = translate(generator, source)
    assert made.dtype == dtype
    torch.testing.assert_close(made.float(), expected, atol=0.01, rtol=0)
    assert translate(generator.double(), source).dtype == dtype


def test_on_every_device(generator, device):
    generator.to(device)
    source = torch.rand(3, 16, 16)
    assert translate(generator, source).device == source.device
    assert translate(generator, source.to(device)).device.type == device.type


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("tile", [None, 8])
def test_a_module_without_parameters_gives_the_same_pixels_back(channels, tile):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, channels), dtype=np.uint8)
    assert np.array_equal(translate(Identity(channels), pixels, tile=tile), pixels)


# What is refused


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"mode": "train"}, "translate: mode='train' is not one of ['batch_stats', 'eval', 'paper']."),
        (
            {"mode": "papers"},
            "translate: mode='papers' is not one of ['batch_stats', 'eval', 'paper']. Did you mean 'paper'?",
        ),
        ({"precision": "fp16"}, "translate: precision='fp16' is not one of ['bf16', 'fp32']. Did you mean 'bf16'?"),
        ({"tile": 0}, "translate: tile must be a whole number >= 1, got 0."),
        ({"tile": 64.0}, "translate: tile must be a whole number >= 1, got 64.0."),
        ({"tile": True}, "translate: tile must be a whole number >= 1, got True."),
    ],
    ids=str,
)
def test_arguments_are_checked(generator, arguments, text):
    with pytest.raises(ArgumentError) as caught:
        translate(generator, torch.zeros(3, 16, 16), **arguments)
    assert str(caught.value) == text


def test_a_name_instead_of_a_generator():
    with pytest.raises(ArgumentError) as caught:
        translate("runs/mine/generator", torch.zeros(3, 4, 4))
    assert str(caught.value) == (
        "translate: the generator must be an nn.Module, got a str. Load saved weights with load_pretrained(name)."
    )


def test_an_array_with_the_channels_first(generator):
    with pytest.raises(ShapeError) as caught:
        translate(generator, np.zeros((3, 20, 30), np.uint8))
    assert str(caught.value).endswith("got shape (3, 20, 30). The channels come first: use x.transpose(1, 2, 0).")


def test_a_generator_must_tell_its_channels():
    with pytest.raises(ArgumentError) as caught:
        translate(nn.Sequential(), torch.zeros(3, 4, 4))
    assert str(caught.value) == (
        "translate: Sequential needs an attribute in_channels, the number of channels of its input, got None."
    )


def test_another_number_of_channels_is_refused(generator):
    with pytest.raises(ShapeError) as caught:
        translate(generator, torch.zeros(4, 16, 16))
    assert str(caught.value) == "translate: expects a tensor (3, h, w) or (b, 3, h, w), got (4, 16, 16)."


def test_a_list_is_one_batch_and_gives_a_list(generator, tmp_path):
    images = [picture(seed=0), picture(seed=1).convert("L"), np.asarray(picture(seed=2)), to_tensor(picture(seed=3))]
    picture(seed=4).save(tmp_path / "a.png")
    made = translate(generator, [*images, tmp_path / "a.png"])
    assert [type(each) for each in made] == [Image.Image, Image.Image, np.ndarray, torch.Tensor, Image.Image]
    assert made[2].shape == (37, 50, 3)
    for image, output in zip([*images, tmp_path / "a.png"], made, strict=True):
        alone = translate(generator, image)
        if isinstance(output, torch.Tensor):
            assert torch.allclose(output, alone, atol=1e-5)
        else:
            assert np.abs(np.asarray(output).astype(int) - np.asarray(alone).astype(int)).max() <= 1
    batch = torch.stack([to_tensor(picture(seed=seed)) for seed in (0, 1)])
    found = translate(generator, [*batch], mode="batch_stats")
    assert torch.allclose(torch.stack(found), by_hand(generator, batch, "batch_stats"), atol=1e-6)


@pytest.mark.parametrize("tile", [None, 32])
def test_a_list_of_maps_of_ids_with_their_instances(tile):
    network = UNetGenerator(4, 3, base_channels=4, depth=2)
    network.instances, network.num_labels = True, 3
    rng = np.random.default_rng(0)
    ids, objects = ([rng.integers(0, 3, (40, 36), dtype=np.uint8) for _ in range(2)] for _ in range(2))
    made = translate(network.eval(), ids, instances=objects, tile=tile)
    for each, labels, instances in zip(made, ids, objects, strict=True):
        alone = translate(network, labels, instances=instances, tile=tile)
        assert np.abs(each.astype(int) - alone.astype(int)).max() <= 1


def test_a_list_of_grey_images_keeps_their_lightness():
    network = UNetGenerator(1, 2, base_channels=4, depth=2).eval()
    network.colours = "lab"
    images = [picture(seed=0).convert("L"), picture(seed=1)]
    for image, made in zip(images, translate(network, images), strict=True):
        assert np.abs(np.asarray(made).astype(int) - np.asarray(translate(network, image)).astype(int)).max() <= 1


def test_samples_of_a_list_are_lists():
    network = UNetGenerator(base_channels=4, depth=2, noise_channels=3).eval()
    made = translate(network, [picture(seed=0), picture(seed=1)], samples=3, seed=0)
    assert [[image.size for image in each] for each in made] == [[(50, 37)] * 2] * 3


def test_lists_that_are_no_batch_are_refused(generator):
    with pytest.raises(ArgumentError, match=r"^translate: the list of images is empty\. Give at least one\.$"):
        translate(generator, [])
    message = (
        r"^translate: the images of a list must have one height and width, got 37x50, 50x37\. Give lists of images of "
        r"one size, or one image at a time\.$"
    )
    with pytest.raises(ShapeError, match=message):
        translate(generator, [picture(), picture(), picture(50, 37)])
    with pytest.raises(
        ArgumentError, match=r"^translate: 2 images need as many instances, got 1\. Give one for each\.$"
    ):
        translate(generator, [picture(), picture()], instances=[np.zeros((37, 50), np.uint8)])
    with pytest.raises(ArgumentError, match="cannot take a dict"):
        translate(generator, [{}])
