"""`vital-tracking prices`: the team's own prices, and what a model costs now."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Final

import typer

from vital_tracking.cli.prices.check import check
from vital_tracking.cli.prices.resource import app as resource
from vital_tracking.cli.prices.tiers import list_tiers, set_tier
from vital_tracking.cli.render.console import as_json, console, say, table
from vital_tracking.cli.render.options import chosen, named
from vital_tracking.cli.render.session import Json, opened
from vital_tracking.cli.render.times import moment
from vital_tracking.core.rates import Rate, Tiers, amount
from vital_tracking.core.units import UNITS
from vital_tracking.queries.csv import plain
from vital_tracking.queries.prices import FIRST_CALL, add_price, model_prices, price_book

app = typer.Typer(
    help="The team's own prices, over those of genai-prices.", no_args_is_help=True, rich_markup_mode=None
)
app.command("check")(check)
app.command("tier")(set_tier)
app.command("tiers")(list_tiers)
app.add_typer(resource, name="resource")

_SHOWN: Final = (
    ("input", "input_usd_per_mtok"),
    ("output", "output_usd_per_mtok"),
    ("cache read", "cache_read_usd_per_mtok"),
    ("cache write", "cache_write_usd_per_mtok"),
    ("request", "request_usd"),
)


@app.command("list")
def list_prices(json_: Json = False) -> None:
    """List the team's own prices, the newest first."""
    with opened() as store:
        rows = model_prices(store)
    if json_:
        as_json(rows)
        return
    if not rows:
        say("No own prices: genai-prices has them all. Add one with `vital-tracking prices set`.")
        return
    headings = [("provider", False), ("model", False), ("from (UTC)", False), *((name, True) for name, _ in _SHOWN)]
    headings.append(("units", False))
    console.print(
        table(
            "US dollars per million tokens",
            headings,
            [
                (
                    row["provider"] or "any",
                    row["model"],
                    _from(row["valid_from"]),
                    *("" if (value := row.get(column)) is None else plain(value) for _, column in _SHOWN),
                    ", ".join(f"{name} {plain(price)}" for name, price in (row["unit_prices"] or {}).items()),
                )
                for row in rows
            ],
        )
    )


@app.command("set")
def set_price(
    model: Annotated[str, typer.Argument(help="The model's name as calls carry it.")],
    input_: Annotated[
        str | None,
        typer.Option("--input", help="US dollars per million prompt tokens; not needed where --unit is given."),
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="US dollars per million completion tokens; 0 if only --input is given.")
    ] = None,
    provider: Annotated[str | None, typer.Option(help="Only for this provider; by default for any.")] = None,
    valid_from: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="From when on, as 2026-01-31 or 2026-01-31T12:00+00:00; by default from now on; the first entry of "
            "your own for a model counts from the first call on.",
        ),
    ] = None,
    cache_read: Annotated[str | None, typer.Option(help="Per million tokens read from the provider's cache.")] = None,
    cache_write: Annotated[str | None, typer.Option(help="Per million tokens written to it.")] = None,
    cache_write_1h: Annotated[str | None, typer.Option(help="Per million tokens written to it for an hour.")] = None,
    reasoning: Annotated[str | None, typer.Option(help="Per million reasoning tokens; by default as output.")] = None,
    audio_input: Annotated[str | None, typer.Option(help="Per million audio tokens in; by default as input.")] = None,
    audio_output: Annotated[
        str | None, typer.Option(help="Per million audio tokens out; by default as output.")
    ] = None,
    request: Annotated[str | None, typer.Option(help="US dollars per request, on top.")] = None,
    unit: Annotated[
        list[str] | None,
        typer.Option(
            help="What else is billed, as web_searches=0.01: US dollars for one, of tokens (output_image_tokens=30) for a "
            "million; may be given several times. Without --input only these change, and tokens keep their listed prices."
        ),
    ] = None,
    note: Annotated[str | None, typer.Option(help="Why, or where from.")] = None,
) -> None:
    """Add a price of your own. It prices calls that start from its date on; prices are never overwritten.

    \b
    Examples:
      vital-tracking prices set house-llm-7b --input 0.40 --output 1.20
      vital-tracking prices set gpt-5 --provider openai --unit web_searches=0.008
    """
    given = (
        ("--input", "input_usd_per_mtok", input_),
        ("--output", "output_usd_per_mtok", output),
        ("--cache-read", "cache_read_usd_per_mtok", cache_read),
        ("--cache-write", "cache_write_usd_per_mtok", cache_write),
        ("--cache-write-1h", "cache_write_1h_usd_per_mtok", cache_write_1h),
        ("--reasoning", "reasoning_usd_per_mtok", reasoning),
        ("--audio-input", "audio_input_usd_per_mtok", audio_input),
        ("--audio-output", "audio_output_usd_per_mtok", audio_output),
        ("--request", "request_usd", request),
    )
    amounts = {column: _amount(value, option) for option, column, value in given if value is not None}
    units = dict(_unit_price(text) for text in unit or ())
    if input_ is None and (amounts or not units):
        raise typer.BadParameter("--input is missing" if amounts else "give --input, --unit or both")
    wanted = moment(valid_from, "--from") if valid_from else None
    model = named(model, "MODEL")
    with opened() as store:
        start = add_price(store, model, amounts, units=units, provider=provider, valid_from=wanted, note=note)
    since = "the first call" if start == FIRST_CALL else valid_from or "now"
    tokens = [f"${input_} in, ${output or 0} out per million tokens"] if input_ is not None else []
    others = [f"{name.replace('_', ' ')} ${price}{_per(name)}" for name, price in units.items()]
    say(f"{model}: {', '.join(tokens + others)}, from {since} on")
    say("Running trackers take it up within five minutes. For calls stored unpriced: vital-tracking reprice")


@app.command("show")
def show_price(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    provider: Annotated[str | None, typer.Option(help="Its provider, as LangChain names it.")] = None,
) -> None:
    """Show what a model costs now, and which entry says so."""
    with opened() as store:
        rates = price_book(store).rates(provider, model, datetime.now(UTC))
    if rates is None:
        say(f"No price is known for {model}. Set one: vital-tracking prices set {model} --input USD --output USD")
        raise typer.Exit(1)
    say(f"{model}: {rates.version}")
    for name, value in rates.rates.items():
        unit = UNITS.get(name)
        scale = unit.scale if unit is not None else 1
        per = "per million" if scale > 1 else "each"
        say(f"  {name.replace('_', ' '):<24} {_rate(value, scale)} {per}")


def _unit_price(text: str) -> tuple[str, str]:
    """A unit and its price, from `web_searches=0.01`."""
    name, equals, price = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"--unit takes a unit and its price such as web_searches=0.01, not {text!r}")
    return chosen(name.strip(), "--unit", tuple(UNITS)), _amount(price.strip(), f"--unit {name.strip()}")


def _per(unit: str) -> str:
    return " per million" if UNITS[unit].scale > 1 else " each"


def _amount(text: str, option: str) -> str:
    try:
        return format(amount(text, option), "f")
    except ValueError:
        raise typer.BadParameter(
            f"{option} must be an amount such as 0.15: not negative, not too large or too finely divided"
        ) from None


def _rate(value: Rate, scale: int) -> str:
    def shown(dollars: Decimal) -> str:
        return f"${(dollars * scale).normalize():f}"

    if not isinstance(value, Tiers):
        return shown(value)
    above = [f"{shown(rate)} above {start:,} prompt tokens" for start, rate in value.tiers]
    return ", ".join([shown(value.base), *above])


def _from(moment: datetime) -> str:
    return "the first call" if moment == FIRST_CALL else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"
