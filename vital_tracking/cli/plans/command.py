"""`vital-tracking plans`: what a subscriber may use in a month, and what that costs."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from vital_tracking.cli.render.console import as_csv, as_json, console, say, table
from vital_tracking.cli.render.options import named
from vital_tracking.cli.render.session import Csv, Json, Yes, opened
from vital_tracking.cli.render.times import moment
from vital_tracking.core.amounts import amount_text
from vital_tracking.core.closest import did_you_mean
from vital_tracking.core.rates import amount
from vital_tracking.errors import VitalError
from vital_tracking.queries.plans import PLAN_COLUMNS, Plan, plans, remove_plan, set_plan

app = typer.Typer(
    help="Plans: how many calls and tokens a month a subscriber may use, and what that costs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

UNLIMITED: Final = "unlimited"
_FIRST_YEAR: Final = 1970


@app.command("list")
def list_plans(
    history: Annotated[bool, typer.Option("--history", help="With former versions, and those to come.")] = False,
    json_: Json = False,
    csv_: Csv = False,
) -> None:
    """List the plans, the smallest first.

    \b
    Examples:
      vital-tracking plans list
      vital-tracking plans list --history --csv
    """
    with opened() as store:
        rows = plans(store, history=history)
    if json_:
        as_json(rows)
    elif csv_:
        as_csv(rows, PLAN_COLUMNS)
    elif not rows:
        say("No plans. To make one: vital-tracking plans set trial --calls 700 --tokens 100000")
    else:
        console.print(_table(rows, history=history))


@app.command("set")
def set_one(
    name: Annotated[str, typer.Argument(help="What it is called, such as professional.")],
    calls: Annotated[str | None, typer.Option(help="Calls a month, or unlimited.")] = None,
    tokens: Annotated[str | None, typer.Option(help="Tokens a month, or unlimited.")] = None,
    calls_per_minute: Annotated[str | None, typer.Option(help="Calls a minute, or unlimited.")] = None,
    tokens_per_minute: Annotated[str | None, typer.Option(help="Tokens a minute, or unlimited.")] = None,
    price: Annotated[str | None, typer.Option(help="US dollars a month, or none.")] = None,
    valid_from: Annotated[
        str | None, typer.Option("--from", help="When that begins: an instant or a day; by default now.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the stored plan as JSON.")] = False,
) -> None:
    """Make a plan, or change what is given of it: from now on, for all who are on it. Former versions stay.

    \b
    Examples:
      vital-tracking plans set professional --price 59
      vital-tracking plans set team --calls 100000 --tokens 20000000 --calls-per-minute 300 --price 199
      vital-tracking plans set trial --calls 500 --from 2027-01-01
    """
    limits = {
        "calls": calls,
        "tokens": tokens,
        "calls_per_minute": calls_per_minute,
        "tokens_per_minute": tokens_per_minute,
    }
    columns: dict[str, object] = {"name": named(name, "NAME")}
    columns.update({column: _count(text, column) for column, text in limits.items() if text is not None})
    if price is not None:
        columns["price_usd"] = None if price in ("none", "") else _price(price)
    if valid_from is not None:
        columns["valid_from"] = moment(valid_from, "--from").isoformat()
    with opened() as store:
        before = {row["name"]: row for row in plans(store)}
        if name not in before and None in (calls, tokens):
            raise VitalError(
                f"There is no plan {name}{did_you_mean(name, sorted(before))} A new one names --calls and --tokens, each a "
                "number or unlimited."
            )
        stored = set_plan(store, columns)
    if json_:
        as_json(stored)
        return
    say(f"Plan {stored['name']}, from {since(stored)} on: {plan_text(stored)}")
    if name in before:
        say(f"Before: {plan_text(before[name])}")
    say("Who is on it: vital-tracking quotas")


@app.command("remove")
def remove_one(
    name: Annotated[str, typer.Argument(help="Which plan.")],
    yes: Yes = False,
    json_: Json = False,
) -> None:
    """Remove a plan with all its versions. Whoever is on it, or will be, keeps it: then nothing is removed.

    \b
    Examples:
      vital-tracking plans remove trial
    """
    with opened() as store:
        known = [row["name"] for row in plans(store)] + [row["name"] for row in plans(store, name, history=True)]
        if name not in known:
            raise VitalError(f"There is no plan {name}{did_you_mean(name, sorted(known))}")
        if not yes:
            typer.confirm(f"Remove plan {name} with all its versions?", abort=True)
        remove_plan(store, name)
    if json_:
        as_json({"removed": name})
    else:
        say(f"Plan {name} is removed.")


def plan_text(plan: Plan) -> str:
    """A plan in one line: 700 calls and 100,000 tokens a month."""
    month = f"{_limit(plan['calls'])} calls and {_limit(plan['tokens'])} tokens a month"
    limits = ((plan["calls_per_minute"], "calls"), (plan["tokens_per_minute"], "tokens"))
    minute = [f"{limit:,} {what} a minute" for limit, what in limits if limit is not None]
    price = "" if plan["price_usd"] is None else f", {amount_text(plan['price_usd'], 'cost_usd')} a month"
    return f"{', '.join([month, *minute])}{price}"


def since(plan: Plan) -> str:
    """The day from which a version holds; those that came with the package have held always."""
    return "always" if plan["valid_from"].year <= _FIRST_YEAR else f"{plan['valid_from']:%Y-%m-%d %H:%M %Z}"


def _table(rows: list[Plan], *, history: bool) -> object:
    headings = [("plan", False), ("calls a month", True), ("tokens a month", True)]
    headings += [("calls a minute", True), ("tokens a minute", True), ("US dollars a month", True), ("since", False)]
    cells = [
        [
            row["name"],
            _limit(row["calls"]),
            _limit(row["tokens"]),
            _limit(row["calls_per_minute"]),
            _limit(row["tokens_per_minute"]),
            "not said" if row["price_usd"] is None else amount_text(row["price_usd"], "cost_usd"),
            f"{since(row)}{' (in force)' if history and row['in_force'] else ''}",
        ]
        for row in rows
    ]
    return table("", headings, cells)


def _limit(limit: int | None) -> str:
    return UNLIMITED if limit is None else f"{limit:,}"


_MOST: Final = 10**15
"""As the API: beyond it nothing is limited."""


def _count(text: str, column: str) -> int | None:
    if text.lower() in (UNLIMITED, "none"):
        return None
    digits = text.replace(",", "").replace("_", "")
    if not digits.isdecimal():
        raise typer.BadParameter(f"--{column.replace('_', '-')} takes a whole number, or unlimited: not {text!r}")
    if len(digits) > len(str(_MOST)) or int(digits) > _MOST:
        raise typer.BadParameter(f"--{column.replace('_', '-')} takes at most {_MOST:,}, or unlimited")
    return int(digits)


def _price(text: str) -> str:
    try:
        return f"{amount(text.removeprefix('$'), '--price'):f}"
    except ValueError:
        raise typer.BadParameter(f"--price takes US dollars such as 49 or 49.00, or none: not {text!r}") from None
