import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_importing_the_room_and_reading_a_spec_loads_no_tvm():
    program = (
        "import sys, gsb_tvm.targets as t\n"
        "t.take_target(['--target', 'llvm', '-mcpu=haswell'])\n"
        "t.host.host()\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('tvm', 'tvm_ffi', 'torch')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
    assert done.stderr == ""
