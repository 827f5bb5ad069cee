import re
from pathlib import Path

import pytest

from gsb_tvm.dialect.errors import TargetError
from gsb_tvm.targets import devices, llvm
from gsb_tvm.targets.devices import Device, available, device, load_device

PROFILES = Path(devices.__file__).parent / "profiles"
GOOD = """[cpu]
kind = "llvm"
mtriple = "aarch64-linux-gnu"
mcpu = "test"
num_cores = 4
[cache]
l1_data_bytes = 32768
l2_bytes = 524288
l3_bytes = 0
"""


def test_the_devices_of_the_house():
    assert available() == (
        "apple-m1", "cortex-a53", "cortex-a55", "cortex-a72", "cortex-a73", "cortex-a76",
        "cortex-x1", "haswell", "icelake-server", "neoverse-n1", "sapphirerapids",
        "skylake-avx512", "thunderxt88", "x86-64", "znver4", "znver5",
    )  # fmt: skip


@pytest.mark.parametrize("name", available())
def test_every_file_loads_names_an_llvm_cpu_and_its_sources(name):
    got = load_device(PROFILES / f"{name}.toml")
    text = (PROFILES / f"{name}.toml").read_text()
    arch = "aarch64" if "aarch64" in text else "x86_64"
    assert got.mcpu == name
    assert llvm.is_cpu(name, arch)
    for line in text.splitlines():
        if re.match(r"(num_cores|out_of_order|\w+_bytes) =", line):
            assert "#" in line, f"{name}.toml: no source: {line}"


@pytest.mark.parametrize(
    ("cpu", "l1", "l2", "l3", "cores"),
    [
        ("cortex-a72", 32 << 10, 1 << 20, 0, 4),
        ("cortex-a53", 32 << 10, 512 << 10, 0, 4),
        ("cortex-a55", 32 << 10, 128 << 10, 3 << 20, 4),
        ("cortex-a73", 64 << 10, 1 << 20, 0, 4),
        ("cortex-x1", 64 << 10, 1 << 20, 4 << 20, 2),
        ("neoverse-n1", 64 << 10, 1 << 20, 32 << 20, 64),
        ("apple-m1", 128 << 10, 12 << 20, 0, 4),
        ("cortex-a76", 64 << 10, 512 << 10, 2 << 20, 4),
        ("haswell", 32 << 10, 256 << 10, 8 << 20, 4),
        ("sapphirerapids", 48 << 10, 2 << 20, 105 << 20, 56),
        ("znver5", 48 << 10, 1 << 20, 32 << 20, 8),
        ("icelake_server", 48 << 10, 1280 << 10, 48 << 20, 32),
        ("cortex-a78", 32 << 10, 256 << 10, 0, 1),
    ],
)
def test_sizes(cpu, l1, l2, l3, cores):
    got = device(cpu)
    assert (got.l1_bytes, got.l2_bytes, got.l3_bytes, got.num_cores) == (l1, l2, l3, cores)


def test_loads_a_good_file(tmp_path):
    path = tmp_path / "test.toml"
    path.write_text(GOOD)
    assert load_device(path) == Device("test", 4, 32768, 524288, 0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[cpu]", "[cpu", "test.toml: cannot be read as TOML (Expected ']' at the end of a table "
         "declaration (at line 1, column 5))."),
        ("[cache]", "[disk]", 'test.toml: unknown table "disk". Known: cpu, cache.'),
        (GOOD[GOOD.index("[cache]"):], "", "test.toml: table [cache] is missing."),
        ("l2_bytes", "l2", 'test.toml: "l2" has no unit. Write "l2_bytes", in bytes.'),
        ("l3_bytes", "l4_bytes", 'test.toml: unknown key "l4_bytes" in [cache]. '
         "Known: l1_data_bytes, l2_bytes, l3_bytes."),
        ("l3_bytes = 0\n", "", 'test.toml: key "l3_bytes" is missing in [cache].'),
        ("32768", "33000", "test.toml: l1_data_bytes is 33000, "
         "expected a multiple of 1024 from 4096 to 1048576."),
        ("32768", "0", "test.toml: l1_data_bytes is 0, "
         "expected a multiple of 1024 from 4096 to 1048576."),
        ("32768", "true", "test.toml: l1_data_bytes is True, "
         "expected a multiple of 1024 from 4096 to 1048576."),
        ("524288", '"512K"', "test.toml: l2_bytes is '512K', "
         "expected a multiple of 1024 from 32768 to 67108864."),
        ("l3_bytes = 0", "l3_bytes = 262144", "test.toml: cache sizes 32768, 524288, 262144 bytes "
         "do not grow from L1 to L3."),
        ('"test"', '"tset"', "test.toml: mcpu is 'tset', expected \"test\", the name of the file."),
        ('"llvm"', '"cuda"', "test.toml: kind is 'cuda', expected \"llvm\"."),
        ("aarch64-linux-gnu", "arm", "test.toml: mtriple is 'arm', "
         "expected x86_64-linux-gnu or aarch64-linux-gnu."),
        ("num_cores = 4", "num_cores = 0", "test.toml: num_cores is 0, expected 1 to 4096."),
        ("num_cores = 4", "num_cores = 4\nout_of_order = 1",
         "test.toml: out_of_order is 1, expected true or false."),
    ],
)  # fmt: skip
def test_refuses(tmp_path, old, new, message):
    path = tmp_path / "test.toml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(TargetError) as caught:
        load_device(path)
    assert str(caught.value) == message
