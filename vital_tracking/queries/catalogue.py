"""What can be asked of calls: the measures, how they are grouped, and by what they are filtered.

The command line takes its options, the headings of its tables, its CSV and its JSON from here; the names are those of the
database's answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from vital_tracking.core.entities import ENTITIES


class Unit(StrEnum):
    """What a measure is counted in."""

    calls = "calls"
    tokens = "tokens"
    usd = "US dollars"
    share = "share"  # of 1
    percent = "percent"
    ms = "milliseconds"


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure of a group of calls: its name in answers, JSON and CSV; its heading in tables; its unit."""

    name: str
    label: str
    unit: Unit


@dataclass(frozen=True, slots=True)
class Grouping:
    """A way to group calls: its name, its title, and the columns that tell its rows apart.

    `by` are the dimensions of exploring that make a group, `some` those of which a call must have one, `ranked_by` the measure by
    which rows are ordered. `more` names the measures that it has beside those of all groupings. What is not `summed` is no report
    of usage_report_v1.
    """

    name: str
    title: str
    labels: tuple[str, ...]
    by: tuple[str, ...] = ()
    some: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    ranked_by: str = "total_cost"
    summed: bool = True

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures of its rows, but for their share in the total."""
        return (*(name for name in MEASURES if name not in _SPECIAL), *self.more)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of its rows for programs: labels, then measures."""
        return (*self.labels, *(name for name in MEASURES if name not in _SPECIAL), "share", *self.more)


_SPECIAL: Final = ("share", "prompt_cache_rate", "reported_calls", "reported_cost", "reported_total_cost")
"""Measures that not every sum has: the share of a row in the total, and what only some groupings tell."""


def _by_name(measures: Iterable[Measure]) -> Mapping[str, Measure]:
    return MappingProxyType({measure.name: measure for measure in measures})


MEASURES: Final = _by_name(
    (
        Measure("calls", "calls", Unit.calls),
        Measure("cached_calls", "cached", Unit.calls),
        Measure("failed_calls", "failed", Unit.calls),
        Measure("blocked_calls", "blocked", Unit.calls),
        Measure("unpriced_calls", "unpriced", Unit.calls),
        Measure("estimated_calls", "estimated", Unit.calls),
        Measure("prompt_tokens", "prompt tokens", Unit.tokens),
        Measure("completion_tokens", "completion tokens", Unit.tokens),
        Measure("total_tokens", "tokens", Unit.tokens),
        Measure("cache_read_tokens", "read from caches", Unit.tokens),
        Measure("fees", "fees", Unit.usd),
        Measure("total_cost", "cost", Unit.usd),
        Measure("potential_cost", "without caches", Unit.usd),
        Measure("timed_out_calls", "timed out", Unit.calls),
        Measure("cache_savings", "saved", Unit.usd),
        Measure("hit_rate", "hit rate", Unit.percent),
        Measure("success_rate", "success", Unit.percent),
        Measure("average_latency_ms", "average", Unit.ms),
        Measure("p50_latency_ms", "p50", Unit.ms),
        Measure("p95_latency_ms", "p95", Unit.ms),
        Measure("p99_latency_ms", "p99", Unit.ms),
        Measure("timeout_rate", "time-outs", Unit.percent),
        Measure("tokens_per_dollar", "tokens a $", Unit.tokens),
        Measure("share", "share", Unit.share),
        Measure("prompt_cache_rate", "prompt cache", Unit.percent),
        Measure("reported_calls", "reported calls", Unit.calls),
        Measure("reported_cost", "reported cost", Unit.usd),
        Measure("reported_total_cost", "cost of these by our prices", Unit.usd),
    )
)
"""The measures, by name. Failed calls include those that a budget blocked."""

GROUPINGS: Final[Mapping[str, Grouping]] = MappingProxyType(
    {
        grouping.name: grouping
        for grouping in (
            Grouping("services", "Services", ("service_type",), by=("service",)),
            Grouping(
                "users",
                "Users",
                ("organization_id", "user_id", "services", "last_day"),
                by=("organization", "user"),
            ),
            Grouping(
                "agents",
                "Agents",
                ("organization_id", "agent_id", "agent_name", "agent_tier"),
                by=("organization", "agent", "tier"),
            ),
            Grouping(
                "panels",
                "Panels, by seat",
                ("organization_id", "panel_id", "panel_position", "agent_id", "agent_name"),
                by=("organization", "panel", "seat", "agent"),
                some=("panel",),
            ),
            Grouping(
                "workflows",
                "Workflows, by step",
                ("organization_id", "workflow_id", "workflow_step", "workflow_step_name"),
                by=("organization", "workflow", "step"),
                some=("workflow", "step"),
            ),
            Grouping(
                "models",
                "Models",
                ("provider", "model"),
                by=("provider", "model"),
                more=("reported_calls", "reported_cost", "reported_total_cost"),
            ),
            Grouping(
                "cache",
                "What caches saved",
                ("service_type", "provider", "model"),
                by=("service", "provider", "model"),
                more=("prompt_cache_rate",),
                ranked_by="cache_savings",
            ),
            Grouping("organizations", "Organizations", ("organization_id",), by=("organization",)),
            Grouping(
                "sessions",
                "Sessions",
                ("organization_id", "user_id", "session_id", "first_day", "last_day"),
                by=("organization", "user", "session"),
                some=("session",),
                summed=False,
            ),
            Grouping(
                "solutions",
                "Solutions",
                ("organization_id", "solution_id"),
                by=("organization", "solution"),
                some=("solution",),
                summed=False,
            ),
            Grouping(
                "runs",
                "Runs, without what is nested in them",
                ("organization_id", "service_run_id", "service_type", "service_name", "user_id", "first_day"),
                by=("organization", "run", "service", "user"),
                some=("run",),
                summed=False,
            ),
            Grouping("time", "Time", ("time",), by=("time",), summed=False),
        )
    }
)
"""How usage reports group calls, by the name of the report."""

GRAINS: Final = ("hour", "day", "week", "month")
"""How finely a report tells its course."""

FILTERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **{entity.name: entity.column for entity in ENTITIES},
        "framework": "framework",
        "provider": "provider",
        "message_type": "message_type",
        "call_type": "call_type",
        "status": "status",
        "error": "error_type",
        "unpriced": "priced",
    }
)
"""By what calls are filtered, and the column that says it."""
