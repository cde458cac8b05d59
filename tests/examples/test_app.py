import gc
import importlib.util
import re
import socket
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from example_runs import EXAMPLES, run_example
from loopback_hub import hub_fixture  # noqa: F401
from PIL import Image
from processes import environment

from imtrans import UNetGenerator, load_pretrained, translate, uncertainty, uncertainty_map
from imtrans.colours import CMP_PALETTE
from imtrans.errors import ArgumentError

gradio = pytest.importorskip("gradio", reason="gradio is not installed: pip install 'imtrans[app]'")
client_api = pytest.importorskip("gradio_client")
# Gradio and its client leave sockets and an event loop to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def _collect_sockets():
    """Let no later test, nor the end of the session, find them."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.fixture(scope="module", name="example")
def example_fixture():
    spec = importlib.util.spec_from_file_location("app", EXAMPLES / "app.py")
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    return module


def generator(in_channels=3, **attributes):
    torch.manual_seed(0)
    network = UNetGenerator(in_channels, 3, base_channels=4, depth=3).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(8)
    network.inference_mode = "batch_stats"
    for name, value in attributes.items():
        setattr(network, name, value)
    return network


@pytest.fixture
def serve(tmp_path):
    """A function that serves the page of a generator in a new process, and returns a client of it."""
    servers, clients = [], []

    def start(network):
        network.save_pretrained(tmp_path / "served")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [sys.executable, EXAMPLES / "app.py", "--weights", tmp_path / "served", "--port", port]
        command += ["--device", "cpu"]
        servers.append(subprocess.Popen([*map(str, command)], env=environment(), stdout=subprocess.PIPE, text=True))
        for line in servers[-1].stdout:
            if address := re.search("http://[^ ]+", line):
                clients.append(client_api.Client(address[0].strip(), verbose=False))
                return clients[-1]
        raise AssertionError(f"no address; the server ended with {servers[-1].wait()}")

    yield start
    for client in clients:
        client.close()
    for server in servers:
        server.terminate()
        server.communicate()


def test_an_uploaded_picture_is_translated(serve, tmp_path):
    network = generator()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    picture.save(tmp_path / "a.png")
    result = serve(network).predict(client_api.handle_file(tmp_path / "a.png"), 0, api_name="/translate")
    assert np.array_equal(np.asarray(Image.open(result).convert("RGB")), np.asarray(translate(network, picture)))


def test_the_uncertainty_of_a_picture_is_a_map(serve, tmp_path):
    network = UNetGenerator(base_channels=4, depth=4)  # with dropout
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    picture.save(tmp_path / "a.png")
    result = serve(network).predict(client_api.handle_file(tmp_path / "a.png"), 0, api_name="/uncertainty")
    expected = uncertainty_map(uncertainty(network, picture, seed=0).std)
    assert np.array_equal(np.asarray(Image.open(result).convert("RGB")), np.asarray(expected))


def test_a_generator_with_one_answer_has_no_map(example):
    def endpoints(network):
        return {each.api_name for each in example.page(network).fns.values()}

    assert endpoints(UNetGenerator(base_channels=4, depth=4, dropout=())) == {"translate", "draw"}
    assert endpoints(UNetGenerator(base_channels=4, depth=4)) >= {"uncertainty", "draw_uncertainty"}


def test_an_error_of_the_library_reaches_the_visitor(serve, tmp_path):
    Image.new("L", (16, 16), 9).save(tmp_path / "a.png")
    client = serve(generator(num_labels=3))
    with pytest.raises(client_api.exceptions.AppError, match="class"):
        client.predict(client_api.handle_file(tmp_path / "a.png"), 0, api_name="/translate")


@pytest.mark.parametrize("by_class", [False, True], ids=["rgb", "one-hot"])
def test_a_drawing_is_translated_in_the_colours_of_the_palette(serve, tmp_path, by_class):
    colours = list(CMP_PALETTE.values())
    network = generator(12, palette=colours) if by_class else generator()
    exact = Image.new("RGB", (16, 16), colours[0])
    exact.paste(colours[3], (4, 4, 9, 12))
    blended = Image.fromarray(np.asarray(exact) // 8 * 8)  # near the colours, as at the edges of strokes
    blended.save(tmp_path / "a.png")
    file = client_api.handle_file(tmp_path / "a.png")
    result = serve(network).predict({"background": None, "layers": [], "composite": file}, 0, api_name="/draw")
    assert np.array_equal(np.asarray(Image.open(result).convert("RGB")), np.asarray(translate(network, exact)))


def test_the_folder_of_a_space_serves_its_own_weights(serve, tmp_path):
    network = generator()
    network.save_pretrained(tmp_path / "weights")
    done = run_example("app.py", "--weights", tmp_path / "weights", "--space", tmp_path / "space", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"sdk_version: {gradio.__version__}" in (tmp_path / "space/README.md").read_text()
    assert (tmp_path / "space/requirements.txt").read_text().startswith("imtrans[app]==")
    state = load_pretrained(tmp_path / "space/weights").state_dict()
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    # Without --weights, the script takes the weights beside it.
    copied = run_example(tmp_path / "space/app.py", "--space", tmp_path / "again", cwd=tmp_path)
    assert copied.returncode == 0, copied.stderr
    assert (tmp_path / "again/weights/model.safetensors").read_bytes() == (
        tmp_path / "space/weights/model.safetensors"
    ).read_bytes()


def test_a_space_is_pushed_to_the_hub(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", hub.token)
    generator().save_pretrained(tmp_path / "weights")
    done = run_example("app.py", "--weights", tmp_path / "weights", "--push-space", "user/houses", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"space      {hub.endpoint}/spaces/user/houses" in done.stdout
    files = hub.files("spaces/user/houses")
    assert files.keys() == {
        "README.md", "app.py", "requirements.txt", "weights/config.json", "weights/model.safetensors"
    }  # fmt: skip
    assert b"sdk: gradio" in files["README.md"]


def test_the_missing_package_is_named(example, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ArgumentError, match=r'pip install "imtrans\[app\]"'):
        example.import_gradio()
