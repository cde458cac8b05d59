"""Training step captured as a CUDA graph: recorded once and replayed, without the cost of Python."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from imtrans.data.loader import Batch
from imtrans.errors import ArgumentError, TrainingError
from imtrans.methods.optimizer_state import make_capturable

Losses = dict[str, Tensor]
Step = Callable[[Batch], Losses]
WARM_UP = 3


class CapturedStep:
    """Runs a step a few times, then records it, and from there on replays it.

    Each call trains on its batch. The recording is for one shape of batch, the first that comes four times. Batches of
    another shape run uncaptured, as the last batch of an epoch may.

    Args:
        step: trains on a batch, and returns the losses as detached scalars. It must read no value of a tensor on the
            host, and must change its state in place.
        recorder: records on the device; a step that it cannot record raises a RuntimeError.
        insist: whether a step that cannot be captured raises a TrainingError; else it runs uncaptured, with a warning.
    """

    def __init__(self, step: Step, recorder: "CudaGraphs", *, insist: bool) -> None:
        self._step, self._recorder, self._insist = step, recorder, insist
        self._seen: Counter[Any] = Counter()
        self._replays: dict[Any, Step] = {}  # of the one shape that is recorded
        self._failed = self._warned = False

    def __call__(self, batch: Batch) -> Losses:
        """Train on `batch`; return losses that later calls do not overwrite."""
        tensors = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
        shapes = tuple((name, tensor.shape, tensor.dtype) for name, tensor in tensors.items())
        self._seen[shapes] += 1
        if not self._replays and not self._failed:
            if self._seen[shapes] == WARM_UP:
                with self._recorder.detect_syncs() as syncs:
                    losses = self._recorder.run_on_stream(self._step, batch)
                if syncs:
                    self._fail(f"it waits for the device ({syncs[0]})")
                return losses
            if self._seen[shapes] > WARM_UP:
                self._record(tensors, shapes)
        if shapes in self._replays:
            return self._replays[shapes](tensors)
        # One other shape is the last batch of an epoch.
        if len(self._seen) > 2 and not self._failed and not self._warned:
            self._warned = True
            warnings.warn(
                f"the batches have {len(self._seen)} shapes so far. Only the first that comes {WARM_UP + 1} times is "
                "captured; the others run uncaptured, which is slower. Give images of one size.",
                stacklevel=3,
            )
        return self._recorder.run_on_stream(self._step, batch)

    def _record(self, batch: Batch, shapes: Any) -> None:
        inputs = {name: tensor.clone() for name, tensor in batch.items()}
        try:
            replay, losses = self._recorder.record(self._step, inputs)
        except RuntimeError as error:
            self._fail(str(error).partition("\n")[0])
            return
        except KeyError as error:
            self._fail(f"it reads the batch's {error}, which is not a tensor")
            return

        def run(batch: Batch) -> Losses:
            for name, tensor in batch.items():
                inputs[name].copy_(tensor, non_blocking=True)
            replay()
            return {name: loss.clone() for name, loss in losses.items()}

        self._replays[shapes] = run

    def _fail(self, reason: str) -> None:
        self._failed = True
        warn_not_captured(reason, insist=self._insist)


class CudaGraphs:
    """Records steps on a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def run_on_stream(self, step: Step, batch: Batch) -> Losses:
        """Run `step` on the stream that records."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)  # gradients must not come from two streams
        with torch.cuda.stream(self.stream), warnings.catch_warnings():
            # torch warns of a capturable optimizer that runs uncaptured, as in the first steps.
            warnings.filterwarnings("ignore", message=".*capturable=True")
            losses = step(batch)
        current.wait_stream(self.stream)
        return {name: loss.clone() for name, loss in losses.items()}

    def record(self, step: Step, batch: Batch) -> tuple[Callable[[], None], Losses]:
        """Record `step` without running it; return the replay function, and the losses that each replay fills."""
        graph = torch.cuda.CUDAGraph()
        generator = torch.cuda.default_generators[self.device.index]
        kept = generator.clone_state()
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        try:
            # Threads that load data may call CUDA during the capture.
            with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
                losses = step(batch)
        except (RuntimeError, KeyError):
            # A failed capture leaves the generator in capture mode.
            generator.graphsafe_set_state(kept)
            raise
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        return graph.replay, losses

    @contextmanager
    def detect_syncs(self) -> Iterator[list[str]]:
        """Context manager whose list holds, on exit, the places where the host waited for the device."""
        before, syncs = torch.cuda.get_sync_debug_mode(), cast(list[str], [])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield syncs
            finally:
                torch.cuda.set_sync_debug_mode(before)
        for warning in caught:
            if "called a synchronizing" in str(warning.message):
                syncs.append(f"{warning.filename}, line {warning.lineno}")
            elif "prototype feature" not in str(warning.message):
                warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def warn_not_captured(reason: str, *, insist: bool) -> None:
    """Warn that the step cannot be captured, or with `insist` raise a TrainingError."""
    if insist:
        raise TrainingError(
            f"compile=True, but the step cannot be captured: {reason}. Use compile='auto', which runs it uncaptured."
        )
    warnings.warn(f"the step runs uncaptured, which is slower: it cannot be captured, because {reason}.", stacklevel=5)


def check_compile(owner: str, compile: bool | str, device: torch.device, *, processes: int = 1) -> bool | str:
    """Return `compile`, or False with several `processes`. A value that is not possible raises an ArgumentError."""
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
    """Return `step`, captured on a CUDA device unless `compile` is False; see `warn_not_captured`."""
    if device.type != "cuda" or compile is False:
        return step
    if reason := make_capturable(optimizers, device):
        warn_not_captured(reason, insist=compile is True)
        return step
    return CapturedStep(step, CudaGraphs(device), insist=compile is True)
