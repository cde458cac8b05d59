import math
import os
import socket
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from imtrans import PatchDiscriminator, ResnetGenerator, UNetGenerator, init_net, init_weights
from imtrans.errors import ArgumentError
from imtrans.nn.init import SCHEMES
from imtrans.runtime import pick_device, pick_precision

CONVOLUTIONS = {
    "conv": lambda: nn.Conv2d(32, 64, 4),
    "strided": lambda: nn.Conv2d(32, 64, 4, stride=2),
    "transposed": lambda: nn.ConvTranspose2d(32, 64, 4, stride=2),
    "linear": lambda: nn.Linear(512, 1024),
}
FANS = {"conv": (512, 1024), "strided": (512, 1024), "transposed": (512, 1024), "linear": (512, 1024)}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
@pytest.mark.parametrize("scheme", ["normal", "xavier", "kaiming"])
def test_weights_have_the_spread_of_their_scheme(scheme, kind):
    layer = init_weights(CONVOLUTIONS[kind](), scheme, gain=0.5)
    fan_in, fan_out = FANS[kind]
    std = {
        "normal": 0.5,
        "xavier": 0.5 * math.sqrt(2 / (fan_in + fan_out)),
        "kaiming": math.sqrt(2 / fan_in),
    }[scheme]
    assert layer.weight.std().item() == pytest.approx(std, rel=0.03)
    assert abs(layer.weight.mean().item()) < std / 20
    assert (layer.weight.abs() > 3 * std).any()  # normal, not uniform
    assert layer.bias.abs().sum() == 0


def test_a_transposed_convolution_has_another_fan_than_its_tensor_suggests():
    wide = init_weights(nn.ConvTranspose2d(256, 4, 4), "kaiming")
    assert wide.weight.std().item() == pytest.approx(math.sqrt(2 / (256 * 16)), rel=0.05)


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_orthogonal_weights_are_orthogonal(kind):
    weight = init_weights(CONVOLUTIONS[kind](), "orthogonal", gain=0.5).weight
    if kind == "transposed":
        weight = weight.transpose(0, 1)
    rows = weight.flatten(1)
    gram = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
    torch.testing.assert_close(gram, 0.25 * torch.eye(len(gram)), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm2d, nn.SyncBatchNorm, lambda c: nn.GroupNorm(4, c), lambda c: nn.InstanceNorm2d(c, affine=True),
     nn.LayerNorm],
)  # fmt: skip
def test_the_scale_of_a_norm_is_near_one_and_its_shift_zero(norm):
    layer = norm(10_000)
    nn.init.ones_(layer.bias)
    init_weights(layer)
    assert layer.weight.mean().item() == pytest.approx(1, abs=0.002)
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert layer.bias.abs().sum() == 0


def test_a_norm_without_parameters_passes():
    init_weights(nn.Sequential(nn.InstanceNorm2d(4), nn.BatchNorm2d(4, affine=False)))


def test_other_parameters_stay_as_they_are():
    network = nn.Sequential(nn.PReLU(init=0.7), nn.Embedding(3, 2), nn.Conv2d(1, 1, 1))
    embedded = network[1].weight.clone()
    init_weights(network)
    assert network[0].weight.item() == pytest.approx(0.7)
    assert torch.equal(network[1].weight, embedded)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_generator_makes_it_repeatable_and_leaves_the_global_one_alone(scheme):
    def draw(seed):
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 3, 3), nn.Linear(3, 3))
        before = torch.get_rng_state()
        init_weights(network, scheme, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(torch.get_rng_state(), before)
        return nn.utils.parameters_to_vector(network.parameters())

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


def test_it_returns_the_module_and_draws_from_the_global_generator_otherwise():
    conv = nn.Conv2d(3, 4, 3)
    torch.manual_seed(5)
    assert init_weights(conv) is conv
    first = conv.weight.clone()
    torch.manual_seed(5)
    assert torch.equal(init_weights(conv).weight, first)


def test_the_weight_under_a_spectral_norm_is_drawn():
    conv = parametrizations.spectral_norm(nn.Conv2d(32, 64, 4))
    init_weights(conv, gain=0.5)
    assert conv.parametrizations.weight.original.std().item() == pytest.approx(0.5, rel=0.03)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"scheme": "xavir"},
            "scheme='xavir' is not one of ['kaiming', 'normal', 'orthogonal', 'xavier']. Did you mean 'xavier'?",
        ),
        ({"gain": -0.1}, "gain must be a number >= 0, got -0.1."),
    ],
)
def test_an_unknown_scheme_or_a_negative_gain_is_refused(arguments, message):
    with pytest.raises(ArgumentError) as caught:
        init_weights(nn.Conv2d(1, 1, 1), **arguments)
    assert str(caught.value) == f"init_weights: {message}"


# init_net

NETWORKS = {
    "unet": lambda: UNetGenerator(base_channels=4, depth=3, downsample="blur", skips="gate", attention=(1,)),
    "resnet": lambda: ResnetGenerator(base_channels=4, num_blocks=1, norm="batch"),
    "patch": lambda: PatchDiscriminator(base_channels=4, spectral_norm=True),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_on_the_meta_device_becomes_the_one_built_on_the_device(name, device):
    with torch.device("meta"):
        network = NETWORKS[name]()
    assert init_net(network, device, seed=3) is network
    direct = init_net(NETWORKS[name](), device, seed=3)
    assert network.state_dict().keys() == direct.state_dict().keys()
    for key, tensor in direct.state_dict().items():
        own = network.state_dict()[key]
        assert own.device.type == device.type
        if key.endswith(("_u", "_v")):
            torch.testing.assert_close(own.abs(), tensor.abs(), atol=1e-2, rtol=0)
        else:
            assert torch.equal(own, tensor), key


def test_what_no_scheme_draws_is_right_after_the_meta_device():
    with torch.device("meta"):
        network = NETWORKS["unet"]()
    init_net(network, "cpu", seed=0)
    norm = network.encoder[1].norm
    assert norm.running_mean.tolist() == [0] * 8
    assert norm.running_var.tolist() == [1] * 8
    assert norm.num_batches_tracked.item() == 0
    assert network.attention["1"].gamma.item() == 0
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    for kernel in network.encoder[1].blur.kernel[:, 0]:
        torch.testing.assert_close(kernel, torch.outer(taps, taps))


@pytest.mark.parametrize("on_meta", [True, False])
def test_spectral_norms_fit_the_weights_that_were_drawn(on_meta):
    with torch.device("meta" if on_meta else "cpu"):
        network = NETWORKS["patch"]()
    init_net(network, "cpu", seed=0).eval()
    for layer in network.layers:
        top = torch.linalg.matrix_norm(layer.conv.weight.flatten(1), ord=2).item()
        assert top == pytest.approx(1, abs=0.03)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_state_alone():
    networks = [NETWORKS["patch"]() for _ in range(3)]
    before = torch.get_rng_state()
    for network, seed in zip(networks, (1, 1, 2), strict=True):
        init_net(network, "cpu", seed=seed)
    assert torch.equal(torch.get_rng_state(), before)
    first, same, other = (nn.utils.parameters_to_vector(network.parameters()) for network in networks)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_without_a_seed_the_global_generator_draws():
    def draw():
        torch.manual_seed(4)
        return nn.utils.parameters_to_vector(init_net(nn.Conv2d(2, 2, 2), "cpu").parameters())

    assert torch.equal(draw(), draw())


def test_scheme_and_gain_are_passed_on():
    conv = init_net(nn.Conv2d(32, 64, 4), "cpu", gain=0.5)
    assert conv.weight.std().item() == pytest.approx(0.5, rel=0.03)
    conv = init_net(nn.Conv2d(32, 64, 4), "cpu", scheme="kaiming")
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / 512), rel=0.03)


def test_auto_is_the_best_device_of_this_machine():
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    expected = "cuda" if cuda else "mps" if mps else "cpu"
    assert pick_device().type == expected
    assert init_net(nn.Conv2d(1, 1, 1)).weight.device.type == expected


@pytest.mark.cuda
def test_cuda_is_the_card_of_the_local_rank(monkeypatch):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA card on this machine")
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
    assert message.endswith(" Use 'auto', or 'cpu'.")
    assert "\n" not in message


def test_cuda_is_refused_where_there_is_none():
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA card")
    with pytest.raises(ArgumentError, match=r"device='cuda' cannot be used here: .+ Use 'auto', or 'cpu'\."):
        pick_device("cuda")


def test_a_layer_on_the_meta_device_that_cannot_fill_its_memory_is_refused():
    class Offset(nn.Module):
        def __init__(self):
            super().__init__()
            self.offset = nn.Parameter(torch.empty(3))

    with torch.device("meta"):
        network = nn.Sequential(nn.Conv2d(3, 3, 1), Offset())
    with pytest.raises(ArgumentError) as caught:
        init_net(network, "cpu")
    assert str(caught.value) == (
        "init_net: 1 (Offset) is on the meta device and has no reset_parameters(), so its memory cannot be filled. "
        "Give it that method, or build it on a device."
    )
    with torch.device("meta"):
        alone = Offset()
    with pytest.raises(ArgumentError, match=r"^init_net: the network \(Offset\) is on the meta device"):
        init_net(alone, "cpu")


def test_several_processes_without_a_seed_or_a_group_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ArgumentError) as caught:
        init_net(nn.Conv2d(1, 1, 1), "cpu")
    assert str(caught.value) == (
        "init_net: 2 processes must start from the same weights, but there is no seed and no process group. "
        "Pass seed=..., or call torch.distributed.init_process_group first."
    )
    init_net(nn.Conv2d(1, 1, 1), "cpu", seed=0)


RANK = """
import sys, torch, torch.distributed as dist
from imtrans import PatchDiscriminator, init_net
rank, port, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
torch.manual_seed(rank)
network = PatchDiscriminator(base_channels=4, n_layers=1, spectral_norm=True)
before = network.layers[0].conv.parametrizations.weight.original.clone()
torch.save({"before": before, **init_net(network, "cpu").state_dict()}, out)
dist.destroy_process_group()
"""


def test_two_processes_of_a_group_end_with_the_same_weights(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    files = [tmp_path / f"{rank}.pt" for rank in range(2)]
    ranks = [
        subprocess.Popen([sys.executable, "-c", RANK, str(rank), port, file], env=environment)
        for rank, file in enumerate(files)
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    first, second = (torch.load(file, weights_only=True) for file in files)
    assert not torch.equal(first.pop("before"), second.pop("before"))
    assert first.keys() == second.keys()
    for key, tensor in first.items():
        assert torch.equal(tensor, second[key]), key


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
