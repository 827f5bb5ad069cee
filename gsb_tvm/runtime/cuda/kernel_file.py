"""One kernel for a GPU as a file of data: what a tuner makes and a machine with a GPU tries.

It loads without TVM, and holds nothing that a reader would execute by itself.
"""

from typing import Annotated

import msgspec

from gsb_tvm.dialect.errors import ArtefactError
from gsb_tvm.runtime import metadata as meta

_Size = Annotated[int, msgspec.Meta(ge=0, le=2**47)]  # as of what metadata believes


class GpuKernel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A compiled kernel.

    Attributes
    ----------
    arch
        The architecture of the code, as "sm_90".
    code
        A cubin.
    launches
        In order. An "input" is one of the kernel's tensors, its outputs behind its inputs; "memory"
        begins with the scratch, behind which the state lies.
    scratch_bytes
        Memory that a call may write and expects nothing of.
    state_bytes
        Memory that is zero before and behind every call.
    """

    arch: str
    code: bytes
    launches: tuple[meta.Launch, ...]
    scratch_bytes: _Size
    state_bytes: _Size


def encode(kernel: GpuKernel) -> bytes:
    """The bytes of a file."""
    return msgspec.msgpack.encode(kernel)


def decode(data: bytes) -> GpuKernel:
    """The kernel of a file's bytes.

    Raises
    ------
    ArtefactError
        They are something else.
    """
    try:
        return msgspec.msgpack.decode(data, type=GpuKernel)
    except (msgspec.MsgspecError, ValueError) as err:
        raise ArtefactError(
            f"no kernel for a GPU ({err}). The tuner and the board need the same gsb-tvm."
        ) from err
