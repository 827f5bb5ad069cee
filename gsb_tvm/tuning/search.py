"""Which choice to try next: MetaSchedule's evolutionary search over a family's space.

A space is a list of choices. MetaSchedule sees it as one decision in the trace of a schedule that
does nothing else; its mutator goes from a choice to one that differs in few parameters, and its
cost model, gradient-boosted trees of XGBoost where that is installed, learns from the parameters
of what was measured. Where there is no XGBoost candidates are ranked at random.
"""

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import tvm
from tvm import s_tir
from tvm.ir.utils import derived_object
from tvm.s_tir import meta_schedule as ms
from tvm.s_tir.meta_schedule.feature_extractor import PyFeatureExtractor
from tvm.s_tir.meta_schedule.mutator import PyMutator
from tvm.s_tir.meta_schedule.runner import RunnerResult
from tvm.script import tirx as T

from gsb_tvm.schedules.choices import Choice

_BLOCK = "choice"
# What a candidate that failed counts for, in units of the rule's time. MetaSchedule's own figure,
# 1e10, weighs nothing in its cost model, which then learns nothing from failures.
_FAILED = 4.0
_EMPTY_ROUNDS = 4  # proposals without a new choice before the rest is drawn at random
_WARM_UP = 16  # results before the cost model is asked


def has_cost_model() -> bool:
    """Whether XGBoost is installed."""
    return find_spec("xgboost") is not None


class Search:
    """Proposals for one kernel, each choice once; the same for the same seed and results."""

    def __init__(self, space: Sequence[Choice], seed: int, batch: int) -> None:
        """``batch`` is the most that :meth:`propose` is asked for."""
        self._space = space
        self._random = random.Random(seed)
        self._known: dict[int, float | None] = {}
        self._open: list[Any] = []
        features = _features(space)
        self._model = _cost_model(features, seed)
        self._module = tvm.IRModule({"main": _empty})
        strategy = ms.search_strategy.EvolutionarySearch(
            population_size=64,
            init_measured_ratio=0.2,
            init_min_unmeasured=4,
            max_fail_count=3,
            genetic_num_iters=3,
            genetic_mutate_prob=0.85,
            genetic_max_fail_count=5,
            eps_greedy=0.1,
        )
        with _without_intrinsics():
            self._context = ms.TuneContext(
                self._module,
                target=tvm.target.Target("llvm"),
                space_generator=ms.space_generator.ScheduleFn(
                    _decide_among(len(space)),
                    sch_rules=[],
                    postprocs=[],
                    mutator_probs={_Neighbour(features): 1.0},
                ),
                search_strategy=strategy,
                rand_state=seed + 1,  # 0 would be drawn anew each time
                num_threads=1,
            )
        self._database = ms.database.MemoryDatabase()
        self._workload = self._database.commit_workload(self._module)
        (self._design,) = self._context.generate_design_space()
        strategy.pre_tuning(
            len(space) + batch,
            batch,
            [self._design],
            self._database,
            self._model,
        )

    def tell(self, results: Mapping[int, float | None]) -> None:
        """Take times of choices by their place in the space; None of failures.

        The unit is the time of the first, the rule's.
        """
        self._known.update(results)
        candidates = [self._candidate(number) for number in results]
        outcomes = [_outcome(each) for each in results.values()]
        for candidate, seconds in zip(candidates, results.values(), strict=True):
            if seconds is not None:
                self._database.commit_tuning_record(
                    ms.database.TuningRecord(
                        candidate.sch.trace,
                        self._workload,
                        [seconds],
                        self._context.target,
                        candidate.args_info,
                    )
                )
        if candidates:
            self._model.update(self._context, candidates, outcomes)
        self._notify()

    def propose(self, count: int) -> list[int]:
        """Up to ``count`` choices that have no result yet, by their place in the space."""
        found: list[int] = []
        for _ in range(_EMPTY_ROUNDS):
            for candidate in self._generated():
                self._open.append(candidate)
                number = _number(candidate)
                if number not in self._known and number not in found:
                    found.append(number)
            if found:
                break
            self._notify()
        rest = [i for i in range(len(self._space)) if i not in self._known and i not in found]
        if not found:
            found = self._random.sample(rest, min(count, len(rest)))
        return found[:count]

    def _generated(self) -> list[Any]:
        """MetaSchedule's next candidates; its cost model ranks by NumPy's own dice at first."""
        before = np.random.get_state()
        np.random.seed(self._random.randrange(2**32))
        try:
            return list(self._context.search_strategy.generate_measure_candidates() or ())
        finally:
            np.random.set_state(before)

    def _notify(self) -> None:
        """Close MetaSchedule's round: it goes on when it knows of all that it generated.

        What nobody measured counts as failed there, and may be proposed again.
        """
        opened, self._open = self._open, []
        if opened:
            outcomes = [_outcome(self._known.get(_number(each))) for each in opened]
            self._context.search_strategy.notify_runner_results(opened, outcomes)

    def _candidate(self, number: int) -> Any:
        schedule = s_tir.Schedule(self._module)
        (decision,) = _decisions(self._design.trace)
        self._design.trace.with_decision(decision, number, True).apply_to_schedule(schedule, False)
        return ms.MeasureCandidate(schedule, ms.arg_info.ArgInfo.from_entry_func(self._module))


@contextmanager
def _without_intrinsics() -> Iterator[None]:
    """Spare the 15 s, beside PyTorch 80, in which TVM registers intrinsics that nothing here uses.

    ``TuneContext`` imports them whatever it is for.
    """
    name = "tvm.s_tir.tensor_intrin"
    is_there = name in sys.modules
    sys.modules.setdefault(name, ModuleType(name))
    try:
        yield
    finally:
        if not is_there:
            del sys.modules[name]


def _outcome(seconds: float | None) -> Any:
    return RunnerResult([_FAILED if seconds is None else seconds], None)


def _decisions(trace: Any) -> list[Any]:
    return [each for each in trace.insts if each.kind.name == "SampleCategorical"]


@T.prim_func(s_tir=True)
def _empty(a: T.Buffer((1,), "int32")) -> None:  # type: ignore[valid-type]
    for i in range(1):
        with T.sblock("choice"):
            at = T.axis.remap("S", [i])
            a[at] = 0


def _decide_among(count: int) -> Any:
    """A space of one decision."""

    def decide(schedule: Any) -> None:
        numbers = list(range(count))
        chosen = schedule.sample_categorical(numbers, [1 / count] * count)
        schedule.annotate(schedule.get_sblock(_BLOCK), _BLOCK, chosen)

    return decide


def _number(candidate: Any) -> int:
    schedule = candidate.sch
    return int(schedule.get(schedule.get_sblock(_BLOCK)).annotations[_BLOCK])


def _features(space: Sequence[Choice]) -> Any:
    """Parameters as numbers, float64[choices, features]: words one by one, what is absent -1."""
    names = sorted({name for choice in space for name in choice})
    columns = []
    for name in names:
        values = [choice.get(name) for choice in space]
        words = sorted({value for value in values if isinstance(value, str)})
        if words:
            columns += [[float(value == word) for value in values] for word in words]
        else:
            columns.append([-1.0 if value is None else float(value) for value in values])
    return np.array(columns or [[0.0] * len(space)], dtype=np.float64).T


@derived_object
class _Neighbour(PyMutator):
    """From a choice to one of those that differ from it in the fewest parameters."""

    def __init__(self, features: Any) -> None:
        super().__init__()
        self.features = features

    def _initialize_with_tune_context(self, context: Any) -> None:
        pass

    def apply(self, trace: Any, rand_state: int) -> Any:
        (decision,) = _decisions(trace)
        now = int(trace.get_decision(decision))
        distance = (self.features != self.features[now]).sum(axis=1)
        distance[now] = distance.max() + 1
        if len(distance) == 1:
            return None
        draw = random.Random(int(rand_state))
        # Mostly the nearest; farther ones lead out of where all neighbours are worse.
        reach = sorted(set(distance.tolist()))[: 1 if draw.random() < 0.7 else 3]
        near = [i for i, d in enumerate(distance.tolist()) if d in reach and i != now]
        return trace.with_decision(decision, draw.choice(near), True) if near else None

    def clone(self) -> "_Neighbour":
        return _Neighbour(self.features)


@derived_object
class _Parameters(PyFeatureExtractor):
    """The features of a candidate are its parameters."""

    def __init__(self, features: Any) -> None:
        super().__init__()
        self.features = features

    def _initialize_with_tune_context(self, context: Any) -> None:
        pass

    def extract_from(self, context: Any, candidates: list[Any]) -> list[Any]:
        return [tvm.runtime.tensor(self.features[[_number(each)]]) for each in candidates]


def _cost_model(features: Any, seed: int) -> Any:
    if not has_cost_model():
        return ms.cost_model.RandomModel(seed=seed)
    config = ms.cost_model.xgb_model.XGBConfig(seed=seed, nthread=1)
    return ms.cost_model.XGBModel(
        extractor=_Parameters(features), config=config, num_warmup_samples=_WARM_UP
    )
