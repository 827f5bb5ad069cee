"""Count exact images: the compiled network and ONNX Runtime against float64 activations.

The logits of a binary network are a step function of the image, so a result is either exact
(relative error below 1e-5) or a quantised value flipped. The reference runs the network with
float64 activations on weights folded in float64; ONNX Runtime runs the same folded weights.

With untrained parameters many values lie on a grid, and ``v > 0.7 max(v)`` is often a tie that
rounding decides: float32 steps cannot agree with float64 there. The count that judges is then the
one against float32 steps on exact integer sums, ``exact_float32_steps``; it is always printed.

    python benchmarks/exactness.py --preset deit-small --form legacy --images 32
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

import gsb_tvm
from gsb_tvm.models.bake import bake_weights, reference_logits
from gsb_tvm.models.export import FORMS, export
from gsb_tvm.models.fill import fresh_, realistic_
from gsb_tvm.models.gsb import PRESETS, Gsb
from gsb_tvm.runtime.reference import onnxruntime_package
from gsb_tvm.runtime.verify import EXACT


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="deit-small")
    parser.add_argument("--form", choices=FORMS, default="legacy")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="untrained parameters, exact zeros")
    parser.add_argument("--target", default="native")
    return parser.parse_args()


def errors(found: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Largest error of each image, relative to its largest logit."""
    scale = np.abs(reference).max(1)
    return np.abs(found - reference).max(1) / scale


def logits(
    args: argparse.Namespace, network: Gsb, images: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Logits of the compiled network, and of ONNX Runtime on the network with folded weights."""
    batches = images.reshape(-1, args.batch, *images.shape[1:])
    with tempfile.TemporaryDirectory() as folder:
        path, baked = Path(folder) / "model.onnx", Path(folder) / "baked.onnx"
        export(network, path, args.form, batch=args.batch)
        export(bake_weights(network), baked, "legacy", batch=args.batch)
        module = gsb_tvm.build(path, target=args.target)
        onnxruntime = onnxruntime_package()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(baked), options, ["CPUExecutionProvider"])
        ours = np.concatenate([np.asarray(module(batch)) for batch in batches])
        theirs = np.concatenate([session.run(None, {"image": batch})[0] for batch in batches])
    return ours, theirs


def main() -> int:
    """Run the comparison and print one JSON object."""
    args = arguments()
    torch.set_num_threads(1)
    network = Gsb(PRESETS[args.preset])
    network = fresh_(network, args.seed) if args.fresh else realistic_(network, args.seed)
    size, channels = network.config.image_size, network.config.channels
    rng = np.random.default_rng(args.seed + 1)
    images = rng.standard_normal((args.images, channels, size, size), dtype=np.float32)
    ours, theirs = logits(args, network, images)
    reference = reference_logits(network, images, batch=args.batch)
    steps = reference_logits(
        network, images, torch.float32, batch=args.batch, integer_products=True
    )
    compiled, runtime = errors(ours, reference), errors(theirs, reference)
    stepwise = errors(ours, steps)
    print(
        json.dumps(
            {
                "preset": args.preset,
                "form": args.form,
                "batch": args.batch,
                "parameters": "fresh" if args.fresh else "realistic",
                "images": args.images,
                "exact": int((compiled < EXACT).sum()),
                "exact_float32_steps": int((stepwise < EXACT).sum()),
                "exact_onnxruntime": int((runtime < EXACT).sum()),
                "median_error": float(np.median(compiled)),
                "median_error_onnxruntime": float(np.median(runtime)),
                "same_top1": int((ours.argmax(1) == reference.argmax(1)).sum()),
            }
        )
    )
    # The contract: at least as many exact images as ONNX Runtime on the baked model, minus one.
    judged = stepwise if args.fresh else compiled
    return 0 if (judged < EXACT).sum() >= (runtime < EXACT).sum() - 1 else 1


if __name__ == "__main__":
    sys.exit(main())
