"""The way of a model: front end, passes, code, verification, artefact."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsb_tvm.dialect.errors import UsageError, VerifyError
from gsb_tvm.one_program import Compiled
from gsb_tvm.options import Options
from gsb_tvm.programs import batches_of, compile_programs, joined
from gsb_tvm.progress import Clock, Observer, Silent
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.build import SharedLibrary, link
from gsb_tvm.runtime.c_library import MARKER, CLibrary, c_library
from gsb_tvm.runtime.c_names import library_name
from gsb_tvm.runtime.outfile import check_folder, check_writable
from gsb_tvm.stages import Stages
from gsb_tvm.targets import Profile, resolve
from gsb_tvm.tuned import known_tunings
from gsb_tvm.verification import Check, check, reference_of


@dataclass(frozen=True)
class Result:
    """What a compilation gave.

    Attributes
    ----------
    artefact
        The library or its folder; None where the compilation stopped after a pass.
    size_bytes
        Size of the library.
    batches
        Those of the programs; 0 where calls take the shapes as they stand.
    programs
        What the metadata says of them.
    layers, module
        The layer table and the Relax module after the last pass that ran, of the smallest batch.
    seconds
        Time by phase.
    notes
        What was decided on the way, one sentence each.
    """

    artefact: Path | None
    profile: Profile
    batches: tuple[int, ...]
    programs: tuple[meta.Program, ...]
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
    clock = Clock(observer or Silent())
    batches = batches_of(options)
    if profile.gpu is not None and options.c_library is not None:
        raise UsageError(
            f"{profile.name}: a C library is for CPUs. Write a shared library with --emit shared."
        )
    stop_after = None
    if options.stop_after:
        stop_after = Stages(profile).check_name(options.stop_after)
    else:
        _check_outputs(source, options)
    tunings, complaints = known_tunings(profile, options)
    programs = compile_programs(source, profile, options, batches, stop_after, clock, tunings)
    metadata = joined(programs)
    artefact, checks, size = None, [], 0
    if stop_after is None:
        artefact = options.out
        with clock.phase("link"):
            library = _library(programs, profile, options, metadata)
        size = library.size_bytes
        if options.verify:
            checks = _verify(programs, profile, library, clock)
        library.write(artefact)
    return Result(
        artefact,
        profile,
        tuple(program.batch for program in metadata.programs),
        metadata.programs,
        metadata.program.layers,
        tuple(checks),
        programs[0].lowered.module,
        size,
        clock.seconds,
        tuple(dict.fromkeys([*complaints, *(note for each in programs for note in each.notes)])),
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
    beside = out.with_suffix(".json")
    check_writable(beside)
    meta.check_metadata(beside)


def _is_same_file(path: Path, other: str | os.PathLike[str]) -> bool:
    try:
        return path.samefile(other)
    except (OSError, ValueError):  # what cannot be looked at is refused where it is opened
        return False


def _library(
    programs: Sequence[Compiled], profile: Profile, options: Options, metadata: meta.Metadata
) -> SharedLibrary | CLibrary:
    codes = [program.code for program in programs if program.code is not None]
    if options.c_library is None:
        return SharedLibrary(metadata, link(codes, profile, options.out, metadata))
    (code,) = codes
    return c_library(code, profile, metadata)


def _verify(
    programs: Sequence[Compiled],
    profile: Profile,
    library: SharedLibrary | CLibrary,
    clock: Clock,
) -> list[Check]:
    found = []
    for program in programs:
        with clock.part(program.request.part), clock.phase("verify"):
            found += _verify_program(program, profile, library)
    return found


def _verify_program(
    program: Compiled, profile: Profile, library: SharedLibrary | CLibrary
) -> list[Check]:
    def build_for_host() -> tuple[Any, Profile]:
        host = resolve("native")
        return Stages(host).run(program.source_module(), Clock(Silent())).module, host

    assert program.code is not None
    shared = library.data if isinstance(library, SharedLibrary) else None
    reference = reference_of(program.request.source, program.request.batch)
    checks = check(reference, program.code, program.metadata, profile, shared, build_for_host)
    for each in checks:
        if each.result.verdict == "failed":
            raise VerifyError(
                f"the compiled model differs from ONNX Runtime ({each.place}): "
                f"{each.result.reason} Nothing was written; --no-verify writes it anyway."
            )
    return checks
