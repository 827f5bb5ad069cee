"""What children of an isolation do in its tests."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def same(value: Any) -> Any:
    return value


def after(seconds: float, value: Any) -> Any:
    time.sleep(seconds)
    return value


def oversleep() -> None:
    """Sleep beyond an alarm."""
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    time.sleep(3600)


def span(seconds: float) -> tuple[float, float]:
    """When it began and ended."""
    start = time.monotonic()
    time.sleep(seconds)
    return start, time.monotonic()


def linger(path: Path) -> None:
    """Tell who it is and who its own child is, then sleep for an hour."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    _announce(path, f"{os.getpid()} {child.pid}")
    time.sleep(3600)


def linger_or_not(path: Path | None) -> None:
    """Linger where there is something to write."""
    if path is not None:
        linger(path)


def crash_behind_a_child(path: Path) -> None:
    """Leave a child of its own behind."""
    child = subprocess.Popen(["sleep", "3600"])
    _announce(path, f"{os.getpid()} {child.pid}")
    os.abort()


def unpicklable() -> Any:
    return lambda: None


def exits() -> None:
    sys.exit(3)


def raises_keyboard_interrupt() -> None:
    raise KeyboardInterrupt


def speaks() -> str:
    print("to the terminal")
    print("to the terminal", file=sys.stderr)
    os.write(1, b"to the terminal")
    return sys.stdin.read()


class Unreadable:
    """A value that travels, but cannot be made again."""

    def __reduce__(self) -> Any:
        return _refuse, ()


def _refuse() -> None:
    raise RuntimeError("not here")


def unreadable() -> Unreadable:
    return Unreadable()


def _announce(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    beside = path.with_suffix(".part")
    beside.write_text(text)
    beside.replace(path)
