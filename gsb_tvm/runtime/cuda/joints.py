"""Launches that run at once as one launch: at small batches none of them fills the GPU alone."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from gsb_tvm.runtime.cuda.launches import Launch
from gsb_tvm.targets.gpus import STATIC_SHARED_BYTES, Gpu

_POINTERS = 512  # of a launch: 4 KB of parameters
_RESIDENT = 1024  # threads of a multiprocessor beyond which a launch fills it well enough
_HEAD = r'^extern "C" __global__ void __launch_bounds__\((?P<threads>\d+)\) (?P<name>\w+)'
_DECLARED = re.compile(rf"{_HEAD}\([^)]*\);\n", re.M)
_DEFINED = re.compile(rf"{_HEAD}\((?P<parameters>[^)]*)\) \{{\n(?P<body>.*?)^\}}\n", re.M | re.S)


@dataclass(frozen=True)
class Joint:
    """Launches side by side in one: a function that sends each block where it belongs."""

    members: tuple[Launch, ...]

    @property
    def function(self) -> str:
        """Its name: those of its members."""
        return "_and_".join(member.function for member in self.members)

    @property
    def blocks(self) -> int:
        """Of all members, one after another."""
        return sum(prod(member.grid) for member in self.members)


def grouped(launches: Sequence[Launch], gpu: Gpu) -> list[list[int]]:
    """Numbers of ``launches``, which may run at once, in groups that are to be one launch.

    What fills the GPU by itself stays alone: it would only lose by the registers and the shared
    memory of another.
    """
    groups: list[list[int]] = []
    for number, launch in enumerate(launches):
        is_small = prod(launch.grid) * prod(launch.block) <= gpu.multiprocessors * _RESIDENT
        for group in groups if is_small else []:
            if _fit([launches[member] for member in group], launch):
                group.append(number)
                break
        else:
            groups.append([number])
    return groups


def _fit(members: Sequence[Launch], launch: Launch) -> bool:
    every = (*members, launch)
    shared = {each.function: each.shared_bytes for each in every}
    return (
        members[0].block == launch.block
        and sum(shared.values()) <= STATIC_SHARED_BYTES
        and sum(len(each.arguments) for each in every) <= _POINTERS
    )


def with_joints(source: str, joints: Sequence[Joint], alone: set[str]) -> str:
    """``source`` with a function for each of ``joints``; of their members stay those ``alone``."""
    if not joints:
        return source
    members = {member.function for joint in joints for member in joint.members}
    definitions = {found["name"]: found for found in _DEFINED.finditer(source)}
    kept = _DECLARED.sub(lambda found: "" if found["name"] in members else found[0], source)
    kept = _DEFINED.sub(
        lambda found: _part(found, alone) if found["name"] in members else found[0], kept
    )
    return kept + "".join(_function(joint, definitions) for joint in joints)


def _part(found: re.Match[str], alone: set[str]) -> str:
    """A kernel as what a block does; its parameter takes the place of CUDA's variable."""
    name, parameters = found["name"], found["parameters"]
    part = (
        f"static __device__ __forceinline__ void {name}_block({parameters}, const uint3 blockIdx) "
        f"{{\n{found['body']}}}\n"
    )
    if name not in alone:
        return part
    arguments = ", ".join(parameter.split()[-1] for parameter in parameters.split(", "))
    head = found[0].partition("{")[0]
    return f"{part}{head}{{\n  {name}_block({arguments}, blockIdx);\n}}\n"


def _function(joint: Joint, definitions: dict[str, re.Match[str]]) -> str:
    parameters: list[str] = []
    body, first = "", 0
    for member in joint.members:
        types = [
            parameter.rpartition(" ")[0]
            for parameter in definitions[member.function]["parameters"].split(", ")
        ]
        names = [f"p{len(parameters) + i}" for i in range(len(types))]
        parameters += [f"{kind} {name}" for kind, name in zip(types, names, strict=True)]
        x, y, z = member.grid
        own = f"block - {first}u" if first else "block"
        place = f"uint3{{({own}) % {x}u, ({own}) / {x}u % {y}u, ({own}) / {x * y}u}}"
        call = f"{member.function}_block({', '.join(names)}, {place});"
        first += x * y * z
        body += f"  if (block < {first}u) {{\n    {call}\n    return;\n  }}\n"
    threads = definitions[joint.members[0].function]["threads"]
    head = f'extern "C" __global__ void __launch_bounds__({threads}) {joint.function}'
    return f"{head}({', '.join(parameters)}) {{\n  const unsigned block = blockIdx.x;\n{body}}}\n"
