"""`vital-tracking allocate`: shares a month's invoice among organizations."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, cast, get_args

import typer

from vital_tracking.cli.render.columns import Column, fitted
from vital_tracking.cli.render.console import as_json, bar, console, say
from vital_tracking.cli.render.options import named, words
from vital_tracking.cli.render.organizations import New, check_organizations
from vital_tracking.cli.render.session import Json, opened
from vital_tracking.cli.render.times import month as month_of
from vital_tracking.core.amounts import amount_text
from vital_tracking.core.platform import CostType
from vital_tracking.core.sanitize import finite
from vital_tracking.imports.allocation import RULES, Rule, Share, allocate
from vital_tracking.queries.csv import plain
from vital_tracking.queries.words import counted

_MOST = Decimal(10) ** 12


def allocate_command(
    month: Annotated[str, typer.Argument(help="The month of the invoice, as 2026-11 (UTC).")],
    amount: Annotated[str, typer.Option(help="US dollars of the invoice; 0 takes back what was allocated.")],
    by: Annotated[str, typer.Option(help="The rule.", **words(RULES, "--by"))] = "equal",
    name: Annotated[
        str, typer.Option(help="Which invoice it is: another one of the month has another name.")
    ] = "infrastructure",
    cost_type: Annotated[
        str, typer.Option("--type", help="The kind of cost.", **words(get_args(CostType), "--type", metavar="KIND"))
    ] = "other",
    organization: Annotated[
        list[str] | None,
        typer.Option(
            help="Who shares it; may be given several times. By default all with calls, events or costs in that month."
        ),
    ] = None,
    new: New = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the shares, and store nothing.")] = False,
    json_: Json = False,
) -> None:
    """Allocate a month's invoice to organizations, to the last digit. Running it again replaces what it made before.

    \b
    Examples:
      vital-tracking allocate 2026-11 --amount 1200 --by cost --dry-run
      vital-tracking allocate 2026-11 --amount 89.90 --name monitoring --organization acme --organization other
    """
    month_of(month)
    value = finite(amount)
    if value is None or abs(value) >= _MOST:
        raise typer.BadParameter("--amount must be US dollars such as 1200 or 89.90")
    named_ones = [named(one, "--organization") for one in organization or ()]
    with opened() as store:
        check_organizations(store, named_ones, new=new)
        made = allocate(
            store,
            month.strip(),
            value,
            by=cast("Rule", by),
            name=named(name, "--name"),
            cost_type=cost_type,
            organizations=named_ones,
            dry_run=dry_run,
        )
    if json_:
        as_json(made)
        return
    if made["shares"]:
        _show(
            made["shares"], made["by"], f"{made['name']}, {made['month']}: {_exactly(made['amount'])} by {made['by']}"
        )
    if dry_run:
        say("Nothing was stored.")
    elif not made["shares"]:
        say(f"{made['name']}, {made['month']}: taken back, {_exactly(made['before'])}")
    elif made["before"]:
        say(f"Stored, in place of {_exactly(made['before'])} until now.")
    else:
        say(f"Stored: {counted(len(made['shares']), 'organization')}.")


def _show(shares: list[Share], by: str, title: str) -> None:
    largest = max(abs(share["cost_usd"]) for share in shares)
    columns = [
        Column("organization", False, lambda s: s["organization_id"]),
        Column({"cost": "its cost", "calls": "its calls"}.get(by, "weight"), True, lambda s: _weight(s["weight"], by)),
        Column("percent", True, lambda s: plain(s["percent"])),
        Column("share", True, lambda s: _exactly(s["cost_usd"])),
        Column("", False, lambda s: bar(abs(s["cost_usd"]), largest), goes=1, draws=True),
    ]
    console.print(fitted(title, columns, shares))


def _exactly(amount: Decimal) -> str:
    return amount_text(amount, "cost_usd", exact=True)


def _weight(weight: Decimal, by: str) -> str:
    return amount_text(weight, "cost_usd" if by == "cost" else "calls")
