"""The page "Draw a facade" in a real browser, and the example that builds and serves it."""

import base64
import contextlib
import importlib
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import networks
import numpy as np
import pytest
from chromium import PageOpener, find_chromium, wait_until
from example_runs import EXAMPLES, run_example
from PIL import Image
from processes import environment, heed_interrupts

from imtrans import UNetGenerator, export_onnx, load_pretrained, translate
from imtrans.data.facades.paint import LABELS
from imtrans.data.facades.plan import draw_facade

pytest.importorskip("onnx")

sys.path.append(str(EXAMPLES))
example = importlib.import_module("draw_a_facade")

SCRIPT = "draw_a_facade.py"
CLASSES = ["wall", "window", "balcony", "door", "shop", "roof", "sky", "unknown"]  # in the order of the page
WATCH_STATUS = """
window.told = [];
addEventListener("DOMContentLoaded", () => new MutationObserver(() => told.push(document.querySelector("#status")
  .textContent)).observe(document.querySelector("#status"), { childList: true }));
"""


def generator(**arguments):
    """A small one, whose pictures have contrast."""
    return networks.trained(UNetGenerator(base_channels=8, depth=4, **arguments))


@pytest.fixture(scope="module", name="site")
def site_fixture(tmp_path_factory):
    """A folder with weights and the page, and the address where the example serves it."""
    if shutil.which("npm") is None:
        pytest.skip("no npm on this machine, which fetches ONNX Runtime Web")
    folder = tmp_path_factory.mktemp("site")
    network = generator()
    network.inference_mode = "batch_stats"
    network.save_pretrained(folder / "weights")
    command = [EXAMPLES / SCRIPT, "--weights", folder / "weights", "--out", folder / "page", "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, *command],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )
    lines = [process.stdout.readline(), process.stdout.readline()]
    try:
        address = re.search(r"http://127\.0\.0\.1:\d+", lines[1])
        if address is None:
            _, errors = process.communicate(timeout=60)
            if "npm cannot fetch" in errors:
                pytest.skip(errors.strip())
            pytest.fail(errors)
        yield folder, address[0] + "/"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.communicate()


def settled(page):
    """Wait until the house is the one of the drawing."""
    wait_until(page, "document.querySelector('#house').ariaBusy === 'false' || document.querySelector('#message.bad')")
    assert page.evaluate("document.querySelector('#message').className") == "", status(page)


def status(page):
    return page.evaluate("document.querySelector('#status').textContent")


def pixels(page, canvas):
    """The pixels of a canvas, ``(h, w, 3)``."""
    url = page.evaluate(f"document.querySelector('{canvas}').toDataURL()")
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB"), np.int16)


def expected(network, page):
    return np.asarray(translate(network, Image.fromarray(pixels(page, "#drawing").astype(np.uint8))), np.int16)


def difference(a, b):
    assert a.shape == b.shape
    return np.abs(a - b).max()


def drag(page, start, end):
    """Drag the mouse over the drawing, between points in fractions of it."""
    page.locator("#drawing").scroll_into_view_if_needed()
    box = page.locator("#drawing").bounding_box()
    for act, (x, y) in ((page.mouse.down, start), (page.mouse.up, end)):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
        act()


def choose(page, name):
    page.locator("#classes label").nth(CLASSES.index(name)).click()


def opened(open_page, address, **options):
    page = open_page(address, **options)
    settled(page)
    return page


def test_a_drawing_becomes_the_house_that_the_library_makes(open_page, site):
    """Without an error in the console, and without a request to another folder; the page says how it loads."""
    folder, address = site
    page, network = opened(open_page, address, before=WATCH_STATUS), load_pretrained(folder / "weights")
    told = page.evaluate("told")
    assert [re.sub(r"\d+ MB", "15 MB", text) for text in told if text.startswith("Loading the network")][:1] == [
        "Loading the network, 15 MB …"
    ]
    assert told[-2:] == ["Starting the network …", "The network runs on the processor (WebAssembly)."]
    first = pixels(page, "#house")
    assert first.shape == (256, 256, 3)
    assert first.std() > 20
    assert difference(first, expected(network, page)) <= 2

    seconds = []
    for name in ("door", "shop", "window", "sky", "wall"):
        before = pixels(page, "#house")
        choose(page, name)
        drag(page, (0.25, 0.25), (0.75, 0.5))
        begin = time.perf_counter()
        settled(page)
        seconds.append(time.perf_counter() - begin)
        drawing = pixels(page, "#drawing")
        assert (drawing[64:128, 64:192] == LABELS[name]).all()
        house = pixels(page, "#house")
        assert np.abs(house - before).mean() > 1
        assert difference(house, expected(network, page)) <= 2
    assert min(seconds) < 1  # the least: other programs may use the processor
    assert re.fullmatch(r"\d\.\d\d s", page.inner_text("#time"))
    assert open_page.problems == []


@contextlib.contextmanager
def serving(folder):
    """Serve a folder; the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(example.Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def test_webgpu_makes_the_same_house(browser, site, tmp_path):
    """With the software adapter of Chromium, where the browser has one; it is slow, and the picture is small."""
    network, page_folder = load_pretrained(site[0] / "weights"), tmp_path / "page"
    shutil.copytree(site[0] / "page", page_folder, copy_function=os.link)
    export_onnx(network, page_folder / "build" / "model.onnx", size=(32, 48))
    flags = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"]
    chromium = browser.browser_type
    with serving(page_folder) as address, chromium.launch(executable_path=find_chromium(), args=flags) as with_gpu:
        open_page = PageOpener(with_gpu)
        page = open_page(address)
        if not page.evaluate("async () => Boolean(await navigator.gpu?.requestAdapter())"):
            pytest.skip("this browser has no software adapter for WebGPU")
        settled(page)
        assert status(page) == "The network runs on the graphics card (WebGPU)."
        assert pixels(page, "#house").shape == (32, 48, 3)
        assert difference(pixels(page, "#house"), expected(network, page)) <= 2
        assert open_page.problems == []


def test_the_classes_are_those_of_the_label_maps_and_each_layout_has_no_other_colour(open_page, site):
    page = opened(open_page, site[1])
    swatches = "[...document.querySelectorAll('#classes i')]"
    colours = page.evaluate(f"{swatches}.map(swatch => getComputedStyle(swatch).backgroundColor)")
    assert [tuple(map(int, re.findall(r"\d+", colour))) for colour in colours] == [LABELS[name] for name in CLASSES]
    seen = set()
    for _ in range(6):
        page.click("#random")
        drawing = pixels(page, "#drawing")
        found = {tuple(colour) for colour in np.unique(drawing.reshape(-1, 3), axis=0).tolist()}
        assert found <= set(LABELS.values())
        assert {LABELS[name] for name in ("wall", "window", "door", "roof", "sky", "unknown")} <= found
        seen.add(drawing.tobytes())
    assert len(seen) == 6
    for number, index in enumerate(example.EXAMPLES):
        page.locator("#examples button").nth(number).click()
        wait_until(page, f"document.querySelector('#announcement').textContent === 'Example {number + 1}'")
        assert (pixels(page, "#drawing") == draw_facade(1, index, 256)[1]).all()
    settled(page)
    assert open_page.problems == []


def test_undo_redo_clear_brush_and_size(open_page, site):
    page = opened(open_page, site[1])
    layout = pixels(page, "#drawing")
    page.click("#clear")
    assert (pixels(page, "#drawing") == LABELS["wall"]).all()
    page.locator("#tools label").nth(1).click()
    choose(page, "balcony")
    page.evaluate("document.querySelector('#brush-size input').value = 16")
    drag(page, (0.25, 0.5), (0.75, 0.5))
    drawn = (pixels(page, "#drawing") == LABELS["balcony"]).all(axis=2)
    rows, columns = np.nonzero(drawn)
    assert drawn[rows.min() : rows.max() + 1, 64:192].all()  # no gaps in the line
    assert 15 <= np.ptp(rows) + 1 <= 17
    assert 128 + 13 <= np.ptp(columns) + 1 <= 128 + 17
    stroke = pixels(page, "#drawing")
    page.click("#undo")
    assert (pixels(page, "#drawing") == LABELS["wall"]).all()
    page.click("#undo")
    assert (pixels(page, "#drawing") == layout).all()
    assert page.evaluate("document.querySelector('#undo').disabled")
    page.click("#redo")
    page.keyboard.press("Control+Shift+Z")
    assert (pixels(page, "#drawing") == stroke).all()
    page.select_option("select", "128")
    settled(page)
    assert (pixels(page, "#drawing") == stroke[1::2, 1::2]).all()
    assert pixels(page, "#house").shape == (128, 128, 3)
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "house.png"
    with Image.open(download.value.path()) as saved:
        assert (np.asarray(saved.convert("RGB")) == pixels(page, "#house")).all()
    assert open_page.problems == []


def test_the_keyboard_draws(open_page, site):
    page = opened(open_page, site[1])
    page.click("#clear")
    page.focus("#drawing")
    page.keyboard.press("5")
    page.keyboard.press("r")
    page.keyboard.press("Space")
    for key in ("ArrowRight", "ArrowDown", "Shift+ArrowDown"):
        page.keyboard.press(key)
    assert page.evaluate("document.querySelector('#cursor').className") == "down"
    page.keyboard.press("Enter")
    is_shop = (pixels(page, "#drawing") == LABELS["shop"]).all(axis=2)
    assert is_shop[128:134, 128:133].all()  # 4 pixels with an arrow, 1 with Shift; both ends are painted
    assert is_shop.sum() == 6 * 5
    wait_until(page, "document.querySelector('#announcement').textContent === '132, 133: Shop'")
    page.keyboard.press("b")
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowLeft")
    assert (pixels(page, "#drawing") == LABELS["window"]).all(axis=2).any()
    page.keyboard.press("Escape")
    assert ((pixels(page, "#drawing") == LABELS["shop"]).all(axis=2) == is_shop).all()
    page.keyboard.press("Control+Z")
    assert (pixels(page, "#drawing") == LABELS["wall"]).all()
    settled(page)
    names = page.evaluate(
        "[...document.querySelectorAll('button, input, select, canvas')].map(e => "
        "e.ariaLabel || e.labels?.[0]?.innerText || e.innerText || e.querySelector('img')?.alt)"
    )
    assert all(names)
    assert open_page.problems == []


def test_the_page_fits_a_phone_and_is_dark_where_the_system_is(open_page, site):
    page = opened(open_page, site[1], phone=True, dark=True)
    assert page.evaluate("document.documentElement.scrollWidth") == page.viewport_size["width"]
    small = page.evaluate(
        "[...document.querySelectorAll('button, select, #classes label, #tools label, #model')]"
        ".filter(e => e.checkVisibility() && e.getBoundingClientRect().height < 44).map(e => e.outerHTML)"
    )
    assert small == []
    assert max(map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor")))) < 60
    page.locator("#clear").tap()
    page.locator("#tools label").nth(1).tap()
    page.locator("#classes label").nth(CLASSES.index("door")).tap()
    page.locator("#drawing").tap(position={"x": 100, "y": 100})
    assert (pixels(page, "#drawing") == LABELS["door"]).all(axis=2).any()
    settled(page)
    # The house is in sight when the tools are.
    page.locator("#tools").scroll_into_view_if_needed()
    box = page.locator("#house").bounding_box()
    assert 0 <= box["y"] <= box["y"] + box["height"] <= page.viewport_size["height"]
    assert open_page.problems == []


DROP = """({ name, content }) => {
  const bytes = Uint8Array.from(atob(content), c => c.charCodeAt(0)), dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], name, { type: name.endsWith(".png") ? "image/png" : "" }));
  const event = new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true });
  document.querySelector("main").dispatchEvent(event);
}"""


def drop(page, path):
    page.evaluate(DROP, {"name": path.name, "content": base64.b64encode(path.read_bytes()).decode()})


def test_a_visitor_loads_files_of_their_own(open_page, site, tmp_path):
    page = opened(open_page, site[1])
    one_hot = generator(in_channels=8)
    one_hot.palette = LABELS
    export_onnx(one_hot, tmp_path / "one-hot.onnx", size=(48, 80))
    drop(page, tmp_path / "one-hot.onnx")
    wait_until(page, "document.querySelector('#model-name').textContent === 'one-hot.onnx'")
    settled(page)
    assert pixels(page, "#house").shape == (48, 80, 3)
    assert page.evaluate("document.querySelector('#sizes').hidden")
    assert difference(pixels(page, "#house"), expected(one_hot, page)) <= 2

    labels = draw_facade(3, 0, 80)[1][:48]
    Image.fromarray(labels).save(tmp_path / "labels.png")
    drop(page, tmp_path / "labels.png")
    wait_until(page, "document.querySelector('#announcement').textContent === 'labels.png'")
    assert (pixels(page, "#drawing") == labels).all()

    # Files that do not fit leave the model.
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x09no model")
    export_onnx(generator(in_channels=1), tmp_path / "grey.onnx", size=(16, 16))
    for name, reason in (
        ("broken.onnx", "broken.onnx cannot be used: "),
        ("grey.onnx", "grey.onnx cannot be used: it takes 1 channels, and a drawing has 3, or one for each colour"),
    ):
        page.set_input_files("#model input", tmp_path / name)
        wait_until(page, f"document.querySelector('#message.bad #status')?.textContent.startsWith('{reason}')")
    (tmp_path / "notes.txt").write_text("hello")
    drop(page, tmp_path / "notes.txt")
    wait_until(page, "document.querySelector('#status').textContent.startsWith('notes.txt is neither')")
    assert difference(pixels(page, "#house"), expected(one_hot, page)) <= 2

    export_onnx(generator(noise_channels=4), tmp_path / "noisy.onnx", size=(32, 32))
    page.set_input_files("#model input", tmp_path / "noisy.onnx")
    wait_until(page, "document.querySelector('#model-name').textContent === 'noisy.onnx'")
    settled(page)
    assert pixels(page, "#house").std() > 5
    assert open_page.problems == []


def test_a_page_that_is_not_built_says_how_to_build_it(open_page, tmp_path):
    for source in example.PAGE.glob("*.*"):
        shutil.copy(source, tmp_path)
    with serving(tmp_path) as address:
        page = open_page(address)
        wait_until(page, "document.querySelector('#message.bad')")
        assert status(page).endswith("In a clone of imtrans, run: python examples/draw_a_facade.py")
        drawing = pixels(page, "#drawing")
        page.click("#random")  # one can draw all the same
        assert (pixels(page, "#drawing") != drawing).any()


def fake_npm(folder, script):
    """A program `npm`, first on the path of this process."""
    folder.mkdir()
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for npm is a script of a POSIX shell")
def test_what_goes_wrong_with_npm_is_said(tmp_path, monkeypatch):
    generator().save_pretrained(tmp_path / "weights")
    with tarfile.open(tmp_path / "other.tgz", "w:gz") as archive:
        for name in example.DIGESTS:
            archive.addfile(tarfile.TarInfo(f"package/dist/{name}"))
    cases = {
        "/nowhere": "npm, which fetches ONNX Runtime Web. Install Node.js",
        fake_npm(tmp_path / "offline", "echo 'npm error code ENOTFOUND' >&2; exit 1"): "npm error code ENOTFOUND",
        fake_npm(tmp_path / "other", f"cp {tmp_path}/other.tgz ."): "has another SHA-256",
    }
    for path, reason in cases.items():
        monkeypatch.setenv("PATH", path)
        done = run_example(SCRIPT, "--weights", tmp_path / "weights", "--out", tmp_path / "page", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error: ")
        assert reason in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "page" / "build" / "build.json").exists()


def test_a_port_that_is_taken_is_said(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(example.DataError, match="Choose another one"):
        example.serve(tmp_path, taken.getsockname()[1])
    assert Path(example.WEIGHTS).relative_to(example.ROOT).as_posix() == "examples/weights/facades"
