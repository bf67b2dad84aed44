"""Quotas on pages and over the API: for each reader his own, in the shape that was promised, and changed by admins alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from html import unescape
from typing import Any

import pytest

from tests.integration.web.conftest import Issuer, Make, browsers
from tests.integration.web.history import Open
from tests.integration.web.test_pages import page, table
from tests.sql.helpers import ADMIN, ALICE, CAROL, a_cost, call, connect, record
from tests.support.postgres import PostgresServer
from vital_tracking.stores.postgres import PostgresStore

USAGE = "/api/v1/analytics/usage"
PLANS = ("tiny", "trial", "starter", "professional", "enterprise")


@pytest.fixture(scope="module")
def quotas_url(postgres_server: PostgresServer, template_database: str) -> Iterator[str]:
    """Three users on plans: one over a small quota, one with an unlimited plan, and one of another organization."""
    postgres_server.create_database("web_quotas", template=template_database)
    url = postgres_server.url("web_quotas")
    now = datetime.now(UTC).isoformat()
    with connect(url) as connection:
        for member in (("acme", ADMIN, "admin"), ("acme", ALICE, "member"), ("other", CAROL, "admin")):
            connection.execute("insert into organization_members values (%s, %s, %s)", member)
        call(connection, "set_plan_v1", plan=json.dumps({"name": "tiny", "calls": 2, "price_usd": "9.90"}))
        for who, kind, organization, plan in (
            (ALICE, "user", "acme", "tiny"),
            (ADMIN, "user", "acme", "enterprise"),
            (CAROL, "user", "other", "tiny"),
            ("acme", "organization", None, "starter"),
        ):
            named = {"entity_type": kind, "entity_id": who, "organization_id": organization, "plan": plan}
            call(connection, "set_subscription_v1", subscription=json.dumps(named))
        owners = [(ALICE, "acme")] * 3 + [(ADMIN, "acme"), (CAROL, "other")]
        calls = [
            a_cost(number, user_id=user, organization_id=organization, created_at=now)
            for number, (user, organization) in enumerate(owners, 1)
        ]
        assert record(connection, *calls)["inserted"] == len(calls)
    yield url
    postgres_server.drop_database("web_quotas")


@pytest.fixture
def there(quotas_url: str, make: Make, issuer: Issuer) -> Iterator[Open]:
    """The browsers of those who look at it."""
    with closing(PostgresStore(quotas_url)) as store:
        yield browsers(store, make, issuer)


def plan(subscribers: int, used: int, limit: Any, tokens: int, tokens_limit: Any, over: int = 0) -> dict[str, Any]:
    percentage = Decimal(100 * used) / limit if isinstance(limit, int) and limit else Decimal(0)
    return {
        "subscribers": subscribers,
        "used": used,
        "limit": limit,
        "percentage": percentage.quantize(Decimal("0.01")),
        "tokens_used": tokens,
        "tokens_limit": tokens_limit,
        "over_quota": over,
    }


NOBODY = {"trial": plan(0, 0, 0, 0, 0), "professional": plan(0, 0, 0, 0, 0)}
STARTER = plan(1, 4, 30_000, 480, 5_000_000)
NO_STARTER = plan(0, 0, 0, 0, 0)
UNLIMITED = plan(1, 1, "unlimited", 120, "unlimited")
NO_UNLIMITED = plan(0, 0, "unlimited", 0, "unlimited")
EXPECTED: dict[str, dict[str, Any]] = {
    "operator": {**NOBODY, "tiny": plan(2, 4, 4, 480, "unlimited", 1), "starter": STARTER, "enterprise": UNLIMITED},
    "organization admin": {
        **NOBODY,
        "tiny": plan(1, 3, 2, 360, "unlimited", 1),
        "starter": STARTER,
        "enterprise": UNLIMITED,
    },
    "user": {**NOBODY, "tiny": plan(1, 3, 2, 360, "unlimited", 1), "starter": NO_STARTER, "enterprise": NO_UNLIMITED},
    "admin of another": {
        **NOBODY,
        "tiny": plan(1, 1, 2, 120, "unlimited"),
        "starter": NO_STARTER,
        "enterprise": NO_UNLIMITED,
    },
    "stranger": {**NOBODY, "tiny": plan(0, 0, 0, 0, "unlimited"), "starter": NO_STARTER, "enterprise": NO_UNLIMITED},
}
SEEN = {
    "operator": {ALICE, ADMIN, CAROL, "acme"},
    "organization admin": {ALICE, ADMIN, "acme"},
    "user": {ALICE},
    "admin of another": {CAROL},
    "stranger": set(),
}


@pytest.mark.parametrize("reader", EXPECTED)
def test_each_reader_is_told_the_quotas_that_are_his(there: Open, reader: str) -> None:
    """If this failed, a dashboard that speaks the promised shape would break, or a customer read what another one uses."""
    browser = there(reader)
    answer = browser.get(f"{USAGE}/quotas")
    assert answer.status_code == 200, answer.text
    found = json.loads(answer.text, parse_float=Decimal)
    assert found == EXPECTED[reader]
    assert list(found) == list(PLANS)
    listed = json.loads(browser.get("/api/v1/subscriptions").text, parse_float=Decimal)
    assert {row["entity_id"] for row in listed} == SEEN[reader]
    twice = browser.get("/api/v1/subscriptions?plan=tiny&plan=enterprise")
    assert (twice.status_code, twice.json()["errors"][0]["field"]) == (422, "plan"), (
        "one of the two would be passed over"
    )

    text = unescape(page(browser, "quotas"))
    rows = table(browser, "quotas", "subscribers") if listed else []
    assert len(rows) == len(listed)
    assert ("Put somebody on a plan" in text) == (reader in ("operator", "organization admin", "admin of another"))
    assert ("over, watched" in text) == (ALICE in SEEN[reader])
    for who in (ALICE, CAROL):
        assert (who in text) == (who in SEEN[reader])

    users = {row["user_id"]: row for row in json.loads(browser.get(f"{USAGE}/by-user").text, parse_float=Decimal)}
    if ALICE in SEEN[reader]:
        assert (users[ALICE]["subscription_tier"], users[ALICE]["quota_used_percent"]) == ("tiny", 150)
        assert "Plan and quota" in page(browser, f"users?user={ALICE}")
    if ADMIN in SEEN[reader]:
        assert (users[ADMIN]["subscription_tier"], users[ADMIN]["quota_used_percent"]) == ("enterprise", None)
    overview = page(browser, "")
    assert ("Quotas by plan now" in overview) == bool(listed)
    if reader == "operator":
        assert '<span class="badge bad">tiny</span>' in overview


def test_plans_and_subscriptions_are_changed_where_that_is_allowed(there: Open) -> None:
    """If this failed, a sign-up could not put its customer on a plan, or a page would say nothing of what was refused."""
    operator, admin, user = there("operator"), there("organization admin"), there("user")
    plans = [row["name"] for row in operator.get("/api/v1/plans").json()]
    assert plans == list(PLANS)
    new = {
        "entity_id": "u-new",
        "organization_id": "acme",
        "plan": "trial",
        "reset_day": 31,
        "timezone": "Asia/Kolkata",
    }
    told = admin.post("/api/v1/subscriptions", json=new)
    assert told.status_code == 200, told.text
    assert (told.json()["subscription"]["reset_day"], told.json()["before"]) == (31, None)
    assert user.post("/api/v1/subscriptions", json=new).status_code == 403
    wrong = admin.post("/api/v1/subscriptions", json={**new, "plan": "gold"})
    assert wrong.status_code == 422
    assert "There is no plan" in wrong.json()["detail"]
    form = {"entity_type": "user", "entity_id": "u-new", "organization": "acme", "enforced": "yes", "what": "set"}
    assert admin.post("/quotas/subscriptions", data={**form, "plan": "starter"}).status_code == 303
    history = admin.get("/api/v1/subscriptions/history", params={"entity_id": "u-new"}).json()
    assert [(row["plan"], row["enforced"]) for row in history] == [("starter", True), ("trial", False)]
    ended = admin.post("/api/v1/subscriptions/end", json={"entity_id": "u-new", "organization_id": "acme"})
    assert ended.json() == {"ended": 1}
    assert admin.post("/api/v1/plans", json={"name": "trial", "calls": 1}).status_code == 403
    page_of_ours = {"Sec-Fetch-Site": "same-origin"}
    team = {"name": "team", "calls": 100, "price_usd": 19.9}
    made = operator.post("/api/v1/plans", json=team, headers=page_of_ours)
    assert made.status_code == 200, made.text
    assert (made.json()["tokens"], made.json()["in_force"]) == (None, True)


def test_the_form_keeps_what_was_sent_and_the_page_says_what_became_of_it(there: Open, quotas_url: str) -> None:
    """If this failed, one wrong field would cost all the others, or a subscription would end by a slip of the finger."""
    operator, admin, user = there("operator"), there("organization admin"), there("user")
    ours = {"Sec-Fetch-Site": "same-origin"}
    form = {
        "entity_type": "user",
        "entity_id": "u-form",
        "organization": "acme",
        "plan": "professional",
        "timezone": "Europe/Berlin",
        "enforced": "yes",
        "what": "set",
    }

    def post(browser: Any, status: int, **changes: str) -> str:
        answer = browser.post("/quotas/subscriptions", data={**form, **changes}, headers=ours)
        assert answer.status_code == status, answer.text
        return unescape(answer.text) if status != 303 else str(answer.headers["location"])

    for browser, changes, said in (
        (
            admin,
            {"timezone": "Europe/Berlln"},
            "timezone 'Europe/Berlln' is no IANA time zone; did you mean Europe/Berlin",
        ),
        (admin, {"timezone": "Factory"}, "timezone 'Factory' is no IANA time zone"),
        (admin, {"reset_day": "32"}, "from 1 to 31"),
        (admin, {"entity_id": " "}, "Say who"),
        (operator, {"organization": "acmee"}, "did you mean acme?"),
        (operator, {"entity_type": "organization", "entity_id": "acmee"}, "did you mean acme?"),
        (admin, {"what": "end"}, "is on no plan there"),
    ):
        text = post(browser, 422, **changes)
        assert '<p class="notices" role="alert">' in text
        assert said in text
        assert "<option selected>professional</option>" in text
        for name in ("entity_id", "timezone"):
            assert f'name="{name}" value="{({**form, **changes})[name]}"' in text
    assert "Only an admin of that organization changes its subscriptions." in post(user, 403)

    told = unescape(admin.get(post(admin, 303)).text)
    assert "user u-form is on plan professional, enforced, in organization acme." in told
    asked = post(admin, 200, what="ask")
    assert "End the subscription of user u-form" in asked
    assert [row["until"] for row in admin.get("/api/v1/subscriptions/history?entity_id=u-form").json()] == [None]
    assert "user u-form is on no plan now: nothing limits it." in unescape(admin.get(post(admin, 303, what="end")).text)
    assert "is on no plan" not in page(admin, "quotas?changed=nobody/else")
    assert "acmee" in post(operator, 303, organization="acmee", new="yes")

    def remove(browser: Any, status: int, **fields: str) -> str:
        answer = browser.post("/quotas/plans/remove", data=fields, headers=ours)
        assert answer.status_code == status, answer.text
        return unescape(answer.text)

    operator.post("/api/v1/plans", json={"name": "brief"}, headers=ours)
    assert "Only operators change plans." in remove(admin, 403, plan="brief", sure="yes")
    assert "Mark that plan brief" in remove(operator, 422, plan="brief")
    again = remove(operator, 422, plan="starter", sure="yes")
    assert "Plan starter has subscribers, now or to come: 1." in again
    assert "<option selected>starter</option>" in again  # what was chosen stays chosen
    assert "There is no plan nothing." in remove(operator, 422, plan="nothing", sure="yes")
    assert "<option>brief</option>" in page(operator, "quotas")
    remove(operator, 303, plan="brief", sure="yes")
    assert "<option>brief</option>" not in page(operator, "quotas")
    gone = operator.delete("/api/v1/plans/brief", headers=ours)
    assert gone.status_code == 404
    kept = operator.delete("/api/v1/plans/starter", headers=ours)
    assert (kept.status_code, kept.json()["hint"]) == (
        409,
        "Put them on another plan or end their subscriptions first.",
    )
    ended = operator.post(
        "/api/v1/subscriptions/end",
        json={"entity_id": "u-form", "organization_id": "acmee"},
        headers=ours,
    )
    assert ended.json() == {"ended": 1}
