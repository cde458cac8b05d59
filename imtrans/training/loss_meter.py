"""The losses of many steps, summed where they are until somebody reads them."""

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

NEVER = 2**62


class LossMeter:
    """Adds up losses on their device. Only `means` waits for it."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0
        self._non_finite: dict[str, Tensor] = {}
        self._since = time.perf_counter()

    def add(self, losses: Mapping[str, Tensor], step: int) -> None:
        """Add the losses of `step`."""
        for name, loss in losses.items():
            self.sums[name] = self.sums[name] + loss if name in self.sums else loss
            non_finite = torch.where(loss.isfinite(), NEVER, step)
            self._non_finite[name] = (
                non_finite.minimum(self._non_finite[name]) if name in self._non_finite else non_finite
            )
        self.count += 1

    def means(self) -> dict[str, float]:
        """Read the means since the last restart; this waits for the device."""
        return {name: float(total) / self.count for name, total in self.sums.items()}

    def first_non_finite(self) -> tuple[str, int] | None:
        """The loss that was the first to be NaN or infinite since the last restart, and the step at which it was."""
        steps = {name: int(step) for name, step in self._non_finite.items()}
        name = min(steps, key=lambda name: steps[name], default=None)
        return None if name is None or steps[name] == NEVER else (name, steps[name])

    def start(self) -> None:
        """Begin to measure time."""
        self._since = time.perf_counter()

    def restart(self) -> float:
        """Forget what was added; return how many steps a second there were."""
        now = time.perf_counter()
        rate = self.count / max(now - self._since, 1e-9)
        self.sums, self._non_finite, self.count, self._since = {}, {}, 0, now
        return rate

    def pause(self, since: float) -> None:
        """Leave out the time `since` then: it was not spent on training."""
        self._since += time.perf_counter() - since

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"sums": self.sums, "logged": self.count}

    def load(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Take up what `state` gave."""
        self.sums = {name: total.to(device) for name, total in state["sums"].items()}
        self.count = state["logged"]
