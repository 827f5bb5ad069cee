"""PyTorch: the float network itself, eager or through torch.compile."""

from pathlib import Path

import numpy as np

from comparison.jobs import Job, Run
from gsb_tvm.dialect.errors import UsageError


def prepare(job: Job, _precision: str) -> list[Path]:
    """Save the network with the weights of the exported file.

    Raises
    ------
    UsageError
        The model is the user's own: there is only an ONNX file of it.
    """
    if not job.preset:
        raise UsageError("it needs the network in PyTorch, and only an ONNX file was given")
    import torch

    from gsb_tvm.models.fill import realistic_
    from gsb_tvm.models.gsb import PRESETS, float_vit

    out = Path(job.work) / f"{job.preset}.pt"
    if not out.exists():
        torch.save(realistic_(float_vit(PRESETS[job.preset]), 0).eval(), out)
    return [out]


def load(job: Job, precision: str) -> Run:
    """Eager, or compiled with frozen weights, which lets Inductor pack them."""
    import torch

    torch.set_num_threads(job.threads)
    torch.set_num_interop_threads(1)
    network = torch.load(job.artefact, weights_only=False)
    if precision == "compiled":
        import torch._inductor.config

        torch._inductor.config.freezing = True
        network = torch.compile(network)

    def run(images: np.ndarray) -> np.ndarray:
        # Inductor freezes weights under no_grad, not under inference_mode.
        with torch.no_grad():
            return network(torch.from_numpy(images)).numpy()

    return run
