"""Training step of a method on a device: data transfer, precision, CUDA graph, several processes."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from imtrans.checks import in_range
from imtrans.data.codec import check_batch_values
from imtrans.data.loader import Batch, check_columns, check_sample, to_device
from imtrans.distributed.data_parallel import batch_shard, current_shard, shard_sizes
from imtrans.distributed.process_group import ProcessGroup
from imtrans.distributed.sync_batchnorm import convert_sync_batchnorm
from imtrans.errors import ArgumentError, short_repr
from imtrans.methods.base import Method
from imtrans.methods.ema import WeightAverage
from imtrans.methods.loss_scale import scale_losses
from imtrans.methods.optimizer_state import learning_rates, load_state, set_learning_rates, state_of
from imtrans.nn.blocks import cancelled_biases
from imtrans.runtime import pick_precision, random_state, set_random_state
from imtrans.training.cuda_graph import Step, check_compile, prepare

AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CHANNELS_LAST = ("cuda",)
"""Types of devices on which networks and images are stored with the channels last, as convolutions there want them."""


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
        ema: float | None = None,
    ) -> None:
        self.lr = in_range("Trainer", "lr", lr, 0.0)
        self.device, self.group = device, group
        self.precision = pick_precision(precision, device)
        self._compile = check_compile("Trainer", compile, device)
        self.method = method.to(device).train()
        _refuse_half(method)
        for bias in cancelled_biases(method):
            bias.requires_grad_(False)
        if group.world_size > 1:
            group.check_same(networks=[tuple(p.shape) for p in method.parameters()], precision=self.precision)
            convert_sync_batchnorm(method)
            group.broadcast([*method.parameters(), *method.buffers()])
        if device.type in CHANNELS_LAST:
            for parameter in method.parameters():
                parameter.data = _channels_last(parameter.data)
        self.optimizers = cast(Method, method).make_optimizers(self.lr, _check_betas(betas))
        self._learning_rates = learning_rates(self.optimizers)
        if self.precision == "fp16":
            scale_losses(self.optimizers, device)
        networks = {each.name: each.network for each in cast(Method, method).translations()}
        self._average = None if ema is None else WeightAverage(networks, ema)
        self._run = self._captured()
        self._values_checked = False

    def __call__(self, batch: Batch, *, samples: int | None = None, capture: bool = True) -> dict[str, Tensor]:
        """Train on a batch; return the losses as detached scalars on the device.

        Args:
            batch: this rank's shard of the batch. Only tensors are moved to the device.
            samples: size of the whole batch; None if all shards have the size of this one.
            capture: whether the CUDA graph runs, if there is one.

        Raises:
            DataError: a batch that is no dict, or that lacks a column of the method's translations.
            ArgumentError: the first batch has a source or target outside [-1, 1].
        """
        check_sample("Trainer", batch)
        if not self._values_checked:  # once: reading values waits for the device
            check_batch_values("Trainer", batch, warn=self.group.is_rank0)
            self._values_checked = True
        run = self._run if capture else self._run_uncaptured
        size = self.group.world_size
        sizes = [len(next(iter(batch.values())))] * size if samples is None else shard_sizes(samples, size)
        with batch_shard(self.group, sizes):
            try:
                losses = run(to_device(batch, self.device))
            except KeyError as error:
                columns = {c for t in cast(Method, self.method).translations() for c in (t.source, t.target)}
                if columns.intersection(error.args):
                    check_columns("Trainer", batch, sorted(columns))
                raise
        if self._average is not None:
            self._average.update()
        return losses

    def averaged(self) -> AbstractContextManager[None]:
        """Context manager in which the translations' networks have averaged weights; does nothing without `ema`."""
        return nullcontext() if self._average is None else self._average.applied()

    def _run_uncaptured(self, batch: Batch) -> dict[str, Tensor]:
        if self.device.type in CHANNELS_LAST:
            batch = {name: _channels_last(v) if isinstance(v, Tensor) else v for name, v in batch.items()}
        with torch.autocast(self.device.type, AUTOCAST[self.precision], enabled=self.precision != "fp32"):
            losses = cast(Method, self.method).step(batch, self.optimizers)
        shard = current_shard()
        return losses if shard is None else shard.mean(losses)

    def set_lr_factor(self, factor: float) -> None:
        """Set each learning rate to `factor` times the value that the method chose."""
        set_learning_rates(self.optimizers, self._learning_rates, factor)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the method, of its optimizers and average, and of the random generators of all ranks."""
        return {
            "method": self.method.state_dict(),
            "optimizers": {name: state_of(optimizer) for name, optimizer in self.optimizers.items()},
            **({} if self._average is None else {"average": self._average.state_dict()}),
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
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        for random in state["random"][self.group.rank : self.group.rank + 1]:
            set_random_state(random, self.device)
        self._run = self._captured()  # a CUDA graph captured before is discarded

    def _captured(self) -> Step:
        return prepare(self._run_uncaptured, self.optimizers, self.device, compile=self._compile, group=self.group)


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _check_betas(betas: Any) -> tuple[float, float]:
    if isinstance(betas, (list, tuple)) and len(betas) == 2:
        numbers = tuple(beta for beta in betas if isinstance(beta, (int, float)) and 0 <= beta < 1)
        if len(numbers) == 2:
            return numbers
    raise ArgumentError(f"Trainer: betas must be two numbers from 0 to below 1, got {short_repr(betas)}.")


def _refuse_half(method: nn.Module) -> None:
    for name, parameter in method.named_parameters():
        if parameter.requires_grad and parameter.dtype in (torch.float16, torch.bfloat16):
            raise ArgumentError(
                f"Trainer: {name} is {parameter.dtype}, which is too coarse to add the updates of Adam to. Call "
                ".float() on the network, and set precision= to compute in half precision."
            )
