"""The whole command: stages in turn, and what they find, printed and written as it comes."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.runtime.outfile import check_writable, write_file
from tests.gpu import rows, running
from tests.gpu.folder import contents
from tests.gpu.rows import StageResult
from tests.gpu.stages import BESIDE, OPPOSED, STAGES, Stage


def run_all(folder: Path, only: Sequence[str] | None, seconds: float, json: Path | None) -> int:
    """Run the stages named, or all; return how many checks failed.

    Raises
    ------
    ArtefactError
        The folder is not one of ``tests.gpu.prepare``.
    UsageError
        There is no such stage, or the file cannot be written.
    """
    stages = chosen(only)
    contents(folder)
    if json is not None:
        check_writable(json)
    start = time.monotonic()
    found: list[StageResult] = []

    def take(result: StageResult) -> None:
        found.append(result)
        print(told(result), flush=True)
        if json is not None:
            write_file(json, msgspec.json.format(msgspec.json.encode(found), indent=1))

    def run(stage: Stage) -> StageResult:
        left = seconds - (time.monotonic() - start)
        return running.run_stage(folder, stage, min(stage.limit_s, left))

    with ThreadPoolExecutor(1) as aside:
        beside = aside.submit(run, BESIDE) if OPPOSED in stages else None
        for stage in stages:
            if stage.is_timed and beside is not None:
                take(beside.result())
                beside = None
            take(run(stage))
    failed = sum(stage.count("failed") for stage in found)
    skipped = sum(stage.count("skipped") for stage in found)
    right = sum(stage.count("ok") for stage in found)
    took = time.monotonic() - start
    print(f"{right} ok, {failed} failed, {skipped} skipped, {took:.0f} s")
    return failed


def chosen(only: Sequence[str] | None) -> list[Stage]:
    """Stages by name, in their order; all where none is named.

    Raises
    ------
    UsageError
        There is no such stage.
    """
    names = [stage.name for stage in STAGES]
    for name in only or ():
        if name not in names:
            known = ", ".join(f'"{each}"' for each in names)
            raise UsageError(f'--only: there is no stage "{name}", only {known}.')
    return [stage for stage in STAGES if not only or stage.name in only]


def told(result: StageResult) -> str:
    """A stage for people."""
    return f"{result.name} ({result.seconds:.1f} s)\n{rows.table(result.rows)}"
