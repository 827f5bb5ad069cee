"""Choosing the LLVM CPU and features for the machine at hand."""

from gsb_tvm.targets import llvm
from gsb_tvm.targets.devices import available, device
from gsb_tvm.targets.features import emitted, linux_names, present
from gsb_tvm.targets.host import Host


def native_cpu(machine: Host, system_cpu: str) -> tuple[str, tuple[str, ...]]:
    """Choose ``(mcpu, mattr)`` so that no emitted instruction is missing on ``machine``.

    1. Of LLVM's CPUs whose emitted features the machine has, take the one with the most of them:
       its instruction costs are the nearest. LLVM's own guess ``system_cpu`` breaks ties, then
       the vendor, a device file, the smallest L2 (tiles that fit it fit the real one), the
       alphabet. The guess alone is not enough: it can name a CPU
       with fewer features, or with features that a hypervisor hides.
    2. Name every feature of the machine explicitly.
    3. Remove what the added features imply (avx512f implies avx2) but the machine does not report,
       as under a hypervisor that hides a feature in the middle of a chain.
    """
    has = present(machine.arch, machine.features)
    cpu = max(
        (name for name in llvm.cpus_64bit(machine.arch) if _runs(machine, name)),
        key=lambda name: (
            len(emitted(machine.arch, llvm.features(machine.arch, name))),
            name == system_cpu,
            (machine.vendor == "AuthenticAMD") == name.startswith(("znver", "bdver", "btver")),
            name in available(),
            -device(name).l2_bytes,
            name,
        ),
        default=llvm.GENERIC_CPU[machine.arch],
    )
    added = tuple(sorted(f"+{f}" for f in has & llvm.known_features(machine.arch)))
    implied = emitted(machine.arch, llvm.features(machine.arch, cpu, added)) - has
    removed = tuple(sorted(f"-{f}" for f in implied))
    return cpu, settled(machine.arch, cpu, added + removed)


def settled(arch: str, cpu: str, mattr: tuple[str, ...]) -> tuple[str, ...]:
    """Drop from ``mattr`` the additions that one of its removals takes along."""
    left = llvm.features(arch, cpu, tuple(sorted(mattr)))  # "+" sorts before "-"
    return tuple(item for item in mattr if item[0] == "-" or item[1:] in left)


def _runs(machine: Host, cpu: str) -> bool:
    needed = linux_names(machine.arch, llvm.features(machine.arch, cpu))
    return needed <= machine.features
