"""Attention times values on CUDA: values turned in shared memory, products in registers.

Each word of attention is read once from global memory, into the registers of the warp that
multiplies it; values once by every block of a head. In a batch of 256 the 24 kB of a head of
DeiT-Small are what bounds it, one image is bound by waiting: for memory, once, and for products.

``o = w[0, 0] * (P_0 . V_0) + C``: products are exact, C sums the weighted products of all other
pairs of planes in a fixed order, every step is rounded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tvm.script.ir_builder import tirx as T

from gsb_tvm.dialect.bits import padded_tokens, words
from gsb_tvm.dialect.specs import AttentionValue
from gsb_tvm.schedules.attention_value import cuda_values
from gsb_tvm.schedules.attention_value.cuda_head import Head
from gsb_tvm.schedules.attention_value.cuda_output import Output
from gsb_tvm.schedules.attention_value.cuda_popcount import Lanes
from gsb_tvm.schedules.attention_value.cuda_tensor import Fragments
from gsb_tvm.schedules.attention_value.cuda_values import Values, Where
from gsb_tvm.schedules.cuda.choosing import filling, method_by_word, methods
from gsb_tvm.schedules.cuda.flag import Flag
from gsb_tvm.schedules.cuda.grid import WARP, Place, launch, prim_func, synchronize
from gsb_tvm.schedules.cuda.tile import MMA_ROWS, Method
from gsb_tvm.schedules.vector import Buffer, Expr, bind
from gsb_tvm.targets import Profile
from gsb_tvm.targets.gpus import STATIC_SHARED_BYTES


@dataclass(frozen=True)
class Parameters:
    """Sizes of a block.

    Attributes
    ----------
    row_tiles
        Rows of 16 queries of a warp.
    warps
        Of a block, one below the other.
    words
        Words of channels: a divisor of those of a head.
    where
        Where turned values lie.
    method
        How bits are counted.
    sparse
        Whether products of masks that meet nowhere are left out: less work, more waiting.
    """

    row_tiles: int
    warps: int
    words: int
    where: Where = Where.SHARED
    method: Method = Method.TENSOR
    sparse: bool = True

    @property
    def threads(self) -> int:
        """Of a block."""
        return WARP * self.warps

    def needs_keys(self, spec: AttentionValue) -> bool:
        """Whether it matters where value masks are not zero."""
        return self.sparse and spec.v_groups > 1


def _tiles(spec: AttentionValue) -> int:
    return padded_tokens(spec.v.tokens) // MMA_ROWS


def _row_blocks(spec: AttentionValue, chosen: Parameters) -> int:
    return -(-_tiles(spec) // (chosen.row_tiles * chosen.warps))


def blocks(spec: AttentionValue, chosen: Parameters) -> int:
    """Blocks of the launch."""
    heads = spec.v.batch * spec.v.groups
    return heads * (words(spec.v.width) // chosen.words) * _row_blocks(spec, chosen)


def rule(spec: AttentionValue, profile: Profile) -> Parameters:
    """The largest block of which there is one for each multiprocessor; else the smallest."""
    method = method_by_word(profile)
    fitting = [replace(chosen, method=method) for chosen in _sizes(spec, _RULE)]
    enough = filling(fitting, lambda chosen: blocks(spec, chosen), profile)
    # Where warps are few, each is waited for.
    return enough or replace(fitting[-1], sparse=method is Method.POPCOUNT)


def space(spec: AttentionValue, profile: Profile) -> Iterator[Parameters]:
    """Blocks of more or fewer queries and channels, either method, values turned here or before."""
    for chosen in _sizes(spec, _SPACE):
        for method in methods(profile):
            ways = [True] if method is Method.POPCOUNT else [True, False]
            for sparse in ways:
                found = replace(chosen, method=method, sparse=sparse)
                yield found
                if chosen.where is Where.SHARED:
                    yield replace(found, where=Where.GLOBAL)


_RULE = ((1, 16), (1, 8), (1, 4))  # tiles of queries of a warp, and warps at most
_SPACE = ((2, 16), (2, 8), (2, 4), (1, 16), (1, 8), (1, 4), (1, 2))


def _sizes(spec: AttentionValue, sizes: Sequence[tuple[int, int]]) -> list[Parameters]:
    """Blocks by tiles of a warp and warps at most, first with most words of channels."""
    found = []
    count = words(spec.v.width)
    for each in sorted((d for d in range(1, 5) if count % d == 0), reverse=True):
        fits = cuda_values.shared_bytes(spec, each) <= STATIC_SHARED_BYTES
        if not fits and each > 1:
            continue
        where = Where.SHARED if fits else Where.GLOBAL
        for row_tiles, warps in sizes:
            # As many warps as share the tiles evenly among as few blocks.
            groups = -(-_tiles(spec) // row_tiles)
            even = -(-groups // -(-groups // warps))
            found.append(Parameters(row_tiles, even, each, where))
    return found


def kernel(spec: AttentionValue, _profile: Profile, chosen: Parameters) -> Any:
    """PrimFunc of ``spec``; its arguments are ``spec.inputs()``, then ``spec.outputs()``."""
    assert words(spec.v.width) % chosen.words == 0
    tensors = [*spec.inputs(), *spec.outputs()]
    return prim_func(tensors, lambda named: _Kernel(spec, chosen, named).write())


class _Kernel:
    """A kernel being written."""

    def __init__(self, spec: AttentionValue, chosen: Parameters, named: dict[str, Buffer]) -> None:
        self._spec, self._chosen, self._t = spec, chosen, named

    def write(self) -> None:
        """A launch that turns values, if they lie in global memory, and one that multiplies."""
        spec, chosen = self._spec, self._chosen
        flag = Flag(self._t["out_zeros"]) if "out_zeros" in self._t else None
        values = None
        if chosen.where is Where.GLOBAL:
            values = Values(spec, chosen.words, chosen.where)
            turned = blocks(spec, chosen) // _row_blocks(spec, chosen)
            with launch((turned,), chosen.threads) as place:
                head = self._head(place.block[0])
                values.fill(head, place, head.zeros(), chosen.needs_keys(spec))
        count = blocks(spec, chosen)
        with launch((count,), chosen.threads) as place:
            head = self._head(bind(place.block[0] // _row_blocks(spec, chosen)))
            output = Output(head)
            self._multiply(head, place, values, output)
            if flag is not None:
                flag.write(place, count, output.missing[0] != T.uint32(0))

    def _head(self, block: Expr) -> Head:
        """Of a block by its number among those of the same queries."""
        word_blocks = words(self._spec.v.width) // self._chosen.words
        unit = bind(block // word_blocks)
        batch, head = bind(unit // self._spec.v.groups), bind(unit % self._spec.v.groups)
        first = bind(block % word_blocks * self._chosen.words)
        return Head(self._spec, self._t, unit, batch, head, first)

    def _multiply(self, head: Head, place: Place, turned: Values | None, output: Output) -> None:
        """Multiply values turned before, or turn them first."""
        spec, chosen = self._spec, self._chosen
        zeros = head.zeros()
        values = turned or Values(spec, chosen.words, chosen.where)
        of_block = place.block[0] % _row_blocks(spec, chosen) * chosen.warps + place.warp
        first = bind(of_block * chosen.row_tiles)
        which = (head, values, place, first, chosen.row_tiles, chosen.sparse)
        warp = (
            Lanes(*which) if chosen.method is Method.POPCOUNT else Fragments(*which, chosen.method)
        )
        warp.read()
        if turned is None:
            values.fill(head, place, zeros, chosen.needs_keys(spec))
            synchronize()
        if zeros is None:
            warp.compute(False, chosen.words, output)
            return
        with T.If(zeros):
            with T.Then():
                warp.compute(True, chosen.words, output)
            with T.Else():
                warp.compute(False, chosen.words, output)
