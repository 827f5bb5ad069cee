"""The versions that the code states and those that the package asks for are the same."""

import tomllib
from pathlib import Path

from gsb_tvm.dialect.versions import CURE, TVM, TVM_FFI

ROOT = Path(__file__).parents[2]


def test_the_cure_is_what_the_package_depends_on():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pair = [text for text in project["dependencies"] if text.startswith("apache-tvm")]
    assert CURE == "pip install " + " ".join(f'"{text}"' for text in pair)
    assert pair[0] == f"apache-tvm=={TVM}"
    assert pair[1].startswith(f"apache-tvm-ffi>={TVM_FFI}.")


def test_the_docs_name_the_pair():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for requirement in CURE.split('"')[1::2]:
        assert f"`{requirement}`" in text
