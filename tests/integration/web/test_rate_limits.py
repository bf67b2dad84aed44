"""How often somebody may ask: users, organizations, bursts; operators and the monitor as they like."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from limits.errors import StorageError
from pydantic import SecretStr

from tests.integration.web.conftest import MONITORING, Clock, Issuer, Make, bearer, client
from tests.sql.helpers import ADMIN, ALICE, BOB, CAROL
from tests.support.redis import running_redis
from vital_tracking.errors import SettingsError
from vital_tracking.web.operator import OperatorLink
from vital_tracking.web.problems import Problem
from vital_tracking.web.rate_limits import RateAsker, RateLimits
from vital_tracking.web.settings import WebSettings

STATUS = "/api/v1/status"


def test_a_user_asks_a_hundred_times_a_minute_and_a_few_more_at_once(make: Make, issuer: Issuer, clock: Clock) -> None:
    """If this failed, one program in a loop would slow the pages of all; or a page with many parts would stop half-way."""
    browser = client(make())
    alice, bob = (bearer(issuer.token(sub=sub)) for sub in (ALICE, BOB))
    assert {browser.get(STATUS, headers=alice).status_code for _ in range(120)} == {200}
    answer = browser.get(STATUS, headers=alice)
    assert (answer.status_code, answer.headers["content-type"]) == (429, "application/problem+json")
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert answer.json()["hint"] == f"Try again in {answer.headers['retry-after']} s."
    assert browser.get(STATUS, headers=bob).status_code == 200
    clock.now += int(answer.headers["retry-after"]) + 1
    codes = [browser.get(STATUS, headers=alice).status_code for _ in range(101)]
    assert codes == [200] * 100 + [429], "the burst comes back in ten minutes, not at once"


def test_an_organization_has_a_limit_of_its_own(make: Make, issuer: Issuer) -> None:
    """If this failed, a large organization could take the installation for itself."""
    browser = client(make(organization_requests=10))
    acme = [bearer(issuer.token(sub=sub)) for sub in (ALICE, BOB, ADMIN)]
    codes = [browser.get(STATUS, headers=acme[number % 3]).status_code for number in range(12)]
    assert codes == [200] * 10 + [429] * 2
    assert browser.get(STATUS, headers=bearer(issuer.token(sub=CAROL))).status_code in (200, 429)
    assert browser.get(STATUS, headers=bearer(issuer.token(sub="somebody"))).status_code == 200


def test_open_pages_that_have_not_changed_lock_nobody_out(make: Make, issuer: Issuer) -> None:
    """If this failed, an organization with a thousand open pages could open no other; or such questions would have no limit."""
    browser = client(make(user_requests=3, burst_requests=1))
    alice = bearer(issuer.token(sub=ALICE))
    known = {**alice, "If-None-Match": browser.get("/", headers=alice).headers["etag"]}
    assert {browser.get("/", headers=known).status_code for _ in range(29)} == {304}
    assert browser.get("/", headers=alice).status_code == 200
    stale = {**alice, "If-None-Match": 'W/"stale"'}  # that page is made: it counts as one, and is refused as one
    assert [browser.get("/", headers=stale).status_code, browser.get("/", headers=alice).status_code] == [200, 200]
    for path in ("/", "/?part=calls&format=csv"):
        assert browser.get(path, headers=alice).status_code == 429
        assert browser.get(path, headers=stale).status_code == 429
    assert browser.get("/", headers=known).status_code == 429


def test_operators_and_the_monitor_are_not_counted(make: Make) -> None:
    """If this failed, metrics would have holes where it matters."""
    link = OperatorLink()
    browser = client(make(operator=link, user_requests=1, burst_requests=1))
    assert {browser.get(STATUS, headers=bearer(MONITORING)).status_code for _ in range(10)} == {200}
    browser.get(f"/open?token={link.token}")
    assert {browser.get(STATUS).status_code for _ in range(10)} == {200}


def test_a_store_of_counts_that_is_away_stops_nobody(
    make: Make, issuer: Issuer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If this failed, an outage of Redis would be one of the pages."""
    app = make()

    def away(*_: Any) -> bool:
        raise StorageError(OSError("redis://:secret-word@host"))

    monkeypatch.setattr(app.state.vital.limits._limiter, "hit", away)
    with caplog.at_level(logging.WARNING):
        assert client(app).get(STATUS, headers=bearer(issuer.token())).status_code == 200
    assert "Redis does not answer" in caplog.text
    assert "secret-word" not in caplog.text


def test_an_address_of_redis_that_cannot_be_used_is_named_and_not_shown(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """If this failed, a mistyped address would put its password on the screen."""
    with caplog.at_level(logging.WARNING):
        make(redis_url=SecretStr("redis://:secret-word@127.0.0.1:1/0"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    for address in ("nonsense://:secret-word@x", "secret-word", "memory://"):
        with pytest.raises(SettingsError, match="REDIS_URL") as refused:
            make(redis_url=SecretStr(address))
        assert "secret-word" not in str(refused.value)
        assert refused.value.__cause__ is None
    assert "secret-word" not in caplog.text
    assert WebSettings(redis_url=SecretStr("secret-word")).__repr__() == "WebSettings(...)"


async def test_processes_that_share_a_redis_count_together(caplog: pytest.LogCaptureFixture) -> None:
    """If this failed, a team with four workers would let everybody ask four times as often; or an outage of Redis stop all."""
    with running_redis() as url:
        settings = WebSettings(redis_url=SecretStr(url), organization_requests=7)
        one, other = RateLimits(settings), RateLimits(settings)
        for number in range(120):
            await (one, other)[number % 2].count(RateAsker(ALICE, []))
        for limits in (one, other):
            with pytest.raises(Problem) as refused:
                await limits.count(RateAsker(ALICE, []))
            assert refused.value.status == 429
            assert 1 <= int(refused.value.headers["Retry-After"]) <= 60
            await limits.count(RateAsker(BOB, []))
        for number in range(7):
            await (one, other)[number % 2].count(RateAsker(CAROL, ["acme"]))
        for limits in (one, other):
            with pytest.raises(Problem, match="organization"):
                limits.count_at_once(RateAsker(CAROL, ["acme"]))
        for limits in (one, other) * 5:
            await limits.sign_in_failed("ada@example.com", "192.0.2.1")
        with pytest.raises(Problem, match="sign-ins"):
            await one.check_sign_in("ada@example.com", "192.0.2.1")
    with caplog.at_level(logging.WARNING):
        await one.count(RateAsker(ALICE, []))
    assert "Redis does not answer" in caplog.text
    assert url not in caplog.text
