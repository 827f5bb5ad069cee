"""Records of tuning: the user's own, and those that come with the package."""

import os
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gsb_tvm.options import Options
    from gsb_tvm.schedules.records import Loaded, Record
    from gsb_tvm.schedules.tunings import Tunings
    from gsb_tvm.targets import Profile

VARIABLE = "GSB_TVM_CACHE"


def records_path() -> Path:
    """The file that ``tune`` writes and ``compile`` reads where none is named.

    In the folder that the environment variable ``GSB_TVM_CACHE`` names, or in the user's cache.
    """
    import platformdirs

    folder = os.environ.get(VARIABLE)
    return Path(folder or platformdirs.user_cache_path("gsb-tvm")) / "tuned.records"


def known_tunings(profile: "Profile", options: "Options") -> tuple["Tunings", tuple[str, ...]]:
    """What is on record for a machine, and what is wrong with the file of records.

    The file that the options name, or else the user's own, which may be missing, decides about
    every kernel that it knows; then come the records of the package.

    Raises
    ------
    UsageError
        The file that is named cannot be read.
    """
    from gsb_tvm.schedules.records import load
    from gsb_tvm.schedules.tunings import Tunings

    if options.by_rule:
        return Tunings(profile), ()
    path = options.records or records_path()
    if options.records is None and not os.path.exists(path):  # wherever the variable points
        return Tunings(profile, _shipped()), ()
    found = load(path)
    return Tunings(profile, found.records, _shipped()), complaints(path, found)


def complaints(path: Path, found: "Loaded") -> tuple[str, ...]:
    """Sentences about lines of a file that are no records."""
    count = found.faults.total()
    return (f"{path}: {count} of its lines were skipped: see gsb-tvm db check.",) if count else ()


def _shipped() -> list["Record"]:
    """Records of CPUs that were measured for the package."""
    from gsb_tvm.schedules.records import load

    folder = Path(str(files("gsb_tvm.schedules"))) / "tuned"
    return [record for path in sorted(folder.glob("*.records")) for record in load(path).records]
