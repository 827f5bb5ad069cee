"""Choices that tuning found for a machine, from records of it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gsb_tvm.dialect.chosen import AS_BY_RULE
from gsb_tvm.schedules.choices import Choice, Value, text_of
from gsb_tvm.schedules.records import Key, Record, feature_set, processor
from gsb_tvm.schedules.standings import standings
from gsb_tvm.targets import Profile

MARGIN = 0.99
"""Share of the rule's time below which another choice is taken: less is noise."""


@dataclass(frozen=True)
class Tuned:
    """What records say about a kernel: what to choose, and how the time compares with the rule's.

    ``gain`` is the rule's time over the choice's; 1 where the rule's own is the best.
    """

    choice: Choice
    gain: float

    @property
    def text(self) -> str:
        """The choice for people."""
        return text_of(self.choice) if self.gain > 1 else AS_BY_RULE


class Tunings:
    """Records for one machine, by kernel; those of other CPUs, GPUs or features are left out."""

    def __init__(self, profile: Profile, *sources: Iterable[Record]) -> None:
        """Of several ``sources`` the first that knows a kernel decides about it."""
        self._features, self._cpu = feature_set(profile), processor(profile)
        self._sources = [self._by_key(source) for source in sources]

    def _by_key(self, records: Iterable[Record]) -> dict[Key, list[Record]]:
        found: dict[Key, list[Record]] = {}
        for record in records:
            if (record.features, record.cpu) == (self._features, self._cpu):
                found.setdefault(record.key, []).append(record)
        return found

    def __len__(self) -> int:
        """How many kernels there are records of."""
        return len({key for source in self._sources for key in source})

    def find(
        self, kernel: str, version: int, space: Callable[[], Sequence[dict[str, Value]]]
    ) -> Tuned | None:
        """The fastest choice of a kernel; None where none is on record.

        Only what is in ``space``, the rule's choice first, counts: whatever a file says, nothing
        is compiled that the family would not try by itself.
        """
        key = Key(kernel, version, self._features, self._cpu)
        for source in self._sources:
            found = _fastest(source.get(key, ()), space)
            if found is not None:
                return found
        return None


def _fastest(
    records: Sequence[Record], space: Callable[[], Sequence[dict[str, Value]]]
) -> Tuned | None:
    if not records:
        return None
    known = space()
    measured = [each for each in standings(records) if each.record.choice in known]
    if all(each.ratio == float("inf") for each in measured):
        return None
    proven = [
        (each.ratio, known.index(each.record.choice))
        for each in measured
        if each.is_proven and each.ratio <= MARGIN
    ]
    if not proven:
        return Tuned(known[0], 1.0)
    ratio, place = min(proven)
    return Tuned(known[place], 1 / ratio)
