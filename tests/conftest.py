"""Shared by all tests: hypothesis profiles, one thread for each worker, a known random state, pages in a browser."""

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


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request):
    """Every device of this machine."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA card on this machine")
    return torch.device(request.param)
