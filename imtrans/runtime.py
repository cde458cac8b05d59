"""The choice of device and precision, and the state of the random generators."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

from imtrans.checks import at_least, one_of
from imtrans.errors import ArgumentError


def pick_device(device: str | torch.device = "auto") -> torch.device:
    """Return a `torch.device`: ``"auto"`` is CUDA, else MPS, else the CPU.

    Under torchrun, ``"auto"`` and ``"cuda"`` are the GPU of the local rank.

    Raises:
        ArgumentError: this machine has no such device.

    >>> pick_device("cpu")
    device(type='cpu')
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        if chosen.type == "cuda" and chosen.index is None:
            chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ArgumentError(f"device={str(device)!r} cannot be used here: {reason}. Use 'auto', or 'cpu'.") from error
    return chosen


def pick_precision(precision: str, device: torch.device) -> str:
    """Return ``"fp32"``, ``"bf16"`` or ``"fp16"``.

    ``"auto"`` is bf16 on GPUs and CPUs that multiply it in hardware (CPUs: AVX-512 BF16, AMX), fp16 on other CUDA GPUs,
    and fp32 elsewhere.

    Raises:
        ArgumentError: another name, or fp16 without a CUDA GPU.
    """
    one_of("pick_precision", "precision", precision, ("auto", "fp32", "bf16", "fp16"))
    if precision == "fp16" and device.type != "cuda":
        raise ArgumentError(
            f"pick_precision: precision='fp16' needs a CUDA GPU, the device is {device}. Use 'auto', 'bf16' or 'fp32'."
        )
    if precision != "auto":
        return precision
    if device.type == "cuda":
        with torch.cuda.device(device):
            return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and _cpu_has_bf16() else "fp32"


def _cpu_has_bf16() -> bool:
    cpu = cast(Any, torch.cpu)
    if hasattr(cpu, "get_capabilities"):
        capabilities = cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    known = getattr(cpu, "_is_avx512_bf16_supported", None)
    return bool(known and known())


def fork_rng(device: torch.device) -> Any:
    """Context manager that restores the random state at its end."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


@contextmanager
def seeded(owner: str, seed: int | None, device: torch.device) -> Iterator[None]:
    """Context manager that draws from `seed` and restores the random state; None leaves the global generator as is.

    Raises:
        ArgumentError: a seed that is not a whole number from 0.
    """
    if seed is None:
        yield
        return
    at_least(owner, "seed", seed, 0, 2**63 - 1)
    with fork_rng(device):
        torch.manual_seed(seed)
        yield


def random_state(device: torch.device) -> dict[str, Tensor]:
    """State of PyTorch's global generators: ``"cpu"``, and ``"cuda"`` for a CUDA device."""
    cuda = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"cpu": torch.get_rng_state(), **cuda}


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Restore the result of `random_state`. The state of a CUDA generator is ignored on other devices."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
