"""Choices around a rule's, nearest first: how large spaces are kept small."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Generic, TypeVar

MOST_CHOICES = 192
"""Choices of a kernel: a second each to compile and measure, some minutes in all."""

Change = Mapping[str, Any]
"""New values of parameters, by name."""

_Parameters = TypeVar("_Parameters")


@dataclass(frozen=True)
class Region(Generic[_Parameters]):
    """Parameters, and what may be changed of them independently.

    ``options`` are lists of changes by name, the most promising first; the first of each list is
    what ``parameters`` have. ``distance`` is how far these are from the rule's.
    """

    distance: int
    parameters: _Parameters
    options: Sequence[Sequence[Change]]


def nearest(regions: Iterable[Region[_Parameters]]) -> list[_Parameters]:
    """At most MOST_CHOICES of what the regions hold, those first that differ least from the rule.

    A change counts as its place in its list.
    """
    ranked: list[tuple[int, _Parameters]] = []
    for region in regions:
        for chosen in product(*map(enumerate, region.options)):
            distance = region.distance + sum(place for place, _ in chosen)
            changes = {name: value for _, each in chosen for name, value in each.items()}
            changed: Any = replace(region.parameters, **changes)  # type: ignore[type-var]
            ranked.append((distance, changed))
    ranked.sort(key=lambda each: each[0])
    return [parameters for _, parameters in ranked[:MOST_CHOICES]]
