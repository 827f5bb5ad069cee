"""From a lowered module to an artefact: a shared library and its metadata beside it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from gsb_tvm.dialect.chosen import AS_BY_RULE
from gsb_tvm.dialect.errors import ToolchainError
from gsb_tvm.dialect.phases import SPEC, TUNED, attribute
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.constants import Constants
from gsb_tvm.runtime.descriptor import descriptor
from gsb_tvm.runtime.elf import Blob, data_object
from gsb_tvm.runtime.link import link_shared
from gsb_tvm.runtime.outfile import check_writable, scratch_folder, write_file
from gsb_tvm.runtime.program import Program, program
from gsb_tvm.runtime.weak_functions import with_local_weak_functions
from gsb_tvm.targets.profile import Profile

# Room that is tried out for temporary files; kernels of a DeiT-Small take about 1 MB.
_SCRATCH_BYTES = 32 << 20


@dataclass(frozen=True)
class Code:
    """What the compiler made of a module, before linking.

    Attributes
    ----------
    program
        The model as calls of kernels.
    constants
        What its kernels read, maybe beside those of other programs.
    memory
        What a call needs beside inputs and outputs.
    specs
        Kernel -> its specification as text; empty for a float one.
    tuned
        Kernel -> what records chose for it, as text; those chosen by rule are left out.
    kernels
        A relocatable object: kernels and the entry functions.
    name
        What the names of its symbols begin with.
    texts
        What the kernels are for people, by a name for a file; made when it is asked for.
    launches, results
        As in :class:`gsb_tvm.runtime.metadata.Program`; none for a CPU.
    """

    program: Program
    constants: Constants
    memory: meta.Memory
    specs: dict[str, str]
    tuned: dict[str, str]
    kernels: bytes
    name: str
    texts: Mapping[str, Callable[[], str]]
    launches: tuple[meta.Launch, ...] = ()
    results: tuple[meta.Place, ...] = ()

    def described(self, metadata: meta.Metadata) -> meta.Metadata:
        """``metadata`` of this program alone, with what only the generated code knows."""
        (described,) = metadata.programs
        # The entry function takes one pointer for each: a caller counts them by the metadata.
        assert len(described.inputs) == len(self.program.inputs)
        assert len(described.outputs) == len(self.program.outputs)
        steps = tuple(meta.Step(step.kernel, step.layer) for step in self.program.steps)
        # Of several steps of a layer the last one is the product.
        products = {step.layer: step for step in steps if self.specs[step.kernel]}
        layers = tuple(self._computed(layer, products) for layer in described.layers)
        found = msgspec.structs.replace(
            described,
            entry=self.name,
            layers=layers,
            memory=self.memory,
            kernels=self.specs,
            tuned=self.tuned,
            steps=steps,
            launches=self.launches,
            results=self.results,
        )
        return msgspec.structs.replace(metadata, programs=(found,))

    def _computed(self, layer: meta.Layer, products: Mapping[str, meta.Step]) -> meta.Layer:
        """A layer with the kernel that computes it."""
        step = products.get(layer.name)
        if step is None:
            return layer
        is_tuned = self.tuned.get(step.kernel, AS_BY_RULE) != AS_BY_RULE
        return msgspec.structs.replace(layer, kernel=step.kind, is_tuned=is_tuned)


@dataclass(frozen=True)
class SharedLibrary:
    """A linked artefact ready to be written."""

    metadata: meta.Metadata
    data: bytes

    @property
    def size_bytes(self) -> int:
        """Size of the file."""
        return len(self.data)

    def write(self, path: Path) -> None:
        """Write it to ``path`` and its metadata beside it: both or none.

        Raises
        ------
        OutputError
            One of them cannot be written.
        """
        meta.write(path, self.data, self.metadata)


@dataclass(frozen=True)
class Artefact:
    """A written artefact; sizes in bytes, times in seconds by phase."""

    path: Path
    metadata_path: Path
    size_bytes: int
    seconds: dict[str, float]
    code: Code


def build(module: Any, profile: Profile, out_path: Path, metadata: meta.Metadata) -> Artefact:
    """Compile a lowered module, link it, and write it with its metadata.

    Equal arguments give equal bytes, whatever the folder or process.

    Parameters
    ----------
    module
        A ``tvm.IRModule`` whose ``main`` calls PrimFuncs by ``call_tir``; plain Relax operators are
        legalised, scheduled PrimFuncs are left as they are.
    profile
        The target.
    out_path
        The shared library to write; the metadata goes to the same name with ``.json``.
    metadata
        What the artefact shall say about itself.

    Raises
    ------
    OutputError
        ``out_path`` or temporary files cannot be written; nothing is left behind.
    ToolchainError
        There is no linker for the target, or it failed. The objects are then written beside
        ``out_path``, and the message names them.
    """
    check_writable(out_path)
    start = time.perf_counter()
    code = generate(module, profile)
    metadata = code.described(metadata)
    generated = time.perf_counter()
    library = link([code], profile, out_path, metadata)
    metadata_path = meta.write(out_path, library, metadata)
    seconds = {"generate": generated - start, "link": time.perf_counter() - generated}
    return Artefact(out_path, metadata_path, len(library), seconds, code)


def plan(module: Any, profile: Profile) -> Any:
    """Legalise what is left of Relax and give every intermediate tensor its place in memory.

    For a GPU each has a place of its own (:mod:`gsb_tvm.runtime.cuda.levels` finds better ones).
    These are the passes of TVM's default pipeline without fusion, which would split and rejoin
    kernels that are already scheduled.
    """
    import tvm
    from tvm.relax import transform as relax

    passes = [
        relax.LegalizeOps(),
        # A reshape becomes a view; after CallTIRRewrite it would be a copy.
        relax.RewriteDataflowReshape(),
        relax.ToNonDataflow(),
        relax.RemovePurityChecking(),
        relax.CallTIRRewrite(),
        # On a GPU steps run at once, of which TVM would place one's results where another reads.
        *([] if profile.gpu else [relax.StaticPlanBlockMemory()]),
    ]
    with profile.tvm_target(), tvm.transform.PassContext(opt_level=3):
        return tvm.transform.Sequential(passes)(module)


def generate(
    module: Any,
    profile: Profile,
    name: str = meta.NAME,
    *,
    launches: bool = True,
    constants: Constants | None = None,
) -> Code:
    """Compile a lowered module to code for ``profile``, without linking or writing anything.

    Parameters
    ----------
    module, profile
        As for :func:`build`.
    name
        What the names of its functions begin with.
    launches
        Whether one of them starts threads by TVM's pool (:mod:`gsb_tvm.runtime.entry`).
    constants
        Those of the programs that it shares a library with; its own are added.

    Raises
    ------
    ModelError
        ``main`` holds something that is no call of a kernel.
    """
    from gsb_tvm.runtime.codegen import compile_entry
    from gsb_tvm.runtime.entry import entry

    planned = plan(module, profile)
    constants = Constants() if constants is None else constants
    calls = program(planned, constants)
    compiled, memory = compile_entry(
        entry(calls, planned, profile, name, launches=launches), profile
    )
    specs, tuned = attributes(calls, planned)
    texts = {
        "model.ll": lambda: str(compiled.inspect_source("ll")),
        "model.s": lambda: str(compiled.inspect_source("asm")),
    }
    return Code(calls, constants, memory, specs, tuned, _object(compiled), name, texts)


def attributes(calls: Program, planned: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Specification of each kernel, and what records chose for some."""
    names = sorted({step.kernel for step in calls.steps})
    specs = {name: attribute(planned[name], SPEC) for name in names}
    return specs, {name: text for name in names if (text := attribute(planned[name], TUNED))}


def data_blobs(constants: Constants, metadata: meta.Metadata) -> list[Blob]:
    """What the library holds besides kernels."""
    weights = meta.WEIGHTS, constants.data()
    return [
        # A GPU's are read from the file, not by the loader: they stand in a section of their own.
        Blob(meta.WEIGHTS_SECTION if metadata.target.gpu else ".rodata", *weights),
        Blob(meta.SECTION, meta.SYMBOL, meta.section(metadata, descriptor(metadata))),
    ]


def _object(module: Any) -> bytes:
    """Relocatable object of a compiled module."""
    with scratch_folder(_SCRATCH_BYTES) as folder:
        path = folder / "kernels.o"
        module.write_to_file(str(path), "o")
        return with_local_weak_functions(path.read_bytes())


def link(codes: Sequence[Code], profile: Profile, out_path: Path, metadata: meta.Metadata) -> bytes:
    """Link programs that share constants with their metadata into a shared library; return it.

    Raises
    ------
    ToolchainError
        There is no linker for the target, or it failed. The objects are then written beside
        ``out_path``, and the message names them.
    """
    kernels = {".o" if len(codes) == 1 else f".{code.name}.o": code.kernels for code in codes}
    data = data_object(profile.arch, data_blobs(codes[0].constants, metadata))
    objects = kernels | {".data.o": data}
    with scratch_folder(_SCRATCH_BYTES + 2 * sum(map(len, objects.values()))) as folder:
        try:
            return meta.seal(link_shared(profile, list(objects.values()), folder))
        except ToolchainError as err:
            paths = _write_objects(objects, out_path)
            raise ToolchainError(
                f"{err} The compiled objects are in {' and '.join(map(str, paths))}."
            ) from err


def _write_objects(objects: Mapping[str, bytes], out_path: Path) -> list[Path]:
    """Write objects under the output's name with the suffixes given."""
    paths = [out_path.with_suffix(suffix) for suffix in objects]
    for path, data in zip(paths, objects.values(), strict=True):
        write_file(path, data)
    return paths
