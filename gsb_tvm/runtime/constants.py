"""The constants of an artefact's programs, in one block that all of them read."""

import hashlib

from gsb_tvm.runtime.elf import ALIGNMENT


class Constants:
    """Tensors in the order of their first use; equal bytes stand there once.

    A model for a batch of 4 has the weights of the model for a batch of 1, so an artefact that
    holds both grows by code alone.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._places: dict[tuple[int, bytes], int] = {}

    def __len__(self) -> int:
        return len(self._data)

    def place(self, tensor: bytes) -> int:
        """Offset of a tensor's bytes, which are added where they are new."""
        key = len(tensor), hashlib.sha256(tensor).digest()
        if key not in self._places:
            self._data += bytes(-len(self._data) % ALIGNMENT)
            self._places[key] = len(self._data)
            self._data += tensor
        return self._places[key]

    def data(self) -> bytes:
        """All of them; at least one byte, because a symbol stands for them."""
        return bytes(self._data) or bytes(1)
