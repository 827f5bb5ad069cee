"""Comparing what was compiled with ONNX Runtime: here, on a build for this machine, or emulated."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from gsb_tvm.dialect.errors import ToolchainError, UsageError
from gsb_tvm.frontend.reference import folded_model
from gsb_tvm.runtime import emulate, session
from gsb_tvm.runtime.build import Code, build
from gsb_tvm.runtime.cuda.driver import CudaDevice
from gsb_tvm.runtime.cuda.session import load_cuda
from gsb_tvm.runtime.metadata import Metadata, Tensor, target_of
from gsb_tvm.runtime.outfile import scratch_folder, write_file
from gsb_tvm.runtime.reference import Run
from gsb_tvm.runtime.verify import Verdict, Verification, skipped, verify
from gsb_tvm.targets import Profile, missing_here
from gsb_tvm.targets.gpus import Gpu, capability

# An emulated network takes seconds for an image.
_EMULATED_SAMPLES = 2
_HOST_BUILD_BYTES = 64 << 20  # room that is tried out; a DeiT-Small takes 16 MB


@dataclass(frozen=True)
class Reference:
    """What to compare with: the model's file or bytes, and it with its weights folded."""

    model: Path | bytes
    folded: Any


@dataclass(frozen=True)
class Check:
    """One comparison, and where the code ran: "here", "GPU 0", "host build" or "emulated".

    ``batch`` is the program's, 0 where calls take the shapes as they stand.
    """

    where: str
    result: Verification
    batch: int = 0

    @property
    def place(self) -> str:
        """For people."""
        return f"{self.where}, batch {self.batch}" if self.batch > 1 else self.where

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        result = self.result
        return {
            "where": self.where,
            "batch": self.batch,
            "verdict": result.verdict,
            "reason": result.reason,
            "reference": result.reference,
            "exact": result.exact,
            "samples": [asdict(sample) for sample in result.samples],
        }


def verdict(checks: Sequence[Check]) -> Verdict:
    """The verdict of several comparisons: one that failed counts most, then one that went well."""
    found = {check.result.verdict for check in checks}
    ranked: tuple[Verdict, ...] = ("failed", "ok")
    return next((each for each in ranked if each in found), "skipped")


def check(
    reference: Reference,
    code: Code,
    metadata: Metadata,
    profile: Profile,
    library: bytes | None,
    build_for_host: Callable[[], tuple[Any, Profile]],
) -> list[Check]:
    """Compare a program with ONNX Runtime wherever it, or the same module, can run.

    Parameters
    ----------
    code, metadata, profile
        What was compiled, what it is in an artefact that holds nothing else, and its target.
    library
        The shared library that holds it; None where it goes into another kind.
    build_for_host
        Returns the module lowered for this machine, and this machine; called only where the code
        is for another one, or for a GPU: the passes are the same.
    """
    batch = metadata.program.batch
    if profile.gpu is not None:
        here = [Check("host build", _host_build(reference, build_for_host, metadata), batch)]
        if library is not None and (gpu := _gpu_for(profile.gpu)) is not None:
            here.append(Check("GPU 0", _on_gpu(reference, library, metadata, gpu), batch))
        return here
    if not missing_here(profile):
        if library is not None:
            found = _native(reference, library, metadata)
        else:
            found = _program(reference, code, profile, metadata, samples=8)
        return [Check("here", found, batch)]
    return [
        Check("host build", _host_build(reference, build_for_host, metadata), batch),
        Check("emulated", _emulated(reference, code, profile, metadata), batch),
    ]


def _gpu_for(made: Gpu) -> CudaDevice | None:
    """The GPU of this machine, where it executes code for ``made``."""
    try:
        device = CudaDevice(0)
    except UsageError:
        return None
    return device if capability(made.arch) <= device.capability() else None


def _on_gpu(
    reference: Reference, library: bytes, metadata: Metadata, gpu: CudaDevice
) -> Verification:
    with scratch_folder(len(library)) as folder:
        path = folder / "model.so"
        write_file(path, library)
        return compare(load_cuda(path, gpu).run, reference, metadata.program.inputs)


def _native(reference: Reference, library: bytes, metadata: Metadata) -> Verification:
    with scratch_folder(len(library)) as folder:
        path = folder / "model.so"
        write_file(path, library)
        return compare(session.load(path).run, reference, metadata.program.inputs)


def _host_build(
    reference: Reference, build_for_host: Callable[[], tuple[Any, Profile]], metadata: Metadata
) -> Verification:
    module, host = build_for_host()
    with scratch_folder(_HOST_BUILD_BYTES) as folder:
        path = folder / "model.so"
        try:
            build(module, host, path, msgspec.structs.replace(metadata, target=target_of(host)))
        except ToolchainError as err:
            return skipped(str(err))
        return compare(session.load(path).run, reference, metadata.program.inputs)


def _emulated(
    reference: Reference, code: Code, profile: Profile, metadata: Metadata
) -> Verification:
    if reason := emulate.skip_reason(profile):
        return skipped(reason)
    return _program(reference, code, profile, metadata, _EMULATED_SAMPLES)


def _program(
    reference: Reference, code: Code, profile: Profile, metadata: Metadata, samples: int
) -> Verification:
    """Compare a program around the code, which this machine or an emulator executes."""
    try:
        with emulate.Emulator(code, profile, metadata) as emulator:
            return compare(emulator.run, reference, metadata.program.inputs, samples)
    except ToolchainError as err:
        return skipped(str(err))


def compare(
    run: Run, reference: Reference, inputs: Sequence[Tensor], samples: int = 8, seed: int = 0
) -> Verification:
    """Compare ``run`` with ONNX Runtime; "skipped" where it cannot run or decide the model."""
    try:
        found = verify(
            run,
            reference.model,
            inputs,
            folded=reference.folded,
            samples=samples,
            seed=seed,
        )
    except ToolchainError as err:
        return skipped(str(err))
    return _undecided(found) if found.verdict == "failed" else found


def _undecided(found: Verification) -> Verification:
    """The failure itself, or "skipped" where ONNX Runtime contradicts itself on every sample.

    So it is with untrained networks in a batch: values that are exactly zero, and masks that span
    all images, turn any change of rounding into other logits. No reference is left to differ from.
    """
    total = len(found.samples)
    if not total or found.count("tie") < total:
        return found
    reason = (
        f"undecided: on all of {total} samples ONNX Runtime contradicts itself when nothing but "
        "its order of rounding changes."
    )
    return Verification("skipped", reason, found.reference, found.samples)


def reference_of(source: Any, batch: int | None = None) -> Reference:
    """Reference for a path or a ``ModelProto``.

    Raises
    ------
    ModelError
        The model is damaged, unsafe or holds what is not handled.
    """
    has_bytes = hasattr(source, "SerializeToString")
    model = source.SerializeToString() if has_bytes else Path(source)
    return Reference(model, folded_model(source, batch=batch))
