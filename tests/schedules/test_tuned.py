"""The records that come with the package."""

from pathlib import Path

import pytest

from gsb_tvm import schedules
from gsb_tvm.dialect.specs import decode
from gsb_tvm.schedules import families
from gsb_tvm.schedules import float as float_kernels
from gsb_tvm.schedules.records import feature_set, load, processor
from gsb_tvm.schedules.standings import best
from gsb_tvm.targets import Profile, resolve

FILES = sorted((Path(schedules.__file__).parent / "tuned").glob("*.records"))


def target_of(path: Path) -> Profile:
    """The GPU that a file is called after, or a CPU."""
    return resolve(f"cuda -arch={path.stem}" if path.stem.startswith("sm_") else "native")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_line_is_a_record_of_the_schedules_as_they_are(path: Path) -> None:
    found = load(path)
    assert found.records
    assert not found.faults
    for record in found.records:
        assert record.cpu == path.stem
        assert record.host
        profile = target_of(path)
        if record.kernel.startswith("Float "):
            current = float_kernels.version(profile)
        else:
            current = families.version(decode(record.kernel), profile)
        assert record.schedule == current, "tune anew, or leave these records out"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_choice_is_proven_and_one_that_the_family_has(path: Path) -> None:
    profile = target_of(path)
    for key, standing in best(load(path).records).items():
        assert standing.is_proven
        assert standing.ratio < 1
        if (key.features, key.cpu) == (
            feature_set(profile),
            processor(profile),
        ) and "Float" not in key.kernel:
            assert standing.record.choice in families.space(decode(key.kernel), profile)
