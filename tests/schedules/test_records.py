"""Records survive cuts, damage, foreign lines and many writers; none is lost or mis-filed."""

import errno
import multiprocessing
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsb_tvm.dialect.bits import Rows
from gsb_tvm.dialect.errors import OutputError, UsageError
from gsb_tvm.dialect.specs import Dense, Kind, encode
from gsb_tvm.schedules import families, records
from gsb_tvm.schedules.records import Fault, Record, append, from_line, load, to_line
from gsb_tvm.schedules.standings import best, standings
from gsb_tvm.targets import resolve
from tests.gpu.cases import deit_small


def made(number: int, writer: int = 0, **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "kernel": f"Dense {writer}",
        "schedule": 1,
        "features": "0123456789abcdef",
        "cpu": "haswell",
        "choice": {"rows": number, "method": "words"},
        "seconds": (1e-6 * (number + 1), 2e-6),
        "rule": (4e-6, 8e-6),
        "made": 1_790_000_000 + number,
        "host": "a CPU",
    }
    return Record(**{**fields, **changes})


def failed(number: int) -> Record:
    return made(number, seconds=(), rule=(), failure="wrong numbers")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "records.txt"
    written = [made(0), failed(1), made(2, choice={})]
    append(path, written[:1])
    append(path, [])
    append(path, written[1:])
    assert load(path) == records.Loaded(tuple(written), Counter())
    assert path.read_bytes().count(b"\n") == 3


def test_a_line_is_the_same_every_time() -> None:
    record = made(3, choice={"b": 1, "a": "x"})
    assert to_line(record) == to_line(msgspec.structs.replace(record, choice={"a": "x", "b": 1}))


@pytest.mark.parametrize(
    "target", ["cuda -arch=sm_90", "llvm -mcpu=sapphirerapids", "llvm -mcpu=cortex-a72"]
)
def test_every_choice_can_be_read(target: str) -> None:
    profile = resolve(target)
    for spec in deit_small().values():
        for choice in families.space(spec, profile):
            record = made(0, choice=choice)
            assert from_line(to_line(record).removesuffix(b"\n")) == record


def test_two_thousand_cuts(tmp_path: Path) -> None:
    """Whole records before a cut stay, and what is added after it is whole."""
    path = tmp_path / "records.txt"
    all_records = [made(i) for i in range(40)]
    lines = [to_line(record) for record in all_records]
    data = b"".join(lines)
    ends = [sum(map(len, lines[: i + 1])) for i in range(len(lines))]
    rng = random.Random(5)
    last = made(99)
    for _ in range(2000):
        cut = rng.randrange(len(data) + 1)
        path.write_bytes(data[:cut])
        # A line that lacks nothing but its end is whole.
        whole = sum(end - 1 <= cut for end in ends)
        is_part = cut not in (0, *ends, *(end - 1 for end in ends))
        assert load(path) == records.Loaded(
            tuple(all_records[:whole]), Counter({Fault.DAMAGED: 1} if is_part else {})
        )
        append(path, [last])
        assert load(path).records == (*all_records[:whole], last)


@given(st.integers(0, 400), st.integers(1, 255))
def test_a_flipped_byte_spoils_its_line_alone(place: int, change: int) -> None:
    lines = [to_line(made(i)) for i in range(3)]
    damaged = bytearray(lines[1])
    damaged[place % (len(damaged) - 1)] ^= change
    found = [from_line(line) for line in bytes(damaged).split(b"\n")[:-1]]
    assert not any(isinstance(one, Record) for one in found)


@given(st.binary())
def test_any_bytes_are_a_fault(line: bytes) -> None:
    assert isinstance(from_line(line.replace(b"\n", b"")), Fault)


def test_foreign_lines_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "records.txt"
    good = to_line(made(1))
    later = good.replace(b"gsb-record 1 ", b"gsb-record 2 ")
    unknown = msgspec.json.encode({**msgspec.to_builtins(made(1)), "more": 1})
    negative = msgspec.json.encode({**msgspec.to_builtins(made(1)), "seconds": [-1.0]})
    both = msgspec.json.encode({**msgspec.to_builtins(made(1)), "failure": "crashed"})
    signed = [
        b"gsb-record 1 %08x %s\n" % (records.zlib.crc32(t), t) for t in (unknown, negative, both)
    ]
    lines = [
        b"\n",
        b"  \t\n",
        b"# mine\n",
        b"{}\n",
        later,
        b"gsb-rec\n",
        b"\xff\x00\n",
        *signed,
        good,
    ]
    path.write_bytes(b"".join(lines) + good[:-1])
    assert load(path) == records.Loaded(
        (made(1), made(1)),
        Counter({Fault.BLANK: 2, Fault.FOREIGN: 3, Fault.VERSION: 1, Fault.DAMAGED: 4}),
    )


def _write(path: Path, writer: int, count: int) -> None:
    for i in range(count):
        append(path, [made(i, writer)])


def test_eight_writers_lose_nothing(tmp_path: Path) -> None:
    path, count = tmp_path / "records.txt", 500
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(path, n, count)) for n in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 8
    found = load(path)
    assert not found.faults
    for n in range(8):
        mine = [record for record in found.records if record.kernel == f"Dense {n}"]
        assert mine == [made(i, n) for i in range(count)]


def test_a_full_disk_leaves_what_stood_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "records.txt"
    append(path, [made(0)])
    before, write = path.read_bytes(), os.write

    def half(handle: int, data: bytes) -> int:
        if data.startswith(b"gsb-record"):
            return write(handle, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(records.os, "write", half)
    with pytest.raises(OutputError, match=r"records\.txt: records cannot be written: No space"):
        append(path, [made(1)])
    assert path.read_bytes() == before


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"records cannot be read: Is a directory"):
        load(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"records cannot be written: Not a directory"):
        append(tmp_path / "file" / "new" / "records.txt", [made(0)])


def test_whether_records_can_be_added_is_found_out_without_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "new" / "records.txt"
    records.check_appendable(path)
    assert list(path.parent.iterdir()) == []
    append(path, [made(0)])
    before = path.read_bytes()
    records.check_appendable(path)
    assert path.read_bytes() == before
    for bad in (tmp_path, path / "more", tmp_path / ("x" * 300), Path("/proc/records.txt")):
        with pytest.raises(OutputError, match="records cannot be written: "):
            records.check_appendable(bad)


def test_a_lock_that_is_never_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_LOCK_SECONDS", 0.05)
    path = tmp_path / "records.txt"
    with (
        records.FileLock(f"{path}.lock"),
        pytest.raises(OutputError, match="locked by another process"),
    ):
        append(path, [made(0)])


def test_the_fastest_of_each_kernel() -> None:
    slow, fast, equal = made(8), made(1), made(2, seconds=made(1).seconds)
    other = made(5, writer=1)
    found = best([other, failed(0), slow, fast, equal])
    assert {key: each.record for key, each in found.items()} == {slow.key: fast, other.key: other}
    assert list(found) == sorted(found)
    assert best([failed(0)]) == {}


def test_a_choice_counts_by_all_of_its_records() -> None:
    lucky = made(1, seconds=(1e-6,) * 5, rule=(9e-6,) * 5)
    sure = made(1, seconds=(6e-6,), rule=(8e-6,))
    steady = made(2, seconds=(4e-6,), rule=(8e-6,))
    (found,) = best([lucky, *[steady] * 3, sure, sure]).values()
    assert (found.record, found.ratio, found.moments) == (steady, 0.5, 3)
    (found,) = best([lucky, steady, steady]).values()
    assert (found.record, found.is_proven) == (lucky, False)
    assert best([lucky, msgspec.structs.replace(failed(1), made=2)]) == {}


def test_a_machine_of_another_speed_changes_nothing() -> None:
    here = made(1, seconds=(3e-6,), rule=(4e-6,))
    slow = made(2, seconds=(20e-6,), rule=(40e-6,))
    (found,) = best([here, slow]).values()
    assert found.record == slow


def test_a_time_needs_the_rules() -> None:
    with pytest.raises(ValueError, match="stands alone"):
        made(1, rule=(1e-6,))


def test_a_feature_set_is_of_what_code_may_use() -> None:
    sets = [
        "llvm -mcpu=haswell",
        "llvm -mcpu=skylake-avx512",
        "llvm -mcpu=skylake-avx512 -mattr=-avx512f",
        "llvm -mcpu=cortex-a72",
        "llvm -mcpu=neoverse-n1",
        "cuda -arch=sm_89",
        "cuda -arch=sm_90",
    ]
    found = [records.feature_set(resolve(target)) for target in sets]
    assert len(set(found)) == len(sets)
    assert records.feature_set(resolve("llvm -mcpu=haswell -num-cores=3")) == found[0]


def test_the_key_of_a_spec() -> None:
    spec = Dense(Rows(1, 198, 1, 384), Kind.SIGN, Kind.SIGN, 384, 64, ())
    profile = resolve("llvm -mcpu=haswell")
    key = records.key_of(encode(spec), 3, profile)
    assert (key.schedule, key.cpu) == (3, "haswell")
    assert key != records.key_of(encode(spec), 4, profile)
    assert key != records.key_of(encode(spec), 3, resolve("llvm -mcpu=znver5"))


def test_the_key_of_a_gpu_is_of_its_architecture_alone() -> None:
    same = ["cuda -arch=sm_90 -mtriple=x86_64-linux-gnu", "cuda -arch=sm_90a"]
    same += ["cuda -arch=sm_90 -mtriple=aarch64-linux-gnu", "nvidia/nvidia-h100"]
    (key,) = {records.key_of("Dense {}", 1, resolve(target)) for target in same}
    assert key.cpu == "sm_90"
    assert key != records.key_of("Dense {}", 1, resolve("cuda -arch=sm_80"))


def test_moments_that_were_not_quiet_do_not_count() -> None:
    busy = made(1, seconds=(2e-6,), rule=(8e-6,))
    quiet = made(1, seconds=(6e-6,), rule=(4e-6,))
    (found,) = standings([*[busy] * 5, quiet])
    assert (found.ratio, found.moments, found.is_proven) == (1.5, 1, False)
    elsewhere = msgspec.structs.replace(busy, host="a slower machine")
    (found,) = standings([*[elsewhere] * 3, quiet])
    assert (found.ratio, found.is_proven) == (0.25, True)
