"""What an artefact says about itself, and where it says it.

The same JSON stands in the shared library, without indentation, in the section ``.gsb_tvm``
(symbol ``gsb_tvm_metadata``), and beside it in a file of its own. It holds no time and no path, so
equal inputs give equal bytes. The section begins with a header of 32 bytes, little-endian; behind
it stand the JSON and the descriptor (:mod:`gsb_tvm.runtime.descriptor`):

====== ======= ====================================================================
offset type    meaning
====== ======= ====================================================================
0      char[8] ``gsb-tvm`` and a zero
8      uint32  format version
12     uint32  CRC-32 of the whole file with this field zero; 0 where never computed
16     uint64  length of the JSON
24     uint64  length of the descriptor
====== ======= ====================================================================
"""

import mmap
import os
import struct
import zlib
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from gsb_tvm.dialect.errors import ArtefactError, OutputError
from gsb_tvm.dialect.versions import PACKAGE, installed
from gsb_tvm.runtime.outfile import Output, write_files
from gsb_tvm.runtime.sections import Contents, find_section
from gsb_tvm.targets.profile import Profile

FORMAT = 4
SECTION = ".gsb_tvm"
SYMBOL = "gsb_tvm_metadata"
NAME = "gsb"
"""What the symbols of a shared library begin with: :mod:`gsb_tvm.runtime.entry`."""
WEIGHTS = f"{NAME}_weights"
"""The constants, which all programs share."""
WEIGHTS_SECTION = f".{WEIGHTS}"
"""Section of the constants where a GPU reads them."""

_START = struct.Struct("<8sI")  # magic and format: the same in every format
_HEADER = struct.Struct("<8sIIQQ")
_MAGIC = b"gsb-tvm\0"
_CRC_OFFSET = 12

# Limits of what is believed when read; 2**47 bytes are all that a process can address.
_Extent = Annotated[int, msgspec.Meta(ge=0, le=2**47)]
_Symbol = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]*$")]
_Function = Annotated[str, msgspec.Meta(pattern="^[A-Za-z_][A-Za-z0-9_]*$")]
_Dtype = Annotated[str, msgspec.Meta(pattern="^(bool|u?int(8|16|32|64)|float(16|32|64))$")]


class Tensor(msgspec.Struct, frozen=True):
    """An input or output: ``dtype`` as NumPy names it."""

    name: str
    shape: tuple[_Extent, ...]
    dtype: _Dtype


class Target(msgspec.Struct, frozen=True):
    """What the code was generated for; ``required_features`` in /proc/cpuinfo or HWCAP names.

    ``gpu`` is the architecture of a GPU that executes it, such as "sm_90"; empty for a CPU.
    """

    text: str
    triple: str
    cpu: str
    arch: str
    required_features: tuple[str, ...]
    gpu: str = ""


class Model(msgspec.Struct, frozen=True):
    """The model compiled: its name (no folder) and the SHA-256 of its bytes, in hexadecimal."""

    name: str
    sha256: str


class Layer(msgspec.Struct, frozen=True):
    """One matmul-like operator of the model and what became of it.

    ``reason`` says why a layer is packed or was left in float; ``bytes`` counts its constants;
    ``kernel`` is the kind of kernel that computes it, empty for one of TVM's making, and
    ``is_tuned`` says that records of tuning chose other parameters than the rule.
    """

    name: str
    operator: str
    shape: tuple[int, ...]
    form: Literal["packed", "float"]
    reason: str
    macs: int
    bytes: int
    kernel: str = ""
    is_tuned: bool = False


class Step(msgspec.Struct, frozen=True, array_like=True):
    """One call of a kernel, in the order of the model: the kernel, and what it computes there."""

    kernel: str
    layer: str

    @property
    def kind(self) -> str:
        """The kernel without the number by which TVM tells those of a kind apart."""
        return self.kernel.rstrip("0123456789")


class Memory(msgspec.Struct, frozen=True):
    """Memory that a call needs, in bytes: what all parts share, and what each takes beyond it."""

    fixed_bytes: _Extent = 0
    part_bytes: _Extent = 0

    def total(self, parts: int) -> int:
        """Bytes a call on ``parts`` threads needs."""
        return self.fixed_bytes + parts * self.part_bytes


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a tensor is: an input by number, or an offset in bytes into memory or constants."""

    where: Literal["input", "memory", "constant"]
    at: _Extent


class Launch(msgspec.Struct, frozen=True, array_like=True):
    """A function of the GPU's code: its blocks and threads (x, y, z), its pointers, its steps."""

    function: _Function
    grid: tuple[_Extent, _Extent, _Extent]
    block: tuple[_Extent, _Extent, _Extent]
    arguments: tuple[Place, ...]
    steps: tuple[_Extent, ...]


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """The model for one batch: a function of the library, and what it takes and does.

    Attributes
    ----------
    batch
        First extent of every input and output, where the model leaves it open; 0 where calls take
        the shapes as they stand.
    entry
        What the names of its functions begin with: :mod:`gsb_tvm.runtime.entry`.
    kernels
        Each kernel's specification as :func:`gsb_tvm.dialect.specs.encode` writes it, empty for a
        float one.
    tuned
        Of kernels that records of tuning know, their parameters as text, or
        :data:`gsb_tvm.dialect.chosen.AS_BY_RULE`.
    launches
        What a GPU does, in order; memory is zero before the first call and then left as it is.
    results
        Where each output is behind them.
    """

    batch: _Extent = 0
    entry: _Symbol = NAME
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    layers: tuple[Layer, ...] = ()
    memory: Memory = Memory()
    kernels: dict[str, str] = {}
    steps: tuple[Step, ...] = ()
    tuned: dict[str, str] = {}
    launches: tuple[Launch, ...] = ()
    results: tuple[Place, ...] = ()


class Versions(msgspec.Struct, frozen=True):
    """Versions of the compiler that made the artefact."""

    gsb_tvm: str
    tvm: str
    tvm_ffi: str


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """All that an artefact says about itself; its programs stand in the order of their batches."""

    versions: Versions
    target: Target
    model: Model
    programs: Annotated[tuple[Program, ...], msgspec.Meta(min_length=1)]

    @property
    def program(self) -> Program:
        """The one of the smallest batch, which most artefacts hold alone."""
        return self.programs[0]

    def call_bytes(self, parts: int) -> int:
        """Memory that a call of any batch on ``parts`` threads needs."""
        return max(program.memory.total(parts) for program in self.programs)

    def only(self, program: Program) -> "Metadata":
        """The same of an artefact that holds ``program`` alone."""
        return msgspec.structs.replace(self, programs=(program,))

    def json(self) -> bytes:
        """Encode as JSON, keys in a fixed order, indented for people."""
        return (
            msgspec.json.format(msgspec.json.encode(self, order="deterministic"), indent=2) + b"\n"
        )


def versions() -> Versions:
    """Versions of what is installed here."""
    return Versions(PACKAGE, installed("apache-tvm"), installed("apache-tvm-ffi"))


def target_of(profile: Profile) -> Target:
    """What ``profile`` says about the machine that may execute its code."""
    return Target(
        profile.target_string,
        profile.mtriple,
        profile.mcpu,
        profile.arch,
        tuple(sorted(profile.required_features)),
        "" if profile.gpu is None else profile.gpu.arch,
    )


def section(metadata: Metadata, descriptor: bytes) -> bytes:
    """Contents of the section that carries both, its checksum not yet computed."""
    text = msgspec.json.encode(metadata, order="deterministic")
    return _HEADER.pack(_MAGIC, FORMAT, 0, len(text), len(descriptor)) + text + descriptor


def seal(library: bytes) -> bytes:
    """Return a linked library with the checksum over itself filled in."""
    offset, _ = find_section(library, SECTION, "the linked library")
    at = offset + _CRC_OFFSET
    blank = library[:at] + bytes(4) + library[at + 4 :]
    return blank[:at] + struct.pack("<I", zlib.crc32(blank) or 1) + blank[at + 4 :]


def header(data: Contents, name: str) -> bytes:
    """The header of the section, whose checksum tells one artefact from another."""
    offset, _ = find_section(data, SECTION, name)
    return data[offset : offset + _HEADER.size]


def write(path: Path, library: Contents, metadata: Metadata) -> Path:
    """Write a sealed library to ``path`` and the JSON beside it: both or none; return its path.

    Raises
    ------
    OutputError
        One of them cannot be written, or the JSON would take the place of another file.
    """
    beside = path.with_suffix(".json")
    check_metadata(beside)
    write_files([Output(beside, metadata.json()), Output(path, library, 0o755)])
    return beside


class _Ours(msgspec.Struct):
    """What every version of the metadata has."""

    versions: Versions


def check_metadata(path: Path) -> None:
    """Refuse a file that metadata would be written over, unless it is metadata too.

    Raises
    ------
    OutputError
        It is something else, or cannot be read.
    """
    try:
        msgspec.json.decode(path.read_bytes(), type=_Ours)
    except FileNotFoundError:
        return
    except (OSError, msgspec.MsgspecError) as err:
        raise OutputError(
            f"{path}: the metadata would go here, but another file is there. "
            "Choose another name with -o, or move that file."
        ) from err


def read(path: Path) -> Metadata:
    """Read the metadata of the artefact at ``path`` without loading any of its code.

    Raises
    ------
    ArtefactError
        The file is missing, cut off, changed since it was written, not an artefact of this
        compiler, or of another format version.
    """
    return parse(contents(path), str(path))


def contents(path: Path) -> Contents:
    """Map the file at ``path`` into memory: its pages are shared with the code loaded from it.

    Raises
    ------
    ArtefactError
        It cannot be read.
    """
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return b""
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as err:
        raise ArtefactError(f"{path}: cannot be read ({err.strerror}).") from err


def parse(data: Contents, name: str) -> Metadata:
    """Read the metadata of an artefact held in memory; ``name`` is for messages.

    Raises
    ------
    ArtefactError
        As for :func:`read`.
    """
    offset, size = find_section(data, SECTION, name)
    damaged = ArtefactError(f"{name}: the section {SECTION} is damaged. Compile the model again.")
    if size < _START.size:
        raise damaged
    magic, number = _START.unpack_from(data, offset)
    if magic != _MAGIC:
        raise damaged
    if number != FORMAT:
        raise ArtefactError(
            f"{name}: made in artefact format {number}, expected {FORMAT}. "
            f"Compile the model again with gsb_tvm {PACKAGE}."
        )
    if size < _HEADER.size:
        raise damaged
    _, _, checksum, length, more = _HEADER.unpack_from(data, offset)
    if length + more > size - _HEADER.size:
        raise damaged
    if checksum and checksum != _checksum(data, offset + _CRC_OFFSET):
        raise ArtefactError(
            f"{name}: the file was changed after it was written (its checksum does not match). "
            "Copy it again or compile the model again."
        )
    start = offset + _HEADER.size
    try:
        return msgspec.json.decode(data[start : start + length], type=Metadata)
    except (msgspec.MsgspecError, UnicodeDecodeError) as err:
        raise ArtefactError(f"{name}: the metadata is damaged ({err}).") from err


def _checksum(data: Contents, at: int) -> int:
    with memoryview(data) as view:
        crc = zlib.crc32(bytes(4), zlib.crc32(view[:at]))
        return zlib.crc32(view[at + 4 :], crc) or 1
