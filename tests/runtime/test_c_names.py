import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.runtime.c_names import C_TYPES, arguments, derived, library_name
from gsb_tvm.runtime.metadata import Tensor


def tensor(name: str, shape: tuple[int, ...] = (2, 3), dtype: str = "float32") -> Tensor:
    return Tensor(name, shape, dtype)


@pytest.mark.parametrize("name", ["demo", "deit_small", "a", "m" * 63])
def test_names_that_are_taken(name: str) -> None:
    assert library_name(name) == name == derived(name)


@pytest.mark.parametrize(
    "name",
    [
        *["", "Demo", "9lives", "deit-small", "int", "class", "naïve", "m" * 64, "a b", "_x"],
        # math.h and libm.a would hide the system's; C++ has no namespace beside a function log.
        *["math", "features", "m", "c", "log", "concept"],
    ],
)
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"cannot name a C library.*for example --name "):
        library_name(name)


@given(st.text())
@example("9" * 63)
def test_a_name_is_found_for_any_model(text: str) -> None:
    assert library_name(derived(text))


def test_parameters() -> None:
    (image, mask), (logits,) = arguments(
        [tensor("pixel values", (1, 3)), tensor("mask", (), "bool")], [tensor("logits")]
    )
    assert (image.name, image.c_type, image.count) == ("pixel_values", "float", 3)
    assert (mask.name, mask.c_type, mask.count) == ("mask", "uint8_t", 1)
    assert logits.count == 6


@given(st.lists(st.text(max_size=60), min_size=1, max_size=6), st.text())
def test_parameters_are_identifiers_and_differ(inputs: list[str], output: str) -> None:
    found = arguments([tensor(name) for name in inputs], [tensor(output)])
    names = [argument.name for group in found for argument in group]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z_][a-z0-9_]*", name) for name in names)
    assert not {"int", "class", "arena", "context", "given"} & set(names)


@pytest.mark.parametrize("dtype", C_TYPES)
def test_every_dtype_has_a_type(dtype: str) -> None:
    ((argument,), _) = arguments([tensor("x", dtype=dtype)], [tensor("y")])
    assert argument.c_type == C_TYPES[dtype]


def test_what_c_cannot_declare() -> None:
    with pytest.raises(UsageError, match="without an input"):
        arguments([], [tensor("y")])
    with pytest.raises(UsageError, match="without an output"):
        arguments([tensor("x")], [])
    with pytest.raises(UsageError, match=r'output "y" has no elements'):
        arguments([tensor("x")], [tensor("y", (0, 4))])
