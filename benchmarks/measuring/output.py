"""Where figures go: the terminal, a file of JSON."""

import sys
from pathlib import Path
from typing import Any

import msgspec

from gsb_tvm.dialect.errors import OutputError
from gsb_tvm.targets.host import cpu_name
from measuring.machine import versions


def say(text: str) -> None:
    """Tell on standard error what is being done."""
    print(text, file=sys.stderr, flush=True)


def write_json(path: Path, figures: Any) -> None:
    """Write figures beside what they were measured on.

    Raises
    ------
    OutputError
        The file cannot be written.
    """
    whole = {"cpu": cpu_name(), "versions": versions(), "figures": figures}
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(whole), indent=2) + b"\n")
    except OSError as err:
        raise OutputError(f"{path}: cannot be written ({err.strerror}).") from err
