"""Exit codes: one for each kind of error, and listed where users read."""

import re
from pathlib import Path

import pytest

from gsb_tvm.compile import parser
from gsb_tvm.dialect.errors import ExitCode, GsbError

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_every_error_has_a_code_of_its_own_kind():
    def kinds(base):
        return {base, *(kind for sub in base.__subclasses__() for kind in kinds(sub))}

    found = {kind.exit_code for kind in kinds(GsbError)}
    assert found == set(ExitCode) - {ExitCode.OK, ExitCode.INTERRUPTED}


@pytest.mark.parametrize(
    "text",
    [
        parser("compile").format_help().partition("exit codes:")[2],
        README.partition("Exit codes:")[2],
    ],
    ids=["help", "readme"],
)
def test_the_codes_are_listed(text):
    listed = re.findall(r"(?:^|\s)(\d+) +`?[-a-z]", text.partition(". An error")[0])
    assert [int(code) for code in listed] == sorted(ExitCode)
