"""Logs to import, and what the database holds of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.sql.helpers import connect
from vital_tracking.imports.log_import import Imported, ImportOptions, LogImport
from vital_tracking.imports.log_text import LogText
from vital_tracking.stores import Store

ADDRESS = "203.0.113.77"
AGENT = "Secret-Agent/1.0"
TOKEN = "token-4711"
KEY = b"a key of hashes that is long enough"


def json_line(number: int, **changes: Any) -> bytes:
    """A request, of which the number can be told by its duration."""
    fields = {
        "timestamp": f"2026-01-15T10:{number // 60 % 60:02}:{number % 60:02}Z",
        "user_id": f"u-{number % 3}",
        "method": "GET",
        "path": f"/api/{'search' if number % 2 else 'chat'}?key={TOKEN}",
        "status": 200,
        "duration_ms": number,
        "size": 1000 + number,
        "ip_address": ADDRESS,
        "user_agent": AGENT,
        **changes,
    }
    return json.dumps(fields).encode()


def nginx_line(number: int) -> bytes:
    """The same as nginx writes it."""
    return (
        f"{ADDRESS} - u-{number % 3} [15/Jan/2026:10:{number // 60 % 60:02}:{number % 60:02} +0000] "
        f'"GET /api/chat?key={TOKEN} HTTP/1.1" 200 {1000 + number} "-" "{AGENT}" {number / 1000:.3f}'
    ).encode()


def text_of(numbers: range, *, line: Callable[[int], bytes] = json_line) -> bytes:
    """A log of these requests."""
    return b"".join(line(number) + b"\n" for number in numbers)


def import_log(store: Store, path: Path, **options: Any) -> Imported:
    """Import a log to its end."""
    importer = LogImport(store, ImportOptions(**{"hash_key": KEY, **options}))
    cursor = importer.read(LogText(str(path)))
    cursor.end()
    return importer.done


def recorded(url: str, organization: str) -> list[int]:
    """The numbers of the requests that are recorded, in order."""
    with connect(url) as connection:
        found = connection.execute(
            "select value from platform_events where organization_id = %s order by value, id", [organization]
        ).fetchall()
        return [int(row["value"]) for row in found]
