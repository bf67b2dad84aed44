"""Figures for monitoring in Prometheus' text format, at `/metrics`, for the monitoring token and for operators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any, Final

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from vital_tracking.queries.metrics import Metric, metrics
from vital_tracking.web.access import monitor
from vital_tracking.web.parts import parts
from vital_tracking.web.route import api_router

routes = api_router(tags=["status"], dependencies=[Depends(monitor)])

_PREFIX: Final = "vital_tracking_"
# https://prometheus.io/docs/instrumenting/exposition_formats/
_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_EXAMPLE: Final = """\
# HELP vital_tracking_calls_total Calls of this calendar month (UTC); begins anew with each.
# TYPE vital_tracking_calls_total counter
vital_tracking_calls_total{model="gpt-4o"} 1500
"""
_TEXT: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The metrics.",
        "content": {"text/plain": {"schema": {"type": "string"}, "example": _EXAMPLE}},
    }
}


@routes.get("/metrics", name="vital-metrics", response_class=PlainTextResponse, responses=_TEXT)
@routes.get("/api/v1/metrics", name="vital-api-metrics", response_class=PlainTextResponse, responses=_TEXT)
async def show_metrics(request: Request) -> Response:
    """This month's calls, failures, tokens and cost by model, how full budgets are, and how old what is recorded is.

    They are the installation's own, of all organizations, and name no user.
    """
    found = await parts(request).in_store(lambda store: list(metrics(store)))
    return Response("".join(_lines(found)), media_type=_TYPE, headers={"Cache-Control": "no-store"})


def _lines(found: Iterable[Metric]) -> Iterator[str]:
    for metric in found:
        name = f"{_PREFIX}{metric.name}"
        yield f"# HELP {name} {metric.meaning}\n# TYPE {name} {metric.kind}\n"
        for labels, value in metric.samples:
            said = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
            yield f"{name}{'{' * bool(said)}{said}{'}' * bool(said)} {_number(value)}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: Decimal | int) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else str(value)
