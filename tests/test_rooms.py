"""The imports of the code, held to the table of rooms in docs/architecture.md."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = {
    "gsb_tvm.frontend": ROOT / "gsb_tvm" / "frontend",
    "gsb_tvm.runtime": ROOT / "gsb_tvm" / "runtime",
    "gsb_tvm.models": ROOT / "gsb_tvm" / "models",
    "gsb_tvm.tuning": ROOT / "gsb_tvm" / "tuning",
    "gsb_tvm.dialect": ROOT / "gsb_tvm" / "dialect",
    "gsb_tvm.passes": ROOT / "passes",
    "gsb_tvm.schedules": ROOT / "schedules",
    "gsb_tvm.targets": ROOT / "targets",
}
FACE = "gsb_tvm"
# Room -> prefixes of what its modules may import of the house, themselves apart.
MAY_IMPORT = {
    FACE: ("gsb_tvm",),
    "gsb_tvm.frontend": ("gsb_tvm.dialect",),
    "gsb_tvm.runtime": ("gsb_tvm.dialect", "gsb_tvm.targets"),
    "gsb_tvm.models": ("gsb_tvm.dialect.errors",),
    "gsb_tvm.tuning": (
        "gsb_tvm.dialect",
        "gsb_tvm.runtime",
        "gsb_tvm.schedules",
        "gsb_tvm.targets",
    ),
    "gsb_tvm.passes": ("gsb_tvm.dialect", "gsb_tvm.schedules", "gsb_tvm.targets"),
    "gsb_tvm.schedules": ("gsb_tvm.dialect", "gsb_tvm.targets"),
    "gsb_tvm.targets": ("gsb_tvm.dialect.errors",),
    "gsb_tvm.dialect": (),
}
# The only part of the models that works without torch, and so the only one the face may use.
LIGHT_MODELS = "gsb_tvm.models.demo"


@dataclass(frozen=True)
class Import:
    module: str
    imported: str
    line: int


def _sources() -> dict[str, Path]:
    """Every module of the package by its full name; links are not followed twice."""
    found = {}
    roots = [(FACE, ROOT / "gsb_tvm", "*.py")]
    roots += [(name, folder, "**/*.py") for name, folder in ROOMS.items()]
    for name, folder, pattern in roots:
        for path in sorted(folder.glob(pattern)):
            parts = path.relative_to(folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join([name, *parts])] = path
    return found


SOURCES = _sources()


def _imports(module: str) -> Iterator[Import]:
    """What a module imports of the house, also inside functions, but not for type checking only."""
    skipped: set[ast.AST] = set()
    for node in ast.walk(ast.parse(SOURCES[module].read_text(encoding="utf-8"))):
        if node in skipped:
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            skipped.update(inner for child in node.body for inner in ast.walk(child))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield Import(module, full if full in SOURCES else str(node.module), node.lineno)


ALL = [each for module in SOURCES for each in _imports(module)]
HOUSE = [each for each in ALL if each.imported.split(".")[0] == "gsb_tvm"]


def _room(module: str) -> str:
    return next((room for room in ROOMS if _within(module, room)), FACE)


def _within(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(f"{prefix}.")


def _report(found: list[Import]) -> str:
    return "\n".join(f"{each.module}:{each.line} imports {each.imported}" for each in found)


def test_every_module_is_found():
    assert {"gsb_tvm.driver", "gsb_tvm.passes.pipeline", "gsb_tvm.dialect.bits"} <= SOURCES.keys()
    assert len(HOUSE) > 100


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_room_imports_only_rooms_below(room):
    allowed = (*MAY_IMPORT[room], *([room] if room != FACE else []))
    bad = [
        each
        for each in HOUSE
        if _room(each.module) == room
        and not any(_within(each.imported, prefix) for prefix in allowed)
    ]
    assert not bad, _report(bad)


def test_the_face_is_imported_by_nobody_below():
    bad = [each for each in HOUSE if _room(each.module) != FACE and _room(each.imported) == FACE]
    assert not bad, _report(bad)


def test_torch_and_its_rooms_stay_apart():
    bad = [
        each
        for each in ALL
        if _room(each.module) != "gsb_tvm.models"
        and (
            each.imported.split(".")[0] in ("torch", "onnxscript", "onnxsim", "sklearn")
            or (
                _room(each.imported) == "gsb_tvm.models"
                and not _within(each.imported, LIGHT_MODELS)
            )
        )
    ]
    assert not bad, _report(bad)


def test_rooms_are_imported_under_the_package():
    bad = [
        each for each in ALL if each.imported.split(".")[0] in ("passes", "schedules", "targets")
    ]
    assert not bad, _report(bad)


def test_modules_have_no_circle():
    edges: dict[str, set[str]] = {module: set() for module in SOURCES}
    for each in HOUSE:
        # A package's own __init__ and the module itself are no dependence on another module.
        if each.imported in edges and not _within(each.module, each.imported):
            edges[each.module].add(each.imported)
    circle = _find_circle(edges)
    assert not circle, " -> ".join(circle)


def _find_circle(edges: dict[str, set[str]]) -> list[str]:
    done: set[str] = set()
    for start in edges:
        path: list[str] = []
        stack: list[tuple[str, bool]] = [(start, False)]
        while stack:
            module, leaving = stack.pop()
            if leaving:
                path.pop()
                done.add(module)
            elif module in path:
                return [*path[path.index(module) :], module]
            elif module not in done:
                path.append(module)
                stack.append((module, True))
                stack.extend((target, False) for target in sorted(edges[module]))
    return []


def test_the_search_finds_a_circle():
    assert _find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert _find_circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
