"""Which programs compute a call."""

import msgspec
import pytest

from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.runtime.batches import cut, fit_together
from gsb_tvm.runtime.metadata import Program, Tensor


def programs(*batches: int) -> list[Program]:
    return [
        Program(
            batch=batch,
            entry=f"gsb_b{batch}",
            inputs=(Tensor("x", (batch, 3), "float32"), Tensor("i", (batch,), "int64")),
            outputs=(Tensor("y", (batch, 2, 5), "float32"),),
        )
        for batch in batches
    ]


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [1]), (2, [2]), (3, [2, 1]), (5, [4, 1]), (7, [4, 2, 1]), (13, [4, 4, 4, 1])],
)
def test_the_largest_that_fits_comes_first(count: int, expected: list[int]) -> None:
    assert [program.batch for program in cut(count, programs(1, 2, 4))] == expected


@pytest.mark.parametrize(("count", "batches"), [(0, [1, 2]), (1, [2, 4]), (4, [2, 3]), (9, [4])])
def test_a_batch_that_is_no_sum_is_refused(count: int, batches: list[int]) -> None:
    with pytest.raises(UsageError) as caught:
        cut(count, programs(*batches))
    sizes = ", ".join(map(str, batches))
    assert str(caught.value).startswith(f"a batch of {count} cannot be cut into batches of {sizes}")


def test_programs_of_one_model_fit_together() -> None:
    assert fit_together(programs(1, 2, 4))
    assert fit_together(programs(3))


def test_one_that_takes_shapes_as_they_stand_is_alone() -> None:
    (fixed,) = (msgspec.structs.replace(program, batch=0) for program in programs(1))
    assert fit_together([fixed])
    assert not fit_together([fixed, *programs(2)])


@pytest.mark.parametrize(
    "change",
    [
        {"batch": 1},
        {"batch": 3},
        {"batch": 0},
        {"inputs": (Tensor("x", (2, 4), "float32"), Tensor("i", (2,), "int64"))},
        {"inputs": (Tensor("x", (2, 3), "float32"),)},
        {"inputs": (Tensor("x", (2, 3), "float32"), Tensor("i", (), "int64"))},
        {"outputs": (Tensor("y", (1, 2, 5), "float32"),)},
        {"outputs": (Tensor("y", (2, 2, 5), "float64"),)},
        {"outputs": (Tensor("z", (2, 2, 5), "float32"),)},
    ],
)
def test_programs_of_two_models_do_not(change: dict[str, object]) -> None:
    one, two, four = programs(1, 2, 4)
    assert not fit_together([one, msgspec.structs.replace(two, **change), four])


def test_they_stand_in_the_order_of_their_batches() -> None:
    assert not fit_together(programs(2, 1))
