"""How to compile a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """How to compile.

    Attributes
    ----------
    out
        The shared library to write, with metadata beside it under the same name with ``.json``; or
        the folder of a C library.
    batch
        Size of an open batch axis, or several, each with a program of its own; None means 1.
    verify
        Compare with ONNX Runtime before anything is written.
    strict
        Fail where a binary operator is left in float.
    dump_ir
        Folder for the module after each pass, and for LLVM IR and assembly.
    stop_after
        Name of the pass to stop after; nothing is built then.
    c_library
        Name of the C library to write instead of a shared one.
    records
        File of tuning records; None means the user's own, which ``gsb-tvm tune`` writes.
    by_rule
        Choose all kernels by rule, whatever is on record.
    """

    out: Path
    batch: int | Sequence[int] | None = None
    verify: bool = True
    strict: bool = False
    dump_ir: Path | None = None
    stop_after: str | None = None
    c_library: str | None = None
    records: Path | None = None
    by_rule: bool = False
