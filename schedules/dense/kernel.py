"""The kernel of a dense layer: its phases, by the method that is chosen."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.specs import Dense, Kind
from gsb_tvm.schedules.dense import amx, counts, pairs, slices
from gsb_tvm.schedules.dense.epilogue import epilogue
from gsb_tvm.schedules.dense.formula import product
from gsb_tvm.schedules.dense.pairs_epilogue import pairs_epilogue
from gsb_tvm.schedules.dense.parameters import Parameters, rule
from gsb_tvm.schedules.dense.slices_epilogue import slices_epilogue
from gsb_tvm.schedules.dense.tiles import Method, Tiles, tiles
from gsb_tvm.schedules.sharing import Share, phase
from gsb_tvm.schedules.slots import Flag
from gsb_tvm.schedules.vector import prim_func
from gsb_tvm.targets import Profile

Buffer = Any


def kernel(spec: Dense, profile: Profile, parameters: Parameters | None = None) -> Any:
    """PrimFunc of ``spec``; its arguments are ``spec.inputs()``, then ``spec.outputs()``.

    ``spec.column_tile`` must be that of the ``parameters``, which are the rule's where not given.
    """
    chosen = parameters or rule(spec, profile)
    assert spec.column_tile == chosen.column_tile
    write = _WRITERS.get(chosen.method, _write_counts)
    tensors = [*spec.inputs(), *spec.outputs()]

    def body(*buffers: Buffer) -> None:
        named = {name: buffer for (name, _, _), buffer in zip(tensors, buffers, strict=True)}
        zeros = Flag(named["out_zeros"]) if "out_zeros" in named else None
        write(_Layer(spec, profile, chosen, named, zeros))
        if zeros is not None:
            zeros.write()

    return prim_func(tensors, body)


@dataclass(frozen=True)
class _Layer:
    """A kernel being written: its tensors by name, and the flag of what it writes."""

    spec: Dense
    profile: Profile
    chosen: Parameters
    named: dict[str, Buffer]
    zeros: Flag | None


def _write_tiles(layer: _Layer) -> None:
    """The phase of the layer by tile products."""
    spec, named = layer.spec, layer.named
    assert layer.chosen.steps is not None
    scratch = amx.Scratch(spec, layer.chosen.steps)
    with phase() as share:
        finish = epilogue(spec, named, layer.profile.lanes)
        amx.Nest(spec, named, finish, share, scratch).write()
        finish.leave(share, layer.zeros)


def _write_pairs(layer: _Layer) -> None:
    """The phase of the layer by pairs of bytes; of masked activations with zeros by single ones."""
    spec, named = layer.spec, layer.named
    spread = pairs.spread_activation(spec)

    def count(share: Share, activation: Kind) -> None:
        finish = pairs_epilogue(spec, named)
        form = product(activation, spec.weight)
        pairs.Nest(spec, named, form, finish, share, spread, layer.chosen).write()
        finish.leave(share, layer.zeros)

    _write_without_zeros(layer, count)


def _write_slices(layer: _Layer) -> None:
    """The phase of the layer by tables; of masked activations with zeros by single ones."""
    spec, named = layer.spec, layer.named
    prepared = slices.prepare(spec, named["a_bits"])

    def count(share: Share, activation: Kind) -> None:
        form = product(activation, spec.weight)
        finish = slices_epilogue(spec, named, form.factor)
        slices.Nest(spec, named, form, finish, share, prepared, layer.chosen).write()

    _write_without_zeros(layer, count)


def _write_without_zeros(layer: _Layer, count: Callable[[Share, Kind], None]) -> None:
    """The phase of the layer by ``count``, which knows no zeros; with any, by counting."""
    with phase() as share:
        _by_activation(
            layer,
            lambda kind: count(share, kind),
            lambda kind: _count(layer, tiles(layer.profile), share, kind),
        )


def _write_counts(layer: _Layer) -> None:
    """The phase of the layer by counting."""
    shape = layer.chosen.counts

    def count(kind: Kind) -> None:
        _count(layer, shape, share, kind)

    with phase() as share:
        _by_activation(layer, count, count)


def _by_activation(
    layer: _Layer, plain: Callable[[Kind], None], masked: Callable[[Kind], None]
) -> None:
    """``plain`` or ``masked`` of the activation's kind; without zeros a masked one is of signs."""
    activation = layer.spec.activation
    if activation is not Kind.MASKED:
        plain(activation)
        return
    with T.If(layer.named["a_zeros"][0] == 0):
        with T.Then():
            plain(Kind.SIGN)
        with T.Else():
            masked(Kind.MASKED)


def _count(layer: _Layer, shape: Tiles, share: Share, activation: Kind) -> None:
    """One form of the product by counting."""
    spec, named = layer.spec, layer.named
    finish = epilogue(spec, named, shape.lanes)
    counts.Nest(spec, shape, named, product(activation, spec.weight), finish, share).write()
    finish.leave(share, layer.zeros)


_WRITERS: dict[Method, Callable[[_Layer], None]] = {
    Method.TILES: _write_tiles,
    Method.PAIRS: _write_pairs,
    Method.SLICES: _write_slices,
}
