"""Float operators: PrimFuncs of TVM's legalisation and fusion, written out anew as vector kernels.

A rule takes a PrimFunc and returns its scheduled form, or None where it is not for the rule. One
that accepts and then fails raises.
"""

from collections.abc import Callable
from typing import Any

from gsb_tvm.schedules.float import product, rows, sliding
from gsb_tvm.targets.profile import Profile

__all__ = ["RULES", "schedule"]

Rule = Callable[[Any, Profile], Any | None]

RULES: tuple[Rule, ...] = (product.apply, sliding.apply, rows.apply)


def schedule(func: Any, profile: Profile) -> Any | None:
    """``func`` scheduled by the first rule that takes it; None where none does."""
    for rule in RULES:
        scheduled = rule(func, profile)
        if scheduled is not None:
            return scheduled
    return None
