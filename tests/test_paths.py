import json
from pathlib import Path

from gsb_tvm.cli import main


def printed(capsys, *words: str) -> str:
    assert main(["paths", *words]) == 0
    return capsys.readouterr().out


def test_each_path_holds_what_it_is_for(capsys) -> None:
    files = {
        "cmake": "gsb_tvm-config.cmake",
        "include": "gsb_tvm/session.hpp",
        "pkgconfig": "gsb_tvm.pc",
    }
    paths = {option: printed(capsys, f"--{option}").rstrip("\n") for option in files}
    for option, file in files.items():
        assert Path(paths[option], file).is_file()
    assert json.loads(printed(capsys, "--json")) == paths
    assert dict(line.split(maxsplit=1) for line in printed(capsys).splitlines()) == paths


def test_two_at_once_are_refused(capsys) -> None:
    assert main(["paths", "--cmake", "--json"]) == 2
    assert "not allowed with argument" in capsys.readouterr().err
