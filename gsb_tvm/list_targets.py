"""``gsb-tvm targets``: list what can be compiled for, or show how one target is understood."""

import sys
from collections.abc import Sequence

from gsb_tvm import command
from gsb_tvm.dialect.errors import TargetError
from gsb_tvm.targets import Profile, resolve, take_target


def parser(prog: str) -> command.Parser:
    """Parser of everything but the target's words."""
    made = command.Parser(
        prog, "List targets; with TARGET as typed after --target, show how it is understood."
    )
    made.add_argument("--target", metavar="TARGET ...", help="for example llvm -mcpu=haswell")
    return made


def main(argv: Sequence[str] | None = None, prog: str = "python -m gsb_tvm.list_targets") -> int:
    """Run the command and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and not words[0].startswith("-"):
        words.insert(0, "--target")
    target, rest = take_target(words)

    def execute(_args: object) -> int:
        if target is None:
            command.require_stdout(_list)
        else:
            profile = resolve(target)
            command.require_stdout(lambda: _show(profile))
        return 0

    return command.run(parser(prog), execute, rest)


def _show(profile: Profile) -> None:
    from gsb_tvm import console
    from gsb_tvm.targets import missing_here

    lacks = missing_here(profile)
    caches = (("L1d", profile.l1_bytes), ("L2", profile.l2_bytes), ("L3", profile.l3_bytes))
    pairs = [
        ("name", profile.name),
        ("in full", profile.target_string),
        ("vectors", f"{profile.vector_bits} bits"),
        ("caches", ", ".join(f"{name} {size // 1024} KiB" for name, size in caches if size)),
        ("cores", str(profile.num_cores)),
        ("needs", " ".join(profile.required_features)),
        ("runs here", f"no, lacks {', '.join(lacks)}" if lacks else "yes"),
    ]
    console.show(console.fields(pairs))


def _list() -> None:
    from gsb_tvm import console
    from gsb_tvm.targets import boards, llvm
    from gsb_tvm.targets.devices import available

    pairs = [
        ("native", resolve("native").target_string),
        ("devices", "llvm -mcpu= " + " ".join(available())),
        *(
            (f"{arch} CPUs", "llvm -mcpu= " + " ".join(llvm.cpus_64bit(arch)))
            for arch in llvm.TRIPLES
        ),
        ("tags", " ".join(filter(_resolves, boards.tags()))),
    ]
    console.show(console.fields(pairs))


def _resolves(tag: str) -> bool:
    """Whether code is generated for ``tag``: TVM has many for GPUs and 32-bit boards."""
    try:
        resolve(tag)
    except TargetError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
