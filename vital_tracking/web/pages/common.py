"""What many pages show in the same way: columns of measures, series by day, a dimension by its cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, Literal

from vital_tracking.alerts.wording import entity
from vital_tracking.queries.access import memberships
from vital_tracking.queries.explore import DIMENSIONS, Explored, each_day
from vital_tracking.queries.names import names_of
from vital_tracking.queries.organizations import unknown_organizations
from vital_tracking.queries.reports import cost_per_call
from vital_tracking.stores.protocol import Store
from vital_tracking.web.identity import Identity
from vital_tracking.web.page import Chart, Column, Part, Row
from vital_tracking.web.view import View

PAGE_OF: Final[Mapping[str, str]] = {
    "organization": "organizations",
    "user": "users",
    "service": "services",
    "agent": "agents",
    "tier": "agents",
    "model": "models",
    "provider": "models",
    "framework": "frameworks",
    "workflow": "workflows",
    "step": "workflows",
    "panel": "panels",
    "seat": "panels",
}
"""The page that is about a dimension; what has none leads to the calls."""

NONE_OF: Final = "(none)"
OTHERS: Final = "all others"


def measure_columns(link: Callable[[Row], str | None] | None = None) -> list[Column]:
    """The measures of most tables; calls lead to the calls."""
    return [
        Column("calls", "Calls", "calls", link=link),
        Column("total_cost", "Cost", "usd", about="US dollars of priced calls"),
        Column("cost_per_call", "Per call", "usd", about="US dollars a priced call"),
        Column("total_tokens", "Tokens", "tokens"),
        Column("success_rate", "Success", "percent", about="Blocked calls were never made and do not count"),
        Column("average_latency_ms", "Latency", "ms", about="The mean of timed calls"),
        Column(
            "unpriced_calls",
            "Unpriced",
            "calls",
            about="Calls whose model has no known price: they are in no cost",
            rare=True,
        ),
    ]


_FEW: Final = ("calls", "total_cost", "cost_per_call", "success_rate", "average_latency_ms", "share")
"""What a table of half the width has room for."""


def with_rates(row: Row, whole: Decimal | None = None) -> dict[str, Any]:
    """A row with what follows from its measures: cost a call, and its share of the whole cost."""
    more: dict[str, Any] = {"cost_per_call": cost_per_call(row)}
    if whole is not None:
        more["share"] = row["total_cost"] / whole * 100 if whole else None
    if row["calls"] and row.get("unpriced_calls") == row["calls"]:
        more["total_cost"] = None
    return {**row, **more}


def name_of(found: Explored, dimension: str) -> Callable[[Row], str]:
    """How a row's value of a dimension is called: its newest name where it has one."""
    names = found.names.get(dimension, {})

    def of(row: Row) -> str:
        if row.get("others"):
            return OTHERS
        value = row.get(dimension)
        return NONE_OF if value is None else names.get(str(value), str(value))

    return of


def id_columns(found: Explored, dimensions: Sequence[str]) -> list[Column]:
    """The ids of users and organizations that have names, to stand beside these: a name may change, and two may have the same."""
    return [
        Column(one, f"{one.capitalize()} id")
        for one in ("user", "organization")
        if one in dimensions and found.names.get(one)
    ]


def user_columns(view: View, rows: Sequence[Row]) -> tuple[list[Column], list[Row]]:
    """The columns of `user_id` in a list, beside it the name where one is known; and its rows with the names in them."""

    def user(row: Row) -> str | None:
        return None if row["user_id"] is None else view.to("users", user=row["user_id"])

    known = names_of(view.store, (row["user_id"] for row in rows))
    if not known.users:
        return [Column("user_id", "User", link=user)], list(rows)
    named: list[Row] = [{**row, "user": row["user_id"] and known.user(row["user_id"])} for row in rows]
    return [Column("user", "User", link=user), Column("user_id", "User id")], named


def ranking(
    view: View,
    part_id: str,
    title: str,
    *dimensions: str,
    page: str | None = None,
    top: int | None = None,
    rows: int = 200,
    chart: str | None = None,
    columns: Sequence[str] | None = None,
    note: str = "",
    wide: bool = False,
    span: Literal["half", "third"] = "half",
    order_by: str = "total_cost",
    filters: Mapping[str, Sequence[str | None]] | None = None,
    found: Explored | None = None,
) -> Part:
    """A table of the groups of some dimensions by what they cost; the first one's names lead to its page, calls to the calls.

    `found` is the answer to it, where it is there already.
    """
    found = found or view.explore(*dimensions, top=top, rows=rows, order_by=order_by, filters=filters)
    shown = [
        {**with_rates(row, found.total["total_cost"]), **{f"{d}_name": name_of(found, d)(row) for d in dimensions}}
        for row in sorted(found.rows, key=lambda row: bool(row.get("others")))  # all others are the last, however many
    ]
    labels = [
        Column(
            f"{dimension}_name",
            DIMENSIONS.get(dimension, dimension.removeprefix("metadata.")).capitalize(),
            link=view.link(page or PAGE_OF.get(dimension, "calls"), *dimensions[: place + 1]),
        )
        for place, dimension in enumerate(dimensions)
    ]
    if wide:
        labels += id_columns(found, dimensions)
    measures = [*measure_columns(view.link("calls", *dimensions)), Column("share", "Share", "percent")]
    if columns is None and not wide and chart is None:
        columns = _FEW
    if columns is not None:
        measures = [column for column in measures if column.name in columns]
    hidden = found.groups - len(found.rows)
    return Part(
        part_id,
        title,
        [*labels, *measures],
        shown,
        chart=_chart(chart, f"{dimensions[0]}_name", order_by),
        note=note,
        more=f"{hidden:,} more are not shown; the CSV of the calls has all." if hidden > 0 else "",
        wide=wide,
        span=span,
        total={**with_rates(found.total), labels[0].name: "Total", "share": None}
        if len(shown) > 1 and chart is None
        else None,
    )


def _chart(kind: str | None, x: str, y: str) -> Chart | None:
    if kind is None:
        return None
    if kind == "doughnut":
        return Chart("doughnut", x, (y,))
    return Chart("bars", x, (y,), horizontal=True)


def by_time(
    view: View, measures: Iterable[str] = ("calls", "total_cost", "total_tokens", "unpriced_calls")
) -> list[Row]:
    """The sums of each step of the period, also of those in which nothing happened."""
    grain = view.asked.grain
    found = view.explore(grain, measures=tuple(measures), rows=10_000)
    if grain == "day" and found.rows:
        return each_day(found, view.asked.period)
    return list(found.rows)


def time_column(view: View) -> Column:
    """The column of a step of time, which leads to the calls of its days."""
    grain = view.asked.grain
    return Column(grain, grain.capitalize(), "day", link=view.link("calls", grain))


def administered(store: Store, who: Identity) -> list[str] | None:
    """The organizations that the reader may change things of, for what a page offers; None for an operator: all."""
    if who.is_operator:
        return None
    return sorted(one.organization_id for one in memberships(store) if one.role == "admin")


def mistyped_organization(store: Store, who: Identity, *names: str) -> str:
    """What is wrong with the first of some organizations that nothing names yet and that is called much like another.

    Empty where nothing is. Operators alone are told, who may name any: admins choose among their own.
    """
    unknown = unknown_organizations(store, names) if who.is_operator else {}
    for name, meant in unknown.items():
        if meant:
            return f"Nothing is known of organization {name}; did you mean {' or '.join(meant)}?"
    return ""


def whose(link: Callable[[Row], str | None]) -> list[Column]:
    """For whom a budget or a quota is, softly with the organization, of rows that are `named`."""
    return [Column("whose", "For", link=link), Column("of_organization", "of", beside=True)]


def named(row: Mapping[str, Any]) -> dict[str, Any]:
    """What `whose` shows of a row of an entity: an organization is itself, not one of itself."""
    of = None if row["entity_type"] == "organization" else row["organization_id"]
    return {"whose": entity(row["entity_type"], row["entity_id"]), "of_organization": of}
