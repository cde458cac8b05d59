import pytest
import torch
from torch import nn

from imtrans.errors import ArgumentError
from imtrans.nn.skips import SKIPS, AddSkip, ConcatSkip, GatedSkip, NoSkip

CHANNELS = {"concat": 9, "add": 5, "gate": 9, "none": 5}


@pytest.mark.parametrize("name", SKIPS)
def test_a_merge_module_tells_its_output_channels(name):
    skip_channels = 5 if name == "add" else 4
    merge = SKIPS[name](5, skip_channels)
    x, skip = torch.randn(2, 5, 3, 7, requires_grad=True), torch.randn(2, skip_channels, 3, 7, requires_grad=True)
    y = merge(x, skip)
    assert y.shape == (2, CHANNELS[name], 3, 7)
    assert merge.out_channels == CHANNELS[name]
    y.square().sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in merge.parameters())
    assert (skip.grad is None) == (name == "none")


def test_concat_puts_the_skip_first():
    x, skip = torch.randn(1, 2, 4, 4), torch.randn(1, 3, 4, 4)
    y = ConcatSkip(2, 3)(x, skip)
    assert torch.equal(y[:, :3], skip)
    assert torch.equal(y[:, 3:], x)


def test_add_is_a_sum():
    x, skip = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 4)
    assert torch.equal(AddSkip(2, 2)(x, skip), x + skip)


def test_none_gives_the_features_back():
    x = torch.randn(1, 2, 4, 4)
    assert NoSkip(2, 3)(x, torch.randn(1, 3, 4, 4)) is x


def test_the_gate_weighs_every_pixel_of_the_skip_between_nothing_and_all():
    x, skip = torch.randn(1, 2, 4, 4), torch.randn(1, 6, 4, 4)
    merge = GatedSkip(2, 6)
    y = merge(x, skip)
    assert torch.equal(y[:, 6:], x)
    shares = y[:, :6] / skip
    assert (shares > 0).all()
    assert (shares < 1).all()
    torch.testing.assert_close(shares, shares[:, :1].expand_as(shares))
    nn.init.zeros_(merge.gate.weight)
    for bias, share in ((100.0, 1.0), (-100.0, 0.0)):
        nn.init.constant_(merge.gate.bias, bias)
        torch.testing.assert_close(merge(x, skip)[:, :6], share * skip)


def test_the_gate_is_the_additive_attention_of_its_paper():
    x, skip = torch.randn(1, 2, 4, 4), torch.randn(1, 6, 4, 4)
    merge = GatedSkip(2, 6)
    a, b, w = merge.from_skip, merge.from_decoder, merge.gate
    assert (a.out_channels, b.out_channels, w.out_channels) == (3, 3, 1)
    expected = skip * torch.sigmoid(w(torch.relu(a(skip) + b(x))))
    torch.testing.assert_close(merge(x, skip)[:, :6], expected)


def test_a_skip_of_one_channel_can_be_gated():
    assert GatedSkip(2, 1)(torch.randn(1, 2, 4, 4), torch.randn(1, 1, 4, 4)).shape == (1, 3, 4, 4)


def test_add_refuses_unequal_widths():
    with pytest.raises(ArgumentError) as caught:
        AddSkip(4, 8)
    assert str(caught.value) == "AddSkip: cannot add 8 skip channels to 4. Use equal widths, or ConcatSkip."
