"""Running the real command many times: one warm process that forks for each call.

Importing TVM takes seconds; a fork of a process that has done so takes none. The child runs
``gsb_tvm.cli.main`` with file descriptors, folder, limits and environment of its own, so nothing it
does reaches the next call.
"""

import json
import os
import re
import resource
import selectors
import signal
import subprocess
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
NATIVE = ("--target", "native")
_PROGRESS = re.compile(r" *\d+\.\d s  [a-z]+")
_TIMEOUT_S = 120


@dataclass(frozen=True)
class Done:
    """Exit code and output of one call, and the files it left in its folder and in TMPDIR."""

    code: int
    out: str
    err: str
    left: set[str]


@dataclass
class CommandLine:
    """The warm process; a context manager."""

    _process: Any = field(default=None, init=False)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from tests.commandline import serve; serve()"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TVM_NUM_THREADS": "1"},
        )
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._process.stdin.close()
        self._process.wait(_TIMEOUT_S)

    def __call__(
        self,
        folder: Path,
        *argv: object,
        file_bytes: int | None = None,
        without: tuple[str, ...] = (),
        path: str | None = None,
        patch: str = "",
        stdout: str | None = None,
    ) -> Done:
        """Run ``gsb-tvm *argv`` in ``folder``.

        ``file_bytes`` limits the size of written files, ``without`` hides packages, ``path`` is
        the child's PATH, ``patch`` is Python code run first, ``stdout`` a file to write to.
        """
        temporary = folder / ".tmp"
        temporary.mkdir(exist_ok=True)
        before = _files(folder)
        request = {
            "argv": [str(word) for word in argv],
            "folder": str(folder),
            "tmp": str(temporary),
            "file_bytes": file_bytes,
            "without": without,
            "path": path,
            "patch": patch,
            "stdout": stdout,
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Done(answer["code"], answer["out"], answer["err"], _files(folder) - before)


def refused(done: Done, code: int, *words: str) -> None:
    """One sentence on stderr, nothing but progress on stdout, no file left."""
    assert done.code == code, done
    assert done.err.startswith("error: "), done.err
    assert "Traceback" not in done.err, done.err
    assert done.err.count("\n") == 1, done.err
    assert len(done.err) < 700, done.err
    for word in words:
        assert word in done.err, done.err
    assert all(_PROGRESS.fullmatch(line) for line in done.out.splitlines()), done.out
    assert done.left == set(), done.left


def _files(folder: Path) -> set[str]:
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}
    # ONNX Runtime leaves the first one, whoever imports it; multiprocessing removes its own where
    # Python ends by itself, which the child of a warm process does not.
    return {name for name in files if name != ".tmp/.ses" and not name.startswith(".tmp/pymp-")}


def serve() -> None:
    """Answer requests from standard input until it ends."""
    from gsb_tvm.dialect.without_torch import without_torch

    with without_torch():
        import onnx
        import tvm

        from gsb_tvm import cli, driver, targets

    assert all((onnx, tvm, cli, driver))
    for target in ("native", "llvm -mcpu=cortex-a72"):
        targets.resolve(target)
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        answers.write(json.dumps(_answer(json.loads(line))) + "\n")
        answers.flush()


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    # Pipes, because a limit on the size of files would cut what is captured in one.
    pipes = {"out": os.pipe(), "err": os.pipe()}
    child = os.fork()
    if child == 0:
        _become(request, pipes["out"][1], pipes["err"][1])
    for _, writing in pipes.values():
        os.close(writing)
    texts = _drain({reading: name for name, (reading, _) in pipes.items()})
    _, status = os.waitpid(child, 0)
    return {"code": os.waitstatus_to_exitcode(status), **texts}


def _drain(names: dict[int, str]) -> dict[str, str]:
    """Read descriptors to their ends, whichever has something first."""
    texts = dict.fromkeys(names.values(), b"")
    with selectors.DefaultSelector() as selector:
        for descriptor in names:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                data = os.read(key.fd, 1 << 16)
                texts[names[key.fd]] += data
                if not data:
                    selector.unregister(key.fd)
                    os.close(key.fd)
    return {name: data.decode("utf-8", "replace") for name, data in texts.items()}


def _become(request: dict[str, Any], out: int, err: int) -> None:
    """Run the command in this process, which ends with it."""
    code = 99
    try:
        if request["stdout"]:
            out = os.open(request["stdout"], os.O_WRONLY)
        for number, descriptor in enumerate((os.open(os.devnull, os.O_RDONLY), out, err)):
            os.dup2(descriptor, number)
        os.chdir(request["folder"])
        os.environ["TMPDIR"] = request["tmp"]
        if request["path"] is not None:
            os.environ["PATH"] = request["path"]
        for package in request["without"]:
            sys.modules[package] = None  # type: ignore[assignment]
        exec(request["patch"], {})
        signal.alarm(_TIMEOUT_S)
        if request["file_bytes"] is not None:
            limit = request["file_bytes"]
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        from gsb_tvm import cli

        code = cli.main(request["argv"])
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
