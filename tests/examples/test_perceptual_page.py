"""The page of the perceptual study in a real browser, and what it saves, scored."""

import importlib
import json
import re
import sys
from pathlib import Path

import pytest
from chromium import wait_until
from PIL import Image

sys.path.append(str(Path(__file__).parents[2] / "examples"))
study_of = importlib.import_module("perceptual_study")

FASTER = "{ const now = performance.now.bind(performance); performance.now = () => 100 * now() }"
WATCHER = """
window.looks = [];
const { add, remove } = DOMTokenList.prototype, figures = () => [...document.querySelectorAll("figure")];
DOMTokenList.prototype.add = function (...names) {
  const place = figures().findIndex(figure => figure.classList === this), since = performance.now();
  add.apply(this, names);
  if (place < 0) return;
  const paper = document.createElement("canvas").getContext("2d");
  paper.drawImage(figures()[place].querySelector("img"), 0, 0);
  const [red, , blue] = paper.getImageData(0, 0, 1, 1).data;
  looks.push({ place, generated: red > blue, since });
};
DOMTokenList.prototype.remove = function (...names) {
  remove.apply(this, names);
  const look = looks.find(({ place, shown }) => !shown && figures()[place].classList === this);
  if (look) look.shown = performance.now() - look.since;
};
"""
"""Notes which picture is seen where, and for how long from just before to just after: generated ones are red."""


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["perceptual_study.py", *map(str, arguments)])
    assert study_of.main() == 0


def study(folder, monkeypatch, *options, count):
    """Write a study of red pictures, which are the generated ones, and blue ones; return its page."""
    for kind in ("generated", "real"):
        (folder / kind).mkdir()
        for i in range(count):
            Image.new("RGB", (8, 8), (255, i, 0) if kind == "generated" else (0, i, 255)).save(
                folder / kind / f"{i}.png"
            )
    run(monkeypatch, folder / "generated", folder / "real", "--out", folder / "study", *options)
    return (folder / "study" / "study.html").as_uri()


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The page of a study of one pair to practise and two that count."""
    return study(tmp_path, monkeypatch, "--practice", 1, "--trials", 2, count=3)


def begin(page, name="anna"):
    page.click("#participant")
    page.keyboard.insert_text(name)
    page.keyboard.press("Enter")


def seen(page):
    """Wait for the question; where the generated picture of this pair was, and the two looks that were had."""
    wait_until(page, "document.querySelector('#trial button') && !document.querySelector('figure button').hidden")
    looks = page.evaluate("looks.splice(0)")[-2:]
    assert [look["place"] for look in looks] == [0, 1]
    assert sorted(look["generated"] for look in looks) == [False, True]
    # They are gone: nothing is visible, and nothing is left to look at.
    assert page.evaluate("[...document.images].every(i => !i.src && getComputedStyle(i).visibility === 'hidden')")
    return [look["generated"] for look in looks].index(True), looks


def text(page, selector):
    return page.evaluate(f"document.querySelector('{selector}').textContent")


def visible(page):
    """The section that is on the screen."""
    (name,) = page.evaluate("[...document.querySelectorAll('section')].filter(s => !s.hidden).map(s => s.id)")
    return name


def answered(page):
    return page.evaluate("session.answers.length")


def answer(page, place, *, mouse=False):
    """Answer as a participant does, with the keyboard or the mouse."""
    before = answered(page)
    if mouse:
        page.click(f"figure:nth-of-type({place + 1}) button")
    else:
        page.keyboard.press(["1", "2"][place])
    wait_until(page, f"session.answers.length === {before + 1}")


def practise(page, number, *, right):
    where, _ = seen(page)
    assert text(page, "#progress").startswith(f"Practice {number + 1} of ")
    answer(page, where if right else 1 - where, mouse=bool(number % 2))
    wait_until(page, "!document.querySelector('#next').hidden")
    expected = (
        f"Right: the {['first', 'second'][where]} one." if right else f"Wrong: it was the {['first', 'second'][where]}."
    )
    assert text(page, "#prompt") == expected
    assert page.evaluate("[...document.querySelectorAll('figcaption')].map(c => c.textContent)")[where] == "generated"
    assert page.evaluate("[...document.images].every(i => getComputedStyle(i).visibility === 'visible')")
    page.keyboard.press("Enter")  # on the button, which has the focus


def proceed(page):
    wait_until(page, "!document.querySelector('#pause').hidden")
    page.keyboard.press("Enter")
    wait_until(page, "document.querySelector('#pause').hidden")


def finish(page, folder):
    wait_until(page, "!document.querySelector('#done').hidden")
    with page.expect_download() as download:
        page.click("#save")
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_fifty_trials_are_answered_saved_and_scored(open_page, tmp_path, monkeypatch, capsys):
    """From the first word to the score; the page is loaded anew twice."""
    page = open_page(study(tmp_path, monkeypatch, count=52), before=FASTER + WATCHER)
    assert visible(page) == "welcome"
    begin(page, "Zoë 🏠")
    for number in range(10):
        practise(page, number, right=number % 3 > 0)
        if number == 4:
            wait_until(page, "document.querySelector('#next').hidden")
            page.reload()
            assert text(page, "#pause h1") == "Welcome back, Zoë 🏠"
            assert text(page, "#pause p") == "You have answered 5 of 50 pairs."
            proceed(page)
    wait_until(page, "!document.querySelector('#pause').hidden")
    assert text(page, "#pause h1") == "Now it counts"
    proceed(page)
    fooled = {0, 1, 5, 7, 12, 13, 20, 21, 28, 30, 33, 37, 39}
    for number in range(40):
        where, _ = seen(page)
        assert text(page, "#progress") == f"Pair {number + 1} of 40"
        if number == 22:  # in the midst of a trial, which then begins again
            page.reload()
            assert text(page, "#pause p") == "You have answered 32 of 50 pairs."
            proceed(page)
            assert seen(page)[0] == where
        answer(page, where ^ (number in fooled), mouse=number % 4 == 0)
        assert not re.search("Right|Wrong", text(page, "#prompt"))
    path = finish(page, tmp_path)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert path.name == f"answers-{content['session']}.json"
    assert len(content["answers"]) == 50
    assert len({given["pair"] for given in content["answers"]}) == 50
    assert open_page.problems == []

    capsys.readouterr()
    run(monkeypatch, "--score", path, "--out", tmp_path / "study", "--json")
    scores = json.loads(capsys.readouterr().out)
    assert (scores["taken_for_real"], scores["trials"], scores["percent"]) == (13, 40, 32.5)
    (row,) = scores["participants"]
    assert (row["participant"], row["resumed"]) == ("Zoë 🏠", 2)


def test_each_picture_is_shown_for_a_second(open_page, small, tmp_path):
    """By the page's own record, and by that of somebody who watches the page."""
    page = open_page(small, before=WATCHER)
    begin(page)
    watched = []
    for number in range(3):
        _, looks = seen(page)
        watched.append([look["shown"] for look in looks])
        answer(page, 0)
        if number == 0:
            wait_until(page, "!document.querySelector('#next').hidden")
            page.keyboard.press("Enter")
            proceed(page)
    recorded = [given["shown"] for given in json.loads(finish(page, tmp_path).read_text())["answers"]]
    assert min(map(min, recorded)) >= 1000
    for theirs, ours in zip(recorded, watched, strict=True):
        assert all(mine > told - 1 for mine, told in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    "window", [{"phone": True}, {"viewport": {"width": 900, "height": 700}}], ids=["phone", "desk"]
)
def test_the_pictures_are_as_large_as_in_the_paper_and_fit_a_phone(open_page, small, window):
    page = open_page(small, before=FASTER, **window)
    width, height = page.viewport_size["width"], page.viewport_size["height"]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    begin(page)
    wait_until(page, "!document.querySelector('#trial').hidden")
    top = "document.querySelector('figure').getBoundingClientRect().top"
    watching = page.evaluate(top)
    wait_until(page, "!document.querySelector('figure button').hidden")
    assert page.evaluate(top) == watching  # nothing moves when the words change
    assert page.evaluate("document.documentElement.scrollWidth") == width
    boxes = page.evaluate(
        "[...document.querySelectorAll('figure img, figure button')].map(e => e.getBoundingClientRect())"
        ".map(b => [b.left, b.top, b.width, b.height])"
    )
    assert all(box[2:] == [256, 256] for box in boxes)
    assert all(box[0] >= 0 and box[1] >= 0 for box in boxes)
    assert all(box[0] + 256 <= width and box[1] + 256 <= height for box in boxes)


def test_what_is_said_and_focused(open_page, small):
    page = open_page(small, before=FASTER)
    assert page.evaluate("document.querySelector('#participant').labels[0].textContent.trim()") == (
        "Your name, or the code that you were given"
    )
    page.keyboard.press("Enter")
    begin(page, "  ")  # no name
    assert visible(page) == "welcome"
    begin(page)
    wait_until(page, "!document.querySelector('#trial').hidden")
    assert page.evaluate("document.activeElement.id") == "trial"
    assert page.evaluate("document.querySelector('#prompt').getAttribute('role')") == "status"
    wait_until(page, "!document.querySelector('figure button').hidden")
    assert text(page, "#prompt") == "Which was generated?"
    page.keyboard.press("x")
    assert not page.evaluate("document.querySelector('figure button').hidden")
    page.keyboard.press("ArrowRight")
    wait_until(page, "!document.querySelector('#next').hidden")
    assert page.evaluate("document.activeElement.id") == "next"
    assert page.evaluate("JSON.parse(Object.values(localStorage)[0]).answers[0].answer") == 1
    page.keyboard.press("2")  # no second answer to the same question
    assert answered(page) == 1
    assert page.evaluate("[...document.images].every(i => i.alt)")


def test_another_person_begins_once_the_answers_are_saved(open_page, small, tmp_path):
    page = open_page(small, before=FASTER + WATCHER)
    begin(page)
    practise(page, 0, right=True)
    proceed(page)
    for _ in range(2):
        answer(page, seen(page)[0])
    wait_until(page, "!document.querySelector('#done').hidden")
    page.reload()  # the end is still there
    assert visible(page) == "done"
    assert page.evaluate("document.querySelector('#another').hidden")
    path = finish(page, tmp_path)
    assert page.evaluate("document.querySelector('#text').value") == path.read_text(encoding="utf-8")
    with page.expect_navigation():
        page.click("#another")
    assert visible(page) == "welcome"
    assert page.evaluate("localStorage.length") == 0


def test_leaving_asks_first_where_nothing_can_be_kept(open_page, small):
    leaving = "!dispatchEvent(new Event('beforeunload', { cancelable: true }))"
    page = open_page(small, before=FASTER)
    begin(page)
    assert page.evaluate(leaving) is False
    forbidden = "Storage.prototype.setItem = Storage.prototype.getItem = () => { throw new Error('forbidden') };"
    page = open_page(small, before=forbidden)
    assert visible(page) == "welcome"
    assert page.evaluate(leaving) is False
    begin(page)
    assert page.evaluate(leaving) is True


def test_what_is_kept_but_damaged_begins_anew(open_page, small):
    page = open_page(small, before=FASTER)
    begin(page)
    wait_until(page, "localStorage.length === 1")
    for damaged in ("{", "null", '{"study": "other", "answers": []}'):
        page.evaluate(f"localStorage.setItem(Object.keys(localStorage)[0], {json.dumps(damaged)})")
        page.reload()
        assert visible(page) == "welcome"


def test_a_picture_that_cannot_be_shown_is_said(open_page, small, tmp_path):
    broken = tmp_path / "broken.html"
    source = (tmp_path / "study" / "study.html").read_text(encoding="utf-8")
    broken.write_text(re.sub(r'"UklGR[^"]*"', '"AAAA"', source), encoding="utf-8")
    page = open_page(broken.as_uri(), before=FASTER)
    begin(page)
    wait_until(page, "document.querySelector('#prompt.bad')")
    assert text(page, "#prompt").startswith("This browser cannot show the pictures (")
    assert text(page, "#prompt").endswith("). Please open the page in a newer one.")
