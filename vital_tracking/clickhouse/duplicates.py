"""Requests that were made more than once, from a copy: among the calls that it holds and those that PostgreSQL sends along."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from vital_tracking.clickhouse.asking import FINAL, organization_condition, question, reader_condition
from vital_tracking.clickhouse.client import ClickHouse, quoted

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def copied_duplicates(
    server: ClickHouse, asked: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The answer of duplicates_v2; None where PostgreSQL has to answer. Raises CopyError.

    `asked` is what duplicates_v2 says to ask the copy.
    """
    answer = asked["answer"]
    parameters: dict[str, Any] = {
        "since": datetime.fromisoformat(asked["since"]),
        "until": datetime.fromisoformat(asked["until"]),
        "rows": max(asked["rows"], 1),  # which carries the sums
    }
    text = question(
        "duplicates",
        organization=organization_condition(answer["organization"], parameters),
        reader=reader_condition(asked["reader"], parameters),
        lacking=quoted(asked["lacking"]),
    )
    lines = server.lines(text, parameters, settings={**FINAL, **settings})
    rows = [json.loads(line) for line in lines]
    if any(row["is_odd"] for row in rows):
        return None
    sums = rows[0] if rows else {}
    return {
        **answer,
        "requests": sums.get("all_requests", 0),
        "repeated_calls": sums.get("all_repeated_calls", 0),
        "saved_by_caching": sums.get("all_saved_by_caching", "0"),
        "rows": [_shown(row) for row in rows[: asked["rows"]]],
    }


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{
            name: row[name]
            for name in ("request_hash", "organization_id", "model", "agent_id", "cost", "saved_by_caching")
        },
        **{name: int(row[name]) for name in ("calls", "unpriced_calls")},
        **{name: (_EPOCH + timedelta(microseconds=int(row[name]))).isoformat() for name in ("first_at", "last_at")},
    }
