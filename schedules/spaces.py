"""What the spaces of several families have in common."""

from collections.abc import Iterable

from gsb_tvm.targets import Profile


def lanes_of(profile: Profile) -> tuple[int, ...]:
    """Lanes of 32 bits that vectors may have: the machine's, and on AVX-512 half of them.

    Shorter vectors repeat less where a row does not fill them, and take less power.
    """
    return (16, 8) if profile.has_avx512 else (profile.lanes,)


def cuts(count: int, sizes: Iterable[int]) -> list[int]:
    """Of sizes up to ``count`` those that cut it into different numbers of pieces.

    Of those that cut it into equally many pieces the smallest: it repeats least.
    """
    smallest: dict[int, int] = {}
    for size in sorted(sizes):
        if 1 <= size <= count:
            smallest.setdefault(-(-count // size), size)
    return list(smallest.values())
