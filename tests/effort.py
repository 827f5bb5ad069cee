"""How much of what could be tested the quick run tests."""

import os
from collections.abc import Iterable
from typing import Any

import pytest

VARIABLE = "GSB_TEST_ALL"
"""Where it is set, all :func:`examples` are looked at."""


def examples(count: int) -> int:
    """Examples of a property test: ``count``, and in the quick run a third of them."""
    return count if os.environ.get(VARIABLE) else -(-count // 3)


def every(step: int, cases: Iterable[Any], first: int = 0) -> list[Any]:
    """Parameters of a test: each ``step``-th of ``cases`` in the quick run, the others are slow."""
    return [case if number % step == first else _slow(case) for number, case in enumerate(cases)]


def _slow(case: Any) -> Any:
    values = case if isinstance(case, tuple) and not hasattr(case, "_fields") else (case,)
    return pytest.param(*values, marks=pytest.mark.slow)
