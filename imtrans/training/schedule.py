"""Length of a run, learning rate of each epoch, and the steps after which a run logs, samples, validates and saves."""

from imtrans.checks import at_least
from imtrans.errors import ArgumentError


def decay_factor(epoch: int, *, epochs: int, decay_epochs: int) -> float:
    """Return the factor of the learning rate in `epoch` (0, 1, ...).

    1 for ``epochs - decay_epochs`` epochs, then a linear decay that would reach 0 after the last epoch.

    >>> [round(decay_factor(e, epochs=4, decay_epochs=2), 3) for e in range(4)]
    [1.0, 1.0, 0.667, 0.333]
    """
    return 1.0 - max(0, epoch + 1 - (epochs - decay_epochs)) / (decay_epochs + 1)


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
        self.decay_epochs = _count("decay_epochs", decay_epochs, epochs // 2, minimum=0)
        if self.decay_epochs > epochs:
            raise ArgumentError(
                f"Trainer: decay_epochs={decay_epochs} is more than epochs={epochs}. Use at most {epochs}."
            )
        self.batches_per_epoch = -(-samples // self.global_batch_size)
        self.total_steps = epochs * self.batches_per_epoch
        self.max_steps = max_steps
        if max_steps is not None:
            self.total_steps = min(self.total_steps, _count("max_steps", max_steps))
        twentieth = max(1, self.total_steps // 20)
        self.log_every = _count("log_every", log_every)
        self.sample_every = _count("sample_every", sample_every, twentieth)
        self.validate_every = _count("validate_every", validate_every, max(1, epochs // 10))
        self.checkpoint_every = _count("checkpoint_every", checkpoint_every, max(100, twentieth))

    def next_batch_size(self, step: int) -> int:
        """Return the size of the global batch after `step` steps; the last batch of an epoch may be smaller.

        >>> schedule = Schedule(5, epochs=2, batch_size=1, world_size=2)
        >>> [schedule.next_batch_size(step) for step in range(schedule.total_steps)]
        [2, 2, 1, 2, 2, 1]
        """
        position = step % self.batches_per_epoch
        return min(self.global_batch_size, self.samples_per_epoch - position * self.global_batch_size)

    def lr_factor(self, epoch: int) -> float:
        """Return the factor of the learning rate in `epoch`; see `decay_factor`."""
        return decay_factor(epoch, epochs=self.epochs, decay_epochs=self.decay_epochs)

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
        epoch, position = divmod(step, self.batches_per_epoch)
        return self.is_last(step) or (position == 0 and epoch % self.validate_every == 0)


def _count(argument: str, value: int | None, default: int = 1, *, minimum: int = 1) -> int:
    return default if value is None else at_least("Trainer", argument, value, minimum)
