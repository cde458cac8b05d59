"""Two processes train one network with noise: each draws its own, both have the same weights, and resume exactly."""

from pathlib import Path

import pytest
import torch
from processes import together
from test_several_processes import CPU, group

from imtrans import PatchDiscriminator, Pix2Pix, ProceduralFacades, Trainer, UNetGenerator
from imtrans.distributed.process_group import init_process_group
from imtrans.methods import pix2pix
from imtrans.nn.noise import draw_noise


def make(out, **settings):
    torch.manual_seed(7)
    generator = UNetGenerator(base_channels=4, depth=3, dropout=(), noise_channels=5)
    method = Pix2Pix(generator, PatchDiscriminator(6, base_channels=4, n_layers=1), diversity_weight=0.5)
    often = {"epochs": 2, "log_every": 1, "checkpoint_every": 1}
    quiet = {"device": "cpu", "precision": "fp32", "progress": False}
    # Five samples: in the last step of each epoch, one process has none of its own.
    return Trainer(method, ProceduralFacades(5, size=16), out=out, batch_size=1, **often, **quiet, **settings)


def trained(out, *, resume=False, **settings):
    trainer, noises = make(out, **settings), []

    def draw(*arguments):
        noise = draw_noise(*arguments)
        noises.append(noise.tolist())
        return noise

    pix2pix.draw_noise = draw
    trainer.fit(resume=resume)
    return {"state": trainer.method.state_dict(), "noises": noises}


def all_cases(folder):
    folder = Path(folder)
    init_process_group(CPU)
    assert group().world_size == 2
    whole = trained(folder / "whole")
    trained(folder / "stopped", max_steps=2)
    return {"whole": whole, "resumed": trained(folder / "stopped", resume=True)}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return together("test_noise_in_processes", "all_cases", folder, folder)


def test_both_have_the_same_weights_from_noise_that_differs(found):
    first, second = (each["whole"] for each in found)
    torch.testing.assert_close(first["state"], second["state"], atol=0, rtol=0)
    assert len(first["noises"]) == len(second["noises"]) == 2 * 6  # two outputs in each of six steps
    assert all(one != other for one, other in zip(first["noises"], second["noises"], strict=True))


def test_resumed_they_end_bit_for_bit_like_two_that_were_never_stopped(found):
    for each in found:
        torch.testing.assert_close(each["resumed"]["state"], each["whole"]["state"], atol=0, rtol=0)
        assert each["resumed"]["noises"] == each["whole"]["noises"][4:]
