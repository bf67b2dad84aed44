"""Pairs of calls and shadow runs: two models are compared by these alone."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from tests.sql.helpers import Connection, Row, a_call, an_unpriced_call, call, call_id, record

SINCE, UNTIL = "2026-01-15T00:00:00+00:00", "2026-01-16T00:00:00+00:00"


def pair(number: int, *, first: Row | None = None, second: Row | None = None, **both: Any) -> list[Row]:
    """A call of `dear` and its shadow run of `cheap`, a second later."""
    both = {"organization_id": "acme", "agent_id": "triage", "latency_ms": 100.0 * number, **both}
    shadow = {
        "model": "cheap",
        "created_at": "2026-01-15T10:00:01+00:00",
        "metadata": {"shadow_of": call_id(number), "team": "red"},
        "latency_ms": 10.0 * number,
        "prompt_tokens": 110,
        "completion_tokens": 5,
        "total_tokens": 115,
        "input_cost": "0.03",
        "output_cost": "0.01",
        "total_cost": "0.04",
        "potential_cost": "0.04",
    }
    return [
        a_call(number, **{"model": "dear", **both, **(first or {})}),
        a_call(1000 + number, **{**both, **shadow, **(second or {})}),
    ]


def test_pairs_are_summed_where_both_can_be_compared(db: Connection) -> None:
    """If this failed, advice would promise a saving by an answer that failed, or by tokens that nobody counted."""
    failed = {"status": "error", "completion_tokens": 0, "total_tokens": 110}
    unpriced = an_unpriced_call(1004)
    money = {name: None for name in a_call() if name not in unpriced} | {"priced": False}
    sent = [
        *pair(1),
        *pair(2),
        *pair(3, second=failed),
        *pair(4, second=money),
        *pair(5, second={"usage_estimated": True}),
        *pair(6, agent_id="other", first={"created_at": "2026-01-14T23:59:59+00:00"}),
        # None of these is a pair of this time, organization or call.
        *pair(7, second={"created_at": UNTIL}),
        *pair(8, organization_id="globex"),
        *pair(9, second={"organization_id": "globex"}),
        *pair(10, second={"metadata": {"shadow_of": "no id"}}),
        *pair(11, second={"metadata": {"shadow_of": [call_id(11)]}}),
        *pair(12, second={"metadata": {"shadow_of": call_id(99)}}),
    ]
    assert record(db, *sent) == {"inserted": len(sent), "duplicate": 0, "rejected": []}
    found = call(db, "shadow_pairs_v1", since=SINCE, until=UNTIL, organization="acme")
    assert [(row["model"], row["shadow_model"], row["agent_id"], row["pairs"]) for row in found] == [
        ("dear", "cheap", "triage", 5),
        ("dear", "cheap", "other", 1),
    ]
    row = found[0]
    assert (row["succeeded"], row["shadow_succeeded"], row["measured_pairs"], row["priced_pairs"]) == (5, 4, 3, 2)
    tokens = ("prompt_tokens", "shadow_prompt_tokens", "completion_tokens", "shadow_completion_tokens")
    assert [row[name] for name in tokens] == [300, 330, 60, 15]
    assert (row["cost"], row["shadow_cost"]) == ("0.84", "0.08")
    assert (row["latency_ms"], row["shadow_latency_ms"]) == (200, 20), "medians of pairs 1, 2 and 4"
    everybody = db.execute("select sum(pairs) as pairs from shadow_pairs(%s, %s)", [SINCE, UNTIL]).fetchone()
    assert everybody == {"pairs": Decimal(7)}
    assert call(db, "shadow_pairs_v1", since=UNTIL, until="2026-01-17T00:00:00Z", organization="nobody") == []
