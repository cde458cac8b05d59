"""Perceptual study of the pix2pix paper: how often do people take a generated image for a real one?

python examples/perceptual_study.py GENERATED REAL --out runs/study             # writes runs/study/study.html
python examples/perceptual_study.py --score answers-*.json --out runs/study     # scores the participants' answers

Source: Isola et al. 2017, section 4.1 ("AMT perceptual studies"), with the protocol of Zhang et al. 2016.
"""

import argparse
import base64
import hashlib
import io
import json
import random
import sys
from pathlib import Path

import numpy as np
from perceptual_answers import interval, one_per_participant, read_answers, read_study
from PIL import Image

from imtrans.checks import at_least
from imtrans.data.images import read_image
from imtrans.data.pairs import like_named, without_partner
from imtrans.errors import DataError, ImtransError, counted, printable
from imtrans.files import json_bytes, write_atomic

SIZE = 256  # pixels, as in the paper
MAX_PAIRS = 100  # in a page, so that it can be sent by mail and opened on a phone
TEMPLATE = Path(__file__).with_suffix(".html")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generated", nargs="?", type=Path, metavar="GENERATED", help="folder of generated images")
    parser.add_argument("real", nargs="?", type=Path, metavar="REAL", help="folder of real images with the same names")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the study")
    parser.add_argument("--practice", type=int, metavar="N", help="practice pairs, with feedback, not scored (10)")
    parser.add_argument("--trials", type=int, metavar="N", help="scored pairs (40)")
    parser.add_argument("--score", nargs="+", type=Path, metavar="ANSWERS", help="files sent by participants")
    parser.add_argument("--json", action="store_true", help="print the scores as JSON")
    parser.add_argument("--seed", type=int, default=0, help="seed of the choice of pairs, or of the bootstrap (0)")
    args = parser.parse_args()
    writes = (args.generated, args.real, args.practice, args.trials)
    if args.score and any(value is not None for value in writes):
        parser.error("--score takes no GENERATED, REAL, --practice or --trials: they are stored with the study")
    if not args.score and (args.real is None or args.json):
        parser.error("give GENERATED and REAL to write a study, or --score ANSWERS to score one")
    return args


def main() -> int:
    args = arguments()
    try:
        at_least("perceptual_study", "--seed", args.seed, 0)
        return score(args) if args.score else write(args)
    except ImtransError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def write(args: argparse.Namespace) -> int:
    practice = at_least("perceptual_study", "--practice", 10 if args.practice is None else args.practice, 1)
    trials = at_least("perceptual_study", "--trials", 40 if args.trials is None else args.trials, 1)
    pairs, alone = like_named(args.generated, args.real)
    if alone:
        raise DataError(without_partner(args.generated, args.real, alone))
    if len(pairs) < practice + trials:
        raise DataError(
            f"{printable(args.generated)} and {printable(args.real)} hold {counted(len(pairs), 'pair')}; {practice} "
            f"practice and {counted(trials, 'scored trial')} need {practice + trials}, because no participant sees a "
            "pair twice. Add images, or reduce --practice and --trials."
        )
    rng = random.Random(args.seed)
    chosen = rng.sample(pairs, min(len(pairs), max(MAX_PAIRS, practice + trials)))
    flips = [rng.randrange(2) for _ in chosen]
    # The page must not reveal the generated images of the scored pairs: it holds the practice answers only.
    images = [[encode(pair[flip]), encode(pair[1 - flip])] for pair, flip in zip(chosen, flips, strict=True)]
    page = {"practice": flips[:practice], "trials": trials, "pairs": images}
    page["id"] = hashlib.sha256(json.dumps(page).encode()).hexdigest()[:16]
    key = {
        "study": page["id"],
        "practice": practice,
        "trials": trials,
        "seed": args.seed,
        "pairs": [{"name": pair[0].stem, "generated": flip} for pair, flip in zip(chosen, flips, strict=True)],
    }
    html = TEMPLATE.read_text(encoding="utf-8").replace("{{study}}", json.dumps(page)).encode()
    save(args.out, html, key)
    print(
        f"{len(chosen)} of {counted(len(pairs), 'pair')}; {practice} practice and {counted(trials, 'scored trial')} "
        "for each participant"
    )
    print(f"page       {(args.out / 'study.html').resolve().as_uri()} ({len(html) / 2**20:.1f} MiB), for participants")
    print(f"key        {args.out / 'key.json'}, needed to score the answers; do not share it")
    return 0


def encode(path: Path) -> str:
    """Return the resized pixels of an image as WebP in base64, without its metadata."""
    image = read_image(path).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    content = io.BytesIO()
    Image.fromarray(np.asarray(image)).save(content, "WEBP", lossless=True)
    return base64.b64encode(content.getvalue()).decode()


def save(folder: Path, page: bytes, key: dict[str, object]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "key.json").exists() and read_study(folder).id != key["study"]:
            raise OSError(None, "it holds another study, and overwriting the key would make its answers useless")
        write_atomic(folder / "key.json", json_bytes(key))
        write_atomic(folder / "study.html", page)
    except OSError as error:
        raise DataError(
            f"{printable(folder)} cannot be used: {error.strerror}. Give another folder with --out."
        ) from error


def score(args: argparse.Namespace) -> int:
    study = read_study(args.out)
    sessions, later = one_per_participant([read_answers(path, study) for path in args.score])
    low, high = interval([session.fooled for session in sessions], study.trials, seed=args.seed)
    fooled, trials = sum(session.fooled for session in sessions), study.trials * len(sessions)
    rows = [
        {
            "participant": session.participant,
            "file": str(session.path),
            "taken_for_real": session.fooled,
            "trials": study.trials,
            "percent": 100 * session.fooled / study.trials,
            "longest_shown_ms": session.longest,
            "resumed": session.resumed,
        }
        for session in sessions
    ]
    scores = {
        "study": study.id,
        "participants": rows,
        "left_out": [str(session.path) for session in later],
        "taken_for_real": fooled,
        "trials": trials,
        "percent": 100 * fooled / trials,
        "interval_95": [100 * low, 100 * high],
        "seed": args.seed,
    }
    for session in later:
        print(
            f"not scored: {printable(session.path)}, a later session of {printable(session.participant)}",
            file=sys.stderr,
        )
    print(json.dumps(scores, indent=2) if args.json else table(scores))
    return 0


def table(scores: dict) -> str:
    rows = scores["participants"]
    lines = [("participant", "taken for real", "trials", "%", "longest shown", "resumed")]
    for row in rows:
        counts = (str(row["taken_for_real"]), str(row["trials"]), f"{row['percent']:.1f}")
        lines.append(
            (printable(row["participant"]), *counts, f"{row['longest_shown_ms'] / 1000:.2f} s", str(row["resumed"]))
        )
    everyone = f"all {len(rows)}" if len(rows) > 1 else "all"
    lines.append((everyone, str(scores["taken_for_real"]), str(scores["trials"]), f"{scores['percent']:.1f}", "", ""))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = "".join(
        (line[0].ljust(widths[0]) + "".join(f"  {c:>{w}}" for c, w in zip(line[1:], widths[1:], strict=True))).rstrip()
        + "\n"
        for line in lines
    )
    low, high = scores["interval_95"]
    return (
        f"{text}generated images taken for real: {scores['percent']:.1f} %, 95 % interval {low:.1f} to {high:.1f} "
        f"(bootstrap over participants and their trials, seed {scores['seed']})"
    )


if __name__ == "__main__":
    raise SystemExit(main())
