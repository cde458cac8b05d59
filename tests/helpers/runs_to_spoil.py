"""A small run with everything that has a state, for tests that kill it, starve it, and compare what is left of it."""

import json
from pathlib import Path

import torch

from imtrans import PatchDiscriminator, Pix2Pix, ProceduralFacades, Trainer, UNetGenerator
from imtrans.training.checkpoint import checkpoints, load_checkpoint

QUIET = {"device": "cpu", "precision": "fp32", "progress": False}


def small_run(out, *, steps=60, on_step=None, **settings):
    """Batch norm, dropout, a pool, a last batch that is smaller; saved every few steps."""
    torch.set_num_threads(1)
    torch.manual_seed(7)
    generator = UNetGenerator(base_channels=4, depth=3)
    method = Pix2Pix(generator, PatchDiscriminator(6, base_channels=4, n_layers=1), pool_size=3)
    often = {"log_every": 2, "sample_every": 10, "checkpoint_every": 5, "validate_every": 2}
    trainer = Trainer(
        method,
        ProceduralFacades(5, size=16),
        val_data=ProceduralFacades(2, size=16, seed=1, augment=False),
        out=out,
        epochs=-(-steps // 3),
        max_steps=steps,
        batch_size=2,
        **{**often, **QUIET, **settings},
    )
    step = method.step

    def watched(batch, optimizers):
        if on_step is not None:
            on_step(trainer.step)
        return step(batch, optimizers)

    method.step = watched
    return trainer


def go_on(out, **settings):
    """Start the run, or resume it, and let it end."""
    trainer = small_run(out, **settings)
    trainer.fit(resume=(Path(out) / "config.json").exists())
    return trainer


def remains(out):
    """Everything that two runs must have alike: state, metrics but for the speed, pictures, networks."""
    out = Path(out)
    state = load_checkpoint(checkpoints(out / "checkpoints")[-1])
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("images_per_second", None)
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    same = {name: path.read_bytes() for name, path in files.items() if name.endswith((".png", "model.safetensors"))}
    return {"state": plain(state), "metrics": lines, "files": same, "names": sorted(files)}


def plain(value):
    """Nested lists that `==` compares bit for bit."""
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, (list, tuple)) else value
