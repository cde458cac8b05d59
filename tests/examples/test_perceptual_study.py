import base64
import importlib
import io
import itertools
import json
import re
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imtrans.data.images import read_image
from imtrans.errors import DataError

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "examples"))
answers_of, study_of = importlib.import_module("perceptual_answers"), importlib.import_module("perceptual_study")
STUDY = answers_of.Study("c0ffee", 2, 5, [0, 1, 1, 0, 0, 1, 1, 0, 1])


def flat(folder, count):
    """Folders of like-named pictures: generated ones are red, real ones blue, and no two are the same."""
    for kind, suffix in (("generated", "png"), ("real", "bmp")):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            colour = (255, i, 0) if kind == "generated" else (0, i, 255)
            Image.new("RGB", (3, 2), colour).save(folder / kind / f"house{i:03d}.{suffix}")
    return folder / "generated", folder / "real"


@pytest.fixture
def call(monkeypatch, capsys):
    """The example, called with arguments in this process: what it returned and printed."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["perceptual_study.py", *map(str, arguments)])
        code = study_of.main()
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def embedded(folder):
    """What a page holds: its data, with the pictures decoded."""
    (data,) = re.findall(
        '<script type="application/json" id="study">(.*?)</script>', (folder / "study.html").read_text()
    )
    data = json.loads(data)
    data["images"] = [[Image.open(io.BytesIO(base64.b64decode(p))) for p in pair] for pair in data["pairs"]]
    return data


def is_red(image):
    red, _, blue = image.convert("RGB").getpixel((0, 0))
    return red > blue


def answers(study=STUDY, *, fooled=(), seed=7, session="a1", participant="anna", started=5, resumed=0, **changes):
    """Answers as the page saves them, of somebody whom the trials numbered `fooled` have deceived."""
    given = []
    for number, (pair, swapped) in enumerate(study.order(seed)):
        wrong = number - study.practice in fooled
        given.append(
            {
                "pair": pair,
                "swapped": swapped,
                "answer": study.generated[pair] ^ swapped ^ wrong,
                "shown": [1000 + number, 1016],
                "response": 640,
            }
        )
    return {
        "format": "imtrans perceptual study",
        "study": study.id,
        "participant": participant,
        "seed": seed,
        "session": session,
        "started": started,
        "resumed": resumed,
        "answers": given,
    } | changes


def save(path, content, *, signed=True):
    """Write answers to a file, with the checksum that the page would have added."""
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    if signed:
        content = content | {"checksum": zlib.crc32(text.encode())}
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path):
    """The folder of `STUDY`."""
    pairs = [{"name": str(i), "generated": g} for i, g in enumerate(STUDY.generated)]
    key = {"study": STUDY.id, "practice": STUDY.practice, "trials": STUDY.trials, "seed": 0, "pairs": pairs}
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "key.json").write_text(json.dumps(key))
    return tmp_path / "study"


def test_a_study_is_a_page_and_a_key(call, tmp_path):
    generated, real = flat(tmp_path, 52)
    code, out, err = call(generated, real, "--out", tmp_path / "deep" / "study")
    folder = tmp_path / "deep" / "study"
    page, key = folder / "study.html", json.loads((folder / "key.json").read_text())
    assert (code, err) == (0, "")
    assert out == (
        "52 of 52 pairs; 10 practice and 40 scored trials for each participant\n"
        f"page       {page.as_uri()} ({page.stat().st_size / 2**20:.1f} MiB), for participants\n"
        f"key        {folder / 'key.json'}, needed to score the answers; do not share it\n"
    )
    data = embedded(folder)
    assert (data["trials"], len(data["practice"]), key["practice"], key["trials"]) == (40, 10, 10, 40)
    assert data["id"] == key["study"]
    assert [pair["generated"] for pair in key["pairs"]][:10] == data["practice"]
    assert sorted(pair["name"] for pair in key["pairs"]) == [f"house{i:03d}" for i in range(52)]
    for pair, images in zip(key["pairs"], data["images"], strict=True):
        assert [is_red(image) for image in images].index(True) == pair["generated"]
        assert {image.getpixel((9, 9))[1] for image in images} == {int(pair["name"][5:])}  # two of one name
    assert answers_of.read_study(folder).generated == [pair["generated"] for pair in key["pairs"]]


def test_a_page_needs_nothing_else_and_gives_nothing_away(call, tmp_path):
    generated, real = flat(tmp_path, 9)
    call(generated, real, "--out", tmp_path / "study", "--practice", 2, "--trials", 7)
    page = (tmp_path / "study" / "study.html").read_text()
    assert "{{" not in page
    assert not re.search(r"https?:|@import|url\(|<link|<iframe", page)
    assert "default-src 'none'" in page
    assert re.findall(r' (?:src|href)="[^"]*', page) == []
    # Which picture is the generated one stands there for the practice pairs only.
    assert set(embedded(tmp_path / "study")) - {"images"} == {"id", "practice", "trials", "pairs"}
    assert len(embedded(tmp_path / "study")["practice"]) == 2
    assert not re.search("house|png|bmp", page)


def test_every_picture_is_shown_in_the_same_way(call, tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (90, 70, 3), dtype=np.uint8)
    flat(tmp_path, 2)
    generated, real = tmp_path / "generated", tmp_path / "real"
    Image.fromarray(noise).save(generated / "noise.png")
    Image.fromarray(noise).resize((256, 256)).save(real / "noise.jpg", quality=60)
    for path in (
        generated / "house000.png",
        real / "house001.bmp",
    ):  # more in a file than pixels
        with Image.open(path) as image:
            image.load()
        exif = Image.Exif()
        exif[270] = "made by a generator"
        image.save(path.with_suffix(".png"), icc_profile=b"profile" * 9, exif=exif)
    (real / "house001.bmp").unlink()
    plain = [study_of.encode(path) for path in flat(tmp_path / "plain", 2)[0].iterdir()]
    assert study_of.encode(generated / "house000.png") in plain
    call(generated, real, "--out", tmp_path / "study", "--practice", 1, "--trials", 2)
    key, data = json.loads((tmp_path / "study" / "key.json").read_text()), embedded(tmp_path / "study")
    files = {path.stem: [path] for path in generated.iterdir()}
    for path in real.iterdir():
        files[path.stem].append(path)
    for pair, images in zip(key["pairs"], data["images"], strict=True):
        for which, image in enumerate(images):
            assert (image.format, image.size, image.mode) == ("WEBP", (256, 256), "RGB")
            assert not {"exif", "icc_profile"} & set(image.info)
            source = read_image(files[pair["name"]][which ^ pair["generated"]])
            assert np.array_equal(np.asarray(image), np.asarray(source.resize((256, 256), Image.Resampling.BICUBIC)))


def test_a_seed_decides_which_pairs_are_shown(call, tmp_path):
    generated, real = flat(tmp_path, 103)
    keys = {}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        code, out, _ = call(generated, real, "--out", tmp_path / name, "--seed", seed)
        assert code == 0
        assert out.startswith("100 of 103 pairs; ")
        keys[name] = (tmp_path / name / "key.json").read_text()
    assert keys["a"] == keys["b"] != keys["c"]
    assert (tmp_path / "a" / "study.html").read_bytes() == (tmp_path / "b" / "study.html").read_bytes()
    flips = [pair["generated"] for pair in json.loads(keys["a"])["pairs"]]
    assert 30 < sum(flips) < 70


def test_what_cannot_be_a_study_is_refused(call, tmp_path):
    generated, real = flat(tmp_path, 5)
    out = tmp_path / "study"

    def error(*arguments, out=out):
        code, printed, err = call(*arguments, "--out", out)
        assert (code, printed) == (1, "")
        return err.removeprefix("error: ").removesuffix("\n")

    assert error(generated, real) == (
        f"{generated} and {real} hold 5 pairs; 10 practice and 40 scored trials need 50, because no participant sees a "
        "pair twice. Add images, or reduce --practice and --trials."
    )
    few = ("--practice", 1, "--trials", 4)
    assert error(generated, real, "--practice", 0) == (
        "perceptual_study: --practice must be a whole number >= 1, got 0."
    )
    assert error(generated, real, "--trials", -3) == "perceptual_study: --trials must be a whole number >= 1, got -3."
    assert error(generated, real, *few, "--seed", -1) == "perceptual_study: --seed must be a whole number >= 0, got -1."
    assert error(generated, tmp_path / "none", *few).startswith(f"{tmp_path / 'none'} cannot be read as a folder")
    (real / "house004.bmp").rename(real / "house005.bmp")
    assert error(generated, real, *few).startswith(f"2 of the files in {generated} and {real} have no partner")
    (real / "house005.bmp").rename(real / "house004.bmp")
    assert not out.exists()
    (tmp_path / "file").write_text("")
    assert error(generated, real, *few, out=tmp_path / "file") == (
        f"{tmp_path / 'file'} cannot be used: File exists. Give another folder with --out."
    )
    assert call(generated, real, *few, "--out", out)[0] == 0
    assert call(generated, real, *few, "--out", out)[0] == 0  # the same study once more
    assert error(generated, real, *few, "--seed", 1) == (
        f"{out} cannot be used: it holds another study, and overwriting the key would make its answers useless. Give "
        "another folder with --out."
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "give GENERATED and REAL to write a study, or --score ANSWERS to score one"),
        (["a"], "give GENERATED and REAL to write a study, or --score ANSWERS to score one"),
        (["a", "b", "--json"], "give GENERATED and REAL to write a study, or --score ANSWERS to score one"),
        (["a", "--score", "b"], "--score takes no GENERATED, REAL, --practice or --trials: they are stored with"),
        (["--score", "b", "--trials", "3"], "--score takes no GENERATED, REAL, --practice or --trials"),
    ],
)
def test_writing_and_scoring_are_two_things(monkeypatch, capsys, arguments, text):
    monkeypatch.setattr(sys, "argv", ["perceptual_study.py", *arguments, "--out", "study"])
    with pytest.raises(SystemExit):
        study_of.main()
    assert text in capsys.readouterr().err


@given(seed=st.integers(1, 2**32 - 1))
def test_an_order_has_each_pair_once_and_practice_first(seed):
    order = STUDY.order(seed)
    pairs = [pair for pair, _ in order]
    assert len(set(pairs)) == len(pairs) == 7
    assert set(pairs[:2]) == {0, 1}
    assert set(pairs[2:]) <= set(range(2, 9))
    assert STUDY.order(seed) == order


def test_orders_differ_and_are_balanced():
    study = answers_of.Study("x", 10, 40, [0] * 60)
    seeds = np.random.default_rng(0).integers(1, 2**32, 2000)
    orders = [study.order(int(seed)) for seed in seeds]
    assert len({tuple(order) for order in orders}) == len(orders)
    swapped = np.array([[swap for _, swap in order] for order in orders])
    assert abs(swapped.mean(0) - 0.5).max() < 0.05  # 4.5 standard deviations
    seen = np.bincount([pair for order in orders for pair, _ in order[10:]], minlength=60)[10:]
    assert abs(seen / len(orders) - 0.8).max() < 0.04


def test_scores_are_printed_as_a_table(call, folder, tmp_path):
    a = save(tmp_path / "a.json", answers(fooled=[0, 3], resumed=1))
    b = save(tmp_path / "b.json", answers(fooled=[], seed=8, session="b1", participant="Bob Möller"))
    code, out, err = call("--score", a, b, "--out", folder)
    low, high = answers_of.interval([2, 0], 5)
    assert (code, err) == (0, "")
    assert out == (
        "participant  taken for real  trials     %  longest shown  resumed\n"
        "Bob Möller                0       5   0.0         1.02 s        0\n"
        "anna                      2       5  40.0         1.02 s        1\n"
        "all 2                     2      10  20.0\n"
        f"generated images taken for real: 20.0 %, 95 % interval {100 * low:.1f} to {100 * high:.1f} "
        "(bootstrap over participants and their trials, seed 0)\n"
    )


def test_scores_are_printed_as_json(call, folder, tmp_path):
    path = save(tmp_path / "a.json", answers(fooled=[1, 2, 4]))
    code, out, err = call("--score", path, "--out", folder, "--json", "--seed", 3)
    low, high = answers_of.interval([3], 5, seed=3)
    assert (code, err) == (0, "")
    row = {"participant": "anna", "file": str(path), "taken_for_real": 3, "trials": 5, "percent": 60.0}
    assert json.loads(out) == {
        "study": "c0ffee",
        "participants": [row | {"longest_shown_ms": 1016, "resumed": 0}],
        "left_out": [],
        "taken_for_real": 3,
        "trials": 5,
        "percent": 60.0,
        "interval_95": [100 * low, 100 * high],
        "seed": 3,
    }


def test_only_the_first_session_of_a_participant_counts(call, folder, tmp_path):
    first = save(tmp_path / "z.json", answers(fooled=[1], started=100))
    second = save(tmp_path / "a.json", answers(fooled=[1, 2, 3], started=200, session="a2", participant=" ANNA "))
    for order in ([first, second], [second, first]):
        code, out, err = call("--score", *order, "--out", folder, "--json")
        scores = json.loads(out)
        assert (code, err) == (0, f"not scored: {second}, a later session of ANNA\n")
        assert (scores["percent"], scores["trials"], scores["left_out"]) == (20.0, 5, [str(second)])


def test_a_session_that_is_there_twice_is_an_error(call, folder, tmp_path):
    paths = [save(tmp_path / name, answers()) for name in ("b.json", "a.json")]
    code, out, err = call("--score", *paths, "--out", folder)
    assert (code, out) == (1, "")
    assert err == f"error: {paths[1]} and {paths[0]} hold the same session. Leave one out.\n"


def read(path, content, **options):
    """The error that these answers are."""
    with pytest.raises(DataError) as caught:
        answers_of.read_answers(save(path, content, **options), STUDY)
    return str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"seed": ' + b"9" * 5000 + b"}", None], ids=range(6)
)
def test_what_is_no_json_is_named(tmp_path, content):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        answers_of.read_answers(path, STUDY)
    assert str(caught.value).startswith(f"{path} cannot be read as answers (")
    assert str(caught.value).endswith("). Give a file saved by the page.")


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(answers_of, "LARGEST", 100)
    path = save(tmp_path / "a.json", answers())
    with pytest.raises(DataError) as caught:
        answers_of.read_answers(path, STUDY)
    size = path.stat().st_size
    assert str(caught.value) == (
        f"{path} cannot be read as answers ({size} bytes are too many). Give a file saved by the page."
    )


def test_answers_that_are_none_are_named(tmp_path):
    path = tmp_path / "a.json"
    no_answers = f"{path} holds no answers of a perceptual study. Give a file saved by the page."
    for other in ({}, {"format": "png"}, {"answers": []}):
        assert read(path, other) == no_answers
    for text in ("[]", "3", "null", '"imtrans perceptual study"'):
        path.write_text(text)
        with pytest.raises(DataError) as caught:
            answers_of.read_answers(path, STUDY)
        assert str(caught.value) == no_answers
    assert read(path, answers(study=answers_of.Study("decaf", 2, 5, STUDY.generated))) == (
        f"{path} belongs to another study, 'decaf'; this one is 'c0ffee'."
    )


def test_answers_that_were_changed_are_named(tmp_path):
    path, changed = tmp_path / "a.json", f"{tmp_path / 'a.json'} was changed after the page saved it: "
    assert read(path, answers(), signed=False) == f"{changed}its checksum is wrong. Ask for the original file."
    right = json.loads(save(path, answers()).read_text())
    assert answers_of.read_answers(path, STUDY).fooled == 0
    right["answers"][3]["answer"] ^= 1
    assert read(path, right, signed=False).startswith(changed)


def test_answers_that_do_not_fit_the_study_are_named(tmp_path):
    path = tmp_path / "a.json"

    def changed(number, **fields):
        given = answers()["answers"]
        given[number] |= fields
        return read(path, answers(answers=given))

    given = answers()["answers"]
    assert read(path, answers(answers=given[:3])) == f"{path} holds 3 answers, not 7. Let the participant finish."
    assert read(path, answers(answers=given * 2)) == f"{path} holds 14 answers, not 7. Let the participant finish."
    assert read(path, answers(answers="x" * 7)) == f"{path} holds no answers, not 7. Let the participant finish."
    order = f"{path}: trial 4 does not match the seed of the session. Ask for the original file."
    assert changed(3, pair=99) == order
    assert changed(3, swapped=not given[3]["swapped"]) == order
    assert read(path, answers(answers=[*given[:3], None, *given[4:]])) == order
    assert read(path, answers(answers=given[::-1])).startswith(f"{path}: trial 1 does not match")
    for value in (2, -1, True, "0", None, 0.0):
        assert changed(6, answer=value) == f"{path}: answer must be a whole number from 0 to 1, got {value!r}."
    for value in ([1000], [1000, 999], [1000, True], [1000, 1e9], None, {}):
        assert changed(0, shown=value) == (
            f"{path}: trial 1 must show two images for 1000 milliseconds or more, got {value!r}."
        )
    for seed in (0, 2**32, -1, "7", None, True):
        text = f"{path}: seed must be a whole number from 1 to 4294967295, got {seed!r}."
        assert read(path, answers() | {"seed": seed}) == text
    for name in ("started", "resumed"):
        text = f"{path}: {name} must be a whole number from 0 to {2**53}, got -1."
        assert read(path, answers() | {name: -1}) == text
    for name, value in itertools.product(("participant", "session"), ("", " ", 3, None, "x" * 61)):
        text = f"{path}: {name} must be a string of 1 to 60 characters, got {value!r}."
        assert read(path, answers() | {name: value}) == text


def test_a_name_cannot_steer_the_terminal(call, folder, tmp_path):
    first, second = (
        save(tmp_path / f"{i}.json", answers(participant="\x1b[2Ja\nb", session=str(i), started=i)) for i in range(2)
    )
    code, out, err = call("--score", first, second, "--out", folder)
    assert code == 0
    assert "\n\\x1b[2Ja\\nb " in out
    assert err == f"not scored: {second}, a later session of \\x1b[2Ja\\nb\n"


@pytest.mark.parametrize(
    "change",
    [
        lambda key: key.pop("pairs"),
        lambda key: key.update(practice=10**12),
        lambda key: key.update(trials=0),
        lambda key: key.update(practice="2"),
        lambda key: key["pairs"][0].update(generated=2),
        lambda key: key["pairs"][0].update(generated=None),
        lambda key: key.update(pairs=[3]),
    ],
    ids=range(7),
)
def test_a_key_that_is_none_is_an_error(call, folder, change):
    key = json.loads((folder / "key.json").read_text())
    change(key)
    (folder / "key.json").write_text(json.dumps(key))
    damaged = f"error: {folder / 'key.json'} is not the key of a study. Write the study again from the same images.\n"
    assert call("--score", "a.json", "--out", folder) == (1, "", damaged)
    (folder / "key.json").write_text("{")
    assert call("--score", "a.json", "--out", folder) == (1, "", damaged)
    (folder / "key.json").unlink()
    missing = f"error: {folder / 'key.json'} cannot be read: No such file or directory. "
    assert call("--score", "a.json", "--out", folder) == (1, "", missing + "Give the study's folder with --out.\n")


@settings(max_examples=25)
@given(data=st.data(), count=st.integers(1, 4))
def test_scoring_gives_the_rate_that_the_answers_were_made_with(tmp_path_factory, data, count):
    """Whatever was answered, in whatever order the files come; and the interval holds the rate."""
    folder, sessions = tmp_path_factory.mktemp("answers"), []
    fooled = [data.draw(st.sets(st.integers(0, 4))) for _ in range(count)]
    for i, trials in enumerate(fooled):
        seed = data.draw(st.integers(1, 2**32 - 1))
        content = answers(fooled=trials, seed=seed, session=f"s{i}", participant=f"p{i}", started=i)
        sessions.append(answers_of.read_answers(save(folder / f"{i}.json", content), STUDY))
    taken, later = answers_of.one_per_participant(data.draw(st.permutations(sessions)))
    counts = [session.fooled for session in taken]
    assert counts == [len(trials) for trials in fooled]
    assert later == []
    low, high = answers_of.interval(counts, STUDY.trials)
    assert 0 <= low <= sum(counts) / (5 * count) <= high <= 1
    assert answers_of.interval(data.draw(st.permutations(counts)), STUDY.trials) == (low, high)


def test_the_interval_is_the_bootstrap_that_it_says():
    """Against the same bootstrap, drawn trial by trial."""
    rng, trials = np.random.default_rng(0), 40
    counts = np.array([4, 9, 15, 7, 12, 6])
    outcomes = np.arange(trials) < counts[:, None]
    means = []
    for _ in range(4000):
        people = outcomes[rng.integers(len(counts), size=len(counts))]
        means.append(np.take_along_axis(people, rng.integers(trials, size=people.shape), 1).mean())
    assert answers_of.interval(counts, trials) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.012)


def test_the_interval_shrinks_with_more_people_and_covers_the_truth():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(100):
        rates = rng.beta(6, 14, size=20)  # people differ; their mean rate is 0.3
        low, high = answers_of.interval(rng.binomial(40, rates), 40)
        covered += low <= 0.3 <= high
    assert covered >= 90
    few, many = (answers_of.interval([8, 12, 16] * n, 40) for n in (1, 10))
    assert many[1] - many[0] < few[1] - few[0]
    assert len({answers_of.interval([8, 13, 16, 3, 7], 40, seed=seed) for seed in range(5)}) > 1
