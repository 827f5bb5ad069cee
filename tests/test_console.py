"""Output for people, on a terminal and without one."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gsb_tvm import console
from gsb_tvm.runtime.metadata import Layer
from tests import tiny_models as tiny

ROOT = Path(__file__).resolve().parent.parent
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9]")


def on_a_terminal(folder, **environment):
    """Output and exit code of a compilation whose stdout and stderr are a terminal."""
    (folder / "m.onnx").write_bytes(tiny.binary_linear().SerializeToString())
    master, slave = pty.openpty()
    unset = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "TERM")}
    process = subprocess.Popen(
        [sys.executable, "-m", "gsb_tvm.compile", "m.onnx", "--no-verify"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
        env={**unset, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **environment},
    )
    os.close(slave)
    output = b""
    while True:
        try:
            data = os.read(master, 1 << 16)
        except OSError:  # how Linux says that the other side is closed
            break
        if not data:
            break
        output += data
    os.close(master)
    return output.decode("utf-8", "replace"), process.wait(60)


def test_a_terminal_gets_a_bar_and_colours(tmp_path):
    output, code = on_a_terminal(tmp_path)
    assert code == 0, output
    assert "generate" in output
    assert "\x1b[?25h" in output  # the cursor is shown again
    assert COLOUR.search(output)


def test_no_color_is_obeyed(tmp_path):
    output, code = on_a_terminal(tmp_path, NO_COLOR="1")
    assert code == 0, output
    assert "packed" in output
    assert not COLOUR.search(output)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 "), (640, "640 "), (1536, "1.54 k"), (75_340_000, "75.3 M"), (4.2e9, "4.2 G")],
)
def test_counts_have_a_prefix(number, text):
    assert console.count(number) == text


def layer(form, name="a[b]c", macs=1000):
    return Layer(name, "linear", (2, 3, 4), form, "because", macs, 12)


def test_a_table_takes_names_literally(capsys):
    console.show(console.layer_table([layer("packed"), layer("float", "[red]")]))
    out = capsys.readouterr().out
    assert "a[b]c" in out
    assert "[red]" in out
    assert "2 x 3 x 4" in out
    assert all(line == line.rstrip() for line in out.splitlines())


def test_a_summary_counts_operators_and_macs():
    rows = [layer("packed", macs=3000), layer("float", macs=1000)]
    assert console.layer_summary(rows) == "1 of 2 operators packed, 75.0% of 4 kMACs"
    assert console.layer_summary([]) == "0 of 0 operators packed"
