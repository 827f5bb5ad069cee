"""Float operators: PrimFuncs of TVM's legalisation and fusion, written anew as vector kernels.

A rule makes a plan of a PrimFunc, or None where it is not for the rule. A plan knows what may be
chosen of the kernel (:mod:`gsb_tvm.schedules.choices`), and writes the kernel by a choice. For GPUs
there is one plan, by TVM's schedules, for every PrimFunc.

To measure a choice, take a PrimFunc that :func:`is_tunable` as the passes before ``ScheduleFloat``
leave it. It compiles as it is, and so does what :func:`schedule` returns; both are called with the
arrays of :func:`signature`, the inputs in order and then the outputs. :func:`key` is the name of
what it computes in records.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from gsb_tvm.schedules.choices import Choice, Value, as_choice, as_parameters, distinct
from gsb_tvm.schedules.float import cuda, product, rows, sliding
from gsb_tvm.schedules.float.keys import key, signature
from gsb_tvm.targets.profile import Profile

__all__ = [
    "RULES",
    "VERSION",
    "is_tunable",
    "key",
    "rule",
    "schedule",
    "signature",
    "space",
    "version",
]

VERSION = 2
"""Of the schedules for CPUs: one more wherever the same choice gives another kernel."""


class Plan(Protocol):
    """A PrimFunc that a rule knows.

    ``parameters`` is a frozen dataclass, ``rule`` the rule's choice of it, ``space`` what is worth
    trying, and ``write`` the scheduled PrimFunc.
    """

    @property
    def parameters(self) -> type: ...

    def rule(self, profile: Profile) -> Any: ...

    def space(self, profile: Profile) -> Iterable[Any]: ...

    def write(self, profile: Profile, parameters: Any) -> Any: ...


RULES: tuple[Callable[[Any], Plan | None], ...] = (product.match, sliding.match, rows.match)


def version(profile: Profile) -> int:
    """Of the schedules for a target."""
    return VERSION if profile.gpu is None else cuda.VERSION


def is_tunable(func: Any, profile: Profile) -> bool:
    """Whether a rule knows ``func``."""
    return _plan(func, profile) is not None


def rule(func: Any, profile: Profile) -> dict[str, Value]:
    """The choice by rule, for a ``func`` that a rule knows."""
    return as_choice(_known(func, profile).rule(profile))


def space(func: Any, profile: Profile) -> tuple[dict[str, Value], ...]:
    """All choices that are worth trying, each once, the rule's first."""
    plan = _known(func, profile)
    return distinct(plan.rule(profile), plan.space(profile))


def schedule(func: Any, profile: Profile, choice: Choice | None = None) -> Any | None:
    """``func`` scheduled by the first rule that knows it; None where none does.

    ``choice`` is one of :func:`space`; without it the rule's.
    """
    plan = _plan(func, profile)
    if plan is None:
        return None
    if choice is None:
        return plan.write(profile, plan.rule(profile))
    return plan.write(profile, as_parameters(choice, plan.parameters))


def _plan(func: Any, profile: Profile) -> Plan | None:
    if profile.gpu is not None:
        return cuda.Plan(func)
    return next((plan for match in RULES if (plan := match(func)) is not None), None)


def _known(func: Any, profile: Profile) -> Plan:
    plan = _plan(func, profile)
    assert plan is not None
    return plan
