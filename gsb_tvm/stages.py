"""Running the passes one by one: dumps, an early stop, and the report on the way."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gsb_tvm.dialect.errors import UsageError
from gsb_tvm.passes import pipeline
from gsb_tvm.passes.report import Row, layer_rows, with_leftovers
from gsb_tvm.progress import Clock
from gsb_tvm.runtime.outfile import output_error
from gsb_tvm.schedules.tunings import Tunings
from gsb_tvm.targets import Profile
from gsb_tvm.targets.spec import nearest

IMPORT = "Import"
"""The stage before the first pass."""


@dataclass(frozen=True)
class Lowered:
    """A module at the end of the passes, or where they were to stop; rows as far as known."""

    module: Any
    rows: tuple[Row, ...]


class Dump:
    """A folder that receives the module after each stage as TVMScript."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise output_error(folder, err) from err

    def module(self, name: str, module: Any) -> None:
        """Write ``NN_<name>.py``; constants are elided."""
        self.text(f"{self._count:02d}_{name}.py", module.script())
        self._count += 1

    def text(self, name: str, text: str) -> None:
        """Write a file of that name.

        Raises
        ------
        OutputError
            It cannot be written.
        """
        path = self._folder / name
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as err:
            raise output_error(path, err) from err


class Stages:
    """The pipeline for one target; kernels as ``tunings`` know them best."""

    def __init__(self, profile: Profile, tunings: Tunings | None = None) -> None:
        self.phases = {
            "recognise": pipeline.recognition_passes(),
            "pack": pipeline.packing_passes(profile),
            "lower": pipeline.lowering_passes(profile, tunings),
        }

    def names(self) -> list[str]:
        """Every stage that can be stopped after, once, in order."""
        passes = [pass_name(p) for group in self.phases.values() for p in group]
        return list(dict.fromkeys([IMPORT, *passes]))

    def check_name(self, name: str) -> str:
        """Return the stage meant by ``name``, in any case and with or without "gsb.".

        Raises
        ------
        UsageError
            There is none; names the three nearest.
        """
        wanted = name.casefold().removeprefix("gsb.")
        for known in self.names():
            if known.casefold() == wanted:
                return known
        raise UsageError(
            f'--stop-after: unknown pass "{name}". Nearest names: {nearest(name, self.names())}.'
        )

    def run(
        self, module: Any, clock: Clock, dump: Dump | None = None, stop_after: str | None = None
    ) -> Lowered:
        """Run all passes, or those up to the first one called ``stop_after``."""
        rows: list[Row] = []
        if dump is not None:
            dump.module(IMPORT, module)
        if stop_after == IMPORT:
            return Lowered(module, ())
        for phase, passes in self.phases.items():
            with clock.phase(phase, len(passes)) as observer:
                for each in passes:
                    name = pass_name(each)
                    observer.step(name)
                    module = _checked(each, name, module)
                    if dump is not None:
                        dump.module(name, module)
                    if name == stop_after:
                        return Lowered(module, tuple(rows))
            if phase == "recognise":
                rows = layer_rows(module)
            elif phase == "pack":
                rows = with_leftovers(rows, module)
        return Lowered(module, tuple(rows))


def pass_name(each: Any) -> str:
    """Name of a pass without the "gsb." of ours."""
    return str(each.info.name).removeprefix("gsb.")


def _checked(each: Any, name: str, module: Any) -> Any:
    from tvm.relax.analysis import well_formed

    after = each(module)
    try:
        well_formed(after)
    except Exception as err:
        raise RuntimeError(f"pass {name} left a module that is not well formed: {err}") from err
    return after
