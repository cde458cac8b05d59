"""UNetGenerator: what it promises beside the contract of all networks in test_networks.py."""

import re
from itertools import pairwise

import pytest
import torch
from networks import images_for
from torch import nn

from imtrans import UNetGenerator, init_weights, translate
from imtrans.errors import ArgumentError, ShapeError
from imtrans.nn.skips import ConcatSkip, GatedSkip, NoSkip


def test_the_repr_of_the_default_unet_has_less_than_a_hundred_lines():
    with torch.device("meta"):
        assert len(repr(UNetGenerator()).splitlines()) < 100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"channels": (4, 8), "depth": 3},
            "channels=(4, 8) means depth=2, got depth=3. Leave depth out, or change channels.",
        ),
        (
            {"channels": (4, 8), "base_channels": 32},
            "channels=(4, 8) means base_channels=4, got base_channels=32. Leave base_channels out, or change channels.",
        ),
        ({"channels": ()}, "channels must be a sequence of 1 to 16 widths, one for each level, got ()."),
        ({"channels": 4}, "channels must be a sequence of 1 to 16 widths, one for each level, got 4."),
        ({"channels": (4, 0)}, "each of channels must be a whole number >= 1, got 0."),
        (
            {"skips": ("add",), "depth": 3},
            "skips names 1 skip, but depth=3 has 2 skips, counted from the outermost level inward. "
            "Pass one name for all, or one entry for each.",
        ),
        (
            {"skips": ("add", "ad"), "depth": 3},
            "skips='ad' is not one of ['add', 'concat', 'gate', 'none']. Did you mean 'add'?",
        ),
        (
            {"skips": "ad", "depth": 1},
            "skips='ad' is not one of ['add', 'concat', 'gate', 'none']. Did you mean 'add'?",
        ),
        ({"skips": 3}, "skips must be a name, a callable, or a sequence of them, got 3."),
        (
            {"dropout": 0.5},
            "dropout must be a sequence of probabilities, one for each decoder level from the innermost outward, "
            "got 0.5. For example (0.5, 0.5, 0.5), or () for none.",
        ),
        (
            {"deconv_size": 2, "upsample": "nearest"},
            "deconv_size=2 applies only to upsample='deconv', got upsample='nearest'. Leave deconv_size out.",
        ),
        ({"stem": 1}, "stem must be True or False, got 1."),
        ({"bottleneck_norm": None}, "bottleneck_norm must be True or False, got None."),
        ({"act_before_merge": "yes", "depth": 1}, "act_before_merge must be True or False, got 'yes'."),
        ({"dropout": (0.5, 1.5)}, "each of dropout must be a number between 0 and 1, got 1.5."),
        ({"attention": (3,), "depth": 3}, "attention has level 3, but the innermost level of depth=3 is 2."),
        ({"attention": (-1,), "depth": 3}, "each of attention must be a whole number >= 0, got -1."),
        ({"attention": 1, "depth": 3}, "attention must be a sequence of encoder levels, got 1."),
    ],
)
def test_the_unet_refuses_levels_that_contradict_one_another(changes, message):
    with pytest.raises(ArgumentError) as caught:
        UNetGenerator(**changes)
    assert str(caught.value) == f"UNetGenerator: {message}"


def test_the_presets_of_the_paper_have_a_bias_in_every_convolution():
    for name, depth in {"phillipi/unet_256": 8, "phillipi/unet_128": 7}.items():
        network = UNetGenerator.preset(name, base_channels=1)
        convs = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
        assert len(convs) == 2 * depth
        assert all(conv.bias is not None for conv in convs)


def test_the_unet_of_2015_is_as_wide_as_in_the_figure_of_its_paper():
    """64 to 1024 channels, two convolutions a level, 2x2 up-convolutions that halve the channels; 1 in, 2 out."""

    def conv(of, to, size):
        return of * to * size**2 + to

    widths = (64, 128, 256, 512, 1024)
    down = sum(conv(of, to, 3) + conv(to, to, 3) for of, to in zip((1, *widths), widths, strict=False))
    up = sum(conv(below, here, 2) + conv(2 * here, here, 3) + conv(here, here, 3) for here, below in pairwise(widths))
    with torch.device("meta"):
        network = UNetGenerator.preset("unet_2015", 1, 2)
    assert network.channels == widths
    assert network.num_parameters() == down + up + conv(64, 2, 1) == 31_030_658
    convs = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    assert len(convs) == 23, "the number that the paper tells"


def test_the_unet_of_2015_computes_what_its_paper_draws():
    network = UNetGenerator.preset("unet_2015", 1, 2, base_channels=2)
    init_weights(network, "kaiming")
    weights = network.state_dict()
    relu, pool = torch.relu, nn.functional.max_pool2d

    def conv(x, name):
        return nn.functional.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    image = images_for(network, (32, 48))
    x = relu(conv(relu(conv(image, "encoder.0.0.conv")), "encoder.0.1.conv"))
    levels = [x]
    for level in range(1, 5):
        x = relu(conv(relu(conv(pool(x, 2), f"encoder.{level}.conv")), f"encoder.{level}.conv2.conv"))
        levels.append(x)
    assert [tuple(level.shape[1:]) for level in levels] == [(2 * 2**i, 32 // 2**i, 48 // 2**i) for i in range(5)]
    for step, skip in enumerate(reversed(levels[:-1])):
        of = f"decoder.{step}"
        x = nn.functional.conv_transpose2d(x, weights[f"{of}.up.weight"], weights[f"{of}.up.bias"], stride=2)
        x = relu(torch.cat([skip, x], dim=1))
        x = relu(conv(relu(conv(x, f"{of}.convs.0.conv")), f"{of}.convs.1.conv"))
    expected = nn.functional.conv2d(x, weights["head.weight"], weights["head.bias"])
    torch.testing.assert_close(network(image), expected)


def test_an_unknown_preset_gets_a_hint():
    with pytest.raises(ArgumentError) as caught:
        UNetGenerator.preset("junyanz/unet256")
    assert str(caught.value) == (
        "UNetGenerator: preset='junyanz/unet256' is not one of ['junyanz/unet_128', 'junyanz/unet_256', "
        "'phillipi/unet_128', 'phillipi/unet_256', 'tensorflow/unet', 'unet_2015']. Did you mean 'junyanz/unet_256'?"
    )


def test_the_unet_has_no_norm_on_its_first_convolution_and_its_bottleneck():
    norms = [type(block.norm) for block in UNetGenerator(base_channels=2, depth=4).encoder]
    assert norms == [nn.Identity, nn.BatchNorm2d, nn.BatchNorm2d, nn.Identity]
    norms = [type(block.norm) for block in UNetGenerator(base_channels=2, depth=3, bottleneck_norm=True).encoder]
    assert norms == [nn.Identity, nn.BatchNorm2d, nn.BatchNorm2d]


@pytest.mark.parametrize(("norm", "kind"), [("batch", "BatchNorm2d"), ("instance", "InstanceNorm2d")])
def test_a_norm_that_would_see_one_value_at_the_bottleneck_is_refused(norm, kind):
    network = UNetGenerator(base_channels=2, depth=3, norm=norm, bottleneck_norm=True)
    with pytest.raises(ShapeError) as caught:
        network(torch.zeros(1, 3, 7, 8))
    assert str(caught.value) == (
        f"UNetGenerator: the image is so small that a {kind} inside would see a single value (batch 1, 1x1 there) and "
        "return zeros. Use a larger image, or norm='group'."
    )
    assert network(torch.zeros(1, 3, 8, 9)).shape == (1, 3, 8, 9)
    if norm == "batch":
        assert network(torch.zeros(2, 3, 8, 8)).shape == (2, 3, 8, 8)


def test_the_unet_of_tensorflow_trains_on_one_image_down_to_one_value():
    network = UNetGenerator.preset("tensorflow/unet", base_channels=2, depth=3, dropout=())
    innermost = network.encoder[-1]
    network(images_for(network, (8, 8), batch=1)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    # The shift is 0, and so is all that the innermost decoder level makes of it: its ReLU passes no gradient.
    assert innermost.norm.bias.grad.abs().sum() == 0
    nn.init.normal_(innermost.norm.bias)
    network(images_for(network, (8, 8), batch=1)).sum().backward()
    assert innermost.norm.bias.grad.abs().sum() > 0
    assert innermost.conv.weight.grad.abs().sum() == 0


def test_a_skip_that_is_merged_after_the_activation_keeps_its_negative_values():
    merged = {}
    for first in (False, True):
        network = UNetGenerator(base_channels=2, depth=3, act_before_merge=first)
        network.head.register_forward_pre_hook(lambda _, inputs, first=first: merged.update({first: inputs[0]}))
        network(images_for(network))
        assert type(network.encoder[-1].act) is (nn.LeakyReLU if first else nn.ReLU)
    (skip, decoded), plain = merged[True].split(2, dim=1), merged[False]
    assert skip.min() < 0 <= decoded.min()
    assert plain.min() >= 0


def test_skips_count_from_the_outermost_level_inward():
    network = UNetGenerator(base_channels=2, depth=4, skips=("none", "gate", "concat"))
    kinds = [type(block.merge) for block in network.decoder]
    assert kinds == [ConcatSkip, GatedSkip, NoSkip]


def test_dropout_counts_from_the_innermost_level_outward():
    network = UNetGenerator(base_channels=2, depth=5, dropout=(0.1, 0.0, 0.3))
    probabilities = [getattr(block.dropout, "p", 0.0) for block in network.decoder]
    assert probabilities == [0.1, 0.0, 0.3, 0.0]


@pytest.mark.parametrize("kind", ["concat", "add", "gate", "none"])
def test_only_without_skips_does_the_decoder_ignore_the_encoders_features(kind):
    network = UNetGenerator(base_channels=4, depth=3, skips=kind).eval()
    skips = []

    def detach_skip(module, inputs):
        skips.append(inputs[1].detach().requires_grad_())
        return inputs[0], skips[-1]

    for block in network.decoder:
        block.register_forward_pre_hook(detach_skip)
    output = network(images_for(network))
    gradients = torch.autograd.grad(output.square().sum(), skips, allow_unused=True)
    assert len(gradients) == 2
    if kind == "none":
        assert gradients == (None, None)
    else:
        assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_attention_starts_as_the_identity():
    network = UNetGenerator(base_channels=4, depth=3, attention=(0, 1, 2)).eval()
    plain_network = UNetGenerator(base_channels=4, depth=3).eval()
    plain_network.load_state_dict(
        {key: value for key, value in network.state_dict().items() if not key.startswith("attention")}
    )
    images = images_for(network)
    assert torch.equal(network(images), plain_network(images))


def test_a_config_keeps_its_values_when_the_caller_changes_his_list():
    channels = [4, 8]
    network = UNetGenerator(channels=channels)
    channels.append(16)
    assert network.config["channels"] == (4, 8)


def test_the_summary_shows_each_level():
    network = UNetGenerator(1, 2, base_channels=4, depth=4, skips=("add", "gate", "none"), attention=(2,))
    assert network.summary().splitlines() == [
        f"UNetGenerator: 1 -> 2 channels, {sum(p.numel() for p in network.parameters()):,} parameters",
        "level  size  channels  skip    receptive field",
        "    0  1/2          4  add                   4",
        "    1  1/4          8  gate                 10",
        "    2  1/8         16  none        whole image",
        "    3  1/16        32  -           whole image",
    ]


def test_the_summary_of_a_stem_begins_at_full_resolution():
    lines = UNetGenerator.preset("unet_2015", base_channels=2).summary().splitlines()
    assert [line.split()[1:3] for line in lines[2:]] == [
        ["1/1", "2"],
        ["1/2", "4"],
        ["1/4", "8"],
        ["1/8", "16"],
        ["1/16", "32"],
    ]
    assert [line.split()[-1] for line in lines[2:]] == ["5", "14", "32", "68", "140"]


def test_the_summary_names_a_merge_module_of_ones_own():
    class MySkip(ConcatSkip):
        pass

    assert re.search(r"^ +0 +1/2 +4 +MySkip +4$", UNetGenerator(channels=(4, 8), skips=MySkip).summary(), re.MULTILINE)


@pytest.mark.parametrize(
    ("settings", "size", "text", "depth", "fit"),
    [
        ({}, (64, 64), "depth=8 pads images of 64x64 to 256x256, and takes about 16.0 times", 6, "64x64"),
        ({}, (300, 280), "depth=8 pads images of 300x280 to 512x512, and takes about 3.1 times", 6, "320x320"),
        ({"stem": True, "depth": 9}, (64, 64), "depth=9 pads images of 64x64 to 256x256", 7, "64x64"),
        ({"depth": 7}, (100, 1), "depth=7 pads images of 100x1 to 128x128", 1, "100x2"),
    ],
)
def test_costly_padding_warns_once_with_the_depth_that_fits(settings, size, text, depth, fit):
    network = UNetGenerator(base_channels=1, width_cap=1, norm="none", **settings)
    images = torch.zeros(1, 3, *size)
    with pytest.warns(UserWarning, match=f"UNetGenerator: {text}.*With depth={depth}, they are padded to {fit}"):
        network(images)
    network(images)  # a warning would be an error


def test_other_padding_does_not_warn():
    def network(depth=8):
        return UNetGenerator(base_channels=1, width_cap=1, norm="none", depth=depth)

    network()(torch.zeros(1, 3, 256, 256))
    network()(torch.zeros(1, 3, 256, 200))
    network(depth=6)(torch.zeros(1, 3, 40, 40))  # small images cost nothing
    images = torch.zeros(1, 3, 64, 64)
    network().eval()(images)
    translate(network(), images)
    torch.export.export(network(), (images,), strict=False)
    torch.compile(network(), backend="eager", fullgraph=True)(images)
    network(depth=1)(torch.zeros(1, 3, 1, 5001))
