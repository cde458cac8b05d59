"""A training step that is recorded once and replayed, so that the device no longer waits for Python."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from imtrans.data.loader import Batch
from imtrans.errors import ArgumentError, TrainingError
from imtrans.methods.optim import make_capturable

Losses = dict[str, Tensor]
Step = Callable[[Batch], Losses]
WARM_UP = 3


class Recorder(Protocol):
    """What a `CapturedStep` asks of a device."""

    def run_on_stream(self, step: Step, batch: Batch) -> Losses:
        """Run `step` where it can be recorded later."""

    def record(self, step: Step, batch: Batch) -> tuple[Callable[[], None], Losses]:
        """Record `step` on `batch` without running it; return what runs it, and its losses, filled by each run.

        Raises:
            RuntimeError: it cannot be recorded; nothing has changed.
        """

    def watch(self) -> Any:
        """A context that gives a list, filled at its end with what made the host wait for the device."""


class CapturedStep:
    """A step that runs plainly a few times, is then recorded, and from there on replayed.

    All of these are training steps: nothing runs for the sake of the recording. The step must read no value of a
    tensor, and keep what it changes where it is. The recording is for one shape of batch, the first to come four
    times; batches of another shape, as the last of an epoch may be, run plainly.

    Args:
        step: trains on a batch, and returns losses as detached scalars.
        recorder: of the device.
        insist: whether a step that cannot be recorded is an error; else it runs plainly, and a warning says why.
    """

    def __init__(self, step: Step, recorder: Recorder, *, insist: bool) -> None:
        self._step, self._recorder, self._insist = step, recorder, insist
        self._seen: Counter[Any] = Counter()
        self._shapes: Any = None
        self._inputs: Batch = {}
        self._losses: Losses = {}
        self._replay: Callable[[], None] | None = None
        self._plain = self._told = False

    def __call__(self, batch: Batch) -> Losses:
        """Train on `batch`; return the losses, which later calls do not change."""
        shapes = tuple((name, tensor.shape, tensor.dtype) for name, tensor in batch.items())
        self._seen[shapes] += 1
        if self._replay is None and not self._plain:
            if self._seen[shapes] == WARM_UP:
                return self._watched(batch)
            if self._seen[shapes] > WARM_UP:
                self._record(batch, shapes)
        if self._replay is None or shapes != self._shapes:
            self._tell_of_many_shapes()
            return self._recorder.run_on_stream(self._step, batch)
        for name, tensor in batch.items():
            self._inputs[name].copy_(tensor, non_blocking=True)
        self._replay()
        return {name: loss.clone() for name, loss in self._losses.items()}

    def _watched(self, batch: Batch) -> Losses:
        with self._recorder.watch() as waits:
            losses = self._recorder.run_on_stream(self._step, batch)
        if waits:
            self._give_up(f"it waits for the device ({waits[0]})")
        return losses

    def _record(self, batch: Batch, shapes: Any) -> None:
        inputs = {name: tensor.clone() for name, tensor in batch.items()}
        try:
            self._replay, self._losses = self._recorder.record(self._step, inputs)
        except RuntimeError as error:
            self._give_up(str(error).partition("\n")[0])
        else:
            self._inputs, self._shapes = inputs, shapes

    def _give_up(self, why: str) -> None:
        self._plain = True
        give_up(why, insist=self._insist)

    def _tell_of_many_shapes(self) -> None:
        # One other shape is the last batch of an epoch.
        if len(self._seen) > 2 and not self._plain and not self._told:
            self._told = True
            warnings.warn(
                f"the batches have {len(self._seen)} shapes so far. Only the first that comes {WARM_UP + 1} times is "
                "captured; the others run plainly, which is slower. Give pictures of one size.",
                stacklevel=4,
            )


class CudaGraphs:
    """Records on a CUDA card. (A `Recorder`.)"""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def run_on_stream(self, step: Step, batch: Batch) -> Losses:
        """Run `step` on the stream that it is recorded on: gradients must not come from two."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream), warnings.catch_warnings():
            # Of an optimizer that runs uncaptured although it is capturable: that is so for a few steps.
            warnings.filterwarnings("ignore", message=".*capturable=True")
            losses = step(batch)
        current.wait_stream(self.stream)
        return {name: loss.clone() for name, loss in losses.items()}

    def record(self, step: Step, batch: Batch) -> tuple[Callable[[], None], Losses]:
        """Capture `step` as one CUDA graph; dropout's generator is registered with it by torch."""
        graph = torch.cuda.CUDAGraph()
        generator = torch.cuda.default_generators[self.device.index]
        kept = generator.clone_state()
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        try:
            # Threads that load data may call CUDA meanwhile.
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                losses = step(batch)
        except RuntimeError:
            # A capture that failed leaves the generator waiting for its end.
            generator.graphsafe_set_state(kept)
            raise
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        return graph.replay, losses

    @contextmanager
    def watch(self) -> Iterator[list[str]]:
        """Let torch warn of whatever waits for the card."""
        before, waits = torch.cuda.get_sync_debug_mode(), cast(list[str], [])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield waits
            finally:
                torch.cuda.set_sync_debug_mode(before)
        for warning in caught:
            if "called a synchronizing" in str(warning.message):
                waits.append(f"{warning.filename}, line {warning.lineno}")
            elif "prototype feature" not in str(warning.message):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def give_up(why: str, *, insist: bool) -> None:
    """Say that a step cannot be captured.

    Raises:
        TrainingError: with `insist`; else it is a warning.
    """
    if insist:
        raise TrainingError(
            f"compile=True, but the step cannot be captured: {why}. Use compile='auto', which then runs it plainly."
        )
    warnings.warn(f"the step runs plainly, which is slower: it cannot be captured, because {why}.", stacklevel=5)


def check_compile(owner: str, compile: bool | str, device: torch.device, *, processes: int = 1) -> bool | str:
    """Return `compile` if it is ``"auto"``, True or False, and `device` can do it; False for several `processes`.

    Raises:
        ArgumentError: another value; or True without a CUDA card, or with several processes.
    """
    if not isinstance(compile, bool) and compile != "auto":
        raise ArgumentError(f"{owner}: compile must be 'auto', True or False, got {compile!r}.")
    if compile is True and device.type != "cuda":
        raise ArgumentError(
            f"{owner}: compile=True captures the step as a CUDA graph, and the device is {device}. Use 'auto'."
        )
    if compile is True and processes > 1:
        raise ArgumentError(f"{owner}: compile=True is for one process, and this run has {processes}. Use 'auto'.")
    return compile if processes == 1 else False


def prepare(step: Step, optimizers: Mapping[str, Optimizer], device: torch.device, *, compile: bool | str) -> Step:
    """The step as it is to be run: captured on a CUDA card, unless `compile` is False or the optimizers forbid it.

    Raises:
        TrainingError: they do, and `compile` is True.
    """
    if device.type != "cuda" or compile is False:
        return step
    if why := make_capturable(optimizers, device):
        give_up(why, insist=compile is True)
        return step
    return CapturedStep(step, CudaGraphs(device), insist=compile is True)
