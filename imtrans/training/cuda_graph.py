"""Training step captured as a CUDA graph: recorded once and replayed, without the cost of Python."""

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from imtrans.data.loader import Batch
from imtrans.distributed.data_parallel import current_shard
from imtrans.distributed.process_group import ProcessGroup
from imtrans.errors import ArgumentError, TrainingError
from imtrans.methods.optimizer_state import make_capturable

T = TypeVar("T")
Losses = dict[str, Tensor]
Step = Callable[[Batch], Losses]
WARM_UP = 3
FIRST_TO_UNDO = (2, 13)  # the first torch whose allocator leaves a capture that failed: pytorch/pytorch#180395


class CaptureError(TrainingError):
    """A capture failed, and this torch cannot use the device after it."""


class CapturedStep:
    """Runs a step a few times, then records it, and from there on replays it.

    Each call trains on its batch. The recording is for one shape of batch, the first that comes four times. Batches of
    another shape run uncaptured, as the last batch of an epoch may.

    In several processes the recording is for one division of a batch into shards, because all processes must record the
    same step. Their images must have one size: it is compared once, before the recording.

    Args:
        step: trains on a batch, and returns the losses as detached scalars. It must read no value of a tensor on the
            host, and must change its state in place.
        recorder: records on the device; a step that it cannot record raises a RuntimeError.
        insist: whether a step that cannot be captured raises a TrainingError; else it runs uncaptured, with a warning.
        group: processes that share each step.
    """

    def __init__(self, step: Step, recorder: "CudaGraphs", *, insist: bool, group: ProcessGroup | None = None) -> None:
        self._step, self._recorder, self._insist = step, recorder, insist
        self._group = group or ProcessGroup()
        self._seen: dict[Any, Counter[Any]] = defaultdict(Counter)  # shapes, by what all processes know of the batch
        self._recorded: Any = None
        self._failed = self._warned = False

    def __call__(self, batch: Batch) -> Losses:
        """Train on `batch`; return losses that later calls do not overwrite.

        Raises:
            TrainingError: in several processes, a batch of other images than the recorded ones.
        """
        tensors = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
        shapes = tuple((name, tensor.shape, tensor.dtype) for name, tensor in tensors.items())
        shard = current_shard()
        key = shapes if shard is None else tuple(shard.shard_sizes)
        self._seen[key][shapes] += 1
        search = len(self._seen) <= 2  # of each size, the search takes about a second
        if self._recorded is None and not self._failed:
            if self._seen[key].total() == WARM_UP:
                with self._recorder.detect_syncs() as syncs:
                    losses = self._recorder.run_on_stream(self._step, batch, search=search)
                self._fail_if(f"it waits for the device ({syncs[0]})" if syncs else None)
                return losses
            if self._seen[key].total() > WARM_UP:
                self._record(tensors, key, shapes)
        if self._recorded is not None and key == self._recorded[0]:
            _, recorded, replay = self._recorded
            if shapes != recorded:
                raise TrainingError(
                    f"the captured step is for a batch of {_described(recorded)}, and rank {self._group.rank} has one "
                    f"of {_described(shapes)}. Give images of one size, or resume with compile=False."
                )
            return cast(Losses, replay(tensors))
        # One other shape is the last batch of an epoch.
        if len(self._seen) > 2 and not self._failed and not self._warned:
            self._warned = True
            warnings.warn(
                f"the batches have {len(self._seen)} shapes so far. Only the first that comes {WARM_UP + 1} times is "
                "captured; the others run uncaptured, which is slower. Give images of one size.",
                stacklevel=3,
            )
        return self._recorder.run_on_stream(self._step, batch, search=search)

    def _record(self, batch: Batch, key: Any, shapes: Any) -> None:
        own = {tuple((name, shape[1:]) for name, shape, _ in seen) for seen in self._seen[key]}
        if len(set[Any]().union(*self._group.all_gather_object(own))) > 1:
            self._fail_if("the images of the processes differ in size")
            return
        inputs, names, reason = {name: tensor.clone() for name, tensor in batch.items()}, list[str](), None

        def step(batch: Batch) -> Tensor:
            losses = self._step(batch)
            names[:] = losses
            return torch.stack([loss.float() for loss in losses.values()]) if losses else torch.empty(0)

        try:
            replay, losses = self._recorder.record(step, inputs)
        except CaptureError:
            raise
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
        except KeyError as error:
            reason = f"it reads the batch's {error}, which is not a tensor"
        if self._fail_if(reason):
            return

        def run(batch: Batch) -> Losses:
            for name, tensor in batch.items():
                inputs[name].copy_(tensor, non_blocking=True)
            replay()
            return dict(zip(names, losses.clone().unbind(), strict=True))

        self._recorded = key, shapes, run

    def _fail_if(self, reason: str | None) -> bool:
        """Stop to capture if there is a `reason` in one of the processes."""
        reason = next((each for each in self._group.all_gather_object(reason) if each is not None), None)
        if reason is not None:
            self._failed = True
            warn_not_captured(reason, insist=self._insist)
        return self._failed


class CudaGraphs:
    """Records steps on a CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def run_on_stream(self, step: Callable[[Batch], Losses], batch: Batch, *, search: bool = True) -> Losses:
        """Run `step` on the stream that records; with `search`, cuDNN times its algorithms at the first run."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)  # gradients must not come from two streams
        with torch.cuda.stream(self.stream), warnings.catch_warnings(), cudnn_search(search):
            # torch warns of a capturable optimizer that runs uncaptured, as in the first steps.
            warnings.filterwarnings("ignore", message=".*capturable=True")
            losses = step(batch)
        current.wait_stream(self.stream)
        return {name: loss.clone() for name, loss in losses.items()}

    def record(self, step: Callable[[Batch], T], batch: Batch) -> tuple[Callable[[], None], T]:
        """Record `step` without running it; return the replay function, and the result that each replay fills.

        An error of `step` is raised as it is, on the stream of before.

        Raises:
            CaptureError: the capture failed, with a torch that cannot go on.
        """
        graph = torch.cuda.CUDAGraph()
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        cause: BaseException | None = None
        try:
            # Threads that load data may call CUDA during the capture.
            capture = torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local")
            with cudnn_search(True), capture:
                try:
                    result = step(batch)
                except BaseException as error:
                    cause = error
                    raise
        except BaseException as error:
            # A capture that failed raises an error of its own at its end, and stays on its stream.
            torch.cuda.set_stream(current)
            undone, cause = error is cause or undoes_failed_captures(), cause or error
            if undone:
                raise cause from cause.__cause__
            reason = str(cause).partition("\n")[0]
            raise CaptureError(
                f"the step cannot be captured: {reason}. Torch {torch.__version__} cannot go on after that. Use "
                f"compile=False, or torch {'.'.join(map(str, FIRST_TO_UNDO))} or newer."
            ) from cause
        current.wait_stream(self.stream)
        return graph.replay, result

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


@contextmanager
def cudnn_search(on: bool) -> Iterator[None]:
    """Context manager in which cuDNN times its algorithms for each new shape, unless it must be deterministic."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or (on and not torch.backends.cudnn.deterministic)
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def undoes_failed_captures() -> bool:
    """Whether this torch's allocator leaves a capture that failed."""
    return tuple(int(part) for part in torch.__version__.split(".")[:2]) >= FIRST_TO_UNDO


def warn_not_captured(reason: str, *, insist: bool) -> None:
    """Warn that the step cannot be captured, or with `insist` raise a TrainingError."""
    if insist:
        raise TrainingError(
            f"compile=True, but the step cannot be captured: {reason}. Use compile='auto', which runs it uncaptured."
        )
    warnings.warn(f"the step runs uncaptured, which is slower: it cannot be captured, because {reason}.", stacklevel=6)


def check_compile(owner: str, compile: bool | str, device: torch.device) -> bool | str:
    """Return `compile`. A value that is not possible on `device` raises an ArgumentError."""
    if not isinstance(compile, bool) and compile != "auto":
        raise ArgumentError(f"{owner}: compile must be 'auto', True or False, got {compile!r}.")
    if compile is True and device.type != "cuda":
        raise ArgumentError(
            f"{owner}: compile=True captures the step as a CUDA graph, and the device is {device}. Use 'auto'."
        )
    return compile


def prepare(
    step: Step,
    optimizers: Mapping[str, Optimizer],
    device: torch.device,
    *,
    compile: bool | str,
    group: ProcessGroup | None = None,
) -> Step:
    """Return `step`, captured on a CUDA device unless `compile` is False; see `warn_not_captured`."""
    if device.type != "cuda" or compile is False:
        return step
    if reason := make_capturable(optimizers, device):
        warn_not_captured(reason, insist=compile is True)
        return step
    return CapturedStep(step, CudaGraphs(device), insist=compile is True, group=group)


def _described(shapes: Any) -> str:
    return ", ".join(f"{name} {tuple(shape)}" for name, shape, _ in shapes)
