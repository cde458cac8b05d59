"""The reference implementation, from a checkout of pytorch-CycleGAN-and-pix2pix, in the benchmark."""

import contextlib
import importlib
import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor


class Peer:
    """The reference pix2pix with default options: U-Net, 70x70 discriminator, vanilla loss, L1 x 100, Adam, fp32."""

    def __init__(self, checkout: Path, *, size: int, base_channels: int, device: torch.device) -> None:
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError(f"the reference implementation needs the CPU or CUDA, got {device.type}")
        # The checkout imports its modules as a top-level package, `models`.
        sys.path.insert(0, str(checkout.resolve()))
        try:
            model_class = importlib.import_module("models.pix2pix_model").Pix2PixModel
        except ImportError as error:
            raise RuntimeError(f"{checkout} cannot be imported as pytorch-CycleGAN-and-pix2pix: {error}") from error
        finally:
            sys.path.pop(0)
        with contextlib.redirect_stdout(io.StringIO()):
            self.model = model_class(_options(size, base_channels, device))

    def step(self, batch: dict[str, Tensor]) -> None:
        """Run one training step."""
        self.model.set_input({"A": batch["source"], "B": batch["target"], "A_paths": [], "B_paths": []})
        self.model.optimize_parameters()

    @torch.no_grad()
    def forward(self, source: Tensor) -> Tensor:
        """Run the generator as the test script does with ``--eval``: running statistics, no dropout."""
        return self.model.netG.eval()(source)


def _options(size: int, base_channels: int, device: torch.device) -> SimpleNamespace:
    options: dict[str, Any] = {
        "isTrain": True,
        "gpu_ids": [device.index or 0] if device.type == "cuda" else [],
        "device": device,
        "checkpoints_dir": ".",
        "name": "benchmark",
        "preprocess": "resize_and_crop",
        "direction": "AtoB",
        "input_nc": 3,
        "output_nc": 3,
        "ngf": base_channels,
        "ndf": base_channels,
        "netG": f"unet_{size}",
        "netD": "basic",
        "n_layers_D": 3,
        "norm": "batch",
        "no_dropout": False,
        "init_type": "normal",
        "init_gain": 0.02,
        "gan_mode": "vanilla",
        "lambda_L1": 100.0,
        "lr": 2e-4,
        "beta1": 0.5,
    }
    return SimpleNamespace(**options)
