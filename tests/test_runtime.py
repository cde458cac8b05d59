from contextlib import nullcontext

import pytest
import torch
from torch import nn

from imtrans import init_net
from imtrans.errors import ArgumentError
from imtrans.runtime import pick_device, pick_precision


def test_auto_is_the_best_device_of_this_machine():
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    expected = "cuda" if cuda else "mps" if mps else "cpu"
    assert pick_device().type == expected
    assert init_net(nn.Conv2d(1, 1, 1)).weight.device.type == expected


@pytest.mark.cuda
def test_cuda_is_the_card_of_the_local_rank(monkeypatch):
    last = torch.cuda.device_count() - 1
    monkeypatch.setenv("LOCAL_RANK", str(last))
    assert pick_device("cuda") == pick_device("auto") == torch.device("cuda", last)
    assert pick_device("cuda:0") == torch.device("cuda", 0)


@pytest.mark.parametrize("name", ["gpu", "cud", "cpu:x"])
def test_a_device_that_does_not_exist_is_refused(name):
    with pytest.raises(ArgumentError) as caught:
        init_net(nn.Conv2d(1, 1, 1), name)
    message = str(caught.value)
    assert message.startswith(f"device={name!r} cannot be used here: ")
    assert message.endswith(". Use 'auto', or 'cpu'.")
    assert "\n" not in message


def test_cuda_is_refused_where_there_is_none():
    if torch.cuda.device_count() > 0:
        pytest.skip("this machine has a CUDA card")
    with pytest.raises(ArgumentError, match=r"device='cuda' cannot be used here: .+[^.]\. Use 'auto', or 'cpu'\."):
        pick_device("cuda")


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "bf16"),
        ({"avx512_bf16": False, "amx_bf16": True}, "bf16"),
        ({"avx512_bf16": False, "avx512_f": True}, "fp32"),
        ({"architecture": "arm"}, "fp32"),
    ],
)
def test_the_precision_of_a_cpu_is_what_it_multiplies(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert pick_precision("auto", torch.device("cpu")) == expected
    for given in ("fp32", "bf16"):
        assert pick_precision(given, torch.device("cpu")) == given


@pytest.mark.parametrize(("probe", "expected"), [(lambda: True, "bf16"), (lambda: False, "fp32"), (None, "fp32")])
def test_an_older_torch_is_asked_in_its_own_way(monkeypatch, probe, expected):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", probe, raising=False)
    assert pick_precision("auto", torch.device("cpu")) == expected


def test_a_precision_that_is_emulated_is_not_chosen(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    for native, expected in ((True, "bf16"), (False, "fp16")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)
        assert pick_precision("auto", torch.device("cuda", 0)) == expected
    assert pick_precision("fp16", torch.device("cuda", 0)) == "fp16"


@pytest.mark.parametrize("device", ["cpu", "meta", "mps"])
def test_fp16_is_for_cuda_and_auto_elsewhere_is_no_more_than_the_hardware_has(device):
    with pytest.raises(ArgumentError) as caught:
        pick_precision("fp16", torch.device(device))
    assert str(caught.value) == (
        f"pick_precision: precision='fp16' needs a CUDA GPU, the device is {device}. Use 'auto', 'bf16' or 'fp32'."
    )
    if device != "cpu":
        assert pick_precision("auto", torch.device(device)) == "fp32"
