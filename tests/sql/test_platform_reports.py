"""Sums and rows of events and other costs, as pages and invoices ask for them, against what is reckoned here from the rows."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest

from tests.sql.helpers import ADMIN, ALICE, BOB, STRANGER, Connection, Row, acting_as, call, call_id
from tests.sql.platform_rows import a_cost, an_event, send
from tests.support.effort import examples

START = datetime(2026, 3, 28, tzinfo=UTC)  # in Berlin the clocks go forward on the second day
KEYS = {
    "events": {
        "organization": "organization_id",
        "user": "user_id",
        "session": "session_id",
        "category": "category",
        "event": "event_name",
        "source": "source",
    },
    "costs": {
        "organization": "organization_id",
        "user": "user_id",
        "cost_type": "cost_type",
        "service": "service",
        "resource": "resource",
        "unit": "unit",
    },
}
READERS = {
    "service_role": ("service_role", None),
    "admin": ("authenticated", ADMIN),
    "user": ("authenticated", ALICE),
    "stranger": ("authenticated", STRANGER),
}


def rows_of(number: int) -> tuple[Row, Row]:
    """An event and a cost, the same for a number each time."""
    chance = random.Random(number)
    owner = {
        "organization_id": chance.choice(["acme", "acme", "other", None]),
        "user_id": chance.choice([ALICE, BOB, None]),
        "occurred_at": (START + timedelta(seconds=chance.randrange(4 * 86400))).isoformat(),
    }
    event = an_event(
        number,
        **owner,
        session_id=chance.choice(["s-1", None]),
        category=chance.choice(["user_behavior", "business"]),
        event_name=chance.choice(["page_view", "revenue"]),
        source=chance.choice(["/a", None]),
        value=chance.choice([None, "1.25", "0.0000000001"]),
        properties=chance.choice([{}, {"status": 503}]),
    )
    cost = a_cost(
        number,
        **owner,
        cost_type=chance.choice(["storage", "search", "compute"]),
        service=chance.choice(["files", None]),
        resource=chance.choice(["bucket", None]),
        quantity=chance.choice(["3", "0.1"]),
    )
    return event, cost


@pytest.fixture(scope="module")
def filled(urls: dict[str, str]) -> Iterator[Connection]:
    """A database with some of each, in a transaction that ends with the module."""
    from tests.sql.helpers import connect

    with connect(urls["hosted"]) as connection, connection.transaction(force_rollback=True):
        both = [rows_of(number) for number in range(1, 160)]
        send(connection, "platform_events", *(event for event, _ in both))
        send(connection, "tenant_cost_events", *(cost for _, cost in both))
        connection.execute("insert into organization_members values ('acme', %s, 'admin')", [ADMIN])
        yield connection


def stored(db: Connection, what: str, reader: str) -> list[Row]:
    """The rows that a reader may see, reckoned here."""
    table = {"events": "platform_events", "costs": "tenant_cost_events"}[what]
    rows = db.execute(f"select * from {table} order by occurred_at desc, id desc").fetchall()
    return [
        row
        for row in rows
        if reader == "service_role"
        or (reader == "admin" and row["organization_id"] == "acme")
        or (reader == "user" and row["user_id"] == ALICE)
    ]


def time_of(name: str, moment: datetime, zone: str) -> str:
    local = moment.astimezone(ZoneInfo(zone))
    if name == "hour":
        return local.replace(minute=0, second=0, microsecond=0).astimezone(UTC).isoformat()
    day = local.date()
    if name == "week":
        day -= timedelta(days=day.weekday())
    return (day.replace(day=1) if name == "month" else day).isoformat()


def as_utc(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone(UTC).isoformat()


def lets_pass(value: str | None, wanted: Any) -> bool:
    several = wanted if isinstance(wanted, list) else [wanted]
    return value in several or ("*" in several and value is not None)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("what", KEYS)
def test_sums_are_those_of_the_rows_by_whatever_they_are_asked(filled: Connection, what: str, reader: str) -> None:
    """If this failed, a page would show other figures than the rows that it leads to, or those of others."""
    chance = random.Random(f"{what} {reader}")
    keys = KEYS[what]
    seen_sources = set()
    always = [
        (["hour"], {}, "Asia/Kolkata"),
        (["user"], {}, "UTC"),
        (["day"], {"source" if what == "events" else "unit": "*"}, "Europe/Berlin"),
    ]
    for number in range(examples(25)):
        zone = chance.choice(["UTC", "Europe/Berlin", "Asia/Kolkata"])
        times = chance.sample(["day", "week", "month", "hour"], k=chance.choice([0, 0, 1]))
        by = [*times, *chance.sample(sorted(keys), k=chance.choice([0, 1, 2]))]
        filters: dict[str, Any] = {
            name: chance.choice(["*", ["acme", None], "other", [None], [ALICE], "s-1", "storage"])
            for name in chance.sample(sorted(keys), k=chance.choice([0, 0, 1]))
        }
        since = START + timedelta(hours=chance.choice([0, 0, 5, 5.0001]))
        if number < len(always):
            by, filters, zone = always[number]
            times, since = [name for name in by if name in ("hour", "day")], START
        until = START + timedelta(
            days=4 if number < len(always) else chance.choice([0.5, 2, 4]),
            seconds=chance.choice([0, 0, 7]) * (number >= len(always)),
        )
        role, subject = READERS[reader]
        with acting_as(filled, role, {"sub": subject}):
            found = call(
                filled, "platform_explore_v1", what=what, since=since, until=until, dimensions=by,
                filters=json.dumps(filters), timezone=zone,
            )  # fmt: skip
        seen_sources.add(found["source"])
        meant: dict[tuple[str | None, ...], Row] = defaultdict(lambda: defaultdict(Decimal))
        for row in stored(filled, what, reader):
            if since <= row["occurred_at"] < until and all(
                wanted is None or lets_pass(row[keys[name]], wanted) for name, wanted in filters.items()
            ):
                key = tuple(
                    time_of(name, row["occurred_at"], zone) if name in times else row[keys[name]] for name in by
                )
                for group in (meant[key], meant[("all",)]):
                    for name, amount in measured(what, row).items():
                        group[name] += amount
        whole = meant.pop(("all",), defaultdict(Decimal))
        asked = (by, filters, zone, since, until, found["source"])
        assert found["groups"] == len(found["rows"]) == len(meant), asked
        for row in found["rows"]:
            group = meant[tuple(as_utc(row[name]) if name == "hour" else row[name] for name in by)]
            assert group, asked
            for name, value in group.items():
                assert row[name] is None or Decimal(row[name]) == value, (asked, name)
        told = found["total"][{"events": "events", "costs": "costs"}[what]]
        assert told == whole[{"events": "events", "costs": "costs"}[what]]
        assert Decimal(found["total"].get("cost_usd") or 0) == whole["cost_usd"]
    assert seen_sources == ({"rows", "days"} if reader in ("user", "stranger") else {"rows", "days", "minutes"})


def measured(what: str, row: Row) -> dict[str, Any]:
    if what == "events":
        failed = row["properties"].get("status") == 503
        return {
            "events": 1,
            "failed_events": int(failed),
            "valued_events": int(row["value"] is not None),
            "value": row["value"] or 0,
        }
    return {
        "costs": 1,
        "unpriced_costs": int(row["cost_usd"] is None),
        "quantity": row["quantity"],
        "cost_usd": row["cost_usd"] or 0,
    }


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("what", KEYS)
def test_every_row_is_listed_once_for_those_who_may_see_it(filled: Connection, what: str, reader: str) -> None:
    """If this failed, a program that reads all of them would miss some, or read another tenant's."""
    role, subject = READERS[reader]
    found: list[Row] = []
    with acting_as(filled, role, {"sub": subject}):
        while len(found) % 23 == 0:
            after = {"after_at": found[-1]["occurred_at"], "after_id": found[-1]["id"]} if found else {}
            page = call(filled, "platform_rows_v1", what=what, max_rows=23, **after)
            found += page
            if not page:
                break
        narrowed = call(
            filled, "platform_rows_v1", what=what, max_rows=1000,
            filters=json.dumps({"failed" if what == "events" else "unpriced": True, "user": [ALICE, None]}),
        )  # fmt: skip
    mine = stored(filled, what, reader)
    assert [row["id"] for row in found] == [str(row["id"]) for row in mine]
    assert [row["id"] for row in narrowed] == [
        str(row["id"])
        for row in mine
        if row["user_id"] in (ALICE, None)
        and (row["properties"].get("status") == 503 if what == "events" else not row["priced"])
    ]


def test_what_there_is_not_is_said(filled: Connection) -> None:
    """If this failed, a filter that is spelled wrong would be passed over."""
    now = datetime.now(UTC)
    for function, arguments in (
        ("platform_rows_v1", {"what": "nonsense"}),
        ("platform_rows_v1", {"what": "events", "filters": '{"cost_type": "storage"}'}),
        ("platform_rows_v1", {"what": "costs", "filters": '{"failed": true}'}),
        ("platform_explore_v1", {"what": "costs", "since": now, "until": now, "dimensions": ["category"]}),
        ("platform_explore_v1", {"what": "events", "since": now, "until": now, "filters": '{"failed": true}'}),
    ):
        with pytest.raises(psycopg.errors.InvalidParameterValue), filled.transaction():
            call(filled, function, **arguments)


def post(db: Connection, *events: Row, subject: str | None = ALICE) -> Row:
    """Send events as somebody, or as an operator."""
    function, more = ("post_events_v1", {}) if subject is None else ("post_user_events_v1", {"subject": subject})
    answer: Row = call(db, function, events=json.dumps(events), **more)
    return {name: answer[name] for name in ("recorded", "duplicates", "refused")}


def fresh(number: int, **changes: Any) -> Row:
    """An event of now, as one is sent."""
    return {"id": call_id(number), "event_name": "page_view", **changes}


def test_a_user_writes_of_himself_alone(db: Connection) -> None:
    """If this failed, anybody could put words into another's mouth, or revenue into a competitor's books."""
    db.execute("insert into organization_members values ('acme', %s, 'member'), ('boss', %s, 'admin')", [ALICE, BOB])
    answer = post(
        db,
        fresh(1),
        fresh(2, organization_id="acme", user_id=ALICE),
        fresh(3, user_id=BOB),
        fresh(4, organization_id="other"),
        fresh(5, organization_id="acme", category="business", event_name="revenue", value="9"),
        fresh(6, occurred_at="2020-01-01T00:00:00Z"),
        fresh(7, occurred_at="2099-01-01T00:00:00Z"),
        fresh(8, event_name=" "),
        {"event_name": "page_view"},
        7,  # type: ignore[arg-type]
    )
    assert (answer["recorded"], answer["duplicates"]) == (2, 0)
    assert [(one["place"], one["reason"]) for one in answer["refused"]] == [
        (2, "another_user"),
        (3, "no_member"),
        (4, "not_an_admin"),
        (5, "out_of_time"),
        (6, "out_of_time"),
        (8, "no_id"),
        (9, "no_id"),
        (7, "platform_events_event_name"),
    ]
    rows = db.execute("select user_id, organization_id, occurred_at = now() as is_now from platform_events").fetchall()
    assert [tuple(row.values()) for row in rows] == [(ALICE, "acme", True)] * 2
    of_admin = post(db, fresh(9, category="business", event_name="revenue", value="9"), subject=BOB)
    assert of_admin == {"recorded": 1, "duplicates": 0, "refused": []}
    of_stranger = post(db, fresh(10), fresh(11, organization_id="acme"), subject=STRANGER)
    assert (of_stranger["recorded"], len(of_stranger["refused"])) == (1, 1)
    of_operator = post(
        db, fresh(12, user_id=BOB, organization_id="x", occurred_at="2020-01-01T00:00:00Z"), subject=None
    )
    assert of_operator == {"recorded": 1, "duplicates": 0, "refused": []}
    for subject in ("", None):
        with pytest.raises(psycopg.errors.NullValueNotAllowed), db.transaction():
            call(db, "post_user_events_v1", events="[]", subject=subject)


def test_an_event_is_recorded_once_whatever_time_it_comes_with(db: Connection) -> None:
    """If this failed, a browser that sends again what it does not know to have arrived would count everything twice."""
    assert post(db, fresh(1), fresh(1), fresh(2))["recorded"] == 2
    again = [fresh(1), fresh(1, occurred_at=datetime.now(UTC).isoformat()), fresh(2, event_name="other")]
    assert post(db, *again) == {"recorded": 0, "duplicates": 3, "refused": []}
    assert post(db, *again, subject=None) == {"recorded": 0, "duplicates": 3, "refused": []}
    old = fresh(3, occurred_at="2020-01-01T00:00:00Z")
    assert [post(db, old, subject=None)["recorded"] for _ in range(2)] == [1, 0]
