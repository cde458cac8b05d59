"""Shared by all tests: hypothesis profiles, one thread for each worker, a known random state, devices, a browser."""

import os

import pytest
import torch
from chromium import browser_fixture, open_page_fixture  # noqa: F401
from hypothesis import HealthCheck, settings

settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ci" if os.environ.get("CI") else "dev")

# Two workers with a thread for each core would wait for one another at every barrier.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
    """Each test draws from a known state, whatever ran before it."""
    torch.manual_seed(0)


_card_is_available = torch.cuda.is_available
if _card_is_available():
    torch.cuda.init(), torch.cuda.device_count()  # so that this process keeps the cards that it hides from others
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # of the commands that tests start


@pytest.fixture(autouse=True, scope="session")
def _auto_is_the_cpu():
    """A test that names no device runs on the CPU, on a machine with a card too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield


@pytest.fixture(autouse=True)
def _card(request, monkeypatch, _auto_is_the_cpu):
    """A test that is marked `cuda` sees the card, and numbers there are those of fp32."""
    if request.node.get_closest_marker("cuda"):
        monkeypatch.setattr(torch.cuda, "is_available", _card_is_available)
        if not torch.cuda.is_available():
            pytest.skip("no CUDA card on this machine")
        for name, value in {"allow_tf32": False, "deterministic": True}.items():
            monkeypatch.setattr(torch.backends.cudnn, name, value)


@pytest.fixture(params=["cpu", pytest.param("cuda:0", marks=pytest.mark.cuda)])
def device(request):
    """Every device of this machine."""
    return torch.device(request.param)
