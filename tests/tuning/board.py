"""An AArch64 board on this machine: TVM's RPC server for it, run by qemu-user.

``python -m tests.tuning.board serve --tracker 127.0.0.1:9190 --key pi4`` takes the arguments of
``gsb-tvm device serve``. The first start fetches Python for arm64 from the system's own package
sources (Debian) and the wheels of this environment's packages, 500 MB on disk, and keeps both.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent.parent
CPU = "cortex-a72"
_PACKAGES = ("apache-tvm", "apache-tvm-ffi", "numpy", "ml_dtypes", "typing_extensions", "psutil")
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
_FETCH_S = 900


class Unavailable(Exception):
    """There is no such board here: the text says why."""


def command(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Words and environment of a process that serves the board.

    Raises
    ------
    Unavailable
        An emulator is missing, or what it runs cannot be fetched.
    """
    qemu = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    if qemu is None:
        raise Unavailable("qemu-user is not installed")
    folder = _built()
    (python,) = folder.glob("root/usr/bin/python3.*[0-9]")
    words = [qemu, "-cpu", CPU, "-L", str(folder / "root"), str(python)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join((str(folder / "site"), str(ROOT))),
        "PYTHONDONTWRITEBYTECODE": "1",
        # TVM without its compiler: half the time to start.
        "TVM_USE_RUNTIME_LIB": "1",
    }
    return [*words, "-m", "gsb_tvm.device", "serve", *arguments], environment


def _built() -> Path:
    """The folder of the board's files, made where it is not there yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gsb-tvm"
    cache.mkdir(parents=True, exist_ok=True)
    versions = "-".join(version(package) for package in _PACKAGES[:3])
    folder = cache / f"board-{versions}"
    with FileLock(cache / "board.lock"):
        if not folder.exists():
            making = cache / "board.part"
            shutil.rmtree(making, ignore_errors=True)
            _make_root(making)
            _make_site(making)
            making.rename(folder)
    return folder


def _make_root(folder: Path) -> None:
    """Unpack Python and what it needs, as apt resolves it for an empty arm64 system."""
    state, packages = folder / "apt" / "state", folder / "apt" / "cache"
    for path in (state / "lists" / "partial", packages / "archives" / "partial"):
        path.mkdir(parents=True)
    (state / "status").touch()
    options = {
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::Cache": packages,
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "1",
    }
    apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in options.items())]
    _fetch([*apt, "update"])
    wanted = ["python3", "libstdc++6"]
    _fetch([*apt, "install", "-y", "--download-only", "--no-install-recommends", *wanted])
    for package in (packages / "archives").glob("*.deb"):
        _fetch(["dpkg-deb", "-x", str(package), str(folder / "root")])
    shutil.rmtree(folder / "apt")


def _make_site(folder: Path) -> None:
    """Unpack the wheels, of the versions that are installed here."""
    (python,) = folder.glob("root/usr/bin/python3.*[0-9]")
    words = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--only-binary=:all:"]
    words += ["--target", str(folder / "site"), "--implementation", "cp"]
    words += ["--python-version", python.name.removeprefix("python")]
    words += [f"--platform={platform}" for platform in _PLATFORMS]
    _fetch([*words, *(f"{package}=={version(package)}" for package in _PACKAGES)])


def _fetch(words: list[str]) -> None:
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_FETCH_S
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        raise Unavailable(f"{words[0]} failed: {err}") from err
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-300:]
        raise Unavailable(f"{' '.join(words[:1])} failed: {said}")


def main() -> None:
    """Become the process that serves the board."""
    if sys.argv[1:2] != ["serve"]:
        sys.exit("usage: python -m tests.tuning.board serve [arguments of gsb-tvm device serve]")
    try:
        words, environment = command(sys.argv[2:])
    except Unavailable as err:
        sys.exit(f"no board: {err}")
    os.execve(words[0], words, environment)


if __name__ == "__main__":
    main()
