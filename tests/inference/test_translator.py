"""Translator computes what translate does, for every kind, mode and precision; what it compiles, and when."""

import warnings

import numpy as np
import pytest
import torch
from networks import trained
from PIL import Image
from torch import nn

from imtrans import ResnetGenerator, Translator, UNetGenerator, translate
from imtrans.errors import ArgumentError, ShapeError
from imtrans.inference import translator as room
from imtrans.nn import layers


def small_unet(**changes):
    return trained(UNetGenerator(**{"base_channels": 4, "depth": 4, **changes}))


GENERATORS = {
    "unet": small_unet,
    "unet of pools and nearest": lambda: small_unet(downsample="pool", upsample="nearest", num_convs=2),
    "unet with instance norm": lambda: small_unet(norm="instance"),
    "unet with gates and attention": lambda: small_unet(skips="gate", attention=(2,)),
    "resnet": lambda: trained(ResnetGenerator(base_channels=4, num_blocks=2)),
    "resnet with batch norm": lambda: trained(ResnetGenerator(base_channels=4, num_blocks=2, norm="batch")),
}


def picture(height=32, width=32, batch=2):
    return torch.rand(batch, 3, height, width) * 2 - 1


def state_of(generator):
    flags = [module.training for module in generator.modules()]
    return flags, {name: (tensor.clone(), tensor.stride()) for name, tensor in generator.state_dict().items()}


@pytest.fixture
def compiles(monkeypatch):
    """The sizes that torch.compile would have been asked for; what it gives runs as the network does."""
    sizes = []

    def fake(network, **_):
        def run(source):
            if tuple(source.shape) not in sizes:
                sizes.append(tuple(source.shape))
            return network(source)

        return run

    monkeypatch.setattr(torch, "compile", fake)
    return sizes


@pytest.mark.parametrize("mode", ["eval", "batch_stats"])
@pytest.mark.parametrize("make", GENERATORS.values(), ids=GENERATORS)
def test_it_computes_what_translate_does(make, mode):
    generator, source = make(), picture()
    expected = translate(generator, source, mode=mode)
    torch.testing.assert_close(Translator(generator, mode=mode)(source), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["eval", "batch_stats"])
@pytest.mark.parametrize("make", GENERATORS.values(), ids=GENERATORS)
def test_in_bf16_it_is_as_near_to_fp32_as_translate_is(make, mode):
    generator, source = make(), picture()
    exact = translate(generator, source, mode=mode)
    usual = translate(generator, source, mode=mode, precision="bf16")
    ours = Translator(generator, mode=mode, precision="bf16")(source)
    error, usual_error = ((run - exact).abs().mean().item() for run in (ours, usual))
    assert 0 < error < 1.5 * usual_error < 0.1


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("default")
def test_in_paper_mode_dropout_draws_from_the_global_generator(compiled):
    """Pixels and draws meet in the order of memory, which is not that of `translate`: means agree, not values."""
    generator, source = small_unet(), picture(batch=1)
    translator = Translator(generator, mode="paper", compile=compiled)

    def mean_of(run):
        return torch.stack([run(source) for _ in range(200)]).mean(dim=0)

    torch.manual_seed(1)
    first, second = translator(source), translator(source)
    torch.manual_seed(1)
    assert torch.equal(translator(source), first)
    assert not torch.equal(first, second)
    ours, usual = mean_of(translator), mean_of(lambda x: translate(generator, x, mode="paper"))
    without = translate(generator, source, mode="batch_stats")
    assert (ours - usual).abs().mean() < 0.25 * (first - without).abs().mean()


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("default")
def test_a_seed_fixes_the_dropout_and_leaves_the_global_generator(compiled):
    generator, source = small_unet(), picture()
    translator = Translator(generator, mode="paper", compile=compiled)
    one, state = translator(source, seed=0), torch.get_rng_state()
    assert torch.equal(translator(source, seed=0), one)
    assert not torch.equal(translator(source, seed=1), one)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(translator(source), translator(source))
    assert torch.equal(Translator(generator, mode="paper", compile=compiled)(source, seed=0), one)
    with pytest.raises(ArgumentError, match="Translator: seed must be a whole number from 0"):
        translator(source, seed=-1)


def test_resizes_are_folded_into_kernels_once(monkeypatch, compiles):
    """Of two images of 32 pixels, the last of four maps is large enough."""
    generator, source, count, fold = small_unet(upsample="nearest"), picture(), [], layers.fold_nearest
    monkeypatch.setattr(layers, "fold_nearest", lambda weight: (count.append(weight.shape), fold(weight))[1])
    expected = translate(generator, source, mode="eval")
    assert len(count) == 1
    translator = Translator(generator, mode="eval")
    for _ in range(3):
        torch.testing.assert_close(translator(source), expected, rtol=1e-4, atol=1e-5)
    assert len(count) == 2
    # What is compiled finds the kernels folded: the compiler would compute them for each image.
    count.clear()
    compiled = Translator(generator, mode="eval", compile=True)
    torch.testing.assert_close(compiled(source), expected, rtol=1e-4, atol=1e-5)
    assert (len(count), compiles) == (1, [(2, 3, 32, 32)])
    translate(generator, source, mode="eval")
    assert len(count) == 2  # the generator itself is as it was


def test_pictures_of_every_kind_come_back_as_their_kind(tmp_path):
    translator = Translator(small_unet())
    pixels = np.random.default_rng(0).integers(0, 256, (40, 24, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image.save(tmp_path / "a.png")
    for given in (tmp_path / "a.png", str(tmp_path / "a.png"), image, pixels):
        made = translator(given)
        assert isinstance(made, np.ndarray if given is pixels else Image.Image)
        assert np.array_equal(np.asarray(made), np.asarray(translator(image)))
    assert translator(picture(batch=3).double()).dtype == torch.float64
    assert translator(picture()[0]).shape == (3, 32, 32)


@pytest.mark.parametrize("precision", [None, "bf16"])
def test_the_generator_is_left_as_it_was_and_may_change_later(precision):
    generator = small_unet().train()
    flags, tensors = state_of(generator)
    translator, source = Translator(generator, mode="eval", precision=precision), picture()
    before = translator(source)
    after_flags, after = state_of(generator)
    assert flags == after_flags
    assert all(p.requires_grad for p in generator.parameters())
    for name, (tensor, strides) in tensors.items():
        assert torch.equal(tensor, after[name][0]), name
        assert strides == after[name][1], name
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.zero_()
    assert torch.equal(translator(source), before)


def test_the_mode_is_by_default_that_of_the_generator():
    generator, source = small_unet(), picture()
    generator.inference_mode = "batch_stats"
    expected = translate(generator, source, mode="batch_stats")
    torch.testing.assert_close(Translator(generator)(source), expected)


def test_statistics_are_not_updated():
    translator = Translator(small_unet(), mode="batch_stats")
    source = picture()
    assert torch.equal(translator(source), translator(source))


def test_a_size_is_compiled_when_enough_of_its_pictures_have_been_seen(compiles, monkeypatch):
    monkeypatch.setattr(room, "COMPILE_AFTER", 3)
    translator = Translator(small_unet())
    first = translator(picture(32))
    translator(picture(48))
    assert first.shape == (2, 3, 32, 32)
    assert compiles == []
    translator(picture(32))
    translator(picture(32))
    assert compiles == [(2, 3, 32, 32)]


def test_true_compiles_at_once_and_false_never(compiles):
    translator = Translator(small_unet(), compile=False)
    for _ in range(3):
        translator(picture())
    assert compiles == []
    Translator(small_unet(), compile=True)(picture())
    assert compiles == [(2, 3, 32, 32)]


def test_four_sizes_are_compiled_and_no_more(compiles):
    translator = Translator(small_unet(), compile=True)
    for height in (16, 32, 48, 64, 80, 96):
        assert translator(picture(height)).shape == (2, 3, height, 32)
    assert [size[2] for size in compiles] == [16, 32, 48, 64]


def failing(*_, **__):
    def run(_):
        raise torch._dynamo.exc.TorchDynamoException("no C++ compiler found\nand more")

    return run


def test_where_compiling_fails_auto_warns_once_and_goes_on(monkeypatch):
    monkeypatch.setattr(room, "COMPILE_AFTER", 4)
    monkeypatch.setattr(torch, "compile", failing)
    generator, source = small_unet(), picture()
    translator = Translator(generator)
    expected = translator(source)
    with pytest.warns(UserWarning, match=r"UNetGenerator cannot be compiled here.*: no C\+\+ compiler found$"):
        assert torch.equal(translator(source), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(translator(source), expected)


def test_where_compiling_fails_true_says_why(monkeypatch):
    monkeypatch.setattr(torch, "compile", failing)
    with pytest.raises(torch._dynamo.exc.TorchDynamoException, match="no C"):
        Translator(small_unet(), compile=True)(picture())


@pytest.mark.slow
@pytest.mark.parametrize("precision", [None, "bf16"])
@pytest.mark.parametrize("mode", ["eval", "batch_stats"])
@pytest.mark.filterwarnings("default")
def test_compiled_by_inductor_it_computes_the_same(mode, precision):
    generator, source = small_unet(), picture()
    usual, compiled = (Translator(generator, mode=mode, precision=precision, compile=c) for c in (False, True))
    tolerance = 1e-4 if precision is None else 0.1
    for _ in range(2):
        torch.testing.assert_close(compiled(source), usual(source), rtol=tolerance, atol=tolerance)
    assert list(compiled._compiled) == [source.shape]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_two_generators_and_several_sizes_compiled_do_not_mix():
    generators = [small_unet(depth=3), small_unet(depth=3)]
    translators = [Translator(generator, compile=True) for generator in generators]
    for height in (16, 24, 16):
        for generator, translator in zip(generators, translators, strict=True):
            source = picture(height)
            torch.testing.assert_close(translator(source), translate(generator, source), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"compile": "yes"}, "Translator: compile must be True, False or 'auto', got 'yes'."),
        ({"precision": "fp16"}, "Translator: precision='fp16' is not one of ['bf16', 'fp32'].*"),
        ({"mode": "papre"}, "Translator: mode='papre' is not one of .* Did you mean 'paper'?"),
    ],
)
def test_a_setting_that_is_not_allowed_is_named(settings, message):
    with pytest.raises(ArgumentError) as caught:
        Translator(small_unet(), **settings)
    start, _, end = message.partition(".*")
    assert str(caught.value).startswith(start)
    assert str(caught.value).endswith(end)


def test_a_generator_that_does_not_tell_its_channels_is_refused():
    with pytest.raises(ArgumentError, match=r"Translator: Sequential needs an attribute in_channels, .* got None"):
        Translator(nn.Sequential(nn.Conv2d(3, 3, 1)))


def test_a_picture_of_other_channels_is_refused():
    with pytest.raises(ShapeError, match="Translator: expects a tensor"):
        Translator(small_unet())(torch.zeros(1, 4, 32, 32))
