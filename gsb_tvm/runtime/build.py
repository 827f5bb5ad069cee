"""From a lowered module to an artefact: a shared library and its metadata beside it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsb_tvm.dialect.errors import ToolchainError
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.elf import Blob, data_object
from gsb_tvm.runtime.link import link_shared
from gsb_tvm.runtime.outfile import check_writable, scratch_folder, write_file
from gsb_tvm.targets.profile import Profile

# tvm_ffi/extra/module.h: where a loaded library looks for its serialised modules.
LIBRARY_SYMBOL = "__tvm_ffi__library_bin"
# Room that is tried out for temporary files; kernels of a DeiT-Small take about 1 MB.
_SCRATCH_BYTES = 32 << 20


@dataclass(frozen=True)
class Code:
    """What the compiler made of a module, before linking.

    Attributes
    ----------
    planned
        The Relax module in which every tensor has its place in memory: what
        :mod:`gsb_tvm.runtime.aot` walks.
    kernels
        A relocatable object with the kernels; empty for a module without any.
    library
        Bytecode and constants, as the runtime reads them at the symbol ``LIBRARY_SYMBOL``.
    """

    planned: Any
    kernels: bytes
    library: bytes
    _modules: tuple[Any, ...]

    def llvm_ir(self) -> str:
        """LLVM IR of the kernels, after optimisation."""
        return self._text("ll")

    def assembly(self) -> str:
        """Assembly of the kernels."""
        return self._text("asm")

    def _text(self, kind: str) -> str:
        return "\n".join(str(module.inspect_source(kind)) for module in self._modules)


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
    generated = time.perf_counter()
    library = link(code, profile, out_path, metadata)
    metadata_path = meta.write(out_path, library, metadata)
    seconds = {"generate": generated - start, "link": time.perf_counter() - generated}
    return Artefact(out_path, metadata_path, len(library), seconds, code)


def plan(module: Any, profile: Profile) -> Any:
    """Legalise what is left of Relax and give every intermediate tensor its place in memory.

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
        relax.StaticPlanBlockMemory(),
    ]
    with profile.tvm_target(), tvm.transform.PassContext(opt_level=3):
        return tvm.transform.Sequential(passes)(module)


def generate(module: Any, profile: Profile) -> Code:
    """Compile a lowered module to code for ``profile``, without linking or writing anything."""
    import tvm
    from tvm.runtime import _ffi_api

    planned = plan(module, profile)
    target = profile.tvm_target()
    with target, tvm.transform.PassContext(opt_level=3):
        bytecode_ready = tvm.transform.Sequential(_bytecode_passes())(planned)
        executable = tvm.relax.build(bytecode_ready, target, relax_pipeline=None)
    # A module without kernels holds an empty C source in their place.
    kernels = [m for m in executable.mod._collect_dso_modules() if m.kind == "llvm"]
    library = bytes(_ffi_api.ModulePackImportsToTensor(executable.mod).numpy())
    return Code(planned, _object(kernels), library, tuple(kernels))


def data_blobs(code: Code, metadata: meta.Metadata) -> list[Blob]:
    """What the library holds besides kernels."""
    return [
        Blob(".rodata", LIBRARY_SYMBOL, code.library),
        Blob(meta.SECTION, meta.SYMBOL, meta.section(metadata)),
    ]


def _bytecode_passes() -> list[Any]:
    from tvm.relax import transform as relax

    return [
        relax.LowerAllocTensor(),
        relax.KillAfterLastUse(),
        relax.LowerRuntimeBuiltin(),
        relax.ComputePrimValue(),
        relax.VMShapeLower(),
        relax.AttachGlobalSymbol(),
    ]


def _object(kernels: Sequence[Any]) -> bytes:
    """Relocatable object of the only kernel module there is, or nothing."""
    if not kernels:
        return b""
    (module,) = kernels
    with scratch_folder(_SCRATCH_BYTES) as folder:
        path = folder / "kernels.o"
        module.write_to_file(str(path), "o")
        return path.read_bytes()


def link(code: Code, profile: Profile, out_path: Path, metadata: meta.Metadata) -> bytes:
    """Link generated code with its metadata into a shared library, and return it.

    Raises
    ------
    ToolchainError
        There is no linker for the target, or it failed. The objects are then written beside
        ``out_path``, and the message names them.
    """
    objects = [data_object(profile.arch, data_blobs(code, metadata))]
    if code.kernels:
        objects.insert(0, code.kernels)
    with scratch_folder(_SCRATCH_BYTES + 2 * sum(map(len, objects))) as folder:
        try:
            return meta.seal(link_shared(profile, objects, folder))
        except ToolchainError as err:
            paths = _write_objects(objects, out_path)
            raise ToolchainError(
                f"{err} The compiled objects are in {' and '.join(map(str, paths))}."
            ) from err


def _write_objects(objects: Sequence[bytes], out_path: Path) -> list[Path]:
    suffixes = (".o",) if len(objects) == 1 else (".o", ".data.o")
    paths = [out_path.with_suffix(suffix) for suffix in suffixes]
    for path, data in zip(paths, objects, strict=True):
        write_file(path, data)
    return paths
