"""Running means of the losses."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class LossMeter:
    """Sums losses on their device, in float32, and measures steps per second.

    Only `means` and `first_non_finite` wait for the device. `add` launches five kernels for any number of losses.
    """

    def __init__(self) -> None:
        self.count = 0
        # By the names of the losses, because some steps may have others.
        self._sums: dict[tuple[str, ...], Tensor] = {}
        self._bad: dict[tuple[str, ...], Tensor] = {}  # in how many steps each sum was NaN or infinite
        self._steps: dict[tuple[str, ...], list[int]] = {}
        self._start = time.perf_counter()

    @property
    def sums(self) -> dict[str, Tensor]:
        """Sum of each loss since the last reset."""
        sums: dict[str, Tensor] = {}
        for names, totals in self._sums.items():
            for name, total in zip(names, totals.unbind(), strict=True):
                sums[name] = sums[name] + total if name in sums else total
        return sums

    def add(self, losses: Mapping[str, Tensor], step: int) -> None:
        """Add the losses of `step`."""
        self.count += 1
        if names := tuple(losses):
            values = torch.stack([loss.float() for loss in losses.values()])
            total = self._sums[names] = self._sums[names] + values if names in self._sums else values
            bad = (total * 0).ne(0)  # 0 times a value that is not finite is NaN
            self._bad[names] = self._bad[names] + bad if names in self._bad else bad.long()
            self._steps.setdefault(names, []).append(step)

    def means(self) -> dict[str, float]:
        """Return the mean of each loss since the last reset. Waits for the device."""
        names, totals = [*self.sums], [*self.sums.values()]
        values = torch.stack(totals).tolist() if totals else []  # waits once
        return {name: total / self.count for name, total in zip(names, values, strict=True)}

    def first_non_finite(self) -> tuple[str, int] | None:
        """Return the first loss since the last reset that was NaN or infinite, and its step. Waits for the device."""
        found = [
            (name, self._steps[names][-bad])  # a sum that is not finite stays so
            for names, counts in self._bad.items()
            for name, bad in zip(names, counts.tolist(), strict=True)
            if bad
        ]
        return min(found, key=lambda each: each[1], default=None)

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
        self._sums, self._bad, self._steps, self.count = {}, {}, {}, 0
        self.start_timer()
        return rate

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {"sums": self.sums, "logged": self.count}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Load what `state_dict` returned."""
        sums = {name: total.to(device).float() for name, total in state["sums"].items()}
        self._sums = {tuple(sums): torch.stack([*sums.values()])} if sums else {}
        self._bad, self._steps, self.count = {}, {}, state["logged"]
