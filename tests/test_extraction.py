"""The kernels of a model that there are to tune."""

from collections import Counter
from typing import Any

import onnx
import pytest
from tvm.tirx import PrimFunc

from gsb_tvm.dialect.errors import ModelError
from gsb_tvm.dialect.phases import SPEC
from gsb_tvm.dialect.specs import decode
from gsb_tvm.extraction import tasks
from gsb_tvm.frontend.importer import load
from gsb_tvm.models.demo import model_path
from gsb_tvm.progress import Clock, Silent
from gsb_tvm.schedules import families
from gsb_tvm.schedules.records import feature_set, processor
from gsb_tvm.stages import Stages
from gsb_tvm.targets import Profile, resolve
from gsb_tvm.tuning.tasks import Task
from gsb_tvm.tuning.workloads import Float, Packed
from tests import tiny_models as tiny

TARGETS = ("native", "llvm -mcpu=cortex-a72", "cuda -arch=sm_90")
LAYERS = {
    "patches": 1,
    "binarize": 4,
    "dense": 12,
    "attention_planes": 2,
    "value_planes": 2,
    "attention_value": 2,
}
"""Calls of packed kernels in the demo model, which has two blocks."""


@pytest.fixture(scope="module", params=TARGETS)
def profile(request: pytest.FixtureRequest) -> Profile:
    return resolve(request.param)


@pytest.fixture(scope="module")
def found(profile: Profile) -> list[Task]:
    return tasks(model_path(), None, profile)


def family(task: Task) -> str:
    return next(name for name in LAYERS if task.name.startswith(name))


def test_calls_of_packed_kernels(found: list[Task]) -> None:
    calls: Counter[str] = Counter()
    for task in found:
        if isinstance(task.workload, Packed):
            calls[family(task)] += task.calls
    assert calls == LAYERS


def test_calls_add_up_to_those_of_the_compiled_module(found: list[Task], profile: Profile) -> None:
    """What is not tuned leaves no choice, or no rule knows it."""
    module = Stages(profile).run(load(model_path()).module, Clock(Silent())).module
    main = module["main"]
    calls: Counter[str] = Counter()
    for block in main.body.blocks:
        for binding in block.bindings:
            if getattr(getattr(binding.value, "op", None), "name", "") == "relax.call_tir":
                func = module[binding.value.args[0]]
                calls[str((func.attrs or {}).get(SPEC, "float"))] += 1
    packed = {task.key.kernel: task.calls for task in found if isinstance(task.workload, Packed)}
    floats = sum(task.calls for task in found if isinstance(task.workload, Float))
    assert packed == {text: count for text, count in calls.items() if text != "float"}
    assert 0 < floats <= calls["float"]


def test_kernels_are_distinct(found: list[Task]) -> None:
    assert len({task.key for task in found}) == len(found)


def test_keys_are_those_of_the_target(found: list[Task], profile: Profile) -> None:
    for task in found:
        assert (task.key.features, task.key.cpu) == (feature_set(profile), processor(profile))
        assert task.key.kernel == task.workload.kernel
        assert task.key.schedule == task.workload.version(profile)


def test_spaces_begin_with_the_rules_choice(found: list[Task], profile: Profile) -> None:
    for task in found:
        assert len(task.space) > 1
        if isinstance(task.workload, Packed):
            assert task.space[0] == families.rule(decode(task.key.kernel), profile)
        assert isinstance(task.workload.function(profile, task.space[0]), PrimFunc)


def test_float_kernels_are_among_them(found: list[Task]) -> None:
    floats = [task for task in found if isinstance(task.workload, Float)]
    assert [task.shape for task in floats if task.name == "layer_norm"] == ["1 x 18 x 96"]
    assert sum("matmul" in task.name for task in floats) == 2


def test_nothing_is_known_of_them(found: list[Task]) -> None:
    assert not any(task.trials or task.rule_times for task in found)


def test_they_are_the_same_every_time(found: list[Task], profile: Profile) -> None:
    again = tasks(onnx.load(model_path()), None, profile)
    assert [(t.key, t.name, t.shape, t.calls) for t in again] == [
        (t.key, t.name, t.shape, t.calls) for t in found
    ]


def test_a_batch_makes_other_kernels() -> None:
    shapes: dict[str, Any] = {
        "shape": ("n", tiny.TOKENS, tiny.FEATURES),
        "out_shape": ("n", tiny.TOKENS, tiny.COLUMNS),
    }
    profile = resolve("native")
    one, two = (tasks(tiny.binary_linear(**shapes), batch, profile) for batch in (1, 2))
    assert len(one) == len(two) == 2
    assert not {task.key for task in one} & {task.key for task in two}


def test_a_bad_model_is_refused() -> None:
    with pytest.raises(ModelError):
        tasks("none.onnx", None, resolve("native"))
