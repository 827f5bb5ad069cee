"""What is carried to a machine with a GPU: written by ``prepare``, read by the stages.

``contents.json`` lists it. Each kernel is a cubin of its own, ``kernels/<name>.cubin``, beside
inputs and outputs where no oracle knows them. Each model is an artefact, ``<name>.so``, beside the
outputs of its CPU's artefact, ``<name>.npz``. ``limits.cubin`` and
``limits-hopper.cubin`` hold the loops of :mod:`benchmarks.gpu.limits` and
:mod:`benchmarks.gpu.hopper`, and ``site`` packages that such a machine lacks.

Nothing here and nothing that is imported here needs TVM.
"""

from pathlib import Path

import msgspec

from gsb_tvm.dialect.errors import ArtefactError
from gsb_tvm.runtime import metadata as meta
from gsb_tvm.schedules.choices import Value

CONTENTS = "contents.json"
LIMITS, HOPPER_LIMITS = "limits.cubin", "limits-hopper.cubin"
SITE = "site"
DEIT_SMALL = "deit-small"
"""The model that is timed, and its preset in :mod:`gsb_tvm.models.gsb`."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A kernel and what it is checked on.

    Attributes
    ----------
    spec
        Of the kernel, as :func:`gsb_tvm.dialect.specs.encode` writes it; empty of a float one,
        whose inputs and outputs are stored.
    drawn
        The same of fewer images: those that are drawn. The kernel's are these, again and again.
    choice
        Parameters of the kernel; ``is_rule`` says whether they are the rule's.
    launches
        The kernel; of its pointers "input" counts all tensors, inputs before outputs, and "memory"
        is scratch, then what is zero before and behind it.
    is_small
        Whether it takes milliseconds on a GPU that is watched.
    tolerance, edges
        As in :class:`gsb_tvm.tuning.samples.Sample`, of stored outputs.
    """

    name: str
    spec: str = ""
    drawn: str = ""
    choice: dict[str, Value] = {}
    is_rule: bool = True
    launches: tuple[meta.Launch, ...]
    scratch_bytes: int
    state_bytes: int
    is_small: bool = True
    tolerance: float = 0.0
    edges: float = 0.0

    @property
    def functions(self) -> set[str]:
        """Names of what it launches."""
        return {launch.function for launch in self.launches}


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What a model makes of ``batch`` images, in several calls.

    Attributes
    ----------
    drawn
        How many of the images are drawn; the others are these again, in any order. What depends on
        the largest value of a batch is the same for them. Of batch 1 each call takes one.
    seeds
        Of the images of each call. No image is near an edge of rounding.
    digest
        Of all images, as :func:`tests.gpu.drawing.digest` makes it.
    """

    batch: int
    drawn: int
    seeds: tuple[int, ...]
    digest: str

    @property
    def key(self) -> str:
        """Name of the outputs of the images drawn, (calls, images, classes) float32."""
        return f"drawn{self.drawn}"


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A compiled model and its references."""

    name: str
    references: tuple[Reference, ...]


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """All of a folder."""

    arch: str
    versions: meta.Versions
    cases: tuple[Case, ...]
    models: tuple[Model, ...]


def contents(folder: Path) -> Contents:
    """Read what a folder holds.

    Raises
    ------
    ArtefactError
        It is no folder of ``tests.gpu.prepare``.
    """
    path = folder / CONTENTS
    try:
        return msgspec.json.decode(path.read_bytes(), type=Contents)
    except (OSError, msgspec.MsgspecError) as err:
        raise ArtefactError(
            f"{path}: is not what tests.gpu.prepare writes ({err}). Make the folder again with "
            "python -m tests.gpu.prepare FOLDER."
        ) from err


def cubin(folder: Path, case: Case) -> Path:
    """Machine code of a case."""
    return folder / "kernels" / f"{case.name}.cubin"


def stored(folder: Path, case: Case) -> Path:
    """Inputs and outputs of a float case."""
    return folder / "kernels" / f"{case.name}.npz"


def artefact(folder: Path, model: Model) -> Path:
    """The artefact of a model for the GPU."""
    return folder / f"{model.name}.so"


def references(folder: Path, model: Model) -> Path:
    """Outputs of the model's artefact for a CPU."""
    return folder / f"{model.name}.npz"


def batches(folder: Path) -> list[int]:
    """Batches of DeiT-Small; none where the folder does not hold it."""
    models = [model for model in contents(folder).models if model.name == DEIT_SMALL]
    return [each.batch for model in models for each in model.references]
