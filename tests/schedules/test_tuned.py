"""The records that come with the package."""

from pathlib import Path

import pytest

from gsb_tvm import schedules
from gsb_tvm.dialect.specs import decode
from gsb_tvm.schedules import families
from gsb_tvm.schedules import float as float_kernels
from gsb_tvm.schedules.records import feature_set, load
from gsb_tvm.schedules.standings import best
from gsb_tvm.targets import resolve

FILES = sorted((Path(schedules.__file__).parent / "tuned").glob("*.records"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_line_is_a_record_of_the_schedules_as_they_are(path: Path) -> None:
    found = load(path)
    assert found.records
    assert not found.faults
    for record in found.records:
        assert record.cpu == path.stem
        assert record.host
        family, _, _ = record.kernel.partition(" ")
        is_float = family == "Float"
        profile = resolve("native")
        spec = None if is_float else decode(record.kernel)
        current = float_kernels.VERSION if is_float else families.version(spec, profile)
        assert record.schedule == current, "tune anew, or leave these records out"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_choice_is_proven_and_one_that_the_family_has(path: Path) -> None:
    native = resolve("native")
    for key, standing in best(load(path).records).items():
        assert standing.is_proven
        assert standing.ratio < 1
        if (key.features, key.cpu) == (
            feature_set(native),
            native.mcpu,
        ) and "Float" not in key.kernel:
            assert standing.record.choice in families.space(decode(key.kernel), native)
