"""Latency of a compiled GSB network beside ONNX Runtime, interleaved in one process.

Every engine runs on one pinned core, one thread, in rounds A B C, A B C ..., so that a slow spell
of the machine hits all of them; medians and quartiles are over all rounds.

    python benchmarks/latency.py --preset deit-small --rounds 40 --json latency.json
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch

import gsb_tvm
from gsb_tvm.models.export import FORMS, export
from gsb_tvm.models.fill import realistic_
from gsb_tvm.models.gsb import PRESETS, Gsb, float_vit

Run = Callable[[np.ndarray], object]


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="deit-small")
    parser.add_argument("--form", choices=FORMS, default="legacy")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--core", type=int, default=0, help="the core to run on")
    parser.add_argument("--target", default="native")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    return parser.parse_args()


def onnx_runtime(path: Path) -> Run:
    """One-thread session on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image})


def engines(args: argparse.Namespace, folder: Path) -> dict[str, Run]:
    """Build every engine; slow preparation happens here, outside the timed rounds."""
    config = PRESETS[args.preset]
    binary, dense = folder / "gsb.onnx", folder / "float.onnx"
    export(realistic_(Gsb(config), 0), binary, args.form, batch=args.batch)
    export(realistic_(float_vit(config), 0), dense, "legacy", batch=args.batch)
    return {
        "gsb_tvm, GSB": gsb_tvm.build(binary, target=args.target),
        "ONNX Runtime, GSB": onnx_runtime(binary),
        "ONNX Runtime, float": onnx_runtime(dense),
    }


def timed(runs: dict[str, Run], image: np.ndarray, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every run, after a warm-up; quick engines run more often in a round."""
    single = {}
    for name, run in runs.items():
        run(image)
        start = time.perf_counter()
        run(image)
        single[name] = time.perf_counter() - start
    slowest = max(single.values())
    repeats = {name: min(10, max(1, int(slowest / one))) for name, one in single.items()}
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            for _ in range(repeats[name]):
                start = time.perf_counter()
                run(image)
                samples[name].append((time.perf_counter() - start) * 1e3)
    return samples


def main() -> int:
    """Print a table, and JSON where asked for."""
    args = arguments()
    os.sched_setaffinity(0, {args.core})
    torch.set_num_threads(1)
    size = PRESETS[args.preset].image_size
    image = np.random.default_rng(1).standard_normal((args.batch, 3, size, size), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        samples = timed(engines(args, Path(folder)), image, args.rounds)
    ours = float(np.median(samples["gsb_tvm, GSB"]))
    rows = {}
    print(f"{args.preset}, batch {args.batch}, one thread, {platform.processor() or 'CPU'}")
    print(f"{'engine':24s} {'median ms':>10s} {'quartiles':>16s} {'best':>8s} {'ratio':>7s}")
    for name, values in samples.items():
        low, median, high = np.percentile(values, [25, 50, 75])
        rows[name] = {"median_ms": median, "q1_ms": low, "q3_ms": high, "best_ms": min(values)}
        spread = f"{low:.2f}..{high:.2f}"
        print(f"{name:24s} {median:10.2f} {spread:>16s} {min(values):8.2f} {median / ours:6.1f}x")
    if args.json:
        args.json.write_text(json.dumps({"batch": args.batch, "engines": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
