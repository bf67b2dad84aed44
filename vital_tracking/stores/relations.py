"""The tables and views that can be exported row by row, with the kinds of their columns.

Values travel as text, as PostgreSQL writes them, so that no store and no client rounds an amount: times as ISO in UTC, arrays and
JSON as JSON, truth as true and false, NULL as None.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, TypeAlias

Values: TypeAlias = tuple[str | None, ...]
"""The values of a row as text, in the order of the relation's columns."""


class ColumnKind(StrEnum):
    """What a column holds."""

    text = "text"
    integer = "integer"
    decimal = "decimal"
    real = "real"
    truth = "truth"
    time = "time"
    day = "day"
    list = "list"
    json = "json"


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or view of the schema public. `time`: the column of `since` and `until`; `key`: the columns that sort its rows."""

    name: str
    columns: Mapping[str, ColumnKind]
    time: str
    key: tuple[str, ...]
    unique: bool = False
    """Whether the key identifies a row, and none of its columns is ever NULL."""

    @property
    def filters(self) -> tuple[str, ...]:
        """Which of `organization_id` and `user_id` the relation has."""
        return tuple(name for name in ("organization_id", "user_id") if name in self.columns)


def _columns(**names: str) -> Mapping[str, ColumnKind]:
    """Columns by their kind, in the order of the words; a column's kind may stand behind it: `calls:integer`."""
    found = {}
    for default, words in names.items():
        for word in words.split():
            name, _, kind = word.partition(":")
            found[name] = ColumnKind(kind or default)
    return MappingProxyType(found)


CALLS: Final = Relation(
    "token_usage_logs",
    _columns(
        text="""
            id created_at:time recorded_at:time organization_id user_id session_id service_type service_id service_name
            service_run_id agent_id agent_name agent_tier agent_role workflow_id workflow_step workflow_step_name panel_id
            panel_position:integer panel_size:integer solution_id framework provider model requested_model sent_model call_type
            message_type calls:integer run_id parent_run_id trace_id langsmith_project prompt_tokens:integer
            completion_tokens:integer total_tokens:integer cache_read_tokens:integer cache_write_tokens:integer
            cache_write_1h_tokens:integer reasoning_tokens:integer audio_tokens:integer audio_output_tokens:integer
            billed_units:json usage_estimated:truth input_cost:decimal output_cost:decimal fees:decimal total_cost:decimal
            potential_cost:decimal price_version priced:truth ceiling_cost:decimal reported_cost:decimal latency_ms:real
            ttft_ms:real first_word_ms:real cache_hit:truth status success:truth error_type budget_action blocked_by:json
            throttled_ms:real request_hash prefix_hashes:list prompt_bytes:integer tags:list metadata:json
        """
    ),
    time="created_at",
    key=("id", "created_at"),
    unique=True,
)

RUNS: Final = Relation(
    "service_runs",
    _columns(
        text="""
            id parent_run_id ancestor_run_ids:list organization_id user_id session_id service_type service_id service_name
            agent_id workflow_id panel_id panel_size:integer solution_id status started_at:time ended_at:time error_type
            metadata:json recorded_at:time
        """
    ),
    time="started_at",
    key=("id",),
    unique=True,
)

EVENTS: Final = Relation(
    "platform_events",
    _columns(
        text="""
            id occurred_at:time recorded_at:time organization_id user_id session_id category event_name source ip_hash
            value:decimal properties:json
        """
    ),
    time="occurred_at",
    key=("id", "occurred_at"),
    unique=True,
)
COSTS: Final = Relation(
    "tenant_cost_events",
    _columns(
        text="""
            id occurred_at:time recorded_at:time organization_id user_id cost_type service resource quantity:decimal unit
            unit_price:decimal cost_usd:decimal price_version metadata:json priced:truth
        """
    ),
    time="occurred_at",
    key=("id", "occurred_at"),
    unique=True,
)
EXECUTIONS: Final = Relation(
    "agent_executions",
    _columns(
        text="""
            id started_at:time recorded_at:time organization_id user_id agent_id agent_name workflow_id service_run_id
            duration_ms:real success:truth error_type total_tokens:integer cost_usd:decimal rating:decimal
            faithfulness:decimal answer_relevancy:decimal context_precision:decimal context_recall:decimal citations:integer
            metadata:json
        """
    ),
    time="started_at",
    key=("id", "started_at"),
    unique=True,
)

_MEASURES: Final = """
    calls:integer cached_calls:integer failed_calls:integer blocked_calls:integer unpriced_calls:integer estimated_calls:integer
    timed_calls:integer prompt_tokens:integer completion_tokens:integer total_tokens:integer cache_read_tokens:integer
    cache_write_tokens:integer reasoning_tokens:integer audio_tokens:integer input_cost:decimal output_cost:decimal
    fees:decimal total_cost:decimal potential_cost:decimal reported_calls:integer reported_cost:decimal
    reported_total_cost:decimal latency_us:integer timed_out_calls:integer
"""


def _sums(name: str, time: str, *keys: str) -> Relation:
    kind = ColumnKind.day if time == "day" else ColumnKind.time
    columns = _columns(text=f"{time}:{kind} {' '.join(keys)} {_MEASURES}")
    names = tuple(key.partition(":")[0] for key in keys if not key.endswith("_name"))
    return Relation(f"usage_aggregations_{name}", columns, time=time, key=(time, *names))


HOURLY: Final = _sums("hourly_totals", "hour_start", "organization_id", "service_type")
DAILY_TOTALS: Final = _sums("daily_totals", "day", "organization_id", "service_type")
DAILY: Final = _sums(
    *("daily_agents", "day", "organization_id", "service_type", "agent_id", "agent_name", "agent_tier", "framework"),
    *("provider", "model", "message_type", "call_type"),
)
DAILY_USERS: Final = _sums("daily_users", "day", "organization_id", "user_id", "service_type", "call_type")
DAILY_PARTS: Final = _sums(
    *("daily_parts", "day", "organization_id", "service_type", "panel_id", "panel_position:integer", "workflow_id"),
    *("workflow_step", "workflow_step_name", "agent_id", "agent_name"),
)
ALERTS: Final = Relation(
    "cost_alerts",
    _columns(
        text="""
            id:integer created_at:time budget_id:integer organization_id entity_type entity_id metric action enforce:truth
            period window_starts_at:time window_ends_at:time threshold:decimal limit_amount:decimal spent:decimal held:decimal
            superseded:truth delivered_at:time pattern severity
        """
    ),
    time="created_at",
    key=("id",),
    unique=True,
)
AUDIT: Final = Relation(
    "admin_audit",
    _columns(
        text="id:integer at:time actor database_role application organization_id table_name operation key:json changes:json"
    ),
    time="at",
    key=("id",),
    unique=True,
)

RELATIONS: Final[Mapping[str, Relation]] = MappingProxyType(
    {
        "calls": CALLS,
        "runs": RUNS,
        "events": EVENTS,
        "costs": COSTS,
        "executions": EXECUTIONS,
        "hourly": HOURLY,
        "daily-totals": DAILY_TOTALS,
        "daily": DAILY,
        "daily-users": DAILY_USERS,
        "daily-parts": DAILY_PARTS,
        "alerts": ALERTS,
        "audit": AUDIT,
    }
)
"""What can be exported, by its name on the command line."""

MONTHLY: Final[Mapping[str, Relation]] = MappingProxyType(
    {"calls": CALLS, "events": EVENTS, "costs": COSTS, "executions": EXECUTIONS}
)
"""What is kept by month and can be archived, by its name on the command line."""


def time_text(text: str) -> str:
    """A time as PostgreSQL or its API writes it, as ISO in UTC."""
    if text.endswith("+00"):
        return f"{text[:10]}T{text[11:]}:00"
    if text.endswith("+00:00") and text[10] == "T":
        return text
    return datetime.fromisoformat(text).astimezone(UTC).isoformat()


def value_text(value: Any) -> str | None:
    """A value of JSON as the text that PostgreSQL would write."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _truth_text(text: str) -> str:
    return {"t": "true", "f": "false"}.get(text, text)


TEXT_OF: Final[Mapping[ColumnKind, Callable[[str], str]]] = MappingProxyType(
    {ColumnKind.time: time_text, ColumnKind.truth: _truth_text}
)
"""How the texts of some kinds are brought into one form, since stores write them differently."""
