"""From a target as the user wrote it to a :class:`Profile`, or to a sentence saying why not."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from gsb_tvm.dialect.errors import TargetError
from gsb_tvm.targets import arm32, boards, cuda, llvm
from gsb_tvm.targets.devices import Device, device
from gsb_tvm.targets.features import BASELINE, emitted, linux_names
from gsb_tvm.targets.host import Host, host, missing
from gsb_tvm.targets.native import native_cpu, settled
from gsb_tvm.targets.profile import Profile
from gsb_tvm.targets.spec import Request, nearest, parse, unknown

_TRIPLE = re.compile(
    r"(?P<arch>x86_64|amd64|aarch64|arm64)(-(unknown|pc|conda))?-linux-(gnu|musl|android\d*)"
)
_TRIPLE_EXAMPLES = (
    "x86_64-linux-gnu",
    "aarch64-linux-gnu",
    "x86_64-linux-musl",
    "aarch64-linux-musl",
    "aarch64-linux-android",
    "x86_64-unknown-linux-gnu",
    "aarch64-unknown-linux-gnu",
)
_ARCH_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}
_BASELINE_NAMES = {"x86_64": "x86-64 baseline", "aarch64": "armv8-a baseline"}


def resolve(spec: str | Mapping[str, object] | Sequence[str]) -> Profile:
    """Resolve a target to a profile.

    Parameters
    ----------
    spec
        ``llvm -mcpu=cortex-a72`` as one string or as words, with any of ``-mcpu= -mtriple= -mattr=
        -num-cores=``; a TVM tag; "native"; JSON text or a mapping with the same keys. Plain
        ``llvm`` is the baseline of this machine's architecture; the profile's name says so.

    Raises
    ------
    TargetError
        An unknown kind, tag, CPU, feature, triple or option (naming the three nearest), a
        contradiction, or a target that code is not generated for.
    """
    return resolve_for(parse(spec), host())


def resolve_for(request: Request, machine: Host) -> Profile:
    """Resolve ``request`` on ``machine``, which answers for "native" and for plain "llvm"."""
    request, label = _expand_head(request)
    if request.head == "cuda":
        return cuda.resolve_for(request, label, lambda: _host_arch(request, machine))
    if request.arch:
        raise TargetError(
            f'target "{request.text}": -arch names a GPU, for kind cuda. Name a CPU with -mcpu=.'
        )
    arch = _arch(request, machine)
    if request.mcpu == "native":
        return _native(request, machine)
    cpu = request.mcpu or llvm.GENERIC_CPU[arch]
    _check_mattr(request, arch)
    cpu_name = _BASELINE_NAMES[arch] if cpu == llvm.GENERIC_CPU[arch] else cpu
    name = f"{label} ({cpu_name})" if label else " ".join([cpu_name, *request.mattr])
    return _profile(name, request, arch, cpu, device(cpu))


def _expand_head(request: Request) -> tuple[Request, str]:
    """Replace "native" or a tag by what it stands for; return also a label for the name."""
    head = request.head
    if head == "native":
        if request.mcpu or request.mtriple:
            raise TargetError(
                f'target "{request.text}": native takes the CPU and triple of this machine. '
                "Leave out -mcpu and -mtriple, or write llvm instead of native."
            )
        return replace(request, head="llvm", mcpu="native"), ""
    if head in ("llvm", "cuda"):
        return request, ""
    if head in boards.tags():
        return _expand_tag(request), head
    if head in llvm.kinds():
        raise TargetError(
            f'target "{request.text}": no code is generated for kind "{head}". '
            'Use llvm or cuda, for example "native", "llvm -mcpu=cortex-a72", "cuda -arch=sm_90".'
        )
    if any(llvm.is_cpu(head, arch) for arch in llvm.TRIPLES):
        raise TargetError(
            f'target "{request.text}": "{head}" is a CPU, not a kind. Write "llvm -mcpu={head}".'
        )
    if arm32.is_meant(head):
        raise arm32.refused(request.text, head)
    cpus = [f"llvm -mcpu={name}" for arch in llvm.TRIPLES for name in llvm.cpus_64bit(arch)]
    raise unknown(
        request.text, "kind or tag", head, ["llvm", "native", "cuda", *boards.tags(), *cpus]
    )


def _expand_tag(request: Request) -> Request:
    config = boards.config(request.head)
    if config.get("kind") == "cuda":
        return cuda.expand_tag(request, config)
    if config.get("kind") != "llvm":
        raise TargetError(
            f'target "{request.text}": the tag is of kind "{config.get("kind")}", '
            "for which no code is generated. Use a tag of kind llvm or cuda."
        )
    if request.mcpu or request.mtriple:
        raise TargetError(
            f'target "{request.text}": a tag fixes CPU and triple. '
            "Leave out -mcpu and -mtriple, or write llvm instead of the tag."
        )
    wanted: dict[str, object] = {"kind": "llvm"}
    wanted |= {k: config[k] for k in ("mcpu", "mtriple", "mattr", "num-cores") if k in config}
    tag = parse(wanted)
    return replace(
        tag,
        text=request.text,
        mattr=tuple(dict.fromkeys([*tag.mattr, *request.mattr])),
        num_cores=request.num_cores or tag.num_cores,
    )


def _arch(request: Request, machine: Host) -> str:
    """Architecture meant by the triple, else by the CPU, else this machine's; CPU checked."""
    cpu = request.mcpu
    if request.mtriple:
        arch = _triple_arch(request)
        if cpu and cpu != "native":
            _check_cpu(request, arch)
        return arch
    if not cpu or cpu == "native":
        if arm32.is_family(machine.arch):
            raise arm32.refused(request.text, machine.arch)
        if machine.arch not in llvm.TRIPLES:
            raise TargetError(
                f'target "{request.text}": this machine is {machine.arch}; '
                "code is generated for x86_64 and aarch64. Name a CPU with -mcpu=."
            )
        return machine.arch
    fitting = [arch for arch in llvm.TRIPLES if llvm.is_cpu(cpu, arch)]
    if not fitting and arm32.is_meant(cpu):
        raise arm32.refused(request.text, cpu)
    if not fitting:
        everything = [name for arch in llvm.TRIPLES for name in llvm.cpus_64bit(arch)]
        raise unknown(request.text, "CPU", cpu, everything)
    if len(fitting) > 1:
        raise TargetError(
            f'target "{request.text}": CPU "{cpu}" exists for {" and ".join(fitting)}. '
            f"Add -mtriple={llvm.TRIPLES[fitting[0]]} or -mtriple={llvm.TRIPLES[fitting[1]]}."
        )
    _check_cpu(request, fitting[0])
    return fitting[0]


def _host_arch(request: Request, machine: Host) -> str:
    """Architecture of the CPU beside a GPU."""
    return _triple_arch(request) if request.mtriple else _arch(request, machine)


def _triple_arch(request: Request) -> str:
    match = _TRIPLE.fullmatch(request.mtriple)
    if match is None and arm32.is_family(request.mtriple):
        raise arm32.refused(request.text, request.mtriple, request.mcpu)
    if match is None:
        raise TargetError(
            f'target "{request.text}": code is not generated for triple "{request.mtriple}", '
            "only for 64-bit x86 and Arm under Linux. "
            f"Nearest names: {nearest(request.mtriple, _TRIPLE_EXAMPLES)}."
        )
    return _ARCH_ALIASES.get(match["arch"], match["arch"])


def _spelled(mtriple: str, arch: str) -> str:
    """Write the architecture as TVM expects it: it takes "arm64-linux-gnu" for 32-bit Arm."""
    return f"{arch}-{mtriple.partition('-')[2]}" if mtriple else ""


def _check_cpu(request: Request, arch: str) -> None:
    cpu = request.mcpu
    if not llvm.is_cpu(cpu, arch):
        others = [other for other in llvm.TRIPLES if other != arch and llvm.is_cpu(cpu, other)]
        if others:
            raise TargetError(
                f'target "{request.text}": CPU "{cpu}" is {others[0]}, but the triple '
                f'"{request.mtriple}" is {arch}. Leave out -mtriple or name another CPU.'
            )
        if arm32.is_meant(cpu):
            raise arm32.refused(request.text, cpu)
        raise unknown(request.text, f"{arch} CPU", cpu, llvm.cpus_64bit(arch))
    if not llvm.features(arch, cpu) >= BASELINE[arch]:
        raise TargetError(
            f'target "{request.text}": CPU "{cpu}" has no 64-bit mode or no vector unit; '
            f"code needs both. Nearest names: {nearest(cpu, llvm.cpus_64bit(arch))}."
        )


def _check_mattr(request: Request, arch: str) -> None:
    for item in request.mattr:
        if item[1:] not in llvm.known_features(arch):
            raise unknown(
                request.text, f"{arch} feature", item[1:], sorted(llvm.known_features(arch))
            )


def _native(request: Request, machine: Host) -> Profile:
    if request.mtriple and _triple_arch(request) != machine.arch:
        raise TargetError(
            f'target "{request.text}": native is this machine, {machine.arch}, but the triple '
            f'"{request.mtriple}" is not. Leave out -mtriple or name a CPU.'
        )
    if not machine.features:
        raise TargetError(
            f'target "{request.text}": this machine\'s CPU features cannot be read from /proc. '
            "Name a CPU with llvm -mcpu=."
        )
    _check_mattr(request, machine.arch)
    cpu, mattr = native_cpu(machine, llvm.system_cpu())
    fallback = device(cpu)
    found = Device(
        cpu,
        machine.num_cores,
        machine.l1_bytes or fallback.l1_bytes,
        machine.l2_bytes or fallback.l2_bytes,
        machine.l3_bytes,
        fallback.out_of_order,
    )
    mine = {item[1:] for item in request.mattr}
    removed = tuple(item for item in request.mattr if item.startswith("-"))
    kept = settled(machine.arch, cpu, tuple(i for i in mattr if i[1:] not in mine) + removed)
    merged = tuple(dict.fromkeys([*kept, *request.mattr]))
    name = " ".join([f"native ({cpu})", *request.mattr])
    profile = _profile(name, replace(request, mattr=merged), machine.arch, cpu, found)
    lacking = missing(machine, profile.arch, profile.required_features)
    if lacking:
        raise TargetError(
            f'target "{request.text}": this machine lacks {", ".join(lacking)}. '
            "Drop it from -mattr, or name the CPU that has it with llvm -mcpu=."
        )
    return profile


def _profile(name: str, request: Request, arch: str, cpu: str, known: Device) -> Profile:
    added = [item for item in request.mattr if item.startswith("+")]
    removed = [item for item in request.mattr if item.startswith("-")]
    # LLVM applies features in order, and a removal takes along what depends on it.
    features = llvm.features(arch, cpu, (*sorted(added), *sorted(removed)))
    for item in added:
        if item[1:] not in features:
            raise TargetError(
                f'target "{request.text}": feature "{item[1:]}" is added, but needs one of those '
                f"removed ({', '.join(removed)}). Drop one of the two."
            )
    lost = BASELINE[arch] - features
    if lost:
        raise TargetError(
            f'target "{request.text}": {arch} code cannot do without "{min(lost)}". '
            f'Drop "-{min(lost)}" from -mattr.'
        )
    explicit = {f"+{f}" for f in emitted(arch, features)} | set(added)
    return Profile(
        name=name,
        kind="llvm",
        mtriple=_spelled(request.mtriple, arch) or llvm.TRIPLES[arch],
        mcpu=cpu,
        mattr=(*sorted(explicit), *sorted(removed)),
        features=features,
        arch=arch,
        l1_bytes=known.l1_bytes,
        l2_bytes=known.l2_bytes,
        l3_bytes=known.l3_bytes,
        num_cores=request.num_cores or known.num_cores,
        out_of_order=known.out_of_order,
        required_features=tuple(sorted(linux_names(arch, features))),
    )
