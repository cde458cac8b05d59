import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from processes import environment
from torch import nn
from torch.optim import SGD

from imtrans import (
    GANLoss,
    PairedImages,
    PatchDiscriminator,
    Pix2Pix,
    ProceduralFacades,
    Trainer,
    UNetGenerator,
    UnpairedFacades,
    decay_factor,
    load_pretrained,
)
from imtrans.data.loader import batches
from imtrans.errors import ArgumentError, CheckpointError, TrainingError
from imtrans.evaluation.evaluate import compare_modes
from imtrans.methods import ImagePool, Translation
from imtrans.modes import running_as
from imtrans.runtime import pick_precision
from imtrans.training.checkpoint import checkpoints
from imtrans.training.signals import Stopped

QUIET = {"device": "cpu", "precision": "fp32", "progress": False}


class Stop(BaseException):
    """Somebody pressed Ctrl-C."""


class Recorder(nn.Module):
    """A method that is no GAN, and has no pairs: it remembers what it was given."""

    def __init__(self, *, spoil_at=None):
        super().__init__()
        self.weight, self.slow = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
        self.spoil_at, self.seen = spoil_at, []

    def make_optimizers(self, lr, betas):
        return {"one": SGD([{"params": [self.weight]}, {"params": [self.slow], "lr": lr / 2}], lr=lr)}

    def step(self, batch, optimizers):
        rates = [group["lr"] for group in optimizers["one"].param_groups]
        self.seen.append((batch["number"].tolist(), rates))
        loss = self.weight.square().sum()
        optimizers["one"].zero_grad()
        loss.backward()
        optimizers["one"].step()
        if len(self.seen) == self.spoil_at:
            with torch.no_grad():
                self.weight.fill_(float("nan"))
        return {"square": loss.detach()}

    def translations(self):
        return ()


def numbers(length):
    return [{"number": torch.tensor(n)} for n in range(length)]


class Small:
    """A run with everything that has a state: batch norm, dropout, a pool, a last batch that is smaller."""

    epochs, steps = 2, 6
    size, spectral_norm, feature_weight, diversity_weight = 16, False, 0.0, 0.0

    def __init__(self, out, *, stop_after=None, kill_after=None, changes=None, **settings):
        torch.manual_seed(7)
        generator = UNetGenerator(base_channels=4, **{"depth": 3, **(changes or {})})
        discriminator = PatchDiscriminator(6, base_channels=4, n_layers=1, spectral_norm=self.spectral_norm)
        weights = {"feature_weight": self.feature_weight, "diversity_weight": self.diversity_weight}
        self.method = Pix2Pix(generator, discriminator, pool_size=3, **weights)
        self.train_data = ProceduralFacades(5, size=self.size)
        self.val_data = ProceduralFacades(2, size=self.size, seed=1, augment=False)
        arguments = {
            "val_data": self.val_data,
            "epochs": self.epochs,
            "batch_size": 2,
            "lr": 0.01,
            "log_every": 2,
            "checkpoint_every": 1,
            "validate_every": 1,
            "sample_every": 3,
            "seed": 3,
            **QUIET,
            **settings,
        }
        torch.manual_seed(len(str(out)))  # what the caller does with the global state must not matter
        self.trainer = Trainer(self.method, self.train_data, out=out, **arguments)
        if stop_after is not None or kill_after is not None:
            self._interrupt(stop_after, kill_after)

    def _interrupt(self, stop_after, kill_after):
        step = self.method.step

        def interrupted(batch, optimizers):
            if self.trainer.step == kill_after:
                os.kill(os.getpid(), signal.SIGKILL)
            losses = step(batch, optimizers)
            if self.trainer.step == stop_after:
                raise Stop  # with the weights already changed
            return losses

        self.method.step = interrupted

    def fit(self, **settings):
        return self.trainer.fit(**settings)

    def stopped(self):
        with pytest.raises(Stop):
            self.fit()


def metrics(out):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "images_per_second"} for line in lines]


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    return one == other


def everything(run):
    optimizers = {name: optimizer.state_dict() for name, optimizer in run.trainer.optimizers.items()}
    return {"weights": run.method.state_dict(), "optimizers": optimizers}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that was never interrupted, and its folder."""
    out = tmp_path_factory.mktemp("whole")
    run = Small(out)
    run.fit()
    return run, out


def check_same_run(run, out, whole):
    expected, whole_out = whole
    assert equal(everything(run), everything(expected))
    assert metrics(out) == metrics(whole_out)
    assert run.trainer.validation == expected.trainer.validation


# Resuming


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("stop_after", [2, 3, 4, 5])
def test_a_resumed_run_ends_bit_for_bit_like_one_that_was_never_interrupted(tmp_path, whole, stop_after, every):
    Small(tmp_path, stop_after=stop_after, checkpoint_every=every).stopped()
    resumed = Small(tmp_path, checkpoint_every=every)
    resumed.fit(resume=True)
    check_same_run(resumed, tmp_path, whole)


def test_a_run_may_be_interrupted_again_and_again(tmp_path, whole):
    Small(tmp_path, stop_after=1).stopped()
    for stop_after in range(2, Small.steps):
        with pytest.raises(Stop):
            Small(tmp_path, stop_after=stop_after).fit(resume=True)
    resumed = Small(tmp_path)
    resumed.fit(resume=True)
    check_same_run(resumed, tmp_path, whole)


class Sharp(Small):
    """With maps that are large enough for a folded kernel, also in the last batch."""

    size, spectral_norm, feature_weight = 32, True, 10.0


def test_folded_kernels_and_spectral_norms_resume_bit_for_bit(tmp_path):
    runs = [Sharp(tmp_path / name, changes={"upsample": "nearest"}, precision="bf16") for name in ("whole", "resumed")]
    runs[0].fit()
    Sharp(tmp_path / "resumed", changes={"upsample": "nearest"}, precision="bf16", stop_after=4).stopped()
    runs[1].fit(resume=True)
    assert equal(everything(runs[1]), everything(runs[0]))
    assert metrics(tmp_path / "resumed") == metrics(tmp_path / "whole")


def test_a_killed_process_is_resumed_bit_for_bit(tmp_path, whole):
    script = "import sys; from pathlib import Path; from test_trainer import Small; "
    script += "Small(Path(sys.argv[1]), kill_after=4).fit()"
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment(), check=False)
    assert done.returncode == -signal.SIGKILL
    resumed = Small(tmp_path)
    resumed.fit(resume=True)
    check_same_run(resumed, tmp_path, whole)


@pytest.mark.parametrize("max_steps", [1, 3, 4])
def test_a_run_that_ended_early_goes_on_as_if_it_had_not(tmp_path, whole, max_steps):
    Small(tmp_path, max_steps=max_steps).fit()
    assert [p.name for p in checkpoints(tmp_path / "checkpoints")][-1] == f"{max_steps:06d}"
    resumed = Small(tmp_path)
    resumed.fit(resume=True)
    assert equal(everything(resumed), everything(whole[0]))


def test_how_often_a_run_looks_up_does_not_change_what_it_learns(tmp_path, whole):
    often = {"log_every": 1, "sample_every": 1, "validate_every": 1, "checkpoint_every": 1}
    seldom = {"log_every": 5, "sample_every": 9, "validate_every": 2, "checkpoint_every": 2, "val_data": None}
    Small(tmp_path, stop_after=4, **often).stopped()
    resumed = Small(tmp_path, **seldom)
    resumed.fit(resume=True)
    assert equal(everything(resumed), everything(whole[0]))


def test_data_that_is_kept_does_not_change_what_is_learnt(tmp_path, whole):
    assert Small(tmp_path).trainer._loader.cache
    Small(tmp_path, stop_after=4, keep_data=False).stopped()
    resumed = Small(tmp_path, keep_data=True)
    resumed.fit(resume=True)
    check_same_run(resumed, tmp_path, whole)


def test_a_run_in_bf16_is_resumed_bit_for_bit(tmp_path):
    expected = Small(tmp_path / "whole", precision="bf16")
    expected.fit()
    Small(tmp_path / "resumed", stop_after=4, precision="bf16").stopped()
    resumed = Small(tmp_path / "resumed", precision="bf16")
    resumed.fit(resume=True)
    assert equal(everything(resumed), everything(expected))
    assert metrics(tmp_path / "resumed") == metrics(tmp_path / "whole")


def test_processes_that_load_do_not_change_what_is_learnt(tmp_path, whole):
    Small(tmp_path, stop_after=4, num_workers=2, keep_data=False).stopped()
    resumed = Small(tmp_path, num_workers=1, keep_data=False)
    resumed.fit(resume=True)
    check_same_run(resumed, tmp_path, whole)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(tmp_path, whole):
    again, other = Small(tmp_path / "again"), Small(tmp_path / "other", seed=4)
    again.fit()
    other.fit()
    check_same_run(again, tmp_path / "again", whole)
    assert not equal(other.method.state_dict(), again.method.state_dict())


def test_resuming_a_finished_run_changes_nothing_and_returns_its_validation(tmp_path):
    run = Small(tmp_path)
    validation = run.fit()
    files = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert Small(tmp_path).fit(resume=True) == validation
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == files


def test_a_resumed_run_takes_the_new_length_and_records_it(tmp_path):
    Trainer(Recorder(), numbers(2), out=tmp_path, epochs=2, lr=1e-3, max_steps=2, **QUIET).fit()
    method = Recorder()
    longer = {"epochs": 4, "decay_epochs": 0, "num_workers": 1, "checkpoint_every": 3, "keep": 3}
    Trainer(method, numbers(2), out=tmp_path, lr=1e-3, **longer, **QUIET).fit(resume=True)
    assert [rates for _, rates in method.seen] == [[1e-3, 5e-4]] * 6
    assert [p.name for p in checkpoints(tmp_path / "checkpoints")] == ["000003", "000006", "000008"]
    config = json.loads((tmp_path / "config.json").read_text())
    assert {name: config[name] for name in longer} == longer
    assert config["changes"] == [
        {
            "step": 2, "epochs": [2, 4], "decay_epochs": [1, 0], "max_steps": [2, None], "checkpoint_every": [100, 3],
            "steps": [2, 8], "num_workers": [0, 1], "keep": [2, 3],
        }
    ]  # fmt: skip


def resumed_with(out, **changes):
    with pytest.raises(CheckpointError) as caught:
        Small(out, **changes).fit(resume=True)
    return str(caught.value)


DIFFERENT = {
    "lr was 0.01, now 0.02": {"lr": 0.02},
    "seed was 3, now 4": {"seed": 4},
    "betas was [0.5, 0.999], now [0.9, 0.999]": {"betas": (0.9, 0.999)},
    "precision was 'fp32', now 'bf16'": {"precision": "bf16"},
    "batch_size was 2, now 3": {"batch_size": 3},
    "epochs was 2, now 1; decay_epochs was 1, now 0": {"epochs": 1},
    "decay_epochs was 1, now 2": {"decay_epochs": 2},
    "decay_epochs was 1, now 0; lr_policy was 'linear', now 'cosine'; warmup_epochs was 0, now 1": {
        "lr_policy": "cosine",
        "warmup_epochs": 1,
    },
    "generator.depth was 3, now 2": {"changes": {"depth": 2}},
    "generator.skips was 'concat', now 'add'": {"changes": {"skips": "add"}},
}


@pytest.mark.parametrize("text", DIFFERENT)
def test_a_run_with_other_arguments_is_not_resumed(tmp_path, stopped_run, text):
    shutil.copytree(stopped_run, tmp_path / "run")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    assert resumed_with(tmp_path / "run", **DIFFERENT[text]) == (
        f"the run in {tmp_path / 'run'} has other arguments: {text}. Resume it with the values in its config.json, or "
        "start another run with out=... (--out)."
    )
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("stopped")
    Small(out, stop_after=2).stopped()
    return out


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda method: setattr(method, "l1_weight", 10.0), "l1_weight was 100.0, now 10.0"),
        (lambda method: setattr(method, "d_loss_weight", 1.0), "d_loss_weight was 0.5, now 1.0"),
        (lambda method: setattr(method, "pixel_loss", "l2"), "pixel_loss was 'l1', now 'l2'"),
        (lambda method: setattr(method, "gan_loss", GANLoss("lsgan")), "gan_mode was 'vanilla', now 'lsgan'"),
        (lambda method: setattr(method, "pool", ImagePool(0)), "pool_size was 3, now 0"),
    ],
)
def test_a_method_with_other_settings_is_not_resumed(tmp_path, stopped_run, change, text):
    shutil.copytree(stopped_run, tmp_path / "run")
    run = Small(tmp_path / "run")
    change(run.method)
    with pytest.raises(CheckpointError, match=f"has other arguments: {text}[.] Resume"):
        run.fit(resume=True)


@pytest.mark.parametrize(
    ("name", "value"), [("direction", "BtoA"), ("size", 24), ("seed", 1), ("flip", False), ("resample", "nearest")]
)
def test_other_data_are_not_resumed(tmp_path, name, value):
    for data in ("pairs", "others"):
        (tmp_path / data).mkdir()
        for i in range(3):
            Image.new("RGB", (32, 16)).save(tmp_path / data / f"{i}.png")

    def trainer(folder="pairs", **changes):
        data = PairedImages(tmp_path / folder, **{"size": 16, **changes})
        method = Pix2Pix(UNetGenerator(base_channels=2, depth=2), PatchDiscriminator(6, base_channels=2, n_layers=1))
        return Trainer(method, data, out=tmp_path / "run", epochs=1, max_steps=1, **QUIET)

    trainer().fit()
    with pytest.raises(CheckpointError, match=r"has other arguments: data(_seed)? was "):
        trainer(**{name: value}).fit(resume=True)
    with pytest.raises(CheckpointError, match=r"data was '3 pairs side by side in .*pairs, .*, now '.*others, "):
        trainer("others").fit(resume=True)
    trainer().fit(resume=True)


def test_the_folder_of_an_older_version_is_resumed_and_a_damaged_configuration_is_told(tmp_path, stopped_run, whole):
    added = ("settings", "data_seed", "val_data", "betas", "max_steps", "log_every", "num_workers", "keep")
    for name, old in (("old", True), ("damaged", False)):
        shutil.copytree(stopped_run, tmp_path / name)
        path = tmp_path / name / "config.json"
        config = {k: v for k, v in json.loads(path.read_text()).items() if k not in added}
        path.write_text(json.dumps({**config, "data": "in other words"}) if old else "{")
    resumed = Small(tmp_path / "old")
    resumed.fit(resume=True)
    check_same_run(resumed, tmp_path / "old", whole)
    assert json.loads((tmp_path / "old" / "config.json").read_text())["settings"]["l1_weight"] == 100.0
    with pytest.warns(UserWarning, match="config.json cannot be read. This run is not compared with it"):
        Small(tmp_path / "damaged").fit(resume=True)
    assert json.loads((tmp_path / "damaged" / "config.json").read_text())["lr"] == 0.01


def test_a_run_resumed_without_validation_data_shows_no_old_result(tmp_path):
    Small(tmp_path, max_steps=3).fit()
    assert Small(tmp_path, val_data=None).fit(resume=True) is None
    changes = json.loads((tmp_path / "config.json").read_text())["changes"]
    assert changes[0]["val_data"] == [repr(ProceduralFacades(2, size=16, seed=1, augment=False)), None]


def test_a_data_set_whose_repr_holds_an_address_is_resumed(tmp_path):
    class Data(torch.utils.data.Dataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return numbers(2)[index]

    for resume in (False, True):
        trainer = Trainer(Recorder(), data := Data(), out=tmp_path, epochs=1, **QUIET)
        assert " at 0x" in repr(data)
        trainer.fit(resume=resume)


@pytest.mark.parametrize("out", [None, "runs"])
def test_nothing_to_resume_from(tmp_path, out):
    folder = out and tmp_path / out
    with pytest.raises(CheckpointError) as caught:
        Small(folder).fit(resume=True)
    assert str(caught.value) == (f"there is no run in {folder} to resume. Start without resume, or check the folder.")


OTHERWISE = "Make the run with the arguments in config.json, or start one in another folder."


def test_a_checkpoint_of_other_networks_is_refused_and_stays_whole(tmp_path):
    Small(tmp_path, max_steps=3).fit()
    before = metrics(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.warns(UserWarning, match="not compared"), pytest.raises(CheckpointError) as caught:
        Small(tmp_path, changes={"depth": 2}).fit(resume=True)
    message = str(caught.value)
    assert message.startswith(
        "the checkpoint does not fit this run: Error(s) in loading state_dict for Pix2Pix: Unexpected key(s)"
    )
    assert message.endswith(OTHERWISE)
    assert metrics(tmp_path) == before


def test_a_checkpoint_of_another_method_is_refused(tmp_path):
    Trainer(Recorder(), numbers(2), out=tmp_path, epochs=1, **QUIET).fit()

    class Other(Recorder):
        def make_optimizers(self, lr, betas):
            return {"two": SGD(self.parameters(), lr=lr)}

    with pytest.raises(CheckpointError) as caught:
        Trainer(Other(), numbers(2), out=tmp_path, epochs=1, **QUIET).fit(resume=True)
    assert "other arguments: method was 'Recorder', now 'Other'. " in str(caught.value)
    Other.__name__ = "Recorder"
    with pytest.raises(CheckpointError) as caught:
        Trainer(Other(), numbers(2), out=tmp_path, epochs=1, **QUIET).fit(resume=True)
    assert str(caught.value) == f"the checkpoint does not fit this run: 'two' {OTHERWISE}"


@pytest.mark.parametrize(("length", "batch_size"), [(3, 2), (8, 8)])
def test_a_checkpoint_of_other_data_or_batches_is_refused(tmp_path, length, batch_size):
    Trainer(Recorder(), numbers(8), out=tmp_path, epochs=2, batch_size=2, max_steps=3, **QUIET).fit()
    (tmp_path / "config.json").write_text("{}")
    with pytest.warns(UserWarning, match="not compared"), pytest.raises(CheckpointError) as caught:
        Trainer(Recorder(), numbers(length), out=tmp_path, epochs=2, batch_size=batch_size, **QUIET).fit(resume=True)
    assert str(caught.value) == (
        "the checkpoint does not fit this run: it is of a run on 8 samples in batches of 2, this one has "
        f"{length} samples in batches of {batch_size}. {OTHERWISE}"
    )


# Learning-rate policies


@pytest.mark.parametrize("policy", ["step", "plateau", "cosine", "constant"])
@pytest.mark.parametrize("early", [{"stop_after": 5}, {"max_steps": 8}])
def test_a_policy_is_resumed_bit_for_bit(tmp_path, policy, early):
    settings = {"lr_policy": policy, "warmup_epochs": 1, "epochs": 10, "lr": 1e-7 if policy == "plateau" else 0.01}
    whole = Small(tmp_path / "whole", **settings)
    whole.fit()
    run = Small(tmp_path / "run", **settings, **early)
    run.stopped() if "stop_after" in early else run.fit()
    resumed = Small(tmp_path / "run", **settings)
    resumed.fit(resume=True)
    assert equal(everything(resumed), everything(whole))
    rates = {line["step"]: line["lr"] for line in metrics(tmp_path / "run") if line["kind"] == "train"}
    assert rates == {line["step"]: line["lr"] for line in metrics(tmp_path / "whole") if line["kind"] == "train"}
    if policy == "plateau":  # seven validations, of which the first is the best
        assert [rates[step] / 1e-7 for step in (2, 6, 20, 22, 30)] == pytest.approx([0.5, 1.0, 1.0, 0.2, 0.2])
        assert "val_data was" in resumed_with(tmp_path / "run", **settings, val_data=numbers(1))


@pytest.mark.parametrize("val_data", [None, UnpairedFacades(1, size=16)])
def test_a_plateau_needs_pairs_to_validate_on(val_data):
    with pytest.raises(ArgumentError) as caught:
        Small(None, lr_policy="plateau", val_data=val_data)
    assert str(caught.value) == (
        "Trainer: lr_policy='plateau' follows the validation, and there are no pairs to validate on. Give val_data "
        "with pairs, or use another lr_policy."
    )


# The averaged generator, and functions that are called


EMA = {"ema": 0.5, "lr": 0.05}


def test_the_averaged_generator_is_validated_sampled_and_saved(tmp_path):
    run, raw = Small(tmp_path, **EMA), []
    generator, validate = run.method.generator, run.trainer._validator.validate
    averages = {name: tensor.clone() for name, tensor in generator.state_dict().items()}

    def average(trainer, losses):
        weights = generator.state_dict()
        raw.append({name: tensor.clone() for name, tensor in weights.items()})
        for name, tensor in weights.items():
            averages[name] = torch.lerp(averages[name], tensor, 0.5) if tensor.is_floating_point() else tensor.clone()

    def validated():
        torch.testing.assert_close(generator.state_dict(), averages)
        return validate()

    run.trainer.on_step_end, run.trainer._validator.validate = average, validated
    run.fit()
    assert len(raw) == Small.steps
    assert equal(generator.state_dict(), raw[-1])
    saved = load_pretrained(tmp_path / "generator")
    torch.testing.assert_close(saved.state_dict(), averages)
    assert not equal(saved.state_dict(), raw[-1])
    with run.trainer.averaged(), run.trainer.averaged():
        assert equal(generator.state_dict(), saved.state_dict())
    with Image.open(tmp_path / "generator" / "samples.png") as shown:
        made = torch.from_numpy(np.array(shown.convert("RGB"))[:16, 20:36].astype(int))
    source = run.val_data[0]["source"][None]
    with torch.no_grad(), running_as(saved, saved.inference_mode):
        torch.manual_seed(3)
        expected = saved(torch.cat([source, run.val_data[1]["source"][None]]))[0].permute(1, 2, 0) * 127.5 + 127.5
    assert (made - expected).abs().max() <= 1


def test_an_averaged_run_is_resumed_bit_for_bit(tmp_path):
    whole = Small(tmp_path / "whole", **EMA)
    validation = whole.fit()
    Small(tmp_path / "run", stop_after=4, checkpoint_every=2, **EMA).stopped()
    resumed = Small(tmp_path / "run", checkpoint_every=2, **EMA)
    assert resumed.fit(resume=True) == validation
    assert equal(resumed.trainer._train_step.state_dict(), whole.trainer._train_step.state_dict())
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
    names = [tmp_path / name / "generator" / "model.safetensors" for name in ("run", "whole")]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_an_average_does_not_change_what_is_trained(tmp_path, whole):
    run = Small(tmp_path, ema=0.9)
    run.fit()
    assert equal(everything(run), everything(whole[0]))
    assert "ema was 0.9, now None" in resumed_with(tmp_path)


def test_lines_of_the_log_and_ends_of_steps_are_passed_on(tmp_path, whole):
    lines, ends = [], []

    def on_step_end(trainer, losses):
        ends.append((trainer.step, sorted(losses), {type(loss) for loss in losses.values()}))

    def on_log(line):
        assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1]) == line
        lines.append(dict(line))
        line.clear()

    run = Small(tmp_path, on_log=on_log, on_step_end=on_step_end)
    run.fit()
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == lines
    assert ends == [(step, ["D_fake", "D_real", "G_gan", "G_l1"], {torch.Tensor}) for step in range(1, 7)]
    check_same_run(run, tmp_path, whole)


# The run folder


def test_a_run_leaves_its_folder_behind(whole):
    run, out = whole
    assert sorted(p.name for p in out.iterdir()) == [
        "checkpoints", "config.json", "generator", "index.html", "metrics.jsonl", "samples",
    ]  # fmt: skip
    assert [p.name for p in checkpoints(out / "checkpoints")] == ["000005", "000006"]
    assert sorted(p.name for p in (out / "samples").iterdir()) == ["000003.png", "000006.png"]
    with Image.open(out / "samples" / "000006.png") as rows:
        assert rows.size == (3 * 16 + 2 * 4, 2 * 16 + 4)
    assert sorted(p.name for p in (out / "generator").iterdir()) == [
        "README.md", "config.json", "model.safetensors", "samples.png", "source.png",
    ]  # fmt: skip
    with Image.open(out / "generator" / "samples.png") as rows:
        assert rows.size == (3 * 16 + 2 * 4, 2 * 16 + 4)
    with Image.open(out / "generator" / "source.png") as source:
        assert source.size == (16, 16)
    assert "samples/000006.png" in (out / "index.html").read_text()
    generator = load_pretrained(out / "generator")
    assert equal(generator.state_dict(), run.method.generator.state_dict())


def test_the_card_of_a_run_says_how_it_was_trained(whole):
    run, out = whole
    card = (out / "generator" / "README.md").read_text()
    facts = {
        "method": "Pix2Pix",
        "data": run.train_data,
        "steps": 6,
        "epochs": 2,
        "batch_size": 2,
        "lr": 0.01,
        "seed": 3,
    }
    for name, value in facts.items():
        assert f"| {name} | {value} |" in card
    for mode in ("eval", "batch_stats", "paper"):
        l1, psnr, swd = (run.trainer.validation[mode][name] for name in ("l1", "psnr", "swd"))
        assert f"| {mode} | {l1:.4g} | {psnr:.4g} | {swd:.4g} |" in card


def test_the_configuration_says_what_was_run(whole):
    run, out = whole
    config = json.loads((out / "config.json").read_text())
    expected = {
        "method": "Pix2Pix",
        "data": repr(run.train_data),
        "epochs": 2,
        "decay_epochs": 1,
        "steps": 6,
        "batch_size": 2,
        "lr": 0.01,
        "precision": "fp32",
        "device": "cpu",
        "seed": 3,
        "torch": torch.__version__,
    }
    assert {name: config[name] for name in expected} == expected
    assert config["networks"]["generator"]["class"] == "UNetGenerator"
    assert config["networks"]["generator"]["arguments"]["base_channels"] == "4"
    assert config["networks"]["discriminator"]["class"] == "PatchDiscriminator"


def test_further_facts_go_into_the_configuration(tmp_path):
    Trainer(Recorder(), numbers(1), out=tmp_path, epochs=1, config={"command": "train.py"}, **QUIET).fit()
    assert json.loads((tmp_path / "config.json").read_text())["command"] == "train.py"


def test_metrics_have_a_line_for_each_log_step_and_each_validation(whole):
    run, out = whole
    lines = metrics(out)
    train = [line for line in lines if line["kind"] == "train"]
    validation = [line for line in lines if line["kind"] == "validation"]
    assert [(line["step"], line["epoch"]) for line in train] == [(2, 0), (4, 1), (6, 1)]
    assert [line["lr"] for line in train] == pytest.approx([0.01, 0.005, 0.005])
    assert all(set(line["losses"]) == {"D_fake", "D_real", "G_gan", "G_l1"} for line in train)
    assert [(line["step"], line["epoch"]) for line in validation] == [(3, 1), (6, 2)]
    assert {name: validation[-1][name] for name in run.trainer.validation} == run.trainer.validation


def test_a_logged_loss_is_the_mean_since_the_last_line(tmp_path):
    method = Recorder()
    Trainer(method, numbers(5), out=tmp_path, epochs=1, decay_epochs=0, lr=0.25, log_every=2, **QUIET).fit()
    squares = [0.5 ** (2 * i) for i in range(5)]  # w - 0.25 * 2 w = w / 2
    assert [line["losses"]["square"] for line in metrics(tmp_path)] == pytest.approx(
        [sum(squares[:2]) / 2, sum(squares[2:4]) / 2, squares[4]]
    )


def test_a_step_that_samples_and_saves_makes_its_images_once(tmp_path, monkeypatch):
    run, made = Small(tmp_path, sample_every=1, checkpoint_every=1), []
    make = run.trainer._validator.sample_images
    monkeypatch.setattr(run.trainer._validator, "sample_images", lambda: made.append(run.trainer.step) or make())
    run.fit()
    assert made == list(range(1, Small.steps + 1))


def test_validation_is_in_three_modes_and_the_best_is_saved_with_the_generator(whole):
    run, out = whole
    validation = run.trainer.validation
    assert list(validation) == ["eval", "batch_stats", "paper", "best"]
    best = min(("eval", "batch_stats"), key=lambda mode: validation[mode]["swd"])
    assert validation["best"] == best
    assert json.loads((out / "generator" / "config.json").read_text())["inference_mode"] == best
    assert load_pretrained(out / "generator").inference_mode == best
    (one,) = run.method.translations()
    named = {one.name: one.output_and_target}
    again = compare_modes(run.method, named, lambda: batches(run.val_data, 2), torch.device("cpu"), seed=3)
    assert again == validation


@pytest.mark.parametrize("validated", [True, False])
@pytest.mark.parametrize("asked", ["eval", "paper"])
def test_the_random_mode_is_saved_only_if_it_was_the_networks_before(tmp_path, monkeypatch, validated, asked):
    def compared(*_args, candidates, **_settings):
        scores = {
            "eval": {"l1": 0.3, "psnr": 9.0},
            "batch_stats": {"l1": 0.2, "psnr": 9.0},
            "paper": {"l1": 0.1, "psnr": 9.0},
        }
        return {**scores, "best": min(candidates, key=lambda mode: scores[mode]["l1"])}

    monkeypatch.setattr("imtrans.training.validation.compare_modes", compared)
    method = Pix2Pix(UNetGenerator(base_channels=4, depth=3), None)
    method.generator.inference_mode = asked
    data = ProceduralFacades(1, size=16)
    Trainer(method, data, val_data=data if validated else None, out=tmp_path, epochs=1, **QUIET).fit()
    saved = json.loads((tmp_path / "generator" / "config.json").read_text())["inference_mode"]
    assert saved == ("paper" if asked == "paper" else "batch_stats")


def test_further_metrics_are_validated_logged_and_shown(tmp_path):
    validation = Small(tmp_path, metrics=["ssim", "histogram"]).fit()
    names = ["l1", "psnr", "swd", "ssim", "histogram_l", "histogram_a", "histogram_b"]
    assert all(list(validation[mode]) == names for mode in ("eval", "batch_stats", "paper"))
    assert metrics(tmp_path)[-1]["paper"] == validation["paper"]
    assert "ssim" in (tmp_path / "index.html").read_text().lower()
    with pytest.raises(ArgumentError, match="Did you mean 'ssim'"):
        Small(None, metrics=["sim"])


def test_a_segmenter_of_your_own_validates(tmp_path):
    segmenter = UNetGenerator.preset("unet_2015", 3, 4, base_channels=2, depth=3)
    validation = Small(tmp_path, segmenter=segmenter).fit()
    names = ["l1", "psnr", "swd", "texture", "layout"]
    assert all(list(validation[mode]) == names for mode in ("eval", "batch_stats", "paper"))
    assert metrics(tmp_path)[-1]["eval"] == validation["eval"]
    page = (tmp_path / "index.html").read_text()
    assert all(f"{name} ↓" in page for name in ("swd", "texture", "layout"))
    assert "| mode | l1 | psnr | swd | texture | layout |" in (tmp_path / "generator" / "README.md").read_text()
    assert not any("segmenter" in name for name in Small(None, segmenter=segmenter).method.state_dict())
    named = Small(None, segmenter=segmenter, segmenter_layers={"deep": "encoder.2"}, epochs=1).fit()
    assert list(named["eval"]) == ["l1", "psnr", "swd", "deep"]
    with pytest.raises(ArgumentError, match="frechet_distance: layers=None needs a UNetGenerator"):
        Small(None, segmenter=nn.Identity())


def test_a_run_validated_by_l1_alone_is_resumed(tmp_path, monkeypatch):
    """Its checkpoint and its log have no sliced Wasserstein distance."""
    name, old = "imtrans.training.validation.compare_modes", {"eval": 0.3, "batch_stats": 0.2, "paper": 0.1}
    with monkeypatch.context() as patch:
        patch.setattr(name, lambda *_, **__: {m: {"l1": v, "psnr": 9.0} for m, v in old.items()} | {"best": "eval"})
        Small(tmp_path, max_steps=3).fit()
    run = Small(tmp_path, max_steps=4)
    with monkeypatch.context() as patch:
        patch.setattr(name, lambda *_, **__: None)
        run.fit(resume=True)
    assert run.trainer.validation["best"] == run.method.generator.inference_mode == "eval"
    assert "swd" not in run.trainer.validation["eval"]
    run = Small(tmp_path)
    run.fit(resume=True)
    assert "swd" in run.trainer.validation["eval"]
    lines = [line for line in metrics(tmp_path) if line["kind"] == "validation"]
    assert ["swd" in line["eval"] for line in lines] == [False, True]
    assert "swd ↓" in (tmp_path / "index.html").read_text()


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    Trainer(Recorder(), numbers(1), out=tmp_path, epochs=1, **QUIET).fit()
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(TrainingError) as caught:
        Trainer(Recorder(), numbers(1), out=tmp_path, epochs=1, **QUIET).fit()
    assert str(caught.value) == (
        f"{tmp_path} already holds a run. Continue it with resume=True (--resume), or give this one another folder "
        "with out=... (--out)."
    )
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    validation = Small(None).fit()
    assert validation["best"] in validation
    assert list(tmp_path.iterdir()) == []


def test_a_method_without_pairs_or_networks_to_save_trains_all_the_same(tmp_path):
    trainer = Trainer(Recorder(), numbers(3), val_data=numbers(1), out=tmp_path, epochs=1, **QUIET)
    assert trainer.fit() is None
    assert {line["kind"] for line in metrics(tmp_path)} == {"train"}
    assert [p.name for p in checkpoints(tmp_path / "checkpoints")] == ["000000", "000003"]


def test_a_network_that_cannot_be_described_trains_and_is_resumed_all_the_same(tmp_path):
    """It was made with a callable, as people do who try out a layer of their own."""
    message = "cannot be saved, because .* The checkpoints in .* still hold its weights"
    with pytest.warns(UserWarning, match=message):
        Small(tmp_path, changes={"out_act": nn.Tanh}, max_steps=4).fit()
    resumed = Small(tmp_path, changes={"out_act": nn.Tanh})
    with pytest.warns(UserWarning, match=message):
        resumed.fit(resume=True)
    assert not (tmp_path / "generator").exists()
    whole = Small(None, changes={"out_act": nn.Tanh})
    whole.fit()
    assert equal(everything(resumed), everything(whole))


def test_validate_before_training_writes_nothing(tmp_path):
    run = Small(tmp_path / "new")
    found = run.trainer.validate()
    assert found["best"] == run.method.generator.inference_mode
    assert not (tmp_path / "new").exists()


# The loop


@pytest.mark.parametrize(("epochs", "decay_epochs"), [(4, None), (5, None), (3, 0), (3, 3), (1, None)])
def test_each_epoch_runs_at_its_rate(epochs, decay_epochs):
    method = Recorder()
    Trainer(method, numbers(2), out=None, epochs=epochs, decay_epochs=decay_epochs, lr=0.1, **QUIET).fit()
    decay = epochs // 2 if decay_epochs is None else decay_epochs
    factors = [decay_factor(epoch, epochs=epochs, decay_epochs=decay) for epoch in range(epochs) for _ in range(2)]
    assert [rates for _, rates in method.seen] == [pytest.approx([0.1 * f, 0.05 * f]) for f in factors]
    assert factors[0] == (1 if decay < epochs else 1 - 1 / (decay + 1))


@pytest.mark.parametrize(
    ("length", "batch_size", "max_steps", "expected"),
    [(5, 2, None, 6), (5, 5, None, 2), (5, 9, None, 2), (4, 2, 3, 3), (4, 2, 99, 4), (1, 1, 1, 1)],
)
def test_a_run_has_as_many_steps_as_its_epochs_or_max_steps(length, batch_size, max_steps, expected):
    method = Recorder()
    trainer = Trainer(method, numbers(length), out=None, epochs=2, batch_size=batch_size, max_steps=max_steps, **QUIET)
    trainer.fit()
    assert trainer.step == trainer.total_steps == len(method.seen) == expected
    epoch = -(-length // batch_size)
    if expected >= epoch:
        assert sorted(n for batch, _ in method.seen[:epoch] for n in batch) == list(range(length))


def test_epochs_are_shuffled_differently():
    method = Recorder()
    Trainer(method, numbers(12), out=None, epochs=3, batch_size=12, **QUIET).fit()
    assert len({tuple(batch) for batch, _ in method.seen}) == 3


def test_a_data_set_with_draw_is_asked_for_each_epoch():
    class Drawn(list):
        def draw(self, index, epoch):
            return {"number": torch.tensor(10 * epoch + index)}

    method = Recorder()
    Trainer(method, Drawn(numbers(2)), out=None, epochs=3, batch_size=2, **QUIET).fit()
    assert [sorted(batch) for batch, _ in method.seen] == [[0, 1], [10, 11], [20, 21]]


def test_the_random_state_of_the_caller_is_left_alone(tmp_path):
    run = Small(tmp_path)
    state = torch.get_rng_state()
    run.fit()
    assert torch.equal(torch.get_rng_state(), state)
    Small(tmp_path, epochs=3)
    torch.set_rng_state(state)
    run.trainer.validate()
    assert torch.equal(torch.get_rng_state(), state)


def test_train_step_returns_detached_tensors_and_writes_nothing(tmp_path, monkeypatch, device):
    monkeypatch.chdir(tmp_path)
    method = Pix2Pix(UNetGenerator(base_channels=4, depth=3), PatchDiscriminator(6, base_channels=4, n_layers=1))
    trainer = Trainer(method, out=None, device=device, precision="fp32")
    before = [p.clone() for p in method.parameters()]
    losses = trainer.train_step(
        {"source": torch.rand(2, 3, 16, 16) * 2 - 1, "target": torch.rand(2, 3, 16, 16) * 2 - 1}
    )
    assert set(losses) == {"D_fake", "D_real", "G_gan", "G_l1"}
    assert all(not loss.requires_grad and loss.device.type == device.type for loss in losses.values())
    assert not any(torch.equal(a, b) for a, b in zip(before, method.parameters(), strict=True))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_both_precisions_learn(precision, device):
    torch.manual_seed(1)
    method = Pix2Pix(UNetGenerator(base_channels=8, depth=3), PatchDiscriminator(6, base_channels=4, n_layers=1))
    trainer = Trainer(method, out=None, lr=2e-3, device=device, precision=precision)
    sample = ProceduralFacades(1, size=16, augment=False)[0]
    batch = {name: image[None].repeat(2, 1, 1, 1) for name, image in sample.items()}
    losses = [trainer.train_step(batch)["G_l1"].item() for _ in range(30)]
    assert losses[-1] < 0.6 * losses[0]
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in method.parameters())


def test_the_library_chooses_the_precision_and_says_so(tmp_path):
    trainer = Trainer(Recorder(), numbers(1), out=tmp_path, epochs=1, device="cpu", progress=False)
    trainer.fit()
    assert trainer.precision == pick_precision("auto", torch.device("cpu"))
    assert json.loads((tmp_path / "config.json").read_text())["precision"] == trainer.precision


def test_between_two_lines_of_the_log_the_loop_reads_no_value(tmp_path, monkeypatch):
    """The method counts as part of the device: it may run behind the loop."""
    reads = []
    for name in ("item", "tolist", "__bool__", "__int__", "__float__", "__index__", "cpu", "numpy"):
        original = getattr(torch.Tensor, name)

        def counted(tensor, *args, original=original, **settings):
            reads.append(original)
            return original(tensor, *args, **settings)

        monkeypatch.setattr(torch.Tensor, name, counted)
    seldom = {"log_every": 99, "sample_every": 99, "validate_every": 99, "checkpoint_every": 99, "val_data": None}
    run, before_each = Small(None, epochs=4, **seldom), []
    step = run.method.step
    run.method.step = lambda batch, optimizers: before_each.append(len(reads)) or step(batch, optimizers)
    run.fit()
    assert len(before_each) == 12
    assert len(set(before_each)) == 1


# What goes wrong


class Trap(nn.Module):
    """Passes everything on, until from step `at` on its output, or the gradient it sends back, is not finite."""

    def __init__(self, at, *, backward=False):
        super().__init__()
        self.at, self.backward, self.trainer = at, backward, None

    def forward(self, x):
        if self.trainer is None or not x.requires_grad or self.trainer.step + 1 < self.at:
            return x
        return x + (x - x.detach()).abs().sqrt() if self.backward else x / 0


def trapped(out, trap, **settings):
    """A run with `trap` in the middle of its generator."""
    run = Small(out, checkpoint_every=2, **{"log_every": 3, **settings})
    levels = [name for name, module in run.method.generator.named_modules() if isinstance(module, nn.ReLU)]
    parent, _, last = levels[0].rpartition(".")
    setattr(run.method.generator.get_submodule(parent), last, trap)
    run.trap_name = f"generator.{levels[0]}"
    trap.trainer = run.trainer
    return run


changed = pytest.mark.filterwarnings("ignore:UNetGenerator. the network differs from its description:UserWarning")
AND_NOW = " Check the data, lower the learning rate, or train in fp32, and resume: the checkpoints are from before."


@changed
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_layer_that_is_not_finite_stops_the_run_and_is_named_with_loss_and_step(tmp_path, num_workers):
    run = trapped(tmp_path, Trap(at=5), num_workers=num_workers, keep_data=num_workers == 0)
    with pytest.raises(TrainingError) as caught:
        run.fit()
    assert str(caught.value) == (
        f"D_fake became NaN or infinite at step 5. First was the output of {run.trap_name} (Trap), at step 5." + AND_NOW
    )
    assert [p.name for p in checkpoints(tmp_path / "checkpoints")] == ["000002", "000004"]
    assert [line["step"] for line in metrics(tmp_path)] == [3, 3]


@changed
def test_a_gradient_that_is_not_finite_is_found_at_the_step_and_layer_it_came_from(tmp_path):
    run = trapped(tmp_path, Trap(at=4, backward=True))
    with pytest.raises(TrainingError) as caught:
        run.fit()
    message = str(caught.value)
    assert f"First was the gradient from {run.trap_name} (Trap), at step 4." in message
    assert message.endswith(AND_NOW)
    # The weights are spoilt at once, but the losses only at the next step.
    assert [p.name for p in checkpoints(tmp_path / "checkpoints")] == ["000000", "000002"]


@changed
def test_after_the_cause_is_gone_the_run_goes_on_where_it_was_good(tmp_path):
    with pytest.raises(TrainingError):
        trapped(tmp_path / "spoilt", Trap(at=5)).fit()
    resumed, whole = trapped(tmp_path / "spoilt", Trap(at=99)), trapped(tmp_path / "whole", Trap(at=99))
    resumed.fit(resume=True)
    whole.fit()
    assert equal(everything(resumed), everything(whole))


def test_without_a_folder_the_loss_and_the_step_are_named_all_the_same():
    run = trapped(None, Trap(at=2))
    with pytest.raises(TrainingError) as caught:
        run.fit()
    assert str(caught.value) == (
        "D_fake became NaN or infinite at step 2. Without a folder there is no checkpoint from which to search for the "
        "layer." + AND_NOW.partition(", and resume")[0] + "."
    )


def test_a_loss_that_is_not_finite_is_noticed_at_the_next_reading(tmp_path):
    method = Recorder(spoil_at=4)
    trainer = Trainer(method, numbers(9), out=tmp_path, epochs=1, log_every=7, checkpoint_every=3, **QUIET)
    with pytest.raises(TrainingError) as caught:
        trainer.fit()
    assert str(caught.value) == (
        "square became NaN or infinite at step 5. It did not happen again when the steps since the last checkpoint "
        "were repeated." + AND_NOW
    )
    assert [p.name for p in checkpoints(tmp_path / "checkpoints")] == ["000000", "000003"]


def test_weights_that_are_not_finite_are_no_checkpoint(tmp_path):
    """The loss of a step is from before its update: it may be fine when the weights no longer are."""
    trainer = Trainer(Recorder(spoil_at=4), numbers(9), out=tmp_path, epochs=1, checkpoint_every=2, **QUIET)
    with pytest.raises(TrainingError, match="weight became NaN or infinite at step 4"):
        trainer.fit()
    assert [p.name for p in checkpoints(tmp_path / "checkpoints")] == ["000000", "000002"]


# Being asked to stop


@pytest.fixture
def _in_the_foreground():
    """A shell starts what runs in its background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_in_the_foreground")
def test_a_stop_at_a_step_that_is_saved_anyway_saves_it_once(tmp_path, monkeypatch):
    """With keep=1 a second save would first delete the only checkpoint."""
    run, saved = Small(tmp_path, checkpoint_every=2, keep=1), []
    step, save = run.method.step, run.trainer.folder.save_checkpoint

    def signalled(batch, optimizers):
        if run.trainer.step == 1:
            signal.raise_signal(signal.SIGTERM)
        return step(batch, optimizers)

    run.method.step = signalled
    monkeypatch.setattr(run.trainer.folder, "save_checkpoint", lambda at, state: (saved.append(at), save(at, state)))
    with pytest.raises(Stopped):
        run.fit()
    assert saved == [0, 2]


@pytest.mark.usefixtures("_in_the_foreground")
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("at", [0, 3, 5])
def test_a_signal_lets_the_step_end_and_saves(tmp_path, whole, capfd, signum, status, at):
    run = Small(tmp_path, checkpoint_every=99)
    step, before = run.method.step, signal.getsignal(signum)

    def signalled(batch, optimizers):
        if run.trainer.step == at:
            signal.raise_signal(signum)
        return step(batch, optimizers)

    run.method.step = signalled
    with pytest.raises(Stopped) as caught:
        run.fit()
    assert caught.value.code == status
    assert run.trainer.step == at + 1
    told = capfd.readouterr().err
    assert f"{signum.name}: finishing the step and saving." in told
    assert told.endswith(f"Stopped after step {at + 1} of 6, saved in {tmp_path}. Resume with fit(resume=True).\n")
    assert signal.getsignal(signum) is before
    resumed = Small(tmp_path, checkpoint_every=99)
    resumed.fit(resume=True)
    check_same_run(resumed, tmp_path, whole)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("twice", [False, True])
def test_a_process_that_is_asked_to_stop_ends_with_its_status(tmp_path, signum, status, twice):
    script = "import sys; from pathlib import Path; from test_trainer import signalled_run; "
    script += "signalled_run(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == 'True')"
    arguments = [sys.executable, "-c", script, str(tmp_path), str(int(signum)), str(twice)]
    done = subprocess.run(arguments, env=environment(), check=False, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    saved = [p.name for p in checkpoints(tmp_path / "checkpoints")]
    assert saved == (["000000"] if twice else ["000000", "000004"])


def signalled_run(out, signum, twice):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run = Small(out, checkpoint_every=99)
    step = run.method.step

    def signalled(batch, optimizers):
        if run.trainer.step == 3:
            signal.raise_signal(signum)
            if twice:
                signal.raise_signal(signum)
        return step(batch, optimizers)

    run.method.step = signalled
    run.fit()


@pytest.mark.parametrize("data", [None, []])
def test_nothing_to_train_on(tmp_path, data):
    with pytest.raises(TrainingError) as caught:
        Trainer(Recorder(), data, out=tmp_path / "run", **QUIET).fit()
    assert str(caught.value) == "Trainer: there is nothing to train on: train_data is empty. Give it samples."
    assert not (tmp_path / "run").exists()


def test_nothing_to_validate_on_is_told_before_training():
    method = Recorder()
    with pytest.raises(TrainingError) as caught:
        Trainer(method, numbers(2), val_data=[], out=None, **QUIET).fit()
    assert str(caught.value) == "Trainer: val_data is empty. Give pairs to validate on, or None."
    assert method.seen == []


@pytest.mark.parametrize("thing", [UNetGenerator(base_channels=4, depth=2), nn.Linear(1, 1)])
def test_what_is_no_method(thing):
    with pytest.raises(ArgumentError) as caught:
        Trainer(thing, numbers(1))
    assert str(caught.value) == (
        f"Trainer: {type(thing).__name__} is not a method. A method is an nn.Module with make_optimizers, step "
        "and translations. For a generator and a discriminator, use Pix2Pix(generator, discriminator)."
    )


class TwiceTheSame(Recorder):
    def translations(self):
        return [Translation("one", nn.Identity(), output=name) for name in ("fake", "other")]


def test_a_method_of_before_is_told_the_move_and_names_must_differ():
    class Before(nn.Module):
        make_optimizers, step = Recorder.make_optimizers, Recorder.step
        preview = products = None

    with pytest.raises(ArgumentError) as caught:
        Trainer(Before(), numbers(1))
    assert str(caught.value) == (
        "Trainer: Before is not a method. A method is an nn.Module with make_optimizers, step and translations. "
        "It replaces preview and products: return a Translation(name, network) for each network to save."
    )
    with pytest.raises(ArgumentError) as caught:
        Trainer(TwiceTheSame(), numbers(1))
    assert str(caught.value) == "Trainer: the translations of TwiceTheSame must differ in name, got ['one', 'one']."


WHOLE_NUMBERS = {
    "epochs": 1, "decay_epochs": 0, "max_steps": 1, "batch_size": 1, "seed": 0, "num_workers": 0, "log_every": 1,
    "sample_every": 1, "validate_every": 1, "checkpoint_every": 1, "keep": 1,
}  # fmt: skip


@pytest.mark.parametrize(("name", "least"), WHOLE_NUMBERS.items())
@pytest.mark.parametrize("off", [-1, 0.5])
def test_whole_numbers_are_checked(name, least, off):
    with pytest.raises(ArgumentError) as caught:
        Trainer(Recorder(), numbers(2), out=None, **{name: least + off})
    assert str(caught.value) == f"Trainer: {name} must be a whole number >= {least}, got {least + off}."
    Trainer(Recorder(), numbers(2), out=None, device="cpu", **{name: least})


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"lr": -0.1}, "Trainer: lr must be a number >= 0, got -0.1."),
        ({"lr": float("nan")}, "Trainer: lr must be a number >= 0, got nan."),
        ({"betas": (0.5, 1.0)}, "Trainer: betas must be two numbers from 0 to below 1, got (0.5, 1.0)."),
        ({"betas": 0.5}, "Trainer: betas must be two numbers from 0 to below 1, got 0.5."),
        ({"ema": 1.0}, "Trainer: ema must be a number between 0 and 0.999999, got 1.0."),
        ({"epochs": 2, "decay_epochs": 3}, "Trainer: decay_epochs=3 is more than epochs=2. Use at most 2."),
        (
            {"precision": "fp23"},
            "pick_precision: precision='fp23' is not one of ['auto', 'bf16', 'fp16', 'fp32']. Did you mean 'fp32'?",
        ),
    ],
)
def test_arguments_are_checked(settings, text):
    with pytest.raises(ArgumentError) as caught:
        Trainer(Recorder(), numbers(2), out=None, **settings)
    assert str(caught.value) == text


def test_a_device_that_is_not_there():
    with pytest.raises(ArgumentError) as caught:
        Trainer(Recorder(), out=None, device="gpu")
    assert str(caught.value).startswith("device='gpu' cannot be used here: ")
    assert str(caught.value).endswith("Use 'auto', or 'cpu'.")


@pytest.mark.parametrize("name", ["source", "target"])
def test_the_first_batch_must_lie_in_the_range_of_the_networks(name):
    sample = {"source": torch.zeros(3, 16, 16), "target": torch.zeros(3, 16, 16)}
    trainer = Trainer(Pix2Pix(UNetGenerator(base_channels=4, depth=2), None), [sample], out=None, device="cpu")
    with pytest.raises(ArgumentError) as caught:
        trainer.train_step({name: tensor[None] for name, tensor in (sample | {name: sample[name] + 255}).items()})
    assert str(caught.value) == (
        f"Trainer: batch['{name}'] must lie in [-1, 1], got 255 to 255. Scale the samples of the data set; pixels from "
        "0 to 255: x / 127.5 - 1."
    )
    trainer.train_step({name: tensor[None] for name, tensor in sample.items()})


def first_step(source, target):
    generator = UNetGenerator(source.shape[0], 3, base_channels=4, depth=2)
    batch = {"source": source[None], "target": target[None]}
    trainer = Trainer(Pix2Pix(generator, None), [batch], out=None, device="cpu")
    return trainer, batch


def test_images_from_0_to_1_are_warned_of_once():
    trainer, batch = first_step(torch.rand(3, 16, 16), torch.rand(3, 16, 16))
    with pytest.warns(UserWarning, match=r"no value below 0, .* scale its samples: x \* 2 - 1\.") as caught:
        trainer.train_step(batch)
    assert len(caught) == 1
    trainer.train_step(batch)


LABELS = torch.eye(4)[torch.arange(256).reshape(16, 16) % 4].permute(2, 0, 1)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (LABELS, torch.rand(3, 16, 16)),
        (torch.cat([LABELS, LABELS[:1]]), torch.rand(3, 16, 16)),  # with edges of instances
        (torch.rand(3, 16, 16), torch.ones(3, 16, 16)),
        (torch.rand(3, 16, 16), torch.rand(3, 16, 16) * 2 - 1),
        (torch.rand(3, 16, 16) * 2 - 1, torch.rand(3, 16, 16).round()),
    ],
)
def test_labels_and_light_images_are_not_warned_of(source, target):
    trainer, batch = first_step(source, target)
    trainer.train_step(batch)
