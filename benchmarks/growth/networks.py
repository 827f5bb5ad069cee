"""The networks of a sweep, compiled."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import gsb_tvm
from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.driver import Options, compile_model
from gsb_tvm.models.export import export
from gsb_tvm.models.fill import realistic_
from gsb_tvm.models.gsb import Gsb, GsbConfig
from gsb_tvm.runtime.session import Module
from gsb_tvm.targets import Profile

PATCH, HEAD = 16, 64


@dataclass(frozen=True)
class Point:
    """One network: side of its square images, width, blocks, images in a call."""

    image: int
    width: int
    depth: int
    batch: int

    def config(self) -> GsbConfig:
        """The network; heads are 64 wide, as in all DeiT.

        Raises
        ------
        UsageError
            The image is not made of whole patches, or the width not of whole heads.
        """
        for name, value, unit in (("image", self.image, PATCH), ("width", self.width, HEAD)):
            if value % unit:
                raise UsageError(f"--{name}: {value} is not a multiple of {unit}.")
        return GsbConfig(
            image_size=self.image, width=self.width, depth=self.depth, heads=self.width // HEAD
        )

    @property
    def name(self) -> str:
        """Name of its files."""
        return "-".join(map(str, asdict(self).values()))


AXES = tuple(Point.__dataclass_fields__)


def sweep(base: Point, values: Mapping[str, Sequence[int]]) -> dict[str, list[Point]]:
    """Points along each axis in rising order, the base among them."""
    return {
        axis: [
            replace(base, **{axis: value}) for value in sorted({*values[axis], getattr(base, axis)})
        ]
        for axis in AXES
    }


def build(
    point: Point, profile: Profile, folder: Path, threads: int, say: Callable[[str], None]
) -> Module:
    """Export with parameters as if trained, compile and load."""
    config = point.config()
    say(
        f"compiling {config.tokens} tokens, width {point.width}, depth {point.depth}, "
        f"batch {point.batch}"
    )
    model, artefact = folder / f"{point.name}.onnx", folder / f"{point.name}.so"
    export(realistic_(Gsb(config), 0), model, batch=point.batch)
    compile_model(model, profile, Options(artefact, verify=False))
    model.unlink()
    return gsb_tvm.load(artefact, threads=threads)
