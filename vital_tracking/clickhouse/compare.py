"""Does a copy hold what PostgreSQL holds? Days are compared by counts and sums; those that differ can be sent again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from vital_tracking.clickhouse.client import ClickHouse
from vital_tracking.clickhouse.copying import CHUNK_BYTES, chunk_token
from vital_tracking.clickhouse.schema import COPIED, input_table
from vital_tracking.stores.changes import exported_columns
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.stores.protocol import Store
from vital_tracking.stores.relations import CALLS, COSTS, EVENTS, EXECUTIONS, RUNS, Relation

_AMOUNTS: Final[Mapping[str, str]] = {
    CALLS.name: "sum(total_cost)",
    EVENTS.name: "sum(value)",
    COSTS.name: "sum(cost_usd)",
    EXECUTIONS.name: "sum(cost_usd)",
    RUNS.name: "0",
}
_ID: Final = "reinterpretAsUInt64(reverse(unhex({})))"


@dataclass(frozen=True, slots=True)
class Day:
    """What a table holds of a day (UTC): rows, the sums of their amounts, of their ids and of what wrote them."""

    rows: int = 0
    amounts: Decimal = Decimal(0)
    ids: int = 0
    xacts: int = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """A day of a table on which the copy differs. `waiting`: so many changes are on their way to it, so it may yet come right."""

    relation: Relation
    day: date
    here: Day
    there: Day
    waiting: int

    @property
    def what(self) -> str:
        """What differs, in words."""
        if self.here.rows != self.there.rows:
            return f"{self.here.rows:,} rows here, {self.there.rows:,} there"
        if self.here.amounts != self.there.amounts:
            return f"amounts of {self.here.amounts:f} here, {self.there.amounts:f} there"
        return "the same number of rows, but not the same rows or states of rows"


def differences(
    store: Store,
    server: ClickHouse,
    copy: str,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Iterator[Difference]:
    """The days from one instant to another that differ, table by table. Months that retention dropped here are not compared.

    Raises StoreError, and CopyError.
    """
    for relation in COPIED:
        told = store.call("export_days_v1", copy=copy, table_name=relation.name, since=since, until=until)
        if told["since"] == "infinity":  # nothing is left of what could be compared
            continue
        first = datetime.fromisoformat(told["since"]) if told["since"] else datetime(1900, 1, 1, tzinfo=UTC)
        rows: list[dict[str, Any]] = told["days"]
        here = {
            date.fromisoformat(row["day"]): (
                Day(row["rows"], Decimal(row["amounts"]), int(row["ids"]), int(row["xacts"])),
                row["waiting"],
            )
            for row in rows
        }
        there = _days(server, relation, first, until)
        for day in sorted(here.keys() | there.keys()):
            ours, waiting = here.get(day, (Day(), 0))
            theirs = there.get(day, Day())
            if ours != theirs:
                yield Difference(relation, day, ours, theirs, waiting)


def _days(server: ClickHouse, relation: Relation, since: datetime, until: datetime | None) -> dict[date, Day]:
    digits = "right(hex(MD5(id)), 12)" if relation is RUNS else "right(toString(id), 12)"
    statement = (
        f"select toDate({relation.time}) as day, count() as rows, toDecimal256({_AMOUNTS[relation.name]}, 12) as amounts,"  # noqa: S608
        f" sum(toUInt128({_ID.format(digits)})) as ids, sum(toUInt128(xact)) as xacts from {relation.name} final"
        f" where {relation.time} >= {{since:DateTime64(6)}} and {relation.time} < {{until:DateTime64(6)}} group by day"
    )
    found = server.query(
        statement,
        {"since": _text(since), "until": _text(until or datetime(2290, 1, 1, tzinfo=UTC))},
        settings={"do_not_merge_across_partitions_select_final": 1},
    )
    return {
        row["day"]: Day(row["rows"], Decimal(row["amounts"] or 0), int(row["ids"]), int(row["xacts"])) for row in found
    }


def repair(store: PostgresStore, server: ClickHouse, difference: Difference, epoch: int) -> int:
    """Send a day again as it is here, and then delete there what was not among it; how many rows were sent.

    Readers meanwhile see the day as it was or as it is, never less. Raises StoreError, and CopyError.
    """
    relation = difference.relation
    since = _midnight(difference.day)
    until = since + timedelta(days=1)
    rows = 0
    with store.reading(relation, epoch) as changes:
        for chunk in changes.of_time(since, until, CHUNK_BYTES):
            server.insert(input_table(relation), exported_columns(relation), chunk.data, token=chunk_token(chunk))
            rows += chunk.rows
        version = changes.version
    server.command(
        f"insert into {relation.name} (xact, organization_id, {relation.time}, id, version, is_deleted)"  # noqa: S608
        f" select xact, organization_id, {relation.time}, id, {version - 1}, 1 from {relation.name} final"
        f" where {relation.time} >= '{_text(since)}' and {relation.time} < '{_text(until)}' and version < {version}"
    )
    return rows


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(" ")
