"""The training loop, for any method."""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from os import PathLike
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from imtrans.checks import at_least
from imtrans.data.loader import Batch, BatchLoader, length_of
from imtrans.distributed.process_group import rank_seed
from imtrans.errors import TrainingError
from imtrans.methods.base import check_method
from imtrans.runtime import fork_rng
from imtrans.training.checkpoint import fitting
from imtrans.training.loss_meter import LossMeter
from imtrans.training.nan_check import first_not_finite
from imtrans.training.publish import TrainingSummary, push_method
from imtrans.training.run_folder import RunFolder, describe
from imtrans.training.schedule import Schedule
from imtrans.training.signals import stop_on_signals
from imtrans.training.train_step import TrainStep
from imtrans.training.validation import Validator

FACTS = ("method", "data", "steps", "epochs", "batch_size", "processes", "lr", "precision", "seed", "version", "torch")


class Trainer:
    """Trains a method on a data set, and leaves a folder behind: metrics, samples, a gallery, checkpoints, networks.

    Example: ``Trainer(Pix2Pix(generator, discriminator), train_data, val_data=val_data, out="runs/mine").fit()``

    Args:
        method: for example `Pix2Pix`; see `Method`.
        train_data: a data set of dicts of tensors. One with a method ``draw(index, epoch)`` is asked for the sample
            as it is augmented in that epoch.
        val_data: likewise, without augmentation; validated in each of the three modes of `imtrans.modes.running_as`.
            The best by L1 becomes the `inference_mode` of the networks that are saved; else ``"batch_stats"`` does.
        out: the run's folder; None writes nothing.
        epochs: in all.
        decay_epochs: how many of them, at the end, decay the learning rate to zero; half if None.
        max_steps: ends the run early, without a change to the schedule.
        batch_size: samples a step; where torchrun has started several processes, of each.
        lr: learning rate of Adam.
        betas: of Adam.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"`` (autocast; weights stay fp32), or ``"auto"``: the fastest
            that the hardware has, see `imtrans.runtime.pick_precision`.
        compile: ``"auto"`` captures the step as a CUDA graph on a CUDA card, or warns and runs it uncaptured where that
            cannot be done; True insists, False does not try. See `imtrans.training.cuda_graph.CapturedStep`.
        device: see `imtrans.runtime.pick_device`.
        seed: of the order of the samples and of dropout. Weights are drawn before: see `imtrans.nn.init.init_net`.
        keep_data: whether to decode pictures once, and keep those that fit; see `imtrans.data.cache.make_cache`.
        num_workers: processes that load data that is not kept.
        log_every: steps between lines of ``metrics.jsonl``; nothing waits for the device in between.
        sample_every: steps between rows of pictures; a twentieth of the run if None.
        validate_every: epochs between validations; a tenth of the run if None.
        checkpoint_every: steps between checkpoints; a twentieth of the run, but at least 100, if None.
        keep: checkpoints that remain.
        metrics: of the validation, beside L1 and PSNR; see `imtrans.evaluation.evaluate.evaluate`.
        progress: whether to show a bar.
        config: further facts for ``config.json``.

    Raises:
        ArgumentError: a value that is not allowed.
        TrainingError: in ``fit``, a folder that holds another run, an empty data set, a loss that is not finite.
        CheckpointError: in ``fit``, nothing to resume from, or a state of another method or network.
    """

    def __init__(
        self,
        method: nn.Module,
        train_data: Dataset[Batch] | None = None,
        *,
        val_data: Dataset[Batch] | None = None,
        out: str | PathLike[str] | None = "runs/latest",
        epochs: int = 200,
        decay_epochs: int | None = None,
        max_steps: int | None = None,
        batch_size: int = 1,
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        precision: str = "auto",
        compile: bool | str = "auto",
        device: str | torch.device = "auto",
        seed: int = 0,
        keep_data: bool = True,
        num_workers: int = 0,
        log_every: int = 50,
        sample_every: int | None = None,
        validate_every: int | None = None,
        checkpoint_every: int | None = None,
        keep: int = 2,
        metrics: Sequence[str] = (),
        progress: bool = True,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self._method = check_method("Trainer", method)
        self._train_step = TrainStep(method, lr=lr, betas=betas, precision=precision, compile=compile, device=device)
        self._group = self._train_step.group
        self.schedule = Schedule.of(
            "Trainer",
            length_of(train_data),
            epochs=epochs,
            decay_epochs=decay_epochs,
            max_steps=max_steps,
            batch_size=batch_size,
            processes=self._group.world_size,
            log_every=log_every,
            sample_every=sample_every,
            validate_every=validate_every,
            checkpoint_every=checkpoint_every,
        )
        self.method, self.optimizers = method, self._train_step.optimizers
        self.device, self.precision = self._train_step.device, self._train_step.precision
        self.seed = at_least("Trainer", "seed", seed, 0)
        self.train_data = train_data
        self._feed = BatchLoader(self.device, cache=keep_data, num_workers=num_workers)
        self._data = f"{length_of(train_data)} samples in batches of {self.schedule.whole_batch}"
        self._group.check_same(data=self._data, steps=self.total_steps)
        self.folder = RunFolder(out, keep=at_least("Trainer", "keep", keep, 1))
        self.progress = progress and self._group.is_rank0
        self.extra = dict(config or {})
        shown: dict[str, Any] = {"shown": train_data, "feed": self._feed, "batch_size": batch_size}
        self._validator = Validator(method, val_data, **shown, metrics=metrics, seed=seed)
        self._meter, self.step = LossMeter(), 0

    @property
    def total_steps(self) -> int:
        """How many steps the whole run has."""
        return self.schedule.total_steps

    @property
    def validation(self) -> dict[str, Any] | None:
        """What the last validation found; see `fit`."""
        return self._validator.found

    def validate(self) -> dict[str, Any] | None:
        """Compare translations of `val_data` with their targets; see `imtrans.evaluation.evaluate.compare_modes`.

        The best mode becomes that of the networks that are saved. None without `val_data` or without pairs.
        """
        return self._validator.validate()

    def fit(self, *, resume: bool = False) -> dict[str, Any] | None:
        """Train to the end, and return the last validation: ``{mode: {"l1", "psnr", ...}, "best": mode}``.

        The whole state is saved at the start, every `checkpoint_every` steps, and when Ctrl-C or SIGTERM asks the run
        to stop: it finishes the step, saves, and raises `imtrans.training.signals.Stopped`, with which a process ends
        in status 130 or 143.

        Args:
            resume: whether to go on from the newest checkpoint in `out` that is whole. On the CPU the run then ends in
                the same weights, bit for bit, as one that was never interrupted.
        """
        if self.total_steps == 0:
            raise TrainingError("Trainer: there is nothing to train on: train_data is empty. Give it samples.")
        self._validator.check()
        with fork_rng(self.device), self.folder.held(resume=resume) as goes_on, stop_on_signals() as asked:
            self._begin(self.folder.newest_state() if goes_on else None)
            self._meter.start()
            with tqdm(total=self.total_steps, initial=self.step, unit="step", disable=not self.progress) as bar:
                for batch in self._upcoming():
                    signum = self._group.all_reduce_max(lambda: asked.signum or 0)
                    losses = self.train_step(batch, samples=self.schedule.samples_after(self.step))
                    self._meter.add(losses, self.step + 1)
                    self.step += 1
                    self._after_step(bar)
                    bar.update()
                    if told := signum():
                        if not self.schedule.saves(self.step):  # or the only checkpoint is deleted for its like
                            self._save()
                        raise asked.stop(told)
            self.folder.show()
        return self.validation

    def _begin(self, state: dict[str, Any] | None) -> None:
        torch.manual_seed(rank_seed(self.seed, self._group.rank))
        if state is not None:
            self._load(state)
            self.folder.forget_after(self.step)
            self.folder.publish(self._method.translations(), self._provenance())
        else:
            self.folder.begin(self._description())
            self.folder.checkpoint(0, self._state())

    def _upcoming(self) -> Iterator[Batch]:
        """The batches from the present step to the end, each epoch at its rate."""
        while not self.schedule.is_last(self.step):
            epoch, position = divmod(self.step, self.schedule.batches_per_epoch)
            self._train_step.set_lr_factor(self.schedule.factor(epoch))
            order = {"epoch": epoch, "shuffle_seed": self.seed, "skip": position}
            order |= {"rank": self._group.rank, "world_size": self._group.world_size}
            for batch in self._feed.batches(cast(Any, self.train_data), self.schedule.whole_batch, **order):
                yield batch
                if self.schedule.is_last(self.step):
                    return

    def train_step(self, batch: Batch, *, samples: int | None = None) -> dict[str, Tensor]:
        """Move a batch to the device and train on it; return losses, detached, there: see `TrainStep`."""
        return self._train_step(batch, samples=samples)

    def _after_step(self, bar: "tqdm[None]") -> None:
        plan, step = self.schedule, self.step
        if plan.logs(step):
            self._log(bar)
        stopped_at = time.perf_counter()
        if plan.validates(step) and (found := self._validator.validate()):
            self.folder.log({"kind": "validation", "step": step, "epoch": step // plan.batches_per_epoch, **found})
        if plan.samples(step) and (columns := self._validator.columns()):
            self.folder.sample(step, columns)
        if plan.saves(step):
            self._save()
        self._meter.pause(stopped_at)

    def _save(self) -> None:
        self._check_finite()
        self.folder.checkpoint(self.step, self._state())
        self.folder.publish(self._method.translations(), self._provenance())

    def _log(self, bar: "tqdm[None]") -> None:
        self._check_finite()
        means, rate = self._meter.means(), self._meter.restart() * self.schedule.whole_batch
        epoch = (self.step - 1) // self.schedule.batches_per_epoch
        line = {"step": self.step, "epoch": epoch, "lr": self.schedule.factor(epoch) * self._train_step.lr}
        self.folder.log({"kind": "train", **line, "images_per_second": round(rate, 2), "losses": means})
        shown = {name: f"{mean:.3f}" for name, mean in means.items()}
        bar.set_postfix({"epoch": epoch, "images/s": f"{rate:.1f}", **shown})

    def _check_finite(self) -> None:
        """Raise if a loss since the last reading, or a weight or gradient now, is NaN or infinite."""
        what, step = self._meter.first_non_finite() or (self._train_step.non_finite(), self.step)
        if what is not None:
            raise TrainingError(
                f"{what} became NaN or infinite at step {step}. {self._cause(step)} The checkpoints are from before. "
                "Look at the data, lower the learning rate, or train in fp32, and resume."
            )

    def _cause(self, non_finite_at: int) -> str:
        """Repeat the steps since the last checkpoint, and look into those that went wrong."""
        state = self.folder.newest_state()
        if state is None:
            return "Without a folder there is no checkpoint from which to look for the layer."
        self._load(state)
        for batch in self._upcoming():
            step = partial(self._train_step.uncaptured, samples=self.schedule.samples_after(self.step))
            # A gradient spoils the loss of the next step.
            if self.step + 2 < non_finite_at:
                step(batch)
            elif found := first_not_finite(self.method, step, batch, gradients=self.precision != "fp16"):
                return f"First was {found}, at step {self.step + 1}."
            self.step += 1
            if self.step >= non_finite_at:
                break
        return "It did not happen again when the steps since the last checkpoint were repeated."

    def _provenance(self) -> TrainingSummary:
        description = self._description()
        facts = {fact: description[fact] for fact in FACTS if fact in description}
        return TrainingSummary(facts, self.validation, self._validator.columns())

    def push_to_hub(
        self, repo_id: str, *, revision: str | None = None, token: str | None = None, private: bool | None = None
    ) -> str:
        """Push the networks, with card, pictures and metrics: see `imtrans.training.publish.save_method`.

        Arguments, what is returned and raised: as for `imtrans.hub.pretrained.Pretrained.push_to_hub`.
        """
        settings: dict[str, Any] = {"revision": revision, "token": token, "private": private}
        return self._group.run_on_rank0(lambda: push_method(repo_id, self.method, self._provenance(), **settings))

    def _state(self) -> dict[str, Any]:
        return {
            **self._train_step.state(),
            "data": self._data,
            "step": self.step,
            **self._meter.state(),
            "validation": self.validation,
        }

    def _load(self, state: dict[str, Any]) -> None:
        with fitting():
            if state["data"] != self._data:
                raise ValueError(f"it is of a run on {state['data']}, this one has {self._data}.")
            self._train_step.load(state)
            self._meter.load(state, self.device)
            self._validator.take(state["validation"])
            self.step = state["step"]

    def _description(self) -> dict[str, Any]:
        return {
            "data": repr(self.train_data),
            **{name: getattr(self.schedule, name) for name in ("epochs", "decay_epochs", "batch_size")},
            **({"processes": self._group.world_size} if self._group.world_size > 1 else {}),
            "lr": self._train_step.lr,
            "precision": self.precision,
            "seed": self.seed,
            "steps": self.total_steps,
            "device": str(self.device),
            **describe(self.method),
            **self.extra,
        }
