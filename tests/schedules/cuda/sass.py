"""Instructions of machine code, as NVIDIA's disassembler shows them."""

import re
import subprocess
import tempfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)")


_FUNCTION = re.compile(r"^\.text\.(\w+):", re.MULTILINE)


def instructions(cubin: bytes) -> Counter[str]:
    """How often each instruction stands in a cubin, without its modifiers."""
    return Counter(_INSTRUCTION.findall(_disassembled(cubin)))


def instructions_of(cubin: bytes) -> dict[str, Counter[str]]:
    """The same of each function."""
    _, *parts = _FUNCTION.split(_disassembled(cubin))
    return {
        name: Counter(_INSTRUCTION.findall(text))
        for name, text in zip(parts[::2], parts[1::2], strict=True)
    }


def _disassembled(cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run(
            [str(_nvdisasm()), "-c", file.name], capture_output=True, text=True, check=True
        ).stdout


def _nvdisasm() -> Path:
    spec = find_spec("nvidia.cu13")
    assert spec is not None, "pip install nvidia-cuda-nvdisasm"
    (folder,) = spec.submodule_search_locations or [""]
    return Path(folder) / "bin" / "nvdisasm"
