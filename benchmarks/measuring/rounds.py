"""How to time in rounds."""

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Rounds:
    """Rounds, seconds of one part of a round, and what to hold and to be while timing."""

    count: int
    seconds: float
    priority: int
    lock: Path | None


def rounds_of(args: argparse.Namespace) -> Rounds:
    """As the arguments of :func:`measuring.arguments.add_timing` say."""
    return Rounds(args.rounds, args.seconds, args.priority, args.lock)
