"""Costs that are no calls to models, at `/api/v1/costs`."""

from __future__ import annotations

from typing import Any, Final

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from vital_tracking.queries.other_costs import OtherCost, other_costs
from vital_tracking.queries.platform import place_of_row
from vital_tracking.web.access import Reader, reads
from vital_tracking.web.api.pages import After, Limit, page_of
from vital_tracking.web.csv import CsvFile, csv_response
from vital_tracking.web.described import answering, csv_answering
from vital_tracking.web.listed import checked_place
from vital_tracking.web.platform_asked import CostsAsked, costs_as_csv
from vital_tracking.web.route import api_router

routes = api_router(prefix="/api/v1", tags=["costs"], dependencies=[Depends(reads("costs"))])

_EXAMPLE: Final[dict[str, Any]] = {
    "id": "0192c8a0-5a5a-7a5a-8a5a-5a5a5a5a5a5a",
    "occurred_at": "2026-11-30T12:00:00+00:00",
    "organization_id": "acme",
    "user_id": None,
    "cost_type": "storage",
    "service": "documents",
    "resource": "bucket-1",
    "quantity": 12.5,
    "unit": "gb_month",
    "unit_price": 0.023,
    "cost_usd": 0.2875,
    "priced": True,
    "price_version": "resource_prices:1",
    "metadata": {},
}


@routes.get(
    "/costs",
    name="vital-api-costs",
    summary="Other costs, the newest first",
    responses=answering(list[OtherCost], "The costs; `Link` leads to the next ones.", [_EXAMPLE]),
)
def list_costs(request: Request, store: Reader, asked: CostsAsked, limit: Limit = 100, after: After = None) -> Response:
    """The costs beside those of calls that whoever asks may see: storage, bandwidth, machines, searches. Where no price is known
    `cost_usd` is null, and `priced` says so.
    """
    found = other_costs(store, asked.filters, limit=limit, after=checked_place(after))
    return page_of(request, found, limit, place_of_row)


@routes.get(
    "/costs.csv",
    name="vital-api-costs-csv",
    summary="All other costs as CSV",
    response_class=CsvFile,
    responses=csv_answering("id,occurred_at,organization_id\r\n"),
)
def costs_csv(store: Reader, asked: CostsAsked) -> Response:
    """All of them for which the filters hold, however many; no cell is a formula."""
    return csv_response(costs_as_csv(store, asked.filters), "costs.csv")
