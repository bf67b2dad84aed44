"""Lines of access logs as requests: JSON objects, or nginx's combined format with or without the request's time at the end.

Each line says by its first character which of the two it is, so a file may hold both. Nothing of a line is kept but what a
request is made of: no query string, no referrer, no text of a line that cannot be read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

import orjson

from vital_tracking.core.paths import masked_path
from vital_tracking.core.sanitize import EARLIEST, LATEST, clean_text

LogFormat = Literal["auto", "json", "nginx"]

# remote_addr - remote_user [time_local] "request" status bytes "referer" "user_agent" request_time ...
_QUOTED: Final = rb'[^"\\]*(?:\\.[^"\\]*)*'
_NGINX: Final = re.compile(
    rb"(\S+) \S+ (.+?) \[(\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] "
    rb'"(' + _QUOTED + rb')" (\d{3}) (\d+|-)(?: "' + _QUOTED + rb'" "(' + _QUOTED + rb')")?'
    rb'(?: "?(\d+(?:\.\d+)?|-)"?)?(?: .*)?\Z',
    re.DOTALL,
)
_LONGEST_METHOD: Final = 20
_MONTHS: Final = {
    name: number for number, name in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)
}
_MOST: Final = 2**53
_MOST_MS: Final = 1e12
_EPOCH_MS: Final = 10**11  # a number of seconds above this is one of milliseconds: it would be in the year 5138


class BadLine(ValueError):
    """A line that cannot be read; `reason` says what is wrong, and holds nothing of the line."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Request(NamedTuple):
    """A request as an access log tells of it. `time` is an instant in UTC, `size` in bytes; addresses as they were written."""

    time: datetime
    path: str | None
    method: str | None
    status: int | None
    duration_ms: float | None
    size: int | None
    user_id: str | None
    session_id: str | None
    organization_id: str | None
    address: str | None
    user_agent: str | None


def parser(log_format: LogFormat) -> Callable[[bytes], Request]:
    """What reads a line, without its end, in one of the formats; it raises BadLine."""
    return {"auto": _any, "json": _json, "nginx": _nginx}[log_format]


def _any(line: bytes) -> Request:
    return _json(line) if line.startswith(b"{") else _nginx(line)


def _nginx(line: bytes) -> Request:
    found = _NGINX.match(line)
    if found is None:
        raise BadLine("neither json nor nginx")
    address, user, time, request, status, size, agent, duration = found.groups()
    method, _, target = request.partition(b" ")
    target = target.partition(b" ")[0]
    http = bool(target) and method.isalpha() and len(method) <= _LONGEST_METHOD  # else it was answered with 400
    return Request(
        _clf_time(time),
        _path(target) if http else None,
        _method(method) if http else None,
        int(status),
        None if duration is None or duration == b"-" else _seconds(duration),
        None if size == b"-" else _size(int(size)),
        None if user == b"-" else _name(user),
        None,
        None,
        None if address == b"-" else address.decode("ascii", "replace"),
        None if agent in (None, b"-") else agent.decode("utf-8", "replace"),
    )


def _json(line: bytes) -> Request:
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise BadLine("no json") from None
    if not isinstance(fields, dict):
        raise BadLine("no json object")
    get = fields.get
    path, duration, status = get("path"), get("duration_ms"), get("status")
    if path is not None and not isinstance(path, str):
        raise BadLine("path")
    return Request(
        _json_time(get("timestamp")),
        _path(path.encode("utf-8", "replace")) if path else None,
        _json_method(get("method")),
        None if status is None else _status(status),
        None if duration is None else _milliseconds(duration),
        None if (size := get("size")) is None else _size(size),
        _text(get("user_id")),
        _text(get("session_id")),
        _text(get("organization_id")),
        _text(get("ip_address")),
        _text(get("user_agent")),
    )


@lru_cache(4096)
def _clf_time(text: bytes) -> datetime:
    """A time such as 30/Nov/2026:13:37:00 +0100."""
    try:
        offset = datetime.strptime(text[-5:].decode(), "%z").tzinfo
        moment = datetime(
            int(text[7:11]), _MONTHS[text[3:6]], int(text[:2]), int(text[12:14]), int(text[15:17]), int(text[18:20]),
            tzinfo=offset,
        )  # fmt: skip
    except (ValueError, KeyError):
        raise BadLine("timestamp") from None
    return _in_range(moment)


def _json_time(value: object) -> datetime:
    """ISO 8601, of UTC where it names no offset, or a number of seconds or milliseconds since 1970."""
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            moment = datetime.fromtimestamp(value / 1000 if value > _EPOCH_MS else value, UTC)
        else:
            raise BadLine("timestamp")
    except (ValueError, OverflowError, OSError):
        raise BadLine("timestamp") from None
    return _in_range(moment)


def _in_range(moment: datetime) -> datetime:
    try:
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (OverflowError, ValueError):
        raise BadLine("timestamp") from None
    if not EARLIEST <= moment < LATEST:
        raise BadLine("timestamp")
    return moment


def _path(target: bytes) -> str | None:
    """The path of what was asked for, without query, fragment, the host that a proxy is asked for, and ids."""
    return _clean_path(target.partition(b"?")[0])


@lru_cache(65_536)
def _clean_path(path: bytes) -> str | None:
    path = path.partition(b"#")[0]
    if b"://" in path:
        path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
    return clean_text(masked_path(path.decode("utf-8", "replace"))) or None


@lru_cache(256)
def _method(text: bytes) -> str:
    return text.decode("ascii", "replace").upper()


def _json_method(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.isalpha() or len(value) > _LONGEST_METHOD:
        raise BadLine("method")
    return value.upper()


@lru_cache(65_536)
def _name(text: bytes) -> str | None:
    return clean_text(text.decode("utf-8", "replace")) or None


def _text(value: object) -> str | None:
    """A name or id; a number is one, too, and an empty text is none."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, (str, int)):
        return clean_text(value) or None
    raise BadLine("no text where a name belongs")


def _status(value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:4])
    if type(value) is not int or not 0 <= value <= 999:
        raise BadLine("status")
    return value


def _size(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _MOST:
        raise BadLine("size")
    return value


@lru_cache(65_536)
def _seconds(text: bytes) -> float:
    return _milliseconds(float(text) * 1000)


def _milliseconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < _MOST_MS:
        raise BadLine("duration_ms")
    return round(float(value), 3)
