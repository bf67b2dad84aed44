"""`vital-tracking health`: how tenants fare, from 0 to 100, and why."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Final

import typer

from vital_tracking.cli.render.columns import Column, fitted
from vital_tracking.cli.render.console import as_csv, as_json, console, printable, say
from vital_tracking.cli.render.options import a_name
from vital_tracking.cli.render.session import Csv, Json, opened
from vital_tracking.queries.tenants import HEALTH_COLUMNS, HEALTH_DAYS, TenantHealth, level, tenants_health


def health(
    organization: Annotated[str | None, typer.Option(callback=a_name, help="Only this organization.")] = None,
    days: Annotated[
        int, typer.Option(min=1, max=365, help="The last so many days, beside as many before.")
    ] = HEALTH_DAYS,
    json_: Json = False,
    csv_: Csv = False,
) -> None:
    """Show how tenants fare, from 0 to 100, with trend and reasons.

    Health is 30 % engagement (users, sessions, events), 40 % performance (success of agents) and 30 % quality (ratings, scores).
    What is not known is left out, and the rest counts for the whole.

    \b
    Examples:
      vital-tracking health
      vital-tracking health --organization acme --days 7
      vital-tracking health --csv > health.csv
    """
    with opened() as store:
        found = tenants_health(store, organization=organization, days=days, weeks=0)
    if json_:
        as_json(found)
    elif csv_:
        as_csv([{**row, "reasons": " ".join(row["reasons"])} for row in found["rows"]], HEALTH_COLUMNS)
    elif found["rows"]:
        console.print(fitted(f"Tenants' health, {days} days up to {found['last_day']}", _COLUMNS, found["rows"]))
        for row in found["rows"]:
            say(printable(f"{row['organization_id']}: {' '.join(row['reasons']) or 'Nothing is amiss.'}"))
    else:
        say("No organization is known. Calls and events name theirs by organization_id, or VITAL_ORGANIZATION_ID.")


def _score(value: Decimal | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _trend(row: TenantHealth) -> str:
    return "-" if row["trend"] is None else f"{row['trend']:+z.0f}"


_COLUMNS: Final = (
    Column("tenant", False, lambda row: row["organization_id"]),
    Column("health", True, lambda row: _score(row["health"])),
    Column("level", False, lambda row: level(row["health"]), 2),
    Column("trend", True, _trend),
    Column("engagement", True, lambda row: _score(row["engagement"])),
    Column("performance", True, lambda row: _score(row["performance"])),
    Column("quality", True, lambda row: _score(row["quality"])),
    Column("users", True, lambda row: f"{row['active_users']:,} of {row['known_users']:,}", 1),
)
