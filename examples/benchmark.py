"""Benchmark imtrans on this machine, compared with the hardware's limits and with the reference implementation.

python examples/benchmark.py                       # about ten minutes on two cores
python examples/benchmark.py --peer CHECKOUT       # compare with a checkout of pytorch-CycleGAN-and-pix2pix
python examples/benchmark.py --quick               # tiny networks, in seconds, to check that it runs
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from benchmark_parts import (
    Setting,
    child,
    first_line,
    floor,
    forwards,
    in_children,
    input_pipeline,
    least_ms,
    sharp_steps,
    steps,
    trainer_loop,
)

import imtrans
from imtrans.runtime import pick_device

Results = dict[str, Any]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, metavar="CHECKOUT", help="checkout of pytorch-CycleGAN-and-pix2pix")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to this file")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="tiny networks; the figures are meaningless")
    parser.add_argument("--threads", type=int, help="number of CPU threads (PyTorch's default)")
    parser.add_argument("--seconds", type=float, default=45.0, help="time for each comparison, after three rounds (45)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    torch.set_float32_matmul_precision("high")
    size, base_channels, seconds = (128, 4, 0.0) if args.quick else (256, 64, args.seconds)
    setting = Setting(pick_device(args.device), size, base_channels, seconds, args.peer)
    if args.child is not None:
        print(json.dumps(child(args.child, setting)))
        return
    results = measure(setting, quick=args.quick)
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


def measure(setting: Setting, *, quick: bool) -> Results:
    results: Results = {"machine": machine(setting), "size": setting.size, "base_channels": setting.base_channels}
    print("\n".join(f"{name:<14}{value}" for name, value in results["machine"].items()))

    rates = results["floor"] = attempt(lambda: floor(setting))
    show_floor(rates)
    results["step"] = {}
    for count in (1, 2) if quick else (1, 4, 16):
        times = results["step"][str(count)] = attempt(lambda count=count: steps(setting, count))
        show_times(f"training step, batch {count}", times, rates, "step", count)
    results["sharp_step"] = attempt(lambda: sharp_steps(setting))
    show_times("step in bf16, sharp settings", results["sharp_step"], {"skipped": ""}, "step")
    # Compilation takes longer than the rest of a quick run.
    results["forward"] = attempt(lambda: forwards(setting, compiled=not quick))
    show_times("one image", results["forward"], rates, "forward")

    own = [sys.executable, __file__, "--device", str(setting.device), "--threads", str(torch.get_num_threads())]
    own += ["--quick"] if quick else []
    peer = ["--peer", str(setting.peer)] if setting.peer else []
    theirs = {"memory": ["peer step"], "first": ["peer picture"]} if setting.peer else {"memory": [], "first": []}
    results["peak_memory"] = in_children(own + peer, [*theirs["memory"], "step"], repeat=1 if quick else 3)
    show_pairs("peak memory of three training steps in fp32, batch 1 (MiB)", results["peak_memory"], "peak_mib")
    kinds = [*theirs["first"], "picture", "translator picture"]
    results["first_picture"] = in_children(own + peer, kinds, repeat=1 if quick else 5)
    show_pairs("the first image of a process (ms)", results["first_picture"], "first_ms")

    results["input"] = attempt(lambda: input_pipeline(setting, 4 if quick else 50))
    show_pairs("a pair from the data set (ms)", results["input"])
    results["loop"] = {p: attempt(lambda p=p: trainer_loop(setting, p, 4 if quick else 30)) for p in ("fp32", "bf16")}
    for precision, loop in results["loop"].items():
        show_pairs(f"Trainer.fit in {precision}, batch 1, extrapolated to 400 pairs x 200 epochs", loop)
    results["machine"]["load at the end"] = load()
    print(f"\nload average at the end: {results['machine']['load at the end']}")
    return results


def attempt(section: Callable[[], Results]) -> Results:
    """Return the results of `section`, or the reason why it cannot run on this machine."""
    try:
        return section()
    except (RuntimeError, ValueError, NotImplementedError, OSError) as error:
        return {"skipped": first_line(error)}


def machine(setting: Setting) -> dict[str, str]:
    cpu_info = Path("/proc/cpuinfo")
    models = [line for line in cpu_info.read_text().splitlines() if "model name" in line] if cpu_info.is_file() else []
    cuda = setting.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(setting.device) if cuda else str(setting.device),
        "cpu": models[0].split(":")[1].strip() if models else platform.processor(),
        "cores": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "imtrans": imtrans.__version__,
        "load": load(),
    }


def load() -> str:
    return f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"


def show_floor(rates: Results) -> None:
    print("\nthis machine")
    if "skipped" in rates:
        print(f"  skipped: {rates['skipped']}")
        return
    for precision in ("fp32", "bf16"):
        print(f"  matrix product {precision}   {rates[f'{precision}_flop_per_s'] / 1e9:10.0f} GFLOP/s")
    print(f"  copy                  {rates['bytes_per_s'] / 1e9:10.1f} GB/s")
    for work in ("step", "forward"):
        flop, weights = rates[f"{work}_flop"] / 1e9, rates[f"{work}_bytes"] / 1e9
        print(f"  one {work:<8} {flop:8.2f} GFLOP, {weights:.2f} GB for the weights")


def show_times(title: str, results: Results, rates: Results, work: str, count: int = 1) -> None:
    print(f"\n{title:<28}{'median':>9}{'fastest':>9}{'first':>9}{'ratio':>7}{'of floor':>10}")
    for name, result in results.items():
        if name == "skipped":
            print(f"  skipped: {result}")
        elif "skipped" in result:
            print(f"  {name:<26}skipped: {result['skipped']}")
        else:
            if "skipped" not in rates:
                precision = "bf16" if "bf16" in name else "fp32"
                result["of_floor"] = least_ms(rates, work, precision, count) / result["ms"]
            share = f"{result['of_floor']:>10.0%}" if "of_floor" in result else ""
            print(
                f"  {name:<26}{result['ms']:>9.1f}{result['fastest_ms']:>9.1f}{result['first_ms']:>9.0f}"
                f"{result['ratio']:>7.2f}{share}"
            )


def show_pairs(title: str, results: Results, column: str | None = None) -> None:
    print(f"\n{title}")
    for name, result in results.items():
        if name == "skipped":
            print(f"  skipped: {result}")
        elif isinstance(result, dict) and "skipped" in result:
            print(f"  {name:<28}skipped: {result['skipped']}")
        else:
            print(f"  {name:<28}{result if column is None else result[column]:>10.3f}")


if __name__ == "__main__":
    main()
