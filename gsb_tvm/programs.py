"""The programs of an artefact: the model for one batch after another, with constants in common."""

from collections.abc import Sequence
from typing import Any

import msgspec

from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.one_program import Compiled, Request, compile_program, refuse_fixed
from gsb_tvm.options import Options
from gsb_tvm.progress import Clock
from gsb_tvm.runtime.batches import fit_together
from gsb_tvm.runtime.constants import Constants
from gsb_tvm.runtime.metadata import NAME, Metadata
from gsb_tvm.schedules.tunings import Tunings
from gsb_tvm.stages import Dump
from gsb_tvm.targets import Profile


def batches_of(options: Options) -> tuple[int | None, ...]:
    """Batches to compile for, in order; None where the model decides.

    Raises
    ------
    UsageError
        One is below 1, or several do not go with another option.
    """
    given = options.batch
    wanted = [given] if given is None or isinstance(given, int) else sorted(set(given))
    if not wanted or (wanted[0] is not None and wanted[0] < 1):
        raise UsageError(f"the batch is {wanted[0] if wanted else 'missing'}, expected at least 1.")
    if len(wanted) == 1:
        return tuple(wanted)
    text = ", ".join(map(str, wanted))
    if options.stop_after:
        raise UsageError(f"--stop-after shows one module. Choose one batch of {text}.")
    if options.c_library is not None:
        raise UsageError(
            f"a C library is for one batch, found {text}. Write one for each with --batch and "
            "--name: several fit into one program."
        )
    return tuple(wanted)


def compile_programs(
    source: Any,
    profile: Profile,
    options: Options,
    batches: Sequence[int | None],
    stop_after: str | None,
    clock: Clock,
    tunings: Tunings,
) -> list[Compiled]:
    """Compile a model for each of ``batches``, one after another.

    Of several programs no module is kept: each holds the model's weights.

    Raises
    ------
    ModelError, StrictError
        As for :func:`gsb_tvm.one_program.compile_program`; or there are several batches, and
        calls cannot be cut into them.
    """
    is_several = len(batches) > 1
    constants = Constants()
    made: list[Compiled] = []
    for batch in batches:
        request = Request(
            source,
            batch,
            options.c_library or (f"{NAME}_b{batch}" if is_several else NAME),
            options.c_library is None,
            options.strict,
            stop_after,
            is_several,
        )
        with clock.part(request.part):
            # No name here: it would keep the modules of one program while the next is compiled.
            dump = _dump(request, options)
            made.append(_kept(compile_program(request, profile, constants, clock, dump, tunings)))
    if not fit_together(joined(made).programs):
        raise refuse_fixed(made[-1].metadata)
    return made


def _kept(compiled: Compiled) -> Compiled:
    return compiled.slim() if compiled.request.is_one_of_several else compiled


def joined(made: Sequence[Compiled]) -> Metadata:
    """What an artefact that holds them all says about itself."""
    programs = tuple(each.metadata.program for each in made)
    return msgspec.structs.replace(made[0].metadata, programs=programs)


def _dump(request: Request, options: Options) -> Dump | None:
    if options.dump_ir is None:
        return None
    folder = f"batch-{request.batch}" if request.is_one_of_several else "."
    return Dump(options.dump_ir / folder)
