"""Importing TVM without PyTorch, for processes that need none."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _Hiding:
    """A finder of modules that says that PyTorch is not installed.

    Of no base: ``importlib.abc`` takes 11 ms to import, which ``--help`` would wait for.
    """

    def find_spec(self, name: str, _path: Any, _target: Any = None) -> None:
        if name == "torch":
            raise ModuleNotFoundError("PyTorch is hidden", name=name)


@contextmanager
def without_torch() -> Iterator[None]:
    """Let imports find no PyTorch, unless it has been imported before.

    TVM imports PyTorch where it is installed, for its tensors alone. That takes longer than all
    else that a command imports, and no command needs it. In a process where TVM was imported so,
    it takes PyTorch's tensors as any other's that speak DLPack; hence never in a user's program.
    """
    if "torch" in sys.modules:
        yield
        return
    hiding = _Hiding()
    sys.meta_path.insert(0, hiding)
    try:
        yield
    finally:
        sys.meta_path.remove(hiding)
