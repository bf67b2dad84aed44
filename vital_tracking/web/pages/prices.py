"""What the models in use cost: the price in force and where it comes from, the team's own prices, and calls without a price."""

from __future__ import annotations

from typing import Any, Final

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from vital_tracking.core.pricing import PriceBook
from vital_tracking.queries.csv import plain
from vital_tracking.queries.prices import FIRST_CALL, price_book
from vital_tracking.queries.prices_in_use import PriceInUse, PricesInUse, prices_in_use
from vital_tracking.queries.words import counted
from vital_tracking.web import numbers
from vital_tracking.web.access import Asker, Reader, reads
from vital_tracking.web.asked import AskedParameters
from vital_tracking.web.page import Card, Column, Page, Part
from vital_tracking.web.pages.frame import answer
from vital_tracking.web.parts import parts
from vital_tracking.web.route import page_router
from vital_tracking.web.view import View

routes = page_router()

_SHOWN: Final = (
    ("input_tokens", "Input"),
    ("output_tokens", "Output"),
    ("cache_read_tokens", "Cache read"),
    ("cache_write_tokens", "Cache write"),
)
_OWN: Final = (
    ("input_usd_per_mtok", "Input"),
    ("output_usd_per_mtok", "Output"),
    ("cache_read_usd_per_mtok", "Cache read"),
    ("cache_write_usd_per_mtok", "Cache write"),
    ("request_usd", "A request"),
)
_FLAGS: Final = {"list": ("quiet", "list"), "own": ("ok", "own"), "none": ("bad", "none")}
_HIDDEN: Final = "your team's own; its admins see it"


@routes.get("/prices", name="vital-prices", dependencies=[Depends(reads("prices"))])
def show(request: Request, who: Asker, store: Reader, asked: AskedParameters) -> Response:
    """What the models in use cost."""
    with_parts = parts(request)
    book = price_book(with_parts.store.within(with_parts.settings.answer_s))
    return answer(request, who, store, asked, lambda view: page(view, book))


def page(view: View, book: PriceBook) -> Page:
    """The prices of the models of a time, as far as its reader may see them."""
    found = prices_in_use(view.store, book, view.asked.period, view.asked.filters)
    unpriced = [row for row in found["rows"] if row["unpriced_calls"]]
    shown = [_unpriced(view, unpriced)] if unpriced else []
    return Page(
        "prices",
        "What do models cost?",
        f"{counted(found['models'], 'model')} in use, each with the price that a call has now; a call that is recorded keeps its "
        "price.",
        cards=[
            Card("Models in use", numbers.count(found["models"])),
            Card("Own prices", numbers.count(len(found["own_prices"])), note="that you may see"),
            Card(
                "Unpriced calls",
                numbers.count(found["unpriced_calls"]),
                note="in no cost, until they have a price" if found["unpriced_calls"] else "every call has its price",
                link="#unpriced" if unpriced else None,
            ),
        ],
        parts=[*shown, _in_use(view, found), _own(found)],
    )


def _unpriced(view: View, rows: list[PriceInUse]) -> Part:
    return Part(
        "unpriced",
        "Calls without a price",
        [
            Column("model", "Model", link=view.link("calls", "provider", "model"), none="(no model)"),
            Column("provider", "Provider"),
            Column("unpriced_calls", "Calls", "calls", about="Calls that are in no cost"),
            Column(
                "mend",
                "What mends it",
                "command",
                none="The calls do not name their model: name it where they are made.",
            ),
        ],
        [dict(row) for row in rows],
        note="An operator runs the command, with the provider's US dollars for a million tokens; it prices waiting calls, too.",
        wide=True,
    )


def _in_use(view: View, found: PricesInUse) -> Part:
    hidden = found["models"] - len(found["rows"])
    return Part(
        "models",
        "Prices in force",
        [
            Column("model", "Model", link=view.link("models", "provider", "model"), none="(no model)"),
            Column("provider", "Provider"),
            Column("from", "From", "flag", about="The list of genai-prices, a price of the team's own, or none"),
            Column("calls", "Calls", "calls", link=view.link("calls", "provider", "model")),
            Column("total_cost", "Cost", "usd"),
            *(Column(name, label, "brief") for name, label in _SHOWN),
            Column("beside", "Beside tokens", "prose", about="US dollars for one"),
            Column("said_by", "Price entry", "id"),
        ],
        [_row(row) for row in found["rows"]],
        note="US dollars for a million tokens. Variants of a price, such as batches or priority, are chosen call by call.",
        empty="No model was called in this time.",
        more=f"{hidden:,} more are not shown." if hidden > 0 else "",
        wide=True,
    )


def _row(row: PriceInUse) -> dict[str, Any]:
    rates = row["rates"] or []
    units = {name: [rate for rate in rates if rate["unit"] == name] for name, _ in _SHOWN}
    said = {
        name: ", ".join(
            f"${plain(one['usd'])}" + (f" above {one['above_prompt_tokens']:,}" if one["above_prompt_tokens"] else "")
            for one in of
        )
        for name, of in units.items()
        if of
    }
    beside = ", ".join(f"{one['unit'].replace('_', ' ')} ${plain(one['usd'])}" for one in rates if one["per"] == 1)
    hidden = _HIDDEN if row["source"] == "own" and row["version"] is None else None
    return {
        **row,
        **said,
        "from": _FLAGS[row["source"]],
        "beside": beside or None,
        "said_by": row["version"] or hidden,
    }


def _own(found: PricesInUse) -> Part:
    rows = [
        {
            **price,
            "provider": price["provider"] or "any",
            "from": "the first call" if price["valid_from"] == FIRST_CALL else f"{price['valid_from']:%Y-%m-%d %H:%M}",
            "units": ", ".join(
                f"{name.replace('_', ' ')} ${plain(usd)}" for name, usd in (price["unit_prices"] or {}).items()
            )
            or None,
        }
        for price in found["own_prices"]
    ]
    return Part(
        "own",
        "Prices of your own",
        [
            Column("model", "Model"),
            Column("provider", "Provider"),
            Column("from", "From (UTC)"),
            *(Column(name, label, "usd") for name, label in _OWN),
            Column("units", "Beside tokens"),
            Column("note", "Note"),
        ],
        rows,
        note="They go before the list; the newest that has begun holds.",
        empty="No price of your own that you may see: all come from the list of genai-prices, or are your admins' to see. "
        "An operator adds one with: vital-tracking prices set MODEL --input USD --output USD",
        wide=True,
    )
