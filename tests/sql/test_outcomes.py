"""Outcomes by agent and model: which calls belong to an execution, what counts for no model, and who sees what."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.sql.helpers import ADMIN, ALICE, BOB, Connection, Row, a_call, acting_as, call, record
from tests.sql.platform_rows import an_execution, send
from vital_tracking.queries.answers import typed
from vital_tracking.queries.outcomes import Outcomes

TIME = {"since": "2026-01-15T00:00:00Z", "until": "2026-01-16T00:00:00Z"}

# Number of the execution, run, organization and user, success, rating, faithfulness; then the calls of the run.
SHADOWED = "00000000-0000-0000-0000-000000000001"
LARGE, SMALL = {"provider": "openai", "model": "gpt-4o"}, {"provider": "openai", "model": "gpt-4o-mini"}
EXECUTIONS: tuple[tuple[str | None, str | None, str, bool, float | None, float | None, list[Row]], ...] = (
    ("r-1", "acme", ALICE, True, 5, 0.9, [LARGE, LARGE]),
    ("r-2", "acme", ALICE, False, 2, None, [LARGE]),
    ("r-3", "acme", BOB, True, 4, 0.7, [SMALL, {**LARGE, "metadata": {"shadow_of": SHADOWED}}]),  # nobody saw its answer
    ("r-4", "acme", BOB, True, 1, None, [LARGE, SMALL]),  # two models: nobody knows whose merit it was
    ("r-5", "acme", BOB, True, None, None, [SMALL, {**LARGE, "agent_id": "legal"}]),  # another's call in the same run
    (
        "r-6", "acme", ALICE, True, None, 0.8, [
            SMALL,
            {**LARGE, "status": "error"},
            {**LARGE, "cache_hit": True, "input_cost": "0", "output_cost": "0", "total_cost": "0"},
            {"provider": "openai", "model": "text-embedding-3-small", "call_type": "embedding"},
        ],
    ),
    ("r-7", "acme", ALICE, True, 3, None, []),  # no call at all
    (None, "acme", ALICE, True, 3, None, []),  # no run
    ("r-8", "other", BOB, True, None, None, [LARGE]),
    ("r-9", None, ALICE, True, 5, None, [{"provider": "azure", "model": "gpt-4o"}, {"model": "gpt-4o", "provider": "azure"}]),
)  # fmt: skip


@pytest.fixture
def recorded(db: Connection) -> Connection:
    db.execute("insert into organization_members values ('acme', %s, 'admin')", [ADMIN])
    calls: list[Row] = []
    executions: list[Row] = []
    for number, (run, organization, user, success, rating, faithful, made) in enumerate(EXECUTIONS, 1):
        whose = {"organization_id": organization, "user_id": user, "service_run_id": run}
        executions.append(
            an_execution(
                number, **whose, success=success, rating=rating, faithfulness=faithful, answer_relevancy=faithful
            )
        )
        for changes in made:
            calls.append(
                a_call(len(calls) + 1, **{
                    "created_at": "2026-01-15T10:00:01Z", "agent_id": "cardio", "status": "ok", **whose, **changes,
                })
            )  # fmt: skip
    early = an_execution(90, organization_id="acme", service_run_id="r-1", started_at="2026-01-14T23:59:59Z")
    assert send(db, "agent_executions", *executions, early)["inserted"] == len(executions) + 1
    assert record(db, *calls)["inserted"] == len(calls)
    return db


def outcomes(db: Connection, **asked: Any) -> Outcomes:
    return typed(Outcomes, call(db, "outcomes_v1", **{**TIME, **asked}))


def rows(found: Outcomes) -> dict[tuple[str | None, str | None, str], tuple[Any, ...]]:
    return {
        (row["organization_id"], row["provider"], row["model"]): (
            row["executions"], row["succeeded"], float(row["success_rate"]),
            row["ratings"], None if row["rating"] is None else float(row["rating"]),
            row["faithfulness_scores"], None if row["faithfulness"] is None else float(row["faithfulness"]),
        )
        for row in found["rows"]
    }  # fmt: skip


def test_an_execution_counts_for_the_one_model_that_its_agent_used(recorded: Connection) -> None:
    """If this failed, a model would be praised for what another one did."""
    found = outcomes(recorded)
    assert (found["executions"], found["several_models"], found["no_calls"]) == (10, 1, 2)
    assert {row["agent"] for row in found["rows"]} == {"cardio"}
    assert rows(found) == {
        ("acme", "openai", "gpt-4o"): (2, 1, 50.0, 2, 3.5, 1, 0.9),
        ("acme", "openai", "gpt-4o-mini"): (3, 3, 100.0, 1, 4.0, 2, 0.75),
        ("other", "openai", "gpt-4o"): (1, 1, 100.0, 0, None, 0, None),
        (None, "azure", "gpt-4o"): (1, 1, 100.0, 1, 5.0, 0, None),
    }
    assert found["rows"][0]["answer_relevancy_scores"] == 2
    of_other = outcomes(recorded, organization="other")
    assert (of_other["executions"], list(rows(of_other))) == (1, [("other", "openai", "gpt-4o")])
    assert outcomes(recorded, since="2026-02-01Z", until="2026-02-02Z")["rows"] == []


def test_everybody_learns_of_what_is_theirs_alone(recorded: Connection) -> None:
    """If this failed, quality would tell of another's work."""
    with acting_as(recorded, "authenticated", {"sub": ADMIN}):
        assert set(rows(outcomes(recorded))) == {("acme", "openai", "gpt-4o"), ("acme", "openai", "gpt-4o-mini")}
        assert outcomes(recorded, organization="other")["executions"] == 0
    with acting_as(recorded, "authenticated", {"sub": ALICE}):
        own = outcomes(recorded)
    assert (own["executions"], own["several_models"]) == (6, 0)
    assert rows(own)["acme", "openai", "gpt-4o-mini"][:2] == (1, 1)
    with acting_as(recorded, "authenticated", {"sub": "nobody"}):
        assert outcomes(recorded) == {"executions": 0, "several_models": 0, "no_calls": 0, "rows": []}


def test_moments_of_python_are_taken(recorded: Connection) -> None:
    moments = {"since": datetime(2026, 1, 15, tzinfo=UTC), "until": datetime(2026, 1, 16, tzinfo=UTC)}
    assert outcomes(recorded, **moments) == outcomes(recorded)
