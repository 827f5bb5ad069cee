"""cpu.h against what Linux says: here, and of CPUs that qemu-user plays."""

import errno
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gsb_tvm.runtime.toolchains import find
from gsb_tvm.targets import resolve
from gsb_tvm.targets.feature_bits import KNOWN, FeatureBit, feature_bits
from gsb_tvm.targets.host import auxv_features, cpuinfo_features
from gsb_tvm.targets.permission import ask_for_tiles

INCLUDE = Path(__file__).parents[2] / "gsb_tvm/cpp/include"
PROGRAM = Path(__file__).with_name("cpu_program.c")
STRICT = "-O1 -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Werror".split()
LANGUAGES = {"c11": ("-x", "c", "-std=c11"), "c++17": ("-x", "c++", "-std=c++17")}
# Linux does not show these in /proc/cpuinfo, or not always, though the CPU may have them.
UNNAMED = {"avx_ifma", "avx_vnni_int8", "avx_ne_convert", "avx_vnni_int16", "avx10_1", "avx10_2"}
# A word, a bit and a state that nothing has.
ABSENT = (
    FeatureBit("no_word", 7, 0),
    FeatureBit("no_bit", 0, 64),
    FeatureBit("no_state", 0, 0, 1 << 31),
)

x86_only = pytest.mark.skipif(platform.machine() != "x86_64", reason="compares an x86 machine")


def emulator(name: str) -> str:
    path = shutil.which(f"qemu-{name}") or shutil.which(f"qemu-{name}-static")
    if path is None:
        pytest.skip(f"qemu-{name} is not installed")
    return path


def static_compiler(arch: str) -> tuple[str, ...]:
    """A C compiler for static programs; the words of its command."""
    found = [tool.program for tool in find(resolve(f"llvm -mtriple={arch}-linux-gnu"))]
    command = next(filter(None, found), ())
    if not command:
        pytest.skip(f"no C compiler for {arch} is installed")
    return command


def compiled(command: tuple[str, ...], features: tuple[FeatureBit, ...], folder: Path) -> Path:
    """The program, with ``features`` as what it needs."""
    rows = (f'{{"{f.name}", {f.word}, {f.bit}, {f.xcr0}u}},' for f in features)
    table = "\n".join(["static const struct gsb_cpu_feature needed[] = {", *rows, "};\n"])
    (folder / "needed.h").write_text(table)
    out = folder / "cpu"
    words = [*command, *STRICT, f"-I{INCLUDE}", f"-I{folder}", str(PROGRAM), "-o", str(out)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def said(*command: str | Path) -> dict[str, str]:
    """First word of each line -> the rest."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return {
        name: rest for name, _, rest in (line.partition(" ") for line in done.stdout.split("\n"))
    }


def present(answers: dict[str, str], arch: str) -> set[str]:
    return {name for name in KNOWN[arch] if answers[name] == "1"}


def everything(arch: str) -> tuple[FeatureBit, ...]:
    return (*feature_bits(arch, KNOWN[arch]), *ABSENT)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("compiler", ["gcc", "clang", "clang-16", "zig"])
def test_no_compiler_warns_and_all_agree(compiler, language, tmp_path):
    """Strict warnings are errors; on x86-64 the answer is /proc/cpuinfo's, on Arm the vector's."""
    command = (sys.executable, "-m", "ziglang", "cc") if compiler == "zig" else (compiler,)
    if compiler == "zig":
        pytest.importorskip("ziglang")
    elif shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    arch = platform.machine()
    program = compiled((*command, *LANGUAGES[language]), everything(arch), tmp_path)
    answers = said(program)
    assert not any(answers[f.name] == "1" for f in ABSENT)
    if arch == "x86_64":
        there = cpuinfo_features(Path("/proc/cpuinfo").read_text())
        assert present(answers, arch) - UNNAMED == (there & KNOWN[arch].keys()) - UNNAMED
    else:
        assert present(answers, arch) == auxv_features(bytes.fromhex(answers["auxv"]))


@x86_only
def test_tiles_are_granted_as_python_is_told(tmp_path):
    program = compiled((*static_compiler("x86_64"),), everything("x86_64"), tmp_path)
    code = int(said(program)["tiles"])
    assert ask_for_tiles() == (os.strerror(code) if code else "")


def test_the_first_that_lacks_is_named(tmp_path):
    """Here every machine has the first two, and none the third and fourth."""
    arch = platform.machine()
    names = {"x86_64": ("sse", "sse2"), "aarch64": ("asimd", "fp")}[arch]
    program = compiled(static_compiler(arch), (*feature_bits(arch, names), *ABSENT), tmp_path)
    answers = said(program)
    assert answers["first_missing"] == "no_word"
    assert answers["none_needed"] == "1"
    program = compiled(static_compiler(arch), feature_bits(arch, names), tmp_path)
    assert said(program)["first_missing"] == "-"


@pytest.mark.parametrize(
    ("cpu", "has", "lacks"),
    [
        ("cortex-a53", {"fp", "asimd"}, {"asimddp", "sve", "i8mm"}),
        ("cortex-a72", {"fp", "asimd"}, {"asimddp", "atomics", "fphp"}),
        ("cortex-a76", {"fp", "asimd", "asimddp", "atomics", "fphp"}, {"sve", "i8mm"}),
        ("max", {"asimddp", "sve", "sve2", "i8mm", "bf16"}, {"mops"}),
    ],
)
def test_an_arm_cpu_says_its_auxiliary_vector(cpu, has, lacks, tmp_path):
    program = compiled((*static_compiler("aarch64"), "-static"), everything("aarch64"), tmp_path)
    answers = said(emulator("aarch64"), "-cpu", cpu, program)
    got = present(answers, "aarch64")
    assert got == auxv_features(bytes.fromhex(answers["auxv"]))
    assert has <= got
    assert not lacks & got
    assert int(answers["tiles"]) == errno.ENOSYS


def test_code_for_dotprod_is_refused_by_a_cortex_a72(tmp_path):
    needed = feature_bits("aarch64", resolve("llvm -mcpu=cortex-a76").required_features)
    program = compiled((*static_compiler("aarch64"), "-static"), needed, tmp_path)
    assert said(emulator("aarch64"), "-cpu", "cortex-a72", program)["first_missing"] == "asimddp"
    assert said(emulator("aarch64"), "-cpu", "max", program)["first_missing"] == "-"


@pytest.mark.parametrize(
    ("cpu", "target", "first"),
    [
        ("Haswell", "haswell", "-"),
        ("Haswell", "skylake-avx512", "avx512bw"),
        ("Haswell", "znver5", "avx512_bf16"),
        # The CPU has AVX, and its system does not save the registers: XCR0 cannot be read.
        ("Haswell,-xsave", "x86-64-v2", "-"),
        ("Haswell,-xsave", "haswell", "avx"),
        ("Nehalem", "x86-64-v2", "-"),
        ("Nehalem", "haswell", "abm"),
    ],
)
def test_code_for_avx512_is_refused_by_a_haswell(cpu, target, first, tmp_path):
    needed = feature_bits("x86_64", resolve(f"llvm -mcpu={target}").required_features)
    program = compiled((*static_compiler("x86_64"), "-static"), needed, tmp_path)
    assert said(emulator("x86_64"), "-cpu", cpu, program)["first_missing"] == first


def test_a_haswell_has_avx2_and_no_avx512f(tmp_path):
    program = compiled((*static_compiler("x86_64"), "-static"), everything("x86_64"), tmp_path)
    got = present(said(emulator("x86_64"), "-cpu", "Haswell", program), "x86_64")
    assert {"avx", "avx2", "fma", "bmi2", "sse4_2"} <= got
    assert not {name for name in got if name.startswith(("avx512", "avx10", "amx", "apx"))}


def test_another_system_is_refused_in_a_sentence(tmp_path):
    source = tmp_path / "include.c"
    source.write_text('#include "gsb_tvm/cpu.h"\n')
    command = [*static_compiler(platform.machine()), "-U__linux__", f"-I{INCLUDE}", "-E"]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
    assert done.returncode
    assert "gsb_tvm is for 64-bit x86 and Arm under Linux: compile this program" in done.stderr
