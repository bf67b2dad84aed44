"""A usage report by exploring: its grouping as dimensions, its filters as theirs, and the answer's rows as the report's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from vital_tracking.core.breakdowns import DIMENSIONS as SPLITS
from vital_tracking.queries.catalogue import Grouping
from vital_tracking.queries.explore import ANY, DIMENSIONS
from vital_tracking.queries.filters import Filters
from vital_tracking.stores import Store

METADATA: Final = "metadata."
"""What stands before a key of the metadata in the names of labels and dimensions."""

COLUMNS: Final[Mapping[str, str]] = {
    **{one: f"{one}_id" for one in ("organization", "user", "session", "agent", "workflow", "panel", "solution")},
    "service": "service_type",
    "tier": "agent_tier",
    "step": "workflow_step",
    "seat": "panel_position",
    "run": "service_run_id",
}
"""What reports call the dimensions that are not called like a column of calls."""

_SPLIT: Final[Mapping[str, tuple[str, ...]]] = {"workflow_step": ("step", "workflow")}
"""The dimensions of a word by which reports are split that is none itself."""

_MORE_THAN_A_VALUE: Final = ("step", "run")
"""Filters of calls that say more than the dimension of their name: a step's name will do, a run holds what is nested in it."""

_DETAILS: Final = ("first_day", "last_day", "services")
"""What all rows tell, and some reports show."""


def explored_report(
    store: Store,
    grouping: Grouping,
    filters: Filters,
    *,
    by: str | None,
    timezone: str,
    grain: str,
    sort: str | None,
    ascending: bool,
    rows: int,
) -> dict[str, Any]:
    """The answer to a usage report (`queries.usage.usage_report`) as the database gives it, with the report's columns."""
    split = () if by is None else _SPLIT.get(by, (by,)) if by in SPLITS else (f"{METADATA}{by}",)
    by_time = "time" in grouping.by
    dimensions = list(dict.fromkeys(grain if one == "time" else one for one in (*grouping.by, *split)))
    answer = store.call(
        "usage_explore_v1",
        since=filters.since,
        until=filters.until,
        dimensions=dimensions,
        filters=json.dumps(explorer_filters(filters, grouping)),
        measures=list(grouping.measures),
        timezone=timezone,
        order_by=sort or grouping.ranked_by,
        max_rows=rows,
        grain=grain,
        ascending=None if by_time and sort is None else ascending,
    )
    spent = Decimal(answer["total"]["total_cost"])
    columns = {one: "time" if by_time and one == grain else COLUMNS.get(one, one) for one in dimensions}
    return {
        **answer,
        "report": grouping.name,
        "organization": filters.organization,
        "grain": grain,
        "total": {name: value for name, value in answer["total"].items() if name not in grouping.more},
        "rows": [
            {
                **{
                    columns.get(name, name): value
                    for name, value in row.items()
                    if name not in _DETAILS or name in grouping.labels
                },
                "share": round(Decimal(row["total_cost"]) / spent, 6) if spent else Decimal(0),
            }
            for row in answer["rows"]
        ],
    }


def explorer_filters(filters: Filters, grouping: Grouping) -> dict[str, Any]:
    """What the explorer takes for these filters: values by dimension, and what only calls know."""
    of_dimensions: dict[str, Any] = {}
    of_calls: dict[str, Any] = {}
    for name, value in filters.given.items():
        if name in DIMENSIONS and name not in _MORE_THAN_A_VALUE and value != ANY:
            of_dimensions[name] = [value]
        elif name != "where":
            of_calls[name] = value
    for name, values in filters.where.items():
        if name in of_dimensions:
            of_calls.setdefault("where", {})[name] = list(values)
        else:
            of_dimensions[name] = list(values)
    if grouping.some:
        of_dimensions["any"] = dict.fromkeys(grouping.some, ANY)
    return {**of_dimensions, **({"calls": of_calls} if of_calls else {})}
