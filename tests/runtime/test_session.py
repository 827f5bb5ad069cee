import gc
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.runtime.build import Artefact, build
from gsb_tvm.runtime.session import Module, load


@pytest.fixture(scope="module")
def module(artefact: Artefact) -> Module:
    return load(artefact.path)


@pytest.fixture(scope="module")
def several(views, native, tmp_path_factory) -> Module:
    path = tmp_path_factory.mktemp("views") / "views.so"
    return load(build(views.module, native, path, views.metadata(native)).path)


def test_gives_the_reference(module: Module, popcount) -> None:
    np.testing.assert_allclose(module(*popcount.inputs), popcount.outputs[0], rtol=0, atol=2e-6)


def test_several_outputs_come_by_name(several: Module, views) -> None:
    outputs = several(*views.inputs)
    assert list(outputs) == ["z", "w", "same"]
    for got, expected in zip(outputs.values(), views.outputs, strict=True):
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == expected.dtype


def test_all_kinds_of_tensors(kinds, native, tmp_path: Path) -> None:
    module = load(build(kinds.module, native, tmp_path / "m.so", kinds.metadata(native)).path)
    for got, expected in zip(module(*kinds.inputs).values(), kinds.outputs, strict=True):
        np.testing.assert_array_equal(got, expected)
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)


def test_outputs_are_the_callers_own(several: Module, views) -> None:
    first = several(*views.inputs)
    kept = first["z"].copy()
    several(*(array * 0 for array in views.inputs))
    np.testing.assert_array_equal(first["z"], kept)
    first["same"][:] = -1
    assert views.inputs[1].tolist() == [3, 1]


def test_inputs_by_mapping_and_by_name(several: Module, views) -> None:
    x, i = views.inputs
    for outputs in (several({"i": i, "x": x}), several(i=i, x=x), several(x, i=i)):
        np.testing.assert_array_equal(outputs["w"], views.outputs[1])


def test_torch_in_torch_out(several: Module, views) -> None:
    x, i = (torch.from_numpy(array.copy()) for array in views.inputs)
    outputs = several(x.requires_grad_(), i)
    assert all(isinstance(value, torch.Tensor) for value in outputs.values())
    np.testing.assert_array_equal(outputs["w"].numpy(), views.outputs[1])


def test_while_another_thread_imports_torch(
    module: Module, popcount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    np.testing.assert_allclose(module(*popcount.inputs), popcount.outputs[0], rtol=0, atol=2e-6)


def test_any_dlpack_tensor(module: Module, popcount) -> None:
    class Foreign:
        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def __dlpack__(self, **options: object) -> object:
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self) -> tuple[int, int]:
            return (1, 0)

    np.testing.assert_array_equal(module(Foreign(popcount.inputs[0])), module(*popcount.inputs))


def test_inputs_that_lie_anywhere(several: Module, views) -> None:
    x, i = views.inputs
    expected = several(x, i)["w"]
    for shift in (4, 8, 16, 32, 60):
        room = np.zeros(x.nbytes + 128, np.uint8)
        start = -room.ctypes.data % 64 + shift
        crooked = room[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
        crooked[...] = x
        np.testing.assert_array_equal(several(crooked, i)["w"], expected)
    frozen = x.copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(several(frozen, i)["w"], expected)
    np.testing.assert_array_equal(several(np.asfortranarray(x), i)["w"], expected)
    np.testing.assert_array_equal(several(np.repeat(x, 2, axis=1)[:, ::2], i)["w"], expected)


@pytest.mark.parametrize(
    ("args", "named", "message"),
    [
        ([], {}, 'input "x" is not given, expected 2: x, i.'),
        (["x", "i", "x"], {}, "3 inputs given, expected 2: x, i."),
        (["x"], {"x": "x"}, 'input "x" is given twice.'),
        (["x"], {"j": "i"}, 'no input is called "j", expected 2: x, i.'),
    ],
)
def test_wrong_names(several: Module, views, args, named, message: str) -> None:
    values = dict(zip("xi", views.inputs, strict=True))
    with pytest.raises(UsageError) as caught:
        several(*(values[k] for k in args), **{k: values[v] for k, v in named.items()})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((4, 64)), 'input "x" is float64, expected float32. Convert it first.'),
        (np.zeros((4, 64), ">f4"), 'input "x" is >f4, expected float32. Convert it first.'),
        (
            np.zeros((1, 4, 64), "f4"),
            'input "x" has 3 dimensions (1, 4, 64), expected 2: (4, 64).',
        ),
        (
            np.zeros((4, 65), "f4"),
            'input "x" has shape (4, 65), expected (4, 64). '
            "Compile the model for another batch or image size if that is what you need.",
        ),
        (
            [[0.0] * 64] * 4,
            'input "x" is a list, expected a NumPy array, a torch tensor, or an object with '
            "__dlpack__.",
        ),
        (torch.zeros((4, 64), dtype=torch.bfloat16), "cannot be read as an array on the CPU"),
        (torch.zeros((4, 64), device="meta"), "cannot be read as an array on the CPU"),
    ],
)
def test_wrong_values(several: Module, views, value, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        several(value, views.inputs[1])
    assert message in str(caught.value)


def test_twenty_threads_at_once(several: Module, views) -> None:
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((4, 64)).astype(np.float32) for _ in range(20)]
    start, wrong = threading.Barrier(20), []

    def hammer(x: np.ndarray) -> None:
        start.wait()
        for _ in range(200):
            outputs = several(x, views.inputs[1])
            if not np.array_equal(outputs["z"], (x + x).reshape(-1) + 1):
                wrong.append(x)

    threads = [threading.Thread(target=hammer, args=(x,)) for x in inputs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_each_thread_has_memory_of_its_own(artefact: Artefact) -> None:
    module = load(artefact.path)
    rooms = [module._room(), module._room()]
    thread = threading.Thread(target=lambda: rooms.append(module._room()))
    thread.start()
    thread.join()
    assert rooms[0] is rooms[1]
    assert rooms[0] is not rooms[2]


def test_steps_are_timed(module: Module, popcount) -> None:
    before = module(*popcount.inputs)
    first, second = (module.step_ticks(popcount.inputs) for _ in range(2))
    assert [step.kernel for step in module.metadata.program.steps] == ["popmm", "matmul", "softmax"]
    assert first.shape == (4,)
    assert (np.diff(np.concatenate([first, second])) >= 0).all()
    assert first[-1] > first[0]
    np.testing.assert_array_equal(module(*popcount.inputs), before)


def test_runs_without_tvm(artefact: Artefact) -> None:
    script = f"""
import sys
import gsb_tvm
module = gsb_tvm.load({str(artefact.path)!r})
(spec,) = module.metadata.program.inputs
import numpy as np
module(np.zeros(spec.shape, spec.dtype))
print([name for name in ("tvm", "tvm_ffi", "onnx", "torch") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_save_and_load_again(module: Module, popcount, tmp_path: Path) -> None:
    module.save(tmp_path / "copy.so")
    copy = load(tmp_path / "copy.so")
    assert copy.metadata == module.metadata
    assert meta.read(tmp_path / "copy.so") == module.metadata
    np.testing.assert_array_equal(copy(*popcount.inputs), module(*popcount.inputs))
    assert (tmp_path / "copy.json").read_bytes() == module.metadata.json()


def test_a_new_artefact_under_an_old_name(popcount, changed, native, tmp_path: Path) -> None:
    path = tmp_path / "model.so"
    old = load(build(popcount.module, native, path, popcount.metadata(native)).path)
    before = old(*popcount.inputs)
    new = load(build(changed.module, native, path, changed.metadata(native)).path)
    np.testing.assert_allclose(new(*popcount.inputs), changed.outputs[0], rtol=1e-6)
    np.testing.assert_array_equal(old(*popcount.inputs), before)


def test_modules_leave_the_process(artefact: Artefact, popcount, tmp_path: Path) -> None:
    for number in range(3):
        path = tmp_path / f"leaving{number}.so"
        path.write_bytes(artefact.path.read_bytes())
        load(path)(*popcount.inputs)
    gc.collect()
    assert "leaving" not in Path("/proc/self/maps").read_text()


def test_files_are_closed_without_the_garbage_collector(artefact: Artefact) -> None:
    def opened() -> list[str]:
        files = [Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd")]
        return [str(file.resolve()) for file in files if file.is_symlink()]

    gc.collect()
    before = opened().count(str(artefact.path))
    gc.disable()
    try:
        for _ in range(3):
            load(artefact.path)
        assert opened().count(str(artefact.path)) == before
    finally:
        gc.enable()


def test_loads_through_a_relative_path(artefact: Artefact, popcount, monkeypatch) -> None:
    monkeypatch.chdir(artefact.path.parent)
    assert load("model.so")(*popcount.inputs).shape == (16, 10)


def test_report_lists_the_layers(module: Module) -> None:
    assert [(row.name, row.form) for row in module.report] == [("blocks.0.qkv", "packed")]
