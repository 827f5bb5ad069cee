import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
from gsb_tvm.models.demo import model_path
from gsb_tvm.runtime.metadata import Tensor
from gsb_tvm.runtime.reference import onnxruntime_run
onnxruntime_run(model_path(), [Tensor("image", (1, 1, 8, 8), "float32")])
"""


def test_onnx_runtime_writes_nothing_into_a_home(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True)
    assert not list(tmp_path.iterdir())
