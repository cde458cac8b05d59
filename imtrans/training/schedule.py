"""Length of a run, learning rate of each epoch, and the steps after which a run logs, samples, validates and saves."""

import math
from collections.abc import Sequence

from imtrans.checks import at_least, one_of
from imtrans.errors import ArgumentError

LR_POLICIES = ("linear", "step", "plateau", "cosine", "constant")


def decay_factor(epoch: int, *, epochs: int, decay_epochs: int) -> float:
    """Return the factor of the learning rate in `epoch` (0, 1, ...).

    1 for ``epochs - decay_epochs`` epochs, then a linear decay that would reach 0 after the last epoch.

    >>> [round(decay_factor(e, epochs=4, decay_epochs=2), 3) for e in range(4)]
    [1.0, 1.0, 0.667, 0.333]
    """
    return 1.0 - max(0, epoch + 1 - (epochs - decay_epochs)) / (decay_epochs + 1)


def step_factor(epoch: int, *, step_epochs: int = 50, gamma: float = 0.1) -> float:
    """Return `gamma` to the power of the number of whole `step_epochs` before `epoch`.

    >>> [step_factor(e) for e in (0, 49, 50)]
    [1.0, 1.0, 0.1]
    """
    return float(gamma ** (epoch // step_epochs))


def cosine_factor(epoch: int, *, epochs: int) -> float:
    """Return half a cosine from 1 in epoch 0 to 0 after the last epoch.

    >>> [round(cosine_factor(e, epochs=4), 3) for e in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """
    return 0.5 * (1.0 + math.cos(math.pi * epoch / epochs))


def plateau_factor(losses: Sequence[float], *, gamma: float = 0.2, patience: int = 5, threshold: float = 0.01) -> float:
    """Return the factor after validations with these `losses`, in order.

    It is multiplied by `gamma` after ``patience + 1`` losses in a row that are not at least the fraction `threshold`
    lower than the lowest one before, as by `torch.optim.lr_scheduler.ReduceLROnPlateau`.

    >>> plateau_factor([1.0, 0.5]), plateau_factor([0.5] * 7)
    (1.0, 0.2)
    """
    factor, best, waited = 1.0, math.inf, 0
    for loss in losses:
        if loss < best * (1.0 - threshold):
            best, waited = loss, 0
        else:
            waited += 1
        if waited > patience:
            factor, waited = factor * gamma, 0
    return factor


class Schedule:
    """When a run does what. Arguments as for `imtrans.training.trainer.Trainer`.

    A global batch holds `batch_size` samples for each of the `world_size` processes.

    Raises:
        ArgumentError: a count that is not allowed.

    >>> Schedule(5, epochs=2, batch_size=2).total_steps
    6
    """

    def __init__(
        self,
        samples: int,
        *,
        epochs: int,
        batch_size: int,
        world_size: int = 1,
        decay_epochs: int | None = None,
        lr_policy: str = "linear",
        warmup_epochs: int = 0,
        max_steps: int | None = None,
        log_every: int = 50,
        sample_every: int | None = None,
        validate_every: int | None = None,
        checkpoint_every: int | None = None,
    ) -> None:
        self.samples_per_epoch = samples
        self.epochs = _count("epochs", epochs)
        self.batch_size = _count("batch_size", batch_size)
        self.global_batch_size = batch_size * world_size
        self.lr_policy = one_of("Trainer", "lr_policy", lr_policy, LR_POLICIES)
        linear, plateau = lr_policy == "linear", lr_policy == "plateau"
        self.decay_epochs = _count("decay_epochs", decay_epochs, epochs // 2 if linear else 0, minimum=0)
        if self.decay_epochs and not linear:
            raise ArgumentError(
                f"Trainer: decay_epochs={decay_epochs} is for lr_policy='linear', and lr_policy is {lr_policy!r}. Use "
                "lr_policy='linear', or leave decay_epochs out."
            )
        self.warmup_epochs = at_least("Trainer", "warmup_epochs", warmup_epochs, 0, epochs)
        if self.decay_epochs > epochs:
            raise ArgumentError(
                f"Trainer: decay_epochs={decay_epochs} is more than epochs={epochs}. Use at most {epochs}."
            )
        self.batches_per_epoch = -(-samples // self.global_batch_size)
        self.max_steps = None if max_steps is None else _count("max_steps", max_steps)
        self.extra_steps = 0  # of epochs that had more samples: see `resume_with_fewer`
        twentieth = max(1, self.total_steps // 20)
        self.log_every = _count("log_every", log_every)
        self.sample_every = _count("sample_every", sample_every, twentieth)
        self.validate_every = _count("validate_every", validate_every, 1 if plateau else max(1, epochs // 10))
        self.checkpoint_every = _count("checkpoint_every", checkpoint_every, max(100, twentieth))

    @property
    def total_steps(self) -> int:
        """Number of steps of the run."""
        steps = self.extra_steps + self.epochs * self.batches_per_epoch
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def epoch_and_batch(self, step: int) -> tuple[int, int]:
        """Return the epoch of the batch after `step` steps, and its number in the epoch, both from 0."""
        return divmod(step - self.extra_steps, self.batches_per_epoch)

    def resume_with_fewer(self, step: int, *, samples: int, extra_steps: int = 0) -> None:
        """Continue a run that had more samples until `step`; `extra_steps` is the attribute of its schedule.

        The epoch continues at the batch of the same number, or at its last one if it has fewer.

        >>> schedule = Schedule(3, epochs=2, batch_size=1)
        >>> schedule.resume_with_fewer(7, samples=5)
        >>> schedule.epoch_and_batch(7), schedule.total_steps
        ((1, 2), 8)
        """
        epoch, batch = divmod(step - extra_steps, -(-samples // self.global_batch_size))
        self.extra_steps = step - epoch * self.batches_per_epoch - min(batch, self.batches_per_epoch - 1)

    def next_batch_size(self, step: int) -> int:
        """Return the size of the global batch after `step` steps; the last batch of an epoch may be smaller.

        >>> schedule = Schedule(5, epochs=2, batch_size=1, world_size=2)
        >>> [schedule.next_batch_size(step) for step in range(schedule.total_steps)]
        [2, 2, 1, 2, 2, 1]
        """
        _, batch = self.epoch_and_batch(step)
        return min(self.global_batch_size, self.samples_per_epoch - batch * self.global_batch_size)

    def lr_factor(self, epoch: int, losses: Sequence[float] = ()) -> float:
        """Return the factor of the learning rate in `epoch`: of `lr_policy`, and lower during the warmup.

        Args:
            epoch: epoch, from 0.
            losses: losses of the validations before it, for the policy ``"plateau"``.
        """
        if self.lr_policy == "linear":
            factor = decay_factor(epoch, epochs=self.epochs, decay_epochs=self.decay_epochs)
        elif self.lr_policy == "step":
            factor = step_factor(epoch)
        elif self.lr_policy == "cosine":
            factor = cosine_factor(epoch, epochs=self.epochs)
        else:
            factor = plateau_factor(losses) if self.lr_policy == "plateau" else 1.0
        return factor * min(1.0, (epoch + 1) / (self.warmup_epochs + 1))

    def is_last(self, step: int) -> bool:
        """Whether the run ends after `step` steps."""
        return step >= self.total_steps

    def logs(self, step: int) -> bool:
        """Whether the losses are logged after `step` steps."""
        return self.is_last(step) or step % self.log_every == 0

    def samples(self, step: int) -> bool:
        """Whether sample images are saved after `step` steps."""
        return self.is_last(step) or step % self.sample_every == 0

    def saves(self, step: int) -> bool:
        """Whether a checkpoint and the networks are saved after `step` steps."""
        return self.is_last(step) or step % self.checkpoint_every == 0

    def validates(self, step: int) -> bool:
        """Whether validation runs after `step` steps: at the end of the run, and after every few epochs."""
        return self.is_last(step) or self.validates_epoch(step)

    def validates_epoch(self, step: int) -> bool:
        """Whether `step` is the last of an epoch after which validation runs, also in a longer run."""
        epoch, batch = self.epoch_and_batch(step)
        return batch == 0 and epoch % self.validate_every == 0


def _count(argument: str, value: int | None, default: int = 1, *, minimum: int = 1) -> int:
    return default if value is None else at_least("Trainer", argument, value, minimum)
