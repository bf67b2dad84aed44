"""What the models in use cost, at `/api/v1/prices`."""

from __future__ import annotations

from typing import Final

from fastapi import Depends, Request, Response

from vital_tracking.queries.prices import price_book
from vital_tracking.queries.prices_in_use import PricesInUse, prices_in_use
from vital_tracking.web.access import Reader, reads
from vital_tracking.web.asked import AskedParameters
from vital_tracking.web.described import answering
from vital_tracking.web.parts import parts
from vital_tracking.web.responses import ExactJSON
from vital_tracking.web.route import api_router

routes = api_router(prefix="/api/v1", tags=["prices"])

_MAX_AGE_S: Final = 30
_EXAMPLE: Final = {
    "since": "2026-11-24T00:00:00+00:00",
    "until": "2026-12-01T00:00:00+00:00",
    "models": 2,
    "unpriced_calls": 12,
    "rows": [
        {
            "provider": "openai",
            "model": "gpt-4o",
            "calls": 1500,
            "unpriced_calls": 0,
            "total_cost": 12.75,
            "source": "list",
            "version": "genai-prices 0.0.75 openai/gpt-4o",
            "rates": [{"unit": "input_tokens", "usd": 2.5, "per": 1000000, "above_prompt_tokens": 0}],
            "mend": None,
        },
        {
            "provider": "own",
            "model": "house-llm-7b",
            "calls": 12,
            "unpriced_calls": 12,
            "total_cost": None,
            "source": "none",
            "version": None,
            "rates": None,
            "mend": "vital-tracking prices set --provider=own --input=USD --output=USD house-llm-7b && vital-tracking reprice",
        },
    ],
    "own_prices": [],
}


@routes.get(
    "/prices",
    name="vital-api-prices",
    summary="What the models in use cost",
    responses=answering(PricesInUse, "The prices.", _EXAMPLE),
    dependencies=[Depends(reads("prices"))],
)
def show_prices(request: Request, store: Reader, asked: AskedParameters) -> Response:
    """The models of the calls that you may see, with the price in force where it comes from, and what mends unpriced ones.

    Prices of the team's own are told to admins and operators.
    """
    with_parts = parts(request)
    book = price_book(with_parts.store.within(with_parts.settings.answer_s))
    return ExactJSON(prices_in_use(store, book, asked.period, asked.filters), max_age=_MAX_AGE_S)
