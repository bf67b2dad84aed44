"""Every way in over Supabase, for five people with real sessions and tokens: each is shown and changes what is theirs alone.

The ways are the router's own: one that is added and stands in neither table here fails.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from typing import Any, Final
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from tests.integration.stores.test_supabase_access import empty
from tests.integration.web.conftest import bearer, client
from tests.integration.web.supabase_world import (
    FIVE,
    NORTH,
    PASSWORD,
    ROLES,
    SOUTH,
    World,
    make_advice,
    make_finding,
    make_world,
    sign_up,
)
from tests.integration.web.ways_in import ways
from tests.sql.helpers import Connection, connect, set_budget
from tests.support.effort import LONG
from tests.support.supabase_lite import SupabaseLite
from vital_tracking.settings import Settings
from vital_tracking.web import create_app
from vital_tracking.web.settings import WebSettings

pytestmark = pytest.mark.timeout(300)


SIGNED_IN: Final = FIVE[:-1]


@dataclass(frozen=True)
class Reading:
    """What a way in shows: things of these kinds, of each reader those that he may see, and nothing of others.

    `of` names the kind of thing that the path is about: it is there for whoever may see it, and for nobody else. `opens` is the
    answer to whoever is signed in, `to_all` to whoever is not, where it is not the usual one.
    """

    shows: tuple[str, ...] = ()
    of: str | None = None
    opens: int = 200
    to_all: int | None = None


def shows(*kinds: str, of: str | None = None, opens: int = 200) -> Reading:
    """What a way in shows to whoever is signed in."""
    return Reading(kinds, of, opens)


OPEN: Final = Reading(to_all=200)
FOR_OTHERS: Final = Reading(opens=403)
USAGE: Final = "/api/v1/analytics/usage"
READINGS: Final[Mapping[str, Reading]] = {
    "/healthz": OPEN,
    "/api/v1/openapi.json": OPEN,
    "/sign-in": OPEN,
    "/static/{digest}/{name:path}": Reading(opens=404, to_all=404),
    "/open": Reading(opens=403, to_all=403),
    "/metrics": FOR_OTHERS,
    "/api/v1/status": shows("self", "organization"),
    "/api/v1/status/checks": shows("organization"),
    f"{USAGE}/overview": shows("sum"),
    f"{USAGE}/patterns": shows("sum", "step"),
    f"{USAGE}/by-user": shows("user", "email"),
    f"{USAGE}/by-service": shows("sum"),
    f"{USAGE}/costs": shows("sum"),
    f"{USAGE}/performance": shows("step"),
    f"{USAGE}/quotas": shows(),
    f"{USAGE}/optimization": shows("advice"),
    "/api/v1/plans": shows(),
    "/api/v1/rate-limits": shows(),
    "/api/v1/subscriptions": shows("user"),
    "/api/v1/subscriptions/history": Reading(opens=422),  # whose must be named
    "/api/v1/calls": shows("call", "user", "agent", "model", "session"),
    "/api/v1/calls.csv": shows("call", "user", "agent", "model", "session"),
    "/api/v1/calls/{call_id}": shows(of="call"),
    "/api/v1/runs": shows("run"),
    "/api/v1/runs/{run_id:path}": shows(of="run"),
    "/api/v1/explore": shows("sum"),
    "/api/v1/explore.csv": shows("sum"),
    "/api/v1/events": shows("event", "user", "session"),
    "/api/v1/events.csv": shows("event", "user", "session"),
    "/api/v1/costs": shows("cost"),
    "/api/v1/costs.csv": shows("cost"),
    "/api/v1/budgets": shows("budget"),
    "/api/v1/budgets/{budget_id}": shows(of="budget"),
    "/api/v1/budgets/calls/{call_id}/why": shows(of="stopped"),
    "/api/v1/alerts": shows("user"),
    "/api/v1/alerts.csv": shows("user"),
    "/api/v1/anomalies": shows("user"),
    "/api/v1/duplicates": shows("hash"),
    "/api/v1/forecast": shows("sum"),
    "/api/v1/health": shows("organization"),
    "/api/v1/health.csv": shows("organization"),
    "/api/v1/abuse": shows("found"),
    "/api/v1/abuse.csv": shows("found"),
    "/api/v1/abuse/settings": shows(),
    "/api/v1/abuse/{finding_id}": shows(of="found"),
    "/api/v1/recommendations": shows("advice"),
    "/api/v1/recommendations.csv": shows("advice"),
    "/api/v1/recommendations/{recommendation_id}": shows(of="advice"),
    "/api/v1/prices": shows("model"),
    "/api/v1/members": shows("organization"),
    "/api/v1/audit": shows(),
    "/api/v1/audit.csv": shows(),
    "/": shows("sum", "user", "agent", "model", "advice"),
    "/admin/usage-analytics/export": shows(opens=303),
    "/users": shows("sum", "user", "email"),
    "/users/forget": shows(opens=404),
    "/organizations": shows("sum"),
    "/services": shows("sum"),
    "/agents": shows("sum", "agent"),
    "/models": shows("sum", "model"),
    "/frameworks": shows("sum", "framework"),
    "/workflows": shows("sum", "workflow"),
    "/panels": shows("sum", "panel"),
    "/tools": shows("sum", "tool"),
    "/prices": shows("model"),
    "/quotas": shows("user"),
    "/runs": shows("run"),
    "/runs/{run_id:path}": shows(of="run"),
    "/calls": shows("call", "user", "agent", "model"),
    "/calls/{call_id}": shows(of="call"),
    "/explore": shows("sum", "report"),
    "/budgets": shows("user"),
    "/budgets/new": shows(),
    "/budgets/{budget_id}": shows(of="budget"),
    "/budgets/{budget_id}/remove": shows(of="budget"),
    "/alerts": shows("user"),
    "/anomalies": shows("user"),
    "/forecast": shows("sum"),
    "/health": shows("organization"),
    "/events": shows("event", "user", "session"),
    "/costs": shows("cost", "sum"),
    "/abuse": shows("found"),
    "/advice": shows("advice"),
    "/abuse/{finding_id}": shows(of="found"),
    "/organization": shows("organization"),
    "/audit": shows(),
    "/status": shows("organization"),
}
TWINS: Final[Mapping[str, str]] = {
    "/api/v1/healthz": "/healthz",
    "/api/v1/metrics": "/metrics",
    "/admin/usage-analytics": "/",
    "/admin/system/usage-analytics": "/",
    "/admin/usage-analytics/test": "/status",
}
"""Other addresses of a route, which is asked by all at its first."""

ALIKE: Final = frozenset({"/organizations", "/services", "/models", "/frameworks"})
"""Pages that one function makes, as it does those of users and agents: asked where there is time for it."""


@pytest.fixture(scope="module")
def database(lite: SupabaseLite) -> Iterator[Connection]:
    """Its owner's connection; there is nothing in it before and after."""
    with connect(lite.database_url) as connection:
        empty(connection)
        yield connection
        empty(connection)


@pytest.fixture(scope="module")
def world(lite: SupabaseLite, database: Connection) -> World:
    """Who and what there is."""
    return make_world(database, sign_up(lite))


Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def browsers(lite: SupabaseLite, world: World) -> Iterator[dict[str, TestClient]]:
    """The browser of each of the five, signed in on the page where there is an account."""
    environment = {
        "SUPABASE_URL": lite.url,
        "SUPABASE_ANON_KEY": lite.publishable_key,
        "SUPABASE_JWT_SECRET": lite.jwt_secret,
    }
    web = WebSettings.from_env(environment, dotenv="absent.env").model_copy(
        update=dict.fromkeys(("user_requests", "organization_requests"), 100_000)
    )
    app = create_app(
        settings=Settings(supabase_url=lite.url, supabase_service_key=SecretStr(lite.service_key)), web=web
    )
    with ExitStack() as stack:
        opened = {}
        for name in FIVE:
            browser = opened[name] = stack.enter_context(client(app, headers={"Sec-Fetch-Site": "same-origin"}))
            if name in world.people:
                form = {"email": world.people[name].email, "password": PASSWORD}
                assert browser.post("/sign-in", data=form).status_code == 303
        yield opened


@pytest.fixture(scope="module")
def ask(browsers: dict[str, TestClient], world: World) -> Ask:
    """Asks as one of the five: the API as a program does, with a token, the pages with the session."""

    def asked(reader: str, method: str, path: str, **sent: Any) -> Any:
        by_token = reader in world.people and path.startswith(("/api/", "/metrics"))
        headers = bearer(world.people[reader].token) if by_token else {}
        return browsers[reader].request(method, path, headers=headers, **sent)

    return asked


def is_page(path: str) -> bool:
    """Whether it is for people, and not for programs."""
    return not path.startswith(("/api/", "/metrics", "/healthz", "/static"))


def test_every_way_in_shows_each_what_is_theirs_and_nothing_else(
    browsers: dict[str, TestClient], ask: Ask, world: World
) -> None:
    """If this failed, a page or an endpoint would show a customer what is another's, or hide what is his own."""
    found = {path: answers for (method, path), answers in ways(browsers["admin"].app).items() if method == "GET"}  # type: ignore[arg-type]
    assert set(found) == {*READINGS, *TWINS}, "each way in has its expectation"
    assert [path for path, first in TWINS.items() if found[path] is not found[first]] == []
    wrong = [
        (reader, path, what)
        for path in found
        if LONG or path not in ALIKE
        for reader in (("anonymous",) if path in TWINS else FIVE)
        for what in faults_of_one(ask, world, reader, path, READINGS[TWINS.get(path, path)])
    ]
    assert wrong == []


def faults_of_one(ask: Ask, world: World, reader: str, path: str, reading: Reading) -> Iterator[Any]:
    """What is wrong with a way in for a reader."""
    if reading.of is None:
        yield from faults(ask(reader, "GET", re.sub(r"\{.*?\}", "none", path)), world, reader, path, reading)
        return
    for plant, number in world.tried(reading.of, reader).items():
        answer = ask(reader, "GET", re.sub(r"\{.*?\}", quote(number), path))
        there = world.sees(reader, plant)
        for fault in faults(answer, world, reader, path, reading, missing=not there):
            yield plant, fault
        if there and plant not in answer.text:
            yield plant, "is not shown"


def said(answer: Any) -> str:
    """The text of an answer; on pages amounts are written with commas, which are left out."""
    page = answer.headers.get("content-type", "").startswith("text/html")
    return re.sub(r"(?<=\d),(?=\d{3})", "", answer.text) if page else answer.text


def faults(
    answer: Any, world: World, reader: str, path: str, reading: Reading, *, missing: bool = False
) -> Iterator[Any]:
    """What is wrong with an answer."""
    expected = reading.opens if reading.to_all is None else reading.to_all
    if reader == "anonymous" and reading.to_all is None:
        expected = 303 if is_page(path) else 401
        if is_page(path) and not answer.headers.get("location", "").startswith("/sign-in?next="):
            yield answer.headers.get("location")
    elif missing:
        expected = 404
    if answer.status_code != expected:
        yield answer.status_code, answer.text[:300]
    if foreign := world.foreign(reader, said(answer)):
        yield "shows", foreign
    if answer.status_code == 200:
        for kind in reading.shows:
            if lacking := sorted(one for one in world.of(kind, reader) if one not in said(answer)):
                yield "lacks", kind, lacking


def test_an_organization_that_is_named_narrows_what_is_shown_and_who_reads_it_stands_in_the_audit(
    ask: Ask, world: World, database: Connection
) -> None:
    """If this failed, naming an organization would open its books; or it could not say who has looked at its people."""
    for reader in SIGNED_IN:
        for organization in (NORTH, SOUTH):
            answer = ask(reader, "GET", f"{USAGE}/overview", params={"organization": organization})
            told = str(answer.json()["total_cost"]).removesuffix(".0")
            assert told == world.spent(reader, organization), (reader, organization)
        organizations = ask(reader, "GET", "/api/v1/status").json()["organizations"]
        place = ROLES[reader]
        assert [(one["organization_id"], one["role"]) for one in organizations] == ([place] if place else [])
    lines = database.execute(
        "select distinct actor, organization_id, database_role from admin_audit where operation = 'read'"
    ).fetchall()
    assert {(line["actor"], line["organization_id"]) for line in lines} == {
        (world.people["admin"].id, NORTH),
        (world.people["other"].id, SOUTH),
    }
    assert {line["database_role"] for line in lines} == {"service_role"}


def test_no_key_stands_for_a_person(browsers: dict[str, TestClient], world: World, lite: SupabaseLite) -> None:
    """If this failed, the key in every browser would open the books."""
    headers: list[dict[str, str]] = [
        {"apikey": lite.publishable_key},
        {"apikey": lite.service_key},
        bearer(lite.publishable_key),
        bearer(lite.service_key),
        bearer(world.people["admin"].id),
    ]
    for given in headers:
        for method, path in (("GET", f"{USAGE}/overview"), ("GET", "/api/v1/status"), ("POST", "/api/v1/budgets")):
            answer = browsers["anonymous"].request(method, path, headers=given)
            assert answer.status_code == 401, (path, answer.text)
            assert lite.service_key not in answer.text


@dataclass(frozen=True)
class Changing:
    """What a way in changes, for the budget or the member that each way has of its own.

    `sends` is what goes with the request, `done` the answer where it is done, `hidden` those for whom what it would change is not
    there. `may` do it: admins of that organization alone, or whoever is signed in, for himself; `changes` is False where it
    changes nothing that is stored.
    """

    sends: Callable[[str], dict[str, Any]] = lambda _: {}
    done: int = 200
    hidden: tuple[str, ...] = ()
    may: tuple[str, ...] = ("admin",)
    changes: bool = True


HIDDEN: Final = ("other", "stranger")
NO_ADMINS: Final = ("member", *HIDDEN)


def a_budget(who: str) -> dict[str, Any]:
    """A budget of a user, as it is made."""
    return {"organization_id": NORTH, "entity_type": "user", "entity_id": who, "daily_limit": "5"}


def a_form(who: str) -> dict[str, Any]:
    """The same as a page's form."""
    return {"data": {**a_budget(who), "metric": "cost_usd", "action": "alert", "timezone": "UTC"}}


def a_place(who: str) -> dict[str, Any]:
    """Somebody in an organization."""
    return {"organization_id": NORTH, "user_id": who}


def a_subscriber(who: str) -> dict[str, Any]:
    """Somebody who is, or is to be, on a plan."""
    return {"organization_id": NORTH, "entity_id": who}


def a_member(who: str) -> dict[str, Any]:
    """A member who is to be an admin."""
    return {"json": {**a_place(who), "role": "admin"}}


def more(_: str) -> dict[str, Any]:
    """A raise."""
    return {"raise_by": "2", "until": "tomorrow"}


CHANGES: Final[Mapping[tuple[str, str], Changing]] = {
    ("POST", "/api/v1/members"): Changing(lambda who: a_member(f"new-{who}"), 201),
    ("PATCH", "/api/v1/members"): Changing(a_member),
    ("DELETE", "/api/v1/members"): Changing(lambda who: {"params": {"organization": NORTH, "user": who}}),
    ("POST", "/organization/members"): Changing(
        lambda who: {"data": {"organization": NORTH, "user": who, "what": "change", "role": "auditor"}}, 303
    ),
    ("PUT", "/api/v1/members/name"): Changing(lambda who: {"json": {**a_place(who), "name": f"Name of {who}"}}),
    ("PUT", "/api/v1/organizations/name"): Changing(
        lambda who: {"json": {"organization_id": NORTH, "name": f"Called {who}"}}
    ),
    ("POST", "/organization/name"): Changing(
        lambda who: {"data": {"organization": NORTH, "name": f"Called {who}"}}, 303
    ),
    ("POST", "/api/v1/members/forget"): Changing(lambda who: {"json": a_place(who)}),
    ("POST", "/users/forget"): Changing(lambda who: {"data": {"user": who, "organization": NORTH}}),
    ("POST", "/api/v1/budgets"): Changing(lambda who: {"json": a_budget(f"new-{who}")}),
    ("PATCH", "/api/v1/budgets/{budget_id}"): Changing(lambda _: {"json": {"daily_limit": 9}}, hidden=HIDDEN),
    ("POST", "/api/v1/budgets/{budget_id}/raise"): Changing(lambda who: {"json": more(who)}, hidden=HIDDEN),
    ("DELETE", "/api/v1/budgets/{budget_id}"): Changing(done=204, hidden=HIDDEN),
    ("POST", "/budgets/new"): Changing(lambda who: a_form(f"new-{who}"), 303),
    ("POST", "/budgets/{budget_id}"): Changing(a_form, 303, HIDDEN),
    ("POST", "/budgets/{budget_id}/raise"): Changing(lambda who: {"data": more(who)}, 303, HIDDEN),
    ("POST", "/budgets/{budget_id}/remove"): Changing(done=303, hidden=HIDDEN),
    ("POST", "/api/v1/abuse/{finding_id}/decision"): Changing(
        lambda _: {"json": {"decision": "throttle", "lasts_s": 600}}, hidden=NO_ADMINS
    ),
    ("POST", "/abuse/{finding_id}"): Changing(lambda _: {"data": {"decision": "false_alarm"}}, 303, NO_ADMINS),
    ("DELETE", "/api/v1/abuse/marks/{mark_id}"): Changing(done=204, hidden=NO_ADMINS),
    ("POST", "/abuse/marks/{mark_id}/remove"): Changing(done=303, hidden=NO_ADMINS),
    ("PUT", "/api/v1/abuse/rules"): Changing(lambda _: {"json": {"organization_id": NORTH, "action": "watch"}}),
    ("POST", "/api/v1/recommendations/{recommendation_id}"): Changing(
        lambda _: {"json": {"status": "taken"}}, hidden=NO_ADMINS
    ),
    ("POST", "/advice/{recommendation_id}"): Changing(lambda _: {"data": {"status": "dismissed"}}, 303, NO_ADMINS),
    ("POST", "/api/v1/recommendations"): Changing(lambda _: {"json": {"organization_id": NORTH}}),
    ("POST", "/advice"): Changing(lambda _: {"data": {"organization": NORTH}}, 303),
    ("POST", "/explore/save"): Changing(
        lambda who: {"data": {"name": f"new-{who}", "query": "by=model"}}, 303, (), SIGNED_IN
    ),
    ("POST", "/explore/forget"): Changing(lambda who: {"data": {"name": who}}, 303, (), SIGNED_IN),
    ("POST", "/explore/schedule"): Changing(lambda who: {"data": {"name": who, "channel": "alerts"}}, may=()),
    ("POST", "/api/v1/budgets/preview"): Changing(
        lambda _: {"json": {"entity_type": "user", "daily_limit": "5"}}, 200, (), SIGNED_IN, False
    ),
    ("POST", "/api/v1/events"): Changing(lambda who: {"json": {"event_name": f"new-{who}"}}, 200, (), SIGNED_IN),
    ("POST", "/api/v1/plans"): Changing(lambda who: {"json": {"name": f"new-{who}", "calls": 5}}, may=()),
    ("DELETE", "/api/v1/plans/{name}"): Changing(may=()),
    ("POST", "/quotas/plans/remove"): Changing(lambda _: {"data": {"plan": "trial", "sure": "yes"}}, may=()),
    ("POST", "/api/v1/subscriptions"): Changing(lambda who: {"json": {**a_subscriber(who), "plan": "trial"}}),
    ("POST", "/api/v1/subscriptions/end"): Changing(lambda _: {"json": a_subscriber("on-a-plan")}),
    ("POST", "/quotas/subscriptions"): Changing(
        lambda who: {
            "data": {"organization": NORTH, "entity_type": "user", "entity_id": who, "plan": "trial", "what": "set"}
        },
        303,
    ),
    ("POST", "/theme"): Changing(lambda _: {"data": {"theme": "dark"}}, 303, (), SIGNED_IN, False),
}
SESSIONS: Final = {("POST", "/sign-in"), ("POST", "/sign-out")}
"""In and out for everybody: test_sign_in.py tries them."""


def test_every_way_to_change_something_is_its_admin_s_and_refused_tries_stand_in_the_audit(
    browsers: dict[str, TestClient], ask: Ask, world: World, database: Connection
) -> None:
    """If this failed, a member could lift a limit, or an admin of another organization, and nobody would learn of it."""
    found = {way for way in ways(browsers["admin"].app) if way[0] not in ("GET", "OPTIONS")}  # type: ignore[arg-type]
    assert found == {*CHANGES, *SESSIONS}, "each way to change something has its expectation"
    keys = product(("cost_usd", "tokens", "calls"), ("alert", "block", "throttle", "downgrade"))
    wrong: list[Any] = []
    for number, ((method, path), change) in enumerate(CHANGES.items()):
        who = f"of-{number}"
        database.execute("insert into organization_members values (%s, %s, 'member')", [NORTH, who])
        for owner in SIGNED_IN:
            database.execute(
                "insert into saved_reports (owner, name, asked) values (%s, %s, '[]')", [world.people[owner].id, who]
            )
        if "{budget_id}" in path:
            metric, action = next(keys)
            columns = a_budget(world.people["member"].id) | {"metric": metric, "action": action}
            columns["downgrade_to"] = "spare" if action == "downgrade" else None
            address = path.format(budget_id=set_budget(database, **columns)["id"])
        elif "{finding_id}" in path:
            address = path.format(finding_id=make_finding(database, who, NORTH))
        elif "{recommendation_id}" in path:
            address = path.format(recommendation_id=make_advice(database, 100 + number, who, NORTH))
        elif "{mark_id}" in path:
            mark = database.execute(
                "insert into vital_private.abuse_marks (pattern, organization_id, subject, up_to)"
                " values ('user_calls', %s, %s, 1) returning id",
                [NORTH, who],
            ).fetchone()
            assert mark is not None
            address = path.format(mark_id=mark["id"])
        else:
            address = path
        before, lines = stored(database), audited(database)
        refused = [reader for reader in FIVE if reader not in change.may]
        for reader in (*refused, *change.may):
            answer = ask(reader, method, address, **change.sends(who))
            # Those who are refused change nothing together: one look after the last of them says so.
            now, told = before if reader in refused[:-1] else stored(database), audited(database)
            found_wrong = faults_of_change(world, reader, change, answer, now ^ before, told - lines)
            wrong += [(method, path, reader, fault) for fault in found_wrong]
            before, lines = now, told
    assert wrong == []


def faults_of_change(
    world: World, reader: str, change: Changing, answer: Any, changed: set[Any], told: set[Any]
) -> Iterator[Any]:
    """What is wrong with what a try to change something has done, and with what the audit tells of it."""
    mine = world.people[reader].id if reader in world.people else None
    may = reader in change.may
    expected = change.done if may else 401 if mine is None else 404 if reader in change.hidden else 403
    if answer.status_code != expected:
        yield answer.status_code, answer.text[:300]
    if bool(changed) != (may and change.changes):
        yield "changed", changed
    # Whose events somebody writes, test_events_api.py looks at.
    own = [one for one in changed if not one[0].startswith("platform_events")]
    if change.may is SIGNED_IN and not all(table == "saved_reports" and str(mine) in row for table, row in own):
        yield "changed what is another's", changed
    refused = {actor for _, actor, operation in told if operation == "refused"}
    if refused != ({mine} if mine and not may else set()):
        yield "refused in the audit", refused
    if change.may == ("admin",) and may and {actor for _, actor, _ in told} != {mine}:
        yield "in the audit", told
    # What somebody has sent he may be shown again.
    if foreign := [mark for mark in world.foreign(reader, said(answer)) if mark not in str(answer.request.content)]:
        yield "shows", foreign


def stored(database: Connection) -> set[tuple[str, str]]:
    """What is in the tables but the audit: for each a hash of its rows, and for reports, which are each one's own, the rows."""
    tables = database.execute(
        "select oid::regclass::text as name from pg_class where relkind in ('r', 'p') and not relispartition"
        " and relname not in ('admin_audit', 'saved_reports')"
        " and relnamespace in ('public'::regnamespace, 'vital_private'::regnamespace) order by 1"
    ).fetchall()
    hashes = " union all ".join(
        f"select '{one['name']}' as name, md5(string_agg(t::text, '' order by t::text)) as row from {one['name']} as t"
        for one in tables
    )
    reports = "select 'saved_reports', owner || ' ' || name from saved_reports"
    return {(row["name"], row["row"]) for row in database.execute(f"{hashes} union all {reports}").fetchall()}


def audited(database: Connection) -> set[tuple[int, str, str]]:
    """The lines of the audit but those of reading: their ids, who, and what was done."""
    rows = database.execute("select id, actor, operation from admin_audit where operation <> 'read'").fetchall()
    return {(row["id"], row["actor"], row["operation"]) for row in rows}
