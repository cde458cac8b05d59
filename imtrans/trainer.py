"""The training loop, for any method."""

import time
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate
from tqdm import tqdm

from imtrans.capture import check_compile, prepare
from imtrans.checkpoint import gather, restore
from imtrans.errors import ArgumentError, TrainingError, at_least, in_range
from imtrans.evaluate import compare_modes, keep_randomness
from imtrans.hub import push
from imtrans.init import pick_device, pick_precision
from imtrans.loading import Batch, length_of
from imtrans.meter import Meter
from imtrans.method import Method, decay_factor
from imtrans.modes import running_as
from imtrans.optimizing import rates, scale_losses, set_rates
from imtrans.release import Provenance, release_all
from imtrans.resident import Feed
from imtrans.runfolder import RunFolder, check_finite, describe

AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Trainer:
    """Trains a method on a data set, and leaves a folder behind: metrics, samples, a gallery, checkpoints, networks.

    Example: ``Trainer(Pix2Pix(generator, discriminator), train_data, val_data=val_data, out="runs/mine").fit()``

    Args:
        method: for example `Pix2Pix`; see `Method`.
        train_data: a data set of dicts of tensors. One with a method ``draw(index, epoch)`` is asked for the sample
            as it is augmented in that epoch.
        val_data: likewise, without augmentation; validated in each of the three modes of `imtrans.modes.running_as`.
            The best by L1 becomes the `inference_mode` of the networks that are saved.
        out: the run's folder; None writes nothing.
        epochs: in all.
        decay_epochs: how many of them, at the end, decay the learning rate to zero; half if None.
        max_steps: ends the run early, without a change to the schedule.
        batch_size: samples a step.
        lr: learning rate of Adam.
        betas: of Adam.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"`` (autocast; weights stay fp32), or ``"auto"``: the fastest
            that the hardware has, see `imtrans.init.pick_precision`.
        compile: ``"auto"`` captures the step as a CUDA graph on a CUDA card, or warns and runs it plainly where that
            cannot be done; True insists, False does not try. See `imtrans.capture.CapturedStep`.
        device: see `imtrans.init.pick_device`.
        seed: of the order of the samples and of dropout. Weights are drawn before: see `imtrans.init.init_net`.
        keep_data: whether to decode pictures once, and keep those that fit; see `imtrans.resident.resident`.
        num_workers: processes that load data that is not kept.
        log_every: steps between lines of ``metrics.jsonl``; nothing waits for the device in between.
        sample_every: steps between rows of pictures; a twentieth of the run if None.
        validate_every: epochs between validations; a tenth of the run if None.
        checkpoint_every: steps between checkpoints; a twentieth of the run, but at least 100, if None.
        keep: checkpoints that remain.
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
        progress: bool = True,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(method, Method):
            wanted = ", ".join(name for name in vars(Method) if not name.startswith("_"))
            raise ArgumentError(
                f"Trainer: {type(method).__name__} is no method. A method is an nn.Module with {wanted}; for a "
                "generator and a discriminator, that is Pix2Pix(generator, discriminator)."
            )
        self.epochs = at_least("Trainer", "epochs", epochs, 1)
        decay = epochs // 2 if decay_epochs is None else decay_epochs
        self.decay_epochs = at_least("Trainer", "decay_epochs", decay, 0)
        if self.decay_epochs > epochs:
            raise ArgumentError(f"Trainer: decay_epochs={decay_epochs} of epochs={epochs} is more than there are.")
        self.batch_size = at_least("Trainer", "batch_size", batch_size, 1)
        self.lr = in_range("Trainer", "lr", lr, 0.0)
        self.seed = at_least("Trainer", "seed", seed, 0)
        self.device = pick_device(device)
        self.precision = pick_precision(precision, self.device)
        self._compile = check_compile("Trainer", compile, self.device)
        self._feed = Feed(self.device, keep=keep_data, num_workers=num_workers)
        self.train_data, self.val_data = train_data, val_data
        self.batches_per_epoch = -(-length_of(train_data) // batch_size)
        self.total_steps = epochs * self.batches_per_epoch
        if max_steps is not None:
            self.total_steps = min(self.total_steps, at_least("Trainer", "max_steps", max_steps, 1))
        twentieth = max(1, self.total_steps // 20)
        self.log_every = at_least("Trainer", "log_every", log_every, 1)
        self.sample_every = _every("sample_every", sample_every, twentieth)
        self.checkpoint_every = _every("checkpoint_every", checkpoint_every, max(100, twentieth))
        self.validate_every = _every("validate_every", validate_every, max(1, epochs // 10))
        self.progress = progress
        self.folder = RunFolder(out, keep=at_least("Trainer", "keep", keep, 1))
        self.extra = dict(config or {})
        self.method = method.to(self.device).train()
        self._method: Method = method
        self.optimizers = method.make_optimizers(lr, betas)
        self._rates = rates(self.optimizers)
        self._data = f"{length_of(train_data)} samples in batches of {batch_size}"
        self.step = self.epoch = self._position = 0
        self.validation: dict[str, Any] | None = None
        self._meter = Meter()
        if self.precision == "fp16":
            scale_losses(self.optimizers, self.device)
        self._run = prepare(self._plain_step, self.optimizers, self.device, compile=self._compile)

    def fit(self, *, resume: bool = False) -> dict[str, Any] | None:
        """Train to the end, and return the last validation: ``{mode: {"l1", "psnr"}, "best": mode}``.

        Args:
            resume: whether to go on from the newest checkpoint in `out`. On the CPU the run then ends in the same
                weights, bit for bit, as one that was never interrupted.
        """
        if self.total_steps == 0:
            raise TrainingError("Trainer: there is nothing to train on: train_data is missing or empty.")
        if self.val_data is not None and length_of(self.val_data) == 0:
            raise TrainingError("Trainer: val_data is empty. Give pairs to validate on, or None.")
        with keep_randomness(self.device):
            if resume:
                self._load(self.folder.newest_state())
                self.folder.forget_after(self.step)
            else:
                self.folder.begin(self._description())
                torch.manual_seed(self.seed)
            self._meter.start()
            with tqdm(total=self.total_steps, initial=self.step, unit="step", disable=not self.progress) as bar:
                while self.step < self.total_steps:
                    self._train_epoch(bar)
        self.folder.finish()
        return self.validation

    def train_step(self, batch: Batch) -> dict[str, Tensor]:
        """Move a batch to the device and train on it; return the losses as detached scalars there."""
        return self._run({name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()})

    def _plain_step(self, batch: Batch) -> dict[str, Tensor]:
        with torch.autocast(self.device.type, AUTOCAST[self.precision], enabled=self.precision != "fp32"):
            return self._method.step(batch, self.optimizers)

    def _train_epoch(self, bar: "tqdm[None]") -> None:
        factor = decay_factor(self.epoch, epochs=self.epochs, decay_epochs=self.decay_epochs)
        set_rates(self.optimizers, self._rates, factor)
        data = cast(Dataset[Batch], self.train_data)
        order = {"epoch": self.epoch, "shuffle_seed": self.seed, "skip": self._position}
        for batch in self._feed.batches(data, self.batch_size, **order):
            self._meter.add(self.train_step(batch))
            self.step += 1
            self._position += 1
            self._after_step(bar, factor)
            bar.update()
            if self.step == self.total_steps:
                return

    def _after_step(self, bar: "tqdm[None]", factor: float) -> None:
        last, ended = self.step == self.total_steps, self._position == self.batches_per_epoch
        if last or self.step % self.log_every == 0:
            self._log(bar, factor)
        stopped_at = time.perf_counter()
        if ended:
            self.epoch, self._position = self.epoch + 1, 0
        if (last or (ended and self.epoch % self.validate_every == 0)) and (found := self.validate()):
            self.folder.log({"kind": "validation", "step": self.step, "epoch": self.epoch, **found})
        if last or self.step % self.sample_every == 0:
            self.folder.sample(self.step, self._columns())
        if last or self.step % self.checkpoint_every == 0:
            self._meter.means(self.step)
            check_finite(self.method, self.step)
            self.folder.checkpoint(self.step, self._state(), self._method.products(), self._provenance())
        self._meter.pause(stopped_at)

    def _log(self, bar: "tqdm[None]", factor: float) -> None:
        means = self._meter.means(self.step)
        rate = self._meter.restart() * self.batch_size
        line = {"step": self.step, "epoch": self.epoch, "lr": factor * self.lr, "images_per_second": round(rate, 2)}
        self.folder.log({"kind": "train", **line, "losses": means})
        shown = {name: f"{mean:.3f}" for name, mean in means.items()}
        bar.set_postfix({"epoch": self.epoch, "images/s": f"{rate:.1f}", **shown})

    def validate(self) -> dict[str, Any] | None:
        """Compare translations of `val_data` with their targets; see `imtrans.evaluate.compare_modes`.

        The best mode becomes that of the networks that are saved. None without `val_data` or without pairs.
        """
        if self.val_data is None:
            return None
        data = self.val_data
        found = compare_modes(
            self.method,
            self._method.preview,
            lambda: self._feed.batches(data, self.batch_size),
            self.device,
            seed=self.seed,
        )
        if found is not None:
            self.validation = found
            self._set_inference_mode()
        return found

    def _set_inference_mode(self) -> None:
        for network in self._method.products().values():
            if self.validation is not None:
                network.inference_mode = self.validation["best"]

    @torch.no_grad()
    def _columns(self) -> dict[str, Tensor]:
        """The pictures of a sample row, as the networks that are saved make them."""
        data = self.train_data if self.val_data is None else self.val_data
        mode = "batch_stats" if self.validation is None else self.validation["best"]
        with keep_randomness(self.device), running_as(self.method, mode):
            torch.manual_seed(self.seed)
            few = default_collate([cast(Any, data)[i] for i in range(min(4, length_of(data)))])
            return self._method.preview({k: v.to(self.device) for k, v in few.items()})

    def _provenance(self) -> Provenance:
        description = self._description()
        facts = ("method", "data", "steps", "epochs", "batch_size", "lr", "precision", "seed", "version", "torch")
        columns = self._columns() if length_of(self.val_data) or length_of(self.train_data) else None
        return Provenance({fact: description[fact] for fact in facts}, self.validation, columns)

    def push_to_hub(
        self, repo_id: str, *, revision: str | None = None, token: str | None = None, private: bool | None = None
    ) -> str:
        """Push the generator with its card, pictures and metrics, and the discriminator in a subfolder.

        Arguments, what is returned and raised: as for `imtrans.pretrained.Pretrained.push_to_hub`.
        """
        with TemporaryDirectory() as folder:
            release_all(Path(folder), repo_id, self.method, self._provenance())
            return push(Path(folder), repo_id, revision=revision, token=token, private=private)

    def _state(self) -> dict[str, Any]:
        return {
            **gather(self.method, self.optimizers, self.device),
            "data": self._data,
            "step": self.step,
            "epoch": self.epoch,
            "position": self._position,
            **self._meter.state(),
            "validation": self.validation,
        }

    def _load(self, state: dict[str, Any]) -> None:
        restore(state, self.method, self.optimizers, self.device, data=self._data)
        self.step, self.epoch, self._position = state["step"], state["epoch"], state["position"]
        self._run = prepare(self._plain_step, self.optimizers, self.device, compile=self._compile)
        self._meter.load(state, self.device)
        self.validation = state["validation"]
        self._set_inference_mode()

    def _description(self) -> dict[str, Any]:
        own = ("epochs", "decay_epochs", "batch_size", "lr", "precision", "seed")
        return {
            "data": repr(self.train_data),
            **{name: getattr(self, name) for name in own},
            "steps": self.total_steps,
            "device": str(self.device),
            **describe(self.method),
            **self.extra,
        }


def _every(argument: str, value: int | None, default: int) -> int:
    return default if value is None else at_least("Trainer", argument, value, 1)
