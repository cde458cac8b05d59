"""A method's training step as a device runs it: moved there, in its precision, captured where that can be done."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from imtrans.capture import check_compile, prepare
from imtrans.checkpoint import gather, restore
from imtrans.errors import in_range
from imtrans.init import pick_device, pick_precision
from imtrans.loading import Batch
from imtrans.method import Method
from imtrans.optimizing import rates, scale_losses, set_rates

AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Stepper:
    """Runs the steps of a method, and holds what they change: its weights, its optimizers, the random numbers.

    Arguments, and what is raised: as for `imtrans.trainer.Trainer`.
    """

    def __init__(
        self,
        method: nn.Module,
        *,
        lr: float,
        betas: tuple[float, float],
        precision: str,
        compile: bool | str,
        device: str | torch.device,
    ) -> None:
        self.lr = in_range("Trainer", "lr", lr, 0.0)
        self.device = pick_device(device)
        self.precision = pick_precision(precision, self.device)
        self._compile = check_compile("Trainer", compile, self.device)
        self.method = method.to(self.device).train()
        self.optimizers = cast(Method, method).make_optimizers(lr, betas)
        self._rates = rates(self.optimizers)
        if self.precision == "fp16":
            scale_losses(self.optimizers, self.device)
        self._run = prepare(self._plain, self.optimizers, self.device, compile=self._compile)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Train on a batch; return the losses as detached scalars on the device."""
        return self._run(self.moved(batch))

    def plainly(self, batch: Batch) -> dict[str, Tensor]:
        """The same, never captured."""
        return self._plain(self.moved(batch))

    def moved(self, batch: Batch) -> Batch:
        """The batch on the device."""
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}

    def _plain(self, batch: Batch) -> dict[str, Tensor]:
        with torch.autocast(self.device.type, AUTOCAST[self.precision], enabled=self.precision != "fp32"):
            return cast(Method, self.method).step(batch, self.optimizers)

    def set_rate(self, factor: float) -> None:
        """Let the learning rates be `factor` times those that the method chose."""
        set_rates(self.optimizers, self._rates, factor)

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return gather(self.method, self.optimizers, self.device)

    def load(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave, and record the step anew; see `imtrans.checkpoint.fitting`."""
        restore(state, self.method, self.optimizers, self.device)
        self._run = prepare(self._plain, self.optimizers, self.device, compile=self._compile)
