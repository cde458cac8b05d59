"""Training step of a method on a device: data transfer, precision, CUDA graph, several processes."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from imtrans.checks import in_range
from imtrans.data.codec import check_batch_values
from imtrans.data.loader import Batch
from imtrans.distributed.data_parallel import batch_shard, shard_sizes
from imtrans.distributed.process_group import ProcessGroup
from imtrans.distributed.sync_batchnorm import convert_sync_batchnorm
from imtrans.methods.base import Method
from imtrans.methods.optim import learning_rates, load_state, scale_losses, set_learning_rates, state_of
from imtrans.nn.blocks import cancelled_biases
from imtrans.runtime import pick_precision, random_state, set_random_state
from imtrans.training.cuda_graph import check_compile, prepare

AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TrainStep:
    """Runs the training step of a method, and holds the state that it changes: weights, optimizers, random state.

    Several processes each train on a shard of the batch, and start with the weights of rank 0.

    Args:
        device: device to train on.
        group: processes that share each step.

    The other arguments are as for `imtrans.training.trainer.Trainer`.

    Raises:
        ArgumentError: a value that is not allowed, or processes whose networks differ.
    """

    def __init__(
        self,
        method: nn.Module,
        *,
        lr: float,
        betas: tuple[float, float],
        precision: str,
        compile: bool | str,
        device: torch.device,
        group: ProcessGroup,
    ) -> None:
        self.lr = in_range("Trainer", "lr", lr, 0.0)
        self.device, self.group = device, group
        self.precision = pick_precision(precision, device)
        self._compile = check_compile("Trainer", compile, device, processes=group.world_size)
        self.method = method.to(device).train()
        for bias in cancelled_biases(method):
            bias.requires_grad_(False)
        if group.world_size > 1:
            group.check_same(networks=[tuple(p.shape) for p in method.parameters()], precision=self.precision)
            convert_sync_batchnorm(method)
            group.broadcast([*method.parameters(), *method.buffers()])
        self.optimizers = cast(Method, method).make_optimizers(lr, betas)
        self._learning_rates = learning_rates(self.optimizers)
        if self.precision == "fp16":
            scale_losses(self.optimizers, device)
        self._run = prepare(self._run_uncaptured, self.optimizers, device, compile=self._compile)
        self._values_checked = False

    def __call__(self, batch: Batch, *, samples: int | None = None, capture: bool = True) -> dict[str, Tensor]:
        """Train on a batch; return the losses as detached scalars on the device.

        Args:
            batch: this rank's shard of the batch.
            samples: size of the whole batch; None if all shards have the size of this one.
            capture: whether the CUDA graph runs, if there is one.

        Raises:
            ArgumentError: the first batch has a source or target outside [-1, 1].
        """
        if not self._values_checked:  # once: reading values waits for the device
            check_batch_values("Trainer", batch)
            self._values_checked = True
        run = self._run if capture else self._run_uncaptured
        size = self.group.world_size
        sizes = [len(next(iter(batch.values())))] * size if samples is None else shard_sizes(samples, size)
        with batch_shard(self.group, sizes) as shard:
            losses = run({name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()})
        return losses if shard is None else shard.mean(losses)

    def _run_uncaptured(self, batch: Batch) -> dict[str, Tensor]:
        with torch.autocast(self.device.type, AUTOCAST[self.precision], enabled=self.precision != "fp32"):
            return cast(Method, self.method).step(batch, self.optimizers)

    def set_lr_factor(self, factor: float) -> None:
        """Set each learning rate to `factor` times the value that the method chose."""
        set_learning_rates(self.optimizers, self._learning_rates, factor)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the method, of its optimizers, and of the random generators of all ranks."""
        return {
            "method": self.method.state_dict(),
            "optimizers": {name: state_of(optimizer) for name, optimizer in self.optimizers.items()},
            "random": self.group.all_gather_object(random_state(self.device)),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned. A rank that the state does not have keeps its random state.

        Raises:
            RuntimeError, KeyError, ValueError, TypeError, AttributeError: the state of another method or network.
        """
        self.method.load_state_dict(state["method"])
        for name, optimizer in self.optimizers.items():
            load_state(optimizer, state["optimizers"][name])
        for random in state["random"][self.group.rank : self.group.rank + 1]:
            set_random_state(random, self.device)
        # A CUDA graph captured before is discarded.
        self._run = prepare(self._run_uncaptured, self.optimizers, self.device, compile=self._compile)
