"""Damaged models end in a ModelError of one line, or compile; never in another exception."""

import collections
import random

import pytest

from gsb_tvm.dialect.errors import ModelError
from gsb_tvm.frontend import load
from tests.frontend.mutations import mutate_bytes, mutate_structure
from tests.frontend.sketch import tiny_gsb

# 300 a push; the long run is for the night.
SEEDS = range(300)
MANY_SEEDS = range(300, 6300)


def outcome(seed, path):
    rng = random.Random(seed)
    model = tiny_gsb(batch=rng.choice([1, "B"]))
    if seed % 2:
        path.write_bytes(mutate_bytes(model.SerializeToString(), rng))
        source = path
    else:
        source = mutate_structure(model, rng)
    try:
        load(source)
    except ModelError as error:
        text = str(error)
        assert text.isprintable(), f"seed {seed}: {text!r}"
        assert len(text) < 1500, f"seed {seed}: {text}"
        assert text.endswith("."), f"seed {seed}: {text}"
        return "refused"
    return "imported"


def test_300_mutations(tmp_path):
    outcomes = collections.Counter(outcome(seed, tmp_path / "m.onnx") for seed in SEEDS)
    # Both ends occur: the mutations are neither harmless nor all fatal at the first byte.
    assert outcomes["refused"] > 200
    assert outcomes["imported"] > 5


@pytest.mark.slow
def test_6000_mutations(tmp_path):
    for seed in MANY_SEEDS:
        outcome(seed, tmp_path / "m.onnx")
