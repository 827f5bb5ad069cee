"""Caches and cores of devices, from ``profiles/*.toml``: what neither LLVM nor TVM knows."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gsb_tvm.dialect.errors import TargetError
from gsb_tvm.targets.llvm import TRIPLES

_FOLDER = Path(__file__).parent / "profiles"
_FIELDS = {
    "cpu": ("kind", "mtriple", "mcpu", "num_cores"),
    "cache": ("l1_data_bytes", "l2_bytes", "l3_bytes"),
}
_OPTIONAL = {"cpu": ("out_of_order",), "cache": ()}
# Smallest and largest plausible size of each cache, bytes.
_LIMITS = {
    "l1_data_bytes": (4 * 1024, 1024**2),
    "l2_bytes": (32 * 1024, 64 * 1024**2),
    "l3_bytes": (256 * 1024, 4 * 1024**3),
}


@dataclass(frozen=True)
class Device:
    """Caches that one core can use, in bytes (``l3_bytes`` 0: none), and cores.

    ``out_of_order``: a core goes on with other instructions while it waits for one.
    """

    mcpu: str
    num_cores: int
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int
    out_of_order: bool = False


def device(mcpu: str) -> Device:
    """Caches and cores of ``mcpu``; for a CPU without a file, a cautious guess.

    The guess: 32 KiB of L1 data, 256 KiB of L2, no L3, one core, in order. It is at or below what
    nearly every 64-bit CPU in use has, so tiles that fit the guess fit the real caches.
    """
    name = mcpu.replace("_", "-")
    path = _FOLDER / f"{name}.toml"
    if name in available():
        return load_device(path)
    return Device(mcpu, num_cores=1, l1_bytes=32 * 1024, l2_bytes=256 * 1024, l3_bytes=0)


@cache
def available() -> tuple[str, ...]:
    """CPU names that have a file, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


@cache
def load_device(path: Path) -> Device:
    """Read and check one file.

    Raises
    ------
    TargetError
        The file is not TOML, a key is unknown, missing or without its unit, a size is impossible,
        or ``mcpu`` is not the file's name.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise TargetError(f"{path.name}: cannot be read as TOML ({err}).") from err
    _check_keys(path.name, data)
    cpu, cache_ = data["cpu"], data["cache"]
    _check_cpu(path, cpu)
    sizes = {key: _size(path.name, key, cache_[key]) for key in _FIELDS["cache"]}
    l1, l2, l3 = sizes.values()
    if not l1 <= l2 or (l3 and not l2 <= l3):
        raise TargetError(
            f"{path.name}: cache sizes {l1}, {l2}, {l3} bytes do not grow from L1 to L3."
        )
    cores = _core_count(path.name, cpu["num_cores"])
    return Device(path.stem, cores, l1, l2, l3, _is_out_of_order(path.name, cpu))


def _check_cpu(path: Path, cpu: dict[str, Any]) -> None:
    if cpu["mcpu"] != path.stem:
        raise TargetError(
            f'{path.name}: mcpu is {cpu["mcpu"]!r}, expected "{path.stem}", the name of the file.'
        )
    if cpu["kind"] != "llvm":
        raise TargetError(f'{path.name}: kind is {cpu["kind"]!r}, expected "llvm".')
    if cpu["mtriple"] not in TRIPLES.values():
        raise TargetError(
            f"{path.name}: mtriple is {cpu['mtriple']!r}, expected {' or '.join(TRIPLES.values())}."
        )


def _check_keys(where: str, data: dict[str, Any]) -> None:
    for table in data:
        if table not in _FIELDS:
            raise TargetError(f'{where}: unknown table "{table}". Known: {", ".join(_FIELDS)}.')
    for table, fields in _FIELDS.items():
        found = data.get(table)
        if not isinstance(found, dict):
            raise TargetError(f"{where}: table [{table}] is missing.")
        for key in found:
            if key in fields or key in _OPTIONAL[table]:
                continue
            if f"{key}_bytes" in fields:
                raise TargetError(f'{where}: "{key}" has no unit. Write "{key}_bytes", in bytes.')
            known = ", ".join([*fields, *_OPTIONAL[table]])
            raise TargetError(f'{where}: unknown key "{key}" in [{table}]. Known: {known}.')
        for key in fields:
            if key not in found:
                raise TargetError(f'{where}: key "{key}" is missing in [{table}].')


def _size(where: str, key: str, value: object) -> int:
    low, high = _LIMITS[key]
    absent = key == "l3_bytes" and value == 0 and not isinstance(value, bool)
    fits = isinstance(value, int) and low <= value <= high and value % 1024 == 0
    if not isinstance(value, int) or not (absent or fits):
        raise TargetError(
            f"{where}: {key} is {value!r}, expected a multiple of 1024 from {low} to {high}."
        )
    return value


def _core_count(where: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 4096:
        raise TargetError(f"{where}: num_cores is {value!r}, expected 1 to 4096.")
    return value


def _is_out_of_order(where: str, cpu: dict[str, Any]) -> bool:
    value = cpu.get("out_of_order", False)
    if not isinstance(value, bool):
        raise TargetError(f"{where}: out_of_order is {value!r}, expected true or false.")
    return value
