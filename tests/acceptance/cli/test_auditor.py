"""The auditor's login on the command line: what reads works, and what would change something is told that his role may not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from tests.acceptance.cli.helpers import Several, some_calls
from vital_tracking import VitalTracker
from vital_tracking.cli.app import COMMANDS

READS = (
    "status", "doctor", "calls", "runs", "run {run}", "why u-1", "report", "report anomalies", "report forecast",
    "report duplicates", "invoice {month} --organization o-1", "export calls all.csv", "retention show", "prices list",
    "budgets list", "budgets windows", "members list", "alerts list", "spool status", "reports list",
    "quotas", "rate-limits", "plans list", "subscriptions list", "health", "abuse list", "import list",
    "what-if --processing batch", "advise --no-save", "advise list", "compare-models 100 10",
    "calculate plan 1 1",
)  # fmt: skip
CHANGES = (
    "migrate", "migrate --uninstall --yes", "budgets set user --daily 5", "budgets remove {budget} --yes",
    "members add u-9 --organization o-1", "prices set house-llm-7b --input 1 --output 1", "refresh", "backfill",
    "retention set token_usage_logs 400d", "forget-user u-1 --yes", "backup all.dump",
    "plans set trial --calls 5", "subscriptions set user u-1 starter", "abuse scan", "meter --postgres",
    "allocate {month} --amount 5 --by equal --organization o-1",
)  # fmt: skip
ELSEWHERE = {"dashboard", "demo", "psql", "stop", "restore", "export clickhouse"}
"""What asks nothing of the configured database by itself, or opens it for other programs."""
WRITES_WHERE_THERE_IS_SOMETHING = {"reprice", "archive"}
"""What looks first, and finds nothing to do here."""


@pytest.fixture
def auditor(database_url: str) -> Iterator[str]:
    """The URL of a login that has been granted the auditor's role."""
    login = f"bookkeeper_{os.getpid()}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"create role {login} login in role vital_auditor".encode())
        yield database_url.replace("postgres@", f"{login}@", 1)
        connection.execute(f"drop role {login}".encode())


def test_the_auditor_reads_by_every_command_and_is_told_what_his_role_may_not(
    several: Several, auditor: str, tracker: VitalTracker, database_url: str
) -> None:
    """If this failed, an accountant would be told to run migrations, or could change the books."""
    named = {command.split()[0] for command in (*READS, *CHANGES)}
    assert named | ELSEWHERE | WRITES_WHERE_THERE_IS_SOMETHING == set(COMMANDS)
    some_calls(tracker)
    with psycopg.connect(database_url, autocommit=True) as connection:
        [[run]] = connection.execute("select id from service_runs limit 1").fetchall()
        [[budget]] = connection.execute(
            """select set_budget_v1('{"entity_type": "user", "daily_limit": 5}') ->> 'id'"""
        ).fetchall()
    facts = {"run": run, "budget": budget, "month": f"{datetime.now(UTC):%Y-%m}"}
    commands = [[f"VITAL_DATABASE_URL={auditor}", *one.format_map(facts).split()] for one in (*READS, *CHANGES)]
    for command, done in zip((*READS, *CHANGES), several(*commands), strict=True):
        said = done.stdout + done.stderr
        assert (done.returncode == 0) == (command in READS), (command, said)
        assert ("our role may not" in said) == (command in CHANGES), (command, said)
        assert "Run: vital-tracking migrate" not in said, (command, said)
