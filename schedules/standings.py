"""What records say of a kernel's choices: which are fast, and which have proved it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from gsb_tvm.schedules.choices import Value, frozen
from gsb_tvm.schedules.records import Key, Record

DISTURBED = 1.25
"""Times the rule's best time on a host beyond which a moment is not quiet."""

PROVEN = 3
"""Quiet moments at which a choice must have been measured before it may replace the rule's.

On a machine shared with others one moment may be worth nothing: beside a neighbour that uses AMX,
AMX takes three times as long, and all that goes without it looks excellent.
"""


@dataclass(frozen=True)
class Standing:
    """What records say of one choice.

    Attributes
    ----------
    ratio
        Its time as a share of the rule's, the median of its records' medians: each is of another
        moment, and moments differ. Only quiet ones count, where there are any
        (:func:`quiet_seconds`). Infinite where a record says that the choice failed.
    moments
        How many quiet ones there are.
    record
        One of them.
    """

    ratio: float
    moments: int
    record: Record

    @property
    def is_proven(self) -> bool:
        """Whether it was measured often enough."""
        return self.moments >= PROVEN


def standings(records: Iterable[Record]) -> list[Standing]:
    """Standing of each choice of one kernel, in the order of their first records."""
    every = list(records)
    quiet = quiet_seconds(every)
    by_choice: dict[tuple[tuple[str, Value], ...], list[Record]] = {}
    for record in every:
        by_choice.setdefault(frozen(record.choice), []).append(record)
    return [_standing(found, quiet) for found in by_choice.values()]


def quiet_seconds(records: Iterable[Record]) -> dict[str, float]:
    """Up to what time of the rule's kernel a moment was quiet: for each host, of one kernel."""
    found: dict[str, float] = {}
    for record in records:
        if record.rule:
            time = DISTURBED * median(record.rule)
            found[record.host] = min(time, found.get(record.host, time))
    return found


def quietest(records: Iterable[Record]) -> list[Record]:
    """For each kernel and host the record of the quietest moment, by which others are judged."""
    found: dict[tuple[Key, str], Record] = {}
    for record in records:
        if record.rule:
            known = found.setdefault((record.key, record.host), record)
            if median(record.rule) < median(known.rule):
                found[record.key, record.host] = record
    return list(found.values())


def _standing(found: Sequence[Record], quiet: Mapping[str, float]) -> Standing:
    if any(record.failure for record in found):
        return Standing(float("inf"), 0, found[-1])
    counted = [record for record in found if median(record.rule) <= quiet[record.host]]
    longest = max(counted or found, key=lambda record: len(record.seconds))
    ratio = median(record.ratio for record in counted or found)
    return Standing(ratio, len(counted), longest)


def _order(standing: Standing) -> tuple[bool, float]:
    is_usable = standing.is_proven and standing.ratio < float("inf")
    return not is_usable, standing.ratio


def best(records: Iterable[Record]) -> dict[Key, Standing]:
    """Standing of the fastest choice of each kernel that has one which did not fail.

    Proven ones come before others, the first of equal ones. Kernels are in order of their keys, so
    that the same records give the same answer.
    """
    by_key: dict[Key, list[Record]] = {}
    for record in records:
        by_key.setdefault(record.key, []).append(record)
    found = {}
    for key, group in sorted(by_key.items()):
        standing = min(standings(group), key=_order)
        if standing.ratio < float("inf"):
            found[key] = standing
    return found
