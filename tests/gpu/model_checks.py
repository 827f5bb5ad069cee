"""Whole models: the numbers of the CPU's artefact, whoever calls and however."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gsb_tvm.runtime.cuda.session import CudaModule, load_cuda
from gsb_tvm.runtime.verify import EXACT, row_errors
from tests.gpu import folder as layout
from tests.gpu.drawing import Array, digest, images
from tests.gpu.folder import Model, Reference, contents
from tests.gpu.rows import Row
from tests.gpu.stages import Check
from tests.gpu.widening import order

_CALLS, _THREADS = 50, 8
_WRONG_CALLS, _WRONG_IMAGES = 1 / 4, 1 / 8


def units(folder: Path) -> list[str]:
    """Each reference of each model, then each way to call a model."""
    models = contents(folder).models
    against = [f"{model.name}, batch {each.batch}" for model in models for each in model.references]
    return [*against, *(f"{model.name}, {way}" for model in models for way in _WAYS)]


def opened(folder: Path, _wanted: Sequence[str]) -> Check:
    """The models, on the GPU when they are first asked for."""
    models = {model.name: model for model in contents(folder).models}
    loaded: dict[str, CudaModule] = {}

    def check(unit: str) -> Iterator[Row]:
        name, _, what = unit.partition(", ")
        model = models[name]
        if name not in loaded:
            loaded[name] = load_cuda(layout.artefact(folder, model))
        if what in _WAYS:
            yield _same(unit, _WAYS[what](loaded[name], _calls(loaded[name], model)))
        else:
            reference = next(each for each in model.references if what == f"batch {each.batch}")
            wanted = np.load(layout.references(folder, model))[reference.key]
            yield against(unit, loaded[name], reference, wanted)

    return check


def against(unit: str, module: CudaModule, reference: Reference, wanted: Array) -> Row:
    """A model's outputs against a CPU's, (calls, images, classes).

    Rounding may turn a bit all the same, and where images of a batch share their largest value, all
    of them move with it. So one call in four may differ, and one image in eight of the others.
    """
    (spec,) = module.metadata.program.inputs
    drawn = reference.drawn
    if digest(spec, drawn, reference.seeds) != reference.digest:
        return Row(unit, "failed", "NumPy draws other images here than where outputs were stored")
    errors = []
    for seed, outputs in zip(reference.seeds, wanted, strict=True):
        x = images(spec, drawn, seed)
        if reference.batch == 1:
            got = np.concatenate([module(x[at : at + 1]) for at in range(len(x))])
        else:
            which = order(reference.batch, drawn)
            got, outputs = module(x[which]), outputs[which]
        errors.append(row_errors([got], [outputs], len(got)))
    return judged(unit, np.array(errors))


def judged(unit: str, errors: Array) -> Row:
    """What came of errors, (calls, images)."""
    exact = errors < EXACT
    right = int((exact.mean(axis=1) >= 1 - _WRONG_IMAGES).sum())
    figures = {"calls": len(errors), "right": right, "images": exact.size}
    figures |= {"exact": int(exact.sum()), "largest_error": float(errors.max())}
    verdict = "ok" if right >= (1 - _WRONG_CALLS) * len(errors) else "failed"
    return Row(unit, verdict, "against the CPU", figures)


def _calls(module: CudaModule, model: Model) -> list[Array]:
    """Inputs of calls of the smallest batch."""
    (spec,) = module.metadata.program.inputs
    x = images(spec, 1, model.references[0].seeds[0])
    size = max(1, module.metadata.program.batch)
    return [x[at : at + size] for at in range(0, len(x) - size + 1, size)]


def _same(unit: str, complaint: str) -> Row:
    return Row(unit, "failed" if complaint else "ok", complaint)


def _differing(got: Any, wanted: Array) -> str:
    """How outputs of the same program on the same inputs differ; they may not."""
    array = got.get() if hasattr(got, "get") else got.cpu().numpy() if hasattr(got, "cpu") else got
    if np.array_equal(array, wanted):
        return ""
    return f"{int((array != wanted).sum())} of {wanted.size} numbers differ from another call's"


def _first(complaints: Iterator[str]) -> str:
    return next(filter(None, complaints), "")


def _again(module: CudaModule, drawn: Sequence[Array]) -> str:
    wanted = [module(x) for x in drawn]
    return _first(_differing(module(x), y) for x, y in zip(drawn, wanted, strict=True))


def _torch(module: CudaModule, drawn: Sequence[Array]) -> str:
    import torch

    pairs = [(torch.from_numpy(x).cuda(), module(x)) for x in drawn]
    return _first(_differing(module(x), y) for x, y in pairs)


def _cupy(module: CudaModule, drawn: Sequence[Array]) -> str:
    import cupy

    pairs = [(cupy.asarray(x), module(x)) for x in drawn]
    cupy.cuda.Device().synchronize()
    with cupy.cuda.Stream(non_blocking=True) as stream:
        found = _first(_differing(module(x), y) for x, y in pairs)
        stream.synchronize()
    return found


def _out(module: CudaModule, drawn: Sequence[Array]) -> str:
    import torch

    stream = torch.cuda.Stream()
    for x in drawn:
        wanted = module(x)
        out = torch.empty(wanted.shape, device="cuda")
        given = torch.from_numpy(x).cuda()
        stream.wait_stream(torch.cuda.current_stream())
        module(given, out=out, stream=stream)
        stream.synchronize()
        if found := _differing(out, wanted):
            return found
    return ""


def _streams(module: CudaModule, drawn: Sequence[Array]) -> str:
    """Calls on several streams, none of which waits for another."""
    import torch

    wanted = [module(x) for x in drawn]
    given = [torch.from_numpy(x).cuda() for x in drawn]
    streams = [torch.cuda.Stream() for _ in given]
    torch.cuda.synchronize()
    results = []
    for _ in range(_CALLS):
        for x, stream in zip(given, streams, strict=True):
            with torch.cuda.stream(stream):
                results.append(module(x))
    torch.cuda.synchronize()
    return _first(_differing(y, wanted[i % len(wanted)]) for i, y in enumerate(results))


def _threads(module: CudaModule, drawn: Sequence[Array]) -> str:
    wanted = [module(x) for x in drawn]
    found: list[str] = []

    def call(number: int) -> None:
        try:
            for i in range(_CALLS):
                at = (i + number) % len(drawn)
                found.append(_differing(module(drawn[at]), wanted[at]))
        except Exception as err:
            found.append(f"thread {number}: {err}")

    threads = [threading.Thread(target=call, args=(number,)) for number in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return _first(iter(found))


def _torch_graph(module: CudaModule, drawn: Sequence[Array]) -> str:
    """A call in a graph that PyTorch records, replayed on other images."""
    import torch

    given = torch.from_numpy(drawn[0]).cuda()
    out = torch.empty_like(module(given))
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        module(given, out=out)
    for x in drawn:
        given.copy_(torch.from_numpy(x))
        graph.replay()
        torch.cuda.synchronize()
        if found := _differing(out, module(x)):
            return found
    return ""


def _cut(module: CudaModule, drawn: Sequence[Array]) -> str:
    """A batch that is no program's is the calls that it is cut into."""
    batches = [program.batch for program in module.metadata.programs]
    if len(batches) < 2:
        return ""
    x = np.concatenate(drawn)[: len(drawn)]
    x = np.concatenate([x] * (batches[1] // len(x) + 1))[: batches[1] + 1]
    return _differing(module(x), np.concatenate([module(x[:-1]), module(x[-1:])]))


_WAYS: dict[str, Callable[[CudaModule, Sequence[Array]], str]] = {
    "called again": _again,
    "tensors of torch": _torch,
    "arrays of cupy": _cupy,
    "out and stream": _out,
    "several streams": _streams,
    "several threads": _threads,
    "in torch's graph": _torch_graph,
    "cut batches": _cut,
}
