import json
from dataclasses import replace

import pytest

from gsb_tvm.dialect.errors import TargetError
from gsb_tvm.targets import llvm, resolve
from gsb_tvm.targets.features import BASELINE
from gsb_tvm.targets.host import Host
from gsb_tvm.targets.resolution import resolve_for
from gsb_tvm.targets.spec import parse

X86 = Host("x86_64", "GenuineIntel", frozenset({"cmov", "sse", "sse2"}), 2, 0, 0, 0)
ARM = Host("aarch64", "", frozenset({"fp", "asimd"}), 4, 0, 0, 0)


def message(spec, machine=X86):
    with pytest.raises(TargetError) as caught:
        resolve_for(parse(spec), machine)
    return str(caught.value)


@pytest.fixture(autouse=True)
def _silent(capfd):
    """Whatever the user types, neither TVM nor LLVM prints past our sentence."""
    yield
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_cortex_a72_in_full():
    got = resolve("llvm -mcpu=cortex-a72")
    assert (got.name, got.kind, got.mtriple, got.mcpu, got.arch) == (
        "cortex-a72", "llvm", "aarch64-linux-gnu", "cortex-a72", "aarch64",
    )  # fmt: skip
    assert got.mattr == ("+fp-armv8", "+neon")
    # Boards switch the crypto extension off, and nothing we emit uses it.
    assert got.required_features == ("asimd", "fp")
    assert (got.l1_bytes, got.l2_bytes, got.l3_bytes, got.num_cores) == (32768, 1 << 20, 0, 4)


@pytest.mark.parametrize(
    ("head", "arch", "name", "cpu"),
    [
        ("llvm", X86, "x86-64 baseline", "x86-64"),
        ("llvm", ARM, "armv8-a baseline", "generic"),
        ("llvm -mtriple=aarch64-linux-gnu", X86, "armv8-a baseline", "generic"),
        ("llvm -mtriple=x86_64-linux-gnu", ARM, "x86-64 baseline", "x86-64"),
        ("llvm -mcpu=x86-64", ARM, "x86-64 baseline", "x86-64"),
        ("llvm -mtriple=x86_64-linux-gnu -mcpu=generic", ARM, "generic", "generic"),
    ],
)
def test_generic_code_says_so_in_its_name(head, arch, name, cpu):
    got = resolve_for(parse(head), arch)
    assert (got.name, got.mcpu) == (name, cpu)


def test_baseline_x86_has_no_popcnt():
    got = resolve_for(parse("llvm"), X86)
    assert "popcnt" not in got.features
    assert got.required_features == ("cmov", "sse", "sse2")
    assert got.mattr == ("+cmov", "+sse", "+sse2")


@pytest.mark.parametrize(
    ("tag", "name", "triple", "cores"),
    [
        ("raspberry-pi/4b-aarch64", "raspberry-pi/4b-aarch64 (cortex-a72)", "aarch64-linux-gnu", 4),
        ("raspberry-pi/4b-aarch64 -num-cores=2", "raspberry-pi/4b-aarch64 (cortex-a72)",
         "aarch64-linux-gnu", 2),
        ("aws/cpu/c5.4xlarge", "aws/cpu/c5.4xlarge (skylake-avx512)", "x86_64-linux-gnu", 8),
        ('{"tag": "arm/rasp4b64"}', "arm/rasp4b64 (cortex-a72)", "aarch64-linux-gnu", 4),
        # TVM's own spelling, arm64-linux-android, is 32-bit Arm to TVM's feature parser.
        ("arm/pixel2", "arm/pixel2 (cortex-a73)", "aarch64-linux-android", 4),
    ],
)  # fmt: skip
def test_tags(tag, name, triple, cores):
    got = resolve(tag)
    assert (got.name, got.mtriple, got.num_cores) == (name, triple, cores)


def test_every_tag_resolves_or_is_refused():
    resolved, refused = [], []
    for tag in llvm.tags():
        try:
            resolved.append(resolve(tag).name)
        except TargetError as err:
            refused.append(str(err))
    assert len(resolved) + len(refused) == 287
    assert len(resolved) == 52
    assert sum("unknown GPU architecture" in text for text in refused) == 208


def _pinned(arch, cpu):
    return f"llvm -mtriple={llvm.TRIPLES[arch]} -mcpu={cpu}"


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_every_64_bit_cpu_of_llvm_resolves(arch):
    for cpu in llvm.cpus(arch):
        if llvm.features(arch, cpu) >= BASELINE[arch]:
            got = resolve(_pinned(arch, cpu))
            again = resolve(got.target_string)
            assert got.features == llvm.features(arch, cpu)
            assert replace(again, name=got.name) == got


def test_every_32_bit_cpu_of_llvm_is_refused():
    old = [c for c in llvm.cpus("x86_64") if not llvm.features("x86_64", c) >= BASELINE["x86_64"]]
    assert len(old) == 37
    assert all("has no 64-bit mode" in message(_pinned("x86_64", cpu)) for cpu in old)
    assert all(llvm.features("aarch64", c) >= BASELINE["aarch64"] for c in llvm.cpus("aarch64"))


def test_json_of_tvm_reads_back():
    got = resolve("llvm -mcpu=neoverse-n1")
    exported = json.loads(str(got.tvm_target()))
    again = resolve(exported)
    assert again.features == got.features
    assert again.mattr == got.mattr


@pytest.mark.parametrize(
    ("cpu", "bits", "said"),
    [
        ("x86-64", 128, ""),
        ("x86-64-v2", 128, ""),
        ("x86-64-v3", 256, "avx2 fma"),
        ("x86-64-v4", 512, "avx2 fma avx512"),
        ("haswell", 256, "avx2 fma"),
        ("sandybridge", 128, ""),
        ("alderlake", 256, "avx2 fma"),
        # Knights Landing: AVX-512 without byte instructions.
        ("knl", 256, "avx2 fma"),
        ("skylake-avx512", 512, "avx2 fma avx512"),
        ("cascadelake", 512, "avx2 fma avx512"),
        ("icelake-server", 512, "avx2 fma avx512 vpopcntdq"),
        ("znver4", 512, "avx2 fma avx512 vpopcntdq"),
        ("znver5", 512, "avx2 fma avx512 vpopcntdq"),
        ("sapphirerapids", 512, "avx2 fma avx512 vpopcntdq amx_int8"),
        ("cortex-a53", 128, "fma neon"),
        ("cortex-a55", 128, "fma neon"),
        ("cortex-a72", 128, "fma neon"),
        ("cortex-a73", 128, "fma neon"),
        ("cortex-a76", 128, "fma neon"),
        ("cortex-x1", 128, "fma neon"),
        ("apple-m1", 128, "fma neon"),
        ("neoverse-n1", 128, "fma neon"),
    ],
)
def test_levels(cpu, bits, said):
    got = resolve(f"llvm -mcpu={cpu}")
    asked = {name for name in dir(got) if name.startswith("has_")}
    assert {name for name in asked if getattr(got, name)} == {f"has_{s}" for s in said.split()}
    assert (got.vector_bits, got.lanes) == (bits, bits // 32)


def test_removing_a_feature_takes_along_what_needs_it():
    got = resolve("llvm -mcpu=znver4 -mattr=-avx512f")
    assert (got.name, got.vector_bits, got.has_vpopcntdq) == ("znver4 -avx512f", 256, False)
    assert not any(name.startswith("avx512") for name in got.required_features)
    assert got.mattr[-1] == "-avx512f"


def test_adding_a_feature_brings_what_it_needs():
    got = resolve("llvm -mcpu=x86-64-v2 -mattr=+avx2")
    assert got.has_avx2
    assert "+avx" in got.mattr
    assert {"avx", "avx2"} <= set(got.required_features)


def test_apart_from_order_mattr_is_one():
    one = resolve("llvm -mcpu=cortex-a72 -mattr=+dotprod,+lse")
    two = resolve("llvm -mcpu=cortex-a72 -mattr=+lse,+dotprod")
    assert one.mattr == two.mattr == ("+dotprod", "+fp-armv8", "+lse", "+neon")


def test_tvm_target_carries_everything():
    target = resolve("llvm -mcpu=cortex-a76 -num-cores=2").tvm_target()
    assert str(target.attrs["mtriple"]) == "aarch64-linux-gnu"
    assert str(target.attrs["mcpu"]) == "cortex-a76"
    assert int(target.attrs["num-cores"]) == 2
    assert target.features.has_dotprod
    assert target.features.is_aarch64


def test_the_object_file_is_of_the_architecture(tmp_path):
    import tvm
    from tvm import te

    n = te.placeholder((16,), "float32", name="n")
    func = te.create_prim_func([n, te.compute((16,), lambda i: n[i] + 1.0, name="m")])
    machine_of_elf = {"x86_64": 62, "aarch64": 183}  # elf.h: EM_X86_64, EM_AARCH64
    for spec in ("llvm -mcpu=cortex-a72", "llvm -mcpu=haswell"):
        profile = resolve(spec)
        with profile.tvm_target():
            built = tvm.compile(func, target=profile.tvm_target())
        path = tmp_path / f"{profile.mcpu}.o"
        getattr(built, "mod", built).write_to_file(str(path), "o")
        elf = path.read_bytes()
        assert int.from_bytes(elf[18:20], "little") == machine_of_elf[profile.arch]


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (
            "llvm -mcpu=cortex-a27",
            'target "llvm -mcpu=cortex-a27": unknown CPU "cortex-a27". '
            'Nearest names: "cortex-a72", "cortex-a57", "cortex-a73".',
        ),
        (
            "llvm -mtriple=x86_64-linux-gnu -mcpu=hasswell",
            'target "llvm -mtriple=x86_64-linux-gnu -mcpu=hasswell": '
            'unknown x86_64 CPU "hasswell". Nearest names: "haswell", "broadwell", "atom_sse4_2".',
        ),
        (
            "llvm -mcpu=haswell -mattr=+avx521f",
            'target "llvm -mcpu=haswell -mattr=+avx521f": unknown x86_64 feature "avx521f". '
            'Nearest names: "avx512f", "avx2", "avx512bf16".',
        ),
        (
            "llvm -mcpu=cortex-a72 -mattr=+avx2",
            'target "llvm -mcpu=cortex-a72 -mattr=+avx2": unknown aarch64 feature "avx2". '
            'Nearest names: "a72", "a320", "a520".',
        ),
        (
            "raspberry-pi/4b-arch64",
            'target "raspberry-pi/4b-arch64": unknown kind or tag "raspberry-pi/4b-arch64". '
            'Nearest names: "raspberry-pi/4b-aarch64", "raspberry-pi/3b-aarch64", '
            '"raspberry-pi/5-aarch64".',
        ),
        (
            "hasswell",
            'target "hasswell": unknown kind or tag "hasswell". '
            'Nearest names: "llvm -mcpu=haswell", "llvm -mcpu=broadwell", "llvm -mcpu=carmel".',
        ),
        (
            "haswell",
            'target "haswell": "haswell" is a CPU, not a kind. Write "llvm -mcpu=haswell".',
        ),
        (
            "llvm -mcpu=cortex-a72 -mtriple=x86_64-linux-gnu",
            'target "llvm -mcpu=cortex-a72 -mtriple=x86_64-linux-gnu": CPU "cortex-a72" is '
            'aarch64, but the triple "x86_64-linux-gnu" is x86_64. '
            "Leave out -mtriple or name another CPU.",
        ),
        (
            "llvm -mcpu=haswell -mtriple=x86_64-linx-gnu",
            'target "llvm -mcpu=haswell -mtriple=x86_64-linx-gnu": code is not generated for '
            'triple "x86_64-linx-gnu", only for 64-bit x86 and Arm under Linux. '
            'Nearest names: "x86_64-linux-gnu", "x86_64-linux-musl", "x86_64-unknown-linux-gnu".',
        ),
        (
            "llvm -mcpu=pentium4",
            'target "llvm -mcpu=pentium4": CPU "pentium4" has no 64-bit mode or no vector unit; '
            'code needs both. Nearest names: "penryn", "opteron", "tremont".',
        ),
        (
            "llvm -mcpu=generic",
            'target "llvm -mcpu=generic": CPU "generic" exists for x86_64 and aarch64. '
            "Add -mtriple=x86_64-linux-gnu or -mtriple=aarch64-linux-gnu.",
        ),
        (
            "llvm -mcpu=haswell -mattr=+avx2,-avx",
            'target "llvm -mcpu=haswell -mattr=+avx2,-avx": feature "avx2" is added, but needs '
            "one of those removed (-avx). Drop one of the two.",
        ),
        (
            "llvm -mcpu=haswell -mattr=-sse2",
            'target "llvm -mcpu=haswell -mattr=-sse2": x86_64 code cannot do without "sse2". '
            'Drop "-sse2" from -mattr.',
        ),
        (
            "llvm -mcpu=cortex-a72 -mattr=-neon",
            'target "llvm -mcpu=cortex-a72 -mattr=-neon": aarch64 code cannot do without "neon". '
            'Drop "-neon" from -mattr.',
        ),
        (
            "opencl -device=adreno",
            'target "opencl -device=adreno": no code is generated for kind "opencl". '
            'Use llvm or cuda, for example "native", "llvm -mcpu=cortex-a72", "cuda -arch=sm_90".',
        ),
        (
            "qcom/hexagon-v75",
            'target "qcom/hexagon-v75": the tag is of kind "hexagon", '
            "for which no code is generated. Use a tag of kind llvm or cuda.",
        ),
        (
            "arm/rasp4b64 -mcpu=cortex-a76",
            'target "arm/rasp4b64 -mcpu=cortex-a76": a tag fixes CPU and triple. '
            "Leave out -mcpu and -mtriple, or write llvm instead of the tag.",
        ),
        (
            "native -mcpu=haswell",
            'target "native -mcpu=haswell": native takes the CPU and triple of this machine. '
            "Leave out -mcpu and -mtriple, or write llvm instead of native.",
        ),
        (
            "llvm -mcpu=native -mtriple=aarch64-linux-gnu",
            'target "llvm -mcpu=native -mtriple=aarch64-linux-gnu": native is this machine, '
            'x86_64, but the triple "aarch64-linux-gnu" is not. '
            "Leave out -mtriple or name a CPU.",
        ),
        (
            "native -mattr=+avx512vpopcntdq",
            'target "native -mattr=+avx512vpopcntdq": this machine lacks avx, avx2, '
            "avx512_vpopcntdq, avx512f, f16c, fma, pni, sse4_1, sse4_2, ssse3. "
            "Drop it from -mattr, or name the CPU that has it with llvm -mcpu=.",
        ),
    ],
)
def test_says_what_is_wrong(spec, text):
    assert message(spec) == text


def test_native_needs_a_known_machine():
    riscv = Host("riscv64", "", frozenset(), 1, 0, 0, 0)
    assert message("native", riscv) == (
        'target "native": this machine is riscv64; code is generated for x86_64 and aarch64. '
        "Name a CPU with -mcpu=."
    )
    blind = replace(X86, features=frozenset())
    assert message("native", blind) == (
        'target "native": this machine\'s CPU features cannot be read from /proc. '
        "Name a CPU with llvm -mcpu=."
    )
