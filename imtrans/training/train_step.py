"""A method's training step as a device runs it: moved there, in its precision, captured where that can be done."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from imtrans.checks import in_range
from imtrans.data.loader import Batch
from imtrans.distributed.data_parallel import batch_shard, shard_sizes
from imtrans.distributed.process_group import init_process_group
from imtrans.distributed.sync_batchnorm import convert_sync_batchnorm
from imtrans.methods.base import Method
from imtrans.methods.loss_scale import scale_losses, without_scale
from imtrans.methods.optimizer_state import learning_rates, set_learning_rates
from imtrans.nn.blocks import cancelled_biases
from imtrans.runtime import pick_device, pick_precision
from imtrans.training.checkpoint import gather, restore
from imtrans.training.cuda_graph import check_compile, prepare
from imtrans.training.nan_check import non_finite_weight

AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TrainStep:
    """Runs the steps of a method, and holds what they change: its weights, its optimizers, the random numbers.

    Where torchrun has started several processes, they shard each step, and begin with the weights of the first one.

    Arguments, and what is raised: as for `imtrans.training.trainer.Trainer`.
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
        self.group = init_process_group(self.device)
        self._compile = check_compile("Trainer", compile, self.device, processes=self.group.world_size)
        self.method = method.to(self.device).train()
        for bias in cancelled_biases(self.method):
            bias.requires_grad_(False)
        if self.group.world_size > 1:
            self._share_networks()
        self.optimizers = cast(Method, method).make_optimizers(lr, betas)
        self._learning_rates = learning_rates(self.optimizers)
        if self.precision == "fp16":
            scale_losses(self.optimizers, self.device)
        self._run = prepare(self._uncaptured, self.optimizers, self.device, compile=self._compile)

    def _share_networks(self) -> None:
        self.group.check_same(networks=[tuple(p.shape) for p in self.method.parameters()], precision=self.precision)
        convert_sync_batchnorm(self.method)
        self.group.broadcast([*self.method.parameters(), *self.method.buffers()])

    def __call__(self, batch: Batch, *, samples: int | None = None) -> dict[str, Tensor]:
        """Train on a batch; return the losses as detached scalars on the device.

        Args:
            batch: in several processes, the part of it that this one has.
            samples: how many all of them have; if None, each one has as many as this one.
        """
        return self._shared(self._run, batch, samples)

    def uncaptured(self, batch: Batch, *, samples: int | None = None) -> dict[str, Tensor]:
        """The same, never captured."""
        return self._shared(self._uncaptured, batch, samples)

    def _shared(
        self, run: Callable[[Batch], dict[str, Tensor]], batch: Batch, samples: int | None
    ) -> dict[str, Tensor]:
        size = self.group.world_size
        each = [len(next(iter(batch.values())))] * size if samples is None else shard_sizes(samples, size)
        with batch_shard(self.group, each) as shard:
            losses = run(self.moved(batch))
        return losses if shard is None else shard.mean(losses)

    def moved(self, batch: Batch) -> Batch:
        """The batch on the device."""
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}

    def _uncaptured(self, batch: Batch) -> dict[str, Tensor]:
        with torch.autocast(self.device.type, AUTOCAST[self.precision], enabled=self.precision != "fp32"):
            return cast(Method, self.method).step(batch, self.optimizers)

    def non_finite(self) -> str | None:
        """What holds NaN or infinity now: a weight, or in fp16 the gradients, whatever their scale; this waits."""
        optimizer = without_scale(self.optimizers)
        return non_finite_weight(self.method) if optimizer is None else f"each gradient of the optimizer {optimizer}"

    def set_lr_factor(self, factor: float) -> None:
        """Let the learning learning_rates be `factor` times those that the method chose."""
        set_learning_rates(self.optimizers, self._learning_rates, factor)

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return gather(self.method, self.optimizers, self.device)

    def load(self, state: dict[str, Any]) -> None:
        """Take up what `state` gave, and record the step anew; see `imtrans.training.checkpoint.fitting`."""
        restore(state, self.method, self.optimizers, self.device)
        self._run = prepare(self._uncaptured, self.optimizers, self.device, compile=self._compile)
