"""Commands import TVM without PyTorch; whoever wants PyTorch finds it afterwards."""

import subprocess
import sys

import pytest

from gsb_tvm.dialect.without_torch import without_torch

IMPORTED = """
import sys
from gsb_tvm.dialect.without_torch import without_torch
with without_torch():
    import tvm
    assert "torch" not in sys.modules
    try:
        import torch
    except ImportError:
        pass
    else:
        raise AssertionError("it is found")
import numpy, torch
with without_torch():
    import torch
numbers = torch.arange(5)
assert (tvm.runtime.from_dlpack(numbers).numpy() == numpy.arange(5)).all()
assert (torch.from_dlpack(tvm.runtime.tensor(numpy.arange(5))) == numbers).all()
"""

COMMAND = """
import sys
from gsb_tvm.cli import main
assert main(["targets", "native"]) == 0
assert "tvm" in sys.modules and "torch" not in sys.modules
assert main(["paths"]) == 0
"""


@pytest.mark.parametrize("code", [IMPORTED, COMMAND])
def test_torch_is_not_imported(code):
    pytest.importorskip("torch")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_is_found_again_after_an_error():
    before = [*sys.meta_path]
    with pytest.raises(ZeroDivisionError), without_torch():
        raise ZeroDivisionError
    assert sys.meta_path == before
