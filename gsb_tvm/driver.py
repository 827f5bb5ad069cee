"""The way of a model: front end, passes, code, verification, artefact."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gsb_tvm.dialect.errors import StrictError, UsageError, VerifyError
from gsb_tvm.frontend.importer import ImportedModel, load
from gsb_tvm.passes.report import Row
from gsb_tvm.progress import Clock, Observer, Silent
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.build import Code, SharedLibrary, generate, link
from gsb_tvm.runtime.c_library import MARKER, CLibrary, c_library
from gsb_tvm.runtime.c_names import library_name
from gsb_tvm.runtime.outfile import check_folder, check_writable
from gsb_tvm.stages import Dump, Stages
from gsb_tvm.targets import Profile, resolve
from gsb_tvm.verification import Check, check, reference_of


@dataclass(frozen=True)
class Options:
    """How to compile.

    Attributes
    ----------
    out
        The shared library to write, with metadata beside it under the same name with ``.json``; or
        the folder of a C library.
    batch
        Size of an open batch axis; None means 1.
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
    """

    out: Path
    batch: int | None = None
    verify: bool = True
    strict: bool = False
    dump_ir: Path | None = None
    stop_after: str | None = None
    c_library: str | None = None


@dataclass(frozen=True)
class Result:
    """What a compilation gave.

    Attributes
    ----------
    artefact
        The library or its folder; None where the compilation stopped after a pass.
    size_bytes
        Size of the library.
    module
        The Relax module after the last pass that ran.
    seconds
        Time by phase.
    notes
        What was decided on the way, one sentence each.
    """

    artefact: Path | None
    profile: Profile
    layers: tuple[meta.Layer, ...]
    checks: tuple[Check, ...]
    module: Any
    size_bytes: int
    seconds: dict[str, float]
    notes: tuple[str, ...]


def compile_model(
    source: str | os.PathLike[str] | Any,
    profile: Profile,
    options: Options,
    observer: Observer | None = None,
) -> Result:
    """Compile an ONNX model (path or ``ModelProto``) and write the artefact.

    Where an error is raised nothing is left behind, but for what ``dump_ir`` asked for and the
    object files where there is no linker.

    Raises
    ------
    UsageError
        An option does not fit, or the output cannot be written.
    ModelError
        The model is damaged, unsafe or holds what is not handled.
    StrictError
        ``strict``, and a binary operator is left in float.
    ToolchainError
        There is no linker for the target.
    VerifyError
        The outputs differ from ONNX Runtime's.
    """
    if options.batch is not None and options.batch < 1:
        raise UsageError(f"the batch is {options.batch}, expected at least 1.")
    clock = Clock(observer or Silent())
    stages = Stages(profile)
    stop_after = stages.check_name(options.stop_after) if options.stop_after else None
    if stop_after is None:
        _check_outputs(source, options)
    dump = Dump(options.dump_ir) if options.dump_ir else None
    with clock.phase("import"):
        imported = load(source, batch=options.batch)
    lowered = stages.run(imported.module, clock, dump, stop_after)
    layers = tuple(_layer(row) for row in lowered.rows)
    if options.strict:
        _refuse_floats(lowered.rows)
    artefact, checks, size = None, [], 0
    if stop_after is None:
        artefact = options.out
        code = _generate(lowered.module, profile, options, clock, dump)
        metadata = code.described(_metadata(source, imported, profile, layers))
        layers = metadata.layers
        with clock.phase("link"):
            library = _library(code, profile, options, metadata)
        size = library.size_bytes
        if options.verify:
            with clock.phase("verify"):
                checks = _verify(source, options, imported, library, profile)
        library.write(artefact)
    return Result(
        artefact,
        profile,
        layers,
        tuple(checks),
        lowered.module,
        size,
        clock.seconds,
        tuple(imported.notes),
    )


def _check_outputs(source: Any, options: Options) -> None:
    """Refuse what cannot be written before any work is done."""
    out = options.out
    if options.c_library is not None:
        library_name(options.c_library)
        check_folder(out, MARKER)
        return
    if isinstance(source, str | os.PathLike) and _is_same_file(out, source):
        raise UsageError(f"{out}: that is the model itself. Choose another name with -o.")
    if out.suffix == ".json":
        raise UsageError(f"{out}: the metadata takes the name *.json. Choose another name with -o.")
    check_writable(out)
    check_writable(out.with_suffix(".json"))


def _is_same_file(path: Path, other: str | os.PathLike[str]) -> bool:
    try:
        return path.samefile(other)
    except (OSError, ValueError):  # what cannot be looked at is refused where it is opened
        return False


def _generate(
    module: Any, profile: Profile, options: Options, clock: Clock, dump: Dump | None
) -> Code:
    with clock.phase("generate"):
        if options.c_library is None:
            code = generate(module, profile)
        else:
            code = generate(module, profile, options.c_library, launches=False)
    if dump is not None:
        dump.text("model.ll", code.llvm_ir())
        dump.text("model.s", code.assembly())
    return code


def _library(
    code: Code, profile: Profile, options: Options, metadata: meta.Metadata
) -> SharedLibrary | CLibrary:
    if options.c_library is None:
        return SharedLibrary(code, metadata, link(code, profile, options.out, metadata))
    return c_library(code, profile, metadata)


def _verify(
    source: Any,
    options: Options,
    imported: ImportedModel,
    library: SharedLibrary | CLibrary,
    profile: Profile,
) -> list[Check]:
    def build_for_host() -> tuple[Any, Profile]:
        host = resolve("native")
        return Stages(host).run(imported.module, Clock(Silent())).module, host

    checks = check(reference_of(source, options.batch), library, profile, build_for_host)
    for each in checks:
        if each.result.verdict == "failed":
            raise VerifyError(
                f"the compiled model differs from ONNX Runtime ({each.where}): "
                f"{each.result.reason} Nothing was written; --no-verify writes it anyway."
            )
    return checks


def _refuse_floats(rows: Sequence[Row]) -> None:
    left = [row for row in rows if row.form == "float" and row.is_binary]
    if left:
        named = "; ".join(f'{row.operator} "{row.name}": {row.reason}' for row in left[:8])
        more = f"; and {len(left) - 8} more" if len(left) > 8 else ""
        raise StrictError(
            f"--strict: {len(left)} binary operator{'s are' if len(left) > 1 else ' is'} left in "
            f"float: {named}{more}. Compile without --strict to accept that."
        )


def _layer(row: Row) -> meta.Layer:
    fields = asdict(row)
    del fields["is_binary"]
    return meta.Layer(**fields)


def _metadata(
    source: Any, imported: ImportedModel, profile: Profile, layers: tuple[meta.Layer, ...]
) -> meta.Metadata:
    if isinstance(source, str | os.PathLike):
        name = Path(source).name
    else:
        name = source.graph.name or "model"
    return meta.Metadata(
        versions=meta.versions(),
        target=meta.target_of(profile),
        model=meta.Model(name, imported.sha256),
        inputs=tuple(meta.Tensor(p.name, p.shape, p.dtype) for p in imported.inputs),
        outputs=tuple(meta.Tensor(p.name, p.shape, p.dtype) for p in imported.outputs),
        layers=layers,
    )
