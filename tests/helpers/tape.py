"""A CUDA graph in miniature, on the CPU: it records a step's operations, and runs them again on the same memory."""

from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Recording(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("a value was read\nwhile the step was recorded")
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out


class Operations(TorchDispatchMode):
    """Context manager that counts operations, views not included. On a device, each launches a kernel or two."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += all(returned.alias_info is None for returned in func._schema.returns)
        return func(*args, **(kwargs or {}))


class Tape:
    """A `Recorder`. What Python did while the step was recorded, numbers that it read included, is not repeated.

    Args:
        state: gives the tensors that the step changes, to be put back after recording: a recording runs nothing.
    """

    def __init__(self, state, waits=()):
        self.state, self.waits = state, list(waits)
        self.plain = self.searched = self.replayed = self.recorded = 0

    def run_on_stream(self, step, batch, *, search):
        self.plain += 1
        self.searched += search
        return step(batch)

    def record(self, step, batch):
        self.recorded += 1
        state = self.state()
        before, random = [t.clone() for t in state], torch.get_rng_state()
        try:
            with _Recording() as recording:
                losses = step(batch)
        finally:
            with torch.no_grad():
                for tensor, value in zip(state, before, strict=True):
                    tensor.copy_(value)
            torch.set_rng_state(random)

        def replay():
            self.replayed += 1
            with torch.no_grad(), torch._C._AutoDispatchBelowAutograd():
                for func, args, kwargs, out in recording.calls:
                    self._again(func, args, kwargs, out)

        return replay, losses

    @staticmethod
    def _again(func, args, kwargs, out):
        new = func(*args, **kwargs)
        if any(r.alias_info is not None for r in func._schema.returns):
            return  # a view of memory that is there already, or that memory itself
        if func.namespace == "c10d":
            tree_leaves(new)[-1].wait()  # for the other processes
        for old, value in zip(tree_leaves(out), tree_leaves(new), strict=True):
            if isinstance(old, torch.Tensor) and old is not value:
                old.copy_(value)

    @contextmanager
    def detect_syncs(self):
        yield self.waits
