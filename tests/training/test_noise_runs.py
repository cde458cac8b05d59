"""A run with noise: seeded, resumed bit for bit after a stop and after SIGKILL, logged and saved."""

import signal
import subprocess
import sys

import pytest
import torch
from processes import environment
from test_trainer import Small, check_same_run, equal, everything, metrics

from imtrans import load_pretrained, translate
from imtrans.errors import CheckpointError


class Noisy(Small):
    """With noise and the diversity term. Dropout draws from the same generator."""

    diversity_weight = 0.5

    def __init__(self, out, *, noise_at="input", **settings):
        super().__init__(out, changes={"noise_channels": 5, "noise_at": noise_at}, **settings)


class Unweighted(Noisy):
    """The generator draws its noise itself."""

    diversity_weight = 0.0


RUNS = [(Noisy, "input"), (Noisy, "bottleneck"), (Unweighted, "input")]


@pytest.fixture(scope="module", params=RUNS, ids=lambda run: f"{run[0].__name__}, {run[1]}")
def whole(request, tmp_path_factory):
    cls, noise_at = request.param
    out = tmp_path_factory.mktemp("whole")
    run = cls(out, noise_at=noise_at)
    run.fit()
    return cls, noise_at, run, out


@pytest.mark.parametrize("stop_after", [2, 5])
def test_a_resumed_run_ends_bit_for_bit_like_one_that_was_never_interrupted(tmp_path, whole, stop_after):
    cls, noise_at, run, out = whole
    cls(tmp_path, noise_at=noise_at, stop_after=stop_after, checkpoint_every=2).stopped()
    resumed = cls(tmp_path, noise_at=noise_at, checkpoint_every=2)
    resumed.fit(resume=True)
    check_same_run(resumed, tmp_path, (run, out))


@pytest.mark.parametrize("whole", RUNS[:1], indirect=True)
def test_a_killed_process_is_resumed_bit_for_bit(tmp_path, whole):
    cls, noise_at, run, out = whole
    script = f"import sys; from pathlib import Path; from test_noise_runs import {cls.__name__} as Run; "
    script += f"Run(Path(sys.argv[1]), noise_at={noise_at!r}, kill_after=4).fit()"
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment(), check=False)
    assert done.returncode == -signal.SIGKILL
    resumed = cls(tmp_path, noise_at=noise_at)
    resumed.fit(resume=True)
    check_same_run(resumed, tmp_path, (run, out))


def test_the_seed_decides_the_noise(tmp_path, whole):
    cls, noise_at, run, _ = whole
    same, other = cls(tmp_path / "same", noise_at=noise_at), cls(tmp_path / "other", noise_at=noise_at, seed=4)
    for each in (same, other):
        each.fit()
    assert equal(everything(same), everything(run))
    assert not equal(everything(other), everything(run))


def test_how_often_it_is_looked_at_does_not_change_what_a_run_learns(tmp_path, whole):
    """Validation and samples draw noise of their own."""
    cls, noise_at, run, _ = whole
    seldom = cls(tmp_path, noise_at=noise_at, sample_every=9, validate_every=2, val_data=None)
    seldom.fit()
    assert equal(everything(seldom)["weights"], everything(run)["weights"])


def test_the_log_the_card_and_the_saved_generator(whole):
    cls, noise_at, _, out = whole
    losses = [line["losses"] for line in metrics(out) if line["kind"] == "train"]
    assert all(("G_diversity" in each) == (cls is Noisy) for each in losses)
    generator = load_pretrained(out / "generator")
    assert (generator.noise_channels, generator.noise_at) == (5, noise_at)
    one, two = translate(generator, torch.rand(3, 16, 16), samples=2, seed=0)
    assert not torch.equal(one, two)
    card = (out / "generator" / "README.md").read_text()
    assert "It takes noise: `translate(..., samples=4, seed=0)` gives four different outputs." in card
    assert "| noise_channels | 5 |" in card


def test_another_weight_cannot_resume(tmp_path):
    Unweighted(tmp_path, stop_after=3).stopped()
    with pytest.raises(CheckpointError, match=r"diversity_weight was 0\.0, now 0\.5"):
        Noisy(tmp_path).fit(resume=True)
