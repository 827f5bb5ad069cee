"""Files of one kernel for a GPU: what is written is read, and nothing else is."""

import msgspec
import pytest

from gsb_tvm.dialect.errors import ArtefactError
from gsb_tvm.runtime.cuda.kernel_file import GpuKernel, decode, encode
from gsb_tvm.runtime.metadata import Launch, Place

POINTERS = (Place("input", 0), Place("memory", 8))
KERNEL = GpuKernel(
    arch="sm_90",
    code=b"\x7fELF",
    launches=(Launch("main", (2, 1, 1), (128, 1, 1), POINTERS, (0,)),),
    scratch_bytes=256,
    state_bytes=4,
)


def test_what_is_written_is_read() -> None:
    assert decode(encode(KERNEL)) == KERNEL


def test_no_part_of_a_file_is_a_kernel() -> None:
    data = encode(KERNEL)
    for cut in range(len(data)):
        with pytest.raises(ArtefactError, match="no kernel for a GPU"):
            decode(data[:cut])


@pytest.mark.parametrize(
    "changes",
    [
        {"scratch_bytes": -1},
        {"state_bytes": 2**48},
        {"launches": [["no name", [1, 1, 1], [1, 1, 1], [], [0]]]},
        {"launches": [["main", [1, 1], [1, 1, 1], [], [0]]]},
        {"launches": [["main", [1, 1, 1], [1, 1, 1], [["elsewhere", 0]], [0]]]},
        {"more": 1},
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, object]) -> None:
    fields = {**msgspec.to_builtins(KERNEL, builtin_types=[bytes]), **changes}
    with pytest.raises(ArtefactError, match="The tuner and the board need the same gsb-tvm"):
        decode(msgspec.msgpack.encode(fields))
