"""The examples do what their README says, built as it says."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import gsb_tvm
from gsb_tvm.driver import Options, compile_model
from gsb_tvm.models.demo import model_path
from gsb_tvm.runtime import emulate
from gsb_tvm.targets import resolve
from tests import tiny_models as tiny
from tests.examples.conftest import (
    EXAMPLES,
    build,
    cmake,
    compiled,
    done,
    first_words,
    needs_stb,
    session_package,
)
from tests.libcuda.build import environment
from tests.libcuda.emulations import emulating


def png(path: Path, grey: np.ndarray) -> Path:
    """A picture written by whatever library is here: the reader is not ours either."""
    image = pytest.importorskip("matplotlib.image")
    image.imsave(path, grey, cmap="gray", vmin=0, vmax=255)
    return path


def test_three_commands_from_an_emitted_folder(tmp_path: Path) -> None:
    library = compiled(tmp_path / "library", "native", "digits")
    done(cmake(), "-S", library / "example", "-B", tmp_path / "build")
    done(cmake(), "--build", tmp_path / "build")
    image = np.random.default_rng(0).random((1, 1, 8, 8), np.float32)
    image.tofile(tmp_path / "image.bin")
    printed = done(tmp_path / "build/digits_example", "--threads", 2, tmp_path / "image.bin")
    expected = gsb_tvm.build(model_path())(image)[0]
    np.testing.assert_array_equal(np.array(printed.split(), np.float32), expected)
    # A file of another size, and one that is not there.
    (tmp_path / "short.bin").write_bytes(b"1234")
    program = tmp_path / "build/digits_example"
    assert "expected 256 bytes" in done(program, tmp_path / "short.bin", expected=1)
    assert "cannot be opened" in done(program, tmp_path / "none.bin", expected=1)


def test_a_library_for_another_architecture_is_refused(tmp_path: Path) -> None:
    library = compiled(tmp_path / "library", "llvm -mcpu=cortex-a72", "digits")
    said = done(cmake(), "-S", library / "example", "-B", tmp_path / "build", expected=1)
    sentences = (
        "digits was compiled for aarch64, and this build is for x86_64. Compile the model for "
        "that, or set CMAKE_SYSTEM_PROCESSOR in the toolchain file."
    )
    assert sentences in " ".join(said.split())


def test_pkg_config(tmp_path: Path) -> None:
    tool = shutil.which("pkg-config") or pytest.skip("pkg-config is not installed")
    library = compiled(tmp_path / "library", "native", "digits")
    environment = {**os.environ, "PKG_CONFIG_PATH": str(library / "lib/pkgconfig")}
    flags = subprocess.run(
        [tool, "--cflags", "--libs", "digits"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    program = tmp_path / "program"
    gcc = shutil.which("gcc") or pytest.skip("gcc is not installed")
    done(gcc, library / "example/main.c", *flags.stdout.split(), "-o", program)
    assert len(done(program).split()) == 10


def test_classify_in_c(picture: Path, tmp_path: Path) -> None:
    needs_stb()
    library = compiled(tmp_path / "library", "native", "gsb_digits")
    folder = build(EXAMPLES / "c", tmp_path / "build", f"-DMODEL={library}")
    assert first_words(done(folder / "classify", picture))[0].startswith("6 (")
    assert "error: none.ppm" in done(folder / "classify", "none.ppm", expected=1)


def test_classify_in_cpp(model: Path, picture: Path, tmp_path: Path) -> None:
    needs_stb()
    folder = build(EXAMPLES / "cpp", tmp_path / "build", session_package())
    said = first_words(done(folder / "classify", model, picture))
    assert said[0].startswith("6 (")
    grey = np.frombuffer(picture.read_bytes()[-128 * 128 * 3 :], np.uint8).reshape(128, 128, 3)
    also = png(tmp_path / "six.png", grey[..., 0])
    assert first_words(done(folder / "classify", model, also))[0].startswith("6 (")
    assert "not a shared library" in done(folder / "classify", picture, picture, expected=1)


def test_classify_on_a_gpu(picture: Path, tmp_path: Path) -> None:
    needs_stb()
    model, kernels = tmp_path / "model.so", tmp_path / "kernels"
    kernels.mkdir()
    with emulating(kernels):
        compiled(model, "cuda -arch=sm_90")
    folder = build(EXAMPLES / "cuda", tmp_path / "build", session_package())
    words = [folder / "classify", model, picture, picture]
    said = first_words(done(*words, env=environment(kernels)))
    assert len(said) == 2
    assert said[0].startswith("6 (")
    assert said[0] == said[1]
    (tmp_path / "libcuda.so.1").touch()  # before one that the system may have
    without = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    assert "NVIDIA's driver is not here" in done(*words, env=without, expected=1)


def ask_for_ever(host: str, port: int, answered: threading.Event) -> None:
    with contextlib.suppress(OSError), socket.create_connection((host, port)) as connection:
        connection.sendall(bytes(256))
        while connection.recv(40, socket.MSG_WAITALL):
            answered.set()
            connection.sendall(bytes(256))


def test_the_server(model: Path, tmp_path: Path) -> None:
    folder = build(EXAMPLES / "server", tmp_path / "build", session_package())
    module = gsb_tvm.load(model)
    images = np.random.default_rng(1).random((40, 1, 1, 8, 8), np.float32)
    command = [str(folder / "server"), str(model), "0", "3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        host, port = server.stdout.readline().strip().split(":")
        answers: dict[int, np.ndarray] = {}

        def ask(client: int) -> None:
            with socket.create_connection((host, int(port)), timeout=60) as connection:
                for i in range(client, len(images), 8):
                    connection.sendall(images[i].tobytes())
                    data = connection.recv(40, socket.MSG_WAITALL)
                    answers[i] = np.frombuffer(data, np.float32)

        clients = [threading.Thread(target=ask, args=(client,)) for client in range(8)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert len(answers) == len(images)
        # Clients that never leave: one asks on and on, one does not listen.
        answered = threading.Event()
        asking = threading.Thread(target=ask_for_ever, args=(host, int(port), answered))
        asking.start()
        assert answered.wait(timeout=60)
        with socket.create_connection((host, int(port))) as deaf:
            deaf.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while deaf.send(bytes(1 << 16)):
                    pass
            server.send_signal(signal.SIGTERM)
            try:
                assert server.wait(timeout=60) == 0
            finally:
                server.kill()
        asking.join()
    for i, image in enumerate(images):
        np.testing.assert_array_equal(answers[i], module(image)[0])


def test_the_server_refuses_a_model_that_no_worker_could_run(tmp_path: Path) -> None:
    folder = build(EXAMPLES / "server", tmp_path / "build", session_package())
    made = tiny.binary_linear(
        shape=("n", tiny.TOKENS, tiny.FEATURES), out_shape=("n", tiny.TOKENS, tiny.COLUMNS)
    )
    options = Options(tmp_path / "pairs.so", batch=(2, 4), verify=False)
    compile_model(made, resolve("native"), options)
    said = done(folder / "server", tmp_path / "pairs.so", 0, expected=1)
    assert said.startswith("error: a batch of 1 cannot be cut into batches of 2, 4")


def test_a_superbuild_for_the_raspberry_pi(picture: Path, tmp_path: Path, monkeypatch) -> None:
    needs_stb()
    if shutil.which("aarch64-linux-gnu-g++") is None:
        pytest.skip("g++-aarch64-linux-gnu is not installed")
    here = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{here}{os.pathsep}{os.environ['PATH']}")
    source, folder = EXAMPLES / "raspberry-pi", tmp_path / "build"
    done(cmake(), "-S", source, "-B", folder, "-DOPTIONS=--no-verify")
    done(cmake(), "--build", tmp_path / "build")
    board = tmp_path / "build/board"
    prefix = emulate.command(resolve("raspberry-pi/4b-aarch64"))
    if prefix is None:
        pytest.skip("qemu-aarch64 is not installed")
    root = ("-L", "/usr/aarch64-linux-gnu")
    alone = done(*prefix, *root, board / "c/classify", picture)
    assert first_words(alone)[0].startswith("6 (")
    shared = done(*prefix, *root, board / "cpp/classify", board / "model.so", picture)
    assert first_words(shared)[0].startswith("6 (")
