"""`vital-tracking compare-models`: what one call would cost at every model that has a price."""

from __future__ import annotations

from dataclasses import asdict, fields
from decimal import Decimal
from typing import Annotated, Any, Final

import typer

from vital_tracking.advice.calculators import ModelCost, compare_models
from vital_tracking.cli.render.columns import Column, fitted
from vital_tracking.cli.render.console import as_csv, as_json, console, printable, say
from vital_tracking.cli.render.session import Csv, Json, opened_if_there
from vital_tracking.core.closest import did_you_mean
from vital_tracking.core.price_list import RELEASE
from vital_tracking.core.pricing import PriceBook
from vital_tracking.core.providers import provider_id
from vital_tracking.errors import StoreError, VitalError
from vital_tracking.queries.prices import model_prices, price_book
from vital_tracking.queries.words import counted, usd

_SET_ONE: Final = " Set one: vital-tracking prices set"
_CENT: Final = Decimal("0.01")
_FIELDS: Final = (*(field.name for field in fields(ModelCost)), "fits", "times_cheapest")


def compare(
    input_tokens: Annotated[int, typer.Argument(min=0, metavar="IN", help="Tokens of the prompt.")],
    output_tokens: Annotated[int, typer.Argument(min=0, metavar="OUT", help="Tokens of the answer.")],
    provider: Annotated[str | None, typer.Option(help="Only models of this provider, such as openai.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="MODEL", help="Only this model; may be given several times.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Show so many, the cheapest first.")] = 20,
    free: Annotated[bool, typer.Option("--free", help="Also models that gateways list as free.")] = False,
    json_: Json = False,
    csv_: Csv = False,
) -> None:
    """Show what one call would cost at every model that has a price, the cheapest first.

    Prices are those of the installed genai-prices, and your own over them where a database is configured or there is an embedded
    one: without a database it works as well. All tokens count as plain ones, nothing comes from a cache. Models listed as free
    are left out, unless asked for. What a model costs says nothing of how good its answers are.

    \b
    Examples:
      vital-tracking compare-models 1000 500
      vital-tracking compare-models 1000 500 --provider anthropic
      vital-tracking compare-models 8000 400 --only gpt-4o --only gpt-4o-mini --csv
    """
    book, said = known_prices()
    found = compare_models(input_tokens, output_tokens, provider=provider, only=only or (), prices=book)
    if not found:
        known = sorted({owner for owner, _ in book.models() if owner})
        wanted = provider_id(provider) or ""
        raise VitalError(f"No model of {provider} has a price for this{did_you_mean(wanted, known)}")
    unknown = {
        cost.model: did_you_mean(cost.model, sorted({name for _, name in book.models()}))
        for cost in found
        if cost.total_cost is None
    }
    if only and len(unknown) == len(found):
        raise VitalError(" ".join(f"No price is known for {name}{meant}" for name, meant in unknown.items()) + _SET_ONE)
    asked = found if free or only else [cost for cost in found if cost.total_cost or not _listed(cost)]
    cheapest = next((cost.total_cost for cost in found if cost.total_cost), None)
    shown = [_row(cost, cheapest) for cost in asked[:limit]]
    if json_:
        as_json({"prices": said, "models": len(asked), "rows": shown})
        return
    if csv_:
        as_csv(shown, _FIELDS)
        return
    title = f"One call with {input_tokens:,} tokens in and {output_tokens:,} out, in US dollars"
    console.print(fitted(title, _COLUMNS, shown))
    say(f"{said}.")
    if len(asked) > limit:
        say(f"{limit:,} of {counted(len(asked), 'model')}; all of them: --limit {len(asked)}")
    if len(asked) < len(found):
        say(f"{counted(len(found) - len(asked), 'model')} listed as free left out: --free")
    for row in shown:
        if row["total_cost"] is None:
            say(printable(f"No price is known for {row['model']}{unknown[row['model']]}{_SET_ONE}"))
    if any(row["fits"] is False for row in shown):
        say("too small: the model takes fewer tokens at once.")


def known_prices() -> tuple[PriceBook, str]:
    """All prices that are known here, and which these are, in words."""
    listed = f"genai-prices {RELEASE}"
    try:
        with opened_if_there() as store:
            if store is None:
                return PriceBook(), f"Prices of {listed}: no database is configured"
            own = len(model_prices(store))
            return price_book(store), f"Prices of {listed}, and {counted(own, 'price')} of your own over them"
    except StoreError as error:
        return PriceBook(), f"Prices of {listed} alone: your own are not known ({str(error).rstrip('.')})"


def _listed(cost: ModelCost) -> bool:
    return (cost.price_version or "").startswith("genai-prices ")


def _row(cost: ModelCost, cheapest: Decimal | None) -> dict[str, Any]:
    total = cost.total_cost
    times = None if total is None or cheapest is None else (total / cheapest).quantize(_CENT)
    return {**asdict(cost), "fits": cost.fits, "times_cheapest": times}


def _times(row: dict[str, Any]) -> str:
    if row["total_cost"] == 0:
        return "free"
    return "" if row["times_cheapest"] is None else f"{row['times_cheapest']:,}x"


def _window(row: dict[str, Any]) -> str:
    if row["context_window"] is None:
        return ""
    return f"{'too small: ' if row['fits'] is False else ''}{row['context_window']:,}"


_COLUMNS: Final = (
    Column("provider", False, lambda row: row["provider"] or ("any" if row["price_version"] else "-")),
    Column("model", False, lambda row: row["model"]),
    Column("in", True, lambda row: "" if row["input_cost"] is None else usd(row["input_cost"]), 2),
    Column("out", True, lambda row: "" if row["output_cost"] is None else usd(row["output_cost"]), 2),
    Column("fees", True, lambda row: usd(row["fees"]) if row["fees"] else "", 2),
    Column("cost", True, lambda row: usd(row["total_cost"])),
    Column("to the cheapest", True, _times),
    Column("takes at once", True, _window, 1),
    Column("priced by", False, lambda row: row["price_version"] or "", 3),
)
