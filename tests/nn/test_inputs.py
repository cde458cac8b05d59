import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from imtrans.errors import ShapeError
from imtrans.nn.inputs import check_image, check_norm_values, pad_to_fit, round_up_to_multiple


def test_an_image_of_the_right_kind_passes_the_check():
    check_image("Owner", torch.zeros(1, 3, 1, 1, dtype=torch.float16), 3)


@pytest.mark.parametrize(
    ("norm", "batch", "height", "raises"),
    [
        (nn.BatchNorm2d(2), 1, 1, True),
        (nn.BatchNorm2d(2), 2, 1, False),
        (nn.BatchNorm2d(2), 1, 2, False),
        (nn.BatchNorm2d(2).eval(), 1, 1, False),
        (nn.BatchNorm2d(2, track_running_stats=False).eval(), 1, 1, True),
        (nn.SyncBatchNorm(2), 1, 1, True),
        (nn.InstanceNorm2d(2), 8, 1, True),
        (nn.InstanceNorm2d(2).eval(), 8, 1, True),
        (nn.InstanceNorm2d(2, track_running_stats=True).eval(), 8, 1, False),
        (nn.InstanceNorm2d(2), 1, 2, False),
        (nn.GroupNorm(1, 2), 1, 1, False),
        (nn.Identity(), 1, 1, False),
    ],
)
def test_a_norm_that_would_see_a_single_value_is_refused(norm, batch, height, raises):
    if not raises:
        check_norm_values("Owner", norm, batch, height, 1)
        return
    with pytest.raises(ShapeError) as caught:
        check_norm_values("Owner", norm, batch, height, 1)
    assert str(caught.value) == (
        f"Owner: the image is so small that a {type(norm).__name__} inside would see a single value "
        f"(batch {batch}, {height}x1 there) and return zeros. Use a larger image, or norm='group'."
    )


@given(size=st.integers(1, 1000), multiple=st.integers(1, 256), minimum=st.integers(1, 300))
def test_the_fitting_size_is_the_smallest_that_fits(size, multiple, minimum):
    fit = round_up_to_multiple(size, multiple, minimum)
    assert fit % multiple == 0
    assert fit >= max(size, minimum)
    assert fit - multiple < max(size, minimum)


@given(height=st.integers(1, 40), width=st.integers(1, 40), multiple=st.sampled_from([1, 2, 4, 8, 16]))
def test_padding_keeps_the_image_and_repeats_its_edge(height, width, multiple):
    x = torch.randn(1, 2, height, width)
    y = pad_to_fit("Owner", x, multiple, multiple, "pad")
    assert y.shape == (
        1,
        2,
        round_up_to_multiple(height, multiple, multiple),
        round_up_to_multiple(width, multiple, multiple),
    )
    assert torch.equal(y[..., :height, :width], x)
    rows, columns = torch.arange(y.shape[2]).clamp(max=height - 1), torch.arange(y.shape[3]).clamp(max=width - 1)
    assert torch.equal(y, x[:, :, rows][..., columns])


def test_an_image_that_fits_is_not_copied():
    x = torch.randn(1, 3, 16, 32)
    assert pad_to_fit("Owner", x, 16, 16, "error") is x


def test_a_size_that_does_not_fit_is_refused_with_one_that_does():
    with pytest.raises(ShapeError) as caught:
        pad_to_fit("Owner", torch.zeros(1, 3, 17, 4), 8, 16, "error")
    assert str(caught.value) == (
        "Owner: height and width must be multiples of 8 and at least 16, got 17x4 (odd_sizes='error'). "
        "Use odd_sizes='pad', or pad to 24x16 and crop the output back."
    )


class Padded(nn.Module):
    def forward(self, x):
        return 2 * pad_to_fit("Owner", x, 8, 16, "error")


def test_an_export_for_every_size_pads_as_pytorch_does():
    """It cannot raise: 'error' is for sizes that are known."""
    axes = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    exported = torch.export.export(Padded(), (torch.zeros(1, 2, 24, 32),), dynamic_shapes=(axes,), strict=False)
    for height, width in [(24, 32), (17, 40), (3, 5), (16, 16), (64, 9)]:
        x = torch.randn(1, 2, height, width)
        assert torch.equal(exported.module()(x), 2 * pad_to_fit("Owner", x, 8, 16, "pad"))


def test_compiled_for_changing_sizes_it_still_pads_and_refuses():
    compiled = torch.compile(Padded(), backend="eager", fullgraph=True, dynamic=True)
    for height, width in [(16, 24), (24, 16), (32, 40)]:
        x = torch.randn(1, 2, height, width)
        assert torch.equal(compiled(x), 2 * x)
    with pytest.raises(Exception, match="Use odd_sizes='pad', or pad to 24x16"):
        compiled(torch.zeros(1, 2, 17, 4))
