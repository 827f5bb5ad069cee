"""Mistyped targets: each is refused with the three nearest names; none becomes generic code."""

import random
import re

import pytest

from gsb_tvm.dialect.errors import ExitCode, TargetError
from gsb_tvm.targets import llvm, resolve

CPUS = (
    "cortex-a53 cortex-a55 cortex-a72 cortex-a76 cortex-a78 neoverse-n1 neoverse-v2 apple-m4 "
    "haswell broadwell skylake skylake-avx512 cascadelake icelake-server sapphirerapids "
    "graniterapids znver3 znver4 znver5 x86-64-v3"
).split()
FEATURES = {
    "haswell": "avx2 avx512f avx512vpopcntdq avx512vnni popcnt fma bmi2 amx-int8".split(),
    "cortex-a72": "neon dotprod sve2 i8mm fullfp16".split(),
}
TAGS = "raspberry-pi/4b-aarch64 arm/rasp4b64 aws/cpu/c5.large nvidia/nvidia-h100".split()
TRIPLES = "x86_64-linux-gnu aarch64-linux-gnu aarch64-unknown-linux-gnu".split()


def typos(word: str, rng: random.Random) -> set[str]:
    """One slip of the finger of each kind, at random places."""
    at = rng.randrange(len(word) - 1)
    letter = rng.choice("abcdefghijklmnopqrstuvwxyz0123456789")
    return {
        word[:at] + word[at + 1 :],
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + word[at] + word[at:],
        word[:at] + letter + word[at + 1 :],
        word.upper(),
        word.replace("-", "_") if "-" in word else word + "x",
        word + letter,
    }


def cases() -> list[str]:
    rng = random.Random(11)
    known = set(llvm.cpus("x86_64")) | set(llvm.cpus("aarch64"))
    found: list[str] = []
    for cpu in CPUS:
        found += [f"llvm -mcpu={typo}" for typo in sorted(typos(cpu, rng) - known)]
    for cpu, names in FEATURES.items():
        arch = "x86_64" if cpu == "haswell" else "aarch64"
        for name in names:
            wrong = sorted(typos(name, rng) - llvm.known_features(arch))
            found += [f"llvm -mcpu={cpu} -mattr={rng.choice('+-')}{typo}" for typo in wrong]
    for tag in TAGS:
        found += sorted(typos(tag, rng) - set(llvm.tags()))
    for triple in TRIPLES:
        cpu = "haswell" if "x86" in triple else "cortex-a72"
        wrong = sorted(typos(triple, rng) - set(TRIPLES))
        found += [f"llvm -mcpu={cpu} -mtriple={typo}" for typo in wrong]
    found += sorted(typos("llvm", rng) - {"llvm"}) + sorted(typos("native", rng) - {"native"})
    for option in ("mcpu", "mattr", "mtriple", "num-cores"):
        found += [f"llvm -{typo}=1" for typo in sorted(typos(option, rng) - {option})]
    return found


CASES = cases()


def test_there_are_at_least_200():
    assert len(CASES) >= 200
    assert len(set(CASES)) == len(CASES)


@pytest.mark.parametrize("spec", CASES)
def test_is_refused_with_three_names(spec, capfd):
    with pytest.raises(TargetError) as caught:
        resolve(spec)
    said = str(caught.value)
    assert caught.value.exit_code == ExitCode.USAGE
    assert said.startswith(f'target "{spec}": ')
    assert re.search(r'Nearest names: "[^"]+", "[^"]+", "[^"]+"\.$', said)
    assert capfd.readouterr() == ("", "")
