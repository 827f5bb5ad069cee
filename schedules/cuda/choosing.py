"""What rules and spaces of CUDA families have in common."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from gsb_tvm.schedules.cuda.tile import Method, Shape, shared_bytes
from gsb_tvm.targets import Profile
from gsb_tvm.targets.gpus import STATIC_SHARED_BYTES, Gpu

_Parameters = TypeVar("_Parameters")


def gpu_of(profile: Profile) -> Gpu:
    """The GPU of a CUDA target."""
    assert profile.gpu is not None
    return profile.gpu


def methods(profile: Profile) -> list[Method]:
    """How a GPU can count bits; the rule's way for tiles first.

    Where bits cannot be multiplied, bytes are: at half of 1024 products a clock cycle of a T4's
    multiprocessor that is what 16 popcounts are, at all of them twice as many.
    """
    every = list(Method)
    return every if gpu_of(profile).has_bit_products else every[1:]


def method_by_word(profile: Profile) -> Method:
    """The rule's way where a fragment is multiplied by few others.

    To spread it to bytes would cost what the products save.
    """
    return Method.TENSOR if gpu_of(profile).has_bit_products else Method.POPCOUNT


def filling(
    fitting: Sequence[_Parameters], blocks: Callable[[_Parameters], int], profile: Profile
) -> _Parameters | None:
    """The first parameters that make a block for each multiprocessor, if any do."""
    most = gpu_of(profile).multiprocessors
    return next((found for found in fitting if blocks(found) >= most), None)


def fits(shape: Shape, planes: tuple[int, int]) -> bool:
    """Whether a block has the shared memory for a tile of planes of a and of b."""
    return shared_bytes(shape, *planes) <= STATIC_SHARED_BYTES


def fitting_tiles(
    shapes: Iterable[Shape], planes: tuple[int, int], profile: Profile
) -> list[Shape]:
    """``shapes`` by the rule's method, as far as they fit."""
    method = methods(profile)[0]
    return [found for s in shapes if fits(found := replace(s, method=method), planes)]


def tiles(
    shapes: Iterable[Shape], planes: tuple[int, int], stages: Iterable[int], profile: Profile
) -> Iterator[Shape]:
    """Each of ``shapes`` with panels of more or fewer words, more or fewer ahead, either method."""
    ahead = tuple(stages)
    for shape in shapes:
        for words in (4, 8, 16):
            for count in ahead:
                for method in methods(profile):
                    found = replace(shape, words=words, stages=count, method=method)
                    if fits(found, planes):
                        yield found
