"""Programs around a C library: what it promises, on one thread and many, here and elsewhere."""

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest

import gsb_tvm
from gsb_tvm.models.demo import model_path
from gsb_tvm.runtime import emulate
from gsb_tvm.runtime.c_library import sources
from gsb_tvm.runtime.cpp_folder import CPP
from gsb_tvm.runtime.metadata import Metadata
from gsb_tvm.targets import resolve
from tests.cpp.library.conftest import HERE, STRICT, Files, built, compiler, emitted

THREADS = ("-pthread", "-lm")
SANITIZERS = {"address,undefined": "-fno-sanitize-recover=all", "thread": "-O1"}


def linked(*libraries: Path) -> list[str]:
    """What a compiler needs to link C libraries."""
    includes = [f"-I{path}/include" for path in libraries]
    return [*includes, *(f"{path}/lib/lib{path.name}.a" for path in libraries), *THREADS]


def output(*command: object, expected: int = 0) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == expected, done.stderr[-3000:]
    return done.stdout.strip()


@pytest.mark.parametrize("how", ["-static", "-pie"])
def test_what_it_promises(how: str, demo: Path, files: Files, tmp_path: Path) -> None:
    gcc = compiler("native").compiler
    command = [*gcc, "-std=c11", *STRICT, how, str(HERE / "calls.c"), *linked(demo)]
    program = built(command, tmp_path / "program")
    assert output(program, files.image, files.logits) == "ok"


def test_two_models_in_one_program(demo: Path, files: Files, tmp_path: Path) -> None:
    model = onnx.load(model_path())
    (last,) = (node for node in model.graph.node if "logits" in node.output)
    last.output[0] = "before"
    model.graph.node.append(onnx.helper.make_node("Neg", ["before"], ["logits"]))
    changed = tmp_path / "changed.onnx"
    changed.write_bytes(model.SerializeToString())
    other = emitted(tmp_path, "other", "native", changed)
    logits = tmp_path / "logits.bin"
    image = np.fromfile(files.image, np.float32).reshape(1, 1, 8, 8)
    gsb_tvm.build(changed)(image).tofile(logits)
    assert logits.read_bytes() != files.logits.read_bytes()
    gxx = shutil.which("g++") or pytest.skip("no g++")
    command = [gxx, "-std=c++17", *STRICT, str(HERE / "two_models.cpp"), *linked(demo, other)]
    program = built(command, tmp_path / "program")
    assert output(program, files.image, files.logits, logits) == "ok"


def test_it_needs_only_the_c_library(demo: Path) -> None:
    nm = shutil.which("nm") or pytest.skip("no nm")
    words = [line.split() for line in output(nm, demo / "lib/libdemo.a").splitlines()]
    defined = {line[-1] for line in words if len(line) == 3}
    open_ = {line[-1] for line in words if len(line) == 2 and line[0] == "U"} - defined
    known = [ctypes.CDLL(name) for name in ("libc.so.6", "libm.so.6", "libpthread.so.0")]
    known.append(ctypes.CDLL(None))  # the dynamic loader, which finds what belongs to a thread
    # The linker makes the table of addresses itself.
    strange = {n for n in open_ if not any(hasattr(k, n) for k in known)}
    assert strange <= {"_GLOBAL_OFFSET_TABLE_"}
    exported = {line[-1] for line in words if len(line) == 3 and line[1] in "TDRBVW"}
    assert {name for name in exported if not name.startswith("demo_")} == set()


def test_many_shared_libraries_that_hold_one(demo: Path, tmp_path: Path) -> None:
    """A process has little room for what libraries keep of each thread in a fixed place."""
    gcc = compiler("native").compiler
    all_of_it = [f"{demo}/lib/libdemo.a", "-Wl,--no-whole-archive", *THREADS]
    command = [*gcc, "-shared", "-Wl,-z,defs", "-Wl,-z,text", "-Wl,--whole-archive", *all_of_it]
    first = built(command, tmp_path / "0.so")
    copies = [shutil.copy(first, tmp_path / f"{i}.so") for i in range(1, 20)]
    load = "import ctypes, sys; [ctypes.CDLL(path).demo_last_error for path in sys.argv[1:]]"
    output(sys.executable, "-c", load, first, *copies)


def sanitized(demo: Path, program: str, sanitizer: str, folder: Path) -> Path:
    """A program with our C sources compiled for a sanitizer, and the kernels as they are."""
    metadata = metadata_of(demo)
    for name, text in sources(metadata, "demo").items():
        (folder / name).write_text(text)
    flags = ["-g", f"-fsanitize={sanitizer}", SANITIZERS[sanitizer], f"-I{CPP}/include"]
    own = [str(folder / f"demo_{name}.c") for name in ("run", "context")]
    gcc = compiler("native").compiler
    command = [*gcc, "-std=c11", *flags, str(HERE / program), *own, *linked(demo)]
    try:
        return built(command, folder / "sanitized")
    except AssertionError as err:
        if "libasan" in str(err) or "libtsan" in str(err):
            pytest.skip(f"no runtime of the {sanitizer} sanitizer")
        raise


def metadata_of(library: Path) -> Metadata:
    return msgspec.json.decode((library / "gsb-tvm.json").read_bytes(), type=Metadata)


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_sanitizers_find_nothing(demo: Path, files: Files, sanitizer: str, tmp_path: Path) -> None:
    program = sanitized(demo, "calls.c", sanitizer, tmp_path)
    last = ["-"] if sanitizer == "thread" else []
    assert output(program, files.image, files.logits, *last) == "ok"


@pytest.mark.parametrize("sanitizer", SANITIZERS)
@pytest.mark.parametrize("threads", [1, 2])
def test_sanitizers_with_eight_threads(
    demo: Path, files: Files, sanitizer: str, threads: int, tmp_path: Path
) -> None:
    program = sanitized(demo, "threads.c", sanitizer, tmp_path)
    output(program, files.image, files.logits, 2000, threads)


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", SANITIZERS)
@pytest.mark.parametrize("threads", [1, 2])
def test_sanitizers_over_ten_thousand_runs(
    demo: Path, files: Files, sanitizer: str, threads: int, tmp_path: Path
) -> None:
    program = sanitized(demo, "threads.c", sanitizer, tmp_path)
    output(program, files.image, files.logits, 10_000, threads)


@pytest.mark.parametrize(
    "runs", [pytest.param(20_000), pytest.param(1_000_000, marks=pytest.mark.slow)]
)
def test_nothing_is_kept(runs: int, demo: Path, files: Files, tmp_path: Path) -> None:
    gcc = compiler("native").compiler
    command = [*gcc, "-std=c11", *STRICT, str(HERE / "threads.c"), *linked(demo)]
    program = built(command, tmp_path / "program")
    grown = int(output(program, files.image, files.logits, runs, 1))
    # A context takes 54 kB, and each round makes 20 or more; the C library's own differ by some
    # bytes.
    assert grown < 4096


@pytest.mark.parametrize(
    "cpu",
    [
        "cortex-a72",
        pytest.param("cortex-a53", marks=pytest.mark.slow),
        pytest.param("neoverse-n1", marks=pytest.mark.slow),
    ],
)
def test_on_arm(cpu: str, files: Files, tmp_path: Path) -> None:
    target = f"llvm -mcpu={cpu}"
    tool = compiler(target)
    prefix = emulate.command(resolve(target))
    if prefix is None:
        pytest.skip("qemu-aarch64 is not installed")
    library = emitted(tmp_path, "demo", target)
    command = [*tool.program, "-std=c11", *STRICT, "-static"]
    main = str(library / "example/main.c")
    example = built([*command, main, *linked(library)], tmp_path / "example")
    printed = output(*prefix, example, files.image).split()
    expected = np.fromfile(files.logits, np.float32)
    np.testing.assert_allclose(np.array(printed, np.float32), expected, rtol=0, atol=1e-5)
    # What it computes to the last bit is what the program must repeat, whatever the threads.
    np.array(printed, np.float32).tofile(tmp_path / "logits.bin")
    program = built([*command, str(HERE / "calls.c"), *linked(library)], tmp_path / "program")
    # QEMU 7.2 aborts where a forked child of a program with threads starts one.
    assert output(*prefix, program, files.image, tmp_path / "logits.bin", "-") == "ok"


def test_another_cpu_is_refused_by_name(files: Files, tmp_path: Path) -> None:
    qemu = shutil.which("qemu-x86_64") or pytest.skip("qemu-x86_64 is not installed")
    tool = compiler("llvm -mcpu=skylake-avx512")
    library = emitted(tmp_path, "demo", "llvm -mcpu=skylake-avx512")
    command = [*tool.program, "-static", str(library / "example/main.c"), *linked(library)]
    program = built(command, tmp_path / "program")
    done = subprocess.run(
        [qemu, "-cpu", "Haswell", str(program)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "compiled for skylake-avx512, and this CPU lacks avx512" in done.stderr
