import json
import math
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image

from imtrans.errors import ArgumentError, DataError
from imtrans.training.report.gallery import MAX_POINTS, write_gallery
from imtrans.training.report.image_grid import image_grid_png

HOSTILE = "</script><script>alert('x')</script>\"><img src=x onerror=alert(1)> $body ${header} & \ud800"
VOID = {"meta", "img"}


class Page(HTMLParser):
    """The tags, attributes and text of a page; it fails where a tag is not closed or closes nothing."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open, self.tags, self.text = [], [], ""
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag, **having):
        return [a for t, a in self.tags if t == tag and having.items() <= a.items()]

    def cells(self):
        rows = re.search("<tbody>(.*?)</tbody>", self.source).group(1).split("</tr>")[:-1]
        return [re.findall("<t[hd](.*?)>(.*?)</t[hd]>", row) for row in rows]

    def curve(self, which, nth=0):
        """The points of a drawn curve, and the number of pieces it is in."""
        path = self.all("path", **{"class": which})[nth]["d"]
        points = re.findall(r"[ML]([-\d.]+) ([-\d.]+)", path)
        return [(float(x), float(y)) for x, y in points], path.count("M")


def train(step, **losses):
    fields = {"epoch": step // 100, "lr": 2e-4, "images_per_second": 3.25, "losses": losses}
    return {"kind": "train", "step": step, **fields}


def validation(step, best, **modes):
    return {"kind": "validation", "step": step, "epoch": step // 100, **modes, "best": best}


def log(folder, *lines, end="\n"):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "metrics.jsonl").write_text(text + end, encoding="utf-8")


def sample(folder, name, size=(6, 4)):
    (folder / "samples").mkdir(exist_ok=True)
    Image.new("RGB", size).save(folder / "samples" / name)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "facades"
    folder.mkdir()
    config = {"method": "Pix2Pix", "version": "0.1", "data": "photos/train", "size": 256, "epochs": 7, "seed": 3}
    config |= {"command": "python train.py --epochs 7", "generator": {"depth": 8}}
    (folder / "config.json").write_text(json.dumps(config))
    log(
        folder,
        train(100, D_real=0.6, G_l1=31.0),
        train(500, D_real=0.5, G_l1=21.0),
        validation(400, "paper", eval={"l1": 0.25, "psnr": 12.0}, paper={"l1": 0.2, "psnr": 13.5}),
        validation(500, "eval", eval={"l1": 0.125, "psnr": 11.0}, paper={"l1": 0.3, "psnr": 10.0}),
    )
    for step in range(100, 600, 100):
        sample(folder, f"{step:06d}.png")
    return folder


def test_page_of_a_full_folder(run):
    path = write_gallery(run)
    page = Page(path)
    assert path == run / "index.html"
    assert page.source.startswith("<!doctype html>")
    assert "Pix2Pix · facades" in page.source
    for fact in ("Step500", "Epoch6 of 7", "Images / s3.25", "Learning rate0.0002", "Dataphotos/train"):
        assert fact in page.text
    for fact in ("Size256", "Seed3", "Version0.1", "python train.py --epochs 7", '"depth": 8'):
        assert fact in page.text
    assert page.all("details") == [{}]


def test_a_long_description_of_the_data_takes_a_row_of_its_own(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"data": "12 pairs in folders A and B " * 3, "seed": 1}))
    assert [div.get("class") for div in Page(write_gallery(tmp_path)).all("div")] == [None, "long"]


def test_a_finished_run_is_in_its_last_epoch(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"epochs": 2}))
    log(tmp_path, {**train(3), "epoch": 0}, {**train(6), "epoch": 1})
    assert "Epoch2 of 2" in Page(write_gallery(tmp_path)).text


def test_samples_are_shown_newest_first_with_relative_links(run):
    sample(run, "001000.png", size=(96, 64))
    sample(run, "final.png")
    (run / "samples" / "000001.png").write_bytes(b"\x89PNG torn")
    page = Page(write_gallery(run, newest=3))
    assert [image["src"] for image in page.all("img")] == [f"samples/{n}.png" for n in ("001000", "000500", "000400")]
    assert page.all("img")[0] == {
        "src": "samples/001000.png",
        "width": "96",
        "height": "64",
        "loading": "lazy",
        "alt": "Step 1,000: rows of pictures",
    }
    assert "Step 1,000" in page.text
    assert len(page.all("figure", **{"class": "newest"})) == 1
    assert len(Page(write_gallery(run, newest=99)).all("img")) == 7


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["source", "fake", "target"], "source, output, target"),
        (["source", "to_target", "cycled_source"], "source, to target, cycled source"),
    ],
)
def test_the_columns_of_the_newest_sample_have_their_names(run, names, shown):
    (run / "samples" / "001000.png").write_bytes(image_grid_png(dict.fromkeys(names, torch.zeros(2, 3, 8, 8))))
    page = Page(write_gallery(run))
    head = "".join(f"<span>{name}</span>" for name in shown.split(", "))
    assert f'<p aria-hidden="true">{head}</p><a href="samples/001000.png">' in page.source
    assert page.all("img")[0]["alt"] == f"Step 1,000: rows of {shown}"


def test_names_of_columns_are_escaped(run):
    (run / "samples" / "001000.png").write_bytes(image_grid_png({"<script>": torch.zeros(1, 3, 8, 8)}))
    assert "rows of &lt;script&gt;" in Page(write_gallery(run)).source


def test_each_loss_has_a_chart_with_its_own_scale(run):
    page = Page(write_gallery(run))
    assert [svg["aria-label"] for svg in page.all("svg", role="img")] == [
        "D_real from step 100 to 500: lowest 0.5000, highest 0.6000, smoothed now 0.5500",
        "G_l1 from step 100 to 500: lowest 21.00, highest 31.00, smoothed now 26.00",
    ]
    for label in ("0.6000", "0.5500", "0.5000", "31.00", "26.00", "21.00", "step 100"):
        assert f">{label}</text>" in page.source
    assert page.curve("raw", 0) == page.curve("raw", 1)


def test_validation_table_marks_the_winning_mode_and_the_best_values(run):
    page = Page(write_gallery(run))
    assert page.cells() == [
        [
            (' scope="row"', "500"),
            ("", "5"),
            (' class="won"', "<strong>0.1250</strong>"),
            (' class="won"', "11.00"),
            ("", "0.3000"),
            ("", "10.00"),
            ("", "eval"),
        ],
        [
            (' scope="row"', "400"),
            ("", "4"),
            ("", "0.2500"),
            ("", "<strong>12.00</strong>"),
            (' class="won"', "<strong>0.2000</strong>"),
            (' class="won"', "<strong>13.50</strong>"),
            ("", "paper"),
        ],
    ]
    assert page.all("th", scope="colgroup") == [{"scope": "colgroup", "colspan": "2"}] * 2
    assert re.findall('<th scope="col">(.*?)</th>', page.source) == ["l1 ↓", "psnr ↑"] * 2


def test_validation_takes_any_modes_and_metrics(tmp_path):
    first = validation(1, None, eval={"l1": 0.5, "zest": 4})
    log(tmp_path, first, validation(2, "new", new={"zest": float("nan"), "l1": "?"}))
    page = Page(write_gallery(tmp_path))
    values = [[value for _, value in row] for row in page.cells()]
    assert values == [
        ["2", "0", "–", "–", "–", "–", "new"],
        ["1", "0", "<strong>0.5000</strong>", "4.000", "–", "–", ""],
    ]


@pytest.mark.parametrize("config", [None, "", "[1, 2]", '{"method": ["no", "name"], "seed": true}', '{"torn": '])
def test_empty_folder_says_that_nothing_has_been_logged(tmp_path, config):
    (tmp_path / "samples").mkdir()
    (tmp_path / "metrics.jsonl").touch()
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    page = Page(write_gallery(tmp_path))
    assert "Training run" in page.text
    assert "Nothing has been logged yet. Reload this page in a while." in page.text
    assert not page.all("h2")
    assert len(page.all("details")) == (config not in (None, ""))


def test_folder_with_validation_only_shows_no_other_section(tmp_path):
    log(tmp_path, validation(1, "eval", eval={"l1": 0.5}))
    page = Page(write_gallery(tmp_path))
    assert page.all("h2") == [{"id": "validation"}]
    assert "Nothing has been logged" not in page.text


def test_hostile_text_never_becomes_markup(tmp_path):
    folder = tmp_path / "<script>alert('run') & $title"
    folder.mkdir()
    keys = ("method", "version", "data", "size", "epochs", "seed", "command", HOSTILE)
    (folder / "config.json").write_text(json.dumps(dict.fromkeys(keys, HOSTILE)))
    line = train(1, **{HOSTILE: 1.0})
    line.update(epoch=HOSTILE, lr=HOSTILE, images_per_second=HOSTILE)
    line["losses"]["only " + HOSTILE] = HOSTILE
    modes = {HOSTILE: {HOSTILE: 1.0, "other": HOSTILE}}
    log(folder, line, validation(1, HOSTILE, **modes), {**validation(2, None), "best": [HOSTILE]})
    page = Page(write_gallery(folder))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "img"}
    assert not [attrs for _, attrs in page.tags if "onerror" in attrs]
    assert page.text.count("</script><script>alert('x')</script>") > 12
    assert "$body ${header} &" in page.text


@pytest.mark.parametrize(
    "torn", ['{"kind": "train", "st', '{"kind": "train", "step": 3, "losses": {"a": 9', "\udce2\udc82"]
)
def test_torn_last_line_and_foreign_lines_are_left_out(tmp_path, torn):
    noise = ["", "  ", "null", "3", "[]", "[" * 100_000, '{"step": 9}', "9" * 5000]
    steps = [None, "7", True, 7.5, -1, 10**400]
    odd = [{"kind": "train", "step": step, "losses": {"a": 7}} for step in steps]
    odd += [{"kind": [], "step": 9}, {"kind": "train", "step": 2, "losses": []}]
    log(tmp_path, train(1, a=1.0), *noise, *odd, train(3, a=2.0), end="\n")
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(torn.encode("utf-8", "surrogateescape"))
    page = Page(write_gallery(tmp_path))
    assert [svg["aria-label"] for svg in page.all("svg")] == [
        "a from step 1 to 3: lowest 1.000, highest 2.000, smoothed now 1.500"
    ]


def test_resumed_run_replaces_the_steps_it_repeats(tmp_path):
    log(tmp_path, train(1, a=1.0), train(2, a=2.0), train(3, a=90.0), train(2, a=4.0))
    page = Page(write_gallery(tmp_path))
    assert "a from step 1 to 2: lowest 1.000, highest 4.000" in page.source


def test_values_that_are_not_finite_leave_a_gap_and_a_note(tmp_path):
    values = [1.0, 2.0, math.nan, 3.0, math.inf, -math.inf, None, "x", True, 10**400, 1e308, 2.0]
    log(tmp_path, *[train(step, a=value, b=math.nan) for step, value in enumerate(values)])
    page = Page(write_gallery(tmp_path))
    points, pieces = page.curve("raw")
    assert (len(points), pieces) == (4, 3)
    assert "8 of 12 values are not finite" in page.text
    assert "12 of 12 values are not finite" in page.text
    assert len(page.all("svg")) == 1
    drawn = " ".join(path["d"] for path in page.all("path"))
    assert "nan" not in drawn
    assert "inf" not in drawn


@pytest.mark.parametrize("values", [[0.0], [5.0, 5.0, 5.0], [-1e30, 1e30]])
def test_short_and_flat_curves_are_drawn_inside_the_chart(tmp_path, values):
    log(tmp_path, *[train(step, a=value) for step, value in enumerate(values)])
    page = Page(write_gallery(tmp_path))
    for which in ("raw", "smooth"):
        points, pieces = page.curve(which)
        assert pieces == 1
        assert all(52 <= x <= 344 and 12 <= y <= 148 for x, y in points)


@pytest.mark.parametrize("length", [2, 4, 150, MAX_POINTS, MAX_POINTS + 1, 20_000])
def test_thinning_keeps_first_last_lowest_and_highest(tmp_path, length):
    values = [0.5 + 0.1 * math.sin(step) for step in range(length)]
    values[length // 3], values[length // 2] = 0.0, 1.0
    log(tmp_path, *[train(step, a=value) for step, value in enumerate(values)])
    page = Page(write_gallery(tmp_path))
    for which in ("raw", "smooth"):
        points, pieces = page.curve(which)
        assert min(length, MAX_POINTS // 3) <= len(points) <= MAX_POINTS + 1
        assert pieces == 1
        assert points == sorted(points, key=lambda point: point[0])
        assert (points[0][0], points[-1][0]) == (52, 344)
    points, _ = page.curve("raw")
    heights = [y for _, y in points]
    assert points[0][1] == pytest.approx(148 - 136 * values[0], abs=0.06)
    assert points[-1][1] == pytest.approx(148 - 136 * values[-1], abs=0.06)
    assert (min(heights), max(heights)) == (12, 148)
    assert len(page.source) < 30_000


def test_smoothed_curve_is_calmer_and_keeps_the_level(tmp_path):
    log(tmp_path, *[train(step, a=float(step % 2)) for step in range(1000)])
    points, _ = Page(write_gallery(tmp_path)).curve("smooth")
    assert all(abs(y - 80) < 3 for _, y in points)


def test_page_needs_nothing_from_the_network(run):
    page = Page(write_gallery(run))
    assert not re.search("https?:|//|@import|url\\(", page.source)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe"}
    assert not page.all("meta", **{"http-equiv": "refresh"})
    targets = [attrs[name] for _, attrs in page.tags for name in ("src", "href") if name in attrs]
    assert all((run / target).is_file() for target in targets)


def test_page_is_accessible(run):
    page = Page(write_gallery(run))
    assert page.all("html") == [{"lang": "en"}]
    assert all(image["alt"] for image in page.all("img"))
    assert all(svg["aria-label"] for svg in page.all("svg"))
    assert all(header["scope"] for header in page.all("th"))
    names = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert {attrs["aria-labelledby"] for _, attrs in page.tags if "aria-labelledby" in attrs} == names
    assert "prefers-color-scheme: dark" in page.source


def test_page_replaces_the_one_before_and_leaves_nothing_beside_it(run):
    before = sorted(run.iterdir())
    (run / "index.html").write_text("old")
    write_gallery(run)
    first = (run / "index.html").read_bytes()
    assert write_gallery(str(run)).read_bytes() == first
    assert sorted(run.iterdir()) == sorted([*before, run / "index.html"])


def test_page_survives_a_write_that_fails(run, monkeypatch):
    (run / "index.html").write_text("old")
    before = sorted(run.iterdir())

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_gallery(run)
    assert (run / "index.html").read_text() == "old"
    assert sorted(run.iterdir()) == before


def test_folder_that_is_no_folder_is_refused(tmp_path):
    for path in (tmp_path / "absent", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(DataError) as error:
            write_gallery(path)
        assert str(error.value) == (
            f"write_gallery: {os.fspath(path)!r} is not a folder. Give the one a Trainer wrote to."
        )


@pytest.mark.parametrize("newest", [0, -1, 2.0, True, "8", None])
def test_newest_must_be_a_whole_number_of_at_least_one(tmp_path, newest):
    with pytest.raises(ArgumentError) as error:
        write_gallery(tmp_path, newest=newest)
    assert str(error.value) == f"write_gallery: newest must be a whole number >= 1, got {newest!r}."


def test_names_without_end_make_no_page_without_end(tmp_path):
    lines = [{"kind": "train", "step": step, "losses": {f"loss {step}": 1.0}} for step in range(2000)]
    lines += [{"kind": "validation", "step": step, f"mode {step}": {"l1": 1.0}} for step in range(2000)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "config.json").write_text('{"a": ' + "[" * 800 + "1," * 20_000 + "1" + "]" * 800 + "}")
    assert write_gallery(tmp_path).stat().st_size < 2_000_000


def test_what_is_no_file_is_left_out(tmp_path):
    for name in ("config.json", "metrics.jsonl", "samples/000001.png"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "samples" / "000002.png").symlink_to("/dev/zero")
    assert "Nothing has been logged yet" in write_gallery(tmp_path).read_text()
