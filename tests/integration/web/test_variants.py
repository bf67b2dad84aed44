"""Variants side by side: the figures of each value of a key, exact, and as whoever asks may see them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from html import unescape
from io import StringIO

import pytest

from tests.integration.web.conftest import Issuer, Make, browsers
from tests.integration.web.history import Open
from tests.integration.web.test_pages import page
from tests.sql.helpers import ADMIN, ALICE, BOB, a_call, an_unpriced_call, connect, record
from tests.support.postgres import PostgresServer
from vital_tracking.stores.postgres import PostgresStore

KEY = "prompt_version"
# version: user, cost, tokens, latency, status
CALLS = [
    ("2", ALICE, "0.30", 100, 100, "ok"),
    ("2", BOB, "0.10", 300, 300, "ok"),
    ("10", ALICE, "0.10", 100, 100, "ok"),
    ("10", BOB, None, 200, 500, "error"),
    ("1", BOB, "0.0000001", 7, 50, "ok"),
    ("=1+1", BOB, "1", 7, 50, "ok"),
    (None, ALICE, "9", 7, 50, "ok"),
]


@pytest.fixture(scope="module")
def versions_url(postgres_server: PostgresServer, template_database: str) -> Iterator[str]:
    postgres_server.create_database("web_variants", template=template_database)
    url = postgres_server.url("web_variants")
    with connect(url) as connection:
        connection.execute("insert into organization_members values ('acme', %s, 'admin')", [ADMIN])
        calls = []
        for number, (version, user, cost, tokens, latency, status) in enumerate(CALLS, 1):
            money = {"input_cost": cost, "output_cost": "0", "total_cost": cost, "potential_cost": cost}
            calls.append(
                (a_call if cost else an_unpriced_call)(
                    number,
                    **(money if cost else {}),
                    user_id=user,
                    organization_id="acme",
                    prompt_tokens=tokens,
                    completion_tokens=0,
                    total_tokens=tokens,
                    latency_ms=latency,
                    status=status,
                    error_type="TimeoutError" if status == "error" else None,
                    metadata={KEY: version} if version else {},
                    created_at=datetime.now(UTC).isoformat(),
                )
            )
        assert record(connection, *calls)["inserted"] == len(CALLS)
    yield url
    postgres_server.drop_database("web_variants")


@pytest.fixture
def versions(versions_url: str, make: Make, issuer: Issuer) -> Iterator[Open]:
    with closing(PostgresStore(versions_url)) as store:
        yield browsers(store, make, issuer)


def compared(opened: Open, reader: str, query: str = "") -> dict[str, dict[str, str]]:
    """The section as CSV: each measure with its columns by their names."""
    answer = opened(reader).get(f"/explore?variants={KEY}&{query}&part=variants&format=csv")
    assert answer.status_code == 200, answer.text
    return {row.pop("measure"): row for row in csv.DictReader(StringIO(answer.text))}


def test_variants_stand_side_by_side_with_their_differences(versions: Open) -> None:
    """If this failed, a team would take the dearer prompt for the cheaper one."""
    rows = compared(versions, "organization admin", f"metadata.{KEY}=2&metadata.{KEY}=10")
    two, ten, difference = (f"metadata.{KEY}=2", f"metadata.{KEY}=10", f"metadata.{KEY}=10 difference_percent")
    assert list(rows["Calls"]) == [two, ten, difference]
    expected: dict[str, tuple[int | str | None, ...]] = {
        "Calls": (2, 2, 0),
        "Cost": ("0.4", "0.1", -75),
        "Cost a call": ("0.2", "0.1", -50),  # the unpriced one is in no cost, and no call that was paid for
        "Tokens a call": (200, 150, -25),
        "Latency, mean": (200, 300, 50),
        "Success rate": (100, 50, -50),
        "Unpriced calls": (0, 1, None),  # of nothing there is no percent
        "Estimated calls": (0, 0, None),
    }
    for measure, figures in expected.items():
        found = [Decimal(rows[measure][name]) if rows[measure][name] else None for name in (two, ten, difference)]
        assert found == [None if figure is None else Decimal(figure) for figure in figures], measure
    turned = compared(versions, "organization admin", f"metadata.{KEY}=10&metadata.{KEY}=2")
    assert turned["Cost"][f"metadata.{KEY}=2 difference_percent"] == "300"


def test_the_section_is_on_the_page_without_a_script_and_leads_to_the_calls(versions: Open) -> None:
    """If this failed, the comparison could not be kept, shared, or followed to what it rests on."""
    text = page(versions("organization admin"), f"explore?by=metadata.{KEY}&variants={KEY}")
    assert f"Variants of {KEY} side by side" in text
    section = text.partition('id="variants"')[2]
    headings = [
        part.partition("<")[0] for part in section.partition("</thead>")[0].split(">") if part.partition("<")[0].strip()
    ]
    assert [one for one in headings if one != "Difference"][-4:] == ["=1+1", "1", "2", "10"]
    assert "$0.0000001" in unescape(section)
    assert f"/calls?metadata.{KEY}=10" in section
    assert "Added up from the calls themselves" in section
    assert f'<option value="metadata.{KEY}" selected>' in text
    answer = versions("organization admin").get(f"/api/v1/explore?by=metadata.{KEY}&measure=calls&days=1").json()
    assert (answer["source"], {row[f"metadata.{KEY}"]: row["calls"] for row in answer["rows"]}) == (
        "calls",
        {"2": 2, "10": 2, "1": 1, "=1+1": 1, None: 1},
    )


def test_everybody_compares_what_is_theirs(versions: Open) -> None:
    """If this failed, a comparison would tell a user what others spend."""
    assert {name: row for name, row in compared(versions, "user")["Calls"].items() if "difference" not in name} == {
        f"metadata.{KEY}=2": "1",
        f"metadata.{KEY}=10": "1",
    }
    for nobody in ("stranger", "admin of another"):
        assert compared(versions, nobody) == {}
        assert f"No call of this time has the key {KEY}" in page(versions(nobody), f"explore?variants={KEY}")
    assert "nothing to compare" in page(versions("user"), f"explore?variants={KEY}&metadata.{KEY}=2")


def test_a_key_that_is_none_is_refused_or_found_nowhere(versions: Open) -> None:
    """If this failed, a slip in the address would be an error of the database's."""
    operator = versions("operator")
    for key, status in (("x" * 72, 422), ("a%00b", 422), ("%22%3E%3Cscript%3E'", 200), ("", 200)):
        answer = operator.get(f"/explore?variants={key}")
        assert answer.status_code == status, key
        assert "<script>'" not in answer.text
    assert 'id="variants"' not in page(operator, "explore?variants=")
