"""Lines of an access log as one batch for the database: events, costs, and what is wrong with those that cannot be read."""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

import orjson

from vital_tracking.core.addresses import address_hash
from vital_tracking.imports.access_log import BadLine, LogFormat, Request, parser
from vital_tracking.imports.identity import line_ids
from vital_tracking.imports.log_text import LONGEST_LINE, TooLong
from vital_tracking.imports.request_costs import CostRule, matching

EVENT_NAME: Final = "http_request"
_CACHED: Final = 65_536
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class BadLineAt:
    """A line that was not recorded: its number, where in the text it begins, its length in bytes, and what is wrong with it."""

    number: int
    place: int
    length: int
    reason: str


@dataclass(slots=True)
class LineBatch:
    """Lines that follow each other: `place` is where they begin, `end` where the next does, `line` how many are before them."""

    place: int
    end: int
    line: int
    lines: Sequence[bytes | TooLong]
    events: dict[str, Any]
    costs: list[dict[str, Any]] = field(default_factory=list)
    bad: list[BadLineAt] = field(default_factory=list)

    @property
    def event_count(self) -> int:
        """How many events they are."""
        return len(self.events["id"])

    @property
    def reasons(self) -> Counter[str]:
        """What is wrong with the bad ones, and how often."""
        return Counter(line.reason for line in self.bad)

    def json(self, **more: Any) -> str:
        """What `import_lines_v1` takes."""
        return orjson.dumps(
            {
                **more,
                "starts_at": self.place,
                "place": self.end,
                "line": self.line + len(self.lines),
                "lines": len(self.lines),
                "events": self.events,
                "costs": self.costs,
                "bad": [[line.place, line.number, line.length, line.reason] for line in self.bad],
            }
        ).decode()


class LineReader:
    """Makes batches of the lines of one log. `file_key` is the log's.

    `hash_key` keys the hashes of addresses and user agents, None: none is kept. `organization` is that of lines that name none.
    """

    def __init__(
        self,
        file_key: str,
        *,
        log_format: LogFormat = "auto",
        organization: str | None = None,
        rules: Sequence[CostRule] = (),
        hash_key: bytes | None = None,
    ) -> None:
        self._parse = parser(log_format)
        self._organization = organization
        self._rules = [(rule, line_ids(file_key, of=rule.cost_type)) for rule in rules]
        self._rules_of = matching(rules)
        self._id_of = line_ids(file_key)
        self._address_hash = _hashes(lambda text: address_hash(text, hash_key))
        self._agent_hash = _hashes(lambda text: _agent_hash(text, hash_key)) if hash_key else None

    def read(
        self, place: int, line: int, lines: Sequence[bytes | TooLong], end: int, *, refused: str = ""
    ) -> LineBatch:
        """The batch of some lines; with `refused` all are bad, for that reason."""
        columns: dict[str, list[Any]] = {
            name: []
            for name in (
                *("id", "occurred_at", "organization_id", "user_id", "session_id", "source", "ip_hash", "value"),
                "properties",
            )
        }
        batch = LineBatch(place, end, line, lines, {"event_name": EVENT_NAME, **columns})
        ids, times, organizations, users, sessions, sources, addresses, values, details = columns.values()
        parse, id_of = self._parse, self._id_of
        number = line
        for text in lines:
            number += 1
            length = text.length if isinstance(text, TooLong) else len(text)
            try:
                if refused:
                    raise BadLine(refused)
                if isinstance(text, TooLong) or length > LONGEST_LINE:
                    raise BadLine("too long")
                if text.endswith(b"\r"):
                    text = text[:-1]  # noqa: PLW2901 - the same line
                if not place and text.startswith(_BOM):
                    text = text[len(_BOM) :]  # noqa: PLW2901
                if text:
                    request = parse(text)
                    ids.append(id_of(request.time, place))
                    times.append(request.time)
                    organizations.append(organization := request.organization_id or self._organization)
                    users.append(request.user_id)
                    sessions.append(request.session_id)
                    sources.append(request.path)
                    addresses.append(self._address_hash(request.address) if request.address else None)
                    values.append(request.duration_ms)
                    details.append(self._properties(request))
                    if self._rules and request.path:
                        self._add_costs(batch.costs, request, place, organization)
            except BadLine as bad:
                batch.bad.append(BadLineAt(number, place, length, bad.reason))
            place += length + 1
        return batch

    def _properties(self, request: Request) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if request.method is not None:
            found["method"] = request.method
        if request.status is not None:
            found["status"] = request.status
        if request.duration_ms is not None:
            found["duration_ms"] = request.duration_ms
        if request.size is not None:
            found["size"] = request.size
        if request.user_agent and self._agent_hash is not None:
            found["user_agent_hash"] = self._agent_hash(request.user_agent)
        return found

    def _add_costs(self, costs: list[dict[str, Any]], request: Request, place: int, organization: str | None) -> None:
        for number in self._rules_of(request.path or ""):
            rule, id_of = self._rules[number]
            row = rule.row(request, id_of(request.time, place), organization)
            if row is not None:
                costs.append(row)


def _hashes(make: Callable[[str], str | None]) -> Callable[[str], str | None]:
    """The same, remembering the last ones: a log has few addresses for its many lines."""
    return lru_cache(_CACHED)(make)


def _agent_hash(agent: str, key: bytes | None) -> str | None:
    """HMAC-SHA-256 of a user agent, its first 32 hexadecimal digits."""
    return hmac.digest(key, b"user-agent\0" + agent.encode("utf-8", "replace"), "sha256").hex()[:32] if key else None
