import re
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from command_runs import run_command
from huggingface_hub import constants
from PIL import Image

from imtrans import PatchDiscriminator, UNetGenerator, translate, uncertainty, uncertainty_map


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def run(*arguments, **options):
    return run_command("translate", "--device", "cpu", *arguments, **options)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    network(3, 3).save_pretrained(folder)
    return folder


def network(given, made):
    generator = UNetGenerator(given, made, base_channels=4, depth=3)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(8)
    generator.inference_mode = "batch_stats"
    return generator.eval()


def picture(path, seed=0, size=(30, 22), mode="RGB"):
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).convert(mode).save(path)
    return path


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


class Page(HTMLParser):
    """The links and the text of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.tags, self.text = [], [], ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def failed(done):
    """The one line of an error."""
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def test_a_picture(weights, tmp_path):
    source = picture(tmp_path / "labels.jpg")
    done = run("--weights", weights, "labels.jpg", "--out", "made", "--compare", cwd=tmp_path, new_process=True)
    assert done.returncode == 0, done.stderr
    page = tmp_path / "made" / "index.html"
    assert done.stdout == f"1 of 1 translated, 0 skipped\ngallery    {page.as_uri()}\n"
    assert "1/1" in done.stderr  # the progress bar
    assert sorted(path.name for path in page.parent.iterdir()) == ["index.html", "labels.png"]
    torch.manual_seed(0)
    expected = translate(network(3, 3), source)
    assert np.array_equal(pixels(tmp_path / "made" / "labels.png"), np.asarray(expected))


def test_without_compare_only_images_are_written(weights, tmp_path):
    picture(tmp_path / "in" / "a.png")
    done = run("--weights", weights, "in", "--out", "made", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "1 of 1 translated, 0 skipped\n"), done.stderr
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["a.png"]


def test_a_page_that_cannot_be_written_is_an_error(weights, tmp_path):
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "made" / "index.html").mkdir(parents=True)
    done = run("--weights", weights, "in", "--out", "made", "--compare", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "error: made/index.html cannot be written: Is a directory. Make room"
    )


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_a_batch_gives_the_images_of_each_alone(tmp_path, size):
    generator = network(3, 3)
    generator.inference_mode = "eval"
    generator.save_pretrained(tmp_path / "weights")
    sizes = [(30, 22), (30, 22), (30, 22), (22, 30), (30, 22)]
    for index, (width, height) in enumerate(sizes):
        picture(tmp_path / "in" / f"{index}.png", index, (width, height), mode="RGB" if index else "L")
    (tmp_path / "in" / "1b.png").write_bytes(b"<html>")
    np.save(tmp_path / "in" / "2b.npy", np.zeros((22, 30, 3), np.uint8))
    done = run("--weights", "weights", "in", "--out", "made", "--batch-size", size, "--compare", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.startswith("6 of 7 translated, 1 skipped\n")
    assert "7/7" in done.stderr
    for index in range(len(sizes)):
        alone = np.asarray(translate(generator, tmp_path / "in" / f"{index}.png")).astype(int)
        assert np.abs(alone - pixels(tmp_path / "made" / f"{index}.png")).max() <= 1
    assert np.load(tmp_path / "made" / "2b.npy").shape == (22, 30, 3)
    order = re.findall(r'alt="([^",]*)">', (tmp_path / "made" / "index.html").read_text())
    assert order == ["0.png", "1.png", "2.png", "2b.npy", "3.png", "4.png"]


def test_the_batches_have_the_asked_size(weights, tmp_path, monkeypatch):
    for index in range(5):
        picture(tmp_path / "in" / f"{index}.png", index)
    found = []

    def recorded(generator, images, **options):
        found.append(len(images))
        return translate(generator, images, **options)

    monkeypatch.setattr("imtrans.cli.translate.translate", recorded)
    options = ("--weights", weights, "in", "--out", "made", "--mode", "eval")
    assert run(*options, "--batch-size", "2", cwd=tmp_path).returncode == 0
    assert run(*options, cwd=tmp_path).returncode == 0
    assert found == [2, 2, 1, 1, 1, 1, 1, 1]


def test_a_batch_that_would_change_the_outputs_is_refused(weights, noisy, tmp_path):
    picture(tmp_path / "in" / "a.png")

    def error(*options):
        return failed(run(*options, "in", "--out", "made", "--batch-size", "2", cwd=tmp_path))

    reason = "error: --batch-size is for generators that translate each image of a batch as they do alone, and "
    assert error("--weights", weights) == (
        f"{reason}batch norms take the statistics of the batch in the mode batch_stats. Use --batch-size 1, or --mode "
        "eval."
    )
    assert error("--weights", noisy) == f"{reason}its outputs are random. Use --batch-size 1."
    UNetGenerator(base_channels=4, depth=3, norm="instance").save_pretrained(tmp_path / "instance")
    assert error("--weights", "instance", "--mode", "paper") == (
        f"{reason}its outputs are random. Use --batch-size 1, or --mode eval."
    )
    options = ("--weights", "instance", "in", "--out", "made", "--mode", "batch_stats", "--batch-size", "2")
    assert run(*options, cwd=tmp_path).returncode == 0


def test_weights_in_half_precision_run_in_float32(weights, tmp_path):
    source = picture(tmp_path / "a.png")
    generator = UNetGenerator.from_pretrained(weights).half()
    generator.save_pretrained(tmp_path / "half")
    assert run("--weights", "half", "a.png", "--out", "b.png", cwd=tmp_path).returncode == 0
    assert np.array_equal(pixels(tmp_path / "b.png"), np.asarray(translate(generator.float(), source)))


def test_a_subfolder_and_a_digest(tmp_path):
    picture(tmp_path / "a.png")
    network(3, 3).save_pretrained(tmp_path / "run" / "to_source")
    options = ("--weights", "run", "a.png", "--out", "b.png")
    assert run(*options, "--subfolder", "to_source", cwd=tmp_path).returncode == 0
    assert failed(run(*options, cwd=tmp_path)).startswith("error: run is not a saved model: config.json cannot be read")
    assert failed(run(*options, "--sha256", "0" * 64, cwd=tmp_path)).startswith("error: load_pretrained: sha256 is for")
    assert failed(run(*options, "--revision", "x", cwd=tmp_path)).startswith("error: run is a folder: revision='x'")


@pytest.mark.parametrize("out", ["photo.png", "deep/photo.JPG", "photo.gif"])
def test_a_picture_to_a_file(weights, tmp_path, out):
    source = picture(tmp_path / "labels.jpg")
    for _ in range(2):  # the second time over the first
        done = run("--weights", weights, "labels.jpg", "--out", out, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, f"output     {out}\n"), done.stderr
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"labels.jpg", out}
    with Image.open(tmp_path / out) as image:
        assert (image.format, image.size) == ({"png": "PNG", "JPG": "JPEG", "gif": "GIF"}[out[-3:]], (30, 22))
    if out.endswith("png"):
        assert np.array_equal(pixels(tmp_path / out), np.asarray(translate(network(3, 3), source)))


@pytest.mark.parametrize(("given", "made", "dtype"), [(5, 2, np.uint16), (3, 3, np.float32), (1, 1, np.uint8)])
def test_arrays(tmp_path, given, made, dtype):
    (generator := network(given, made)).save_pretrained(tmp_path / "weights")
    values = (np.random.default_rng(0).random((16, 20, given)) * (1 if dtype == np.float32 else 255)).astype(dtype)
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", values)
    np.savez(tmp_path / "in" / "a.npz", values)
    expected = translate(generator, values)
    for source, out in {"in/a.npy": "made.npy", "in/a.npz": "deep/made.npy"}.items():
        done = run("--weights", "weights", source, "--out", out, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, f"output     {out}\n"), done.stderr
        assert np.array_equal(np.load(tmp_path / out), expected)
    done = run("--weights", "weights", "in", "--out", "made", "--compare", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["a.npy", "a.npz.npy", "index.html"]
    assert np.array_equal(np.load(tmp_path / "made" / "a.npz.npy"), expected)
    links = Page(tmp_path / "made" / "index.html").links
    assert [link for link in links if not link.startswith("data:image/jpeg;base64,")] == ["a.npy", "a.npz.npy"]


@pytest.mark.parametrize(("source", "out"), [("a.npy", "b.png"), ("a.png", "b.npy")])
def test_an_array_to_an_image_file_or_back(weights, tmp_path, source, out):
    np.save(tmp_path / "a.npy", np.zeros((16, 16, 3), np.uint8))
    picture(tmp_path / "a.png")
    line = failed(run("--weights", weights, source, "--out", out, cwd=tmp_path))
    assert line == f"error: {out} does not fit {source}: an array becomes a .npy file, an image an image file."


def test_a_folder_with_an_array_of_other_channels(weights, tmp_path):
    picture(tmp_path / "in" / "a.png")
    np.save(tmp_path / "in" / "b.npy", np.zeros((16, 16, 5), np.uint8))
    done = run("--weights", weights, "in", "--out", "made", cwd=tmp_path)
    assert done.returncode == 1
    assert "1 of 2 translated, 1 skipped" in done.stdout
    assert "skipped: in/b.npy: translate: expects an array (h, w, 3)" in done.stderr


def test_a_file_of_a_format_without_these_channels(tmp_path):
    network(3, 4).save_pretrained(tmp_path / "weights")
    picture(tmp_path / "a.png")
    line = failed(run("--weights", "weights", "a.png", "--out", "b.jpg", cwd=tmp_path))
    assert line == "error: b.jpg cannot be written: cannot write mode RGBA as JPEG. Give another name with --out."


def test_a_folder_of_kinds_and_like_names(weights, tmp_path):
    names = ["a.png", "a.jpg", "a.png.tif", "B.bmp", "a b & <c>?#%.png", "ä.webp"]
    for seed, name in enumerate(names):
        picture(tmp_path / "in" / name, seed, (20 + seed, 16))
    picture(tmp_path / "in" / "grey.png", mode="L")
    (tmp_path / "in" / "notes.txt").write_text("not a picture")
    out = tmp_path / "deep" / "made"
    done = run("--weights", weights, tmp_path / "in", "--out", out, "--compare", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("7 of 7 translated, 0 skipped\n")
    made = {path.name for path in out.glob("*.png")}
    assert made == {
        "a.png", "a.png.png", "a.png.tif.png", "B.png", "a b & <c>?#%.png", "ä.png", "grey.png"
    }  # fmt: skip
    assert {pixels(path).shape[1] for path in out.glob("a.*png")} == {20, 21, 22}
    page = Page(out / "index.html")
    assert "7 images translated" in page.text
    assert "a b & <c>?#%.png" in page.text
    assert "c" not in page.tags
    assert "script" not in page.tags
    files = [link for link in page.links if not link.startswith("data:image/jpeg;base64,")]
    assert {unquote(link) for link in files} == made
    assert len(page.links) == 3 * 7  # each source, each output, and the link on it
    assert not re.search(r"https?:|//", "".join(files))


def test_options_reach_the_network(weights, tmp_path):
    source = picture(tmp_path / "a.png", size=(70, 50))
    options = ["--mode", "eval", "--tile", "32", "--precision", "bf16"]
    done = run("--weights", weights, source, "--out", tmp_path / "made", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    torch.manual_seed(0)
    expected = translate(network(3, 3), source, mode="eval", tile=32, precision="bf16")
    assert np.array_equal(pixels(tmp_path / "made" / "a.png"), np.asarray(expected))


def test_two_runs_in_paper_mode_give_the_same_image_unless_the_seed_differs(weights, tmp_path):
    source = picture(tmp_path / "a.png")
    options = ["--weights", weights, source, "--mode", "paper"]
    for name, seed in (("one", ()), ("two", ("--seed", "0")), ("other", ("--seed", "1"))):
        assert run(*options, "--out", tmp_path / name, *seed, cwd=tmp_path).returncode == 0
    one, two, other = (pixels(tmp_path / name / "a.png") for name in ("one", "two", "other"))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("whole", [True, False])
def test_maps_of_ids_with_their_instances(tmp_path, whole):
    generator = network(4, 3)
    generator.instances, generator.num_labels = True, 3
    generator.save_pretrained(tmp_path / "weights")
    rng = np.random.default_rng(0)
    for folder, values in (("ids", rng.integers(0, 3, (20, 24))), ("objects", rng.integers(0, 60000, (20, 24)))):
        (tmp_path / folder).mkdir()
        dtype = np.uint8 if folder == "ids" else np.uint16
        Image.fromarray(values.astype(dtype)).save(tmp_path / folder / "a.png")
    given = ["ids", "objects"] if whole else ["ids/a.png", "objects/a.png"]
    done = run("--weights", "weights", given[0], "--instances", given[1], "--out", "made", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = translate(generator, tmp_path / "ids" / "a.png", instances=tmp_path / "objects" / "a.png")
    assert np.array_equal(pixels(tmp_path / "made" / "a.png"), np.asarray(expected))
    line = failed(run("--weights", "weights", "ids/a.png", "--out", "b.png", cwd=tmp_path))
    assert line.startswith("error: translate: the generator takes the edges of instances too.")


def test_16_bit_and_float_pictures_become_png(tmp_path):
    network(1, 1).save_pretrained(tmp_path / "weights")
    values = np.random.default_rng(0).random((20, 24), dtype=np.float32)
    (tmp_path / "in").mkdir()
    Image.fromarray((values * 65535).astype(np.uint16)).save(tmp_path / "in" / "deep.png")
    Image.fromarray(values).save(tmp_path / "in" / "float.tif")
    done = run("--weights", "weights", "in", "--out", "made", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    deep, floats = (pixels(tmp_path / "made" / f"{name}.png") for name in ("deep", "float"))
    assert (deep.dtype, floats.dtype) == (np.uint16, np.uint8)
    assert deep.std() > 0
    assert np.abs(deep / 257.0 - floats).max() < 2


def test_what_cannot_be_read_is_named_and_skipped(weights, tmp_path):
    for name in ("a.png", "c.png"):
        picture(tmp_path / "in" / name)
    broken = tmp_path / "in" / "b.png"
    broken.write_bytes((tmp_path / "in" / "a.png").read_bytes()[:100])
    beyond = tmp_path / "in" / "d.tif"
    Image.fromarray(np.full((8, 8), 7.0, np.float32)).save(beyond)
    done = run("--weights", weights, "in", "--out", "made", cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    skipped = [line for line in done.stderr.splitlines() if line.startswith("skipped: ")]
    assert len(skipped) == 2
    assert skipped[0].startswith("skipped: in/b.png cannot be read as a picture (")
    assert skipped[1] == "skipped: in/d.tif: translate: float values must lie in [0, 1], got 7 to 7. Scale them first."
    assert done.stdout.startswith("2 of 4 translated, 2 skipped\n")
    assert {path.name for path in (tmp_path / "made").iterdir()} == {"a.png", "c.png"}


def test_errors_are_one_line(weights, tmp_path):
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    PatchDiscriminator(3, base_channels=2).save_pretrained(tmp_path / "discriminator")

    def error(weights, given, out, *options):
        return failed(run("--weights", weights, given, "--out", out, *options, cwd=tmp_path))

    no_image = "is not an image file, nor a folder of images."
    assert error(weights, "none", "made") == f"error: none {no_image}"
    assert error(weights, "in/b.png", "made") == f"error: in/b.png {no_image} Did you mean in/a.png?"
    assert error(weights, "empty", "made") == f"error: empty {no_image}"
    assert error("nowhere", "in", "made").startswith("error: nowhere is neither a folder nor the name of a repo")
    assert error("discriminator", "in", "made") == (
        "error: discriminator is not a generator whose outputs can be saved as PNG."
    )
    assert error(weights, "in", "file") == (
        "error: file is a file. Give a folder with --out, or a new image file for one image."
    )
    assert error(weights, "in", "made.png") == (
        "error: made.png is the name of an image file, and in is a folder. Give --out a folder."
    )
    assert error(weights, "in/a.png", "made.png", "--compare") == (
        "error: --compare writes a page to a folder, and --out is the file made.png. Give a folder."
    )
    assert error(weights, "in", "made", "--batch-size", "0") == (
        "error: imtrans translate: --batch-size must be a whole number >= 1, got 0."
    )
    assert error(weights, "in/a.png", "in/a.png") == (
        "error: in/a.png is the input, which would be overwritten. Give another file with --out."
    )
    assert error(weights, "in/a.png", "file/b.png").startswith("error: file is a file. Give a folder with --out")
    assert error(weights, "in/a.png", "in") == (
        "error: in cannot be used: it is the folder of the inputs, which would be overwritten. Give another folder "
        "with --out."
    )
    assert error(weights, "in", "made", "--device", "abacus").startswith("error: device='abacus' cannot be used here")
    assert not (tmp_path / "made").exists()


def test_a_tile_that_is_too_small_is_an_error(weights, tmp_path):
    picture(tmp_path / "a.png")
    done = run("--weights", weights, "a.png", "--out", "made", "--tile", "8", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: translate: tile=8 leaves no overlap: tiles of this network begin at multiples of 8. "
        "Use tile=16 or more."
    )
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("noisy")
    UNetGenerator(base_channels=4, depth=3, noise_channels=5).save_pretrained(folder)
    return folder


def test_samples_of_a_folder_are_numbered_and_on_the_page(noisy, tmp_path):
    for name in ("a.png", "a-1.png", "b.jpg"):
        picture(tmp_path / "in" / name)
    np.save(tmp_path / "in" / "c.npy", np.zeros((16, 16, 3), np.uint8))
    done = run("--weights", noisy, "in", "--out", "made", "--samples", "2", "--seed", "3", "--compare", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("4 of 4 translated, 0 skipped\n")
    files = ["a-1-1.png", "a-1-2.png", "a-1.png", "a-2.png", "b-1.png", "b-2.png", "c-1.npy", "c-2.npy"]
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == [*files, "index.html"]
    links = [link for link in Page(tmp_path / "made" / "index.html").links if not link.startswith("data:")]
    assert sorted({unquote(link) for link in links}) == files
    expected = translate(UNetGenerator.from_pretrained(noisy), tmp_path / "in" / "a.png", samples=2, seed=3)
    for number, output in enumerate(expected, 1):
        assert np.array_equal(pixels(tmp_path / "made" / f"a-{number}.png"), np.asarray(output))
    assert not np.array_equal(*(pixels(tmp_path / "made" / f"a-{number}.png") for number in (1, 2)))


def test_samples_to_a_file_are_numbered(noisy, tmp_path):
    picture(tmp_path / "labels.png")
    options = ("--weights", noisy, "labels.png")
    done = run(*options, "--out", "photo.png", "--samples", "2", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "output     photo-1.png\noutput     photo-2.png\n"), done.stderr
    assert not np.array_equal(pixels(tmp_path / "photo-1.png"), pixels(tmp_path / "photo-2.png"))
    one = run(*options, "--out", "one.png", cwd=tmp_path)
    assert one.returncode == 0
    assert np.array_equal(pixels(tmp_path / "one.png"), pixels(tmp_path / "photo-1.png"))


def test_a_numbered_output_does_not_overwrite_the_input(noisy, tmp_path):
    before = picture(tmp_path / "a-2.png").read_bytes()
    line = failed(run("--weights", noisy, "a-2.png", "--out", "a.png", "--samples", "3", cwd=tmp_path))
    assert line == "error: a-2.png is the input, which would be overwritten. Give another file with --out."
    assert (tmp_path / "a-2.png").read_bytes() == before


def test_samples_of_a_generator_without_noise(weights, tmp_path):
    picture(tmp_path / "labels.png")
    done = run("--weights", weights, "labels.png", "--out", "photo.png", "--samples", "2", cwd=tmp_path)
    assert failed(done).startswith("error: translate: samples=2 would give equal outputs: UNetGenerator takes no noise")


def test_uncertainty_of_a_folder_is_a_mean_and_a_map(weights, tmp_path):
    generator = UNetGenerator(base_channels=4, depth=4)  # with dropout
    generator.save_pretrained(tmp_path / "weights")
    source = picture(tmp_path / "in" / "a.png")
    done = run(
        source.parent, "--weights", tmp_path / "weights", "--out", tmp_path / "out", "--uncertainty", 4, "--compare"
    )
    assert done.returncode == 0, done.stderr
    mean, std = uncertainty(generator, source, samples=4)
    assert np.array_equal(pixels(tmp_path / "out" / "a.png"), np.asarray(mean))
    assert np.array_equal(pixels(tmp_path / "out" / "a-uncertainty.png"), np.asarray(uncertainty_map(std)))
    assert {"a.png", "a-uncertainty.png"} <= set(Page(tmp_path / "out" / "index.html").links)


def test_uncertainty_of_an_array_is_two_arrays(noisy, tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).random((16, 20, 3), dtype=np.float32))
    run(tmp_path / "a.npy", "--weights", noisy, "--out", tmp_path / "b.npy", "--uncertainty", 3)
    assert np.load(tmp_path / "b.npy").shape == (16, 20, 3)
    assert np.load(tmp_path / "b-uncertainty.npy").shape == (16, 20)


@pytest.mark.parametrize("flags", [("--samples", 2), ("--batch-size", 2)])
def test_uncertainty_is_for_one_image_at_a_time(noisy, tmp_path, flags):
    picture(tmp_path / "a.png")
    done = run(tmp_path / "a.png", "--weights", noisy, "--out", tmp_path / "out", "--uncertainty", 3, *flags)
    assert failed(done) == "error: --uncertainty is for one image at a time. Leave out --samples and --batch-size."
