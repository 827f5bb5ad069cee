"""On a machine with a GPU: the checks of the command, by ``pytest``; elsewhere skipped.

Environment ``GSB_TVM_GPU_FOLDER`` names a folder of ``tests.gpu.prepare``.
"""

import os
from pathlib import Path

import pytest

from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.runtime.cuda.driver import CudaDevice
from tests.gpu import running, whole
from tests.gpu.stages import STAGES

VARIABLE = "GSB_TVM_GPU_FOLDER"


@pytest.fixture(scope="module")
def prepared() -> Path:
    """The folder, where there is one and a GPU to use it on."""
    try:
        CudaDevice(0)
    except UsageError as err:
        pytest.skip(str(err))
    if VARIABLE not in os.environ:
        pytest.skip(f"{VARIABLE} does not name a folder of python -m tests.gpu.prepare")
    return Path(os.environ[VARIABLE])


@pytest.mark.parametrize("stage", [s for s in STAGES if not s.is_timed], ids=lambda s: s.name)
def test_stage(prepared: Path, stage):
    result = running.run_stage(prepared, stage, stage.limit_s)
    print(whole.told(result))
    assert result.count("ok"), "nothing was checked"
    assert not result.count("failed")
