"""Parameters of a family as a plain mapping, and back."""

from dataclasses import dataclass
from enum import StrEnum

import msgspec
import pytest

from gsb_tvm.schedules.choices import as_choice, as_parameters, distinct, text_of


class Way(StrEnum):
    LISTS = "lists"
    PLANES = "planes"


@dataclass(frozen=True)
class Parameters:
    way: Way
    rows: int
    share: float = 0.5
    chunk: int | None = None


PLAIN = Parameters(Way.LISTS, 3)
FULL = Parameters(Way.PLANES, 4, 0.25, 64)


def test_what_is_none_is_left_out() -> None:
    assert as_choice(PLAIN) == {"way": "lists", "rows": 3, "share": 0.5}
    assert as_choice(FULL) == {"way": "planes", "rows": 4, "share": 0.25, "chunk": 64}


@pytest.mark.parametrize("parameters", [PLAIN, FULL])
def test_there_and_back(parameters: Parameters) -> None:
    assert as_parameters(as_choice(parameters), Parameters) == parameters


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"way": "lists"},
        {"way": "neither", "rows": 3},
        {"way": "lists", "rows": "3"},
        {"way": "lists", "rows": 3.5},
    ],
)
def test_what_does_not_fit_is_refused(choice: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        as_parameters(choice, Parameters)


def test_each_choice_once_the_rules_first() -> None:
    other = Parameters(Way.LISTS, 1)
    found = distinct(PLAIN, [other, PLAIN, FULL, other])
    assert found == tuple(map(as_choice, (PLAIN, other, FULL)))
    assert distinct(PLAIN, iter(())) == (as_choice(PLAIN),)


def test_as_text() -> None:
    assert text_of(as_choice(FULL)) == "way=planes rows=4 share=0.25 chunk=64"
    assert text_of({}) == "as by rule"
