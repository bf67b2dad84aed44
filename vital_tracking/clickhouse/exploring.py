"""Exploring usage where a copy holds the calls: it sums up the past, PostgreSQL the rest, and tells what both come to.

PostgreSQL says what to ask the copy, which calls the asker may see and until when the copy holds them as they are; the copy tells
groups of sums alone. So measures, ranks and names are worked out in one place, whichever of the two has read the calls.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any, Final

from vital_tracking.clickhouse.client import ClickHouse

MOST_GROUPS: Final = 100_000
"""So many groups a copy may tell; where there are more, PostgreSQL answers."""

_METADATA: Final = "metadata."


def explored_groups(server: ClickHouse, asked: Mapping[str, Any], settings: Mapping[str, Any]) -> str | None:
    """The groups that the copy tells, as `copied` of usage_explore_v1 takes them; None where PostgreSQL has to answer.

    `asked` is what usage_explore_v1 says to ask. Raises CopyError.
    """
    question = _Question(asked)
    rows = server.query(question.text(), question.parameters, settings={**FINAL, **settings})
    if len(rows) > MOST_GROUPS or any(row["is_odd"] for row in rows):
        return None
    kept_since = (
        server.query("select toString(min(created_at)) as at from token_usage_logs") if asked["dropped"] else []
    )
    return json.dumps(
        {
            "until": asked["until"],
            "kept_since": kept_since[0]["at"] if kept_since else None,
            "groups": [
                {
                    question.told_as.get(name, name): _plain(value)
                    for name, value in row.items()
                    if name != "is_odd" and value != []  # no name
                }
                for row in rows
            ],
        }
    )


FINAL: Final = {"do_not_merge_across_partitions_select_final": 1}
"""The key of a table holds the time by which months are its parts, so no state of a row is in another one."""


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, (int, float)) else str(value)


class _Question:
    """One question to the copy: its text, the values that are bound in it, and what its columns are for PostgreSQL."""

    def __init__(self, asked: Mapping[str, Any]) -> None:
        self._asked = asked
        self._odd = ["odd"]
        self.parameters: dict[str, Any] = {
            "since": datetime.fromisoformat(asked["since"]),
            "until": datetime.fromisoformat(asked["until"]),
        }
        self.told_as: dict[str, str] = {}

    def text(self) -> str:
        asked = self._asked
        columns, groups = ["toString(min(created_at)) as at"], []
        for place, dimension in enumerate(asked["dimensions"]):
            columns.append(f"{self._dimension(dimension['name'])} as key_{place}")
            groups.append(f"key_{place}")
            self.told_as[f"key_{place}"] = f"d_{dimension['name']}"
            if dimension["named"]:
                columns.append(_newest(dimension["named"], f"name_{place}"))
                self.told_as[f"name_{place}"] = f"n_{dimension['name']}"
        if asked["by_users"]:
            columns.append("of_user")
            groups.append("of_user")
        if asked["starts"] is not None:
            self.parameters["starts"] = asked["starts"]
            groups.append("roundDown(toUnixTimestamp(created_at), {starts:Array(UInt32)})")
        columns += [_LATENCIES if one == "latency_histogram" else f"sum(m_{one}) as {one}" for one in asked["measures"]]
        conditions = self._filters(asked["filters"])
        if any_of := self._filters(asked["any"]):
            conditions.append(f"({' or '.join(any_of)})")
        inner = Template(question_text("explored_calls")).substitute(
            reader=reader_condition(asked["reader"], self.parameters)
        )
        return (
            f"select {', '.join(columns)}, max({' or '.join(self._odd)}) as is_odd from ({inner}) as c"  # noqa: S608 - no values
            + (f" where {' and '.join(conditions)}" if conditions else "")
            + (f" group by {', '.join(groups)}" if groups else " having count() > 0")
            + f" limit {MOST_GROUPS + 1}"
        )

    def _dimension(self, name: str) -> str:
        """A dimension as an expression."""
        if not name.startswith(_METADATA):
            return f"d_{name}"
        key = self._bound("key", name.removeprefix(_METADATA))
        self._odd.append(Template(question_text("metadata_is_odd")).substitute(key=key))
        return f"({Template(question_text('metadata_value')).substitute(key=key)})"

    def _filters(self, filters: Mapping[str, Sequence[str | None]]) -> list[str]:
        """Conditions as vital_private.has_one_of makes them."""
        conditions = []
        for name, values in filters.items():
            one = self._dimension(name)
            texts = [value for value in values if value is not None]
            none, some = None in values, "*" in values
            if none and some:
                conditions.append("true")
            elif some:
                conditions.append(f"{one} is not null")
            else:
                chosen = f"ifNull({one} in {{{self._bound('values', texts)}:Array(String)}}, 0)" if texts else "false"
                conditions.append(f"({chosen} or {one} is null)" if none else chosen)
        return conditions

    def _bound(self, what: str, value: Any) -> str:
        """The name of a new parameter with this value."""
        name = f"{what}_{len(self.parameters)}"
        self.parameters[name] = value
        return name


def reader_condition(reader: Mapping[str, Any], parameters: dict[str, Any]) -> str:
    """Which calls whoever asks may see, by what PostgreSQL says of him (vital_private.reader_of_calls)."""
    if not reader:
        return "true"
    parameters["reader"] = reader["user"]
    condition = "ifNull(t.user_id = {reader:Nullable(String)}, 0)"
    if reader["organizations"]:
        parameters["organizations"] = reader["organizations"]
        condition = f"({condition} or ifNull(t.organization_id in {{organizations:Array(String)}}, 0))"
    return condition


def _newest(column: str, name: str) -> str:
    """The newest name that calls of a group have in a column, and when: [time, name]; [] where none has one."""
    newest = f"maxIf((created_at, assumeNotNull({column})), {column} is not null)"
    return f"if(countIf({column} is not null) = 0, [], [toString({newest}.1), {newest}.2]) as {name}"


_LATENCIES: Final = """
  sumMapIf([toUInt16(ceil(at_bucket))], [toUInt64(1)], timed and not on_edge) as buckets,
  sumMapIf([timed_ms], [toUInt64(1)], on_edge) as edges
"""
"""Histograms of latencies: of buckets, and of those latencies that PostgreSQL has to put into one."""


@cache
def question_text(name: str) -> str:
    """The SQL of a question to the copy, with places for what it is asked by."""
    return (files("vital_tracking") / "clickhouse" / "questions" / f"{name}.sql").read_text(encoding="utf-8")
