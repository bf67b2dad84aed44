"""How much of their quotas plans and subscribers use, and who is put on which plan, which the database decides and audits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlencode

from fastapi import Depends, Form
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from vital_tracking.alerts.wording import entity
from vital_tracking.errors import StoreRejected
from vital_tracking.queries import plans as queries
from vital_tracking.queries.names import names_of
from vital_tracking.queries.organizations import organizations_named
from vital_tracking.queries.plans import QuotaStatus, over_quota, percent_used
from vital_tracking.queries.rate_limits import rate_limits
from vital_tracking.queries.words import counted
from vital_tracking.queries.zones import exact_zone
from vital_tracking.stores import Store
from vital_tracking.web import numbers
from vital_tracking.web.access import Asker, Reader, reads
from vital_tracking.web.asked import Asked, AskedParameters
from vital_tracking.web.identity import Identity
from vital_tracking.web.page import Card, Column, Page, Part, Row
from vital_tracking.web.pages.common import administered, mistyped_organization, named, whose
from vital_tracking.web.pages.frame import answer
from vital_tracking.web.rendering import home
from vital_tracking.web.route import page_router
from vital_tracking.web.view import View

routes = page_router()

_SHOWN: Final = 200
_UNLIMITED: Final = "unlimited"
_LAST_DAY: Final = 31
_FORBIDDEN: Final = "42501"

_Id = Annotated[str, Form(min_length=1, max_length=256, pattern=r"^[^\x00]*$")]
_Text = Annotated[str, Form(max_length=256, pattern=r"^[^\x00]*$")]


@dataclass(frozen=True, slots=True)
class _Form:
    """What was sent by the form, and what is wrong with it or asked of it."""

    values: Mapping[str, str] = field(default_factory=dict)
    message: str = ""
    sure: str = ""
    new: bool = False


@routes.get("/quotas", name="vital-quotas", dependencies=[Depends(reads("quotas"))])
def show(request: Request, who: Asker, store: Reader, asked: AskedParameters) -> Response:
    """Plans and subscribers, and how much of their quotas is used."""
    plan = request.query_params.get("plan") or None
    changed = request.query_params.get("changed") or ""
    return answer(request, who, store, asked, lambda view: page(view, who, plan, changed=changed))


@routes.post("/quotas/subscriptions", name="vital-subscribe")
def subscribe(
    request: Request,
    who: Asker,
    store: Reader,
    asked: AskedParameters,
    entity_type: Annotated[Literal["user", "organization"], Form()],
    what: Annotated[Literal["set", "ask", "end"], Form()],
    entity_id: _Text = "",
    organization: _Text = "",
    plan: _Text = "",
    reset_day: _Text = "",
    timezone: _Text = "",
    enforced: Annotated[Literal["", "yes", "no"], Form()] = "",
    new: Annotated[Literal["", "yes"], Form()] = "",
) -> Response:
    """Put a subscriber on a plan, or end that once it is sure, and go back to the page; what is wrong is said above the form."""
    values = {
        "entity_type": entity_type,
        "entity_id": entity_id,
        "organization": organization,
        "plan": plan,
        "reset_day": reset_day,
        "timezone": timezone,
        "enforced": enforced,
    }
    form = _Form(values)
    columns: dict[str, Any] = {"entity_type": entity_type, "entity_id": entity_id.strip()}
    if entity_type == "user" and organization.strip():
        columns["organization_id"] = organization.strip()
    whose = entity(entity_type, columns["entity_id"], columns.get("organization_id"))
    status = 422
    try:
        if not columns["entity_id"]:
            form = replace(form, message="Say who: the id of a user or an organization.")
        elif what == "ask":
            form = replace(form, sure=f"End the subscription of {whose}? Then nothing limits it, from now on.")
            status = 200
        elif what == "end":
            if queries.end_subscription(store, columns):
                return _back(request, columns)
            form = replace(form, message=f"{whose} is on no plan there.")
        elif reset_day and not (reset_day.isdecimal() and 1 <= int(reset_day) <= _LAST_DAY):
            form = replace(form, message="A month begins on a day from 1 to 31.")
        elif timezone.strip() and (wrong := _no_zone(timezone.strip())):
            form = replace(form, message=wrong)
        elif not new and (wrong := mistyped_organization(store, who, *organizations_named(columns).values())):
            form = replace(form, message=f"{wrong} If it is new, mark that.", new=True)
        else:
            given = {"plan": plan, "reset_day": int(reset_day) if reset_day else None, "timezone": timezone.strip()}
            columns |= {name: value for name, value in given.items() if value}
            if enforced:
                columns["enforced"] = enforced == "yes"
            queries.subscribe(store, columns)
            return _back(request, columns)
    except StoreRejected as refused:
        form = replace(form, message=str(refused))
        status = 403 if refused.sqlstate == _FORBIDDEN else 422
    return _again(request, who, store, asked, form, status)


@routes.post("/quotas/plans/remove", name="vital-remove-plan")
def remove_plan(
    request: Request,
    who: Asker,
    store: Reader,
    asked: AskedParameters,
    plan: _Id,
    sure: Annotated[Literal["", "yes"], Form()] = "",
) -> Response:
    """Remove a plan that nobody is on, and go back to the page; what is wrong is said above the form."""
    sent = {"removed": plan}
    try:
        if sure or not who.is_operator:  # the database refuses everybody else, and notes it
            queries.remove_plan(store, plan)
            return RedirectResponse(f"{home(request)}quotas", 303)
        form, status = _Form(sent, message=f"Mark that plan {plan} is to be removed, with all its versions."), 422
    except StoreRejected as refused:
        form, status = _Form(sent, message=str(refused)), 403 if refused.sqlstate == _FORBIDDEN else 422
    return _again(request, who, store, asked, form, status)


def _again(request: Request, who: Identity, store: Store, asked: Asked, form: _Form, status: int) -> Response:
    """The page once more, with what was sent in its form."""
    response = answer(request, who, store, asked, lambda view: page(view, who, form=form))
    response.status_code = status
    return response


def _back(request: Request, columns: Mapping[str, Any]) -> Response:
    organization = columns.get("organization_id")
    kept = {"organization": organization} if organization else {}
    changed = {"changed": f"{columns['entity_type']}/{columns['entity_id']}"}
    return RedirectResponse(f"{home(request)}quotas?{urlencode({**kept, **changed})}", 303)


def _no_zone(name: str) -> str:
    """What is wrong with a time zone; empty where nothing is."""
    try:
        exact_zone(name)
    except ValueError as wrong:
        return f"timezone {name!r} {wrong}."
    return ""


def _told(view: View, changed: str) -> str:
    """How it stands with a subscriber who was changed a moment ago: looked up, not taken from the address."""
    entity_type, _, entity_id = changed.partition("/")
    if entity_type not in queries.SUBSCRIBERS or not entity_id:
        return ""
    now = datetime.now(UTC)
    on = [
        row
        for row in queries.subscriptions(view.store, entity_type, entity_id)
        if row["since"] <= now and (row["until"] is None or row["until"] > now)
    ]
    where = [
        f"on plan {row['plan']}, {'enforced' if row['enforced'] else 'watched'}"
        + (f", in organization {row['organization_id']}" if row["organization_id"] else "")
        for row in on
    ]
    return f"{entity_type} {entity_id} is {' and '.join(where) or 'on no plan now: nothing limits it'}."


def page(view: View, who: Identity, plan: str | None = None, *, form: _Form | None = None, changed: str = "") -> Page:
    """How much of their quotas the subscribers use whom the reader may see, by plan and one by one."""
    organization = view.asked.only.get("organization")
    by_plan = [row for row in queries.quotas(view.store, organization=organization) if plan in (None, row["plan"])]
    subscribers = sum(row["subscribers"] for row in by_plan)
    may = administered(view.store, who)
    return Page(
        "quotas",
        f"How much does plan {plan} use?" if plan else "How much of their quotas do they use?",
        f"{counted(subscribers, 'subscriber')} that you may see, each with the month that runs, as it stands now.",
        cards=[
            Card("Subscribers", numbers.count(subscribers)),
            Card("Over quota", numbers.count(sum(row["over"] for row in by_plan)), note="used more than they have"),
            Card("Near it", numbers.count(sum(row["near"] for row in by_plan)), note="at 80 % or more"),
            Card("Enforced", numbers.count(sum(row["enforced"] for row in by_plan)), note="what is over is blocked"),
        ],
        parts=view.parts(
            {
                **({} if plan else {"plans": lambda: _plans(view, by_plan)}),
                "subscribers": lambda: _subscribers(view, organization, plan),
                **({} if plan else {"minutes": lambda: _minutes(view, organization)}),
            }
        ),
        crumbs=[("Quotas", view.keeping("quotas"))] if plan else (),
        template="quotas.html",
        of_time=False,
        extra={
            "administered": may or [],
            "any": may is None,
            "plans": [row["plan"] for row in by_plan] if may is None or may else [],
            "organization": organization or "",
            "form": form or _Form(),
            "told": _told(view, changed) if changed else "",
        },
    )


def any_quota(view: View) -> bool:
    """Whether the reader may see anybody who is on a plan."""
    return bool(queries.quota_status(view.store, limit=1))


def plans_part(view: View) -> Part:
    """How much of their quotas the subscribers of each plan use, as far as a glance needs it."""
    rows = [row for row in queries.quotas(view.store) if row["subscribers"]]
    part = _plans(view, rows)
    shown = ("plan", "subscribers", "calls_share", "tokens_share", "over")
    columns = [column for column in part.columns if column.name in shown]
    leads = ("All quotas", view.path("quotas"))
    return replace(part, id="quotas", title="Quotas by plan now", columns=columns, leads=leads, note="", wide=False)


def _plans(view: View, rows: Sequence[queries.PlanQuota]) -> Part:
    return Part(
        "plans",
        "By plan",
        [
            Column("plan", "Plan", link=lambda row: f"{view.path('quotas')}?{urlencode({'plan': row['plan']})}"),
            Column("subscribers", "Subscribers", "calls"),
            Column("calls_share", "Calls used", "meter", none=_UNLIMITED),
            Column("calls_used", "Calls", "calls"),
            Column("calls_limit", "of", "calls", beside=True),
            Column("tokens_share", "Tokens used", "meter", none=_UNLIMITED),
            Column("tokens_used", "Tokens", "tokens"),
            Column("tokens_limit", "of", "tokens", beside=True),
            Column("over", "Over quota", "calls"),
            Column("price_usd", "Price a month", "usd", none="not said"),
        ],
        [
            {
                **row,
                "calls_share": percent_used(row["calls_used"], row["calls_limit"]),
                "tokens_share": percent_used(row["tokens_used"], row["tokens_limit"]),
            }
            for row in rows
        ],
        note="The sums of what subscribers used in their own months, against the sums of their limits.",
        wide=True,
    )


def _subscribers(view: View, organization: str | None, plan: str | None) -> Part:
    found = queries.quota_status(view.store, organization=organization, plan=plan, limit=_SHOWN)
    part = quotas_part(view, found)
    return replace(part, more=f"The {_SHOWN:,} fullest are shown." if len(found) == _SHOWN else "")


def quotas_part(view: View, found: Sequence[QuotaStatus]) -> Part:
    """Subscribers as bars of what they used in their month; calls lead to the calls that were counted."""
    known = names_of(view.store, (row["entity_id"] for row in found if row["entity_type"] == "user"))

    def called(row: QuotaStatus) -> dict[str, Any]:
        name = known.user(row["entity_id"]) if row["entity_type"] == "user" else row["entity_id"]
        found = named(row)
        return found if name == row["entity_id"] else {**found, "whose": f"{name} ({found['whose']})"}

    return Part(
        "subscribers",
        "By subscriber",
        [
            *whose(_page_of(view)),
            Column("plan", "Plan", link=lambda row: f"{view.path('quotas')}?{urlencode({'plan': row['plan']})}"),
            Column("state", "Quota", "flag"),
            Column("calls_percent", "Calls used", "meter", none=_UNLIMITED),
            Column("calls_used", "Calls", "calls", link=_calls_of(view)),
            Column("calls_limit", "of", "calls", beside=True),
            Column("tokens_percent", "Tokens used", "meter", none=_UNLIMITED),
            Column("tokens_used", "Tokens", "tokens"),
            Column("tokens_limit", "of", "tokens", beside=True),
            Column("ends_at", "Month ends (UTC)", "minute"),
            Column("until", "On it until (UTC)", "minute", rare=True),
        ],
        [{**row, **called(row), "state": _state(row)} for row in found],
        empty="Nobody that you may see is on a plan. An operator, or an admin of the organization, puts somebody on one.",
        wide=True,
    )


def _state(row: QuotaStatus) -> tuple[str, str]:
    how = "enforced" if row["enforced"] else "watched"
    return ("bad", f"over, {how}") if over_quota(row) else ("ok" if row["enforced"] else "quiet", how)


def _minutes(view: View, organization: str | None) -> Part:
    """Limits of a minute of the last day, of budgets and plans alike."""
    return Part(
        "minutes",
        "Limits of a minute, in the last 24 hours",
        [
            *whose(_page_of(view)),
            Column("limit_amount", "Limit a minute", "amount"),
            Column("fullest_percent", "Fullest minute", "meter"),
            Column("average_percent", "On average", "percent", about="Of the minutes in which anything was used"),
            Column("minutes", "Minutes", "calls"),
            Column("violations", "Not fitting", "calls", about="Minutes in which a call did not fit"),
            Column("blocked_calls", "Blocked calls", "calls", link=_blocked_of(view)),
            Column("last_at", "Last (UTC)", "moment", none="-"),
            Column("by", "Set by"),
        ],
        [
            {
                **row,
                **named(row),
                "by": "its plan" if row["by_plan"] else f"budget {row['budget_id']}, {row['action']}",
            }
            for row in rate_limits(view.store, organization=organization)
        ],
        empty="No limit of a minute was used. Plans and budgets can have one.",
        wide=True,
    )


def _blocked_of(view: View) -> Callable[[Row], str | None]:
    return lambda row: (
        f"{view.path('calls')}?{urlencode({row['entity_type']: row['entity_id'], 'status': 'blocked', 'days': 1})}"
    )


def tier_flag(row: QuotaStatus | None) -> tuple[str, str] | None:
    """A plan as a badge, in the colour of what is used of it: red above 80 %, yellow from 60 % on."""
    if row is None:
        return None
    used = row["used_percent"]
    colour = (
        "quiet"
        if used is None
        else "bad"
        if used > queries.RED_ABOVE
        else "warn"
        if used >= queries.GREEN_BELOW
        else "ok"
    )
    return colour, row["plan"]


def _page_of(view: View) -> Callable[[Row], str]:
    def of(row: Row) -> str:
        name = {"user": "users", "organization": "organization"}.get(row["entity_type"], "calls")
        return f"{view.path(name)}?{urlencode({row['entity_type']: row['entity_id']})}"

    return of


def _calls_of(view: View) -> Callable[[Row], str]:
    """The calls that a quota counts, in days of UTC, in which pages tell times."""

    def of(row: Row) -> str:
        asked = {"since": str(row["starts_at"].astimezone(UTC).date()), row["entity_type"]: row["entity_id"]}
        if row["organization_id"] is not None:
            asked["organization"] = row["organization_id"]
        return f"{view.path('calls')}?{urlencode(asked)}"

    return of
