"""The documentation does not lie: its code runs, its SQL runs, its commands run, and it names everything there is to name."""

from __future__ import annotations

import json
import re
import shlex
import sys
import textwrap
import tomllib
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

import vital_tracking
from tests.acceptance.helpers import run, run_commands
from tests.integration.helpers import Rows
from tests.support.folders import REPOSITORY
from vital_tracking import Settings, VitalTracker
from vital_tracking.calls.attribution import ALLOWED_METADATA
from vital_tracking.cli.app import COMMANDS
from vital_tracking.cli.lazy import load
from vital_tracking.core.context import CONTEXT_FIELDS, CallContext
from vital_tracking.core.pricing import DEFAULT_MODELS
from vital_tracking.environment import KNOWN, LIBPQ
from vital_tracking.langchain.demo import fake_models, run_demo
from vital_tracking.queries.saved_reports import save_report
from vital_tracking.stores.postgres import PostgresStore

PAGES = {
    path.name: path.read_text(encoding="utf-8")
    for path in [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]
}
ALL_PAGES = "\n".join(PAGES.values())
ENV_EXAMPLE = REPOSITORY / ".env.example"

# What the pages take as given: models, chains, a graph that lacks its one node, and who is signed in.
PREAMBLE = """
from typing import TypedDict

from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.runnables import RunnablePassthrough
from langgraph.graph import END, START, StateGraph

from vital_tracking.testing import fake_chat_model

question = "What slows the heart?"
model = fake_chat_model()
other_model = fake_chat_model(provider="anthropic", model="claude-haiku-4-5")
chain = RunnablePassthrough() | model
chains = {"cardio": chain, "legal": chain}
embedding_model = DeterministicFakeEmbedding(size=8)
signed_in_user_id = "8f14e45f-ceea-4672-9d5a-1f0d8a0f5c11"


class State(TypedDict):
    text: str


def triage(state: State) -> State:
    return {"text": model.invoke(state["text"]).text}


state = {"text": question}
graph = StateGraph(State)
graph.add_edge(START, "triage")
graph.add_edge("triage", END)
"""

# Commands that are looked at here and not run, and why.
NOT_RUN = {
    "export clickhouse": "wants a ClickHouse; tests/clickhouse runs it",
    "import": "reads logs of the reader's own; tests/integration/imports imports such",
    "demo": "starts an embedded server; test_cli.py runs it",
    "psql": "hands the terminal over to psql; test_configured.py runs it",
    "backup": "leaves a file; the runbook's test and test_configured.py run it",
    "restore": "wants an empty database; the runbook's test and test_configured.py run it",
}
# Programs of others, and why they are not run.
OTHERS = {
    "supabase link": "needs a project of Supabase's",
    "supabase db push": "needs a project of Supabase's; an integration test pushes to a plain PostgreSQL",
}


def blocks(page: str, *languages: str) -> list[str]:
    """The fenced blocks of a page in one of the languages, without the indentation of a list around them."""
    fence = re.compile(rf"^( *)```(?:{'|'.join(languages)})\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(match[2]) for match in fence.finditer(PAGES[page])]


def pages_with(*languages: str) -> list[str]:
    """The pages that hold such blocks."""
    return [page for page in PAGES if blocks(page, *languages)]


def test_every_code_block_of_a_page_is_checked() -> None:
    kinds = set(re.findall(r"^ *```(\w*)$", ALL_PAGES, re.MULTILINE)) - {""}
    # test_supabase_access.py runs what is in JavaScript, tests/clickhouse/test_page.py what is ClickHouse's.
    assert kinds == {"python", "sql", "bash", "ini", "javascript", "clickhouse"}
    assert len(re.findall(r"^ *```", ALL_PAGES, re.MULTILINE)) % 2 == 0


# What sql.md asks of Supabase's API, test_sql_page.py runs; the application and the tests in testing.md, test_testing.py.
@pytest.mark.parametrize("page", [page for page in pages_with("python") if page not in ("sql.md", "testing.md")])
def test_the_python_of_the_pages_runs(page: str, database_url: str, tmp_path: Path, rows: Rows) -> None:
    program = tmp_path / "page.py"
    program.write_text("\n".join([PREAMBLE, *blocks(page, "python")]), encoding="utf-8")
    done = run([sys.executable, str(program)], tmp_path, VITAL_DATABASE_URL=database_url)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    if "tracker" in PAGES[page] and "model.invoke" in PAGES[page]:
        calls = rows()
        assert calls
        assert {call["success"] or call["error_type"] == "TimeoutError" for call in calls} == {True}
        assert "never stored" not in str(calls)


@pytest.mark.parametrize(
    ("action", "settings", "said"),
    [
        ("block", {}, "user u-1: 0 of 0 spent, more from None"),
        ("throttle", {}, "Try again in 60 s"),
        (
            "deny",
            {"VITAL_DATABASE_URL": "postgresql://127.0.0.1:1/away", "VITAL_WHEN_UNAVAILABLE": "deny"},
            "The database is away",
        ),
    ],
)
def test_a_stopped_call_is_caught_as_the_page_says(
    action: str, settings: dict[str, str], said: str, store: PostgresStore, database_url: str, tmp_path: Path
) -> None:
    if action != "deny":
        budget = {
            "entity_type": "user",
            "metric": "calls",
            "total_limit": "0",
            "action": action,
            "throttle_interval_s": 60,
        }
        store.call("set_budget_v1", budget=json.dumps(budget))
    block = next(block for block in blocks("budgets.md", "python") if "except BudgetExceeded" in block)
    program = tmp_path / "page.py"
    opened = "from vital_tracking import VitalTracker\ntracker = VitalTracker.from_env()"
    # The first throttled call takes the free turn.
    program.write_text("\n".join([PREAMBLE, opened, *[block] * (2 if action == "throttle" else 1)]), encoding="utf-8")
    done = run([sys.executable, str(program)], tmp_path, **{"VITAL_DATABASE_URL": database_url} | settings)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


@pytest.fixture
def demo_database(tracker: VitalTracker, database_url: str) -> str:
    """The URL of a database that holds what the demonstration makes, and a saved report."""
    run_demo(tracker, fake_models(), lambda _: None)
    assert tracker.flush().complete
    with closing(PostgresStore(database_url)) as store:
        save_report(store, "cost by model", [("by", "model")])
    return database_url


@pytest.mark.parametrize("page", pages_with("sql"))
def test_the_sql_of_the_pages_runs(page: str, demo_database: str) -> None:
    with psycopg.connect(demo_database, autocommit=True) as connection:
        for block in blocks(page, "sql"):
            cursor = connection.execute(block.encode())
            while cursor.nextset():
                pass


def test_the_queries_of_the_readme_find_something(demo_database: str) -> None:
    with psycopg.connect(demo_database, autocommit=True) as connection:
        statements = [
            statement for block in blocks("README.md", "sql") for statement in block.split(";\n") if statement.strip()
        ]
        assert statements
        for statement in statements:
            assert connection.execute(statement.encode()).fetchall(), statement


def commands(page: str) -> list[list[str]]:
    """The words of each command of a page, comments left out."""
    lines = "\n".join(blocks(page, "bash", "console")).splitlines()
    return [words for text in lines if (words := shlex.split(text, comments=True))]


@pytest.mark.parametrize("page", pages_with("bash", "console"))
def test_the_commands_of_the_pages_run(page: str, demo_database: str, tmp_path: Path) -> None:
    ours: list[list[str]] = []
    for words in commands(page):
        if words[0] == "vital-tracking":
            # A documented address stands for the reader's own.
            arguments = [demo_database if word.startswith("postgresql://") else word for word in words[1:]]
            if arguments[0] in NOT_RUN or " ".join(arguments[:2]) in NOT_RUN:
                understood(arguments)
            else:
                ours.append(arguments)
        elif words[0] == "make":
            assert re.search(rf"^{words[1]}:", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        elif words[:2] == ["pip", "install"]:
            project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
            extras = re.fullmatch(rf"{project['name']}\[(.*)\]", words[2])
            assert extras is not None, words
            assert set(extras[1].split(",")) <= set(project["optional-dependencies"])
        else:
            assert any(shlex.join(words).startswith(known) for known in OTHERS), words
    (tmp_path / "supabase" / "migrations").mkdir(parents=True)  # a Supabase project of the reader's own
    settings = {"VITAL_DATABASE_URL": demo_database, "VITAL_REPORT_CHANNELS": "finance=json://localhost/reports"}
    for arguments, (code, out, err) in zip(ours, run_commands(ours, tmp_path, **settings), strict=True):
        assert (code, err) == (0, ""), f"{arguments}: {out}{err}"


def loaded(name: str) -> Any:
    """The command of that name, with its options."""
    return load(name, COMMANDS[name][0])


def understood(arguments: list[str]) -> None:
    """Check that a command that is not run exists, with its options; psql takes what its own program takes."""
    if " ".join(arguments[:2]) in NOT_RUN:  # a name of two words
        arguments = [" ".join(arguments[:2]), *arguments[2:]]
    command = loaded(arguments[0])
    while len(arguments) > 1 and (found := getattr(command, "commands", {}).get(arguments[1])):
        command, arguments = found, arguments[1:]
    options = {option for parameter in command.params for option in parameter.opts}
    unknown = {word for word in arguments[1:] if word.startswith("--")} - options
    assert not unknown or arguments[0] == "psql", unknown


def test_every_command_that_the_runbook_names_is_there() -> None:
    """If this failed, somebody in trouble would type what does not exist."""
    named = re.findall(r"`vital-tracking ([^`]+)`", PAGES["runbook.md"])
    assert len(named) > 30
    for text in named:
        arguments = shlex.split(text)
        command, arguments = loaded(arguments[0]), arguments[1:]
        while arguments and (found := getattr(command, "commands", {}).get(arguments[0])):
            command, arguments = found, arguments[1:]
        assert not hasattr(command, "commands"), text
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in arguments if word.startswith("--")} <= options, text


def test_the_readme_names_every_command() -> None:
    for name in COMMANDS:
        assert PAGES["README.md"].count(f"| `vital-tracking {name}` |") == 1, name


# Settings

SETTINGS_READ = set(KNOWN) - set(LIBPQ)
LANGSMITHS = {"LANGSMITH_TRACING", "LANGSMITH_API_KEY", "LANGSMITH_PROJECT"}
VARIABLE = re.compile(r"\b((?:VITAL|SUPABASE|NEXT_PUBLIC|LANGSMITH|LANGCHAIN)_[A-Z_]+|[A-Z]+_API_KEY|REDIS_URL)\b")


def test_the_example_of_an_env_file_explains_every_variable() -> None:
    lines = ENV_EXAMPLE.read_text(encoding="utf-8").splitlines()
    named = {text.partition("=")[0]: number for number, text in enumerate(lines) if "=" in text and text[0] != "#"}
    assert set(named) == SETTINGS_READ | LANGSMITHS
    for name, number in named.items():
        assert re.match(r"# \w.{10}", lines[number - 1]) or re.match(r"# \d\. ", lines[number - 1]), name


def test_a_copy_of_the_example_env_file_changes_no_setting() -> None:
    assert Settings.from_env({}, dotenv=ENV_EXAMPLE) == Settings()
    assert not any(line.partition("=")[2] for line in ENV_EXAMPLE.read_text().splitlines() if not line.startswith("#"))


def test_the_pages_name_every_variable_and_no_other() -> None:
    assert set(VARIABLE.findall(ALL_PAGES)) == SETTINGS_READ | LANGSMITHS
    assert set(VARIABLE.findall(PAGES["getting-started.md"])) == SETTINGS_READ | LANGSMITHS


# Names


def test_every_public_name_is_explained() -> None:
    code = "\n".join(re.findall(r"```.*?```|`[^`\n]+`", ALL_PAGES, re.DOTALL))
    assert vital_tracking.__all__ == sorted(vital_tracking.__all__)
    for name in vital_tracking.__all__:
        assert (getattr(vital_tracking, name).__doc__ or "").strip(), f"{name} has no docstring"
        assert re.search(rf"\b{name}\b", code), f"{name} is in no page"


@pytest.mark.parametrize("name", [name for name in vars(VitalTracker) if not name.startswith("_")])
def test_every_public_part_of_the_tracker_has_a_docstring(name: str) -> None:
    assert (getattr(VitalTracker, name).__doc__ or "").strip()


def test_the_pages_show_every_way_to_record() -> None:
    uses = ("handler", "install()", "uninstall()", "embeddings(", "record(", "guard(", "admit(", "aadmit(")
    for use in (*uses, "flush(", "close(", "stats()"):
        assert f"tracker.{use}" in ALL_PAGES
    for scope in ("conversation(", "panel(", "workflow(", "solution("):
        assert f"tracker.{scope}" in ALL_PAGES


def test_the_data_page_names_every_column_and_function(rows: Rows) -> None:
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`\n]+`", PAGES["data.md"]))))
    columns = rows(
        "select distinct table_name::text, column_name::text from information_schema.columns where table_schema = 'public'"
    )
    functions = rows("select proname::text from pg_proc where pronamespace = 'public'::regnamespace")
    relations = {column["table_name"] for column in columns}
    assert {"token_usage_logs", "service_runs", "agent_usage_detailed", "workflow_analytics"} <= relations
    for relation in relations:
        assert re.search(rf"^## {relation}$|^\| `{relation}` \|", PAGES["data.md"], re.MULTILINE), relation
    missing = {column["column_name"] for column in columns} | {function["proname"] for function in functions}
    assert missing - named == set()


def test_the_pages_list_what_the_code_lists() -> None:
    kept = PAGES["privacy.md"].partition("fixed list of keys:")[2].partition("Others")[0]
    assert set(re.findall(r"`(\w+)`", kept)) == ALLOWED_METADATA
    for provider, model in DEFAULT_MODELS.items():
        assert re.search(rf"{provider}\s+{re.escape(model)}", PAGES["pricing.md"])
    for key in CallContext().replace(dict.fromkeys(CONTEXT_FIELDS, "x")).as_metadata():
        assert f"`{key}`" in PAGES["services.md"]


# The pages themselves


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_the_pages_lead_somewhere(page: str) -> None:
    folder = REPOSITORY if page == "README.md" else REPOSITORY / "docs"
    headings = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", PAGES[page], re.MULTILINE)
    }
    targets = re.findall(r"\]\(([^)]+)\)", PAGES[page])
    assert targets or "](" not in PAGES[page]
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif not target.startswith("https://"):
            assert (folder / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", [*PAGES, ".env.example", "CHANGELOG.md"])
def test_no_page_shows_anything_of_the_machine_it_was_made_on(page: str) -> None:
    text = PAGES.get(page) or (REPOSITORY / page).read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w:/.])/(home|root|Users|work|tmp|var|opt|mnt)\b", text)


def test_the_picture_shows_what_the_demonstration_costs() -> None:
    picture = (REPOSITORY / "docs" / "demo.svg").read_text(encoding="utf-8")
    for amount in ("$0.0276798", "$0.0203523", "$0.0189597", "$0.00528", "$0.04704"):
        assert amount in picture
    assert not re.search(r"/(home|root|Users|tmp|var)/", picture)


def test_the_picture_of_windows_shows_every_action_and_what_is_left() -> None:
    picture = (REPOSITORY / "docs" / "budgets.svg").read_text(encoding="utf-8").replace("&#160;", " ")
    shown = ("throttle", "downgrade", "block", "block (shadow)", "alert", "$0.047 of $0.045", "$0.082 of $0.50")
    for text in (*shown, "user demo-user, day", "organization demo, month"):
        assert text in picture
    assert not re.search(r"/(home|root|Users|tmp|var)/", picture)


def test_the_picture_of_reports_shows_days_savings_and_the_months_end() -> None:
    picture = (REPOSITORY / "docs" / "reports.svg").read_text(encoding="utf-8").replace("&#160;", " ")
    for text in ("by day", "p95", "saved", "Caches saved", "Forecast for October 2026", "most likely"):
        assert text in picture
    assert not re.search(r"/(home|root|Users|tmp|var)/", picture)


def test_the_pages_belong_to_the_version() -> None:
    changes = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{vital_tracking.__version__}]" in changes
