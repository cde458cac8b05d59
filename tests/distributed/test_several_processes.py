"""Two processes with batch 1 train the networks that one process with batch 2 does."""

import json
from pathlib import Path

import pytest
import torch
from processes import together
from torch import nn

from imtrans import PatchDiscriminator, Pix2Pix, ProceduralFacades, Trainer, UNetGenerator, init_weights
from imtrans.distributed.data_parallel import current_shard
from imtrans.distributed.process_group import init_process_group
from imtrans.errors import ArgumentError, TrainingError
from imtrans.training.checkpoint import checkpoints, load_checkpoint

CPU = torch.device("cpu")


def group():
    return init_process_group(CPU)


STEPS = 9  # three epochs of five samples: the last step of each has one


def make(out, *, norm="instance", dropout=(), sharp=False, **settings):
    """A run with a pool; smooth, so that rounding does not turn a kink into another gradient."""
    torch.manual_seed(7 + group().rank)  # the first process's weights must become those of all
    smooth = {"norm": norm, "act": "silu"}
    up = {"upsample": "nearest" if sharp else "deconv", "decoder_act": "silu"}
    generator = UNetGenerator(base_channels=4, depth=3, dropout=dropout, **up, **smooth)
    discriminator = PatchDiscriminator(6, base_channels=4, n_layers=1, spectral_norm=sharp, **smooth)
    for network in (generator, discriminator):
        init_weights(network)
    arguments = {
        "batch_size": 2 // group().world_size,
        "epochs": 3,
        "val_data": ProceduralFacades(3, size=16, seed=1, augment=False),
        "log_every": 2,
        "checkpoint_every": 2,
        "validate_every": 1,
        "sample_every": 3,
        "device": "cpu",
        "precision": "fp32",
        "progress": False,
        **settings,
    }
    method = Pix2Pix(generator, discriminator, pool_size=3, feature_weight=10.0 if sharp else 0.0)
    return Trainer(method, ProceduralFacades(5, size=16), out=out, **arguments)


def trained(out, *, resume=False, **settings):
    trainer = make(out, **settings)
    validation = trainer.fit(resume=resume)
    return {"state": trainer.method.state_dict(), "validation": validation}


def steps_draw():
    """The random numbers that the processes draw in a step must not be the same."""
    trainer, seen = make(None, dropout=(0.5,), max_steps=2), []
    dropout = next(m for m in trainer.method.modules() if isinstance(m, nn.Dropout))

    def note(module, inputs, output):
        if current_shard() is not None:
            seen.append((output == 0).tolist())

    dropout.register_forward_hook(note)
    trainer.fit()
    return seen


class Spoilt(Pix2Pix):
    """In the second process, one picture of the fifth step is NaN."""

    def step(self, batch, optimizers):
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps == 5 and group().rank == 1:
            batch = {**batch, "source": batch["source"] * float("nan")}
        return super().step(batch, optimizers)


def nan_in_one(out):
    trainer = make(out)
    trainer.method.__class__ = Spoilt
    try:
        trainer.fit()
    except TrainingError as error:
        return str(error)


def refused():
    found = []
    for make_it in (lambda: make(None, compile=True), lambda: make(None, batch_size=1 + group().rank)):
        try:
            make_it()
        except ArgumentError as error:
            found.append(str(error))
    return found


def all_cases(folder):
    folder = Path(folder)
    init_process_group(CPU)
    found = {
        "whole": trained(folder / "two"),
        "batch": trained(None, norm="batch"),
        "sharp": trained(None, norm="batch", sharp=True),
        "resumed from one": trained(folder / "one", resume=True),
        "whole with dropout": trained(folder / "whole", dropout=(0.5,)),
        "draws": steps_draw(),
    }
    trained(folder / "stopped", dropout=(0.5,), max_steps=4)
    found["resumed with dropout"] = trained(folder / "stopped", dropout=(0.5,), resume=True)
    found["averaged"] = trained(folder / "averaged", ema=0.5)
    trained(folder / "to one", max_steps=4)
    found["nan"] = nan_in_one(folder / "nan")
    found["refused"] = refused()
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    trained(folder / "one", max_steps=4)
    return folder


@pytest.fixture(scope="module")
def found(folder):
    first, second = together("test_several_processes", "all_cases", folder, folder)
    return {name: [first[name], second[name]] for name in first}


@pytest.fixture(scope="module")
def alone():
    return trained(None)


def check_same(one, other):
    torch.testing.assert_close(one["state"], other["state"], atol=1e-5, rtol=1e-5)


def test_weights_and_pool_are_those_of_one_process(found, alone):
    for each in found["whole"]:
        check_same(each, alone)
    assert len(alone["state"]["pool._extra_state"]["images"]) == 3


@pytest.mark.parametrize("sharp", [False, True])
def test_weights_and_statistics_are_those_of_one_process_with_batch_norm(found, sharp):
    alone = trained(None, norm="batch", sharp=sharp)
    for each in found["sharp" if sharp else "batch"]:
        check_same(each, alone)


def test_both_have_the_same_bit_for_bit(found):
    for name in ("whole", "batch", "sharp", "resumed from one", "whole with dropout"):
        first, second = found[name]
        torch.testing.assert_close(first["state"], second["state"], atol=0, rtol=0)
        assert first["validation"] == second["validation"]


def test_the_average_is_the_one_of_one_process(found, folder):
    trained(folder / "averaged alone", ema=0.5)
    one, two = (load_checkpoint(folder / name / "checkpoints" / "000009") for name in ("averaged alone", "averaged"))
    torch.testing.assert_close(two["average"], one["average"], atol=1e-5, rtol=1e-5)
    saved = UNetGenerator.from_pretrained(folder / "averaged" / "generator").state_dict()
    averages = {name.removeprefix("generator."): average for name, average in two["average"].items()}
    assert all(torch.equal(saved[name], average) for name, average in averages.items())


def test_two_go_on_where_one_has_stopped(found, alone):
    for each in found["resumed from one"]:
        check_same(each, alone)


def test_one_goes_on_where_two_have_stopped(found, folder, alone):
    check_same(trained(folder / "to one", resume=True), alone)


def test_dropout_differs_between_processes(found):
    first, second = found["draws"]
    assert len(first) == len(second) == 2
    assert all(one != other for one, other in zip(first, second, strict=True))


def test_two_that_are_resumed_end_bit_for_bit_like_two_that_were_never_stopped(found):
    for resumed, whole in zip(found["resumed with dropout"], found["whole with dropout"], strict=True):
        torch.testing.assert_close(resumed["state"], whole["state"], atol=0, rtol=0)
        assert resumed["validation"] == whole["validation"]


def test_the_first_one_writes_what_a_run_leaves_behind(found, folder):
    out = folder / "two"
    assert [p.name for p in checkpoints(out / "checkpoints")] == ["000008", "000009"]
    assert sorted(p.name for p in (out / "samples").iterdir()) == ["000003.png", "000006.png", "000009.png"]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [2, 4, 6, 8, 9]
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [3, 6, 9]
    config = json.loads((out / "config.json").read_text())
    assert (config["batch_size"], config["processes"]) == (1, 2)
    assert "| processes | 2 |" in (out / "generator" / "README.md").read_text()
    state = load_checkpoint(out / "checkpoints" / "000009")
    assert len(state["random"]) == 2


def test_logged_losses_are_those_of_the_whole_batch(found, folder):
    one, two = folder / "logged", folder / "two"
    trained(one)
    losses = [
        [json.loads(line).get("losses") for line in (out / "metrics.jsonl").read_text().splitlines()]
        for out in (one, two)
    ]
    torch.testing.assert_close(losses[0], losses[1], atol=1e-5, rtol=1e-5)


def test_a_nan_in_one_process_stops_both_and_is_named(found, folder):
    first, second = found["nan"]
    assert first == second
    assert "became NaN or infinite at step 5." in first
    assert [p.name for p in checkpoints(folder / "nan" / "checkpoints")] == ["000002", "000004"]


def test_what_cannot_be_done_in_two_processes_is_refused_in_both(found):
    assert (
        found["refused"]
        == [
            [
                "Trainer: compile=True captures the step as a CUDA graph, and the device is cpu. Use 'auto'.",
                "the processes of this run differ in data: 5 samples in batches of 2 on rank 0, 5 samples in "
                "batches of 4 on rank 1. Start all with the same arguments, data and version.",
            ]
        ]
        * 2
    )
