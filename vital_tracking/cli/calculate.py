"""`vital-tracking calculate`: what a cache would save, which plan is large enough, how large requests are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final

import typer

from vital_tracking.advice.calculators import (
    HIT_RATE,
    INFRASTRUCTURE_USD,
    analyze_query_complexity,
    estimate_caching_savings,
    recommend_plan_tier,
)
from vital_tracking.advice.plan_terms import PLANS, PlanTerms
from vital_tracking.cli.compare_models import known_prices
from vital_tracking.cli.render.console import as_json, say
from vital_tracking.cli.render.session import Json, opened_if_there
from vital_tracking.core.amounts import amount_text
from vital_tracking.errors import StoreError, VitalError
from vital_tracking.queries.plans import plans
from vital_tracking.queries.words import usd

app = typer.Typer(
    help="Calculators: what a cache would save, which plan is large enough, how large requests are.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_STANDARD_INPUT: Final = "-"


@app.command("caching")
def caching(
    calls: Annotated[int, typer.Argument(min=0, metavar="CALLS", help="How many calls are made.")],
    duplicates: Annotated[str, typer.Argument(metavar="PERCENT", help="How many in a hundred were asked before.")],
    cost: Annotated[str, typer.Argument(metavar="USD", help="US dollars that a call costs on average.")],
    hit_rate: Annotated[
        str, typer.Option(metavar="PERCENT", help="How many of these in a hundred the cache answers.")
    ] = str(HIT_RATE),
    infrastructure: Annotated[
        str, typer.Option(metavar="USD", help="US dollars that running the cache costs in the same time.")
    ] = str(INFRASTRUCTURE_USD),
    json_: Json = False,
) -> None:
    """Estimate what a cache of whole answers would save. What really was asked twice: vital-tracking report duplicates

    \b
    Examples:
      vital-tracking calculate caching 50000 35 0.002
      vital-tracking calculate caching 50000 35 0.002 --hit-rate 60 --infrastructure 25
    """
    try:
        found = estimate_caching_savings(calls, duplicates, cost, hit_rate=hit_rate, infrastructure_cost=infrastructure)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if json_:
        as_json(found)
        return
    say(
        f"{found.cacheable_calls:,} of {calls:,} calls were asked before; a cache answers {found.calls_saved:,} of them"
    )
    say(f"  saved            {_dollars(found.gross_savings)}")
    say(f"  the cache costs  {_dollars(found.infrastructure_cost)}")
    net = f"  left             {_dollars(found.net_savings)}"
    say(net if found.roi_percent is None else f"{net}, {_plain(found.roi_percent)} % of what the cache costs")
    say(f"Assumed: it answers {hit_rate} % of what it could, and costs ${infrastructure}.")


@app.command("plan")
def plan(
    calls: Annotated[int, typer.Argument(min=0, metavar="CALLS", help="Calls a month.")],
    tokens: Annotated[int, typer.Argument(min=0, metavar="TOKENS", help="Tokens a month.")],
    json_: Json = False,
) -> None:
    """Find the smallest plan that is large enough. Where a database is configured, by the plans that stand there.

    \b
    Examples:
      vital-tracking calculate plan 125000 18400000
    """
    terms, said = _plans()
    found = recommend_plan_tier(calls, tokens, plans=terms)
    if json_:
        as_json(found)
        return
    if found.recommended_tier is None:
        say(f"No plan is large enough for {calls:,} calls and {tokens:,} tokens a month.")
    else:
        price = "price not said" if found.monthly_cost is None else f"{_dollars(found.monthly_cost)} a month"
        say(f"{found.recommended_tier}, {price}")
        for what, share in (("calls", found.call_utilization_percent), ("tokens", found.token_utilization_percent)):
            say(f"  {what:<7} {'unlimited' if share is None else f'{_plain(share)} % used'}")
        if found.buffer_remaining_percent is not None:
            say(f"  left    {_plain(found.buffer_remaining_percent)} %")
    say(said)


@app.command("complexity")
def complexity(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="Tokens in and out of each request, two numbers a line; - is the input."),
    ],
    model: Annotated[str | None, typer.Option(help="The model that answers them now.")] = None,
    simple_model: Annotated[str | None, typer.Option(help="The one that could answer the simple ones.")] = None,
    medium_model: Annotated[str | None, typer.Option(help="The one that could answer the medium ones.")] = None,
    json_: Json = False,
) -> None:
    """Say how large requests are, and what a smaller model for the small ones would save.

    Simple is below 500 tokens in, medium below 2,000. Lines are `IN,OUT` or `IN OUT`; a first line of words is passed over.
    Whether a smaller model answers well enough, no count of tokens says.

    \b
    Examples:
      vital-tracking calculate complexity tokens.csv
      vital-tracking calculate complexity - --model gpt-4o --simple-model gpt-4o-mini < tokens.csv
    """
    book = known_prices()[0] if model and (simple_model or medium_model) else None
    found = analyze_query_complexity(
        _requests(file), model=model, simple_model=simple_model, medium_model=medium_model, prices=book
    )
    if json_:
        as_json(found)
        return
    shares = (found.simple_queries_pct, found.medium_queries_pct, found.complex_queries_pct)
    for size, share in zip(("simple", "medium", "complex"), shares, strict=True):
        say(f"  {size:<8} {'-' if share is None else f'{_plain(share)} %'}")
    say(found.recommendation)
    if book is not None:
        savings = found.potential_savings
        say(
            "Saving: not known, a price is missing" if savings is None else f"Saving: {usd(savings)} for these requests"
        )


def _plans() -> tuple[tuple[PlanTerms, ...], str]:
    """The plans that stand, the smallest first, and which these are, in words."""
    try:
        with opened_if_there() as store:
            if store is not None:
                return tuple(
                    map(PlanTerms.of, plans(store))
                ), "By the plans of your database: vital-tracking plans list"
    except StoreError as error:
        return PLANS, f"By the plans that a database begins with; yours are not known ({str(error).rstrip('.')})."
    return PLANS, "By the plans that a database begins with: no database is configured."


def _requests(file: str) -> Iterator[tuple[int, int]]:
    try:
        text = sys.stdin.read() if file == _STANDARD_INPUT else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise VitalError(f"{file} cannot be read ({type(error).__name__}).") from None
    for number, line in enumerate(text.splitlines(), 1):
        words = line.replace(",", " ").split()
        if not words or (number == 1 and not any(word.isdecimal() for word in words)):
            continue
        if len(words) > 2 or not all(word.isdecimal() for word in words):
            raise VitalError(f"Line {number} of {file} is not two numbers of tokens, in and out.")
        yield int(words[0]), int(words[1]) if len(words) == 2 else 0


def _dollars(value: Decimal) -> str:
    return amount_text(value, "cost_usd")


def _plain(value: Decimal) -> str:
    return f"{value:,f}".removesuffix(".0")
