"""One cell of the grid: every engine with one batch and one number of threads."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from comparison.engines import FLOAT_REFERENCE, OURS, Engine
from comparison.isa import remark
from comparison.jobs import Failed, Job, Prepared, Turn, Verified
from comparison.models import Models
from comparison.process import Process, ask, cold_start
from comparison.rows import Cell, Record, Row
from measuring.machine import held
from measuring.samples import Figures, figures

# An engine that needs longer for a run takes part in few rounds, and warms up only once.
SLOW_MS = 1000.0
SLOW_ROUNDS = 3

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """How to time a cell; ``most`` bounds the runs of an engine in a round."""

    rounds: int
    seconds: float
    cold_starts: int
    lock: Path | None
    most: int = 200


class Preparations:
    """What engines prepared for a batch; done once for all numbers of threads."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._done: dict[tuple[str, str], Prepared | Failed] = {}
        self._verified: dict[tuple[str, int], Verified | Failed] = {}

    def prepared(self, job: Job) -> Prepared | Failed:
        """Files of an engine, or why there are none."""
        key = (job.engine, job.model)
        if key not in self._done:
            self._say(f"preparing {job.engine}, batch {job.batch}")
            self._done[key] = ask(msgspec.structs.replace(job, cores=_all_cores()), "prepare")
        return self._done[key]

    def verified(self, job: Job) -> Verified | Failed:
        """Comparison of our artefact with ONNX Runtime."""
        key = (job.artefact, job.threads)
        if key not in self._verified:
            self._say(f"verifying {job.engine}, batch {job.batch}, threads {job.threads}")
            self._verified[key] = ask(job, "verify")
        return self._verified[key]


def _all_cores() -> tuple[int, ...]:
    return tuple(sorted(os.sched_getaffinity(0)))


def job_of(engine: Engine, models: Models, common: Job) -> Job:
    """The job of an engine; ``common`` has what does not depend on it."""
    return msgspec.structs.replace(
        common,
        engine=engine.name,
        model=str(models.files[engine.model]),
        images=str(models.images[engine.model]),
        calibration=str(models.calibration[engine.model]),
    )


def measure(
    engines: Sequence[Engine],
    models: Models,
    common: Job,
    plan: Plan,
    preparations: Preparations,
    say: Say,
) -> Cell:
    """Prepare, load, time in rounds, start cold, compare outputs."""
    records = {each.name: Record(each, _hindrance(each, models)) for each in engines}
    jobs: dict[str, Job] = {}
    prepared: dict[str, Prepared] = {}
    for name, record in records.items():
        if record.not_run:
            continue
        job = job_of(record.engine, models, common)
        found = preparations.prepared(job)
        if isinstance(found, Failed):
            record.not_run = found.reason
            continue
        prepared[name] = found
        jobs[name] = msgspec.structs.replace(job, artefact=found.files[0])
    _time_rounds(records, jobs, plan, say)
    _start_cold(records, jobs, plan, say)
    verified = None
    if OURS in jobs and not records[OURS].not_run:
        verified = preparations.verified(jobs[OURS])
    rows = [
        _row(record, prepared.get(name), records, common.isa) for name, record in records.items()
    ]
    rows = [_with_verdict(row, verified) if row.engine == OURS else row for row in rows]
    return Cell(common.batch, common.threads, common.isa, common.target, tuple(rows))


def _hindrance(engine: Engine, models: Models) -> str:
    """Why an engine cannot even be tried, or nothing."""
    if engine.missing:
        return f"{' and '.join(engine.missing)} not installed"
    if engine.model not in models.files:
        return f"no {engine.model} model was given"
    return ""


def _time_rounds(records: dict[str, Record], jobs: dict[str, Job], plan: Plan, say: Say) -> None:
    processes: dict[str, Process] = {}
    try:
        for name, job in jobs.items():
            process = processes[name] = Process(job, "load")
            answer = process.answer()
            if isinstance(answer, Failed):
                records[name].not_run = answer.reason
                continue
            records[name].output, records[name].note = answer.output, answer.note
            say(f"loaded {name}")
        for number in range(plan.rounds):
            say(f"round {number + 1} of {plan.rounds}")
            for name, process in processes.items():
                _one_turn(records[name], process, plan, number)
    finally:
        for process in processes.values():
            process.close()


def _one_turn(record: Record, process: Process, plan: Plan, number: int) -> None:
    is_slow = bool(record.every) and min(record.every) > SLOW_MS
    if record.not_run or (is_slow and number >= SLOW_ROUNDS):
        return
    turn = Turn(plan.seconds, plan.most, warm_up=0 if is_slow else 2)
    with held(plan.lock):
        answer = process.time(turn)
    if isinstance(answer, Failed):
        record.not_run = answer.reason
        return
    record.every += answer.every
    record.quiet += answer.quiet
    record.rss_mb = answer.rss_mb


def _start_cold(records: dict[str, Record], jobs: dict[str, Job], plan: Plan, say: Say) -> None:
    for number in range(plan.cold_starts):
        say(f"cold start {number + 1} of {plan.cold_starts}")
        for name, job in jobs.items():
            if records[name].not_run:
                continue
            with held(plan.lock):
                seconds = cold_start(job)
            if seconds is not None:
                records[name].cold_s.append(seconds)


def _row(
    record: Record, prepared: Prepared | None, records: dict[str, Record], isa_name: str
) -> Row:
    engine = record.engine
    if record.not_run or prepared is None:
        return Row(engine.name, engine.label, record.not_run)
    found = figures(record.every, record.quiet)
    notes = (record.note, remark(isa_name, engine.module))
    return Row(
        engine=engine.name,
        label=engine.label,
        figures=found,
        ratio=_ratio(found, records.get(OURS)),
        size_mb=prepared.size_mb,
        rss_mb=record.rss_mb,
        cold_s=tuple(record.cold_s),
        prepare_s=prepared.seconds,
        prepare_rss_mb=prepared.rss_mb,
        difference=_difference(record, records.get(FLOAT_REFERENCE)),
        note="; ".join(filter(None, notes)),
    )


def _ratio(found: Figures, ours: Record | None) -> float | None:
    if ours is None or not ours.every:
        return None
    return found.median_ms / figures(ours.every, ours.quiet).median_ms


def _difference(record: Record, reference: Record | None) -> float | None:
    if record.engine.model != "float" or reference is None or not reference.output:
        return None
    found, expected = np.load(record.output), np.load(reference.output)
    if found.shape != expected.shape:
        return float("inf")
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def _with_verdict(row: Row, verified: Verified | Failed | None) -> Row:
    if isinstance(verified, Failed):
        verified = Verified("failed", 0, 0, 0, verified.reason)
    return msgspec.structs.replace(row, verified=verified)
