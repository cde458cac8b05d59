"""How near a method's translations come to their targets."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from imtrans.loading import Batch
from imtrans.modes import MODES, running_as

Preview = Callable[[Batch], dict[str, Tensor]]


@torch.no_grad()
def compare_modes(
    network: nn.Module,
    preview: Preview,
    data: Callable[[], Iterable[Batch]],
    device: torch.device,
    *,
    seed: int = 0,
) -> dict[str, Any] | None:
    """Compare translations with their targets in each mode of `imtrans.modes.running_as`.

    Args:
        network: whose mode is set, a whole method as a rule.
        preview: from a batch to columns of pictures ``(b, c, h, w)`` in [-1, 1].
        data: makes the batches, once for each mode.
        device: that the batches are moved to.
        seed: of dropout, the same for each mode; the caller's random state is left alone.

    Returns:
        ``{mode: {"l1": ..., "psnr": ...}, "best": mode}``: means over the pictures, scaled to [0, 1], PSNR in dB; the
        best has the lowest L1. None if the columns lack ``"fake"`` or ``"target"``.
    """
    results: dict[str, Any] = {}
    for mode in MODES:
        scores = []
        with keep_randomness(device), running_as(network, mode):
            torch.manual_seed(seed)
            for batch in data():
                columns = preview({name: tensor.to(device) for name, tensor in batch.items()})
                if "fake" not in columns or "target" not in columns:
                    return None
                scores.append(l1_and_psnr(columns["fake"], columns["target"]))
        l1, psnr = torch.cat(scores, dim=1).mean(dim=1).tolist()
        results[mode] = {"l1": l1, "psnr": psnr}
    return {**results, "best": min(MODES, key=lambda mode: results[mode]["l1"])}


def keep_randomness(device: torch.device) -> Any:
    """A context that gives the caller's random state back at its end."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])


def l1_and_psnr(fake: Tensor, target: Tensor) -> Tensor:
    """L1 and PSNR of each picture, scaled to [0, 1]; PSNR in dB, at most 100, so that means stay finite.

    Shape: ``(b, c, h, w)`` in [-1, 1], twice -> ``(2, b)``.

    >>> l1_and_psnr(torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)).flatten().round(decimals=2)
    tensor([0.5000, 6.0200])
    """
    difference = (fake.float() - target.float()) / 2
    psnr = -10 * difference.square().mean(dim=(1, 2, 3)).clamp_min(1e-10).log10()
    return torch.stack([difference.abs().mean(dim=(1, 2, 3)), psnr])
