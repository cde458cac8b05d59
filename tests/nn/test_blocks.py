import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from imtrans import ConvNormAct, DownBlock, ResidualBlock, UpBlock
from imtrans.errors import ArgumentError, ShapeError
from imtrans.nn.layers import DOWNSAMPLE, PADDING_MODES, UPSAMPLE, BlurPool, group_norm
from imtrans.nn.skips import SKIPS, AddSkip

NORMS = [nn.BatchNorm2d, nn.InstanceNorm2d, group_norm, nn.Identity]


def check_backward(block, *inputs):
    """A finite gradient for every parameter."""
    block(*inputs).square().sum().backward()
    without = [name for name, p in block.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []


# ConvNormAct


@settings(max_examples=60)
@given(height=st.integers(4, 20), width=st.integers(4, 20), kernel_size=st.integers(1, 5), stride=st.integers(1, 3))
def test_a_convolution_divides_the_size_by_its_stride(height, width, kernel_size, stride):
    block = ConvNormAct(2, 3, kernel_size=kernel_size, stride=stride)
    output = block(torch.randn(2, 2, height, width))
    assert output.shape == (2, 3, block.out_size(height), block.out_size(width))
    if kernel_size % 2 == 1:
        assert output.shape[2:] == (-(-height // stride), -(-width // stride))
    elif stride == 2:
        assert output.shape[2:] == (height // 2, width // 2)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
def test_conv_norm_act_takes_every_norm_and_padding_mode(norm, padding_mode):
    block = ConvNormAct(3, 4, norm=norm, padding_mode=padding_mode)
    x = torch.randn(2, 3, 8, 8)
    assert block(x).shape == (2, 4, 8, 8)
    check_backward(block, x)


def test_conv_norm_act_is_its_parts_in_that_order():
    block = ConvNormAct(3, 4, act=nn.Tanh).eval()
    nn.init.normal_(block.norm.running_mean)
    x = torch.randn(2, 3, 8, 8)
    assert [name for name, _ in block.named_children()] == ["conv", "norm", "act"]
    assert torch.equal(block(x), block.act(block.norm(block.conv(x))))


def test_padding_pads_with_what_its_mode_says():
    x = torch.randn(1, 1, 6, 6)
    for mode in PADDING_MODES:
        block = ConvNormAct(1, 1, kernel_size=5, padding_mode=mode, norm=nn.Identity, act=nn.Identity)
        padded = nn.functional.pad(x, (2, 2, 2, 2), mode="constant" if mode == "zeros" else mode)
        expected = nn.functional.conv2d(padded, block.conv.weight, block.conv.bias)
        torch.testing.assert_close(block(x), expected)


def test_padding_of_zero_is_a_value():
    assert ConvNormAct(1, 1, kernel_size=3, padding=0)(torch.randn(1, 1, 6, 6)).shape == (1, 1, 4, 4)


@pytest.mark.parametrize(
    ("norm", "bias", "biased"),
    [(nn.BatchNorm2d, None, False), (nn.InstanceNorm2d, None, True), (nn.Identity, None, True),
     (nn.BatchNorm2d, True, True), (nn.Identity, False, False)],
)  # fmt: skip
def test_a_convolution_has_a_bias_where_the_norm_has_no_shift_or_one_asks(norm, bias, biased):
    assert (ConvNormAct(2, 2, norm=norm, bias=bias).conv.bias is not None) is biased
    assert (DownBlock(2, 2, norm=norm, bias=bias).conv.bias is not None) is biased
    assert (UpBlock(2, 2, norm=norm, bias=bias).up.bias is not None) is biased
    assert (ResidualBlock(2, norm=norm, bias=bias).conv2.conv.bias is not None) is biased


def test_an_unknown_padding_mode_is_refused():
    with pytest.raises(ArgumentError) as caught:
        ConvNormAct(3, 3, padding_mode="reflct")
    assert str(caught.value) == (
        "ConvNormAct: padding_mode='reflct' is not one of ['circular', 'reflect', 'replicate', 'zeros']. "
        "Did you mean 'reflect'?"
    )


# DownBlock


@pytest.mark.parametrize("downsample", DOWNSAMPLE)
@pytest.mark.parametrize("num_convs", [1, 2, 3])
@settings(max_examples=10)
@given(height=st.integers(2, 17), width=st.integers(4, 17))
def test_a_down_block_halves_height_and_width(downsample, num_convs, height, width):
    block = DownBlock(3, 4, downsample=downsample, num_convs=num_convs)
    assert block(torch.randn(2, 3, height, width)).shape == (2, 4, height // 2, width // 2)


@pytest.mark.parametrize("downsample", DOWNSAMPLE)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("num_convs", [1, 3])
def test_a_down_block_takes_every_option(downsample, norm, num_convs):
    block = DownBlock(3, 4, downsample=downsample, norm=norm, num_convs=num_convs, act=nn.SiLU)
    check_backward(block, torch.randn(2, 3, 8, 8))
    convs = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == num_convs
    assert sum(isinstance(m, nn.SiLU) for m in block.modules()) == num_convs


def test_each_way_to_halve_has_its_own_layers():
    kinds = {name: [type(m) for m in DownBlock(3, 4, downsample=name).children()] for name in DOWNSAMPLE}
    assert kinds == {
        "conv": [nn.Conv2d, nn.BatchNorm2d, nn.ReLU],
        "pool": [nn.MaxPool2d, nn.Conv2d, nn.BatchNorm2d, nn.ReLU],
        "blur": [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, BlurPool],
    }


def test_a_down_block_refuses_what_it_does_not_know():
    with pytest.raises(ArgumentError) as caught:
        DownBlock(3, 4, downsample="avgpool")
    assert str(caught.value) == (
        "DownBlock: downsample='avgpool' is not one of ['blur', 'conv', 'pool']. Did you mean 'pool'?"
    )
    with pytest.raises(ArgumentError) as caught:
        DownBlock(3, 4, num_convs=0)
    assert str(caught.value) == "DownBlock: num_convs must be a whole number >= 1, got 0."


# UpBlock


@pytest.mark.parametrize("upsample", UPSAMPLE)
@pytest.mark.parametrize("skip", SKIPS)
@pytest.mark.parametrize("num_convs", [1, 2])
@settings(max_examples=5)
@given(height=st.integers(2, 9), width=st.integers(1, 9))
def test_an_up_block_doubles_height_and_width_and_tells_its_channels(upsample, skip, num_convs, height, width):
    block = UpBlock(3, 4, skip_channels=4, skip=SKIPS[skip], upsample=upsample, num_convs=num_convs)
    x, from_encoder = torch.randn(2, 3, height, width), torch.randn(2, 4, 2 * height, 2 * width)
    output = block(x, from_encoder)
    assert output.shape == (2, block.out_channels, 2 * height, 2 * width)
    assert block.out_channels == (8 if num_convs == 1 and skip in ("concat", "gate") else 4)
    check_backward(block, x, from_encoder)


@pytest.mark.parametrize("norm", NORMS)
def test_an_up_block_takes_every_norm(norm):
    block = UpBlock(3, 4, norm=norm, num_convs=3, dropout=0.5, act=nn.SiLU)
    assert len(block.convs) == 3
    check_backward(block, torch.randn(2, 3, 4, 4))


def test_an_up_block_norms_drops_merges_and_activates_in_that_order():
    block = UpBlock(3, 4, skip_channels=2, dropout=0.5)
    x, skip = torch.randn(2, 3, 4, 4), torch.randn(2, 2, 8, 8)
    torch.manual_seed(1)
    output = block(x, skip)
    torch.manual_seed(1)
    dropped = nn.functional.dropout(nn.functional.batch_norm(block.up(x), None, None, training=True), 0.5)
    torch.testing.assert_close(output, torch.cat([skip, dropped], 1).relu())


def test_an_up_block_without_a_skip_refuses_one_and_the_other_way_round():
    x, skip = torch.randn(1, 3, 4, 4), torch.randn(1, 4, 8, 8)
    with pytest.raises(ShapeError) as caught:
        UpBlock(3, 4)(x, skip)
    assert str(caught.value) == "UpBlock: built without a skip (skip_channels=0), but called with one."
    with pytest.raises(ShapeError) as caught:
        UpBlock(3, 4, skip_channels=4)(x)
    assert str(caught.value) == "UpBlock: built with a skip, but called without one."


def test_a_merge_module_must_tell_its_output_channels():
    class Mute(nn.Module):
        def __init__(self, channels, skip_channels):
            super().__init__()

    with pytest.raises(ArgumentError) as caught:
        UpBlock(3, 4, skip_channels=4, skip=Mute)
    assert str(caught.value) == (
        "UpBlock: the merge module Mute must have its number of output channels as an int attribute out_channels, "
        "got None. Set it in its __init__."
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"upsample": "nearst"},
            "upsample='nearst' is not one of ['bilinear', 'deconv', 'nearest', 'shuffle']. Did you mean 'nearest'?",
        ),
        ({"dropout": 2.0}, "dropout must be a number between 0 and 1, got 2.0."),
        ({"num_convs": 0}, "num_convs must be a whole number >= 1, got 0."),
    ],
)
def test_an_up_block_refuses_what_it_does_not_know(changes, message):
    with pytest.raises(ArgumentError) as caught:
        UpBlock(3, 4, **changes)
    assert str(caught.value) == f"UpBlock: {message}"


def test_an_up_block_passes_on_what_its_merge_module_refuses():
    with pytest.raises(ArgumentError, match="cannot add 8 skip channels to 4"):
        UpBlock(3, 4, skip_channels=8, skip=AddSkip)


# ResidualBlock


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
def test_a_residual_block_takes_every_norm_and_padding_mode(norm, padding_mode):
    block = ResidualBlock(4, norm=norm, padding_mode=padding_mode, dropout=0.5)
    x = torch.randn(2, 4, 5, 7)
    assert block(x).shape == x.shape
    check_backward(block, x)


def test_a_residual_block_adds_and_does_not_activate_the_sum():
    block = ResidualBlock(4, norm=nn.Identity)
    nn.init.zeros_(block.conv2.conv.weight)
    nn.init.zeros_(block.conv2.conv.bias)
    x = torch.randn(2, 4, 5, 5)
    assert x.min() < 0
    assert torch.equal(block(x), x)


def test_a_residual_block_activates_and_drops_between_its_convolutions():
    block = ResidualBlock(4, dropout=0.5).eval()
    x = torch.randn(2, 4, 6, 6)
    inner = nn.functional.instance_norm(block.conv1.conv(x)).relu()
    torch.testing.assert_close(block(x), x + nn.functional.instance_norm(block.conv2.conv(inner)))
    block.train()
    assert not torch.equal(block(x), block(x))


def test_a_residual_block_refuses_an_impossible_dropout():
    with pytest.raises(ArgumentError) as caught:
        ResidualBlock(4, dropout=-1.0)
    assert str(caught.value) == "ResidualBlock: dropout must be a number between 0 and 1, got -1.0."
