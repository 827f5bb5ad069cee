"""The demo model by AMX tile products: the same logits as ONNX Runtime, on one thread and two."""

from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest

import gsb_tvm
from gsb_tvm.models import demo
from gsb_tvm.runtime import session
from gsb_tvm.schedules.dense import Method
from gsb_tvm.targets import host as hosts
from tests import amx
from tests.schedules import levels


@pytest.fixture
def is_emulated(monkeypatch: pytest.MonkeyPatch) -> bool:
    """This machine, with the emulator's tiles as its own; every dense layer goes by tiles."""
    profile = levels.runnable(levels.target_of(levels.AMX))
    is_emulated = bool(levels.missing_here(profile))
    machine = replace(hosts.host(), features=hosts.host().features | amx.FEATURES)
    for module in (hosts, session):
        monkeypatch.setattr(module, "host", lambda: machine)
    parameters = import_module("gsb_tvm.schedules.dense.parameters")
    monkeypatch.setattr(parameters, "method", lambda spec, profile: Method.TILES)
    return is_emulated


def test_the_demo_gives_onnx_runtimes_logits(is_emulated: bool) -> None:
    target = levels.target_of(levels.AMX)
    before = amx.counts() if is_emulated else {}
    module = gsb_tvm.build(demo.model_path(), target, verify=True)
    on_two = gsb_tvm.build(demo.model_path(), target, threads=2)
    image = np.random.default_rng(0).random(module.metadata.program.inputs[0].shape, np.float32)
    np.testing.assert_array_equal(module(image), on_two(image))
    assert all(amx.counts()[kind] > count for kind, count in before.items())
