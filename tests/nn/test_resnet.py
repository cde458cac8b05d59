"""ResnetGenerator: what it promises beside the contract of all networks in test_networks.py."""

import pytest

from imtrans import (
    ResnetGenerator,
)
from imtrans.errors import ArgumentError


def test_resnet_dropout_is_a_probability():
    with pytest.raises(ArgumentError) as caught:
        ResnetGenerator(dropout=-0.1)
    assert str(caught.value) == "ResnetGenerator: dropout must be a number between 0 and 1, got -0.1."
