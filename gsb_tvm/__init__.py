"""Compiler for binary vision transformers: ONNX in, exact packed bit operations out.

``build`` compiles a model, ``load`` opens a compiled one; both return a ``Module`` that is called
like a function. ``load_cuda`` opens one that was compiled for a GPU. What a user can cause or cure
is a ``GsbError``. Importing the package loads nothing heavy.
"""

from typing import TYPE_CHECKING, Any

from gsb_tvm.dialect.errors import GsbError
from gsb_tvm.dialect.versions import PACKAGE as __version__

if TYPE_CHECKING:
    from gsb_tvm.api import build
    from gsb_tvm.runtime.cuda.session import load_cuda
    from gsb_tvm.runtime.session import Module, load

__all__ = ["GsbError", "Module", "__version__", "build", "load", "load_cuda"]

_SESSION = "gsb_tvm.runtime.session"  # light: a program that only runs models imports no TVM
_CUDA = "gsb_tvm.runtime.cuda.session"
_HOMES = {"build": "gsb_tvm.api", "load": _SESSION, "Module": _SESSION, "load_cuda": _CUDA}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    if name == "build":
        from gsb_tvm.dialect.versions import check_tvm

        check_tvm()
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
