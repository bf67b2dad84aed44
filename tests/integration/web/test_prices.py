"""What models cost, on the page and over the API: for each reader the models of his calls, and own prices as SQL says."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from html import unescape
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.integration.web.conftest import Issuer, Make, browsers, client
from tests.integration.web.history import Open
from tests.integration.web.test_pages import page, table
from tests.sql.helpers import ADMIN, ALICE, CAROL, a_call, an_unpriced_call, connect, record
from tests.support.postgres import PostgresServer
from vital_tracking.cli.app import app
from vital_tracking.queries.prices import add_price
from vital_tracking.stores.postgres import PostgresStore

HOSTILE = "-x'; rm -rf ~ #"


@pytest.fixture(scope="module")
def prices_url(postgres_server: PostgresServer, template_database: str) -> Iterator[str]:
    """Calls of a listed model, of one with a price of its own, and of three without a price when they were made."""
    postgres_server.create_database("web_prices", template=template_database)
    url = postgres_server.url("web_prices")
    with closing(PostgresStore(url)) as store:
        add_price(store, "house-7b", {"input_usd_per_mtok": "0.40", "output_usd_per_mtok": "1.20"}, note="by contract")
        add_price(store, "late-7b", {"input_usd_per_mtok": "2"}, provider="own")
    now = datetime.now(UTC).isoformat()
    calls = (
        (ALICE, "openai", "gpt-4o", True),
        (ALICE, "own", "house-7b", True),
        (ADMIN, "own", "late-7b", False),
        (ADMIN, "own", HOSTILE, False),
        (CAROL, None, None, False),
    )
    with connect(url) as connection:
        for member in (("acme", ADMIN, "admin"), ("acme", ALICE, "member"), ("other", CAROL, "admin")):
            connection.execute("insert into organization_members values (%s, %s, %s)", member)
        rows = [
            (a_call if priced else an_unpriced_call)(
                number,
                created_at=now,
                user_id=user,
                organization_id="other" if user == CAROL else "acme",
                provider=provider,
                model=model,
                metadata={"tool": "search"} if priced else {},
            )
            for number, (user, provider, model, priced) in enumerate(calls, 1)
        ]
        assert record(connection, *rows)["inserted"] == len(rows)
    yield url
    postgres_server.drop_database("web_prices")


@pytest.fixture
def priced(prices_url: str, make: Make, issuer: Issuer) -> Iterator[Open]:
    """The browsers of those who look at it."""
    with closing(PostgresStore(prices_url)) as store:
        yield browsers(store, make, issuer)


ACME = {"gpt-4o", "house-7b", "late-7b", HOSTILE}
SEEN: dict[str, tuple[set[Any], int]] = {
    "operator": (ACME | {None}, 2),
    "organization admin": (ACME, 2),
    "user": ({"gpt-4o", "house-7b"}, 0),
    "admin of another": ({None}, 2),
    "stranger": (set(), 0),
}


@pytest.mark.parametrize("reader", SEEN)
def test_each_reader_is_told_what_his_models_cost(priced: Open, reader: str) -> None:
    """If this failed, nobody could tell why a call cost what it did, or a member would read what was agreed with a provider."""
    models, own = SEEN[reader]
    browser = priced(reader)
    answer = browser.get("/api/v1/prices?days=2")
    assert answer.status_code == 200, answer.text
    found = json.loads(answer.text, parse_float=Decimal)
    rows = {row["model"]: row for row in found["rows"]}
    assert (set(rows), found["models"], len(found["own_prices"])) == (models, len(models), own)
    if "gpt-4o" in models:
        listed, ours = rows["gpt-4o"], rows["house-7b"]
        assert (listed["source"], listed["mend"]) == ("list", None)
        assert listed["version"].startswith("genai-prices")
        assert {rate["unit"]: rate["usd"] for rate in listed["rates"]}["input_tokens"] == Decimal("2.5")
        assert (ours["source"], ours["rates"] is None, ours["version"] is None) == ("own", not own, not own)
        if own:
            rates = {rate["unit"]: Decimal(rate["usd"]) for rate in ours["rates"]}
            assert (rates["input_tokens"], rates["output_tokens"]) == (Decimal("0.4"), Decimal("1.2"))
    if "late-7b" in models:
        assert rows["late-7b"]["mend"] == "vital-tracking reprice"
        assert rows[HOSTILE]["source"] == "none"
        assert rows[HOSTILE]["total_cost"] is None

    text = unescape(page(browser, "prices?days=2"))
    assert ("by contract" in text, "$1.20" in text) == (bool(own), bool(own))
    assert {row["model"] for row in table(browser, "prices", "models", days=2)} == {
        "" if model is None else f"'{model}" if model.startswith("-") else model for model in models
    }
    assert ("Calls without a price" in text) == (reader not in ("user", "stranger"))
    assert ("its admins see it" in text) == (reader == "user")
    assert ("No model was called" in text) == (not models)
    if HOSTILE in models:
        assert rows[HOSTILE]["mend"] in text


def test_the_command_that_mends_it_is_one_for_a_shell_whatever_the_model_is_called(
    priced: Open, prices_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this failed, whoever names a model could run a command on the machine of the operator who copies it."""
    browser = priced("operator")
    rows = browser.get("/api/v1/prices?days=2").json()["rows"]
    command = next(row["mend"] for row in rows if row["model"] == HOSTILE)
    words = shlex.split(command.replace("USD", "3"))
    program, rest = words[: words.index("&&")], words[words.index("&&") + 1 :]
    assert (program[0], program[-1], rest) == ("vital-tracking", HOSTILE, ["vital-tracking", "reprice"])
    monkeypatch.setenv("VITAL_DATABASE_URL", prices_url)
    for words in (program, rest):
        done = CliRunner().invoke(app, words[1:])
        assert done.exit_code == 0, done.output
    after: dict[Any, Any] = {row["model"]: row for row in browser.get("/api/v1/prices?days=2").json()["rows"]}
    assert {model for model, row in after.items() if row["unpriced_calls"]} == {None}
    assert after[HOSTILE]["source"] == "own"


@pytest.mark.parametrize("reader", SEEN)
def test_tools_are_told_with_the_calls_inside_them(priced: Open, reader: str) -> None:
    browser = priced(reader)
    calls = 2 if "gpt-4o" in SEEN[reader][0] else 0
    text = page(browser, "tools?days=2")
    assert ("metadata.tool=search" in text, "No model was called inside a tool" in text) == (calls > 0, calls == 0)
    for part in ("tools", "agents") if calls else ("tools",):
        rows = table(browser, "tools", part, days=2)
        assert sum(int(row["calls"]) for row in rows) == calls
        assert {row["metadata.tool_name"] for row in rows} == ({"search"} if calls else set())


@pytest.mark.parametrize("path", ["api/v1/prices", "prices"])
def test_nobody_who_is_not_signed_in_is_told_a_price(make: Make, path: str) -> None:
    assert client(make()).get(f"/{path}").status_code == 401
