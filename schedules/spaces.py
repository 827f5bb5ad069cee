"""What the spaces of several families have in common."""

from gsb_tvm.targets import Profile


def lanes_of(profile: Profile) -> tuple[int, ...]:
    """Lanes of 32 bits that vectors may have: the machine's, and on AVX-512 half of them.

    Shorter vectors repeat less where a row does not fill them, and take less power.
    """
    return (16, 8) if profile.has_avx512 else (profile.lanes,)
