"""The version of usage: another one for whoever sees that something has changed, and for nobody else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.sql.helpers import (
    ADMIN,
    ALICE,
    BOB,
    STRANGER,
    Connection,
    a_call,
    a_run,
    acting_as,
    an_end,
    call,
    call_id,
    record,
    record_runs,
    set_budget,
)
from tests.sql.platform_rows import a_cost, send

READERS = {"admin": ADMIN, "alice": ALICE, "bob": BOB, "another admin": STRANGER}


def versions(db: Connection) -> dict[str, Any]:
    found = {"all": call(db, "usage_version_v1")}
    for name, subject in READERS.items():
        with acting_as(db, "authenticated", {"sub": subject}):
            found[name] = call(db, "usage_version_v1")
    return found


def test_whoever_sees_a_change_sees_another_version(db: Connection) -> None:
    """If this failed, an open page would show what is no longer so, or be made anew for everybody with each call of anybody."""
    db.execute(
        "insert into organization_members values ('acme', %s, 'admin'), ('acme', %s, 'member'), ('other', %s, 'admin')",
        [ADMIN, ALICE, STRANGER],
    )
    of_acme: dict[str, Any] = {"organization_id": "acme", "user_id": ALICE}
    record(db, a_call(1, **of_acme), a_call(2, organization_id="other", user_id=BOB))
    known = versions(db)
    assert len(set(known.values())) == len(known)
    assert versions(db) == known

    def seen_by(change: Callable[[], object]) -> set[str]:
        nonlocal known
        before, _ = known, change()
        known = versions(db)
        return {name for name in known if known[name] != before[name]}

    priced = "update token_usage_logs set total_cost = 3, input_cost = 3, output_cost = 0 where id = %s"
    assert seen_by(lambda: record(db, a_call(3, **of_acme))) == {"all", "admin", "alice"}
    assert seen_by(lambda: db.execute(priced, [call_id(1)])) == {"all", "admin", "alice"}
    assert seen_by(lambda: db.execute("delete from token_usage_logs where id = %s", [call_id(3)])) == {
        "all",
        "admin",
        "alice",
    }
    assert seen_by(lambda: record(db, a_call(4, organization_id="other", user_id=BOB))) == {
        "all",
        "bob",
        "another admin",
    }
    assert seen_by(lambda: send(db, "tenant_cost_events", a_cost(1, **of_acme))) == {"all", "admin", "alice"}
    assert seen_by(lambda: record(db, a_call(5, organization_id=None, user_id=None))) == {"all"}
    assert seen_by(lambda: set_budget(db, entity_type="organization", entity_id="acme", daily_limit=5)) == {
        "all",
        "admin",
    }
    joined = "insert into organization_members values ('acme', %s, 'member')"
    assert seen_by(lambda: db.execute(joined, [BOB])) == {"all", "admin", "bob"}


def test_whoever_lists_a_run_that_changes_gets_another_version_of_the_list(db: Connection) -> None:
    """If this failed, an open page of runs would show one as running that has ended, or be made anew for everybody."""
    db.execute(
        "insert into organization_members values ('acme', %s, 'admin'), ('other', %s, 'admin')", [ADMIN, STRANGER]
    )
    of_alice = {"organization_id": "acme", "user_id": ALICE}
    record_runs(db, a_run("r-1", **of_alice), a_run("r-2", organization_id="other", user_id=BOB))

    def versions_of(**asked: Any) -> dict[str, Any]:
        found = {"all": call(db, "runs_version_v1", **asked)}
        for name, subject in READERS.items():
            with acting_as(db, "authenticated", {"sub": subject}):
                found[name] = call(db, "runs_version_v1", **asked)
        return found

    def seen_by(*runs: object, **asked: Any) -> set[str]:
        before = versions_of(**asked)
        assert record_runs(db, *runs)["rejected"] == []
        after = versions_of(**asked)
        return {name for name in after if after[name] != before[name]}

    theirs = {"all", "admin", "alice"}
    assert seen_by(an_end("r-1", **of_alice)) == theirs
    assert seen_by(an_end("r-1", **of_alice)) == set()
    assert seen_by(a_run("r-3", parent_run_id="r-1", **of_alice)) == theirs  # inside of a run that is listed
    assert seen_by(an_end("r-2", organization_id="other", user_id=BOB)) == {"all", "bob", "another admin"}
    assert seen_by(a_run("r-4", **of_alice), filters='{"organization": "other"}') == set()
    assert seen_by(a_run("r-5", **of_alice, started_at="2026-01-10T00:00:00Z"), max_rows=1) == set()


def test_what_is_older_than_the_days_that_count_changes_nothing(db: Connection) -> None:
    """If this failed, each page would read the sums of all years."""
    mine = {"organization_id": "acme", "user_id": ALICE}
    record(
        db, a_call(1, **mine, created_at="2026-03-01T12:00:00Z"), a_call(2, **mine, created_at="2026-03-08T12:00:00Z")
    )
    told = []
    for change in ("", "update token_usage_logs set latency_ms = 7 where id = %s"):
        if change:
            db.execute(change.encode(), [call_id(1)])
        with acting_as(db, "authenticated", {"sub": ALICE}):
            told.append((call(db, "usage_version_v1", since="2026-03-08"), call(db, "usage_version_v1")))
    assert told[0][0] == told[1][0]
    assert told[0][1] != told[1][1]
