"""`vital-tracking rate-limits`: how far limits of a minute are used, and by whom."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from vital_tracking.alerts.wording import entity
from vital_tracking.cli.render.console import as_csv, as_json, console, say, share_bar, table
from vital_tracking.cli.render.options import a_name
from vital_tracking.cli.render.session import Csv, Json, opened
from vital_tracking.cli.render.times import short_time
from vital_tracking.core.amounts import amount_text
from vital_tracking.queries.rate_limits import RATE_LIMIT_COLUMNS
from vital_tracking.queries.rate_limits import rate_limits as found_limits


def rate_limits(
    hours: Annotated[int, typer.Option(min=1, max=744, help="Of the last so many hours.")] = 24,
    organization: Annotated[str | None, typer.Option(callback=a_name, help="Only this organization's.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 50,
    json_: Json = False,
    csv_: Csv = False,
) -> None:
    """Show how far limits of a minute were used, by whom, and in how many minutes a call did not fit.

    \b
    Examples:
      vital-tracking rate-limits
      vital-tracking rate-limits --hours 168 --csv
    """
    with opened() as store:
        rows = found_limits(store, hours=hours, organization=organization, limit=limit)
    if json_:
        as_json(rows)
    elif csv_:
        as_csv(rows, RATE_LIMIT_COLUMNS)
    elif not rows:
        say(
            "No limit of a minute was used. Set one: vital-tracking budgets set user --minute 60 --metric calls --action block"
        )
    else:
        headings = [("for", False), ("limit a minute", True), ("fullest", True), ("", True), ("average", True)]
        headings += [("minutes", True), ("not fitting", True), ("blocked calls", True), ("last", False), ("by", False)]
        lines: list[list[str | Text]] = [
            [
                entity(row["entity_type"], row["entity_id"], row["organization_id"]),
                amount_text(row["limit_amount"], row["metric"])
                + ("" if row["metric"] == "cost_usd" else f" {row['metric']}"),
                share_bar(row["fullest_percent"], row["fullest_percent"] * 0, row["fullest_percent"] * 0 + 100),
                f"{row['fullest_percent']:.0f} %",
                f"{row['average_percent']:.0f} %",
                f"{row['minutes']:,}",
                Text(f"{row['violations']:,}", style="bold red" if row["violations"] else ""),
                f"{row['blocked_calls']:,}",
                short_time(row["last_at"]) if row["last_at"] else "-",
                "its plan" if row["by_plan"] else f"budget {row['budget_id']}, {row['action']}",
            ]
            for row in rows
        ]
        console.print(table("", headings, lines))
