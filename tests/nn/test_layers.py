import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from imtrans import running_as
from imtrans.errors import ArgumentError
from imtrans.nn import layers
from imtrans.nn.layers import (
    ACTS,
    NORMS,
    UPSAMPLE,
    BlurPool,
    KerasBatchNorm,
    NearestConv,
    act_from,
    group_norm,
    has_shift,
    norm_from,
    upsample_conv,
)
from imtrans.receptive_fields.trace import receptive_field


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


def test_the_other_leaky_relu_has_the_slope_of_keras():
    assert act_from("Owner", "act", "leaky_relu_0.3")()(torch.tensor([-1.0])).item() == pytest.approx(-0.3)


def test_a_batch_norm_of_keras_divides_by_its_own_epsilon_and_moves_its_statistics_slowly():
    norm, x = KerasBatchNorm(2), torch.randn(2, 2, 3, 3) * 0.01
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(norm(x), (x - mean) / (var + 0.001).sqrt())
    torch.testing.assert_close(norm.running_mean, 0.01 * mean.flatten())
    torch.testing.assert_close(norm.running_var, 0.99 + 0.01 * var.flatten() * 18 / 17)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_norm_of_keras_makes_its_shift_of_a_single_value(dtype):
    norm = KerasBatchNorm(3)
    nn.init.normal_(norm.bias)
    x = torch.tensor([1.0, -2.0, 3.0], dtype=dtype).reshape(1, 3, 1, 1).requires_grad_()
    y = norm(x)
    assert y.dtype == dtype
    assert torch.equal(y.flatten(), norm.bias.to(dtype))
    torch.testing.assert_close(norm.running_mean, 0.01 * x.detach().float().flatten())
    torch.testing.assert_close(norm.running_var, torch.full((3,), 0.99))
    assert norm.num_batches_tracked == 1
    y.sum().backward()
    assert [p.grad.tolist() for p in (x[0, :, 0, 0], norm.weight, norm.bias) if p.is_leaf] == [[0, 0, 0], [1, 1, 1]]
    assert x.grad.abs().sum() == 0
    with running_as(norm, "batch_stats"):
        before = norm.running_mean.clone()
        assert torch.equal(norm(x), y)
        assert torch.equal(norm.running_mean, before)
    assert not torch.equal(norm.eval()(x), y), "running statistics"
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        nn.BatchNorm2d(3)(x)


def test_a_callable_is_returned_as_it_is():
    assert norm_from("Owner", nn.LayerNorm) is nn.LayerNorm
    assert act_from("Owner", "act", nn.Mish) is nn.Mish


@pytest.mark.parametrize(("value", "guess"), [("btch", "batch"), (None, "none"), (3, None), (["batch"], "batch")])
def test_what_is_neither_a_known_norm_nor_a_callable_is_refused(value, guess):
    with pytest.raises(ArgumentError) as caught:
        norm_from("Owner", value)
    hint = f" Did you mean {guess!r}?" if guess else ""
    names = "['batch', 'group', 'instance', 'keras_batch', 'none']"
    assert str(caught.value) == f"Owner: norm={value!r} is not one of {names}.{hint}"


def test_an_unknown_activation_is_refused_with_the_name_of_its_argument():
    with pytest.raises(ArgumentError) as caught:
        act_from("Owner", "out_act", "tanhh")
    assert str(caught.value) == (
        "Owner: out_act='tanhh' is not one of ['elu', 'gelu', 'leaky_relu', 'leaky_relu_0.3', 'none', 'relu', "
        "'sigmoid', 'silu', 'tanh']. Did you mean 'tanh'?"
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


def results(up, x):
    """Output of `up`, and the gradients of a random function of it, which is the same in each call."""
    x = x.detach().requires_grad_()
    y = up(x)
    draw = torch.Generator().manual_seed(0)
    (y * torch.randn(y.shape, generator=draw, dtype=y.dtype)).sum().backward()
    gradients = [parameter.grad for parameter in up.parameters()]
    up.zero_grad(set_to_none=True)
    return [y.detach(), x.grad, *gradients]


@pytest.fixture
def folded(monkeypatch):
    """All maps count as large; yields the shapes of the weights that were folded."""
    shapes, fold = [], layers.fold_nearest
    monkeypatch.setattr(layers, "_FOLD_FROM", 1)
    monkeypatch.setattr(layers, "_FOLD_FROM_MAP", 1)
    monkeypatch.setattr(layers, "fold_nearest", lambda weight: (shapes.append(tuple(weight.shape)), fold(weight))[1])
    return shapes


@pytest.fixture
def folds(folded, monkeypatch):
    """As `folded`, with the thresholds as they are."""
    monkeypatch.setattr(layers, "_FOLD_FROM", 256)
    monkeypatch.setattr(layers, "_FOLD_FROM_MAP", 64)
    return folded


def test_the_folded_kernel_is_exact_with_its_gradients(folded):
    @settings(max_examples=40)
    @given(
        batch=st.integers(1, 3),
        channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
        height=st.integers(1, 9),
        width=st.integers(1, 9),
        bias=st.booleans(),
    )
    def check(batch, channels, height, width, bias):
        up = NearestConv(*channels, bias=bias).double()
        x = torch.randn(batch, channels[0], height, width, dtype=torch.float64)
        for ours, plain in zip(results(up, x), results(nn.Sequential(*up), x), strict=True):
            torch.testing.assert_close(ours, plain, atol=1e-12, rtol=1e-12)

    check()
    assert folded


def test_the_folded_kernel_is_differentiable_twice(folded):
    up = NearestConv(2, 1, bias=False).double()
    x = torch.randn(1, 2, 3, 2, dtype=torch.float64, requires_grad=True)

    def run(x, weight):
        return torch.func.functional_call(up, {"1.weight": weight}, x)

    assert torch.autograd.gradgradcheck(run, (x, up[1].weight.detach().requires_grad_()))
    assert folded


@pytest.mark.parametrize("channels", [(64, 3), (16, 32)])
def test_in_fp32_large_maps_differ_by_rounding(channels, folds):
    up, x = NearestConv(*channels), torch.randn(2, channels[0], 20, 12)
    for ours, plain in zip(results(up, x), results(nn.Sequential(*up), x), strict=True):
        assert (ours - plain).abs().max() <= 1e-5 * plain.abs().max()
    assert folds == [(channels[1], channels[0], 3, 3)]


def test_under_autocast_it_is_as_exact_as_the_plain_way(folds):
    up, x = NearestConv(64, 16), torch.randn(1, 64, 16, 16)
    exact = results(nn.Sequential(*up), x)
    with torch.autocast("cpu", torch.bfloat16):
        ours, plain = results(up, x), results(nn.Sequential(*up), x)
    assert ours[0].dtype == torch.bfloat16
    assert folds
    for one, usual, best in zip(ours, plain, exact, strict=True):
        assert (one - best).norm() < 1.5 * (usual - best).norm()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1, 16, 16), True), ((1, 32, 8), True), ((1, 15, 17), False), ((1, 8, 8), False), ((3, 8, 8), False),
     ((4, 8, 8), True), ((64, 4, 4), False), ((1, 1, 1), False)],
)  # fmt: skip
def test_the_shape_alone_decides(shape, expected, folds):
    batch, height, width = shape
    up = NearestConv(2, 3)
    for _ in range(2):
        assert up(torch.randn(batch, 2, height, width)).shape == (batch, 3, 2 * height, 2 * width)
    assert len(folds) == 2 * expected


@pytest.mark.parametrize("bias", [True, False])
def test_the_keys_are_those_of_a_resize_and_a_convolution(bias):
    up = upsample_conv(2, 3, upsample="nearest", bias=bias)
    assert list(up.state_dict()) == (["1.weight", "1.bias"] if bias else ["1.weight"])
    up.freeze()
    with torch.no_grad():
        up(torch.randn(1, 2, 16, 16))
    assert list(up.state_dict()) == (["1.weight", "1.bias"] if bias else ["1.weight"])


@pytest.mark.parametrize(
    "change",
    [
        lambda up: up[1].register_forward_hook(lambda *_: None),
        lambda up: up[0].register_forward_pre_hook(lambda *_: None),
        lambda up: up[1].register_full_backward_hook(lambda *_: None),
        lambda up: up.__setitem__(1, nn.Conv2d(2, 3, 5, padding=2)),
        lambda up: up.__setitem__(1, nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect")),
        lambda up: up.__setitem__(0, nn.Upsample(scale_factor=2, mode="bilinear")),
        lambda up: nn.utils.parametrizations.weight_norm(up[1]),
    ],
)
def test_layers_that_were_changed_or_have_hooks_are_called(change, folded):
    up, x = NearestConv(2, 3), torch.randn(1, 2, 6, 4)
    change(up)
    assert torch.equal(up(x), nn.Sequential(*up)(x))
    assert folded == []


def test_a_frozen_kernel_is_folded_once_and_a_trained_one_in_each_call(folds):
    up, x = NearestConv(2, 3), torch.randn(1, 2, 16, 16)
    frozen = copy.deepcopy(up)
    frozen.freeze()
    with torch.no_grad():
        for _ in range(3):
            assert torch.equal(frozen(x), up(x))
        assert len(folds) == 4
        up[1].weight.mul_(2)
        torch.testing.assert_close(up(x), nn.Sequential(*up)(x))


@pytest.mark.parametrize("bias", [True, False])
def test_an_up_convolution_can_be_replaced_by_a_transposed_one(bias):
    up = NearestConv(2, 3, bias=bias).eval()
    one = up.folded()
    assert type(one) is nn.ConvTranspose2d
    assert not one.training
    for size in (1, 4, 16):
        x = torch.randn(2, 2, size, size + 1)
        torch.testing.assert_close(one(x), nn.Sequential(*up)(x))
    up[1].register_forward_hook(lambda *_: None)
    assert up.folded() is up


def test_a_folded_kernel_needs_no_values_and_has_the_same_receptive_field(folded):
    up = NearestConv(2, 3)
    assert receptive_field(up) == receptive_field(nn.Sequential(*up))
    assert NearestConv(2, 3).to("meta")(torch.empty(1, 2, 4, 4, device="meta")).shape == (1, 3, 8, 8)
    assert len(folded) == 2


@pytest.mark.parametrize("size", [4, 16])
def test_a_compiled_up_convolution_is_one_graph(size):
    up, x = NearestConv(2, 3), torch.randn(2, 2, size, size)
    compiled = torch.compile(copy.deepcopy(up), fullgraph=True, backend="aot_eager")
    for ours, plain in zip(results(compiled, x), results(up, x), strict=True):
        torch.testing.assert_close(ours, plain)


def test_an_exported_up_convolution_takes_any_batch_size():
    up = NearestConv(2, 3)
    batch = torch.export.Dim("batch", min=1, max=64)
    for size in (8, 16):
        exported = torch.export.export(
            up, (torch.randn(3, 2, size, size),), dynamic_shapes=({0: batch},), strict=False
        ).module()
        for count in (1, 2, 5):
            x = torch.randn(count, 2, size, size)
            torch.testing.assert_close(exported(x), up(x))
