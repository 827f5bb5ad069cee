import json

import pytest

import scaling
from growth.networks import AXES, Point, sweep

BASE = Point(image=64, width=128, depth=2, batch=1)
SMALL = ("--base", "64,64,1,1", "--image", "64", "--width", "64", "--rounds", "1", "--seconds", "0")


def test_axes_are_the_arguments():
    assert tuple(scaling._DEFAULTS) == AXES
    assert len(scaling._BASE) == len(AXES)


def test_sweep_varies_one_number_and_holds_the_others():
    lines = sweep(BASE, {"image": (96, 32), "width": (128,), "depth": (1,), "batch": (8, 1, 4)})
    assert [point.image for point in lines["image"]] == [32, 64, 96]
    assert lines["width"] == [BASE]
    assert [point.batch for point in lines["batch"]] == [1, 4, 8]
    for axis, line in lines.items():
        others = {(*[getattr(p, other) for other in AXES if other != axis],) for p in line}
        assert len(others) == 1


def test_network_of_a_point():
    config = BASE.config()
    assert (config.tokens, config.heads, config.hidden) == (18, 2, 512)


def test_table_json_and_picture(tmp_path, capsys):
    pytest.importorskip("torch")
    figures = tmp_path / "figures.json"
    picture = ["--plot", str(tmp_path / "figures.svg")] if has_matplotlib() else []
    arguments = ["--depth", "1,2", "--batch", "1", "--json", str(figures), *picture]
    assert scaling.main([*SMALL, *arguments]) == 0
    sweeps = json.loads(figures.read_text())["figures"]["sweeps"]
    one, two = sweeps["depth"]
    assert (one["point"]["depth"], two["point"]["depth"]) == (1, 2)
    assert one["tokens"] == 18
    block = 18 * 64 * 64 * (4 + 8) + 2 * 18 * 18 * 64
    assert two["macs"] - one["macs"] == block
    assert sweeps["batch"] == sweeps["width"] == sweeps["image"] == [one]
    printed = capsys.readouterr().out
    assert "tokens" in printed
    assert "1.00x" in printed
    assert all("<svg" in (tmp_path / "figures.svg").read_text() for _ in picture)


def has_matplotlib():
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--width", "100"], "--width: 100 is not a multiple of 64"),
        (["--image", "65"], "--image: 65 is not a multiple of 16"),
        (["--depth", "0"], "not a list of numbers of at least 1"),
        (["--base", "64,64"], "expected four numbers"),
        (["--threads", "4096"], "4096 threads need as many cores"),
        (["--target", "llvm -mcpu=cortex-a72"], "nothing can be timed on it"),
        (["--plot", "figures.gif"], "expected a name that ends in"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments, sentence, capsys):
    assert scaling.main(arguments) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1
    assert sentence in printed
