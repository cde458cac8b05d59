"""Running means of the losses."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

NEVER = 2**62  # a step that no run reaches


class LossMeter:
    """Sums losses on their device, and measures steps per second. Only `means` and `first_non_finite` wait."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0
        self._non_finite: dict[str, Tensor] = {}  # the first step at which each loss was NaN or infinite, or NEVER
        self._start = time.perf_counter()

    def add(self, losses: Mapping[str, Tensor], step: int) -> None:
        """Add the losses of `step`."""
        for name, loss in losses.items():
            self.sums[name] = self.sums[name] + loss if name in self.sums else loss
            found = torch.where(loss.isfinite(), NEVER, step)
            self._non_finite[name] = found.minimum(self._non_finite[name]) if name in self._non_finite else found
        self.count += 1

    def means(self) -> dict[str, float]:
        """Return the mean of each loss since the last reset. Waits for the device."""
        return {name: float(total) / self.count for name, total in self.sums.items()}

    def first_non_finite(self) -> tuple[str, int] | None:
        """Return the first loss since the last reset that was NaN or infinite, and its step. Waits for the device."""
        steps = [(name, int(step)) for name, step in self._non_finite.items()]
        return min((found for found in steps if found[1] != NEVER), key=lambda found: found[1], default=None)

    def start_timer(self) -> None:
        """Start to measure the time of the steps."""
        self._start = time.perf_counter()

    @contextmanager
    def timer_paused(self) -> Iterator[None]:
        """Context manager whose time does not count: nothing is trained in it."""
        start = time.perf_counter()
        yield
        self._start += time.perf_counter() - start

    def reset(self) -> float:
        """Clear the sums and restart the timer; return the steps per second since the last reset."""
        rate = self.count / max(time.perf_counter() - self._start, 1e-9)
        self.sums, self.count, self._non_finite = {}, 0, {}
        self.start_timer()
        return rate

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"sums": self.sums, "logged": self.count}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Load what `state_dict` returned."""
        self.sums = {name: total.to(device) for name, total in state["sums"].items()}
        self.count = state["logged"]
