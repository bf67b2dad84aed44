"""`vital-tracking prices`: the team's own prices, and what a model costs now."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from vital_tracking.cli.output import as_json, console, table
from vital_tracking.delivery.recorder import team_prices
from vital_tracking.pricing import PriceBook, amount
from vital_tracking.settings import Settings
from vital_tracking.stores import open_store

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


@app.command("list")
def list_prices(json_: Annotated[bool, typer.Option("--json", help="Print JSON; amounts are text.")] = False) -> None:
    """List the team's own prices, the newest first."""
    store = open_store(Settings.from_env())
    answer = store.call("model_prices_v1")
    store.close()
    rows: list[dict[str, Any]] = json.loads(answer) if isinstance(answer, str) else answer
    if json_:
        as_json(rows)
        return
    if not rows:
        console.print("No own prices: genai-prices has them all. Add one with `vital-tracking prices set`.")
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
                    str(row["valid_from"])[:16].replace("T", " "),
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
    output: Annotated[str, typer.Option("--output", help="US dollars per million completion tokens.")] = "0",
    provider: Annotated[str | None, typer.Option(help="Only for this provider; by default for any.")] = None,
    valid_from: Annotated[
        str | None,
        typer.Option("--from", help="From when on, as 2026-01-31 or 2026-01-31T12:00+00:00; by default now."),
    ] = None,
    cache_read: Annotated[str | None, typer.Option(help="Per million tokens read from the provider's cache.")] = None,
    cache_write: Annotated[str | None, typer.Option(help="Per million tokens written to it.")] = None,
    request: Annotated[str | None, typer.Option(help="US dollars per request, on top.")] = None,
    note: Annotated[str | None, typer.Option(help="Why, or where from.")] = None,
) -> None:
    """Add a price of your own. It prices calls that start from its date on; prices are never overwritten."""
    entry: dict[str, str | None] = {"model": model, "provider": provider, "note": note}
    entry["valid_from"] = _moment(valid_from).isoformat() if valid_from else None
    for option, column, value in (
        ("--input", "input_usd_per_mtok", input_),
        ("--output", "output_usd_per_mtok", output),
        ("--cache-read", "cache_read_usd_per_mtok", cache_read),
        ("--cache-write", "cache_write_usd_per_mtok", cache_write),
        ("--request", "request_usd", request),
    ):
        if value is not None:
            try:
                entry[column] = format(amount(value, option), "f")
            except ValueError as error:
                raise typer.BadParameter(str(error)) from None
    store = open_store(Settings.from_env())
    store.call(
        "add_model_price_v1", price=json.dumps({name: value for name, value in entry.items() if value is not None})
    )
    store.close()
    console.print(
        f"{model}: ${input_} in, ${output} out per million tokens, from {valid_from or 'now'}", highlight=False
    )
    console.print("Running trackers take it up within five minutes. For calls stored unpriced: vital-tracking reprice")


@app.command("show")
def show_price(
    model: Annotated[str, typer.Argument(help="The model's name.")],
    provider: Annotated[str | None, typer.Option(help="Its provider, as LangChain names it.")] = None,
) -> None:
    """Show what a model costs now, and which entry says so."""
    store = open_store(Settings.from_env())
    book = PriceBook(team_prices(store.call("model_prices_v1")))
    store.close()
    rates = book.rates(provider, model, datetime.now(UTC))
    if rates is None:
        console.print(
            f"No price is known for {model}. Set one: vital-tracking prices set {model} --input USD --output USD"
        )
        raise typer.Exit(1)
    console.print(f"{model}: {rates.version}", highlight=False)
    for name in (
        "input",
        "output",
        "cache_read",
        "cache_write",
        "cache_write_1h",
        "reasoning",
        "audio_input",
        "audio_output",
    ):
        if (value := getattr(rates, name)) is not None:
            console.print(f"  {name.replace('_', ' '):<15} {_rate(value)} per million tokens", highlight=False)
    if rates.per_request:
        console.print(f"  {'request':<15} ${rates.per_request} each", highlight=False)


def _rate(value: Any) -> str:
    tiers = getattr(value, "tiers", None)
    if tiers is None:
        return f"${value}"
    return f"${value.base}, " + ", ".join(f"${tier.price} above {tier.start:,} prompt tokens" for tier in tiers)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter("--from must be a date or time such as 2026-01-31 or 2026-01-31T12:00+00:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
