"""Target strings, device profiles, host detection.

Importing this room loads no TVM; :func:`resolve` and :meth:`Profile.tvm_target` do. What reads
target strings is imported when it is first asked for: a program that only runs models needs none
of it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gsb_tvm.targets.host import missing_here
from gsb_tvm.targets.profile import Profile

if TYPE_CHECKING:
    from gsb_tvm.targets.resolution import resolve
    from gsb_tvm.targets.spec import take_target

__all__ = ["Profile", "missing_here", "resolve", "take_target"]

_HOMES = {"resolve": "gsb_tvm.targets.resolution", "take_target": "gsb_tvm.targets.spec"}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
