"""`vital-tracking quotas`: how much of its month's calls and tokens each plan and each subscriber has used."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from vital_tracking.alerts.wording import entity, local_time
from vital_tracking.cli.render.console import as_csv, as_json, console, say, share_bar, table
from vital_tracking.cli.render.options import a_name
from vital_tracking.cli.render.session import Csv, Json, opened
from vital_tracking.queries.plans import (
    PLAN_QUOTA_COLUMNS,
    QUOTA_COLUMNS,
    PlanQuota,
    QuotaStatus,
    over_quota,
    percent_used,
    quota_status,
)
from vital_tracking.queries.plans import quotas as plan_quotas
from vital_tracking.queries.words import counted


def quotas(
    plan: Annotated[str | None, typer.Argument(help="Show the subscribers of this plan.")] = None,
    organization: Annotated[
        str | None, typer.Option(callback=a_name, help="Only this organization's subscribers.")
    ] = None,
    everybody: Annotated[bool, typer.Option("--subscribers", help="Show each subscriber, of all plans.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many subscribers.")] = 50,
    json_: Json = False,
    csv_: Csv = False,
) -> None:
    """Show how much of their quotas the subscribers of each plan have used in their month, or each subscriber.

    \b
    Examples:
      vital-tracking quotas
      vital-tracking quotas trial
      vital-tracking quotas --subscribers --csv
    """
    with opened() as store:
        if plan is not None or everybody:
            rows = quota_status(store, organization=organization, plan=plan, limit=limit)
            if json_:
                as_json(rows)
            elif csv_:
                as_csv(rows, QUOTA_COLUMNS)
            elif not rows:
                say(f"Nobody is on {f'plan {plan}' if plan else 'any plan'}.")
            else:
                console.print(quotas_table(rows))
            return
        by_plan = plan_quotas(store, organization=organization)
    if json_:
        as_json(by_plan)
    elif csv_:
        as_csv(by_plan, PLAN_QUOTA_COLUMNS)
    elif not any(row["subscribers"] for row in by_plan):
        say("Nobody is on any plan. To put somebody on one: vital-tracking subscriptions set user u-1 trial")
    else:
        console.print(_plans_table(by_plan))
        if over := sum(row["over"] for row in by_plan):
            say(f"{counted(over, 'subscriber')} over quota: vital-tracking quotas --subscribers")


def quotas_table(rows: Sequence[QuotaStatus]) -> Table:
    """Subscribers, a line each: bars of the calls and tokens of their month, and when it ends."""
    headings = [("for", False), ("plan", False), ("calls", True), ("", False), ("tokens", True), ("", False)]
    headings += [("month ends", False), ("", False)]
    return table(
        "",
        headings,
        [
            [
                entity(row["entity_type"], row["entity_id"], row["organization_id"]),
                row["plan"],
                *_used(row["calls_used"], row["calls_limit"]),
                *_used(row["tokens_used"], row["tokens_limit"]),
                local_time(row["ends_at"], row["timezone"]),
                _state(row),
            ]
            for row in rows
        ],
    )


def _plans_table(rows: Sequence[PlanQuota]) -> Table:
    headings = [("plan", False), ("subscribers", True), ("calls", True), ("", False), ("tokens", True), ("", False)]
    headings += [("over quota", True)]
    return table(
        "",
        headings,
        [
            [
                row["plan"],
                f"{row['subscribers']:,}",
                *_used(row["calls_used"], row["calls_limit"]),
                *_used(row["tokens_used"], row["tokens_limit"]),
                Text(f"{row['over']:,}", style="bold red" if row["over"] else ""),
            ]
            for row in rows
        ],
    )


def _used(used: Decimal, limit: Decimal | None) -> tuple[str | Text, str]:
    if limit is None:
        return "", f"{used:,} of unlimited"
    if not limit and not used:
        return "", "-"
    share = percent_used(used, limit)
    return share_bar(used, Decimal(0), limit), f"{used:,} of {limit:,} ({share:.0f} %)"


def _state(row: QuotaStatus) -> Text:
    how = "enforced" if row["enforced"] else "watched"
    return Text(f"over quota, {how}", style="bold red") if over_quota(row) else Text(how)
