import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from imtrans.errors import ArgumentError
from imtrans.nn.layers import ACTS, NORMS, UPSAMPLE, BlurPool, act_from, group_norm, has_shift, norm_from, upsample_conv


@pytest.mark.parametrize("name", NORMS)
def test_a_norm_by_name_keeps_the_shape_and_lets_gradients_through(name):
    norm = norm_from("Owner", name)(6)
    x = torch.randn(2, 6, 4, 4, requires_grad=True)
    y = norm(x)
    assert y.shape == x.shape
    (y * torch.randn(y.shape)).sum().backward()
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("name", sorted(NORMS.keys() - {"none"}))
def test_a_norm_removes_scale_and_offset(name):
    norm = norm_from("Owner", name)(6)
    x = torch.randn(2, 6, 8, 8)
    torch.testing.assert_close(norm(5 * x + 3), norm(x), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ACTS)
def test_an_activation_by_name_keeps_the_shape_and_lets_gradients_through(name):
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    y = act_from("Owner", "act", name)()(x * 1.0)
    assert y.shape == x.shape
    y.sum().backward()
    assert x.grad.isfinite().all()
    assert x.grad.abs().sum() > 0


def test_the_leaky_relu_has_the_slope_of_the_paper():
    assert act_from("Owner", "act", "leaky_relu")()(torch.tensor([-1.0])).item() == pytest.approx(-0.2)


def test_a_callable_is_returned_as_it_is():
    assert norm_from("Owner", nn.LayerNorm) is nn.LayerNorm
    assert act_from("Owner", "act", nn.Mish) is nn.Mish


@pytest.mark.parametrize(("value", "guess"), [("btch", "batch"), (None, "none"), (3, None), (["batch"], "batch")])
def test_what_is_neither_a_known_norm_nor_a_callable_is_refused(value, guess):
    with pytest.raises(ArgumentError) as caught:
        norm_from("Owner", value)
    hint = f" Did you mean {guess!r}?" if guess else ""
    assert str(caught.value) == f"Owner: norm={value!r} is not one of ['batch', 'group', 'instance', 'none'].{hint}"


def test_an_unknown_activation_is_refused_with_the_name_of_its_argument():
    with pytest.raises(ArgumentError) as caught:
        act_from("Owner", "out_act", "tanhh")
    assert str(caught.value) == (
        "Owner: out_act='tanhh' is not one of ['elu', 'gelu', 'leaky_relu', 'none', 'relu', 'sigmoid', 'silu', "
        "'tanh']. Did you mean 'tanh'?"
    )


@given(channels=st.integers(1, 600))
def test_groups_divide_the_channels_and_hold_two_at_least(channels):
    norm = group_norm(channels)
    assert norm.num_channels == channels
    assert channels % norm.num_groups == 0
    assert norm.num_groups <= 32
    assert channels // norm.num_groups >= min(channels, 2)
    if channels % 64 == 0:
        assert norm.num_groups == 32


@given(channels=st.integers(2, 40))
def test_a_group_norm_does_not_erase_a_map_of_one_pixel(channels):
    x = torch.linspace(-1, 1, channels).reshape(1, channels, 1, 1)
    assert group_norm(channels)(x).abs().sum() > 0


@pytest.mark.parametrize(
    ("norm", "shift"),
    [
        (nn.BatchNorm2d(4), True),
        (nn.GroupNorm(1, 4), True),
        (nn.InstanceNorm2d(4, affine=True), True),
        (nn.InstanceNorm2d(4), False),
        (nn.BatchNorm2d(4, affine=False), False),
        (nn.Identity(), False),
    ],
)
def test_a_norm_has_a_shift_where_it_learns_one(norm, shift):
    assert has_shift(norm) is shift


@given(height=st.integers(2, 20), width=st.integers(2, 20))
def test_blur_halves_height_and_width(height, width):
    assert BlurPool(3)(torch.randn(2, 3, height, width)).shape == (2, 3, height // 2, width // 2)


def test_blur_keeps_a_constant_and_erases_what_alternates():
    blur = BlurPool(2)
    constant = torch.tensor([0.25, -3.0]).reshape(1, 2, 1, 1).expand(1, 2, 10, 10)
    torch.testing.assert_close(blur(constant), constant[..., ::2, ::2])
    alternating = torch.tensor([1.0, -1.0]).repeat(5).expand(1, 2, 10, 10)
    for pattern in (alternating, alternating.mT):
        assert pattern.abs().min() == 1
        inner = blur(pattern)[..., 1:-1, 1:-1]
        torch.testing.assert_close(inner, torch.zeros_like(inner))


def test_blur_keeps_channels_apart_and_its_kernel_is_no_parameter():
    x = torch.zeros(1, 2, 8, 8)
    x[:, 0] = torch.randn(8, 8)
    blur = BlurPool(2)
    assert blur(x)[:, 1].abs().sum() == 0
    assert list(blur.parameters()) == []
    assert repr(blur) == "BlurPool(2)"


@pytest.mark.parametrize("upsample", UPSAMPLE)
@settings(max_examples=15)
@given(height=st.integers(1, 9), width=st.integers(1, 9))
def test_every_up_convolution_doubles_height_and_width(upsample, height, width):
    up = upsample_conv(3, 5, upsample=upsample)
    x = torch.randn(2, 3, height, width, requires_grad=True)
    y = up(x)
    assert y.shape == (2, 5, 2 * height, 2 * width)
    y.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in up.parameters())
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("kernel_size", [2, 3, 4, 5, 6])
def test_a_transposed_convolution_doubles_with_any_kernel(kernel_size):
    up = upsample_conv(2, 3, kernel_size=kernel_size)
    assert up.kernel_size == (kernel_size, kernel_size)
    assert up(torch.randn(1, 2, 5, 7)).shape == (1, 3, 10, 14)


@pytest.mark.parametrize("upsample", UPSAMPLE)
def test_an_up_convolution_has_a_bias_if_asked(upsample):
    for bias in (True, False):
        names = [
            name.rpartition(".")[2] for name, _ in upsample_conv(2, 3, upsample=upsample, bias=bias).named_parameters()
        ]
        assert names == (["weight", "bias"] if bias else ["weight"])


@pytest.mark.parametrize("upsample", ["nearest", "bilinear"])
def test_resizing_before_the_convolution_leaves_no_checkerboard(upsample):
    up = upsample_conv(1, 1, upsample=upsample)
    inner = up(torch.ones(1, 1, 6, 6))[..., 1:-1, 1:-1]
    torch.testing.assert_close(inner, inner[..., :1, :1].expand_as(inner))


def test_an_unknown_way_to_upsample_is_refused():
    with pytest.raises(ArgumentError) as caught:
        upsample_conv(3, 3, upsample="bicubic")
    assert str(caught.value) == (
        "upsample_conv: upsample='bicubic' is not one of ['bilinear', 'deconv', 'nearest', 'shuffle']."
    )
