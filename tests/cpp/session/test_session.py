"""What gsb_tvm::Session promises, with two compilers and under sanitizers; its numbers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import gsb_tvm
from gsb_tvm.dialect.versions import PACKAGE
from gsb_tvm.driver import Options, compile_model
from gsb_tvm.models.demo import model_path
from gsb_tvm.models.export import export
from gsb_tvm.models.fill import realistic_
from gsb_tvm.models.gsb import PRESETS, Gsb
from gsb_tvm.runtime import emulate
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.cpp_folder import CPP
from gsb_tvm.targets import resolve
from tests.cpp.session.conftest import (
    HEADER,
    HERE,
    SANITIZERS,
    Demo,
    built,
    by_hand,
    compiler,
    loaded,
    output,
)

Sanitized = Callable[[str, str], Path]


def test_versions_are_pythons() -> None:
    text = (CPP / "include/gsb_tvm/version.hpp").read_text()
    assert f'#define GSB_TVM_VERSION "{PACKAGE}"\n' in text
    assert f"#define GSB_TVM_ARTEFACT_FORMAT {meta.FORMAT}\n" in text


@pytest.mark.parametrize("header", ["dtype", "error", "tensor", "version", "views"])
def test_each_header_stands_alone(header: str, tmp_path: Path) -> None:
    source = tmp_path / "alone.cpp"
    source.write_text(f"#include <gsb_tvm/{header}.hpp>\n#include <gsb_tvm/{header}.hpp>\n")
    built(source, tmp_path / "alone.o", "-c", by=compiler("g++"))


def test_what_it_promises_without_rtti(demo: Demo, tmp_path: Path) -> None:
    clang = compiler("clang++", *(f"clang++-{n}" for n in range(21, 12, -1)))
    program = built(HERE / "promises.cpp", tmp_path / "program", "-O2", "-fno-rtti", by=clang)
    assert output(program, demo.path, demo.image, demo.logits) == "ok\n"


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_what_it_promises_under_sanitizers(
    demo: Demo, sanitized: Sanitized, sanitizer: str
) -> None:
    last = ["-"] if sanitizer == "thread" else []
    program = sanitized("promises", sanitizer)
    assert output(program, demo.path, demo.image, demo.logits, *last) == "ok\n"


def call_at_once(demo: Demo, program: Path, runs: int, threads: int) -> None:
    output(program, "threads", demo.path, demo.image, demo.logits, 8, runs, threads)


@pytest.mark.parametrize("sanitizer", SANITIZERS)
@pytest.mark.parametrize("threads", [1, 2])
def test_eight_callers(demo: Demo, sanitized: Sanitized, sanitizer: str, threads: int) -> None:
    call_at_once(demo, sanitized("program", sanitizer), 800, threads)


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", SANITIZERS)
@pytest.mark.parametrize("threads", [1, 2])
def test_ten_thousand_runs(demo: Demo, sanitized: Sanitized, sanitizer: str, threads: int) -> None:
    call_at_once(demo, sanitized("program", sanitizer), 10_000, threads)


def ran(program: Path, model: Path, given: bytes, folder: Path, threads: int = 1, batch: int = 1):
    """Bytes of the outputs of a program's calls."""
    (folder / "in.bin").write_bytes(given)
    output(program, "run", model, threads, batch, folder / "in.bin", folder / "out.bin")
    return (folder / "out.bin").read_bytes()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_same_numbers_as_python(demo: Demo, program: Path, threads: int, tmp_path: Path) -> None:
    images = np.random.default_rng(threads).random((8, 1, 1, 8, 8), np.float32)
    module = gsb_tvm.load(demo.path)
    expected = b"".join(module(image).tobytes() for image in images)
    assert ran(program, demo.path, images.tobytes(), tmp_path, threads) == expected


def test_it_says_what_it_is(demo: Demo, program: Path) -> None:
    metadata = meta.read(demo.path)
    assert output(program, "describe", demo.path).splitlines() == [
        model_path().name,
        metadata.target.text,
        PACKAGE,
        f"3 threads, {metadata.call_bytes(3)} bytes",
        "batches",
        "input image float32 1 1 8 8",
        "output logits float32 1 10",
    ]


# Each image is three numbers; the outputs are its sum times the first weight, and the batch.
_BATCHES = """
static int run(int batch, const float* x, float* sums, int32_t* batches, const float* weights) {
  for (int i = 0; i < batch; ++i) {
    sums[i] = weights[0] * (x[3 * i] + x[3 * i + 1] + x[3 * i + 2]);
    batches[i] = batch;
  }
  return 0;
}
#define PROGRAM(name, batch)                                                                  \\
  int name(const float* x, float* sums, int32_t* batches, void* memory, const float* weights, \\
           int64_t* ticks, int32_t part, int32_t parts, int32_t timed) {                      \\
    return part ? 0 : run(batch, x, sums, batches, weights);                                  \\
  }
PROGRAM(gsb_part, 1)
PROGRAM(gsb_b4_part, 4)
PROGRAM(gsb_b2_part, 2)
"""


def block(symbol: str, batch: int) -> str:
    return (
        f"program {symbol} {batch}\n"
        f"memory {4096 * batch} 64 4096\n"
        f"input float32 2 {batch} 3 x y\n"
        f"output float32 1 {batch} sums\n"
        f"output int32 1 {batch} batches\n"
    )


def batches_by_hand(folder: Path) -> Path:
    blocks = block("gsb_part", 1) + block("gsb_b4_part", 4) + block("gsb_b2_part", 2)
    return by_hand(folder / "batches.so", HEADER + blocks, _BATCHES)


def test_a_call_is_cut_into_batches(program: Path, tmp_path: Path) -> None:
    model = batches_by_hand(tmp_path)
    assert output(program, "describe", model).splitlines()[3:] == [
        f"3 threads, {4 * 4096 + 3 * 64} bytes",
        "batches 1 2 4",
        "input x y float32 1 3",
        "output sums float32 1",
        "output batches int32 1",
    ]
    pieces = {1: [1], 2: [2] * 2, 3: [2] * 2 + [1], 4: [4] * 4, 7: [4] * 4 + [2] * 2 + [1]}
    pieces[9] = [4] * 8 + [1]
    for batch, expected in pieces.items():
        x = np.arange(3 * batch, dtype=np.float32).reshape(batch, 3)
        data = ran(program, model, x.tobytes(), tmp_path, threads=2, batch=batch)
        np.testing.assert_array_equal(np.frombuffer(data, np.float32, batch), x.sum(1))
        assert np.frombuffer(data, np.int32, offset=4 * batch).tolist() == expected


def test_children_of_a_busy_process_can_call(program: Path, tmp_path: Path) -> None:
    output(program, "forks", batches_by_hand(tmp_path), 1000)


def test_any_batch_gives_the_numbers_of_python(program: Path, tmp_path: Path) -> None:
    network, model = tmp_path / "mini.onnx", tmp_path / "mini.so"
    export(realistic_(Gsb(PRESETS["mini"]), 0), network, dynamic_batch=True)
    compile_model(network, resolve("native"), Options(model, batch=(1, 2, 4), verify=False))
    here = gsb_tvm.load(model)
    images = np.random.default_rng(6).standard_normal((9, 3, 32, 32), np.float32)
    for batch in range(1, 10):
        given, expected = images[:batch], here(images[:batch]).tobytes()
        for threads in (1, 3):
            assert ran(program, model, given.tobytes(), tmp_path, threads, batch) == expected


def test_batches_that_cannot_be_cut(program: Path, tmp_path: Path) -> None:
    blocks = block("gsb_b4_part", 4) + block("gsb_b2_part", 2)
    model = by_hand(tmp_path / "even.so", HEADER + blocks, _BATCHES)
    (tmp_path / "in.bin").write_bytes(bytes(36))
    said = output(program, "run", model, 1, 3, tmp_path / "in.bin", "out.bin", expected=1)
    assert said == (
        "error: a batch of 3 cannot be cut into batches of 2, 4, always the largest that fits "
        "first. Compile the model with --batch 1 among others.\n"
    )


_KINDS = """
int gsb_part(const uint8_t* b, const uint16_t* h, const float* z, const int8_t* none, float* y,
             uint8_t* k, int64_t* none2, void* memory, const float* weights, int64_t* ticks,
             int32_t part, int32_t parts, int32_t timed) {
  for (int i = 0; i < 4; ++i) {
    y[i] = b[i] ? h[i] : *z;
    k[i] = !b[i];
  }
  return 0;
}
"""


def test_every_kind_of_tensor(program: Path, tmp_path: Path) -> None:
    descriptor = HEADER + (
        "program gsb_part 0\nmemory 4096 0 4096\n"
        "input bool 1 4 b\ninput float16 1 4 h\ninput float32 0 z\ninput int8 2 3 0 n%0A100%25\n"
        "output float32 1 4 y\noutput bool 1 4 \noutput int64 1 0 none\n"
    )
    model = by_hand(tmp_path / "kinds.so", descriptor, _KINDS)
    given = np.array([1, 0, 1, 0], bool).tobytes() + np.arange(4, dtype=np.uint16).tobytes()
    data = ran(program, model, given + np.float32(7).tobytes(), tmp_path)
    np.testing.assert_array_equal(np.frombuffer(data, np.float32, 4), [0, 7, 2, 7])
    assert data[16:] == bytes([0, 1, 0, 1])
    assert "\ninput n\n100% int8 3 0\noutput y" in output(program, "describe", model)


def test_many_tensors(program: Path, tmp_path: Path) -> None:
    for count, expected in ((63, "loaded"), (64, "argument")):
        params = "".join(f"const float* x{i}, " for i in range(count))
        terms = " + ".join(f"{i + 1} * *x{i}" for i in range(count))
        function = (
            f"int gsb_part({params} float* y, void* memory, const float* weights, int64_t* ticks,"
            "int32_t part, int32_t parts, int32_t timed) "
            f"{{ *y = weights[1] * ({terms}) + part + parts; return 0; }}"
        )
        lines = "".join(f"input float32 0 x{i}\n" for i in range(count))
        descriptor = f"{HEADER}program gsb_part 0\nmemory 4096 0 4096\n{lines}output float32 0 y\n"
        model = by_hand(tmp_path / f"of{count}.so", descriptor, function)
        assert loaded(program, model)[0][0] == expected
    x = np.arange(63, dtype=np.float32)
    data = ran(program, tmp_path / "of63.so", x.tobytes(), tmp_path)
    assert np.frombuffer(data, np.float32) == 2 * (x * (x + 1)).sum() + 1


def test_on_arm(demo: Demo, tmp_path: Path) -> None:
    profile = resolve("llvm -mcpu=cortex-a72")
    prefix = emulate.command(profile)
    if prefix is None:
        pytest.skip("qemu-aarch64 is not installed")
    by = compiler("aarch64-linux-gnu-g++")
    program = built(HERE / "program.cpp", tmp_path / "program", "-O2", by=by)
    before = [*prefix, "-L", "/usr/aarch64-linux-gnu"]
    model = tmp_path / "model.so"
    compile_model(model_path(), profile, Options(model, verify=False))
    images = np.random.default_rng(5).random((8, 1, 1, 8, 8), np.float32)
    (tmp_path / "in.bin").write_bytes(images.tobytes())
    here = gsb_tvm.load(demo.path)
    expected = np.concatenate([here(image) for image in images])
    for threads in (1, 3):
        words = ["run", model, threads, 1, tmp_path / "in.bin", tmp_path / "out.bin"]
        output(*before, program, *words)
        logits = np.fromfile(tmp_path / "out.bin", np.float32).reshape(expected.shape)
        # Sums over rows are rounded in another order on a CPU with other vectors.
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)
