"""What the package writes of a call is what PostgreSQL reads, and what the package reads again."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sql.helpers import Connection
from tests.support.effort import examples
from vital_tracking.calls.row_literal import (
    CALL_COLUMNS,
    batch_of,
    decoded_row,
    encoded_row,
    list_field,
    number_field,
    text_field,
)

READ = """
select to_jsonb(c) - 'draw_windows' - 'draw_amounts'
  || jsonb_build_object('total_cost', c.total_cost::text, 'draws', (
    select jsonb_agg(jsonb_build_array(d.window_id, d.amount::text))
    from unnest(c.draw_windows, c.draw_amounts) as d (window_id, amount)
  )) as row
from unnest(%s::vital_private.call_v2[]) as c
"""

# Every character that a text of PostgreSQL can have, and often those that mean something in a literal.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.text("\\\"{}(),' \n\tNUL")
amounts = st.decimals(0, 10**12, allow_nan=False, places=30).map(lambda amount: format(amount, "f"))
values = texts | st.booleans() | st.none() | st.integers(-(2**53), 2**53)
objects = st.dictionaries(texts, values | st.lists(values, max_size=3), min_size=1, max_size=3)


def types(db: Connection) -> dict[str, str]:
    """The fields of the type, and theirs."""
    found = db.execute(
        "select attname, format_type(atttypid, null) as type from pg_attribute"
        " where attrelid = 'vital_private.call_v2'::regclass order by attnum"
    ).fetchall()
    return {row["attname"]: row["type"] for row in found}


def test_the_fields_are_those_of_the_type_in_its_order(db: Connection) -> None:
    """If this failed, a call's tokens could be stored as its money."""
    known = types(db)
    assert tuple(known) == CALL_COLUMNS
    stored = db.execute(
        "select attname, format_type(atttypid, null) as type from pg_attribute"
        " where attrelid = 'token_usage_logs'::regclass and attnum > 0"
    ).fetchall()
    not_sent = {"recorded_at", "success", "xact"}
    sent = {"draw_windows", "draw_amounts", "replaces_abandoned"}
    columns = {row["attname"]: row["type"] for row in stored if row["attname"] not in not_sent}
    assert columns == {name: known[name] for name in known if name not in sent}


FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "user_id": texts,
    "tags": st.lists(texts, min_size=1, max_size=4),
    "metadata": objects,
    "blocked_by": objects,
    "total_cost": amounts,
    "prompt_tokens": st.integers(1, 2**63 - 1),
    "calls": st.integers(1, 2**31 - 1),
    "panel_size": st.integers(1, 2**15 - 1),
    "priced": st.booleans(),
    "replaces_abandoned": st.booleans(),
    "latency_ms": st.floats(0, allow_nan=False, allow_infinity=False),
    "draws": st.lists(st.tuples(st.integers(1, 2**63 - 1), amounts).map(list), min_size=1, max_size=3),
}
any_rows = st.lists(st.one_of([st.tuples(st.just(name), values) for name, values in FIELDS.items()]), max_size=8).map(
    dict
)


@settings(max_examples=examples(80), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(any_rows, min_size=1, max_size=3))
def test_postgresql_reads_what_was_written(db: Connection, rows: list[dict[str, Any]]) -> None:
    """If this failed, a name with a quote in it could move money into another column, or a batch could never be sent."""
    found = db.execute(READ, [batch_of(map(encoded_row, rows))]).fetchall()
    assert [plain(row["row"]) for row in found] == [plain(row) for row in rows]
    assert [decoded_row(encoded_row(row)) for row in rows] == rows


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what is NULL, its amounts as numbers."""
    told = {name: value for name, value in row.items() if value is not None}
    if "total_cost" in told:
        told["total_cost"] = Decimal(told["total_cost"])
    if "latency_ms" in told:
        told["latency_ms"] = float(told["latency_ms"])  # JSON leaves open that it is one
    if "draws" in told:
        told["draws"] = [[window, Decimal(amount)] for window, amount in told["draws"]]
    return told


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"user_id": "a\0b"}, "neither NUL"),
        ({"user_id": "a\ud800"}, "neither NUL"),
        ({"tags": ["a", "\udfff"]}, "neither NUL"),
        ({"metadata": {"a": "\0"}}, None),
        ({"latency_ms": float("inf")}, "finite"),
        ({"latency_ms": float("nan")}, "finite"),
        ({"total_cost": Decimal("Infinity")}, "finite"),
        ({"column_of_tomorrow": 1}, "no column"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_it_is_sent(row: dict[str, Any], words: str | None) -> None:
    """If this failed, one row would make a batch that the database, or the driver, refuses as a whole."""
    if words is None:  # JSON can say it, in six characters; the database sets such a row aside
        assert "\0" not in encoded_row(row)
        return
    with pytest.raises(ValueError, match=words):
        encoded_row(row)


@pytest.mark.parametrize(
    "literal",
    ["", "()", '"()"', '"(a)"', '"(' + "," * 67 + ')"', '"(' + "," * 69 + ')"', '"(' + "a(b" + "," * 68 + ')"'],
)
def test_what_is_no_row_is_not_read_as_one(literal: str) -> None:
    """If this failed, a dead letter would hold another row than the one that was refused."""
    with pytest.raises(ValueError, match="A row"):
        decoded_row(literal)


def test_fields_are_plain_where_they_can_be() -> None:
    """If this failed, what is sent would grow, or the database would read a text as NULL."""
    assert [text_field(text) for text in ("a-1", "", 'a"b', "a\\b", "(x)", "a b")] == [
        "a-1", r'\"\"', r'\"a\"\"b\"', r'\"a\\\\b\"', r'\"(x)\"', "a b",
    ]  # fmt: skip
    assert list_field(["a", 'b"']) == r"\"{\"\"a\"\",\"\"b\\\\\"\"\"\"}\""
    assert [number_field(number) for number in (1, 1.5, Decimal("1E-7"))] == ["1", "1.5", "0.0000001"]
