"""Comparing a compiled model with ONNX Runtime.

The outputs of a binary network are a step function of its input: two correct evaluations that
round differently agree to 1e-6 unless some value lies so close to the edge of a quantiser that the
rounding decides on which side; then a bit flips and the outputs differ visibly. No tolerance
separates this from an error, so :func:`verify` counts, sample by sample:

exact
    Every output differs by less than ``EXACT`` times the largest output.
tie
    Not exact, but ONNX Runtime itself is not exact either against its own result once the last
    bits of the input are changed: the sample lies on an edge, and nothing can be said about it.
wrong
    Not exact, and ONNX Runtime returns the same result for all changed inputs: rounding does not
    explain the difference.

The verdict is "ok" if no more than one sample in eight (at least one) is wrong and at least one is
exact. One wrong sample is allowed because ``JITTERS`` changes do not find every edge. Where no
sample is exact, more are drawn, up to ``GROWTH`` times as many, before the verdict. A kernel that
computes something else makes (nearly) all samples wrong and none exact; an error that shows on
fewer than one sample in eight is not found by this comparison.

ONNX Runtime folds the statistics behind a weight's scale in float32, which moves every quantiser.
The fair reference is the model with weights folded as the compiler folded them, where the caller
has it.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gsb_tvm.dialect.errors import ToolchainError
from gsb_tvm.runtime.metadata import Tensor

EXACT = 1e-5
JITTERS = 8
GROWTH = 4
_ALLOWED_WRONG = 8  # one sample in so many

Array = NDArray[Any]
Run = Callable[[Sequence[Array]], list[Array]]
Kind = Literal["exact", "tie", "wrong"]


@dataclass(frozen=True)
class Sample:
    """One sample: its largest error over the largest output, and whether the classes agree.

    ``same_top1`` compares the index of the largest value along the last axis of the first output.
    """

    kind: Kind
    error: float
    same_top1: bool


@dataclass(frozen=True)
class Verification:
    """Outcome of a comparison.

    Attributes
    ----------
    verdict
        "ok", "failed" or "skipped".
    reason
        One sentence: what was found, or why nothing was compared.
    reference
        "folded" or "original": which model ONNX Runtime ran.
    samples
        One entry for each seeded sample.
    """

    verdict: Literal["ok", "failed", "skipped"]
    reason: str
    reference: str = ""
    samples: tuple[Sample, ...] = ()

    @property
    def exact(self) -> int:
        """Number of exact samples."""
        return self.count("exact")

    @property
    def same_top1(self) -> int:
        """Number of samples whose largest class agrees."""
        return sum(sample.same_top1 for sample in self.samples)

    def count(self, kind: Kind) -> int:
        """Number of samples of a kind."""
        return sum(sample.kind == kind for sample in self.samples)


def skipped(reason: str) -> Verification:
    """Record that nothing was compared, and why."""
    return Verification("skipped", reason)


def verify(
    run: Run,
    model: str | Path | bytes,
    inputs: Sequence[Tensor],
    *,
    folded: Any = None,
    samples: int = 8,
    seed: int = 0,
) -> Verification:
    """Compare a compiled model with ONNX Runtime on seeded normal random inputs.

    Parameters
    ----------
    run
        Runs the compiled model: ``Module.run`` or ``Emulator.run``.
    model
        The original ONNX file, or its bytes.
    inputs
        Names, shapes and dtypes of the compiled model's inputs.
    folded
        The same model with weight statistics folded as the compiler did, as a ``ModelProto`` or
        its bytes; it is the reference where given.
    samples
        How many to draw first; where the model takes a batch, each row counts.
    seed
        Of the inputs.

    Returns
    -------
    Verification
        "skipped" where ONNX Runtime is not installed.

    Raises
    ------
    ToolchainError
        ONNX Runtime cannot run the model.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return skipped('onnxruntime is not installed (pip install "gsb-tvm[verify]").')
    reference = onnxruntime_runner(model if folded is None else folded, inputs)
    found = compare(run, reference, inputs, samples=samples, seed=seed)
    return judge(found, "original" if folded is None else "folded")


def compare(
    run: Run, reference: Run, inputs: Sequence[Tensor], *, samples: int = 8, seed: int = 0
) -> tuple[Sample, ...]:
    """Classify samples; draws more than ``samples`` only while none is exact."""
    rng = np.random.default_rng(seed)
    found: list[Sample] = []
    while len(found) < samples or (
        len(found) < GROWTH * samples and all(sample.kind != "exact" for sample in found)
    ):
        drawn = [draw(spec, rng) for spec in inputs]
        found += _classify(run, reference, drawn, rng)
        if sum(sample.kind == "wrong" for sample in found) > _allowed(GROWTH * samples):
            break
    return tuple(found)


def judge(samples: Sequence[Sample], reference: str) -> Verification:
    """Apply the rule of the module's docstring."""
    total, allowed = len(samples), _allowed(len(samples))
    kinds = {kind: sum(s.kind == kind for s in samples) for kind in ("exact", "tie", "wrong")}
    ok = kinds["exact"] > 0 and kinds["wrong"] <= allowed
    reason = (
        f"{kinds['exact']} of {total} samples equal ONNX Runtime on the {reference} model, "
        f"{kinds['tie']} lie on a rounding edge, {kinds['wrong']} differ "
        f"(at most {allowed} may, and one must be equal)."
    )
    return Verification("ok" if ok else "failed", reason, reference, tuple(samples))


def onnxruntime_runner(model: Any, inputs: Sequence[Tensor]) -> Run:
    """Make a function that runs ``model`` (path, bytes or ``ModelProto``) on one thread.

    Raises
    ------
    ToolchainError
        ONNX Runtime refuses the model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    source = model.SerializeToString() if hasattr(model, "SerializeToString") else model
    source = str(source) if isinstance(source, Path) else source
    try:
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as err:  # onnxruntime raises classes of its native module
        raise ToolchainError(f"ONNX Runtime refuses the model ({_first_line(err)}).") from err
    names = [spec.name for spec in inputs]

    def run(arrays: Sequence[Array]) -> list[Array]:
        try:
            return list(session.run(None, dict(zip(names, arrays, strict=True))))
        except Exception as err:
            raise ToolchainError(f"ONNX Runtime fails on the model ({_first_line(err)}).") from err

    return run


def draw(spec: Tensor, rng: np.random.Generator) -> Array:
    """Draw an input: standard normal floats, small non-negative integers, fair booleans."""
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return rng.standard_normal(spec.shape).astype(dtype)
    return rng.integers(0, 2, spec.shape).astype(dtype)


def _classify(
    run: Run, reference: Run, inputs: Sequence[Array], rng: np.random.Generator
) -> list[Sample]:
    expected, actual = reference(inputs), run(inputs)
    rows = _rows(inputs, expected)
    errors = row_errors(actual, expected, rows)
    open_rows = errors >= EXACT
    ties = np.zeros(rows, bool)
    for _ in range(JITTERS):
        if not (open_rows & ~ties).any():
            break
        moved = reference([_jitter(array, rng) for array in inputs])
        ties |= row_errors(moved, expected, rows) >= EXACT
    same = _top1(actual[0], rows) == _top1(expected[0], rows)
    return [
        Sample("exact" if e < EXACT else "tie" if tie else "wrong", float(e), bool(agree))
        for e, tie, agree in zip(errors, ties, same, strict=True)
    ]


def row_errors(actual: Sequence[Array], expected: Sequence[Array], rows: int) -> NDArray[Any]:
    """Largest difference over the largest expected magnitude, per row, over all outputs.

    NaN and infinities must stand at the same places; otherwise, or for another shape, the error
    is infinite. Shape (rows,) float64.
    """
    worst = np.zeros(rows)
    if len(actual) != len(expected):
        return np.full(rows, np.inf)
    for got, wanted in zip(actual, expected, strict=True):
        if got.shape != wanted.shape:
            return np.full(rows, np.inf)
        a = got.astype(np.float64).reshape(rows, -1)
        b = wanted.astype(np.float64).reshape(rows, -1)
        with np.errstate(invalid="ignore", over="ignore"):
            same = (a == b) | (np.isnan(a) & np.isnan(b))
            difference = np.where(same, 0.0, np.abs(a - b))
            size = np.max(np.abs(np.where(np.isfinite(b), b, 0)), axis=1, initial=0)
            error = np.max(difference, axis=1, initial=0) / np.maximum(size, 1e-30)
        worst = np.maximum(worst, np.where(np.isnan(error), np.inf, error))
    return worst


def _rows(inputs: Sequence[Array], outputs: Sequence[Array]) -> int:
    """Rows that are samples: the batch, where all tensors share their first extent; else 1."""
    extents = {array.shape[0] if array.ndim else 1 for array in (*inputs, *outputs)}
    return extents.pop() if len(extents) == 1 else 1


def _top1(output: Array, rows: int) -> NDArray[Any]:
    return np.argmax(output.reshape(rows, -1), axis=1)


def _jitter(array: Array, rng: np.random.Generator) -> Array:
    """Move every float one step of its last bit up or down, or leave it."""
    if array.dtype.kind != "f":
        return array
    away = rng.choice(np.array([-np.inf, np.inf], array.dtype), array.shape)
    moved = np.nextafter(array, away)
    return np.where(rng.random(array.shape) < 2 / 3, moved, array)


def _allowed(samples: int) -> int:
    return max(1, samples // _ALLOWED_WRONG)


def _first_line(err: Exception) -> str:
    return (str(err).splitlines() or [type(err).__name__])[0][:300]
