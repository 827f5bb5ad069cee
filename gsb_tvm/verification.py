"""Comparing what was compiled with ONNX Runtime: here, on a build for this machine, or emulated."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from gsb_tvm.dialect.errors import ToolchainError
from gsb_tvm.frontend.reference import folded_model
from gsb_tvm.runtime import emulate, session
from gsb_tvm.runtime.build import Code, SharedLibrary, build
from gsb_tvm.runtime.c_library import CLibrary
from gsb_tvm.runtime.metadata import Metadata, target_of
from gsb_tvm.runtime.outfile import scratch_folder, write_file
from gsb_tvm.runtime.reference import Run
from gsb_tvm.runtime.verify import Verification, skipped, verify
from gsb_tvm.targets import Profile, missing_here

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
    """One comparison, and where the compiled code ran: "here", "host build" or "emulated"."""

    where: str
    result: Verification

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        result = self.result
        return {
            "where": self.where,
            "verdict": result.verdict,
            "reason": result.reason,
            "reference": result.reference,
            "exact": result.exact,
            "samples": [asdict(sample) for sample in result.samples],
        }


def check(
    reference: Reference,
    library: SharedLibrary | CLibrary,
    profile: Profile,
    build_for_host: Callable[[], tuple[Any, Profile]],
) -> list[Check]:
    """Compare with ONNX Runtime wherever the code, or the same module, can run.

    Parameters
    ----------
    library, profile
        What was compiled, and for what.
    build_for_host
        Returns the module lowered for this machine, and this machine; called only where the code
        is for another one.
    """
    code, metadata = library.code, library.metadata
    if not missing_here(profile):
        if isinstance(library, SharedLibrary):
            return [Check("here", _native(reference, library.data, metadata))]
        return [Check("here", _program(reference, code, profile, metadata, samples=8))]
    return [
        Check("host build", _host_build(reference, build_for_host, metadata)),
        Check("emulated", _emulated(reference, code, profile, metadata)),
    ]


def _native(reference: Reference, library: bytes, metadata: Metadata) -> Verification:
    with scratch_folder(len(library)) as folder:
        path = folder / "model.so"
        write_file(path, library)
        return compare(session.load(path).run, reference, metadata)


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
        return compare(session.load(path).run, reference, metadata)


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
            return compare(emulator.run, reference, metadata, samples)
    except ToolchainError as err:
        return skipped(str(err))


def compare(
    run: Run, reference: Reference, metadata: Metadata, samples: int = 8, seed: int = 0
) -> Verification:
    """Compare ``run`` with ONNX Runtime; "skipped" where it cannot run or decide the model."""
    try:
        found = verify(
            run,
            reference.model,
            metadata.inputs,
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
