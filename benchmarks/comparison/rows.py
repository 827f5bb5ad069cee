"""A row of the comparison: what was found of one engine in one cell of the grid."""

from dataclasses import dataclass, field

import msgspec

from comparison.engines import Engine
from comparison.jobs import Verified
from measuring.samples import Figures


class Row(msgspec.Struct, frozen=True):
    """What is told, printed and drawn of one engine.

    Attributes
    ----------
    not_run
        Why there are no figures; empty where there are.
    figures
        Of a call, that is of a batch.
    ratio
        Median to ours.
    difference
        Largest difference to ONNX Runtime's float output over its largest; None where the model
        is the binary one, whose outputs no tolerance judges.
    verified
        Of ours on the binary model, which is judged by counting samples.
    """

    engine: str
    label: str
    not_run: str = ""
    figures: Figures | None = None
    ratio: float | None = None
    size_mb: float | None = None
    rss_mb: float | None = None
    cold_s: tuple[float, ...] = ()
    prepare_s: float | None = None
    prepare_rss_mb: float | None = None
    difference: float | None = None
    verified: Verified | None = None
    note: str = ""


class Cell(msgspec.Struct, frozen=True):
    """All rows of one batch and number of threads."""

    batch: int
    threads: int
    isa: str
    target: str
    rows: tuple[Row, ...]


@dataclass
class Record:
    """A row while its cell is timed."""

    engine: Engine
    not_run: str = ""
    every: list[float] = field(default_factory=list)
    quiet: list[float] = field(default_factory=list)
    output: str = ""
    rss_mb: float = 0.0
    cold_s: list[float] = field(default_factory=list)
    note: str = ""
