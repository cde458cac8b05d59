"""The traced receptive field is the support of the input gradient, for any module, and the known ones come out."""

import copy
import doctest
import importlib
import re
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from imtrans.errors import ArgumentError
from imtrans.nn import SelfAttention
from imtrans.receptive_fields.trace import ReceptiveField, _trace, receptive_field, receptive_fields

SIZE = 120
PROBES = 12
CHANNELS = 2
SCALES = [3, 2, 1.5, 0.75, 0.5, 1 / 3]


class Apply(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Branches(nn.Module):
    def __init__(self, branches, how):
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.how = how
        self.mix = nn.Conv2d(CHANNELS * len(branches), CHANNELS, 1) if how == "cat" else nn.Identity()

    def forward(self, x):
        maps = [branch(x) for branch in self.branches]
        height, width = (min(m.shape[k] for m in maps) for k in (-2, -1))
        maps = [m[..., :height, :width] for m in maps]
        return self.mix(torch.cat(maps, 1)) if self.how == "cat" else torch.stack(maps).sum(0)


class Shuffle(nn.Sequential):
    def __init__(self, factor):
        super().__init__(nn.Conv2d(CHANNELS, CHANNELS * factor**2, 1), nn.PixelShuffle(factor))


class Unshuffle(nn.Sequential):
    def __init__(self, factor):
        crop = Apply(lambda x: x[..., : x.shape[-2] // factor * factor, : x.shape[-1] // factor * factor])
        super().__init__(crop, nn.PixelUnshuffle(factor), nn.Conv2d(CHANNELS * factor**2, CHANNELS, 1))


class Pool(nn.Module):
    """A pooling; measured, it is a depthwise convolution over the same windows, for a maximum has one gradient."""

    def __init__(self, kind, kernel, stride, padding):
        super().__init__()
        self.pool = kind(kernel, stride=stride, padding=padding)
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, kernel, stride=stride, padding=padding, groups=CHANNELS)
        self.measured = False

    def forward(self, x):
        return self.conv(x) if self.measured else self.pool(x)


def conv(kernel, stride, padding, dilation):
    return nn.Conv2d(CHANNELS, CHANNELS, kernel, stride=stride, padding=padding, dilation=dilation)


def deconv(kernel, stride, padding, dilation):
    return nn.ConvTranspose2d(CHANNELS, CHANNELS, kernel, stride=stride, padding=padding, dilation=dilation)


def full_deconv(kernel, stride, padding):
    """A deconvolution whose every output position reads something."""
    return deconv(tuple(map(max, kernel, stride)), stride, padding, 1)


def resize(mode, scale, antialias):
    return Apply(
        lambda x: F.interpolate(
            x, scale_factor=scale, mode=mode, antialias=antialias and mode in ("bilinear", "bicubic")
        )
    )


def pad(mode, sides):
    sides = sides if mode == "constant" else [abs(side) for side in sides]
    return Apply(lambda x: F.pad(x, sides, mode=mode))


kernels = st.tuples(st.integers(1, 5), st.integers(1, 5))
small_pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
paddings = st.tuples(st.integers(0, 2), st.integers(0, 2))
modes = st.sampled_from(["nearest", "nearest-exact", "bilinear", "bicubic", "area"])
scales = st.sampled_from(SCALES)
pads = st.builds(
    pad,
    st.sampled_from(["constant", "reflect", "replicate", "circular"]),
    st.lists(st.integers(-2, 3), min_size=4, max_size=4),
)
pools = st.builds(
    Pool,
    st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]),
    st.integers(2, 4),
    st.integers(1, 3),
    st.integers(0, 1),
)
same_stride = st.lists(
    st.one_of(
        st.builds(conv, kernels, st.just(1), paddings, small_pairs),
        st.builds(deconv, kernels, st.just(1), paddings, small_pairs),
        pads,
    ),
    max_size=2,
).map(lambda layers: nn.Sequential(*layers))
layers = st.one_of(
    st.builds(conv, kernels, small_pairs, paddings, small_pairs),
    st.builds(full_deconv, kernels, small_pairs, paddings),
    pools,
    st.builds(resize, modes, scales, st.booleans()),
    pads,
    st.builds(Shuffle, st.integers(2, 3)),
    st.builds(Unshuffle, st.integers(2, 3)),
    st.builds(
        lambda start, step: Apply(lambda x: x[..., start::step, start:]), st.integers(0, 3), small_pairs.map(min)
    ),
)
branches = st.builds(Branches, st.lists(same_stride, min_size=2, max_size=3), st.sampled_from(["sum", "cat"]))
sparse_deconvs = st.builds(deconv, kernels, small_pairs, paddings, st.integers(1, 2))
stacks = st.one_of(
    st.lists(st.one_of(layers, branches), min_size=1, max_size=4),
    # A sum with positions that read nothing along one axis is followed axis by axis: a bound, not the support.
    st.lists(st.one_of(layers, sparse_deconvs), min_size=1, max_size=4),
).map(lambda some: nn.Sequential(*some))


def supports(module, first):
    """Return the first and last (row, column) with a gradient, for `PROBES` outputs along a diagonal."""
    module = copy.deepcopy(module).double()
    for part in module.modules():
        part.measured = True
    for parameter in module.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    image = torch.zeros(PROBES, CHANNELS, SIZE, SIZE, dtype=torch.float64, requires_grad=True)
    out = module(image)
    sum(out[k, :, first[0] + k, first[1] + k].sum() for k in range(PROBES)).backward()
    read = image.grad.ne(0).any(1)
    spans = []
    for k in range(PROBES):
        found = [read[k].any(1 - axis).nonzero().flatten().tolist() for axis in (0, 1)]
        spans.append([(f[0], f[-1]) if f else None for f in found])
    return spans


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def fits(module):
    """Whether the module runs on such an input: a stack may leave nothing of it, or pad more than there is."""
    try:
        with torch.no_grad():
            out = copy.deepcopy(module).to("meta")(torch.zeros(1, CHANNELS, SIZE, SIZE, device="meta"))
    except RuntimeError:
        return False
    return max(out.shape) < 4 * SIZE and min(out.shape[2:]) > PROBES


def check_against_the_gradient(module):
    """Compare the spans of probes in the middle; return False if those are too near the borders for that."""
    output, layout = _trace(module, (1, CHANNELS, SIZE, SIZE))
    axes = [dim[0].axis for dim in layout[2:]]
    sizes = tuple(max((s[1] - s[0] + 1 for s in axis.phases if s), default=0) for axis in axes)
    first = [(n - PROBES) // 2 for n in output.shape[-2:]]
    near_border = any(axis.stride * n < size + 8 for axis, n, size in zip(axes, first, sizes, strict=True))
    if near_border or min(sizes) == 0:
        return False

    expected = [tuple(axis.at(n + k) for axis, n in zip(axes, first, strict=True)) for k in range(PROBES)]
    # A position that reads nothing along one axis reads nothing at all.
    expected = [[None, None] if None in spans else list(spans) for spans in expected]
    assert supports(module, first) == expected

    field = receptive_field(module, in_channels=CHANNELS, input_size=SIZE)
    assert pair(field.size) == sizes
    assert pair(field.stride) == tuple(axis.stride for axis in axes)
    if all(None not in axis.phases for axis in axes):
        assert pair(field.offset) == tuple(axis.at(0)[0] for axis in axes)
        if max(len(axis.phases) for axis in axes) <= PROBES:
            measured = [[high - low + 1 for low, high in spans] for spans in expected]
            assert pair(field.size) == tuple(map(max, zip(*measured, strict=True)))
    return True


@given(module=stacks)
def test_the_field_is_the_support_of_the_input_gradient(module):
    assume(fits(module))
    assume(check_against_the_gradient(module))


RESIZES = [(mode, False) for mode in ("nearest", "nearest-exact", "bilinear", "bicubic", "area")]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("mode", "antialias"), [*RESIZES, ("bilinear", True), ("bicubic", True)])
def test_resizing_is_the_support_of_the_input_gradient(mode, antialias, scale):
    resized = resize(mode, scale, antialias)
    assert check_against_the_gradient(resized)
    assert check_against_the_gradient(nn.Sequential(conv(3, 1, 1, 1), resized, conv(2, 1, 0, 1)))


def patchgan(n_layers, norm=nn.BatchNorm2d):
    layers, channels = [nn.Conv2d(3, 64, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)], 64
    for k in range(1, n_layers + 1):
        wider = min(512, 64 * 2**k)
        layers += [nn.Conv2d(channels, wider, 4, 2 if k < n_layers else 1, 1), norm(wider)]
        layers += [nn.LeakyReLU(0.2, inplace=True)]
        channels = wider
    return nn.Sequential(*layers, nn.Conv2d(channels, 1, 4, 1, 1))


@pytest.mark.parametrize(("n_layers", "size"), [(1, 16), (2, 34), (3, 70), (4, 142), (5, 286), (6, 574)])
def test_patchgan(n_layers, size):
    field = receptive_field(patchgan(n_layers))
    assert (field.size, field.stride) == (size, 2**n_layers)


def test_pixel_discriminator():
    module = nn.Sequential(nn.Conv2d(6, 64, 1), nn.LeakyReLU(0.2), nn.Conv2d(64, 1, 1))
    assert receptive_field(module) == ReceptiveField(size=1, stride=1, offset=0)


def test_vgg16_features():
    layers, channels = [], 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2, 2))
    assert receptive_field(nn.Sequential(*layers)) == ReceptiveField(size=212, stride=32, offset=-90)


def test_resnet_stem():
    stem = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    assert receptive_field(stem) == ReceptiveField(size=11, stride=4, offset=-5)


class SmallUNet(nn.Module):
    def __init__(self, skips):
        super().__init__()
        self.down = nn.ModuleList([nn.Conv2d(3, 8, 4, 2, 1), nn.Conv2d(8, 8, 4, 2, 1)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(8, 8, 4, 2, 1), nn.ConvTranspose2d(8 * (1 + skips), 3, 4, 2, 1)])
        self.skips = skips

    def forward(self, x):
        outer = self.down[0](x).relu_()
        inner = self.up[0](self.down[1](outer))
        return self.up[1](torch.cat([inner, outer], 1) if self.skips else inner)


@pytest.mark.parametrize("skips", [False, True])
def test_unet(skips):
    """An innermost position reads 10 pixels, and an output reads at most 3 of those, which lie 4 pixels apart."""
    assert receptive_field(SmallUNet(skips)) == ReceptiveField(size=18, stride=1, offset=-7)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d, lambda c: nn.GroupNorm(4, c)])
@pytest.mark.parametrize("training", [True, False])
def test_norms_do_not_count(norm, training):
    assert receptive_field(patchgan(3, norm).train(training)).size == 70


NORMED = [
    nn.utils.parametrizations.spectral_norm,
    nn.utils.parametrizations.weight_norm,
    nn.utils.spectral_norm,
]


@pytest.mark.parametrize("wrap", NORMED)
def test_normed_weights(wrap):
    module = nn.Sequential(wrap(nn.Conv2d(3, 8, 4, 2, 1)), wrap(nn.Conv2d(8, 1, 4)))
    before = copy.deepcopy(module.state_dict())
    assert receptive_field(module).size == 10
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert module[0].weight.device.type == "cpu"


def test_the_module_is_as_before():
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Conv2d(8, 1, 3)).train()
    module[2].eval()
    module(torch.ones(2, 3, 8, 8)).sum().backward()
    before = copy.deepcopy(module.state_dict())
    parameters = [(id(p), p.requires_grad, p.grad.clone()) for p in module.parameters()]
    state = torch.get_rng_state()
    assert receptive_field(module).size == 5
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert [part.training for part in module.modules()] == [True, True, True, False, True]
    for parameter, (identity, requires_grad, grad) in zip(module.parameters(), parameters, strict=True):
        assert (id(parameter), parameter.requires_grad) == (identity, requires_grad)
        assert torch.equal(parameter.grad, grad)
    assert torch.equal(torch.get_rng_state(), state)


class ConvNeXtBlock(nn.Module):
    in_channels = 4

    def __init__(self):
        super().__init__()
        self.spatial = nn.Conv2d(4, 4, 7, padding=3, groups=4)
        self.mlp = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 4))

    def forward(self, x):
        return x + self.mlp(self.spatial(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class WindowAttention(nn.Module):
    in_channels = 4

    def __init__(self, shift=0):
        super().__init__()
        self.qkv = nn.Linear(4, 12)
        self.shift = shift

    def forward(self, x):
        b, c, h, w = x.shape
        tokens = x.roll((-self.shift, -self.shift), (2, 3)).view(b, c, h // 8, 8, w // 8, 8)
        tokens = tokens.permute(0, 2, 4, 3, 5, 1).reshape(-1, 64, c)
        out = F.scaled_dot_product_attention(*self.qkv(tokens).chunk(3, -1))
        out = out.view(b, h // 8, w // 8, 8, 8, c).permute(0, 5, 1, 3, 2, 4).reshape(b, c, h, w)
        return x + out.roll((self.shift, self.shift), (2, 3))


ONE = ReceptiveField(size=1, stride=1, offset=0)
HALF = Fraction(1, 2)
UNUSUAL = [
    (ConvNeXtBlock(), ReceptiveField(7, 1, -3)),
    (WindowAttention(), ReceptiveField(8, 1, 0)),
    (nn.Sequential(WindowAttention(), WindowAttention(shift=4)), ReceptiveField(16, 1, -8)),
    (nn.PReLU(), ONE),
    (nn.RReLU(), ONE),
    (nn.Dropout2d(0.5), ONE),
    (nn.AlphaDropout(0.5), ONE),
    (nn.Softmax2d(), ONE),
    (nn.ChannelShuffle(2), ONE),
    (nn.LocalResponseNorm(2), ONE),
    (nn.LPPool2d(2, 3), ReceptiveField(3, 3, 0)),
    (nn.GLU(1), ONE),
    (nn.CircularPad2d(2), ReceptiveField(1, 1, -2)),
    (nn.Conv2d(4, 4, (1, 5), padding=(0, 2), padding_mode="circular"), ReceptiveField((1, 5), 1, (0, -2))),
    (nn.ConvTranspose2d(4, 4, 1, stride=3, padding=1), ReceptiveField(1, Fraction(1, 3), 1)),
    (Apply(lambda x: x * torch.linspace(0, 1, x.shape[-1])), ONE),
    (Apply(lambda x: x.add_(x[:, 1:2]).flip(1)[:, [2, 0]]), ONE),
    (Apply(lambda x: x.repeat_interleave(2, 2)), ReceptiveField(1, (HALF, 1), 0)),
    (Apply(lambda x: torch.cat([x[..., -1:], x, x[..., :1]], -1)), ReceptiveField(1, 1, (0, -1))),
    (Apply(lambda x: x.unfold(2, 3, 2).mean(-1)), ReceptiveField((3, 1), (2, 1), 0)),
    (Apply(lambda x: torch.einsum("bchw,dc->bdhw", x, torch.ones(5, 4))), ONE),
    (Apply(lambda x: x.unflatten(2, (-1, 2)).transpose(2, 3).flatten(1, 2)), ReceptiveField((2, 1), (2, 1), 0)),
    (Apply(lambda x: torch.where(x > 0, x, x.double().to(x)).masked_fill(x < 0, 0.0)), ONE),
    (Apply(lambda x: x / x.square().mean(1, keepdim=True).sqrt()), ONE),
]


@pytest.mark.parametrize(("module", "field"), UNUSUAL)
def test_unusual_modules(module, field):
    assert receptive_field(module, in_channels=4) == field


def test_one_input_position_of_a_small_input_stands_for_itself():
    module = nn.Sequential(nn.Conv2d(3, 8, 4, 2, 1), nn.Conv2d(8, 8, 4, 2, 1), nn.ConvTranspose2d(8, 1, 4, 4))
    assert receptive_field(module, input_size=4) == receptive_field(module)


WHOLE = " Measure the part of the module before that."
NO_FIELD = [
    (
        nn.AdaptiveAvgPool2d(1),
        "AdaptiveAvgPool2d",
        "aten.mean.dim joins positions along the whole height and width",
    ),
    (nn.AdaptiveMaxPool2d(1), "AdaptiveMaxPool2d", "aten.adaptive_max_pool2d.default reads the whole image"),
    (
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        "Upsample",
        "aten.upsample_bilinear2d.default aligns the corners, so that its stride depends on the size of the image",
    ),
    (
        Apply(lambda x: F.scaled_dot_product_attention(*[x.flatten(2).mT] * 3)),
        "Apply",
        "aten.bmm.default compares every position with every other",
    ),
    (
        Apply(lambda x: F.linear(x.flatten(1), torch.ones(5, x[0].numel()))),
        "Apply",
        "aten.mm.default joins positions along the whole height and width",
    ),
    (
        Apply(lambda x: x.cumsum(2)),
        "Apply",
        "aten.cumsum.default joins positions along the whole height",
    ),
    (
        Apply(lambda x: x * x.sum()),
        "Apply",
        "aten.sum.default mixes positions in a way that no convolution, pooling or resampling does",
    ),
    (
        Apply(lambda x: x + x[:, :, :1]),
        "Apply",
        "aten.add.Tensor spreads one position over the whole height",
    ),
    (
        Apply(lambda x: x + x.transpose(2, 3)),
        "Apply",
        "aten.add.Tensor joins maps whose axes differ",
    ),
    (
        Apply(lambda x: F.max_pool2d(x, 2) + x[..., :2048, :2048]),
        "Apply",
        "aten.add.Tensor joins branches of different strides (2 and 1 input pixels)",
    ),
    (
        Apply(lambda x: F.conv2d(x, x[..., :3, :3])),
        "Apply",
        "aten.convolution.default takes its weights or its indices from the image",
    ),
    (
        Apply(lambda x: torch.zeros_like(x)[..., 1:].copy_(x[..., 1:])),
        "Apply",
        "aten.copy_.default writes into a part of another tensor",
    ),
    (
        Apply(lambda x: torch.cat([x[..., 2048:], x[..., :2048]], -1)),
        "Apply",
        "aten.cat.default puts pieces of the image side by side",
    ),
    (
        Apply(lambda x: x.view(1, 4, 2, 2048, 4096)),
        "Apply",
        "aten.view.default cuts the height into 2 strips, whose size follows the image's",
    ),
    (Apply(lambda x: x.view(1, 6, 6144, 4096)), "Apply", "aten.view.default reshapes the image across its rows"),
    (Apply(lambda x: x[:, :, [0, 1]]), "Apply", "aten.index.Tensor joins positions along the whole height"),
    (Apply(lambda x: x.roll(1)), "Apply", "aten.roll.default rolls the flattened image"),
]


@pytest.mark.parametrize(("module", "name", "reason"), NO_FIELD)
def test_no_fixed_field(module, name, reason):
    channels = 9 if "rows" in reason else 4
    message = f"receptive_field: {name} has no fixed receptive field, because {reason}.{WHOLE}"
    with pytest.raises(ArgumentError, match=f"^{re.escape(message)}$"):
        receptive_field(module, in_channels=channels)


REFUSED = [
    (
        Apply(lambda x: (x, x)),
        {},
        "receptive_field: Apply returns a tuple, not one map (b, c, h, w). "
        "Wrap it in a module that returns the map to measure.",
    ),
    (
        nn.Flatten(),
        {"input_size": 4},
        "receptive_field: Flatten returns shape (1, 16), not one map (b, c, h, w). "
        "Wrap it in a module that returns the map to measure.",
    ),
    (
        Apply(torch.ones_like),
        {},
        "receptive_field: the output of Apply does not depend on its input, so it has no receptive field. "
        "Measure a module whose output does.",
    ),
    (
        Apply(lambda x: x.transpose(2, 3)),
        {"input_size": (4, 6)},
        "receptive_field: Apply returns shape (1, 1, 6, 4), whose last two axes are not the height and width of "
        "its input. Wrap it in a module that returns (b, c, h, w).",
    ),
    (nn.Identity(), {"in_channels": 0}, "receptive_field: in_channels must be a whole number >= 1, got 0."),
    (nn.Identity(), {"input_size": 0}, "receptive_field: input_size must be a whole number >= 1, got 0."),
]


@pytest.mark.parametrize(("module", "options", "message"), REFUSED)
def test_refused(module, options, message):
    with pytest.raises(ArgumentError, match=f"^{re.escape(message)}$"):
        receptive_field(module, **options)


def test_a_module_that_cannot_run_says_what_to_pass():
    def only_64(x):
        if x.shape[-1] != 64:
            raise ValueError("this takes 64x64")
        return x

    message = (
        "receptive_field: Apply cannot run on an input of shape (1, 1, 4096, 4096) (ValueError: this takes "
        "64x64). Pass the in_channels and the input_size that it takes."
    )
    with pytest.raises(ArgumentError, match=f"^{re.escape(message)}$"):
        receptive_field(Apply(only_64))
    assert receptive_field(Apply(only_64), input_size=64) == ONE


def test_in_channels_are_those_of_the_first_module_that_has_any():
    module = nn.Sequential(nn.BatchNorm2d(5), nn.Conv2d(5, 2, 3), nn.Conv2d(2, 1, 3))
    assert receptive_field(module).size == 5
    assert receptive_field(nn.MaxPool2d(3)).size == 3


def test_the_examples_in_the_docstring():
    assert doctest.testmod(importlib.import_module("imtrans.receptive_fields.trace")) == (0, 6)


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.twice, self.unused = nn.Conv2d(1, 2, 4, stride=2), nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3)
        self.shift, self.attention = nn.Parameter(torch.zeros(1)), SelfAttention(2)
        self.last = nn.Conv2d(2, 1, 1)

    def forward(self, x):
        x = self.twice(self.twice(self.down(x) + self.shift))
        return self.last(self.attention(x))


def test_the_fields_of_parts_are_those_of_the_module_up_to_them():
    module = nn.Sequential(
        nn.Conv2d(3, 4, 5), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, dilation=2), nn.Upsample(scale_factor=2)
    )
    found = receptive_fields(module, dict(module.named_children()))
    assert found == {str(i): receptive_field(module[: i + 1]) for i in range(4)}
    assert not any(part._forward_hooks for part in module.modules())


def test_parts_without_a_field_are_none():
    module = Parts()
    found = receptive_fields(module, dict(module.named_children()), input_size=64)
    assert [found[name] and found[name].size for name in ("down", "twice")] == [4, 8]
    assert [found[name] for name in ("unused", "attention", "last")] == [None] * 3
    assert not any(part._forward_hooks for part in module.modules())


def test_a_module_that_cannot_run_leaves_no_hooks():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(5, 2, 3))
    with pytest.raises(ArgumentError, match=r"^receptive_field: Sequential cannot run on an input of shape \(1, 1, "):
        receptive_fields(module, dict(module.named_children()))
    assert not any(part._forward_hooks for part in module.modules())
