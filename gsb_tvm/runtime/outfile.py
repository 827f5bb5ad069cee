"""Writing output files whole or not at all."""

import errno
import mmap
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gsb_tvm.dialect.errors import OutputError

_REASONS = {
    errno.ENOSPC: "no space is left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than the size limit allows",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "no permission to write there",
    errno.EPERM: "no permission to write there",
    errno.ENOENT: "the folder does not exist",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder",
    errno.ENAMETOOLONG: "the name is too long",
}


def output_error(path: Path, err: OSError) -> OutputError:
    """Build the error for an output that cannot be written."""
    reason = _REASONS.get(err.errno or 0, err.strerror or str(err))
    return OutputError(f"{path}: cannot be written: {reason}. Choose another place with -o.")


def check_writable(path: Path) -> None:
    """Raise before any work is done if ``path`` cannot be written; leaves nothing behind.

    Raises
    ------
    OutputError
        The folder is missing or read-only, or something stands there that is no file.
    """
    with _naming(path):
        _check_replaceable(path)
        _try_folder(path)


@dataclass(frozen=True)
class Output:
    """A file to write; ``mode`` is reduced by the umask."""

    path: Path
    data: bytes | mmap.mmap
    mode: int = 0o644


def write_file(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write one file, see :func:`write_files`."""
    write_files([Output(path, data, mode)])


def write_files(outputs: Sequence[Output]) -> None:
    """Write each file beside its place, flush all to the disk, and only then rename them all.

    Whoever reads one meanwhile sees the old file or the new one, never a part.

    Raises
    ------
    OutputError
        A file cannot be written; what was begun is removed, and old files stay as they were.
    """
    staged: list[Path] = []
    try:
        for output in outputs:
            with _naming(output.path):
                _stage(output, staged)
        for output, temporary in zip(outputs, staged, strict=True):
            with _naming(output.path):
                os.replace(temporary, output.path)
    finally:
        for temporary in staged:
            temporary.unlink(missing_ok=True)


def check_folder(path: Path, marker: str) -> None:
    """Raise before any work is done unless a folder can be written at ``path``.

    Raises
    ------
    OutputError
        The folder above is missing or read-only, or something stands there that is neither an empty
        folder nor one that holds ``marker``, which says that it was written here.
    """
    with _naming(path):
        _try_folder(path)
    if path.is_dir() and not path.is_symlink():
        if (path / marker).is_file() or not any(path.iterdir()):
            return
        raise OutputError(
            f"{path}: there is a folder with other files. Choose another place with -o."
        )
    if path.exists() or path.is_symlink():
        raise OutputError(f"{path}: there is a file. Choose another place with -o.")


def write_folder(path: Path, files: Mapping[str, bytes], marker: str) -> None:
    """Write a folder of files beside its place, flush it to the disk, and only then rename it.

    One that stands there, empty or with ``marker`` in it, gives way; until then it is whole.

    Raises
    ------
    OutputError
        It cannot be written; what was begun is removed, and the old folder stays as it was.
    """
    check_folder(path, marker)
    with (
        _naming(path),
        tempfile.TemporaryDirectory(prefix=f".{path.name[:40]}.", dir=path.parent) as made,
    ):
        new, old = Path(made) / "new", Path(made) / "old"
        new.mkdir()
        for name, data in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            _write(os.open(new / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL), data, 0o644)
        try:
            if path.exists():
                os.replace(path, old)
            os.replace(new, path)
        except BaseException:  # Ctrl-C, too
            if old.exists() and not path.exists():
                os.replace(old, path)
            raise


def _stage(output: Output, staged: list[Path]) -> None:
    """Write ``output`` under a temporary name, which is put into ``staged`` at once."""
    _check_replaceable(output.path)
    handle, name = _temporary(output.path)
    staged.append(Path(name))
    _write(handle, output.data, output.mode)


def _check_replaceable(path: Path) -> None:
    """Raise unless a file or nothing stands at ``path``.

    A rename would put a file in the place of whatever else does, for root even of /dev/null. A link
    is refused too: /dev/stdout is one.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise FileExistsError(errno.EEXIST, "there is a link, a device or a pipe")


def _try_folder(path: Path) -> None:
    """Raise unless a file can be made beside ``path``."""
    handle, name = _temporary(path)
    os.close(handle)
    os.unlink(name)


def _temporary(path: Path) -> tuple[int, str]:
    """Open a new file beside ``path``."""
    return tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.parent)


def _write(handle: int, data: bytes | mmap.mmap, mode: int) -> None:
    """Write an open file, flush it to the disk and close it; ``mode`` is reduced by the umask."""
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fchmod(file.fileno(), mode & ~_umask())
        os.fsync(file.fileno())


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise output_error(path, err) from err


@contextmanager
def scratch_folder(need: int = 1) -> Iterator[Path]:
    """Yield a temporary folder that has room for a file of ``need`` bytes.

    The room is tried out first because LLVM ends the process when a write of its own fails.

    Raises
    ------
    OutputError
        There is no folder for temporary files, or no room in it.
    """
    try:
        folder = tempfile.TemporaryDirectory(prefix="gsb_tvm-")
    except OSError as err:
        raise OutputError(f"no folder for temporary files ({err.strerror}). Set TMPDIR.") from err
    with folder as name:
        try:
            with tempfile.TemporaryFile(dir=name) as trial:
                os.posix_fallocate(trial.fileno(), 0, need)
        except OSError as err:
            reason = _REASONS.get(err.errno or 0, err.strerror)
            raise OutputError(
                f"{name}: {need} bytes of temporary files cannot be written: {reason}. "
                "Make room there or set TMPDIR."
            ) from err
        yield Path(name)


def write_scratch(path: Path, data: bytes) -> None:
    """Write a temporary file.

    Raises
    ------
    OutputError
        There is no room for it.
    """
    try:
        path.write_bytes(data)
    except OSError as err:
        reason = _REASONS.get(err.errno or 0, err.strerror)
        raise OutputError(
            f"{path.parent}: temporary files cannot be written: {reason}. "
            "Make room there or set TMPDIR."
        ) from err


def _umask() -> int:
    """Read the process's umask, which the system only tells when it is set."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022
