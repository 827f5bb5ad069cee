"""The distinct kernels of a model, to be tuned."""

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

from gsb_tvm.dialect.ops import is_call
from gsb_tvm.dialect.phases import SPEC, attribute
from gsb_tvm.dialect.specs import decode
from gsb_tvm.dialect.work import shape_text
from gsb_tvm.frontend.importer import load
from gsb_tvm.schedules.float import is_tunable, signature
from gsb_tvm.stages import Stages, pass_name
from gsb_tvm.targets import Profile
from gsb_tvm.tuning.tasks import Task
from gsb_tvm.tuning.workloads import Float, Packed, Workload, key

_SCHEDULING = "ScheduleFloat"  # float kernels are tuned from what stands before it


def tasks(source: str | os.PathLike[str] | Any, batch: int | None, profile: Profile) -> list[Task]:
    """A task for each kernel of a model that leaves a choice, in the order of the model.

    Raises
    ------
    ModelError
        The model is damaged, unsafe or holds what is not handled.
    """
    module = load(source, batch=batch).module
    for passes in Stages(profile).phases.values():
        for each in passes:
            if pass_name(each) != _SCHEDULING:
                module = each(module)
    calls = Counter(_called(module))
    found = []
    for variable, count in calls.items():
        func = module[variable]
        text = attribute(func, SPEC)
        if text:
            found.append(_task(Packed(text), variable, shape_text(decode(text)), count, profile))
        elif is_tunable(func, profile):
            found.append(_task(Float.of(func), variable, _shape(func), count, profile))
    return [task for task in found if len(task.space) > 1]


def _shape(func: Any) -> str:
    """Of a float kernel's results."""
    _, outputs = signature(func)
    return ", ".join(" x ".join(map(str, shape)) for _, shape, _ in outputs)


def _task(workload: Workload, variable: Any, shape: str, calls: int, profile: Profile) -> Task:
    name = str(variable.name_hint).rstrip("0123456789")
    return Task(workload, name, shape, calls, key(workload, profile), workload.space(profile))


def _called(module: Any) -> Iterator[Any]:
    """The kernel of each call of ``main``, in order."""
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            if is_call(binding.value, "relax.call_tir"):
                yield binding.value.args[0]
