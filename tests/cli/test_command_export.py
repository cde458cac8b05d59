"""`imtrans export` and `imtrans convert`: the functions behind them are tested on their own."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from command_runs import failed, succeeded
from processes import environment

from imtrans import UNetGenerator, load_pretrained
from imtrans.nn.patchgan import PixelDiscriminator

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    generator = UNetGenerator(base_channels=2, depth=2)
    generator.save_pretrained(tmp_path / "run" / "to_target")
    return generator.eval()


@pytest.mark.parametrize(
    ("flags", "axes"),
    [
        ([], ["batch", 3, "height", "width"]),
        (["--size", 16, 24, "--no-dynamic", "--mode", "batch_stats"], [1, 3, 16, 24]),
    ],
    ids=["any", "one"],
)
def test_export(tmp_path, weights, flags, axes):
    output = succeeded("export", "run", "--subfolder", "to_target", "--onnx", "deep/a.onnx", *flags, cwd=tmp_path)
    size = (tmp_path / "deep" / "a.onnx").stat().st_size
    assert output == f"written to deep/a.onnx, {size / 2**20:.1f} MB\n"
    session = onnxruntime.InferenceSession(tmp_path / "deep" / "a.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == axes
    facts = json.loads(session.get_modelmeta().custom_metadata_map["imtrans"])
    assert facts["inference_mode"] == ("batch_stats" if "--mode" in flags else "eval")
    if "--mode" not in flags:
        source = torch.randn(1, 3, 16, 24)
        (fake,) = session.run(["fake"], {"source": source.numpy()})
        with torch.no_grad():
            assert np.allclose(fake, weights(source).numpy(), atol=1e-4)


def test_errors_of_export(tmp_path, weights, monkeypatch):
    words = ("export", "run/to_target", "--onnx", "a.onnx")
    assert failed(*words, "--no-dynamic", cwd=tmp_path).startswith("error: export_onnx: dynamic=False is for images of")
    assert failed(*words, "--mode", "paper", code=2, cwd=tmp_path).startswith("error: argument --mode: invalid choice")
    assert failed(*words, "--size", 16, code=2, cwd=tmp_path).startswith("error: argument --size: expected 2 arguments")
    # The package has the function of the same name.
    monkeypatch.setattr(sys.modules["imtrans.inference.export_onnx"], "find_spec", lambda name: None)
    assert failed(*words, cwd=tmp_path) == (
        "error: export_onnx: needs onnx, onnxscript, which is not installed. Install it with: "
        'pip install "imtrans[onnx]".'
    )
    assert not (tmp_path / "a.onnx").exists()


def test_convert(tmp_path):
    torch.manual_seed(0)
    network = PixelDiscriminator(base_channels=2)
    names = {"layers.0.conv": "net.0", "layers.1.conv": "net.2", "layers.1.norm": "net.3", "layers.2.conv": "net.5"}
    state = {f"{names[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": v for k, v in network.state_dict().items()}
    torch.save(state, tmp_path / "latest_net_D.pth")
    command = succeeded("convert", "latest_net_D.pth", "one", "--mode", "batch_stats", cwd=tmp_path)
    assert command.startswith("PixelDiscriminator(in_channels=6, base_channels=2, ")
    assert command.endswith(")\nwritten to one\n")
    assert load_pretrained(tmp_path / "one").inference_mode == "batch_stats"
    module = subprocess.run(
        [sys.executable, "-m", "imtrans.convert", "latest_net_D.pth", "two", "--mode", "batch_stats"], cwd=tmp_path,
        env=environment(PYTHONWARNINGS="error"), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (module.stdout, module.stderr) == (command.replace("to one", "to two"), "")
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]
