import math
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from imtrans import ResnetGenerator, UNetGenerator, running_as, translate
from imtrans.errors import ArgumentError, ShapeError
from imtrans.inference.tiling import Tiling, plan_tiles, run_tiled


def resnet(norm="batch", num_blocks=1, num_downs=1, base_channels=4, **settings):
    """Of random running statistics, as training leaves them, and of outputs that vary."""
    settings = {"norm": norm, "num_blocks": num_blocks, "num_downs": num_downs, "act": "leaky_relu", **settings}
    return lively(ResnetGenerator(base_channels=base_channels, **settings))


def lively(network):
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
                module.bias.normal_(0, 0.3)
        for parameter in network.parameters():
            if parameter.ndim == 4:
                parameter.mul_(0.7 / (0.02 * (parameter[0].numel() ** 0.5)))
    return network.eval()


def gentle(network):
    """Of kernels that blur, so that a smooth picture comes out smooth, and a seam shows."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 4:
                taps = torch.tensor([math.comb(parameter.shape[-1] - 1, i) for i in range(parameter.shape[-1])])
                kernel = torch.outer(taps, taps) / taps.sum() ** 2
                mix = torch.randn(parameter.shape[:2]) / parameter.shape[1] ** 0.5
                parameter.copy_(2 * mix[..., None, None] * kernel)
    return network


def smooth(height, width, seed=0, batch=1, channels=3):
    """A picture whose brightness and contrast differ from place to place."""
    generator = torch.Generator().manual_seed(seed)
    shades = torch.rand(batch, channels, 3, 3, generator=generator) * 1.2 - 0.6
    fine = torch.rand(batch, channels, height, width, generator=generator) - 0.5
    contrast = torch.rand(batch, 1, 2, 2, generator=generator)
    sizes = {"size": (height, width), "mode": "bilinear", "align_corners": True}
    return (F.interpolate(shades, **sizes) + fine * F.interpolate(contrast, **sizes)).clamp(-1, 1)


def tiled(network, source, size, mode="eval"):
    multiple = getattr(network, "size_multiple", 1)
    tiling = plan_tiles(network, size, multiple=multiple, in_channels=source.shape[1])
    with torch.no_grad(), running_as(network, mode):
        return run_tiled(network, source, tiling, network), tiling


def whole(network, source, mode="eval"):
    with torch.no_grad(), running_as(network, mode):
        return network(source)


class Shapes:
    """The shapes of what a module is called with; `plan_tiles` measures it on a tensor without data."""

    def __init__(self, module):
        self.seen = []
        module.register_forward_pre_hook(lambda _, args: self._note(args[0]))

    def _note(self, x):
        assert max(x.shape[-2:]) <= 64
        if not x.is_meta:
            self.seen.append(tuple(x.shape))


# How a picture is cut


tilings = st.builds(
    lambda multiple, step, overlap, exact: Tiling(
        multiple * (step + (overlap if exact else min(step, overlap))), multiple * step, exact, multiple
    ),
    st.integers(1, 5),
    st.integers(1, 6),
    st.integers(1, 9),
    st.booleans(),
)


@given(tiling=tilings, length=st.integers(1, 200))
def test_windows_cover_the_picture_and_their_weights_add_up_to_one(tiling, length):
    total = torch.zeros(length)
    for start, stop in tiling.windows(length):
        assert 0 <= start < stop <= length
        assert start % tiling.multiple == 0
        assert stop - start <= tiling.size
        weights = tiling.weights((start, stop), length)
        assert len(weights) == stop - start
        assert weights.min() >= 0
        total[start:stop] += weights
    torch.testing.assert_close(total, torch.ones(length))


@given(tiling=tilings, length=st.integers(1, 200))
def test_an_exact_tiling_takes_each_pixel_from_one_tile_away_from_its_cut_borders(tiling, length):
    if not tiling.exact:
        return
    margin = (tiling.size - tiling.step) // 2
    for start, stop in tiling.windows(length):
        weights = tiling.weights((start, stop), length)
        assert set(weights.tolist()) <= {0.0, 1.0}
        taken = weights.nonzero().flatten()
        assert start == 0 or taken[0] >= margin
        assert stop == length or len(weights) - 1 - taken[-1] >= margin


@given(tiling=tilings, height=st.integers(1, 60), width=st.integers(1, 60), halvings=st.integers(0, 2))
def test_the_weights_on_a_smaller_map_add_up_to_its_positions(tiling, height, width, halvings):
    factor = 2**halvings
    tiling = Tiling(tiling.size * factor, tiling.step * factor, tiling.exact, tiling.multiple * factor)
    rows, columns = (-(-length // tiling.multiple) * tiling.multiple // factor for length in (height, width))
    total = torch.zeros(rows, columns)
    for tile in tiling.tiles(height, width):
        top, left = tile.rows.start // factor, tile.columns.start // factor
        sides = [s.stop - s.start for s in (tile.rows, tile.columns)]
        h, w = (-(-side // tiling.multiple) * tiling.multiple // factor for side in sides)
        total[top : top + h, left : left + w] += tile.weights_at(h, w)
    torch.testing.assert_close(total, torch.ones(rows, columns))


def test_a_receptive_field_that_fits_is_exact_and_one_that_does_not_fades():
    network = ResnetGenerator(base_channels=2, num_blocks=9)
    assert plan_tiles(network, 512, multiple=4, in_channels=3) == Tiling(512, 332, exact=True, multiple=4)
    assert plan_tiles(network, 128, multiple=4, in_channels=3) == Tiling(128, 64, exact=False, multiple=4)
    deep = UNetGenerator(base_channels=2, depth=5)
    assert plan_tiles(deep, 64, multiple=32, in_channels=3) == Tiling(64, 32, exact=False, multiple=32)
    assert plan_tiles(deep, 65, multiple=32, in_channels=3) == Tiling(96, 64, exact=False, multiple=32)


def test_attention_has_no_receptive_field_and_fades():
    network = UNetGenerator(base_channels=2, depth=3, attention=(1,))
    assert plan_tiles(network, 500, multiple=8, in_channels=3) == Tiling(504, 256, exact=False, multiple=8)


def test_a_field_that_differs_in_height_and_width_counts_by_the_larger():
    network = nn.Conv2d(3, 3, (1, 21), padding=(0, 10))
    assert plan_tiles(network, 64, multiple=1, in_channels=3) == Tiling(64, 42, exact=True)


def test_a_tile_without_room_for_an_overlap_is_refused():
    with pytest.raises(ArgumentError) as caught:
        translate(UNetGenerator(base_channels=2, depth=6), torch.zeros(3, 200, 200), tile=50)
    assert str(caught.value) == (
        "translate: tile=50 leaves no overlap: tiles of this network begin at multiples of 64. Use tile=128 or more."
    )


# Where nothing is lost


@settings(max_examples=40)
@given(
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    tile=st.integers(70, 100),
    num_downs=st.integers(0, 2),
    padding_mode=st.sampled_from(["reflect", "zeros", "replicate"]),
    upsample=st.sampled_from(["deconv", "nearest", "bilinear", "shuffle"]),
    seed=st.integers(0, 2**16),
)
def test_a_resnet_with_fixed_statistics_is_that_of_the_whole_picture(
    height, width, tile, num_downs, padding_mode, upsample, seed
):
    torch.manual_seed(seed)
    network = resnet(num_downs=num_downs, padding_mode=padding_mode, upsample=upsample, base_channels=3)
    source = smooth(height, width, seed)
    output, tiling = tiled(network, source, tile)
    assert tiling.exact
    expected = whole(network, source)
    assert expected.unique().numel() > 2
    torch.testing.assert_close(output, expected, atol=1e-4, rtol=0)


@settings(max_examples=15)
@given(
    height=st.integers(90, 140),
    width=st.integers(70, 140),
    batch=st.integers(1, 2),
    norm=st.sampled_from(["instance", "batch", "group"]),
    seed=st.integers(0, 2**16),
)
def test_statistics_of_the_image_are_those_of_the_whole_picture(height, width, batch, norm, seed):
    torch.manual_seed(seed)
    network = resnet(norm, num_downs=1, base_channels=4)
    source = smooth(height, width, seed, batch)
    output, tiling = tiled(network, source, 64, "batch_stats")
    assert tiling.exact
    torch.testing.assert_close(output, whole(network, source, "batch_stats"), atol=1e-4, rtol=0)


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_tiles_with_statistics_of_their_own_would_differ(norm):
    """What the test above would miss if its pictures were all alike."""
    network, source = resnet(norm), smooth(128, 128)
    alone = whole(network, source[..., :64, :64])[..., :32, :32]
    assert (alone - whole(network, source)[..., :32, :32]).abs().mean() > 0.02


def test_a_norm_with_weights_and_running_statistics_of_its_own_kind():
    network = resnet(lambda c: nn.InstanceNorm2d(c, affine=True, track_running_stats=True))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if ".norm." in name:
                parameter.uniform_(0.5, 1.5)
    source = smooth(100, 90, batch=2)
    for mode in ("eval", "batch_stats"):
        output, _ = tiled(network, source, 64, mode)
        torch.testing.assert_close(output, whole(network, source, mode), atol=1e-4, rtol=0)


def test_a_norm_far_from_zero_keeps_its_digits():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.InstanceNorm2d(2))
    with torch.no_grad():
        network[0].weight.fill_(1.0)
        network[0].bias.fill_(1000.0)
    source = smooth(64, 64, channels=1)
    output, _ = tiled(network, source, 16)
    torch.testing.assert_close(output, whole(network, source), atol=2e-3, rtol=0)
    assert output.std() > 0.5


def test_a_module_of_another_maker_needs_no_attribute_but_in_channels():
    network = nn.Sequential(nn.Conv2d(2, 4, 5, padding=2), nn.ELU(), nn.Conv2d(4, 1, 3, padding=1), nn.Tanh())
    network.in_channels = 2
    source = smooth(50, 70, channels=2)
    torch.testing.assert_close(translate(network, source, tile=20), whole(network, source), atol=1e-5, rtol=0)


# Where it is an approximation


DEEP = {
    "batch_stats": lambda: lively(UNetGenerator(base_channels=4, depth=4)),
    "instance": lambda: lively(UNetGenerator(base_channels=4, depth=4, norm="instance")),
    "attention": lambda: lively(UNetGenerator(base_channels=4, depth=3, attention=(2,))),
    "small tiles": lambda: resnet("instance", num_blocks=4, num_downs=2),
}


def seams(picture, expected, tiling):
    """How much more the error changes from pixel to pixel where tiles begin, change over or end, than elsewhere."""
    steps = (picture - expected).diff(dim=-1).abs().mean(dim=(0, 1, 2))
    windows = tiling.windows(picture.shape[-1])
    edges = {start for start, _ in windows[1:]} | {stop for _, stop in windows[:-1]}
    edges |= {start + (tiling.size - tiling.step) // 2 for start, _ in windows[1:]}
    at = torch.zeros_like(steps, dtype=torch.bool)
    at[[edge - 1 for edge in edges]] = True
    return (steps[at].mean() / steps[~at].mean()).item()


def own_statistics(network, source, tiling):
    """What tiles with statistics of their own make."""
    blended = torch.zeros_like(source)
    for tile in tiling.tiles(*source.shape[-2:]):
        tile.crop(blended).add_(whole(network, tile.crop(source), "batch_stats") * tile.weights())
    return blended


@pytest.mark.parametrize("name", DEEP)
def test_there_are_no_seams(name):
    network = gentle(DEEP[name]())
    source = smooth(40, 300, seed=3)
    expected = whole(network, source, "batch_stats")
    assert expected.std() > 0.1
    output, tiling = tiled(network, source, 32, "batch_stats")
    assert not tiling.exact
    side_by_side = own_statistics(network, source, Tiling(32, 16, exact=True))
    assert seams(output, expected, tiling) < 1.3
    assert seams(side_by_side, expected, tiling) > 3  # the measure finds seams where there are some


@pytest.mark.parametrize("name", ["batch_stats", "instance", "small tiles"])
def test_the_statistics_of_the_whole_picture_beat_those_of_each_tile(name):
    network, source = DEEP[name](), smooth(130, 130, seed=5)
    output, tiling = tiled(network, source, 32, "batch_stats")
    expected = whole(network, source, "batch_stats")
    own = own_statistics(network, source, tiling)
    assert (output - expected).abs().mean() < 0.7 * (own - expected).abs().mean()


@pytest.mark.parametrize(
    "make", [DEEP["batch_stats"], lambda: resnet(num_blocks=4, num_downs=2)], ids=["unet", "resnet"]
)
def test_a_constant_picture_stays_constant(make):
    """As far as it does in the whole picture: up to the texture of deconvolutions."""
    network = make()
    source = torch.full((1, 3, 160, 160), 0.3)
    output, tiling = tiled(network, source, 64)
    assert not tiling.exact
    inner = (..., slice(64, -64), slice(64, -64))
    torch.testing.assert_close(output[inner], whole(network, source)[inner], atol=0.02, rtol=0)


# What it costs, and what it leaves alone


@pytest.mark.parametrize("make", [lambda: resnet("instance"), lambda: DEEP["batch_stats"]()], ids=["resnet", "unet"])
def test_no_call_sees_more_than_a_tile_whatever_the_picture(make):
    network = make()
    shapes = Shapes(network)
    for size in (100, 300):
        tiled(network, smooth(size, size // 2), 64, "batch_stats")
    assert max(max(shape[-2:]) for shape in shapes.seen) == 64


def test_norms_with_fixed_statistics_cost_no_further_pass():
    network, source = resnet("batch"), smooth(100, 100)
    shapes = Shapes(network)
    _, tiling = tiled(network, source, 64)
    assert len(shapes.seen) == len(tiling.tiles(100, 100))


def test_each_norm_with_statistics_of_the_image_costs_one_pass_that_ends_there():
    network, source = resnet("instance", num_blocks=2), smooth(100, 100)
    shapes, heads = Shapes(network), Shapes(network.head)
    _, tiling = tiled(network, source, 64)
    tiles = len(tiling.tiles(100, 100))
    norms = sum(isinstance(module, nn.InstanceNorm2d) for module in network.modules())
    assert len(shapes.seen) == (norms + 1) * tiles
    assert len(heads.seen) == tiles


def test_a_picture_no_larger_than_a_tile_runs_whole():
    network, source = resnet("instance"), smooth(60, 64)
    shapes = Shapes(network)
    output, _ = tiled(network, source, 64)
    assert torch.equal(output, whole(network, source))
    assert shapes.seen[0] == (1, 3, 60, 64)


def test_a_norm_that_never_runs_is_passed_over():
    network = resnet("instance")
    network.unused = nn.InstanceNorm2d(3)
    source = smooth(100, 100)
    torch.testing.assert_close(tiled(network, source, 64)[0], whole(network, source), atol=1e-4, rtol=0)


@pytest.mark.parametrize("mode", ["eval", "batch_stats", "paper"])
@pytest.mark.parametrize("fail", [False, True])
def test_the_network_is_left_as_it_was(mode, fail):
    network = lively(UNetGenerator(base_channels=4, depth=3)).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    source = smooth(60, 60)
    if fail:
        network.head.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(KeyError("mine")))
    with pytest.raises(KeyError, match="mine") if fail else nullcontext():
        translate(network, source, mode=mode, tile=32)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    for name, module in network.named_modules():
        assert module.training, name
        assert not module._forward_hooks, name
        assert len(module._forward_pre_hooks) == (fail and name == "head"), name


def test_paper_mode_drops_out_in_tiles():
    network = lively(UNetGenerator(base_channels=4, depth=4))
    source = smooth(70, 70)
    one, two = (translate(network, source, mode="paper", tile=32) for _ in range(2))
    assert one.shape == source.shape
    assert one.isfinite().all()
    assert not torch.equal(one, two)


def test_an_output_of_another_size_is_refused():
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Upsample(scale_factor=2))
    network.in_channels = 3
    assert translate(network, torch.zeros(3, 40, 40)).shape == (3, 80, 80)
    with pytest.raises(ShapeError) as caught:
        translate(network, torch.zeros(3, 40, 40), tile=16)
    assert str(caught.value) == (
        "translate: tile= needs a generator that keeps height and width, got an output of (32, 32) for a tile of "
        "(16, 16). Use tile=None."
    )


def test_bf16_gathers_statistics_in_full():
    network, source = resnet("instance"), smooth(100, 100)
    exact = translate(network, source, tile=64)
    assert (translate(network, source, tile=64, precision="bf16") - exact).abs().mean() < 0.02
    half = translate(network.bfloat16(), source, tile=64)
    assert half.dtype == torch.float32
    assert (half - exact).abs().mean() < 0.05


def test_on_every_device(device):
    network, source = resnet("instance").to(device), smooth(100, 100)
    output = translate(network, source, tile=64)
    assert output.device == source.device
    torch.testing.assert_close(output, translate(network, source), atol=1e-3, rtol=0)
