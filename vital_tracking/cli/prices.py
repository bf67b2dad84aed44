"""`vital-tracking prices`: the team's own prices, and what a model costs now."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from vital_tracking.cli.render.console import as_json, console, say, table
from vital_tracking.core.pricing import BUCKETS, PriceBook, amount
from vital_tracking.delivery.upkeep import team_prices
from vital_tracking.settings import Settings
from vital_tracking.stores import Store, open_store

app = typer.Typer(
    help="The team's own prices, over those of genai-prices.", no_args_is_help=True, rich_markup_mode=None
)

_AMOUNTS = (
    ("input", "input_usd_per_mtok"),
    ("output", "output_usd_per_mtok"),
    ("cache read", "cache_read_usd_per_mtok"),
    ("cache write", "cache_write_usd_per_mtok"),
    ("request", "request_usd"),
)


_FIRST_CALL = datetime(1970, 1, 1, tzinfo=UTC)


@app.command("list")
def list_prices(json_: Annotated[bool, typer.Option("--json", help="Print JSON; amounts are text.")] = False) -> None:
    """List the team's own prices, the newest first."""
    store = open_store(Settings.from_env())
    answer = store.call("model_prices_v1")
    store.close()
    rows: list[dict[str, Any]] = answer
    if json_:
        as_json(rows)
        return
    if not rows:
        say("No own prices: genai-prices has them all. Add one with `vital-tracking prices set`.")
        return
    headings = [("provider", False), ("model", False), ("from (UTC)", False), *((name, True) for name, _ in _AMOUNTS)]
    console.print(
        table(
            "US dollars per million tokens",
            headings,
            [
                (
                    row["provider"] or "any",
                    row["model"],
                    _from(row["valid_from"]),
                    *(row[column] or "" for _, column in _AMOUNTS),
                )
                for row in rows
            ],
        )
    )


@app.command("set")
def set_price(
    model: Annotated[str, typer.Argument(help="The model's name as calls carry it.")],
    input_: Annotated[str, typer.Option("--input", help="US dollars per million prompt tokens.")],
    output: Annotated[str, typer.Option(help="US dollars per million completion tokens.")] = "0",
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
    note: Annotated[str | None, typer.Option(help="Why, or where from.")] = None,
) -> None:
    """Add a price of your own. It prices calls that start from its date on; prices are never overwritten."""
    entry: dict[str, str | None] = {"model": model, "provider": provider, "note": note}
    for option, column, value in (
        ("--input", "input_usd_per_mtok", input_),
        ("--output", "output_usd_per_mtok", output),
        ("--cache-read", "cache_read_usd_per_mtok", cache_read),
        ("--cache-write", "cache_write_usd_per_mtok", cache_write),
        ("--cache-write-1h", "cache_write_1h_usd_per_mtok", cache_write_1h),
        ("--reasoning", "reasoning_usd_per_mtok", reasoning),
        ("--audio-input", "audio_input_usd_per_mtok", audio_input),
        ("--audio-output", "audio_output_usd_per_mtok", audio_output),
        ("--request", "request_usd", request),
    ):
        if value is not None:
            entry[column] = _amount(value, option)
    start = _moment(valid_from) if valid_from else None
    store = open_store(Settings.from_env())
    if start is None and not _has_own_price(store, provider, model):
        start = _FIRST_CALL  # calls that wait for a price are older than this moment; those that have one keep it
    entry["valid_from"] = start.isoformat() if start else None
    price = json.dumps({name: value for name, value in entry.items() if value is not None})
    store.call("add_model_price_v1", price=price)
    store.close()
    since = "the first call" if start == _FIRST_CALL else valid_from or "now"
    say(f"{model}: ${input_} in, ${output} out per million tokens, from {since} on")
    say("Running trackers take it up within five minutes. For calls stored unpriced: vital-tracking reprice")


def _has_own_price(store: Store, provider: str | None, model: str) -> bool:
    wanted = (provider.strip().lower() if provider else None, model.strip().lower())
    own = team_prices(store.call("model_prices_v1"))
    return wanted in {(price.provider.lower() if price.provider else None, price.model.lower()) for price in own}


@app.command("show")
def show_price(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    provider: Annotated[str | None, typer.Option(help="Its provider, as LangChain names it.")] = None,
) -> None:
    """Show what a model costs now, and which entry says so."""
    store = open_store(Settings.from_env())
    rates = _book(store).rates(provider, model, datetime.now(UTC))
    store.close()
    if rates is None:
        say(f"No price is known for {model}. Set one: vital-tracking prices set {model} --input USD --output USD")
        raise typer.Exit(1)
    say(f"{model}: {rates.version}")
    for name in BUCKETS:
        if (value := getattr(rates, name)) is not None:
            say(f"  {name.replace('_', ' '):<15} {_rate(value)} per million tokens")
    if rates.per_request:
        say(f"  {'request':<15} ${rates.per_request} each")


def _book(store: Store) -> PriceBook:
    return PriceBook(team_prices(store.call("model_prices_v1")))


def _amount(text: str, option: str) -> str:
    try:
        return format(amount(text, option), "f")
    except ValueError:
        raise typer.BadParameter(f"{option} must be an amount such as 0.15, not negative") from None


def _rate(value: Any) -> str:
    tiers = getattr(value, "tiers", None)
    if tiers is None:
        return f"${value}"
    return f"${value.base}, " + ", ".join(f"${tier.price} above {tier.start:,} prompt tokens" for tier in tiers)


def _from(text: str) -> str:
    moment = datetime.fromisoformat(text).astimezone(UTC)
    return "the first call" if moment == _FIRST_CALL else f"{moment:%Y-%m-%d %H:%M}"


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("--from must be a date or time such as 2026-01-31 or 2026-01-31T12:00+00:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
