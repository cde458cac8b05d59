"""`Trainer`: the training loop for any method."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from os import PathLike
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from imtrans.checks import at_least
from imtrans.data.loader import Batch, BatchLoader, length_of
from imtrans.distributed.process_group import init_process_group, rank_seed
from imtrans.errors import CheckpointError, TrainingError, one_line
from imtrans.methods.base import check_method
from imtrans.runtime import fork_rng, pick_device
from imtrans.training.loss_meter import LossMeter
from imtrans.training.nan_check import Step, non_finite_error, non_finite_state
from imtrans.training.publish import TrainingSummary, push_method
from imtrans.training.run_folder import NoRunFolder, RunFolder, method_config
from imtrans.training.schedule import Schedule
from imtrans.training.signals import Stopped, stop_on_signals
from imtrans.training.train_step import TrainStep
from imtrans.training.validation import Validator

FACTS = ("method", "data", "steps", "epochs", "batch_size", "processes", "lr", "precision", "seed", "version", "torch")


class Trainer:
    """Trains a method on a data set. Writes metrics, sample images, a gallery, checkpoints and networks to a folder.

    Example: ``Trainer(Pix2Pix(generator, discriminator), train_data, val_data=val_data, out="runs/mine").fit()``

    Args:
        method: for example `Pix2Pix`; see `Method`.
        train_data: data set of dicts of tensors. A method ``draw(index, epoch)`` of it gives samples as augmented.
        val_data: data set without augmentation. Validation runs in each mode of `imtrans.modes.running_as`. The mode
            with the lowest L1 becomes the `inference_mode` of the saved networks; else it is ``"batch_stats"``.
        out: folder of the run; None writes nothing.
        epochs: total number of epochs.
        decay_epochs: number of epochs at the end in which the learning rate decays to 0; None for half of them.
        max_steps: ends the run early, with the same schedule.
        batch_size: samples in a batch, for each process.
        lr: learning rate of Adam.
        betas: decay rates of Adam's moments.
        precision: of autocast, ``"fp32"``, ``"bf16"``, ``"fp16"`` or ``"auto"``: see `imtrans.runtime.pick_precision`.
        compile: ``"auto"`` captures the step as a CUDA graph on a CUDA device, and warns where that is not possible;
            True raises an error there; False does not capture. See `imtrans.training.cuda_graph.CapturedStep`.
        device: see `imtrans.runtime.pick_device`.
        seed: seed of the order of samples and of dropout. Weights are drawn before: see `imtrans.nn.init.init_net`.
        keep_data: whether to cache decoded images that fit in memory; see `imtrans.data.cache.make_cache`.
        num_workers: number of processes that load uncached data.
        log_every: steps between lines of ``metrics.jsonl``; only they wait for the device.
        sample_every: steps between sample grids; None for a twentieth of the run.
        validate_every: epochs between validations; None for a tenth of the run.
        checkpoint_every: steps between checkpoints; None for a twentieth of the run, at least 100.
        keep: number of checkpoints to keep.
        metrics: metrics of the validation besides L1 and PSNR; see `imtrans.evaluation.evaluate.evaluate`.
        progress: whether to show a progress bar.
        config: further entries of ``config.json``.

    Raises:
        ArgumentError: a value that is not allowed.
        TrainingError: in ``fit``: a folder that holds another run, an empty data set, a loss that is not finite.
        CheckpointError: in ``fit``: nothing to resume from, or the state of another method or network.
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
        self.method, self._method = method, check_method("Trainer", method)
        self.device = pick_device(device)
        self._group = init_process_group(self.device)
        self._train_step = TrainStep(
            method, lr=lr, betas=betas, precision=precision, compile=compile, device=self.device, group=self._group
        )
        self.optimizers, self.precision = self._train_step.optimizers, self._train_step.precision
        self.schedule = Schedule(
            length_of(train_data),
            epochs=epochs,
            decay_epochs=decay_epochs,
            max_steps=max_steps,
            batch_size=batch_size,
            world_size=self._group.world_size,
            log_every=log_every,
            sample_every=sample_every,
            validate_every=validate_every,
            checkpoint_every=checkpoint_every,
        )
        self.seed = at_least("Trainer", "seed", seed, 0)
        self.train_data = train_data
        self._loader = BatchLoader(self.device, cache=keep_data, num_workers=num_workers)
        self._data_size = f"{length_of(train_data)} samples in batches of {self.schedule.global_batch_size}"
        self._group.check_same(data=self._data_size, steps=self.total_steps)
        at_least("Trainer", "keep", keep, 1)
        self.folder = NoRunFolder() if out is None or not self._group.is_rank0 else RunFolder(out, keep=keep)
        self.progress = progress and self._group.is_rank0
        self.extra = dict(config or {})
        self._validator = Validator(
            method,
            val_data,
            train_data=train_data,
            loader=self._loader,
            batch_size=batch_size,
            metrics=metrics,
            seed=seed,
            group=self._group,
        )
        self._meter, self.step = LossMeter(), 0

    @property
    def total_steps(self) -> int:
        """Number of steps of the run."""
        return self.schedule.total_steps

    @property
    def validation(self) -> dict[str, Any] | None:
        """Result of the last validation; see `fit`."""
        return self._validator.result

    def validate(self) -> dict[str, Any] | None:
        """Validate on `val_data`; see `imtrans.training.validation.Validator.validate`."""
        return self._validator.validate()

    def train_step(self, batch: Batch, *, samples: int | None = None) -> dict[str, Tensor]:
        """Move a batch to the device and train on it; return the losses as detached scalars: see `TrainStep`."""
        return self._train_step(batch, samples=samples)

    def fit(self, *, resume: bool = False) -> dict[str, Any] | None:
        """Train to the end; return the last validation: ``{mode: {"l1", "psnr", ...}, "best": mode}``.

        The whole state is saved at the start, every `checkpoint_every` steps, and after Ctrl-C or SIGTERM. Such a
        signal ends the run after the current step: `fit` raises `imtrans.training.signals.Stopped`, and the process
        exits with status 130 or 143.

        Args:
            resume: whether to continue from the newest complete checkpoint in `out`. On the CPU, a resumed run gives
                the same weights as an uninterrupted one, bit for bit.
        """
        if self.total_steps == 0:
            raise TrainingError("Trainer: there is nothing to train on: train_data is empty. Give it samples.")
        schedule, folder, meter, validator = self.schedule, self.folder, self._meter, self._validator
        if validator.data is not None and length_of(validator.data) == 0:
            raise TrainingError("Trainer: val_data is empty. Give pairs to validate on, or None.")
        with fork_rng(self.device), self._locked_folder(resume) as resuming, stop_on_signals() as stop:
            self._start(resuming)
            meter.start_timer()
            with tqdm(total=self.total_steps, initial=self.step, unit="step", disable=not self.progress) as bar:
                for batch, samples in self._batches():
                    signum = self._group.all_reduce_max(lambda: stop.signum)  # asynchronous, read after the step
                    losses = self.train_step(batch, samples=samples)
                    self.step += 1
                    meter.add(losses, self.step)
                    if schedule.logs(self.step):
                        self._log(bar)
                    with meter.timer_paused():
                        if schedule.validates(self.step) and (result := self.validate()):
                            epoch = self.step // schedule.batches_per_epoch
                            folder.log({"kind": "validation", "step": self.step, "epoch": epoch, **result})
                        shows = schedule.samples(self.step) or schedule.saves(self.step)
                        images = validator.sample_images() if shows else None
                        if images and schedule.samples(self.step):
                            folder.save_sample(self.step, images)
                        if schedule.saves(self.step):
                            self._save(images)
                    bar.update()
                    if received := signum():
                        if not schedule.saves(self.step):  # a second save would first delete the checkpoint
                            self._save(validator.sample_images())
                        raise Stopped(received)
            folder.write_gallery()
        return self.validation

    @contextmanager
    def _locked_folder(self, resume: bool) -> Iterator[bool]:
        with ExitStack() as stack:
            yield self._group.run_on_rank0(lambda: stack.enter_context(self.folder.locked(resume=resume)))

    def _start(self, resuming: bool) -> None:
        torch.manual_seed(rank_seed(self.seed, self._group.rank))
        self._validator.set_inference_mode()
        self.folder.check_networks(self._method.translations())
        state = self._group.run_on_rank0(self.folder.newest_state) if resuming else None
        if state is None:
            self._group.run_on_rank0(lambda: self.folder.start(self._config()))
            self._save_checkpoint()
        else:
            self._load_state_dict(state)
            self.folder.truncate(self.step)
            self.folder.save_networks(self._method.translations(), self._summary(self._validator.sample_images()))

    def _batches(self) -> Iterator[tuple[Batch, int]]:
        """Yield this rank's shard and the size of each batch up to the end; set the learning rate of each epoch."""
        schedule = self.schedule
        while not schedule.is_last(self.step):
            epoch, position = divmod(self.step, schedule.batches_per_epoch)
            self._train_step.set_lr_factor(schedule.lr_factor(epoch))
            order = {"epoch": epoch, "shuffle_seed": self.seed, "skip": position}
            order |= {"rank": self._group.rank, "world_size": self._group.world_size}
            for batch in self._loader.batches(cast(Any, self.train_data), schedule.global_batch_size, **order):
                yield batch, schedule.next_batch_size(self.step)
                if schedule.is_last(self.step):
                    return

    def _log(self, bar: "tqdm[None]") -> None:
        self._check_finite()
        means, rate = self._meter.means(), self._meter.reset() * self.schedule.global_batch_size
        epoch = (self.step - 1) // self.schedule.batches_per_epoch
        line = {"step": self.step, "epoch": epoch, "lr": self.schedule.lr_factor(epoch) * self._train_step.lr}
        self.folder.log({"kind": "train", **line, "images_per_second": round(rate, 2), "losses": means})
        shown = {name: f"{mean:.3f}" for name, mean in means.items()}
        bar.set_postfix({"epoch": epoch, "images/s": f"{rate:.1f}", **shown})

    def _save(self, images: dict[str, Tensor] | None) -> None:
        self._check_finite()
        self._save_checkpoint()
        self.folder.save_networks(self._method.translations(), self._summary(images))

    def _save_checkpoint(self) -> None:
        state = self._state_dict()
        self._group.run_on_rank0(lambda: self.folder.save_checkpoint(self.step, state))

    def _check_finite(self) -> None:
        """Raise a TrainingError if a loss since the last log line, or a weight now, is not finite."""
        loss = self._meter.first_non_finite()
        name, step = loss or (non_finite_state(self.method, self.optimizers), self.step)
        if name is not None:
            settings: dict[str, Any] = {"gradients": self.precision != "fp16", "group": self._group}
            raise non_finite_error(name, step, self._replay(), method=self.method, **settings)

    def _replay(self) -> Iterator[tuple[int, Step, Batch]]:
        """Load the newest checkpoint, and yield the steps after it; nothing without a checkpoint."""
        state = self._group.run_on_rank0(self.folder.newest_state)
        if state is not None:
            self._load_state_dict(state)
            for batch, samples in self._batches():
                yield self.step + 1, partial(self._train_step, samples=samples, capture=False), batch
                self.step += 1

    def push_to_hub(
        self, repo_id: str, *, revision: str | None = None, token: str | None = None, private: bool | None = None
    ) -> str:
        """Push the networks, with card, sample images and metrics: see `imtrans.training.publish.save_method`.

        Arguments, return value and errors as for `imtrans.hub.pretrained.Pretrained.push_to_hub`.
        """
        settings: dict[str, Any] = {"revision": revision, "token": token, "private": private}
        return self._group.run_on_rank0(
            lambda: push_method(repo_id, self.method, self._summary(self._validator.sample_images()), **settings)
        )

    def _summary(self, images: dict[str, Tensor] | None) -> TrainingSummary:
        config = self._config()
        return TrainingSummary({fact: config[fact] for fact in FACTS if fact in config}, self.validation, images)

    def _config(self) -> dict[str, Any]:
        return {
            "data": repr(self.train_data),
            **{name: getattr(self.schedule, name) for name in ("epochs", "decay_epochs", "batch_size")},
            **({"processes": self._group.world_size} if self._group.world_size > 1 else {}),
            "lr": self._train_step.lr,
            "precision": self.precision,
            "seed": self.seed,
            "steps": self.total_steps,
            "device": str(self.device),
            **method_config(self.method),
            **self.extra,
        }

    def _state_dict(self) -> dict[str, Any]:
        return {
            **self._train_step.state_dict(),
            "data": self._data_size,
            "step": self.step,
            **self._meter.state_dict(),
            "validation": self.validation,
        }

    def _load_state_dict(self, state: dict[str, Any]) -> None:
        try:
            if state["data"] != self._data_size:
                raise ValueError(f"it is of a run on {state['data']}, this one has {self._data_size}.")
            self._train_step.load_state_dict(state)
            self._meter.load_state_dict(state, self.device)
            self._validator.load(state["validation"])
            self.step = state["step"]
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"the checkpoint does not fit this run: {one_line(str(error))} Make the run with the "
                "arguments in config.json, or start one in another folder."
            ) from error
