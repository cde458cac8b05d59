"""`Trainer`: the training loop for any method."""

import copy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from os import PathLike
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from imtrans.checks import at_least
from imtrans.data.loader import Batch, BatchLoader, check_data, length_of
from imtrans.distributed.process_group import init_process_group, rank_seed
from imtrans.errors import ArgumentError, CheckpointError, TrainingError, one_line, short_repr
from imtrans.hub.pretrained import Pretrained
from imtrans.methods.base import check_method
from imtrans.modes import unwrap
from imtrans.runtime import fork_rng, pick_device
from imtrans.training.loss_meter import LossMeter
from imtrans.training.nan_check import Step, first_non_finite, non_finite_error, non_finite_state
from imtrans.training.progress import BAR_FORMAT, progress_text, stopped_text
from imtrans.training.publish import TrainingSummary, push_method
from imtrans.training.resume import data_config, fewer_files_text
from imtrans.training.run_folder import NoRunFolder, RunFolder, method_config
from imtrans.training.schedule import Schedule
from imtrans.training.signals import Stopped, stop_on_signals
from imtrans.training.train_step import TrainStep
from imtrans.training.validation import Validator

FACTS = (
    "method", "recipe", "data", "steps", "epochs", "batch_size", "processes", "lr", "precision", "seed", "version",
    "torch",
)  # fmt: skip
SCHEDULE = (
    "epochs", "decay_epochs", "lr_policy", "warmup_epochs", "batch_size", "max_steps", "log_every", "sample_every",
    "validate_every", "checkpoint_every",
)  # fmt: skip


class Trainer:
    """Trains a method on a data set. Writes metrics, sample images, a gallery, checkpoints and networks to a folder.

    Example: ``Trainer(Pix2Pix(generator, discriminator), train_data, val_data=val_data, out="runs/mine").fit()``

    Args:
        method: for example `Pix2Pix`; see `Method`.
        train_data: data set of dicts of tensors, which may hold strings too. A method ``draw(index, epoch)`` of it
            gives samples as augmented.
        val_data: data set without augmentation. Validation runs in each mode of `imtrans.modes.running_as`. The mode
            without dropout that has the lowest sliced Wasserstein distance (images below 16 pixels: L1) becomes the
            `inference_mode` of the saved networks; without data it is ``"batch_stats"``. Networks whose
            `inference_mode` is ``"paper"`` before the run keep it.
        out: folder of the run; None writes nothing.
        epochs: total number of epochs.
        decay_epochs: number of epochs at the end in which the learning rate decays to 0, with the `lr_policy`
            ``"linear"``; None for half of them.
        lr_policy: factor of the learning rate in each epoch:

            - ``"linear"``: 1, and from the last `decay_epochs` on a linear decay to 0.
            - ``"step"``: a tenth of it after every 50 epochs.
            - ``"plateau"``: a fifth of it after 6 validations in a row without an L1 that is 1 % lower. It needs
              `val_data` with pairs, and validates after each epoch unless `validate_every` says otherwise.
            - ``"cosine"``: half a cosine over all epochs, to 0.
            - ``"constant"``: 1.
        warmup_epochs: number of epochs at the start in which the learning rate grows linearly.
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
        ema: decay rate of a moving average of the weights, for example 0.999; None for no average. The networks of the
            translations are validated, sampled and saved with the averaged weights; see `averaged`.
        on_log: function that gets each line of ``metrics.jsonl`` as a dict, after it is written; on rank 0 only.
        on_step_end: function of the trainer and the losses of a step, called after each step, on all ranks. The losses
            are detached tensors on the device: reading one waits for the device. `step` counts the step.
        metrics: metrics of the validation besides L1, PSNR and the sliced Wasserstein distance; see
            `imtrans.evaluation.evaluate.evaluate`.
        segmenter: your own segmenter of real images; the validation adds ``texture`` and ``layout``, see
            `imtrans.frechet_distance`.
        segmenter_layers: the `layers` of `imtrans.frechet_distance`, for a segmenter that is no `UNetGenerator`.
        progress: whether to show a progress bar.
        config: further entries of ``config.json``.

    Raises:
        ArgumentError: a value that is not allowed, a DataLoader as data, or a network in half precision.
        DataError: in ``fit``: samples that are no dicts, or lack a column that the method needs.
        TrainingError: in ``fit``: a folder that holds another run, an empty data set, a loss that is not finite.
        CheckpointError: in ``fit``: nothing to resume from, or a run with other arguments, method or networks.
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
        lr_policy: str = "linear",
        warmup_epochs: int = 0,
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
        ema: float | None = None,
        on_log: Callable[[dict[str, Any]], object] | None = None,
        on_step_end: Callable[["Trainer", dict[str, Tensor]], object] | None = None,
        metrics: Sequence[str] = (),
        segmenter: nn.Module | None = None,
        segmenter_layers: Mapping[str, str] | None = None,
        progress: bool = True,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.method, self._method = method, check_method("Trainer", method)
        check_data("Trainer", "train_data", train_data)
        check_data("Trainer", "val_data", val_data)
        self.device = pick_device(device)
        self._group = group = init_process_group(self.device)
        step: dict[str, Any] = {"lr": lr, "betas": betas, "precision": precision, "compile": compile, "ema": ema}
        self._train_step = TrainStep(method, device=self.device, group=group, **step)
        for name, function in (("on_log", on_log), ("on_step_end", on_step_end)):
            if not (function is None or callable(function)):
                raise ArgumentError(f"Trainer: {name} must be a function, got {short_repr(function)}.")
        self._betas, self._ema, self.on_log, self.on_step_end = betas, ema, on_log, on_step_end
        self.optimizers, self.precision = self._train_step.optimizers, self._train_step.precision
        self.schedule = Schedule(
            length_of(train_data),
            epochs=epochs,
            decay_epochs=decay_epochs,
            lr_policy=lr_policy,
            warmup_epochs=warmup_epochs,
            max_steps=max_steps,
            batch_size=batch_size,
            world_size=group.world_size,
            log_every=log_every,
            sample_every=sample_every,
            validate_every=validate_every,
            checkpoint_every=checkpoint_every,
        )
        self.seed = at_least("Trainer", "seed", seed, 0)
        self.train_data = train_data
        self._loader = BatchLoader(self.device, cache=keep_data, num_workers=num_workers)
        group.check_same(data=self._data_size(length_of(train_data)), steps=self.total_steps)
        self._keep = at_least("Trainer", "keep", keep, 1)
        self.folder = NoRunFolder() if out is None or not group.is_rank0 else RunFolder(out, keep=keep)
        self.progress = progress and group.is_rank0
        self.extra = dict(config or {})
        self._validator = Validator(
            method, val_data, train_data, self._loader, batch_size=batch_size, metrics=metrics, seed=seed, group=group,
            segmenter=segmenter, segmenter_layers=segmenter_layers,
        )  # fmt: skip
        if lr_policy == "plateau" and not self._validator.translations:
            raise ArgumentError(
                "Trainer: lr_policy='plateau' follows the validation, and there are no pairs to validate on. Give "
                "val_data with pairs, or use another lr_policy."
            )
        self._meter, self.step, self._files_compared = LossMeter(), 0, False
        self._validation_l1: list[float] = []  # at the ends of epochs
        data: Any = train_data
        for translation in self._method.translations():
            if isinstance(network := unwrap(translation.network), Pretrained):
                labels = ("instances", "palette", "num_labels") if translation.source == "source" else ()
                for name in (*labels, "value_range"):
                    if hasattr(data, name):
                        setattr(network, name, getattr(data, name))

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
        with self.averaged():
            return self._validator.validate()

    def averaged(self) -> AbstractContextManager[None]:
        """Context manager in which the networks of the translations have the weights averaged by `ema`, if it is set.

        Outside of it, they have the weights that are trained.
        """
        return self._train_step.averaged()

    def train_step(self, batch: Batch, *, samples: int | None = None) -> dict[str, Tensor]:
        """Move a batch to the device and train on it; return the losses as detached scalars: see `TrainStep`."""
        return self._train_step(batch, samples=samples)

    def fit(self, *, resume: bool = False) -> dict[str, Any] | None:
        """Train to the end; return the last validation: ``{mode: {"l1", "psnr", "swd", ...}, "best": mode}``.

        The whole state is saved at the start, every `checkpoint_every` steps, and after Ctrl-C or SIGTERM. Such a
        signal ends the run after the current step: `fit` raises `imtrans.training.signals.Stopped`, and the process
        exits with status 130 or 143.

        Args:
            resume: whether to continue from the newest complete checkpoint in `out`. On the CPU, a resumed run gives
                the same weights as an uninterrupted one, bit for bit. Arguments that the result depends on must
                be as in ``config.json``, but `epochs` may grow, and files may be left out. Other changes are recorded
                there: see `imtrans.training.resume.compare_configs`.
        """
        if self.total_steps == 0:
            raise TrainingError("Trainer: there is nothing to train on: train_data is empty. Give it samples.")
        schedule, folder, meter, validator = self.schedule, self.folder, self._meter, self._validator
        if validator.data is not None and length_of(validator.data) == 0:
            raise TrainingError("Trainer: val_data is empty. Give pairs to validate on, or None.")
        with fork_rng(self.device), self._locked_folder(resume) as resuming, stop_on_signals() as stop:
            self._start(resuming)
            meter.start_timer()
            with tqdm(
                total=self.total_steps, initial=self.step, bar_format=BAR_FORMAT, disable=not self.progress
            ) as bar:
                for batch, samples in self._batches():
                    signum = self._group.all_reduce_max(lambda: stop.signum)  # asynchronous, read after the step
                    self._step(batch, samples)
                    if schedule.logs(self.step):
                        self._log(bar)
                    with meter.timer_paused():
                        if schedule.validates(self.step):
                            self._log_validation()
                        shows = schedule.samples(self.step) or schedule.saves(self.step)
                        images = self._sample_images() if shows else None
                        if images and schedule.samples(self.step):
                            folder.save_sample(self.step, images)
                        if schedule.saves(self.step):
                            self._save(images)
                    bar.update()
                    if received := signum():
                        bar.close()
                        self._stop(received)
            folder.write_gallery()
        return self.validation

    @contextmanager
    def _locked_folder(self, resume: bool) -> Iterator[bool]:
        with ExitStack() as stack:
            resuming = self._group.run_on_rank0(lambda: stack.enter_context(self.folder.locked(resume=resume)))
            if resuming:  # before the data is decoded, and before a state that does not fit is loaded
                self._files_compared = self._group.run_on_rank0(lambda: self.folder.check_resumed(self._config()))
            # Before the folder holds a run, and before signals are caught: decoding can take a while.
            self._loader.prepare(self.train_data, progress=self.progress)
            self._group.run_on_rank0(lambda: self._loader.prepare(self._validator.data, progress=self.progress))
            yield resuming

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
            changes = self._group.run_on_rank0(lambda: self.folder.resume(self._config(), self.step))
            if "val_data" in changes:
                self._validator.load(None)
            if "files" in changes and self._group.is_rank0:
                epoch, _ = self.schedule.epoch_and_batch(self.step)
                at = {"step": self.step, "epoch": epoch, "total_steps": self.total_steps}
                left_out = changes["files"]["left_out"]
                print(fewer_files_text(left_out, len(cast(Any, self.train_data).files), **at), file=sys.stderr)
            self.folder.truncate(self.step)
            self._save_networks(self._sample_images())

    def _batches(self) -> Iterator[tuple[Batch, int]]:
        """Yield this rank's shard and the size of each batch up to the end; set the learning rate of each epoch."""
        schedule = self.schedule
        while not schedule.is_last(self.step):
            epoch, batch_number = schedule.epoch_and_batch(self.step)
            self._train_step.set_lr_factor(schedule.lr_factor(epoch, self._validation_l1))
            order = {"epoch": epoch, "shuffle_seed": self.seed, "skip": batch_number}
            order |= {"rank": self._group.rank, "world_size": self._group.world_size}
            for batch in self._loader.batches(cast(Any, self.train_data), schedule.global_batch_size, **order):
                yield batch, schedule.next_batch_size(self.step)
                if schedule.is_last(self.step):
                    return

    def _step(self, batch: Batch, samples: int) -> None:
        losses = self.train_step(batch, samples=samples)
        self.step += 1
        self._meter.add(losses, self.step)
        if self.on_step_end is not None:
            self.on_step_end(self, losses)

    def _stop(self, signum: int) -> NoReturn:
        if not self.schedule.saves(self.step):  # a second save would first delete the checkpoint
            self._save(self._sample_images())
        if self._group.is_rank0:
            where: dict[str, Any] = {"out": self.folder.path, "processes": self._group.world_size}
            where |= {"step": self.step, "total_steps": self.total_steps, "command": self.extra.get("command")}
            print(stopped_text(**where), file=sys.stderr)
        raise Stopped(signum)

    def _log(self, bar: "tqdm[None]") -> None:
        self._check_finite()
        means, rate = self._meter.means(), self._meter.reset() * self.schedule.global_batch_size
        epoch, _ = self.schedule.epoch_and_batch(self.step - 1)
        rate_now = self.schedule.lr_factor(epoch, self._validation_l1) * self._train_step.lr
        line = {"step": self.step, "epoch": epoch, "lr": rate_now}
        self._write_log({"kind": "train", **line, "images_per_second": round(rate, 2), "losses": means})
        bar.set_postfix_str(progress_text(means, epoch=epoch, epochs=self.schedule.epochs, images_per_second=rate))

    def _write_log(self, line: dict[str, Any]) -> None:
        self.folder.log(line)
        if self.on_log is not None and self._group.is_rank0:
            self.on_log(copy.deepcopy(line))

    def _log_validation(self) -> None:
        if result := self.validate():
            epoch, _ = self.schedule.epoch_and_batch(self.step)
            self._write_log({"kind": "validation", "step": self.step, "epoch": epoch, **result})
            if self.schedule.validates_epoch(self.step):
                self._validation_l1.append(self._validator.mean_l1())

    def _save(self, images: dict[str, Tensor] | None) -> None:
        self._check_finite()
        self._save_checkpoint()
        self._save_networks(images)

    def _save_networks(self, images: dict[str, Tensor] | None) -> None:
        with self.averaged():
            self.folder.save_networks(self._method.translations(), self._summary(images))

    def _sample_images(self) -> dict[str, Tensor] | None:
        with self.averaged():
            return self._validator.sample_images()

    def _save_checkpoint(self) -> None:
        state = self._state_dict()
        self._group.run_on_rank0(lambda: self.folder.save_checkpoint(self.step, state))

    def _check_finite(self) -> None:
        """Raise a TrainingError if a loss since the last log line, or a weight now, is not finite."""
        name, step = self._meter.first_non_finite() or (non_finite_state(self.method, self.optimizers), self.step)
        if name is not None:
            find = partial(first_non_finite, self.method, group=self._group, gradients=self.precision != "fp16")
            raise non_finite_error(name, step, self._replay(), find)

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
        with self.averaged():
            return self._group.run_on_rank0(
                lambda: push_method(repo_id, self.method, self._summary(self._sample_images()), **settings)
            )

    def _summary(self, images: dict[str, Tensor] | None) -> TrainingSummary:
        config = self._config()
        return TrainingSummary({fact: config[fact] for fact in FACTS if fact in config}, self.validation, images)

    def _config(self) -> dict[str, Any]:
        data_seed = getattr(self.train_data, "seed", None)
        return {
            "data": repr(self.train_data),
            **({"data_seed": data_seed} if isinstance(data_seed, int) else {}),
            "val_data": None if self._validator.data is None else repr(self._validator.data),
            **{name: getattr(self.schedule, name) for name in SCHEDULE},
            **({"processes": self._group.world_size} if self._group.world_size > 1 else {}),
            "lr": self._train_step.lr,
            "betas": self._betas,
            "ema": self._ema,
            "precision": self.precision,
            "seed": self.seed,
            "steps": self.total_steps,
            "device": str(self.device),
            "num_workers": self._loader.num_workers,
            "keep": self._keep,
            **method_config(self.method),
            **self.extra,
            **data_config(self.train_data),
        }

    def _data_size(self, samples: int) -> str:
        return f"{samples} samples in batches of {self.schedule.global_batch_size}"

    def _state_dict(self) -> dict[str, Any]:
        return {
            **self._train_step.state_dict(),
            "data": self._data_size(self.schedule.samples_per_epoch),
            "step": self.step,
            **({"extra_steps": self.schedule.extra_steps} if self.schedule.extra_steps else {}),
            **self._meter.state_dict(),
            "validation": self.validation,
            **({"validation_l1": self._validation_l1} if self.schedule.lr_policy == "plateau" else {}),
        }

    def _load_state_dict(self, state: dict[str, Any]) -> None:
        try:
            samples = now = self.schedule.samples_per_epoch
            if self._files_compared:  # it may be from before some were left out
                samples = max(now, int(str(state["data"]).partition(" ")[0]))
            if state["data"] != self._data_size(samples):
                raise ValueError(f"it is of a run on {state['data']}, this one has {self._data_size(now)}.")
            self._train_step.load_state_dict(state)
            self._meter.load_state_dict(state, self.device)
            self._validator.load(state["validation"] if self._validator.data is not None else None)
            self._validation_l1 = list(state.get("validation_l1", []))
            self.step = state["step"]
            self.schedule.resume_with_fewer(self.step, samples=samples, extra_steps=state.get("extra_steps", 0))
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"the checkpoint does not fit this run: {one_line(str(error))} Make the run with the "
                "arguments in config.json, or start one in another folder."
            ) from error
