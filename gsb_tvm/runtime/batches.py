"""Which programs of an artefact compute a call of any batch.

A call of 5 on an artefact for 1, 2 and 4 is a call of 4 and one of 1, and gives what those give. In
a model whose images do not look at each other that is what a batch of 5 gives; where they do, as in
GSB, whose thresholds are shares of the largest value of the batch, the calls are batches of their
own.
"""

from collections.abc import Sequence

from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.runtime.metadata import Program, Tensor


def cut(count: int, programs: Sequence[Program]) -> list[Program]:
    """Programs whose batches add up to ``count``: always the largest that still fits.

    Parameters
    ----------
    count
        Images of the call.
    programs
        Of different batches above 0.

    Raises
    ------
    UsageError
        They do not add up to it.
    """
    found, left = [], count
    for program in sorted(programs, key=lambda program: -program.batch):
        times, left = divmod(left, program.batch)
        found += [program] * times
    if left or not found:
        sizes = ", ".join(str(program.batch) for program in programs)
        raise UsageError(
            f"a batch of {count} cannot be cut into batches of {sizes}, always the largest that "
            "fits first. Compile the model with --batch 1 among others."
        )
    return found


def only(found: Sequence[Program], programs: Sequence[Program]) -> Program:
    """The one of ``programs`` that computes a call, which is cut into ``found``.

    Raises
    ------
    UsageError
        They are several.
    """
    if len(found) > 1:
        sizes = ", ".join(str(program.batch) for program in programs)
        raise UsageError(
            f"a batch of {sum(p.batch for p in found)} is {' + '.join(str(p.batch) for p in found)}"
            f", and steps are those of one program. Choose a batch of {sizes}."
        )
    return found[0]


def sized(spec: Tensor, batch: int) -> Tensor:
    """``spec`` with another first extent."""
    return Tensor(spec.name, (batch, *spec.shape[1:]), spec.dtype)


def has_batch(batch: int, tensors: Sequence[Tensor]) -> bool:
    """Whether ``batch`` is the first extent of all of them."""
    return all(tensor.shape[:1] == (batch,) for tensor in tensors)


def fit_together(programs: Sequence[Program]) -> bool:
    """Whether a call can be cut into ``programs``, or there is only one that stands by itself."""
    first = programs[0]
    if first.batch == 0:
        return len(programs) == 1
    batches = [program.batch for program in programs]
    return batches == sorted(set(batches)) and all(
        has_batch(program.batch, (*program.inputs, *program.outputs))
        and program.inputs == tuple(sized(spec, program.batch) for spec in first.inputs)
        and program.outputs == tuple(sized(spec, program.batch) for spec in first.outputs)
        for program in programs
    )
