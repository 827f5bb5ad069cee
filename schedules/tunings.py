"""Choices that tuning found for a machine, from records of it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gsb_tvm.schedules.choices import Choice, Value
from gsb_tvm.schedules.records import Key, Record, feature_set, times
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


class Tunings:
    """Records for one machine, by kernel; those of other instruction sets or CPUs are left out."""

    def __init__(self, profile: Profile, records: Iterable[Record] = ()) -> None:
        self._profile = profile
        self._features = feature_set(profile)
        self._records: dict[Key, list[Record]] = {}
        for record in records:
            if record.features == self._features and record.cpu == profile.mcpu:
                self._records.setdefault(record.key, []).append(record)

    def __len__(self) -> int:
        """How many kernels there are records of."""
        return len(self._records)

    def find(
        self, kernel: str, version: int, space: Callable[[], Sequence[dict[str, Value]]]
    ) -> Tuned | None:
        """The fastest choice of a kernel; None where it was never measured beside the rule's.

        Only what is in ``space``, the rule's choice first, counts: whatever a file says, nothing
        is compiled that the family would not try by itself.
        """
        records = self._records.get(Key(kernel, version, self._features, self._profile.mcpu), [])
        if not records:
            return None
        known = space()
        measured = [(time, choice) for choice, time in times(records) if choice in known]
        by_rule = [time for time, choice in measured if choice == known[0]]
        if not by_rule:
            return None
        time, choice = min(measured, key=lambda each: (each[0], known.index(each[1])))
        if time > MARGIN * by_rule[0]:
            return Tuned(known[0], 1.0)
        return Tuned(choice, by_rule[0] / time)
