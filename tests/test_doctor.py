"""What the doctor says of this machine's AMX."""

from dataclasses import replace

import pytest

from gsb_tvm import doctor
from gsb_tvm.targets import host as hosts


@pytest.mark.parametrize(
    ("features", "refused", "said"),
    [
        ({"sse2"}, "", ""),
        ({"sse2", "amx_tile"}, "", "granted by Linux"),
        ({"sse2"}, "Operation not permitted", "refused by Linux (Operation not permitted)"),
    ],
)
def test_amx_is_named_where_the_cpu_has_it(
    features: set[str],
    refused: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine = replace(hosts.host(), features=frozenset(features), tiles_refused=refused)
    monkeypatch.setattr(hosts, "host", lambda: machine)
    doctor.main([])
    rows = [line for line in capsys.readouterr().out.splitlines() if "AMX" in line]
    assert len(rows) == bool(said)
    assert all(said in row for row in rows)
