"""Small lowered modules with NumPy references, and artefacts built from them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T

from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.build import Artefact, Code, build, generate
from gsb_tvm.targets import resolve
from gsb_tvm.targets.profile import Profile


@I.ir_module
class Popcount:
    @T.prim_func(s_tir=True)
    def popmm(
        A: T.Buffer((16, 8), "uint32"),
        B: T.Buffer((32, 8), "uint32"),
        C: T.Buffer((16, 32), "float32"),
    ):
        T.func_attr({"tirx.noalias": True})
        acc = T.sblock_alloc_buffer((16, 32), "int32")
        for i in T.serial(16):
            for j, k in T.grid(32, 8):
                with T.sblock("acc"):
                    vi, vj, vk = T.axis.remap("SSR", [i, j, k])
                    with T.init():
                        acc[vi, vj] = 0
                    acc[vi, vj] = acc[vi, vj] + T.Cast("int32", T.popcount(A[vi, vk] ^ B[vj, vk]))
        for i, j in T.grid(16, 32):
            with T.sblock("out"):
                vi, vj = T.axis.remap("SS", [i, j])
                C[vi, vj] = T.Cast("float32", 256 - 2 * acc[vi, vj])

    @R.function
    def main(
        x: R.Tensor((16, 8), "uint32"),
        bits: R.Tensor((32, 8), "uint32"),
        w: R.Tensor((32, 10), "float32"),
    ) -> R.Tensor((16, 10), "float32"):
        cls = Popcount
        with R.dataflow():
            h = R.call_tir(cls.popmm, (x, bits), out_ty=R.Tensor((16, 32), "float32"))
            y = R.matmul(h, w)
            z = R.nn.softmax(y, axis=-1)
            R.output(z)
        return z


@I.ir_module
class Views:
    """Reshape, split, a tuple result, an input returned as it is, two inputs, a scalar."""

    @R.function
    def main(x: R.Tensor((4, 64), "float32"), i: R.Tensor((2,), "int64")) -> R.Tuple(
        R.Tensor((256,), "float32"), R.Tensor((2, 64), "float32"), R.Tensor((2,), "int64")
    ):
        with R.dataflow():
            y = R.add(x, x)
            z = R.add(R.reshape(y, (256,)), R.const(1.0, "float32"))
            halves = R.split(y, 2, axis=0)
            w = R.multiply(halves[1], halves[0])
            gv = (z, w, i)
            R.output(gv)
        return gv


@I.ir_module
class Kinds:
    """Booleans, halves, bytes, and tensors without an extent."""

    @R.function
    def main(
        b: R.Tensor((4,), "bool"),
        h: R.Tensor((4,), "float16"),
        z: R.Tensor((), "float32"),
        i: R.Tensor((4,), "int8"),
    ) -> R.Tuple(
        R.Tensor((4,), "float32"),
        R.Tensor((4,), "bool"),
        R.Tensor((4,), "int8"),
        R.Tensor((), "float32"),
    ):
        with R.dataflow():
            y = R.where(b, R.astype(h, "float32"), z)
            k = R.logical_not(b)
            q = R.add(i, i)
            w = R.add(z, z)
            gv = (y, k, q, w)
            R.output(gv)
        return gv


def tensor(name: str, kind: Any) -> meta.Tensor:
    shape = tuple(int(extent) for extent in kind.shape.values)
    return meta.Tensor(str(name), shape, str(kind.dtype))


@dataclass(frozen=True)
class Case:
    """A module with inputs and the outputs NumPy expects."""

    module: Any
    inputs: list[np.ndarray]
    outputs: list[np.ndarray]
    names: tuple[str, ...]

    def metadata(self, profile: Profile) -> meta.Metadata:
        main = self.module["main"]
        types = getattr(main.ret_ty, "fields", [main.ret_ty])
        layer = meta.Layer("blocks.0.qkv", "linear", (16, 256, 32), "packed", "", 131072, 1024)
        return meta.Metadata(
            versions=meta.versions(),
            target=meta.target_of(profile),
            model=meta.Model("model.onnx", "0" * 64),
            programs=(
                meta.Program(
                    inputs=tuple(tensor(param.name, param.ty) for param in main.params),
                    outputs=tuple(map(tensor, self.names, types)),
                    layers=(layer,),
                ),
            ),
        )

    def claiming(self, profile: Profile, **changes: object) -> meta.Metadata:
        """Metadata whose program claims something else."""
        metadata = self.metadata(profile)
        return metadata.only(msgspec.structs.replace(metadata.program, **changes))


def softmax(y: np.ndarray) -> np.ndarray:
    e = np.exp(y - y.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.fixture(scope="session")
def popcount() -> Case:
    rng = np.random.default_rng(7)
    x = rng.integers(0, 2**32, (16, 8), dtype=np.uint32)
    bits = rng.integers(0, 2**32, (32, 8), dtype=np.uint32)
    w = (rng.standard_normal((32, 10)) * 0.05).astype(np.float32)
    module = relax.transform.BindParams("main", {"bits": bits, "w": w})(Popcount)
    ones = np.unpackbits((x[:, None] ^ bits).view(np.uint8), axis=-1).sum(-1, dtype=np.int64)
    return Case(module, [x], [softmax((256 - 2 * ones) @ w.astype(np.float64))], ("probabilities",))


@pytest.fixture(scope="session")
def views() -> Case:
    x = np.random.default_rng(8).standard_normal((4, 64)).astype(np.float32)
    i = np.array([3, 1])
    y = x + x
    return Case(Views, [x, i], [y.reshape(256) + 1, y[2:] * y[:2], i], ("z", "w", "same"))


@pytest.fixture(scope="session")
def kinds() -> Case:
    b, h = np.array([1, 0, 1, 0], bool), np.arange(4, dtype=np.float16)
    z, i = np.array(7, np.float32), np.array([1, -2, 3, 4], np.int8)
    outputs = [np.array([0, 7, 2, 7], np.float32), ~b, i * 2, np.array(14, np.float32)]
    return Case(Kinds, [b, h, z, i], outputs, ("y", "k", "q", "w"))


@pytest.fixture(scope="session")
def native() -> Profile:
    return resolve("native")


@pytest.fixture(scope="session")
def a72() -> Profile:
    return resolve("llvm -mcpu=cortex-a72")


@pytest.fixture(scope="session")
def popcount_code(popcount: Case, native: Profile) -> Code:
    return generate(popcount.module, native)


@pytest.fixture(scope="session")
def artefact(popcount: Case, native: Profile, tmp_path_factory: pytest.TempPathFactory) -> Artefact:
    path = tmp_path_factory.mktemp("artefact") / "model.so"
    return build(popcount.module, native, path, popcount.metadata(native))


@pytest.fixture(scope="session")
def foreign(popcount: Case, a72: Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("foreign") / "model.so"
    return build(popcount.module, a72, path, popcount.metadata(a72)).path


@pytest.fixture(scope="session")
def changed(popcount: Case) -> Case:
    """The same model with other weights."""
    module = relax.transform.BindParams(
        "main", {"bits": np.zeros((32, 8), np.uint32), "w": np.zeros((32, 10), np.float32)}
    )(Popcount)
    return Case(module, popcount.inputs, [np.full((16, 10), 0.1)], popcount.names)
