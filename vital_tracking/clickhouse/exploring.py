"""Exploring usage where a copy holds the calls: it sums up the past, PostgreSQL the rest, and tells what both come to.

PostgreSQL says what to ask the copy, which calls the asker may see and until when the copy holds them as they are; the copy tells
groups of sums alone. So measures, ranks and names are worked out in one place, whichever of the two has read the calls.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from vital_tracking.clickhouse.asking import FINAL, question, reader_condition
from vital_tracking.clickhouse.client import ClickHouse

MOST_GROUPS: Final = 100_000
"""So many groups a copy may tell; where there are more, PostgreSQL answers."""

_METADATA: Final = "metadata."


def explored_groups(server: ClickHouse, asked: Mapping[str, Any], settings: Mapping[str, Any]) -> str | None:
    """The groups that the copy tells, as `copied` of usage_explore_v1 takes them; None where PostgreSQL has to answer.

    `asked` is what usage_explore_v1 says to ask. Raises CopyError.
    """
    asking = _Question(asked)
    lines = server.lines(asking.text(), asking.parameters, settings={**FINAL, **settings})
    text = b",".join(lines)
    if len(lines) > MOST_GROUPS or b'"is_odd":1' in text:
        return None
    kept_since = (
        server.query("select toString(min(created_at)) as at from token_usage_logs") if asked["dropped"] else []
    )
    about = {"until": asked["until"], "kept_since": kept_since[0]["at"] if kept_since else None}
    return f'{json.dumps(about)[:-1]}, "groups": [{asking.told(text).decode()}]}}'


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
        keys: dict[str, str] = {}
        named: dict[int, str] = {}
        for place, dimension in enumerate(asked["dimensions"]):
            keys[f"key_{place}"] = self._dimension(dimension["name"])
            self.told_as[f"key_{place}"] = f"d_{dimension['name']}"
            if dimension["named"]:
                named[place] = dimension["named"]
                self.told_as[f"name_{place}"] = f"n_{dimension['name']}"
        shown = list(keys)
        if asked["by_users"]:
            keys["of_user"] = "of_user"
            shown.append("of_user")
        if asked["starts"] is not None:
            self.parameters["starts"] = asked["starts"]
            keys["start"] = "roundDown(toUnixTimestamp(created_at), {starts:Array(UInt32)})"
        conditions = self._filters(asked["filters"])
        if any_of := self._filters(asked["any"]):
            conditions.append(f"({' or '.join(any_of)})")
        inner = question("explored_calls", reader=reader_condition(asked["reader"], self.parameters))
        timed = "latency_histogram" in asked["measures"]
        measures = [one for one in asked["measures"] if one != "latency_histogram"]
        # Calls are put together by their latencies, too, and those of a group then told beside each other: at thousands of groups
        # that is several times as fast as a map of latencies for each.
        columns = [
            *(f"{expression} as {name}" for name, expression in keys.items()),
            *(_LATENCIES if timed else ()),
            "min(created_at) as first_at",
            *(
                f"maxIf((created_at, assumeNotNull({column})), {column} is not null) as newest_{place}, "
                f"countIf({column} is not null) as named_{place}"
                for place, column in named.items()
            ),
            *(f"sum(m_{one}) as s_{one}" for one in measures),
            f"count() as counted, max({' or '.join(self._odd)}) as odd_there",
        ]
        grouped = [*keys, *(("bucket", "edge") if timed else ())]
        found = (
            f"select {', '.join(columns)} from ({inner}) as c"  # noqa: S608 - no values
            + (f" where {' and '.join(conditions)}" if conditions else "")
            + (f" group by {', '.join(grouped)}" if grouped else "")
        )
        told = [
            *shown,
            "toString(min(first_at)) as at",
            *(_newest(place) for place in named),
            *(f"sum(s_{one}) as {one}" for one in measures),
            *(_TOLD_LATENCIES if timed else ()),
            "max(odd_there) as is_odd",
        ]
        return (
            f"select {', '.join(told)} from ({found}) where counted > 0"  # noqa: S608 - no values
            + (f" group by {', '.join(keys)}" if keys else " having count() > 0")
            + f" limit {MOST_GROUPS + 1}"
        )

    def told(self, text: bytes) -> bytes:
        """Rows as JSON with the names that PostgreSQL knows; quotes within texts are escaped, so names are found as bytes."""
        for name, told in self.told_as.items():
            text = text.replace(f'"{name}":[]'.encode(), f'"{name}":null'.encode())  # no name
            text = text.replace(f'"{name}":'.encode(), f"{json.dumps(told)}:".encode())
        return text

    def _dimension(self, name: str) -> str:
        """A dimension as an expression."""
        if not name.startswith(_METADATA):
            return f"d_{name}"
        key = self._bound("key", name.removeprefix(_METADATA))
        self._odd.append(question("metadata_is_odd", key=key))
        return f"({question('metadata_value', key=key)})"

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


def _newest(place: int) -> str:
    """The newest name of calls of a group in a column, and when: [time, name]; [] where none has one."""
    newest, has_one = f"maxIf(newest_{place}, named_{place} > 0)", f"max(named_{place}) > 0"
    return f"if({has_one}, [toString({newest}.1), {newest}.2], []) as name_{place}"


_LATENCIES: Final = (
    "multiIf(on_edge, 65534, timed, toUInt16(ceil(at_bucket)), 65535) as bucket",
    "if(on_edge, timed_ms, 0) as edge",
)
"""The bucket of a call's latency: 65534 where PostgreSQL has to say which it is, of the latency itself, 65535 for none."""

_TOLD_LATENCIES: Final = (
    "(groupArrayIf(bucket, bucket < 65534), groupArrayIf(counted, bucket < 65534)) as buckets",
    "(groupArrayIf(edge, bucket = 65534), groupArrayIf(counted, bucket = 65534)) as edges",
)
