"""The measurements of the benchmark."""

import itertools
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from benchmark_peer import Peer
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from imtrans import (
    PairedImages,
    PatchDiscriminator,
    Pix2Pix,
    ProceduralFacades,
    Trainer,
    Translator,
    UNetGenerator,
    init_net,
    translate,
)
from imtrans.data.loader import BatchLoader

Run = Callable[[], object]
RECIPE_STEPS = 400 * 200
RECIPE_CHECKPOINTS = 20
WARM_UP = {False: 1, True: 5}  # on CUDA, the trainer captures a graph at the fourth step


@dataclass(frozen=True)
class Setting:
    """Settings of a measurement: the pix2pix networks of the reference implementation, at one size, on one device."""

    device: torch.device
    size: int
    base_channels: int
    seconds: float
    """Time for a comparison, after three rounds."""
    peer: Path | None

    def generator(self) -> UNetGenerator:
        made = UNetGenerator.preset(f"junyanz/unet_{self.size}", base_channels=self.base_channels)
        return init_net(made, self.device, seed=0)

    def trainer(self, precision: str, data: Any = None, **settings: Any) -> Trainer:
        discriminator = init_net(PatchDiscriminator(6, base_channels=self.base_channels), self.device, seed=1)
        method = Pix2Pix(self.generator(), discriminator)
        return Trainer(
            method, data, **{"out": None, "precision": precision, "device": self.device, "progress": False, **settings}
        )

    def make_peer(self) -> Peer:
        assert self.peer is not None
        return Peer(self.peer, size=self.size, base_channels=self.base_channels, device=self.device)

    def batch(self, count: int) -> dict[str, Tensor]:
        shape = (2, count, 3, self.size, self.size)
        source, target = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(self.device) * 2 - 1
        return {"source": source, "target": target}

    def wait(self) -> None:
        if self.device.type != "cpu":
            getattr(torch, self.device.type).synchronize()

    def clock(self, run: Run) -> float:
        self.wait()
        started = time.perf_counter()
        run()
        self.wait()
        return time.perf_counter() - started


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def compare(setting: Setting, contenders: dict[str, Callable[[], Run]]) -> dict[str, dict[str, Any]]:
    """Time all contenders in turn, for several rounds. The ratios are relative to the first one that runs.

    A ratio is the median over the rounds. Its two times are seconds apart, so that other load affects both.
    """
    runs: dict[str, Run] = {}
    results: dict[str, dict[str, Any]] = {}
    for name, prepare in contenders.items():
        try:
            run = prepare()
            first = setting.clock(run)
            for _ in range(WARM_UP[setting.device.type == "cuda"]):
                run()
        except (RuntimeError, ValueError, NotImplementedError) as error:
            results[name] = {"skipped": first_line(error)}
        else:
            runs[name], results[name] = run, {"first_ms": 1000 * first}
    times: dict[str, list[float]] = {name: [] for name in runs}
    started, rounds = time.perf_counter(), 0
    while rounds < 3 or (rounds < 50 and time.perf_counter() - started < setting.seconds):
        for name, run in runs.items():
            times[name].append(setting.clock(run))
        rounds += 1
    for name, own in times.items():
        ratio = median(base / mine for base, mine in zip(next(iter(times.values())), own, strict=True))
        results[name] |= {"ms": 1000 * median(own), "fastest_ms": 1000 * min(own), "ratio": ratio, "rounds": rounds}
    return results


def steps(setting: Setting, count: int) -> dict[str, dict[str, Any]]:
    """Time a training step on a batch that is already on the device."""
    batch = setting.batch(count)

    def ours(precision: str, **settings: Any) -> Run:
        trainer = setting.trainer(precision, batch_size=count, **settings)
        return lambda: trainer.train_step(batch)

    def theirs() -> Run:
        peer = setting.make_peer()
        return lambda: peer.step(batch)

    contenders = {"peer fp32": theirs} if setting.peer else {}
    contenders |= {f"imtrans {p}": lambda p=p: ours(p) for p in ("fp32", "bf16")}
    if setting.device.type == "cuda":
        contenders |= {f"imtrans {p}, eager": lambda p=p: ours(p, compile=False) for p in ("fp32", "bf16")}
        contenders |= {"imtrans fp16": lambda: ours("fp16")}
    return compare(setting, contenders)


def sharp_steps(setting: Setting) -> dict[str, dict[str, Any]]:
    """Time a step in bf16 at batch 1 with the paper's settings, and with those that give sharper images."""
    batch = setting.batch(1)

    def step(*, spectral_norm: bool = False, feature_weight: float = 0.0, **generator: Any) -> Run:
        made = UNetGenerator(
            base_channels=setting.base_channels, depth=setting.size.bit_length() - 1, **generator
        )  # one pixel in the bottleneck
        discriminator = PatchDiscriminator(6, base_channels=setting.base_channels, spectral_norm=spectral_norm)
        networks = init_net(made, setting.device, seed=0), init_net(discriminator, setting.device, seed=1)
        method = Pix2Pix(*networks, feature_weight=feature_weight)
        trainer = Trainer(method, out=None, precision="bf16", device=setting.device, progress=False)
        return lambda: trainer.train_step(batch)

    return compare(
        setting,
        {
            "paper": step,
            "nearest": lambda: step(upsample="nearest"),
            "... feature matching": lambda: step(upsample="nearest", feature_weight=10.0),
            "... and spectral norm": lambda: step(upsample="nearest", feature_weight=10.0, spectral_norm=True),
        },
    )


def forwards(setting: Setting, *, compiled: bool) -> dict[str, dict[str, Any]]:
    """Time the translation of one image tensor, with running statistics."""
    source = setting.batch(1)["source"]
    generator = setting.generator()

    def theirs() -> Run:
        peer = setting.make_peer()
        return lambda: peer.forward(source)

    def by_translator(precision: str, compiled: bool) -> Run:
        translator = Translator(generator, mode="eval", precision=precision, compile=compiled)
        return lambda: translator(source)

    contenders: dict[str, Callable[[], Run]] = {"peer fp32": theirs} if setting.peer else {}
    for p in ("fp32", "bf16"):
        contenders[f"translate {p}"] = lambda p=p: lambda: translate(generator, source, mode="eval", precision=p)
        contenders[f"Translator {p}"] = lambda p=p: by_translator(p, compiled=False)
        if compiled:
            contenders[f"Translator {p}, compiled"] = lambda p=p: by_translator(p, compiled=True)
    return compare(setting, contenders)


def floor(setting: Setting) -> dict[str, float]:
    """Measure the rates of this machine and the work of a step and of an image: lower bounds of their time."""
    quick = setting.base_channels < 64
    side, length = (256, 2**20) if quick else (2048, 2**26) if setting.device.type == "cpu" else (8192, 2**28)
    rates: dict[str, float] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = torch.rand(2, side, side, device=setting.device).to(dtype)
        rates[f"{name}_flop_per_s"] = 2 * side**3 / min(setting.clock(lambda a=a, b=b: a @ b) for _ in range(30))
    source, copy = torch.zeros(2, length, device=setting.device)
    rates["bytes_per_s"] = 2 * 4 * length / min(setting.clock(lambda: copy.copy_(source)) for _ in range(10))
    batch, trainer = setting.batch(1), setting.trainer("fp32")
    with FlopCounterMode(display=False) as counter:
        trainer.train_step(batch)
    rates["step_flop"] = counter.get_total_flops()
    generator = setting.generator()
    with FlopCounterMode(display=False) as counter:
        translate(generator, batch["source"], mode="eval")
    rates["forward_flop"] = counter.get_total_flops()
    # Adam reads a weight, its gradient and two moments, and writes all but the gradient.
    rates["step_bytes"] = 4 * 7 * sum(p.numel() for p in trainer.method.parameters())
    rates["forward_bytes"] = 4 * sum(p.numel() for p in generator.parameters())
    return rates


def least_ms(rates: dict[str, float], work: str, precision: str, count: int = 1) -> float:
    arithmetic = count * rates[f"{work}_flop"] / rates[f"{precision}_flop_per_s"]
    # bf16 weights have half the bytes; in a training step the weights stay in fp32.
    share = 0.5 if (work, precision) == ("forward", "bf16") else 1.0
    return 1000 * (arithmetic + share * rates[f"{work}_bytes"] / rates["bytes_per_s"])


def trainer_loop(setting: Setting, precision: str, count: int) -> dict[str, float]:
    """Measure the overhead of `Trainer.fit` with its data, and extrapolate to the whole recipe."""
    data = ProceduralFacades(count // 2, size=setting.size)
    for index in range(len(data)):
        data[index]  # drawn once and cached: a real run draws only in its first epoch
    spans: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as out:
        trainer = setting.trainer(
            precision, data, out=Path(out, "run"), epochs=2, sample_every=10**9, checkpoint_every=10**9
        )
        step = trainer.train_step

        def timed(batch: dict[str, Tensor], **settings: Any) -> Any:
            setting.wait()
            started = time.perf_counter()
            losses = step(batch, **settings)
            setting.wait()
            spans.append((started, time.perf_counter()))
            return losses

        trainer.train_step = timed  # type: ignore[method-assign]
        trainer.fit()
        ending = time.perf_counter() - spans[-1][1]
    inside = [stop - start for start, stop in spans[1:]]
    between = [after[0] - before[1] for before, after in itertools.pairwise(spans)]
    pace = (sum(inside) + sum(between)) / len(inside)
    return {
        "step_ms": 1000 * median(inside),
        "between_ms": 1000 * sum(between) / len(between),
        "overhead": sum(between) / sum(inside),
        "checkpoint_s": ending,
        "recipe_hours": (RECIPE_STEPS * pace + RECIPE_CHECKPOINTS * ending) / 3600,
    }


def input_pipeline(setting: Setting, count: int) -> dict[str, float]:
    """Measure milliseconds per pair, batch 1, on the device: in the first epoch, and in later ones from the cache."""
    with tempfile.TemporaryDirectory() as folder:
        for index in range(count):
            pair = Image.effect_noise((2 * setting.size, setting.size), 64)
            pair.convert("RGB").save(Path(folder, f"{index}.jpg"))
        results = {}
        for name, data in {
            "JPEG files": PairedImages(folder, size=setting.size),
            "facades drawn": ProceduralFacades(count, size=setting.size),
        }.items():
            loader = BatchLoader(setting.device, cache=True, num_workers=0)
            for epoch, when in enumerate(("first epoch", "later ones")):
                spent = setting.clock(
                    lambda loader=loader, data=data, epoch=epoch: list(loader.batches(data, 1, epoch=epoch))
                )
                results[f"{name}, {when}"] = 1000 * spent / count
        return results


def child(kind: str, setting: Setting) -> dict[str, float]:
    """Measure what needs a new process: the time of the first image, and peak memory."""
    batch, idle = setting.batch(1), peak_mib(setting)
    if kind in ("step", "peer step"):
        step = setting.make_peer().step if kind == "peer step" else setting.trainer("fp32").train_step
        for _ in range(3):
            step(batch)
        return {"peak_mib": peak_mib(setting) - idle}
    source = batch["source"]
    if kind == "peer picture":
        peer = setting.make_peer()
        return {"first_ms": 1000 * setting.clock(lambda: peer.forward(source))}
    generator = setting.generator()
    if kind == "picture":
        return {"first_ms": 1000 * setting.clock(lambda: translate(generator, source, mode="eval"))}
    return {"first_ms": 1000 * setting.clock(lambda: Translator(generator, mode="eval")(source))}


def peak_mib(setting: Setting) -> float:
    if setting.device.type == "cuda":
        return torch.cuda.max_memory_allocated(setting.device) / 2**20
    # getrusage is no alternative: its peak starts at the memory of the parent process.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def in_children(command: list[str], kinds: list[str], repeat: int) -> dict[str, dict[str, Any]]:
    """Run `child` for each kind in new processes, in turn, and return the medians."""
    answers: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    results: dict[str, dict[str, Any]] = {}
    for _ in range(repeat):
        for kind in kinds:
            done = subprocess.run([*command, "--child", kind], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                answers[kind].append(json.loads(done.stdout.splitlines()[-1]))
            else:
                results[kind] = {"skipped": (done.stderr.strip().splitlines() or ["no output"])[-1]}
    for kind, measured in answers.items():
        if measured:
            results[kind] = {name: median(answer[name] for answer in measured) for name in measured[0]}
    return results
