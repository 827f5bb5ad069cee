"""What LLVM knows about CPUs; the only file of the room that asks it.

Answers are kept for the life of the process. Nothing here is called with a name that LLVM does not
know: for such a name LLVM prints to stderr and answers for a generic CPU.
"""

from functools import cache

from gsb_tvm.targets.features import BASELINE

TRIPLES = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}
"""Architectures that code is generated for, and the triple meant when none is given."""

GENERIC_CPU = {"x86_64": "x86-64", "aarch64": "generic"}
"""The CPU that has what every machine of the architecture has."""


@cache
def cpus(arch: str) -> tuple[str, ...]:
    """CPU names that LLVM lists for ``arch``, sorted."""
    from tvm.target import Target, codegen

    target = Target({"kind": "llvm", "mtriple": TRIPLES[arch]})
    return tuple(sorted(str(name) for name in codegen.llvm_get_cpu_archlist(target)))


@cache
def cpus_64bit(arch: str) -> tuple[str, ...]:
    """Those of :func:`cpus` that code can be generated for; x86 lists reach back to the i386."""
    return tuple(name for name in cpus(arch) if features(arch, name) >= BASELINE[arch])


@cache
def is_cpu(name: str, arch: str) -> bool:
    """Whether LLVM knows the CPU; it knows a few aliases that :func:`cpus` does not list."""
    from tvm.target import codegen

    return bool(codegen.llvm_is_valid_cpu(name, TRIPLES[arch]))


@cache
def is_arm32_cpu(name: str) -> bool:
    """Whether LLVM knows the CPU as one that runs 32-bit Arm code, as it does some 64-bit ones."""
    from tvm.target import codegen

    return bool(codegen.llvm_is_valid_cpu(name, "armv7l-linux-gnueabihf"))


@cache
def features(arch: str, cpu: str, mattr: tuple[str, ...] = ()) -> frozenset[str]:
    """LLVM features of ``cpu`` with ``mattr`` applied in the given order."""
    from tvm.target import Target, codegen

    wanted = {"kind": "llvm", "mtriple": TRIPLES[arch], "mcpu": cpu, "mattr": list(mattr)}
    return frozenset(str(name) for name in codegen.llvm_get_cpu_features(Target(wanted)))


@cache
def known_features(arch: str) -> frozenset[str]:
    """Features that at least one CPU of ``arch`` has.

    LLVM offers no list to TVM. A feature that no CPU has is a tuning switch or not yet in silicon.
    """
    return frozenset().union(*(features(arch, cpu) for cpu in cpus(arch)))


@cache
def system_cpu() -> str:
    """LLVM's guess at this machine's CPU; it may name one with fewer features."""
    from tvm.target import codegen

    return str(codegen.llvm_get_system_cpu())


@cache
def tags() -> tuple[str, ...]:
    """TVM's target tags, sorted."""
    import tvm

    return tuple(sorted(str(tag) for tag in tvm.target.list_tags()))


@cache
def tag_config(tag: str) -> dict[str, object]:
    """Attributes of the target that ``tag`` stands for, as plain Python values."""
    from tvm.target import Target

    config: dict[str, object] = {}
    for key, value in Target(tag).export().items():
        config[str(key)] = _plain(value)
    return config


def _plain(value: object) -> object:
    if isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return str(value)
    if hasattr(value, "keys"):
        return None  # the host target of a tag says nothing that the tag itself does not
    return [str(item) for item in value]  # type: ignore[attr-defined]


@cache
def kinds() -> tuple[str, ...]:
    """TVM's target kinds, sorted."""
    from tvm.target import Target

    return tuple(sorted(str(kind) for kind in Target.list_kinds()))
