"""What is known of each kernel while it is tuned, and which one is worth the next trials."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

from gsb_tvm.schedules.choices import Choice, frozen
from gsb_tvm.schedules.records import Key, Record
from gsb_tvm.schedules.standings import Standing, standings
from gsb_tvm.schedules.tunings import MARGIN
from gsb_tvm.tuning.workloads import Workload

_RECENT = 16  # trials over which progress is looked at
_MOST_MOMENTS = 8  # that a choice is given to be measured at enough quiet ones
_HOPE = 0.3  # share of its time that a kernel nobody has tuned is expected to lose


@dataclass
class Task:
    """One kernel of a model.

    Attributes
    ----------
    name, shape
        For people.
    calls
        How often a run of the model calls it.
    key
        Of its records.
    space
        Its choices, the rule's first.
    ratios
        Times of each choice as shares of the rule's, by its place in the space: one for each
        moment at which it was measured.
    rule_times
        Seconds of the rule's choice, of all moments.
    failures
        Why choices must not be used.
    """

    workload: Workload
    name: str
    shape: str
    calls: int
    key: Key
    space: Sequence[Choice]
    ratios: dict[int, list[float]] = field(default_factory=dict)
    rule_times: list[float] = field(default_factory=list)
    failures: dict[int, str] = field(default_factory=dict)
    _records: list[Record] = field(default_factory=list)
    _standings: dict[int, Standing] = field(default_factory=dict)
    _bests: list[float] = field(default_factory=list)

    def add(self, records: Iterable[Record]) -> None:
        """Take what records say about the task's choices; others are left out."""
        places = {frozen(choice): place for place, choice in enumerate(self.space)}
        for record in records:
            place = places.get(frozen(record.choice))
            if record.key != self.key or place is None:
                continue
            before = self.trials
            if record.failure:
                self.failures[place] = record.failure
            else:
                self.ratios.setdefault(place, []).append(record.ratio)
                self.rule_times.append(median(record.rule))
            self._records.append(record)
            self._standings = {
                places[frozen(each.record.choice)]: each for each in standings(self._records)
            }
            if self.ratios:
                kept = self._bests if self.trials > before else self._bests[:-1]
                self._bests = [*kept, self.ratio(self.leader)]

    def ratio(self, place: int) -> float:
        """Share of the rule's time; infinite where a choice failed or is not known."""
        found = self._standings.get(place)
        return float("inf") if found is None else found.ratio

    @property
    def trials(self) -> int:
        """Choices that have been tried."""
        return len(self.ratios.keys() | self.failures.keys())

    @property
    def results(self) -> dict[int, float | None]:
        """Share of the rule's time of each choice that was tried, None of those that failed."""
        places = sorted(self.ratios.keys() | self.failures.keys())
        return {p: None if p in self.failures else self.ratio(p) for p in places}

    @property
    def rule_seconds(self) -> float:
        """Time of the rule's choice at the quietest moment; not a number before there is one."""
        return min(self.rule_times, default=float("nan"))

    @property
    def leader(self) -> int:
        """Place of what seems to be the fastest choice; the rule's among equals."""
        return min(self.ratios, key=lambda place: (self.ratio(place), place), default=0)

    @property
    def best(self) -> int:
        """Place of the fastest choice that was measured often enough to replace the rule's."""
        proven = [
            place
            for place, each in self._standings.items()
            if each.is_proven and each.ratio <= self._margin
        ]
        return min(proven, key=lambda place: (self.ratio(place), place), default=0)

    @property
    def _margin(self) -> float:
        return float("inf") if 0 in self.failures else MARGIN

    def contenders(self, count: int) -> list[int]:
        """Up to ``count`` choices that would be the best, had they been measured often enough."""
        best = self.ratio(self.best) if self.best else self._margin
        found = [
            place
            for place, each in self._standings.items()
            if place
            and not each.is_proven
            and each.ratio <= best
            and len(self.ratios[place]) < _MOST_MOMENTS
        ]
        return sorted(found, key=lambda place: (self.ratio(place), place))[:count]

    @property
    def best_seconds(self) -> float:
        """Time of the fastest choice."""
        return self.rule_seconds / self.gain

    @property
    def gain(self) -> float:
        """Time by rule over the best time; at least 1."""
        return max(1.0, 1 / self.ratio(self.best)) if self.best else 1.0

    @property
    def is_exhausted(self) -> bool:
        """Whether all of its choices have been tried."""
        return self.trials >= len(self.space)

    @property
    def promise(self) -> float:
        """Seconds of a run that the next trials may save: share of the time, times progress.

        Progress is what the last trials brought, or hope, which fades with the number of trials.
        """
        if self.is_exhausted or not self.rule_times or 0 not in self.results:
            return 0.0
        before = self._bests[max(0, len(self._bests) - _RECENT)]
        recent = 1 - self.ratio(self.leader) / before
        hope = _HOPE / (1 + self.trials / _RECENT)
        # Hope first: where the rule failed there may be no number to hold it against.
        return self.calls * self.best_seconds * max(hope, recent)
