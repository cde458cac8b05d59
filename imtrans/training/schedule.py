"""How long a run is, at which rates, and how often it looks up from training."""

from dataclasses import dataclass

from imtrans.checks import at_least
from imtrans.errors import ArgumentError


def decay_factor(epoch: int, *, epochs: int, decay_epochs: int) -> float:
    """The share of the learning rate at which `epoch` (0, 1, ...) is trained.

    1 for ``epochs - decay_epochs`` epochs, then down a straight line that would reach 0 after the last one.

    >>> [round(decay_factor(e, epochs=4, decay_epochs=2), 3) for e in range(4)]
    [1.0, 1.0, 0.667, 0.333]
    """
    return 1.0 - max(0, epoch + 1 - (epochs - decay_epochs)) / (decay_epochs + 1)


@dataclass(frozen=True)
class Schedule:
    """When a run does what. All counts are of steps, but for those of epochs; see `imtrans.training.trainer.Trainer`.

    A step takes a whole batch: `batch_size` samples for each of the processes that share it.

    >>> Schedule.of("Trainer", samples=5, epochs=2, batch_size=2).total_steps
    6
    """

    epochs: int
    decay_epochs: int
    batch_size: int
    processes: int
    samples_per_epoch: int
    batches_per_epoch: int
    total_steps: int
    log_every: int
    sample_every: int
    validate_every: int
    checkpoint_every: int

    @classmethod
    def of(
        cls,
        owner: str,
        samples: int,
        *,
        epochs: int,
        batch_size: int,
        processes: int = 1,
        decay_epochs: int | None = None,
        max_steps: int | None = None,
        log_every: int = 50,
        sample_every: int | None = None,
        validate_every: int | None = None,
        checkpoint_every: int | None = None,
    ) -> "Schedule":
        """Fill in what is None: half of the epochs decay; a run is sampled and saved twenty, validated ten times.

        Raises:
            ArgumentError: a count that is not allowed.
        """
        at_least(owner, "epochs", epochs, 1)
        at_least(owner, "batch_size", batch_size, 1)
        decay = epochs // 2 if decay_epochs is None else at_least(owner, "decay_epochs", decay_epochs, 0)
        if decay > epochs:
            raise ArgumentError(f"{owner}: decay_epochs={decay_epochs} of epochs={epochs} is more than there are.")
        batches = -(-samples // (batch_size * processes))
        steps = epochs * batches
        if max_steps is not None:
            steps = min(steps, at_least(owner, "max_steps", max_steps, 1))
        twentieth = max(1, steps // 20)

        def every(argument: str, value: int | None, default: int) -> int:
            return default if value is None else at_least(owner, argument, value, 1)

        return cls(
            epochs,
            decay,
            batch_size,
            processes,
            samples,
            batches,
            steps,
            every("log_every", log_every, 50),
            every("sample_every", sample_every, twentieth),
            every("validate_every", validate_every, max(1, epochs // 10)),
            every("checkpoint_every", checkpoint_every, max(100, twentieth)),
        )

    @property
    def whole_batch(self) -> int:
        """How many samples a step takes."""
        return self.batch_size * self.processes

    def samples_after(self, step: int) -> int:
        """How many samples are in the batch that comes after `step` steps; the last of an epoch may have fewer.

        >>> schedule = Schedule.of("Trainer", samples=5, epochs=2, batch_size=1, processes=2)
        >>> [schedule.samples_after(step) for step in range(schedule.total_steps)]
        [2, 2, 1, 2, 2, 1]
        """
        position = step % self.batches_per_epoch
        return min(self.whole_batch, self.samples_per_epoch - position * self.whole_batch)

    def factor(self, epoch: int) -> float:
        """The share of the learning rate in `epoch`; see `decay_factor`."""
        return decay_factor(epoch, epochs=self.epochs, decay_epochs=self.decay_epochs)

    def is_last(self, step: int) -> bool:
        """Whether nothing comes after `step` steps."""
        return step >= self.total_steps

    def logs(self, step: int) -> bool:
        """Whether the losses are read after `step` steps."""
        return self.is_last(step) or step % self.log_every == 0

    def samples(self, step: int) -> bool:
        """Whether pictures are saved after `step` steps."""
        return self.is_last(step) or step % self.sample_every == 0

    def saves(self, step: int) -> bool:
        """Whether the whole state is saved after `step` steps."""
        return self.is_last(step) or step % self.checkpoint_every == 0

    def validates(self, step: int) -> bool:
        """Whether the translations are judged after `step` steps: at the end, and of some epochs."""
        epoch, position = divmod(step, self.batches_per_epoch)
        return self.is_last(step) or (position == 0 and epoch % self.validate_every == 0)
