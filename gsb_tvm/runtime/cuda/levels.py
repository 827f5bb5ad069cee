"""Steps that need nothing of each other, and memory for the order in which levels of them run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from gsb_tvm.runtime.program import Buffer, Program, Step, aligned

Levels = tuple[tuple[Step, ...], ...]
"""The steps of a program; those of one level may run at once, behind those of all before."""


@dataclass(frozen=True)
class Arranged:
    """A program in the order of its levels, and those."""

    program: Program
    levels: Levels


def arranged(calls: Program) -> Arranged:
    """The steps of ``calls`` by level, no tensor where another is that is still needed.

    A step's level is how many others have to end, one after another, before it begins. A tensor is
    needed from the level that writes it to the last that reads it; outputs to the end.

    Every tensor of ``calls`` has a place of its own (:func:`gsb_tvm.runtime.build.plan` for a GPU),
    so that the first step that has it among its arguments is the one that writes it.
    """
    order = _levels(calls)
    at = {place: life.at for place, life in _lives(calls, order).items()}

    def moved(buffer: Buffer) -> Buffer:
        return replace(buffer, at=at[buffer.at]) if _is_planned(buffer) else buffer

    found = tuple(
        tuple(replace(step, args=tuple(map(moved, step.args))) for step in level) for level in order
    )
    steps = tuple(chain.from_iterable(found))
    outputs = tuple(map(moved, calls.outputs))
    planned = [b for each in (*(s.args for s in steps), outputs) for b in each if _is_planned(b)]
    size = max((aligned(buffer.at + buffer.size_bytes) for buffer in planned), default=0)
    return Arranged(Program(calls.inputs, outputs, steps, size), found)


def _levels(calls: Program) -> Levels:
    written: dict[int, int] = {}  # place of a tensor -> level of the step that writes it
    found: list[list[Step]] = []
    for step in calls.steps:
        places = {buffer.at for buffer in step.args if _is_planned(buffer)}
        level = max((written[at] + 1 for at in places if at in written), default=0)
        written |= {at: level for at in places if at not in written}
        if level == len(found):
            found.append([])
        found[level].append(step)
    return tuple(map(tuple, found))


@dataclass
class _Life:
    """A tensor's bytes, the levels that need it, both included, and its place."""

    size: int
    first: int
    last: int
    at: int = 0


def _lives(calls: Program, order: Levels) -> dict[int, _Life]:
    """Old place of each tensor -> its life, with the new place: the largest choose first."""
    lives: dict[int, _Life] = {}
    uses = [(n, b) for n, level in enumerate(order) for step in level for b in step.args]
    for number, buffer in [*uses, *((len(order), buffer) for buffer in calls.outputs)]:
        if _is_planned(buffer):
            life = lives.setdefault(buffer.at, _Life(0, number, number))
            life.size, life.last = max(life.size, aligned(buffer.size_bytes)), number
    done: list[_Life] = []
    for life in sorted(lives.values(), key=lambda life: -life.size):
        beside = [d for d in done if d.first <= life.last and life.first <= d.last]
        life.at = _lowest(life.size, beside)
        done.append(life)
    return lives


def _lowest(size: int, taken: Sequence[_Life]) -> int:
    """Where ``size`` bytes fit between what is taken."""
    at = 0
    for life in sorted(taken, key=lambda life: life.at):
        if at + size <= life.at:
            break
        at = max(at, life.at + life.size)
    return at


def _is_planned(buffer: Buffer) -> bool:
    return buffer.place == "arena" and buffer.size_bytes > 0
