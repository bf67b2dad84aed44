"""A database of a ClickHouse: questions, statements and rows, by ClickHouse's own client (the extra `clickhouse`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, unquote

from vital_tracking.core.urls import parts_of
from vital_tracking.errors import CopyRefused, CopyUnavailable, MissingExtra, SettingsError

OLDEST: Final = (24, 1)
"""The first ClickHouse in which OPTIMIZE ... FINAL CLEANUP, which takes forgotten people out, may be asked for (its #58316)."""

_NATIVE_PORTS: Final = (9000, 9440)
_SCHEMES: Final[Mapping[str, tuple[str, int]]] = {
    "http": ("http", 8123),
    "https": ("https", 8443),
    "clickhouse": ("http", 8123),
    "clickhouses": ("https", 8443),
    "chdb": ("chdb", 0),
}
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_CODE: Final = re.compile(r"(?:Code: |error code |code: )(\d+)")
_ERROR_NAME: Final = re.compile(r"\(([A-Z][A-Z0-9_]+)\)")
_STATUS: Final = re.compile(r"(?:status code|HTTP driver received HTTP status) (\d{3})|status[ =:]+(\d{3})")

# After these errors the same statement may succeed: time-outs, too much at once, no memory, a replica or its keeper away.
_PASSING: Final = frozenset(
    {
        3,
        32,
        76,
        159,
        173,
        201,
        202,
        203,
        209,
        210,
        225,
        228,
        236,
        241,
        242,
        243,
        252,
        254,
        279,
        285,
        286,
        298,
        305,
        307,
        319,
        326,
    }
    | {362, 373, 394, 416, 425, 439, 447, 473, 499, 519, 574, 652, 692, 704, 705, 745, 999, 1000, 1002}
)
_PASSING_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Address:
    """Where a ClickHouse is: https://user:password@host:8443/database?cluster=name."""

    interface: str
    host: str
    port: int
    database: str
    user: str | None = None
    password: str = field(default="", repr=False)
    cluster: str | None = None
    path: str | None = None

    @property
    def shown(self) -> str:
        """For people and for our own notes: without user and password."""
        if self.interface == "chdb":
            return f"chdb:{self.path or 'memory'}/{self.database}"
        return f"{self.interface}://{self.host}:{self.port}/{self.database}" + (
            f"?cluster={self.cluster}" if self.cluster else ""
        )


def address_of(url: str, *, setting: str = "VITAL_CLICKHOUSE_URL") -> Address:
    """Read an address. The database is `vital_tracking` where none is named. Raises SettingsError, which never holds the URL."""
    example = "It looks like https://user:password@host:8443/vital_tracking; write special characters as %XX."
    try:
        parts = parts_of(url.strip())
    except ValueError:
        raise SettingsError(setting, "cannot be read as a URL", example) from None
    if parts.scheme not in _SCHEMES:
        raise SettingsError(setting, "is no URL of a ClickHouse", example)
    interface, usual = _SCHEMES[parts.scheme]
    asked = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if unknown := set(asked) - {"cluster", "secure", "database"}:
        raise SettingsError(
            setting, f"asks for {min(unknown)}, which is not known", "After the ? may stand cluster=name."
        )
    if asked.get("secure", "").lower() in {"1", "true", "yes"} and interface == "http":
        interface, usual = "https", 8443
    path = parts.path.strip("/")
    if interface == "chdb":
        database, place = asked.get("database", "vital_tracking"), parts.path if path else None
    else:
        database, place = unquote(path) or asked.get("database", "vital_tracking"), None
        if not parts.hostname:
            raise SettingsError(setting, "names no host", example)
    if (port := parts.port) in _NATIVE_PORTS:
        raise SettingsError(
            setting,
            f"names port {port}, that of ClickHouse's own protocol",
            "Name the one of HTTP: 8123, or 8443 with TLS (https://).",
        )
    for name in (database, asked.get("cluster", "x")):
        if not _NAME.fullmatch(name):
            raise SettingsError(
                setting,
                "names a database or cluster in characters that are not used here",
                "Use letters, digits and _.",
            )
    return Address(
        interface=interface,
        host=parts.hostname or "",
        port=port or usual,
        database=database,
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else "",
        cluster=asked.get("cluster"),
        path=place,
    )


def quoted(text: str) -> str:
    """A text as a statement holds it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


class ClickHouse:
    """A database at an address. Methods are safe to use from several threads, and raise CopyError alone."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._client: Any = None

    def command(self, statement: str, *, settings: Mapping[str, Any] | None = None, database: bool = True) -> None:
        """Run a statement that answers nothing; with `database=False` outside of the database, which may be missing."""
        self._run(lambda client: client.command(statement, settings=dict(settings or {})), database=database)

    def query(
        self,
        statement: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        settings: Mapping[str, Any] | None = None,
        database: bool = True,
    ) -> list[dict[str, Any]]:
        """The rows of a question. `parameters` stand in it as {name:Type} and are bound by the server."""
        answer = self._run(
            lambda client: client.query(statement, parameters=dict(parameters or {}), settings=dict(settings or {})),
            database=database,
        )
        return list(answer.named_results())

    def lines(self, statement: str, parameters: Mapping[str, Any], *, settings: Mapping[str, Any]) -> list[bytes]:
        """The rows of a question as JSON, numbers with all their digits. The question may carry rows itself, of megabytes."""
        longer = {**_LINES, "max_query_size": 2 * len(statement.encode()) + 1_000_000, **settings}
        answer: bytes = self._run(
            lambda client: client.raw_query(statement, dict(parameters), settings=longer, fmt="JSONEachRow")
        )
        return answer.splitlines()

    def insert(self, table: str, columns: Sequence[str], data: bytes, *, token: str) -> None:
        """Insert rows as tab-separated text. It returns once they are stored; the same token again inserts nothing."""
        self._run(
            lambda client: client.raw_insert(
                table,
                column_names=list(columns),
                insert_block=data,
                fmt="TabSeparated",
                settings={**_INSERT, "insert_deduplication_token": token},
            )
        )

    def close(self) -> None:
        """Give connections back."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connect(self) -> Any:
        if self._client is None:
            try:
                import clickhouse_connect
            except ImportError:
                raise MissingExtra("clickhouse", "ClickHouse") from None
            where = self.address
            if where.interface == "chdb":
                path: dict[str, Any] = {"path": where.path} if where.path else {}
                client = clickhouse_connect.get_client(interface="chdb", **path)
            else:
                client = clickhouse_connect.get_client(
                    host=where.host,
                    port=where.port,
                    username=where.user,
                    password=where.password,
                    interface=where.interface,
                    compress=True,
                    connect_timeout=10,
                    send_receive_timeout=600,
                    query_retries=0,
                    autogenerate_session_id=False,
                    client_name="vital_tracking",
                )
            if (found := _version(client.server_version)) < OLDEST:
                client.close()
                raise CopyRefused(
                    f"ClickHouse at {where.shown} is of version {found[0]}.{found[1]}: "
                    f"a copy needs {OLDEST[0]}.{OLDEST[1]} or newer."
                )
            self._client = client
        return self._client

    def _run(self, work: Any, *, database: bool = True) -> Any:
        try:
            client = self._connect()
            client.database = self.address.database if database else None
            return work(client)
        except (MissingExtra, SettingsError, CopyRefused):
            raise
        except Exception as error:  # noqa: BLE001 - the client's, urllib3's and chdb's, whose texts may hold rows
            failed = _failure(error, self.address.shown)
        raise failed


def _version(told: str | None) -> tuple[int, int]:
    """The year and the number of a release such as 24.8.4.13; one that cannot be read counts as new."""
    found = re.match(r"(\d+)\.(\d+)", told or "")
    return (int(found[1]), int(found[2])) if found else OLDEST


_INSERT: Final[Mapping[str, Any]] = {
    "max_partitions_per_insert_block": 0,  # rows of many months may change at once
    "async_insert": 0,
    "insert_deduplicate": 1,
    # Rows go through a view into the table that keeps them: the token holds for that one, too, and what it does not take fails.
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "materialized_views_ignore_errors": 0,
    "insert_distributed_sync": 1,  # answered once they are on their shard
    # Two batches are on their way at a time, so each takes one thread; what is there twice is sorted out when parts are merged.
    "input_format_parallel_parsing": 0,
    "max_threads": 1,
    "max_insert_threads": 1,
    "optimize_on_insert": 0,
}


_LINES: Final[Mapping[str, Any]] = {
    "output_format_json_quote_64bit_integers": 0,
    "output_format_json_quote_decimals": 0,
    "output_format_json_named_tuples_as_objects": 0,
}


def _failure(error: Exception, where: str) -> CopyRefused | CopyUnavailable:
    """What an error is for us. Its text stays here: ClickHouse repeats the rows that it cannot read."""
    text = str(error)
    code = int(found.group(1)) if (found := _CODE.search(text)) else None
    names = _ERROR_NAME.findall(text)
    status = next((int(group) for found in _STATUS.finditer(text) for group in found.groups() if group), None)
    said = f"{names[-1] if names else type(error).__name__}" + (f", code {code}" if code else "")
    if code is None and status is not None and status not in _PASSING_STATUS:
        return CopyRefused(f"ClickHouse at {where} answered with HTTP {status}: is that its HTTP port?", code=None)
    if code is None or code in _PASSING:
        return CopyUnavailable(f"ClickHouse at {where} does not take rows or answer at the moment ({said}).", code=code)
    return CopyRefused(f"ClickHouse at {where} refuses ({said}).{_HINTS.get(code, '')}", code=code)


_HINTS: Final[Mapping[int, str]] = {
    81: " The database is missing: vital-tracking export clickhouse makes it.",
    60: " A table is missing: vital-tracking export clickhouse makes it.",
    497: " The user may not do this: grant it what docs/clickhouse.md says.",
    516: " The user or the password is wrong.",
    170: " There is no such cluster: select cluster from system.clusters",
}
