"""Exponential moving average of the weights of networks."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from imtrans.checks import in_range


class WeightAverage:
    """Moving average of the parameters and floating-point buffers of networks.

    After each step: ``average = decay * average + (1 - decay) * weight``. It begins with the first weights. `update`
    never waits for the device.

    Args:
        networks: networks to average, by name. Their tensors must stay the same objects.
        decay: decay rate of the average.

    Raises:
        ArgumentError: a `decay` below 0, or not below 1.

    >>> network = nn.Linear(1, 1, bias=False)
    >>> average = WeightAverage({"network": network}, decay=0.75)
    >>> _ = network.weight.data.add_(1.0)
    >>> average.update()
    >>> before = network.weight.item()
    >>> with average.applied():
    ...     round(before - network.weight.item(), 3)
    0.75
    """

    def __init__(self, networks: Mapping[str, nn.Module], decay: float) -> None:
        self.decay = in_range("Trainer", "ema", decay, 0.0, 1.0 - 1e-6)
        self._weights: dict[str, Tensor] = {}
        for name, network in networks.items():
            for key, tensor in [*network.named_parameters(), *network.named_buffers()]:
                if tensor.is_floating_point() and not any(tensor is known for known in self._weights.values()):
                    self._weights[f"{name}.{key}"] = tensor.detach()
        self._averages = {name: weight.clone() for name, weight in self._weights.items()}
        self._update = get_ema_multi_avg_fn(self.decay)
        self._applied = False

    def update(self) -> None:
        """Move the average towards the present weights."""
        self._update([*self._averages.values()], [*self._weights.values()], 0)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Context manager in which the networks have the averaged weights. It restores their own, bit for bit."""
        if self._applied:
            yield
            return
        self._swap()
        self._applied = True
        try:
            yield
        finally:
            self._applied = False
            self._swap()

    def _swap(self) -> None:
        for name, weight in self._weights.items():
            kept = weight.clone()
            weight.copy_(self._averages[name])
            self._averages[name].copy_(kept)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averages by name, for a checkpoint."""
        return dict(self._averages)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load what `state_dict` returned. KeyError or RuntimeError: it is of other networks."""
        for name, average in self._averages.items():
            average.copy_(state[name])
