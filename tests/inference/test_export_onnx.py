"""An exported file computes in onnxruntime what the generator does in PyTorch, for every option, mode and size."""

import copy
import importlib
import json
import logging
from collections import Counter

import networks
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from imtrans import HugGANGenerator, LocalEnhancer, ResnetGenerator, UNetGenerator, export_onnx, one_hot, translate
from imtrans.colours import CMP_PALETTE
from imtrans.errors import ArgumentError, SavedModelError, ShapeError
from imtrans.nn.layers import NearestConv

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
export_module = importlib.import_module("imtrans.inference.export_onnx")  # the package has the function of this name

SIZES = [(1, 32, 32), (2, 48, 64), (3, 50, 37), (2, 17, 70), (1, 3, 5)]
"""Batch, height and width: sizes that fit, that are padded, and that are smaller than the padding of a convolution."""
SHARED = {"act", "bias", "out_act"}  # the same code in every network: tested in the first one
CASES = [
    pytest.param((cls, changes), id=networks.in_words(cls, changes))
    for table in (networks.OPTIONS, networks.CALLABLES)
    for cls in networks.GENERATORS
    for changes in table.get(cls, [])
    if cls is UNetGenerator or not SHARED & changes.keys()
]
LIVE_NORMS = [case for case in CASES if case.values[0][1].get("norm") in ("batch", "instance", "group")]


def trained(generator):
    return networks.trained(generator).eval()


def small_unet(**changes):
    return trained(UNetGenerator(**{"base_channels": 4, "depth": 3, **changes}))


def run(path, source):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["fake"], {"source": source.numpy()})[0])


@pytest.mark.parametrize(
    "settings", [{}, {"size": (20, 12)}, {"size": (16, 16), "dynamic": False}], ids=["any", "size", "one"]
)
@pytest.mark.parametrize("noise_at", ["input", "bottleneck"])
def test_noise_is_a_second_input(tmp_path, noise_at, settings):
    generator = small_unet(noise_channels=2, noise_at=noise_at)
    export_onnx(generator, tmp_path / "noise.onnx", **settings)
    session = onnxruntime.InferenceSession(tmp_path / "noise.onnx", providers=["CPUExecutionProvider"])
    batch = 3 if settings.get("dynamic", True) else 1
    source, noise = picture(generator, batch, *settings.get("size", (33, 18))), torch.randn(batch, 2)
    fake = torch.from_numpy(session.run(["fake"], {"source": source.numpy(), "noise": noise.numpy()})[0])
    with torch.no_grad():
        torch.testing.assert_close(fake, generator(source, noise), atol=1e-4, rtol=0)
        assert not torch.allclose(fake, generator(source, -noise), atol=1e-3)


def picture(generator, batch, height, width):
    return torch.rand(batch, generator.in_channels, height, width) * 2 - 1


def check(generator, path, sizes=SIZES, mode="eval"):
    """Compare the file with the generator, which pads if its `odd_sizes` is "error"."""
    generator = copy.deepcopy(generator)
    generator.odd_sizes = "pad"
    for size in sizes:
        source = picture(generator, *size)
        expected = translate(generator, source, mode=mode)
        torch.testing.assert_close(run(path, source), expected, atol=1e-4, rtol=0)
        assert expected.std() > 1e-3  # or anything would be near


def facts(path):
    return json.loads({entry.key: entry.value for entry in onnx.load(path).metadata_props}["imtrans"])


def shape_of(value):
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A U-Net with several options and its file, for tests that only read."""
    torch.manual_seed(0)
    generator = small_unet(upsample="nearest", skips=("gate", "add"), attention=(1,), downsample="blur")
    path = tmp_path_factory.mktemp("onnx") / "new" / "unet.onnx"
    export_onnx(generator, path)
    return generator, path


def test_a_file_takes_every_size_and_batch(exported):
    check(*exported)


@pytest.mark.parametrize(
    ("make", "mode"),
    [
        (lambda: ResnetGenerator(base_channels=4, num_blocks=1, norm="batch", dropout=0.5), "batch_stats"),
        pytest.param(lambda: LocalEnhancer(**networks.SMALL[LocalEnhancer]), "eval", marks=pytest.mark.slow),
        (lambda: HugGANGenerator(**networks.SMALL[HugGANGenerator]), "eval"),
    ],
    ids=["resnet", "enhancer", "huggan"],
)
def test_every_generator_can_be_exported(make, mode, tmp_path):
    generator = trained(make())
    export_onnx(generator, tmp_path / "a.onnx", mode=mode)
    check(generator, tmp_path / "a.onnx", mode=mode)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_option_can_be_exported(case, tmp_path):
    generator = trained(networks.build(case))
    export_onnx(generator, tmp_path / "a.onnx", mode="eval")
    check(generator, tmp_path / "a.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("case", LIVE_NORMS)
def test_every_norm_can_be_exported_with_the_statistics_of_its_input(case, tmp_path):
    generator = trained(networks.build(case))
    export_onnx(generator, tmp_path / "a.onnx", mode="batch_stats")
    check(generator, tmp_path / "a.onnx", mode="batch_stats")


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case.values[0][1] in ({}, {"upsample": "nearest"})])
@pytest.mark.parametrize("size", [(32, 48), (50, 37)])
def test_every_generator_can_be_exported_for_one_size(case, size, tmp_path):
    generator = trained(networks.build(case))
    export_onnx(generator, tmp_path / "a.onnx", size=size)
    check(generator, tmp_path / "a.onnx", [(1, *size), (3, *size)])


def test_of_batch_statistics_each_image_depends_on_the_others(tmp_path):
    """Also an instance norm that keeps running statistics takes those of its input, and updates none."""

    def norm(channels):
        return nn.Sequential(nn.BatchNorm2d(channels), nn.InstanceNorm2d(channels, track_running_stats=True))

    generator, path = small_unet(depth=2, norm=nn.BatchNorm2d, stem=True), tmp_path / "a.onnx"
    generator.inference_mode = "batch_stats"
    export_onnx(generator, path, size=(16, 24))
    check(generator, path, [(1, 16, 24), (3, 16, 24)], mode="batch_stats")
    source = picture(generator, 2, 16, 24)
    assert (run(path, source)[:1] - run(path, source[:1])).abs().max() > 1e-3
    tracked = small_unet(depth=2, norm=norm, stem=True)
    export_onnx(tracked, path, mode="batch_stats", size=(16, 24), dynamic=False)
    check(tracked, path, [(1, 16, 24)], mode="batch_stats")


def test_a_file_for_one_size_has_fixed_axes_and_pads(tmp_path):
    generator, path = small_unet(upsample="nearest"), tmp_path / "a.onnx"
    export_onnx(generator, path, size=(50, 37), dynamic=False)
    check(generator, path, [(1, 50, 37)])
    graph = onnx.load(path).graph
    assert [shape_of(value) for value in (graph.input[0], graph.output[0])] == [[1, 3, 50, 37]] * 2
    with pytest.raises(Exception, match="Got: 48 Expected: 50"):
        run(path, picture(generator, 1, 48, 37))


def test_a_file_is_one_plain_graph_with_the_names_of_the_library(exported):
    _, path = exported
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(value.name, shape_of(value)) for value in (*model.graph.input, *model.graph.output)] == [
        ("source", ["batch", 3, "height", "width"]),
        ("fake", ["batch", 3, "height", "width"]),
    ]
    assert {opset.domain: opset.version for opset in model.opset_import} == {"": 18}
    assert {node.domain for node in model.graph.node} == {""}
    assert [p.name for p in path.parent.iterdir()] == ["unet.onnx"]
    content = path.read_bytes()
    assert b"site-packages" not in content
    assert b"imtrans/" not in content


def test_resizes_are_folded_into_kernels(exported):
    generator, path = exported
    count = Counter(node.op_type for node in onnx.load(path).graph.node)
    assert sum(isinstance(module, NearestConv) for module in generator.modules()) == 3
    assert (count["ConvTranspose"], count["Resize"], count["MatMul"]) == (3, 0, 2)  # the products of the attention


def test_the_facts_of_the_generator_are_in_the_metadata(exported, tmp_path):
    generator, path = exported
    described = generator.description()
    assert facts(path) == {
        **{key: described[key] for key in ("library", "version", "class", "arguments")},
        "inference_mode": "eval",
        "in_channels": 3,
        "size_multiple": 8,
    }
    labels, path = small_unet(in_channels=12, depth=1, act=nn.GELU), tmp_path / "a.onnx"
    labels.palette, labels.value_range, labels.inference_mode = CMP_PALETTE, (0, 4095), "batch_stats"
    export_onnx(labels, path, size=(8, 8))
    found = facts(path)
    assert (found["inference_mode"], found["value_range"], found["size_multiple"]) == ("batch_stats", [0, 4095], 2)
    assert found["palette"] == [list(colour) for colour in CMP_PALETTE.values()]
    assert found["arguments"]["act"] == "torch.nn.modules.activation.GELU"
    assert not {"colours", "num_labels", "instances"} & found.keys()
    maps = one_hot(torch.randint(12, (1, 8, 8)), 12)
    torch.testing.assert_close(run(path, maps), translate(labels, maps), atol=1e-4, rtol=0)
    grey = small_unet(in_channels=1, out_channels=2, depth=1)
    grey.colours = "lab"
    export_onnx(grey, path, size=(8, 8))
    assert facts(path)["colours"] == "lab"


def test_the_generator_is_left_as_it_was_and_parametrizations_are_exported_as_weights(tmp_path, capfd, caplog):
    generator = small_unet(depth=2, upsample="nearest").train()
    parametrizations.spectral_norm(generator.encoder[0].conv)
    parametrizations.weight_norm(generator.head[1])
    generator.half()
    generator.to(memory_format=torch.channels_last)
    flags = [(module, module.training) for module in generator.modules()]
    tensors = {name: (tensor.clone(), tensor.stride()) for name, tensor in generator.state_dict().items()}
    state = torch.get_rng_state()
    with caplog.at_level(logging.WARNING):
        export_onnx(generator, tmp_path / "a.onnx", size=(8, 12))
    assert (capfd.readouterr(), caplog.messages) == (("", ""), [])
    assert torch.equal(torch.get_rng_state(), state)
    assert [(module, module.training) for module in generator.modules()] == flags
    assert all(parameter.requires_grad and parameter.grad is None for parameter in generator.parameters())
    for name, tensor in generator.state_dict().items():
        assert torch.equal(tensor, tensors[name][0]), name
        assert tensor.stride() == tensors[name][1], name
    single = copy.deepcopy(generator).float()
    check(single, tmp_path / "a.onnx", [(2, 8, 12)])
    graph = onnx.load(tmp_path / "a.onnx").graph
    assert {node.op_type for node in graph.node} <= {"Conv", "ConvTranspose", "Concat", "Relu", "LeakyRelu", "Tanh"}
    assert facts(tmp_path / "a.onnx")["class"] == "UNetGenerator"


def test_a_resize_that_cannot_be_folded_is_exported_as_it_is(tmp_path):
    generator = small_unet(depth=2, upsample="nearest")
    generator.head[1].register_forward_hook(lambda module, images, output: output * 2)
    export_onnx(generator, tmp_path / "a.onnx")
    check(generator, tmp_path / "a.onnx", [(1, 32, 32), (2, 5, 7)])
    assert "Resize" in {node.op_type for node in onnx.load(tmp_path / "a.onnx").graph.node}


class Own(nn.Module):
    """A generator that is not of the library: `change` makes the output from a convolution's."""

    def __init__(self, change=lambda fake: fake):
        super().__init__()
        self.in_channels = 3
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.change = change

    def forward(self, source):
        return self.change(self.conv(source))


def test_a_generator_of_another_library_can_be_exported(tmp_path):
    own = Own()
    export_onnx(nn.DataParallel(own), tmp_path / "a.onnx")
    check(own, tmp_path / "a.onnx", [(1, 8, 8), (2, 5, 7)])
    assert {key: facts(tmp_path / "a.onnx").get(key) for key in ("class", "size_multiple", "arguments")} == {
        "class": "Own",
        "size_multiple": 1,
        "arguments": None,
    }


def test_in_paper_mode_only_dropout_is_an_error(tmp_path):
    plain = small_unet(depth=2, dropout=())
    export_onnx(plain, tmp_path / "a.onnx", mode="paper", size=(8, 8))
    check(plain, tmp_path / "a.onnx", [(2, 8, 8)], mode="batch_stats")
    random = small_unet()
    random.inference_mode = "paper"
    with pytest.raises(ArgumentError) as caught:
        export_onnx(random, tmp_path / "b.onnx")
    assert str(caught.value) == (
        "export_onnx: UNetGenerator has dropout, which is random in mode='paper', and a graph cannot draw as PyTorch "
        "does. Use mode='batch_stats', which is the same without dropout, or mode='eval'."
    )
    assert not (tmp_path / "b.onnx").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"mode": "evla"},
            "export_onnx: mode='evla' is not one of ['batch_stats', 'eval', 'paper']. Did you mean 'eval'?",
        ),
        ({"size": 256}, "export_onnx: size must be None or (height, width), got 256."),
        ({"size": (256,)}, "export_onnx: size must be None or (height, width), got (256,)."),
        ({"size": (0, 8)}, "export_onnx: each of size must be a whole number >= 1, got 0."),
        ({"dynamic": None}, "export_onnx: dynamic must be True or False, got None."),
        (
            {"dynamic": False},
            "export_onnx: dynamic=False is for images of one size, and needs size=(height, width). Leave dynamic out "
            "for a file that takes every size.",
        ),
    ],
)
def test_a_setting_that_is_not_allowed_is_named(settings, message, tmp_path):
    with pytest.raises(ArgumentError) as caught:
        export_onnx(small_unet(), tmp_path / "a.onnx", **settings)
    assert str(caught.value) == message


def test_a_size_that_the_generator_refuses_is_its_error(tmp_path):
    with pytest.raises(ShapeError, match=r"multiples of 8 and at least 8, got 20x16 \(odd_sizes='error'\)"):
        export_onnx(small_unet(odd_sizes="error"), tmp_path / "a.onnx", size=(20, 16))


def test_a_missing_package_is_an_error_that_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setattr(export_module, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(ArgumentError) as caught:
        export_onnx(small_unet(), tmp_path / "a.onnx")
    assert str(caught.value) == (
        'export_onnx: needs onnxscript, which is not installed. Install it with: pip install "imtrans[onnx]".'
    )


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (
            lambda fake: fake if fake.mean() > 0 else -fake,
            {"size": (8, 8)},
            "cannot be exported by torch.onnx.export: ",
        ),
        (
            lambda fake: fake * (2 if fake.shape[-1] > 50 else 1),
            {},
            "trace, or try size=(height, width) and dynamic=False.",
        ),
        (
            lambda fake: fake * (2 if fake.shape[-1] % 2 else 1),
            {},
            "Own decides by the size of the image, and one graph cannot: for 16x32, its output is not the network's. "
            "Pass size=(height, width).",
        ),
        (lambda fake: [fake, fake], {"size": (8, 8)}, "Own must return one tensor, the fake, and returns 2."),
    ],
    ids=["branch", "size", "decision", "list"],
)
def test_a_generator_that_cannot_be_exported_is_an_error_that_says_so(change, settings, message, tmp_path):
    with pytest.raises(ArgumentError) as caught:
        export_onnx(Own(change), tmp_path / "a.onnx", **settings)
    assert str(caught.value).startswith("export_onnx: Own ")
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_one_file_cannot_hold_are_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(export_module, "_LARGEST", 1000)
    with pytest.raises(ArgumentError, match=r"UNetGenerator has 25,004 bytes of weights in float32, .* most 1,000"):
        export_onnx(small_unet(), tmp_path / "a.onnx")


def test_a_file_that_cannot_be_written_is_an_error_and_the_old_one_stays(tmp_path, monkeypatch):
    own, path = Own(), tmp_path / "a.onnx"
    path.write_bytes(b"old")
    monkeypatch.setattr(
        "pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(SavedModelError) as caught:
        export_onnx(own, path, size=(8, 8))
    assert str(caught.value) == (
        f"{path} cannot be written: No space left on device. Make room, or choose another path."
    )
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.onnx", b"old")]
