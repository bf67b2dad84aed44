"""The house as its imports show it: floors, rooms, modules, and which imports which. Read by its test and its picture."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = REPOSITORY / "vital_tracking"

# The lowest first. A module may import from its own room and from the floors below it.
FLOORS: Final[tuple[tuple[str, ...], ...]] = (
    ("errors", "ids"),
    ("core", "environment"),
    ("store_choice",),
    ("settings", "migrate"),
    ("stores",),
    ("calls", "clickhouse"),
    ("spool",),
    ("delivery",),
    ("budgets",),
    ("alerts",),
    ("queries",),
    ("scopes",),
    ("direct", "events", "langchain", "demo"),
    ("imports",),
    ("tracker",),
    ("__init__", "testing"),
    ("advice",),
    ("web",),
    ("cli",),
)
FLOOR_OF: Final = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


@cache
def modules() -> dict[str, Path]:
    """Each module by its name below the package, such as `calls.live`; a room's own `__init__` by the room's name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = path
    return found


def room_of(module: str) -> str:
    """The room that a module stands in; a module of the package's top is a room of its own."""
    return module.partition(".")[0]


def imported(path: Path, *, typing_only: bool = True) -> Iterator[str]:
    """The full names that a file imports, those inside of functions included; `typing_only` adds those for type checkers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    left_out = {
        id(inner)
        for node in ast.walk(tree)
        if not typing_only and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def arrows() -> dict[str, set[str]]:
    """Each module with the modules of the house that it imports, be it for type checkers only."""
    known = modules()
    found: dict[str, set[str]] = {}
    for module, path in known.items():
        names = {name.partition(".")[2] or "__init__" for name in imported(path) if name.startswith("vital_tracking")}
        found[module] = {name for name in names if name in known and name != module}
    return found
