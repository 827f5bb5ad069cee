"""One program of an artefact: the way of a model for one batch, from the import to code."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from gsb_tvm.dialect.errors import ModelError, StrictError
from gsb_tvm.frontend.importer import ImportedModel, load
from gsb_tvm.passes.batch_reductions import reduces_batch
from gsb_tvm.passes.report import Row
from gsb_tvm.progress import Clock
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.batches import has_batch
from gsb_tvm.runtime.build import Code, generate
from gsb_tvm.runtime.constants import Constants
from gsb_tvm.runtime.cuda.code import generate as generate_cuda
from gsb_tvm.schedules.tunings import Tunings
from gsb_tvm.stages import Dump, Lowered, Stages
from gsb_tvm.targets import Profile

_JOINED = (
    "images of a batch influence each other in this model (it takes the largest or the sum of all "
    "of them), so a call that is cut into batches gives what those give"
)


@dataclass(frozen=True)
class Request:
    """What to compile, and how.

    Attributes
    ----------
    source, batch
        As for :func:`gsb_tvm.frontend.importer.load`.
    name
        What the names of the program's functions begin with.
    launches
        Whether one of them starts threads.
    strict, stop_after
        As in :class:`gsb_tvm.options.Options`.
    is_one_of_several
        Whether the artefact holds programs for other batches, too.
    """

    source: Any
    batch: int | None
    name: str
    launches: bool
    strict: bool
    stop_after: str | None
    is_one_of_several: bool

    @property
    def part(self) -> str:
        """What it is of the whole compilation; "" for all of it."""
        return f"batch {self.batch}" if self.is_one_of_several else ""


@dataclass(frozen=True)
class Compiled:
    """What became of it.

    Attributes
    ----------
    lowered
        The module after the last pass that ran, and the layer table.
    code, metadata
        The code, and what it is in an artefact that holds nothing else; None where the compilation
        stopped after a pass.
    """

    request: Request
    imported: ImportedModel | None
    lowered: Lowered
    code: Code | None
    metadata: meta.Metadata
    notes: tuple[str, ...]

    def source_module(self) -> Any:
        """The module as it was imported; read again where it was not kept."""
        if self.imported is not None:
            return self.imported.module
        return load(self.request.source, batch=self.request.batch).module

    def slim(self) -> "Compiled":
        """The same without its modules, which hold the model's weights."""
        return replace(self, imported=None, lowered=Lowered(None, self.lowered.rows))


def compile_program(
    request: Request,
    profile: Profile,
    constants: Constants,
    clock: Clock,
    dump: Dump | None,
    tunings: Tunings,
) -> Compiled:
    """Compile a model for one batch; its constants are added to ``constants``.

    Raises
    ------
    ModelError
        The model is damaged, unsafe or holds what is not handled.
    StrictError
        ``strict``, and a binary operator is left in float.
    """
    with clock.phase("import"):
        imported = load(request.source, batch=request.batch)
    metadata = _metadata(request.source, imported, profile)
    if request.is_one_of_several and not metadata.program.batch:
        raise refuse_fixed(metadata)
    lowered = Stages(profile, tunings).run(imported.module, clock, dump, request.stop_after)
    if request.strict:
        _refuse_floats(lowered.rows)
    metadata = _with_layers(metadata, lowered.rows)
    code = None
    if request.stop_after is None:
        code = _generate(lowered.module, profile, request, constants, clock, dump)
        metadata = code.described(metadata)
    return Compiled(request, imported, lowered, code, metadata, _notes(imported, metadata))


def _notes(imported: ImportedModel, metadata: meta.Metadata) -> tuple[str, ...]:
    if not metadata.program.batch or not reduces_batch(imported.module):
        return tuple(imported.notes)
    return *imported.notes, _JOINED


def _generate(
    module: Any,
    profile: Profile,
    request: Request,
    constants: Constants,
    clock: Clock,
    dump: Dump | None,
) -> Code:
    with clock.phase("generate"):
        if profile.gpu is not None:
            code = generate_cuda(module, profile, request.name, constants)
        else:
            code = generate(
                module, profile, request.name, launches=request.launches, constants=constants
            )
    if dump is not None:
        for name, text in code.texts.items():
            dump.text(name, text())
    return code


def refuse_fixed(metadata: meta.Metadata) -> ModelError:
    """The error for several batches of a model that is for one."""
    program = metadata.program
    shapes = [f'"{t.name}" is {t.shape}' for t in (*program.inputs, *program.outputs)]
    return ModelError(
        f"{metadata.model.name}: several batches need a model in which the first axis of every "
        f"input and output is an open batch, and no other axis is. Here {', '.join(shapes)}. "
        "Export it with a dynamic batch, or compile it for one."
    )


def _refuse_floats(rows: Sequence[Row]) -> None:
    left = [row for row in rows if row.form == "float" and row.is_binary]
    if left:
        named = "; ".join(f'{row.operator} "{row.name}": {row.reason}' for row in left[:8])
        more = f"; and {len(left) - 8} more" if len(left) > 8 else ""
        raise StrictError(
            f"--strict: {len(left)} binary operator{'s are' if len(left) > 1 else ' is'} left in "
            f"float: {named}{more}. Compile without --strict to accept that."
        )


def _with_layers(metadata: meta.Metadata, rows: Sequence[Row]) -> meta.Metadata:
    layers = tuple(map(_layer, rows))
    return metadata.only(msgspec.structs.replace(metadata.program, layers=layers))


def _layer(row: Row) -> meta.Layer:
    fields = asdict(row)
    del fields["is_binary"]
    return meta.Layer(**fields)


def _metadata(source: Any, imported: ImportedModel, profile: Profile) -> meta.Metadata:
    if isinstance(source, str | os.PathLike):
        # Any bytes may name a file, and JSON holds text.
        name = os.fsencode(Path(source).name).decode("utf-8", "replace")
    else:
        name = source.graph.name or "model"
    inputs = tuple(meta.Tensor(p.name, p.shape, p.dtype) for p in imported.inputs)
    outputs = tuple(meta.Tensor(p.name, p.shape, p.dtype) for p in imported.outputs)
    program = meta.Program(
        batch=imported.batch if has_batch(imported.batch, (*inputs, *outputs)) else 0,
        inputs=inputs,
        outputs=outputs,
    )
    return meta.Metadata(
        versions=meta.versions(),
        target=meta.target_of(profile),
        model=meta.Model(name, imported.sha256),
        programs=(program,),
    )
