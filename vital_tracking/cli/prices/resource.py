"""`vital-tracking prices resource`: what units cost of what is no call to a model."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, get_args

import typer

from vital_tracking.cli.render.columns import Column, fitted
from vital_tracking.cli.render.console import as_json, console, say
from vital_tracking.cli.render.options import named, words
from vital_tracking.cli.render.session import Json, opened
from vital_tracking.cli.render.times import moment
from vital_tracking.core.closest import did_you_mean
from vital_tracking.core.platform import USUAL_UNITS, CostType
from vital_tracking.core.rates import amount
from vital_tracking.errors import VitalError
from vital_tracking.queries.csv import plain
from vital_tracking.queries.prices import FIRST_CALL
from vital_tracking.queries.resource_prices import add_resource_price, reprice_costs, resource_prices, units_of
from vital_tracking.queries.words import counted
from vital_tracking.stores import Store

app = typer.Typer(
    help="Prices of what is no call to a model: storage, bandwidth, searches and so on.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
def list_prices(json_: Json = False) -> None:
    """List prices of what is no call, by kind and resource, the newest first."""
    with opened() as store:
        prices = resource_prices(store)
    if json_:
        as_json(prices)
        return
    columns = [
        Column("kind", False, lambda p: p["cost_type"]),
        Column("resource", False, lambda p: p["resource"] or "any"),
        Column("US dollars", True, lambda p: plain(p["unit_price"])),
        Column("unit", False, lambda p: p["unit"]),
        Column(
            "from (UTC)",
            False,
            lambda p: "ever" if p["valid_from"] == FIRST_CALL else f"{p['valid_from']:%Y-%m-%d %H:%M}",
        ),
        Column("note", False, lambda p: p["note"] or ""),
    ]
    console.print(fitted("Prices of what is no call", columns, prices))


@app.command("set")
def set_price(
    cost_type: Annotated[str, typer.Argument(help="The kind of cost.", **words(get_args(CostType), "kind of cost"))],
    price: Annotated[str, typer.Argument(help="US dollars for one unit.", metavar="USD")],
    unit: Annotated[
        str | None,
        typer.Option(
            help="What is counted; by default gb_month of storage, gb of bandwidth, hour of compute, call of search, tts and stt."
        ),
    ] = None,
    new_unit: Annotated[
        bool,
        typer.Option("--new-unit", help="The unit is one of your own, in which no cost of the kind is counted yet."),
    ] = False,
    resource: Annotated[str | None, typer.Option(help="Only of this resource; by default of any.")] = None,
    valid_from: Annotated[
        str | None, typer.Option("--from", help="From when on, as 2026-01-31 or 30d; by default from now on.")
    ] = None,
    note: Annotated[str | None, typer.Option(help="Why, or where from.")] = None,
) -> None:
    """Add a price. It prices costs that arise from its date on; prices are never overwritten, and each one stands in the audit.

    \b
    Examples:
      vital-tracking prices resource set compute 1.60 --resource gpu-1 --from 2026-01-01
      vital-tracking prices resource set storage 0.021
    """
    wanted = moment(valid_from, "--from") if valid_from else None
    with opened() as store:
        if unit is not None and not new_unit and cost_type in USUAL_UNITS:
            _check_unit(store, cost_type, unit)
        add_resource_price(
            store,
            cost_type,
            _amount(price),
            unit=named(unit, "--unit") if unit is not None else None,
            resource=named(resource, "--resource") if resource is not None else None,
            valid_from=wanted,
            note=note,
        )
    of = f" of {resource}" if resource else ""
    say(f"{cost_type}{of}: ${price}{f' a {unit}' if unit else ''}, from {valid_from or 'now'} on")
    say("For costs that were stored before: vital-tracking prices resource reprice")


@app.command("reprice")
def reprice(
    again: Annotated[
        bool,
        typer.Option("--again", help="Also those that have a price, where another one is in force for them by now."),
    ] = False,
    since: Annotated[
        str | None, typer.Option(help="Only costs from then on, as 2026-01-31 or 30d; by default all.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --again: do not ask.")] = False,
) -> None:
    """Price costs of all organizations that had no price, as of when they arose. Costs that came with their own price keep it.

    Prices are the same for all organizations, so with --again the bills of all may change, back to --since.

    \b
    Examples:
      vital-tracking prices resource reprice
      vital-tracking prices resource reprice --again --since 2026-11-01
    """
    earliest = moment(since, "--since") if since else None
    if again and not yes:
        reach = f"from {earliest:%Y-%m-%d %H:%M} UTC on" if earliest else "of all time"
        typer.confirm(f"Bills of all organizations may change: price their costs {reach} again?", abort=True)
    with opened() as store:
        done = reprice_costs(store, since=earliest, again=again)
    say(f"priced {counted(done['repriced'], 'cost')}; {done['unpriced']:,} still without a price")


def _check_unit(store: Store, cost_type: str, unit: str) -> None:
    """Refuse a unit in which nothing of the kind is counted: its price would be the price of nothing."""
    known = units_of(store, cost_type)
    if unit not in known:
        raise VitalError(
            f"No cost of {cost_type} is counted in {unit}{did_you_mean(unit, known)} Counted are: {', '.join(known)}. "
            "A unit of your own: --new-unit"
        )


def _amount(text: str) -> Decimal:
    try:
        return amount(text, "price")
    except ValueError:
        raise typer.BadParameter(
            "USD must be an amount such as 0.023: not negative, not too large or too finely divided"
        ) from None
