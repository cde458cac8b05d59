"""Networks and images with the channels last, as on a CUDA device."""

import copy

import pytest
import torch
from torch.optim import Adam

from imtrans import PatchDiscriminator, Pix2Pix, UNetGenerator
from imtrans.distributed.process_group import ProcessGroup
from imtrans.methods.optimizer_state import load_state, state_of
from imtrans.training import train_step
from imtrans.training.train_step import TrainStep

CPU = torch.device("cpu")
LAST = {"memory_format": torch.channels_last}


def made():
    torch.manual_seed(3)
    generator = UNetGenerator(base_channels=4, depth=3, dropout=())
    discriminator = PatchDiscriminator(6, base_channels=4, n_layers=1, spectral_norm=True)
    method = Pix2Pix(generator, discriminator, pool_size=2)
    settings = {"lr": 1e-3, "betas": (0.5, 0.999), "precision": "fp32", "compile": False, "ema": 0.5}
    return TrainStep(method, device=CPU, group=ProcessGroup(), **settings)


def batches():
    made = torch.Generator().manual_seed(7)
    return [{name: torch.rand(2, 3, 16, 16, generator=made) * 2 - 1 for name in ("source", "target")} for _ in range(6)]


def is_last(tensor):
    """Whether the channels are last; a 1x1 kernel would be in both formats."""
    return tensor.is_contiguous(**LAST) and not tensor.is_contiguous()


def test_on_the_cpu_nothing_is_converted():
    step, seen = made(), []
    step.method.generator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    step(batches()[0])
    assert seen[0].is_contiguous()
    assert all(p.is_contiguous() for p in step.method.parameters())


@pytest.fixture
def channels_last(monkeypatch):
    monkeypatch.setattr(train_step, "CHANNELS_LAST", ("cpu",))


def test_networks_images_moments_and_averages_have_their_channels_last(channels_last):
    step, seen = made(), []
    step.method.generator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    step(batches()[0] | {"label": torch.zeros(2, dtype=torch.long), "path": ["a", "b"]})
    assert is_last(seen[0])
    kernels = [p for p in step.method.parameters() if p.ndim == 4]
    assert all(is_last(p) for p in kernels)
    for optimizer in step.optimizers.values():
        for parameter, state in optimizer.state.items():
            assert state["exp_avg"].stride() == parameter.stride()
    assert all(is_last(average) for average in step._average.state_dict().values() if average.ndim == 4)


def test_the_format_does_not_change_what_is_learnt(monkeypatch):
    plain = made()
    monkeypatch.setattr(train_step, "CHANNELS_LAST", ("cpu",))
    other = made()
    for batch in batches():
        torch.testing.assert_close(other(batch), plain(batch), atol=1e-4, rtol=1e-4)
    for one, two in zip(other.method.parameters(), plain.method.parameters(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-3)


def contiguous(state):
    """As from a checkpoint, which keeps no memory format."""
    if isinstance(state, torch.Tensor):
        return state.clone(memory_format=torch.contiguous_format)
    if isinstance(state, dict):
        return {key: contiguous(value) for key, value in state.items()}
    return [contiguous(each) for each in state] if isinstance(state, list) else state


@pytest.mark.parametrize(("saved_last", "loaded_last"), [(True, True), (True, False), (False, True)])
def test_a_checkpoint_goes_on_in_either_format(monkeypatch, saved_last, loaded_last):
    monkeypatch.setattr(train_step, "CHANNELS_LAST", ("cpu",) if saved_last else ())
    saved = made()
    for batch in batches()[:3]:
        saved(batch)
    state = contiguous(copy.deepcopy(saved.state_dict()))
    monkeypatch.setattr(train_step, "CHANNELS_LAST", ("cpu",) if loaded_last else ())
    loaded = made()
    loaded.load_state_dict(state)
    for batch in batches()[3:]:
        found = loaded(batch)
        monkeypatch.setattr(train_step, "CHANNELS_LAST", ("cpu",) if saved_last else ())
        torch.testing.assert_close(found, saved(batch), atol=1e-4, rtol=1e-4)
        monkeypatch.setattr(train_step, "CHANNELS_LAST", ("cpu",) if loaded_last else ())


@pytest.mark.parametrize("last", [False, True])
def test_moments_are_loaded_in_the_format_of_their_parameter(last):
    parameter = torch.nn.Parameter(torch.rand(4, 3, 2, 2))
    other = torch.nn.Parameter(parameter.detach().clone(**LAST))
    if last:
        parameter, other = other, parameter
    optimizers = [Adam([each], lr=0.1, fused=True) for each in (parameter, other)]
    gradient = torch.rand(4, 3, 2, 2)
    parameter.grad = torch.empty_like(parameter).copy_(gradient)
    optimizers[0].step()
    with torch.no_grad():
        other.copy_(parameter)
    load_state(optimizers[1], copy.deepcopy(state_of(optimizers[0])))
    moments = optimizers[1].state[other]
    assert moments["exp_avg"].stride() == moments["exp_avg_sq"].stride() == other.stride()
    other.grad = torch.empty_like(other).copy_(gradient)
    for optimizer in optimizers:
        optimizer.step()
    torch.testing.assert_close(other, parameter)
