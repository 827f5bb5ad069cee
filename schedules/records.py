"""What tuning found: a file of records, one self-checking line each.

A line is ``gsb-record``, the format's number, the CRC-32 of the rest in eight hexadecimal digits,
and the record as JSON with its keys in order::

    gsb-record 1 1c291ca3 {"choice":{...},"cpu":"...","features":"...", ...}

Lines are only ever added, under a lock and each by one write, so that several tuning jobs may share
a file. Whatever happens to a line, the others stay whole: a reader checks every line by itself, and
a writer ends a line that was cut before it adds its own.
"""

import hashlib
import os
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from statistics import median

import msgspec
from filelock import FileLock, Timeout

from gsb_tvm.dialect.errors import OutputError, UsageError
from gsb_tvm.schedules.choices import Value
from gsb_tvm.targets import Profile

FORMAT = 1
_MARK = "gsb-record"
_MOST_BYTES = 1 << 16  # of a line: any longer one is damaged
_LOCK_SECONDS = 60.0


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One measured choice for one kernel on one kind of machine.

    Attributes
    ----------
    kernel
        The spec in text (:func:`gsb_tvm.dialect.specs.encode`): family, shapes, dtypes, steps.
    schedule
        Version of the family's schedules: records of another one are void.
    features
        Digest of what the target's code may use (:func:`feature_set`).
    cpu
        The target's CPU, as LLVM names it, or the architecture of its GPU, as "sm_90".
    choice
        Parameters of the kernel, by name.
    seconds
        A call's measured times; empty where the choice failed.
    rule
        Times of the kernel by rule, each taken at the same moment on the same machine: what a
        choice is worth is the ratio, which machines of other speeds and busy moments leave alone.
    failure
        Why the choice must not be used; empty where it may.
    made
        Seconds since 1970.
    host
        The CPU or GPU that was measured, for people.
    """

    kernel: str
    schedule: int
    features: str
    cpu: str
    choice: dict[str, Value]
    seconds: tuple[float, ...] = ()
    rule: tuple[float, ...] = ()
    failure: str = ""
    made: int = 0
    host: str = ""

    def __post_init__(self) -> None:
        if bool(self.seconds) == bool(self.failure):
            raise ValueError("a record has either times or a failure")
        if len(self.seconds) != len(self.rule):
            raise ValueError("a time stands alone, without that of the rule")
        if any(not 0 < time < float("inf") for time in (*self.seconds, *self.rule)):
            raise ValueError("a time is not a positive number")

    @property
    def key(self) -> "Key":
        """What it is a record of."""
        return Key(self.kernel, self.schedule, self.features, self.cpu)

    @property
    def time(self) -> float:
        """Median of its times, seconds; infinite where it failed."""
        return median(self.seconds) if self.seconds else float("inf")

    @property
    def ratio(self) -> float:
        """Median of its times as shares of the rule's; infinite where it failed."""
        if not self.seconds:
            return float("inf")
        return median(mine / its for mine, its in zip(self.seconds, self.rule, strict=True))


@dataclass(frozen=True, order=True)
class Key:
    """What two records must share to be of the same kernel."""

    kernel: str
    schedule: int
    features: str
    cpu: str


def feature_set(profile: Profile) -> str:
    """Digest of what code for ``profile`` may use, 16 hexadecimal digits.

    Of a CPU triple and features. Of a GPU the architecture alone, as of artefacts: whatever CPU is
    beside it, and however many multiprocessors a chip has.
    """
    words = [profile.kind, profile.mtriple, *sorted(profile.features), *profile.mattr]
    if profile.gpu is not None:
        words = [profile.kind, profile.gpu.arch]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def processor(profile: Profile) -> str:
    """What records call the CPU or GPU that ``profile`` is for."""
    return profile.mcpu if profile.gpu is None else profile.gpu.arch


def key_of(kernel: str, schedule: int, profile: Profile) -> Key:
    """Key of the records that serve a kernel on ``profile``."""
    return Key(kernel, schedule, feature_set(profile), processor(profile))


class Fault(StrEnum):
    """What is wrong with a line that is no record."""

    BLANK = "blank"
    FOREIGN = "no record"
    VERSION = "of another format"
    DAMAGED = "cut or damaged"


@dataclass(frozen=True)
class Loaded:
    """The records of a file, in its order, and how many lines are none."""

    records: tuple[Record, ...]
    faults: Counter[Fault]


def to_line(record: Record) -> bytes:
    """The line of a record, with its end."""
    text = msgspec.json.encode(record, order="deterministic")
    line = f"{_MARK} {FORMAT} {zlib.crc32(text):08x} ".encode() + text + b"\n"
    assert len(line) <= _MOST_BYTES
    return line


def from_line(line: bytes) -> Record | Fault:
    """The record of a line without its end."""
    if not line.strip():
        return Fault.BLANK
    words = line.split(b" ", 3)
    if words[0] != _MARK.encode():
        is_part = line in _MARK.encode()
        return Fault.DAMAGED if is_part else Fault.FOREIGN
    if len(words) < 4 or len(line) >= _MOST_BYTES:
        return Fault.DAMAGED
    _, version, check, text = words
    if version != str(FORMAT).encode():
        return Fault.VERSION if version.isdigit() else Fault.DAMAGED
    if check != f"{zlib.crc32(text):08x}".encode():
        return Fault.DAMAGED
    try:
        return msgspec.json.decode(text, type=Record)
    except (msgspec.MsgspecError, ValueError):
        return Fault.DAMAGED


def load(path: Path) -> Loaded:
    """Read a file of records; one that is being written, too.

    Raises
    ------
    UsageError
        It cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as err:
        raise UsageError(f"{path}: records cannot be read: {err.strerror}.") from err
    lines = data.removesuffix(b"\n").split(b"\n") if data else []
    found = [from_line(line) for line in lines]
    records = tuple(one for one in found if isinstance(one, Record))
    return Loaded(records, Counter(one for one in found if isinstance(one, Fault)))


def append(path: Path, records: Sequence[Record]) -> None:
    """Add records to a file, which is made where there is none, and flush them to the disk.

    Raises
    ------
    OutputError
        The file cannot be written or locked; what stood in it stays as it was.
    """
    if not records:
        return
    _make_folder(path)
    with _locked(path):
        _append(path, b"".join(map(to_line, records)))


def check_appendable(path: Path) -> None:
    """Find out now whether records can be added later; makes the folder, but no file.

    Raises
    ------
    OutputError
        The file cannot be written or locked.
    """
    _make_folder(path)
    with _naming(path):
        if path.exists():
            os.close(os.open(path, os.O_RDWR | os.O_APPEND))
            with _locked(path):
                pass
        else:
            tempfile.TemporaryFile(dir=path.parent).close()


def rewrite(
    path: Path, keep: Callable[[Sequence[Record]], Sequence[Record]]
) -> tuple[Loaded, Sequence[Record]]:
    """Leave only what ``keep`` makes of a file's records; return what was there, and what is now.

    Raises
    ------
    UsageError
        The file cannot be read.
    OutputError
        It cannot be written or locked; what stood in it stays as it was.
    """
    with _locked(path):
        before = load(path)
        after = keep(before.records)
        _replace(path, b"".join(map(to_line, after)))
    return before, after


def from_json(path: Path) -> list[Record]:
    """Records from a JSON array of them.

    Raises
    ------
    UsageError
        It cannot be read, or holds something else.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Record])
    except OSError as err:
        raise UsageError(f"{path}: cannot be read: {err.strerror}.") from err
    except msgspec.MsgspecError as err:
        raise UsageError(
            f"{path}: no JSON array of records ({err}). See gsb-tvm db export."
        ) from err


def _make_folder(path: Path) -> None:
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file of records, and turn the system's complaints into ours."""
    try:
        with _naming(path), FileLock(f"{path}.lock", timeout=_LOCK_SECONDS):
            yield
    except Timeout as err:
        raise OutputError(
            f"{path}: locked by another process for {_LOCK_SECONDS:.0f} s. Stop that process, or "
            "take another file."
        ) from err


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn the system's complaints about a file of records into ours."""
    try:
        yield
    except Timeout:
        raise
    except OSError as err:
        raise OutputError(f"{path}: records cannot be written: {err.strerror}.") from err


def _replace(path: Path, data: bytes) -> None:
    """Write beside, flush, rename: whoever reads meanwhile sees the old file or the new one."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, path.stat().st_mode & 0o777)
            file.write(data)
            file.flush()
            os.fsync(handle)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _append(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(handle).st_size
        if data and size and os.pread(handle, 1, size - 1) != b"\n":
            data = b"\n" + data  # ends a line that was cut
        try:
            written = os.write(handle, data)
            while written < len(data):
                written += os.write(handle, data[written:])
            os.fsync(handle)
        except OSError:
            os.ftruncate(handle, size)
            raise
    finally:
        os.close(handle)
