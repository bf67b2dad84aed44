"""The reports of usage, at `/api/v1/analytics/usage`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import Depends, Query, Request, Response

from vital_tracking.advice.life import look_for_advice
from vital_tracking.advice.report import Optimization
from vital_tracking.advice.report import optimization as optimization_report
from vital_tracking.queries import reports
from vital_tracking.queries.prices import price_book
from vital_tracking.web.access import Asker, Reader, reads
from vital_tracking.web.advised import found_last, scope_of
from vital_tracking.web.api.examples import answers
from vital_tracking.web.asked import Asked, AskedParameters, OrganizationAsked, only_organization
from vital_tracking.web.parts import parts
from vital_tracking.web.rendering import home
from vital_tracking.web.responses import ExactJSON
from vital_tracking.web.route import api_router

routes = api_router(prefix="/api/v1/analytics/usage", tags=["usage"], dependencies=[Depends(reads("usage"))])

_MAX_AGE_S: Final = 30
_NEVER_CHANGES_S: Final = 3600


def _answer(content: Any, asked: Asked) -> Response:
    """A report; one of days that are over may be kept longer, though calls can still be repriced."""
    over = asked.period.until < datetime.now(UTC)
    return ExactJSON(content, max_age=_NEVER_CHANGES_S if over else _MAX_AGE_S)


@routes.get("/overview", summary="Totals, by kind and by service", responses=answers(reports.Overview, "overview"))
def overview(store: Reader, asked: AskedParameters) -> Response:
    """What all calls of a time come to; `by_service` goes by kind (`llm`, `embeddings`), `by_service_type` by the services."""
    return _answer(reports.overview(store, asked.period, asked.filters), asked)


@routes.get(
    "/patterns", summary="When calls are made, and what is called", responses=answers(reports.Patterns, "patterns")
)
def patterns(store: Reader, asked: AskedParameters) -> Response:
    """Peak hours and days, the endpoints that are called most, calls and costs by day."""
    return _answer(reports.patterns(store, asked.period, asked.filters), asked)


@routes.get("/by-user", summary="The users who cost most", responses=answers(list[reports.UserUsage], "by-user"))
def by_user(
    store: Reader,
    asked: AskedParameters,
    limit: Annotated[int, Query(ge=1, le=1000, description="How many users.")] = 100,
) -> Response:
    """Users by what they cost, with what they spent on each service."""
    return _answer(reports.by_user(store, asked.period, asked.filters, limit=limit), asked)


@routes.get(
    "/by-service",
    summary="What each kind of service costs",
    responses=answers(list[reports.ServiceUsage], "by-service"),
)
def by_service(store: Reader, asked: AskedParameters) -> Response:
    """Kinds of services by what they cost, and how reliable they are."""
    return _answer(reports.by_service(store, asked.period, asked.filters), asked)


@routes.get("/costs", summary="What was spent, and where it leads", responses=answers(reports.Costs, "costs"))
def costs(store: Reader, asked: AskedParameters) -> Response:
    """Costs by provider, service and day. `projected_monthly_cost` is the daily average times 30, `forecast` the month's end."""
    return _answer(reports.costs(store, asked.period, asked.filters), asked)


@routes.get("/optimization", summary="Where money can be saved", responses=answers(Optimization, "optimization"))
def optimization(request: Request, store: Reader, who: Asker, asked: OrganizationAsked) -> Response:
    """Recommendations that nobody has decided about, each with its calls, and what all of them save together.

    What was found last, of 30 days; where a time is named, or nobody has looked, it is looked for now, and not saved. Of an
    organization, which an admin of one need not name; of all together for operators.
    """
    scope = scope_of(store, who, only_organization(asked))
    named = asked.given.keys() & {"days", "since", "until"}
    found = None if named else found_last(store, scope)
    if found is None and not scope.said:
        days = len(asked.period.days) if named else 30
        last = asked.period.until - timedelta(microseconds=1)
        now = datetime.now(UTC)
        with_parts = parts(request)
        prices = price_book(with_parts.store.within(with_parts.settings.answer_s))
        found = look_for_advice(
            store,
            prices,
            days=days,
            organization=scope.organization,
            timezone=asked.period.timezone,
            now=min(last, now) if asked.period.since < now else last,
        )
    notes = [scope.said] if scope.said else []
    return ExactJSON(optimization_report(found, root=home(request).rstrip("/"), notes=notes), max_age=_MAX_AGE_S)


@routes.get(
    "/performance",
    summary="How long calls take, and how they end",
    responses=answers(reports.Performance, "performance"),
)
def performance(store: Reader, asked: AskedParameters) -> Response:
    """Percentiles of latency, rates of success, errors and time-outs, in all and by endpoint."""
    return _answer(reports.performance(store, asked.period, asked.filters), asked)


@routes.get(
    "/quotas",
    summary="How much of their quotas the subscribers of each plan use",
    responses=answers(dict[str, reports.QuotaUsage], "quotas"),
)
def quotas(store: Reader, asked: AskedParameters) -> Response:
    """The months that run, whatever the time that is asked for; of an organization alone where one is named."""
    return ExactJSON(reports.quotas(store, organization=asked.only.get("organization")), max_age=_MAX_AGE_S)
