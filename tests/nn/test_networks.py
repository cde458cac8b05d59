"""One contract that every network keeps, with every option it has."""

import copy
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import (
    CONVOLUTIONAL,
    GENERATORS,
    OPTIONS,
    SMALL,
    build,
    by_callable,
    by_either,
    by_either_once,
    by_name,
    images_for,
    is_generator,
    maps,
    params,
    plain,
    plain_with_norm,
    same,
)
from torch import nn

from imtrans import (
    ConvNormAct,
    DownBlock,
    HugGANGenerator,
    LocalEnhancer,
    MultiscaleDiscriminator,
    PatchDiscriminator,
    PixelDiscriminator,
    ResidualBlock,
    ResnetGenerator,
    UNetGenerator,
    UpBlock,
    load_pretrained,
)
from imtrans.errors import ArgumentError, SavedModelError, ShapeError
from imtrans.nn.skips import AddSkip

ACT_NAMES = "['elu', 'gelu', 'leaky_relu', 'leaky_relu_0.3', 'none', 'relu', 'sigmoid', 'silu', 'tanh']"

# The contract


@by_either
def test_forward_gives_finite_images_or_logits_and_backward_reaches_every_parameter(case):
    network = build(case)
    images = images_for(network).requires_grad_()
    outputs = maps(network(images))
    for output in outputs:
        assert output.dtype == images.dtype
        assert output.isfinite().all()
    if is_generator(network):
        assert output.shape == (2, network.out_channels, 32, 32)
        low, high = {"tanh": (-1, 1), "sigmoid": (0, 1), nn.Hardtanh: (-1, 1)}.get(
            network.config.get("out_act", "tanh"), (-1e4, 1e4)
        )
        assert low <= output.min() <= output.max() <= high
    else:
        assert {output.shape[:2] for output in outputs} == {(2, 1)}
    sum(output.square().sum() for output in outputs).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []
    assert images.grad.abs().sum() > 0 or case[1].get("dropout") == (1.0, 0.25, 0.5, 0.5)


@by_name
def test_saved_and_loaded_it_gives_equal_outputs(case, tmp_path):
    network = build(case)
    network(images_for(network))  # running statistics and singular vectors leave their start
    network.inference_mode = "paper"
    network.save_pretrained(tmp_path / "saved")
    network.eval()
    images = images_for(network)
    assert sorted(file.name for file in (tmp_path / "saved").iterdir()) == ["config.json", "model.safetensors"]
    for load in (type(network).from_pretrained, load_pretrained):
        loaded = load(tmp_path / "saved")
        assert type(loaded) is type(network)
        assert loaded.config == network.config
        assert loaded.inference_mode == "paper"
        assert not loaded.training
        assert all(p.requires_grad for p in loaded.parameters())
        assert same(loaded(images), network(images))


@by_callable
def test_saving_refuses_a_callable_by_the_name_of_its_argument(case, tmp_path):
    network = build(case)
    (argument, value), *_ = case[1].items()
    value = value[0] if isinstance(value, tuple) else value
    with pytest.raises(SavedModelError) as caught:
        network.save_pretrained(tmp_path / "saved")
    assert str(caught.value) == (
        f"{type(network).__name__}: {argument}={value!r} cannot be saved, because config.json holds only numbers, "
        "strings and lists. Build the network with a name, or save its tensors with "
        f"safetensors.torch.save_model(network, path) and build it again with the same {argument}."
    )
    assert not (tmp_path / "saved").exists()


@by_either
def test_a_deep_copy_computes_the_same_with_memory_of_its_own(case):
    network = build(case).eval()
    network.inference_mode = "batch_stats"
    images = images_for(network)
    twin = copy.deepcopy(network)
    before = network(images)
    assert same(twin(images), before)
    assert (twin.config, twin.inference_mode) == (network.config, "batch_stats")
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    assert same(network(images), before)


@by_either
def test_in_eval_mode_the_output_is_deterministic(case):
    network = build(case).eval()
    images = images_for(network)
    assert same(network(images), network(images))


@by_either_once
def test_it_compiles_as_one_graph(case):
    torch._dynamo.reset()
    network = build(case).eval()
    images = images_for(network)
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    assert same(compiled(images), network(images))


@plain
def test_in_training_mode_it_compiles_as_one_graph_and_updates_its_statistics(case):
    torch._dynamo.reset()
    network = build(case)
    twin = copy.deepcopy(network)
    images = images_for(network)
    torch.manual_seed(1)
    expected = network(images)
    torch.manual_seed(1)
    assert same(torch.compile(twin, fullgraph=True, backend="eager")(images), expected)
    for name, tensor in network.state_dict().items():
        assert torch.equal(twin.state_dict()[name], tensor), name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # inductor's own
@plain
def test_compiled_by_inductor_it_gives_the_same(case):
    torch._dynamo.reset()
    network = build(case).eval()
    images = images_for(network)
    torch.testing.assert_close(torch.compile(network, fullgraph=True)(images), network(images), atol=1e-5, rtol=1e-4)


@by_either_once
def test_it_can_be_exported(case):
    network = build(case).eval()
    images = images_for(network)
    exported = torch.export.export(network, (images,), strict=False)
    assert same(exported.module()(images), network(images))


@by_either
def test_channels_last_images_and_weights_give_the_same(case):
    network = build(case).eval()
    images = images_for(network)
    expected = network(images)
    network.to(memory_format=torch.channels_last)
    output = network(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-4)


@by_either
def test_bfloat16_images_and_weights_work(case):
    network = build(case).to(torch.bfloat16)
    outputs = maps(network(images_for(network, dtype=torch.bfloat16)))
    assert all(output.dtype == torch.bfloat16 and output.isfinite().all() for output in outputs)
    sum(output.float().square().mean() for output in outputs).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())


@by_either
def test_its_repr_names_its_class_and_is_readable(case):
    network = build(case)
    lines = repr(network).splitlines()
    assert lines[0] == f"{type(network).__name__}("
    assert len(lines) < 120
    assert max(len(line) for line in lines) < 140
    assert not any("0x" in line for line in lines)


ADD_AN_AXIS = "Give a batch of images. x[None] adds the batch axis to (c, h, w), x[:, None] the channels to (b, h, w)."


@plain
@pytest.mark.parametrize(
    ("shape", "advice"),
    [
        ((2, 9, 32, 32), "Build the network with in_channels=9."),
        ((5, 32, 32), ADD_AN_AXIS),
        ((32, 32), ADD_AN_AXIS),
        ((1, 1, 6, 8, 8), ADD_AN_AXIS),
        (("c", 32, 32), "Add the batch axis with x[None]."),
        ((2, 32, 32, "c"), "The channels come last: use x.permute(0, 3, 1, 2)."),
        ((32, 32, "c"), "The channels come last: use x.permute(2, 0, 1)[None]."),
    ],
)
def test_a_tensor_of_another_shape_is_refused_with_the_likely_remedy(case, shape, advice):
    network = build(case)
    shape = tuple(network.in_channels if size == "c" else size for size in shape)
    with pytest.raises(ShapeError) as caught:
        network(torch.zeros(shape))
    assert str(caught.value) == (
        f"{type(network).__name__}: expects images (b, {network.in_channels}, h, w), got a tensor of shape {shape}. "
        f"{advice}"
    )


@plain
def test_an_array_is_refused(case):
    network = build(case)
    with pytest.raises(ArgumentError) as caught:
        network(torch.zeros(1, network.in_channels, 32, 32).numpy())
    assert str(caught.value) == (
        f"{type(network).__name__}: expects a tensor, got a ndarray. For a NumPy array: torch.from_numpy(x)."
    )


@plain
@pytest.mark.parametrize("channels", [1, 2])
def test_grey_images_and_a_target_without_its_source_are_recognised(case, channels):
    network = build(case)
    with pytest.raises(ShapeError) as caught:
        network(torch.zeros(2, channels, 32, 32))
    built = f"build the network with in_channels={channels}."
    advice = f"For grey images, use x.expand(-1, 3, -1, -1), or {built}" if channels == 1 else built.capitalize()
    if not is_generator(network):
        advice = (
            "A conditional discriminator takes source and target together: torch.cat([source, target], dim=1). "
            f"For one image alone, {built}"
        )
    assert str(caught.value).endswith(f"got a tensor of shape {(2, channels, 32, 32)}. {advice}")


@plain
@pytest.mark.parametrize(
    ("images", "weights"), [(torch.float64, torch.float32), (torch.float32, torch.float16), (torch.half, torch.float32)]
)
def test_images_of_another_dtype_than_the_weights_are_refused(case, images, weights):
    network = build(case).to(weights)
    with pytest.raises(ArgumentError) as caught:
        network(images_for(network, dtype=images))
    assert str(caught.value) == (
        f"{type(network).__name__}: the images are {images}, the weights {weights}. Convert the images with "
        f"x.to({weights}), or the network with network.to({images})."
    )


@plain
def test_autocast_converts_images_but_not_doubles(case):
    network = build(case)
    with torch.autocast("cpu", torch.bfloat16):
        network(images_for(network, dtype=torch.bfloat16))
        with pytest.raises(ArgumentError, match=r"the images are torch\.float64, the weights torch\.float32"):
            network(images_for(network, dtype=torch.float64))


@plain
@pytest.mark.parametrize(("batch", "size"), [(0, (32, 32)), (2, (0, 32)), (2, (32, 0))])
def test_an_empty_batch_or_image_is_refused(case, batch, size):
    network = build(case)
    images = torch.zeros(batch, network.in_channels, *size)
    with pytest.raises(ShapeError) as caught:
        network(images)
    assert str(caught.value) == (f"{type(network).__name__}: got an empty batch or image, shape {tuple(images.shape)}.")


@plain
def test_pixels_that_are_no_floats_are_refused(case):
    network = build(case)
    with pytest.raises(ArgumentError) as caught:
        network(torch.zeros(1, network.in_channels, 32, 32, dtype=torch.uint8))
    assert str(caught.value) == (
        f"{type(network).__name__}: expects float images in [-1, 1], got torch.uint8. "
        "For uint8 pixels: x.float() / 127.5 - 1."
    )


# What is the same in every class's arguments


@plain_with_norm
def test_a_misspelt_norm_gets_a_hint(case):
    cls, _ = case
    with pytest.raises(ArgumentError) as caught:
        cls(norm="instnce")
    assert str(caught.value) == (
        f"{cls.__name__}: norm='instnce' is not one of ['batch', 'group', 'instance', 'keras_batch', 'none']. "
        "Did you mean 'instance'?"
    )


@pytest.mark.parametrize(
    ("cls", "argument", "value", "allowed"),
    [
        (UNetGenerator, "skips", "concatt", "['add', 'concat', 'gate', 'none']. Did you mean 'concat'?"),
        (UNetGenerator, "act", "rellu", ACT_NAMES),
        (UNetGenerator, "decoder_act", 3, ACT_NAMES),
        (UNetGenerator, "out_act", "tan", ACT_NAMES),
        (UNetGenerator, "downsample", "pol", "['blur', 'conv', 'pool']. Did you mean 'pool'?"),
        (UNetGenerator, "upsample", "deconvv", "['bilinear', 'deconv', 'nearest', 'shuffle']. Did you mean 'deconv'?"),
        (UNetGenerator, "odd_sizes", "raise", "['error', 'pad']."),
        (ResnetGenerator, "padding_mode", "reflex", "['circular', 'reflect', 'replicate', 'zeros']. Did you mean"),
        (ResnetGenerator, "upsample", None, "['bilinear', 'deconv', 'nearest', 'shuffle']."),
        (ResnetGenerator, "out_act", "tan", ACT_NAMES),
        (ResnetGenerator, "odd_sizes", True, "['error', 'pad']."),
        (LocalEnhancer, "padding_mode", "reflex", "['circular', 'reflect', 'replicate', 'zeros']. Did you mean"),
        (LocalEnhancer, "upsample", None, "['bilinear', 'deconv', 'nearest', 'shuffle']."),
        (LocalEnhancer, "act", "rellu", ACT_NAMES),
        (LocalEnhancer, "out_act", "tan", ACT_NAMES),
        (LocalEnhancer, "odd_sizes", True, "['error', 'pad']."),
        (HugGANGenerator, "odd_sizes", "crop", "['error', 'pad']."),
        (MultiscaleDiscriminator, "act", 3, ACT_NAMES),
        (
            PatchDiscriminator,
            "act",
            "rellu",
            ACT_NAMES,
        ),
        (
            PixelDiscriminator,
            "act",
            "rellu",
            ACT_NAMES,
        ),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(cls, argument, value, allowed):
    with pytest.raises(ArgumentError) as caught:
        cls(**{argument: value})
    assert str(caught.value).startswith(f"{cls.__name__}: {argument}={value!r} is not one of {allowed}")


@plain_with_norm
def test_a_norm_or_activation_that_is_already_a_module_is_refused(case):
    cls, _ = case
    with pytest.raises(ArgumentError) as caught:
        cls(norm=nn.BatchNorm2d(8))
    assert str(caught.value) == (
        f"{cls.__name__}: norm must be a callable that makes a module for each layer, got an instance of BatchNorm2d. "
        "Pass the class, norm=BatchNorm2d, or a function: norm=lambda channels: BatchNorm2d(channels, ...)."
    )
    with pytest.raises(ArgumentError) as caught:
        cls(act=nn.ReLU())
    assert str(caught.value) == (
        f"{cls.__name__}: act must be a callable that makes a module for each layer, got an instance of ReLU. "
        "Pass the class, act=ReLU, or a function: act=lambda: ReLU(...)."
    )


def test_a_skip_that_is_already_a_module_is_refused():
    for skips in (AddSkip(4, 4), ["concat", AddSkip(4, 4)]):
        with pytest.raises(ArgumentError, match="UNetGenerator: skips must be a callable that makes a module"):
            build((UNetGenerator, {"skips": skips}))


@pytest.mark.parametrize(
    ("cls", "argument", "value", "message"),
    [
        (cls, argument, value, message)
        for cls in (ConvNormAct, DownBlock, UpBlock, ResidualBlock)
        for argument, value, message in (
            ("norm", nn.BatchNorm2d(4), "norm must be a callable that makes a module for each layer, got an instance"),
            ("act", nn.ReLU(), "act must be a callable that makes a module for each layer, got an instance of ReLU"),
            ("norm", "batch", "norm must be a callable (channels) -> module, got 'batch'. Only networks take names"),
        )
    ],
)
def test_a_block_takes_callables_only(cls, argument, value, message):
    with pytest.raises(ArgumentError, match=re.escape(message)):
        cls(*[4] * (1 if cls is ResidualBlock else 2), **{argument: value})


@pytest.mark.parametrize(
    ("cls", "argument", "value", "allowed"),
    [
        *((cls, "in_channels", 0, ">= 1") for cls in SMALL),
        *((cls, "base_channels", 1.5, ">= 1") for cls in SMALL),
        *((cls, "out_channels", True, ">= 1") for cls in GENERATORS),
        *((UNetGenerator, "depth", depth, "from 1 to 16") for depth in (0, 17)),
        *((UNetGenerator, "num_convs", count, "from 1 to 16") for count in (0, 17)),
        *((ResnetGenerator, "num_blocks", count, "from 0 to 200") for count in (-1, 201)),
        (UNetGenerator, "width_cap", 0, ">= 1"),
        *((UNetGenerator, "deconv_size", size, "from 2 to 16") for size in (1, 17)),
        *((ResnetGenerator, "num_downs", count, "from 0 to 16") for count in (-1, 17)),
        *((LocalEnhancer, "num_enhancers", count, "from 1 to 4") for count in (0, 5)),
        *((LocalEnhancer, name, -1, "from 0 to 200") for name in ("num_blocks", "global_blocks")),
        *((LocalEnhancer, "global_downs", count, "from 0 to 16") for count in (-1, 17)),
        *((HugGANGenerator, "depth", depth, "from 1 to 16") for depth in (0, 17)),
        *((cls, "n_layers", count, "from 1 to 16") for count in (0, 17) for cls in CONVOLUTIONAL),
        *((cls, "padding", count, "from 0 to 3") for count in (-1, 4) for cls in CONVOLUTIONAL),
        *((MultiscaleDiscriminator, "num_scales", count, "from 1 to 8") for count in (0, 9)),
    ],
)
def test_a_count_outside_its_range_is_refused(cls, argument, value, allowed):
    with pytest.raises(ArgumentError) as caught:
        cls(**{argument: value})
    assert str(caught.value) == f"{cls.__name__}: {argument} must be a whole number {allowed}, got {value!r}."


# Sizes of images


@pytest.mark.parametrize("size", [(37, 50), (33, 70), (5, 3), (1, 1), (1, 64)])
@pytest.mark.parametrize(
    "case",
    params({cls: [c for c in OPTIONS[cls] if "odd_sizes" not in c] for cls in GENERATORS}),
)
def test_a_generators_output_is_as_large_as_its_input(case, size):
    network = build(case)
    with torch.no_grad():
        output = network(images_for(network, size, batch=1))
    assert output.shape == (1, network.out_channels, *size)
    assert output.isfinite().all()


@settings(max_examples=40)
@given(height=st.integers(1, 70), width=st.integers(1, 70))
@pytest.mark.parametrize("cls", GENERATORS)
def test_any_size_comes_back_from_a_generator(cls, height, width):
    network = build((cls, {}))
    with torch.no_grad():
        output = network(torch.rand(1, 3, height, width))
    assert output.shape == (1, 3, height, width)


@pytest.mark.parametrize("cls", GENERATORS)
def test_padding_adds_edge_pixels_and_the_crop_takes_what_they_became(cls):
    network = build((cls, {})).eval()
    images = images_for(network, (29, 30))
    padded = nn.functional.pad(images, (0, 2, 0, 3), mode="replicate")
    assert torch.equal(network(images), network(padded)[..., :29, :30])


@pytest.mark.parametrize(
    ("cls", "changes", "size", "message"),
    [
        (
            UNetGenerator,
            {"depth": 8, "base_channels": 1},
            (300, 200),
            "UNetGenerator: height and width must be multiples of 256 and at least 256, got 300x200 "
            "(odd_sizes='error'). Use odd_sizes='pad', or pad to 512x256 and crop the output back.",
        ),
        (
            ResnetGenerator,
            {"num_blocks": 0},
            (32, 50),
            "ResnetGenerator: height and width must be multiples of 4 and at least 8, got 32x50 "
            "(odd_sizes='error'). Use odd_sizes='pad', or pad to 32x52 and crop the output back.",
        ),
        (
            ResnetGenerator,
            {"num_downs": 0, "num_blocks": 0},
            (2, 5),
            "ResnetGenerator: height and width must be multiples of 1 and at least 4, got 2x5 "
            "(odd_sizes='error'). Use odd_sizes='pad', or pad to 4x5 and crop the output back.",
        ),
        (
            LocalEnhancer,
            {"base_channels": 1, "num_blocks": 0, "global_blocks": 0},
            (64, 40),
            "LocalEnhancer: height and width must be multiples of 32 and at least 64, got 64x40 "
            "(odd_sizes='error'). Use odd_sizes='pad', or pad to 64x64 and crop the output back.",
        ),
        (
            HugGANGenerator,
            {"base_channels": 1, "depth": 5},
            (32, 40),
            "HugGANGenerator: height and width must be multiples of 32 and at least 32, got 32x40 "
            "(odd_sizes='error'). Use odd_sizes='pad', or pad to 32x64 and crop the output back.",
        ),
    ],
)
def test_with_odd_sizes_error_a_size_that_does_not_fit_raises(cls, changes, size, message):
    network = cls(odd_sizes="error", **changes)
    with pytest.raises(ShapeError) as caught:
        network(torch.zeros(1, 3, *size))
    assert str(caught.value) == message


# Architecture facts


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (lambda: UNetGenerator.preset("junyanz/unet_256"), 54_413_955),
        (lambda: UNetGenerator.preset("junyanz/unet_256", norm="instance"), 54_409_603),
        (lambda: UNetGenerator.preset("junyanz/unet_128"), 41_828_995),
        (lambda: ResnetGenerator.preset("junyanz/resnet_9blocks"), 11_378_179),
        (lambda: ResnetGenerator.preset("junyanz/resnet_9blocks", norm="batch"), 11_383_427),
        (lambda: ResnetGenerator.preset("junyanz/resnet_6blocks"), 7_837_699),
        (lambda: HugGANGenerator(), 54_404_099),
        (lambda: PatchDiscriminator(6), 2_768_705),
        (lambda: PatchDiscriminator(3, norm="instance"), 2_764_737),
        (lambda: PixelDiscriminator(6), 9_024),
    ],
)
def test_it_has_as_many_parameters_as_the_reference(make, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in make().parameters()) == parameters


def test_a_preset_without_its_authors_is_not_taken_for_another():
    with pytest.raises(ArgumentError) as caught:
        UNetGenerator.preset("unet_256")
    assert str(caught.value).endswith(". Did you mean 'junyanz/unet_256' or 'phillipi/unet_256'?")


@pytest.mark.parametrize("cls", [UNetGenerator, ResnetGenerator])
def test_every_preset_builds_and_takes_changes(cls):
    for name, settings_of_preset in cls.presets.items():
        network = cls.preset(name, 1, 2, base_channels=1, norm="none")
        assert (network.in_channels, network.out_channels) == (1, 2)
        assert network.config == {**network.config, **settings_of_preset, "norm": "none", "base_channels": 1}


def test_the_widths_double_up_to_eight_times_the_base():
    unet = UNetGenerator(base_channels=2, depth=6)
    assert unet.channels == (2, 4, 8, 16, 16, 16)
    assert UNetGenerator(base_channels=2, depth=4, width_cap=2).channels == (2, 4, 4, 4)
    discriminator = PatchDiscriminator(base_channels=2, n_layers=5)
    assert [layer.conv.out_channels for layer in discriminator.layers] == [2, 4, 8, 16, 16, 16, 1]


@pytest.mark.parametrize(("norm", "biased"), [("batch", False), ("group", False), ("instance", True), ("none", True)])
@plain_with_norm
def test_a_convolution_has_a_bias_where_the_norm_has_no_shift(case, norm, biased):
    inner = {
        UNetGenerator: lambda n: [n.encoder[1].conv, n.decoder[0].up],
        ResnetGenerator: lambda n: [n.stem.conv, n.downs[0].conv, n.blocks[0].conv1.conv, n.ups[0].up],
        LocalEnhancer: lambda n: [n.coarse.stem.conv, n.coarse.ups[0].up, n.fine.stem.conv, n.fine.ups[0].up],
        PatchDiscriminator: lambda n: [n.layers[1].conv],
        MultiscaleDiscriminator: lambda n: [scale.layers[1].conv for scale in n.scales],
        PixelDiscriminator: lambda n: [n.layers[1].conv, n.layers[2].conv],
    }
    cls, _ = case
    convs = inner[cls](build((cls, {"norm": norm})))
    assert [conv.bias is not None for conv in convs] == [biased] * len(convs)


@pytest.mark.parametrize(
    "case",
    params(
        {
            UNetGenerator: [{"dropout": (0.5,)}, {"dropout": (0.0, 0.5)}],
            ResnetGenerator: [{"dropout": 0.5}],
            LocalEnhancer: [{"dropout": 0.5}],
        }
    ),
)
def test_dropout_drops_in_training_alone(case):
    network = build((case[0], {**case[1], "norm": "none"}))
    images = images_for(network)
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))
    without = build((case[0], {"norm": "none", "dropout": () if case[0] is UNetGenerator else 0.0}))
    without.load_state_dict(network.state_dict())
    without.train()
    assert torch.equal(without(images), network(images))


# State-dict keys are public: a change needs a converter and an entry in the changelog

BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
SPECTRAL = ("parametrizations.weight.original", "parametrizations.weight.0._u", "parametrizations.weight.0._v")


def of(module, *tensors):
    return [f"{module}.{tensor}" for tensor in tensors]


GOLDEN_KEYS = [
    (
        UNetGenerator(base_channels=2, depth=3),
        of("encoder.0.conv", "weight")
        + of("encoder.1.conv", "weight")
        + of("encoder.1.norm", *BATCH_NORM)
        + of("encoder.2.conv", "weight")
        + of("decoder.0.up", "weight")
        + of("decoder.0.norm", *BATCH_NORM)
        + of("decoder.1.up", "weight")
        + of("decoder.1.norm", *BATCH_NORM)
        + of("head", "weight", "bias"),
    ),
    (
        UNetGenerator(
            base_channels=2, depth=2, norm="none", downsample="blur", upsample="nearest",
            num_convs=2, skips="gate", attention=(1,),
        ),
        of("encoder.0.conv", "weight", "bias")
        + of("encoder.0.blur", "kernel")
        + of("encoder.0.conv2.conv", "weight", "bias")
        + of("encoder.1.conv", "weight", "bias")
        + of("encoder.1.blur", "kernel")
        + of("encoder.1.conv2.conv", "weight", "bias")
        + of("attention.1", "gamma", "to_qkv.weight", "out.weight")
        + of("decoder.0.up.1", "weight", "bias")
        + of("decoder.0.merge", "from_skip.weight", "from_decoder.weight", "from_decoder.bias", "gate.weight")
        + of("decoder.0.merge", "gate.bias")
        + of("decoder.0.convs.0.conv", "weight", "bias")
        + of("decoder.0.convs.1.conv", "weight", "bias")
        + of("head.1", "weight", "bias"),
    ),
    (
        UNetGenerator(channels=(2, 2), norm="none", downsample="pool", upsample="shuffle", skips="add"),
        of("encoder.0.conv", "weight", "bias")
        + of("encoder.1.conv", "weight", "bias")
        + of("decoder.0.up.0", "weight", "bias")
        + of("head.0", "weight", "bias"),
    ),
    (
        UNetGenerator.preset("unet_2015", base_channels=2, depth=2),
        of("encoder.0.0.conv", "weight", "bias")
        + of("encoder.0.1.conv", "weight", "bias")
        + of("encoder.1.conv", "weight", "bias")
        + of("encoder.1.conv2.conv", "weight", "bias")
        + of("decoder.0.up", "weight", "bias")
        + of("decoder.0.convs.0.conv", "weight", "bias")
        + of("decoder.0.convs.1.conv", "weight", "bias")
        + of("head", "weight", "bias"),
    ),
    (
        ResnetGenerator(base_channels=2, num_blocks=1, num_downs=1),
        of("stem.conv", "weight", "bias")
        + of("downs.0.conv", "weight", "bias")
        + of("blocks.0.conv1.conv", "weight", "bias")
        + of("blocks.0.conv2.conv", "weight", "bias")
        + of("ups.0.up", "weight", "bias")
        + of("head.conv", "weight", "bias"),
    ),
    (
        ResnetGenerator(base_channels=2, num_blocks=1, num_downs=1, norm="batch", dropout=0.5, upsample="bilinear"),
        of("stem.conv", "weight")
        + of("stem.norm", *BATCH_NORM)
        + of("downs.0.conv", "weight")
        + of("downs.0.norm", *BATCH_NORM)
        + of("blocks.0.conv1.conv", "weight")
        + of("blocks.0.conv1.norm", *BATCH_NORM)
        + of("blocks.0.conv2.conv", "weight")
        + of("blocks.0.conv2.norm", *BATCH_NORM)
        + of("ups.0.up.1", "weight")
        + of("ups.0.norm", *BATCH_NORM)
        + of("head.conv", "weight", "bias"),
    ),
    (
        PatchDiscriminator(base_channels=2, n_layers=1),
        of("layers.0.conv", "weight", "bias")
        + of("layers.1.conv", "weight")
        + of("layers.1.norm", *BATCH_NORM)
        + of("layers.2.conv", "weight", "bias"),
    ),
    (
        PatchDiscriminator(base_channels=2, n_layers=1, norm="group", spectral_norm=True),
        of("layers.0.conv", "bias", *SPECTRAL)
        + of("layers.1.conv", *SPECTRAL)
        + of("layers.1.norm", "weight", "bias")
        + of("layers.2.conv", "bias", *SPECTRAL),
    ),
    (
        MultiscaleDiscriminator(base_channels=2, n_layers=1),
        [
            name
            for scale in range(2)
            for layer in range(3)
            for name in of(f"scales.{scale}.layers.{layer}.conv", "weight", "bias")
        ],
    ),
    (
        LocalEnhancer(base_channels=1, num_blocks=1, global_blocks=1, global_downs=1),
        of("coarse.stem.conv", "weight", "bias")
        + of("coarse.downs.0.conv", "weight", "bias")
        + of("coarse.blocks.0.conv1.conv", "weight", "bias")
        + of("coarse.blocks.0.conv2.conv", "weight", "bias")
        + of("coarse.ups.0.up", "weight", "bias")
        + of("fine.stem.conv", "weight", "bias")
        + of("fine.downs.0.conv", "weight", "bias")
        + of("fine.blocks.0.conv1.conv", "weight", "bias")
        + of("fine.blocks.0.conv2.conv", "weight", "bias")
        + of("fine.ups.0.up", "weight", "bias")
        + of("fine.head.conv", "weight", "bias"),
    ),
    (
        LocalEnhancer(base_channels=1, num_enhancers=2, num_blocks=0, global_blocks=0, global_downs=0),
        of("coarse.coarse.stem.conv", "weight", "bias")
        + of("coarse.fine.stem.conv", "weight", "bias")
        + of("coarse.fine.downs.0.conv", "weight", "bias")
        + of("coarse.fine.ups.0.up", "weight", "bias")
        + of("fine.stem.conv", "weight", "bias")
        + of("fine.downs.0.conv", "weight", "bias")
        + of("fine.ups.0.up", "weight", "bias")
        + of("fine.head.conv", "weight", "bias"),
    ),
    (
        HugGANGenerator(base_channels=1, depth=4),
        [f"encoder.{i}.conv.weight" for i in range(4)]
        + [f"decoder.{i}.up.weight" for i in range(3)]
        + of("head.2", "weight", "bias"),
    ),
    (
        PixelDiscriminator(base_channels=2),
        of("layers.0.conv", "weight", "bias")
        + of("layers.1.conv", "weight")
        + of("layers.1.norm", *BATCH_NORM)
        + of("layers.2.conv", "weight"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("network", "keys"), GOLDEN_KEYS, ids=lambda value: type(value).__name__)
def test_the_keys_of_the_state_dict_and_their_order(network, keys):
    assert list(network.state_dict()) == keys
