"""The losses of many steps, summed where they are until somebody reads them."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imtrans.errors import TrainingError


class Meter:
    """Adds up losses on their device. Only `means` waits for it."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0
        self._since = time.perf_counter()

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add the losses of one step."""
        for name, loss in losses.items():
            self.sums[name] = self.sums[name] + loss if name in self.sums else loss
        self.count += 1

    def means(self, step: int) -> dict[str, float]:
        """Read the means since the last restart; the one place where the loop waits for the device.

        Raises:
            TrainingError: one is not finite.
        """
        means = {name: float(total) / self.count for name, total in self.sums.items()}
        for name, mean in means.items():
            if not np.isfinite(mean):
                raise TrainingError(
                    f"the loss {name} became {mean} within the {self.count} steps before step {step}. The last "
                    "checkpoint is from before. Lower the learning rate, or look at the data."
                )
        return means

    def start(self) -> None:
        """Begin to measure time."""
        self._since = time.perf_counter()

    def restart(self) -> float:
        """Forget what was added; return how many steps a second there were."""
        now = time.perf_counter()
        rate = self.count / max(now - self._since, 1e-9)
        self.sums, self.count, self._since = {}, 0, now
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
