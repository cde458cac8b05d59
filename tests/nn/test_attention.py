import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from imtrans import SelfAttention
from imtrans.errors import ArgumentError
from imtrans.nn.layers import group_norm

NORMS = [nn.BatchNorm2d, nn.InstanceNorm2d, group_norm, nn.Identity]


def check_backward(block, *inputs):
    """A finite gradient for every parameter."""
    block(*inputs).square().sum().backward()
    without = [name for name, p in block.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []


# ConvNormAct


@settings(max_examples=20)
@given(height=st.integers(1, 8), width=st.integers(1, 8), num_heads=st.sampled_from([1, 2, 4]))
def test_attention_keeps_the_shape_and_starts_as_the_identity(height, width, num_heads):
    block = SelfAttention(8, num_heads=num_heads)
    x = torch.randn(2, 8, height, width)
    assert torch.equal(block(x), x)
    nn.init.ones_(block.gamma)
    assert block(x).shape == x.shape
    assert not torch.equal(block(x), x)
    check_backward(block, x)


@pytest.mark.parametrize("num_heads", [1, 2])
def test_attention_is_the_scaled_product_of_its_papers(num_heads):
    block = SelfAttention(4, num_heads=num_heads)
    nn.init.ones_(block.gamma)
    x = torch.randn(1, 4, 3, 2)
    q, k, v = block.to_qkv(x)[0].flatten(1).reshape(3, num_heads, 4 // num_heads, 6)
    shares = torch.softmax(q.mT @ k / (4 // num_heads) ** 0.5, dim=-1)
    seen = (v @ shares.mT).reshape(1, 4, 3, 2)
    torch.testing.assert_close(block(x), x + block.out(seen))


def test_every_pixel_sees_every_other_one():
    block = SelfAttention(4)
    nn.init.ones_(block.gamma)
    x = torch.randn(1, 4, 5, 6, requires_grad=True)
    (gradient,) = torch.autograd.grad(block(x)[0, :, 0, 0].sum(), x)
    assert (gradient.abs().sum(1) > 0).all()


def test_attention_is_reset_to_the_identity():
    block = SelfAttention(4)
    nn.init.ones_(block.gamma)
    block.reset_parameters()
    assert block.gamma.item() == 0


def test_attention_refuses_heads_that_do_not_divide_its_channels():
    with pytest.raises(ArgumentError) as caught:
        SelfAttention(6, num_heads=4)
    assert str(caught.value) == (
        "SelfAttention: channels=6 is not a multiple of num_heads=4. Choose a number of heads that divides the "
        "channels."
    )
    with pytest.raises(ArgumentError) as caught:
        SelfAttention(6, num_heads=0)
    assert str(caught.value) == "SelfAttention: num_heads must be a whole number >= 1, got 0."
