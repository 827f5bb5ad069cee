"""The hottest straight code of a program, and the cycles that llvm-mca predicts for it."""

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import msgspec

from counting.plugin import Block
from gsb_tvm.dialect.errors import ToolchainError

_WIDTH = 4  # bytes of an instruction
_VERSIONS = (*(f"-{n}" for n in range(25, 13, -1)), "")  # the newest know more cores
_ITERATIONS = 200
# Stands behind branches and adr; llvm-mca takes a label there.
_ADDRESS = re.compile(r"^((?:b|bl|b\.\w+|cbn?z|tbn?z|adrp?) (?:.*, )?)0x[0-9a-f]+$")

# Products of bits that one instruction does: of all that are counted, by its arrangement.
_BITS = {"16b": 128, "8b": 64}
_COUNT = re.compile(r"cnt v\d+\.(16b|8b),")


@dataclass(frozen=True)
class Loop:
    """Straight code that ran ``executions`` times; ``lines`` are its instructions."""

    address: int
    lines: tuple[str, ...]
    executions: int

    @property
    def instructions(self) -> int:
        """Executed in all."""
        return self.executions * len(self.lines)

    @property
    def mix(self) -> Counter[str]:
        """How many instructions of each mnemonic."""
        return Counter(line.split()[0] for line in self.lines)

    @property
    def products(self) -> int:
        """Multiply-accumulates of bits in one time through."""
        found = map(_COUNT.match, self.lines)
        return sum(_BITS[match.group(1)] for match in found if match)

    @property
    def rate(self) -> float:
        """Multiply-accumulates of bits an instruction."""
        return self.products / len(self.lines)


def pieces(blocks: Iterable[Block]) -> list[Block]:
    """Straight code with most instructions executed first.

    QEMU cuts code into blocks anew at a page's end, or after some hundred instructions: neighbours
    that ran equally often are one piece.
    """
    executions: Counter[int] = Counter()
    for block in blocks:
        for i in range(block.instructions):
            executions[block.address + _WIDTH * i] += block.executions
    found = [Block(run[0], len(run), times) for times, run in _runs(executions)]
    return sorted(found, key=lambda piece: piece.instructions * piece.executions, reverse=True)


def _runs(executions: Counter[int]) -> Iterable[tuple[int, list[int]]]:
    """Neighbouring addresses with the same number of executions."""
    ordered = sorted(executions)
    numbered = enumerate(ordered)
    for (times, _), group in groupby(
        numbered, key=lambda pair: (executions[pair[1]], pair[1] - _WIDTH * pair[0])
    ):
        yield times, [address for _, address in group]


def _tool(name: str) -> str:
    for version in _VERSIONS:
        if path := shutil.which(f"{name}{version}"):
            return path
    raise ToolchainError(f"{name} is not installed. Install it (Debian: apt install llvm).")


def loop(piece: Block, program: Path) -> Loop:
    """Disassemble a piece, with ``start`` for every address of code, so that llvm-mca reads it.

    Raises
    ------
    ToolchainError
        There is no llvm-objdump.
    """
    end = piece.address + _WIDTH * piece.instructions
    span = [f"--start-address={piece.address}", f"--stop-address={end}"]
    done = subprocess.run(
        [_tool("llvm-objdump"), "-d", "--mattr=+all", "--no-show-raw-insn", *span, str(program)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.findall(r"^\s*[0-9a-f]+:\s+(.*?)\s*(?:<.*>)?$", done.stdout, re.MULTILINE)
    lines = (re.sub(r"\s+", " ", line) for line in found)
    marked = tuple(_ADDRESS.sub(r"\1start", line) for line in lines)
    return Loop(piece.address, marked, piece.executions)


def predicted_cycles(lines: Sequence[str], cpu: str) -> float | None:
    """Cycles of one time through that llvm-mca predicts, with all data in the first cache.

    None where the CPU lacks one of the instructions.

    Raises
    ------
    ToolchainError
        There is no llvm-mca, or it does not know the CPU.
    """
    command = [_tool("llvm-mca"), "-mtriple=aarch64", f"-mcpu={cpu}", "-json"]
    done = subprocess.run(
        [*command, f"-iterations={_ITERATIONS}"],
        input="\n".join(["start:", *lines, ""]),
        capture_output=True,
        text=True,
        check=False,
    )
    if "instruction requires:" in done.stderr:
        return None
    if done.returncode:
        raise ToolchainError(f"llvm-mca fails for {cpu}: {done.stderr.strip()[:300]}")
    summary = msgspec.json.decode(done.stdout)["CodeRegions"][0]["SummaryView"]
    return summary["TotalCycles"] / _ITERATIONS
