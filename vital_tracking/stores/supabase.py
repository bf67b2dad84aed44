"""Supabase over its Data API, with supabase-py and the service key."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Protocol, TypeAlias
from urllib.parse import urlsplit

import httpx
from postgrest import APIError, SyncPostgrestClient
from supabase.lib.client_options import SyncClientOptions

from supabase import Client, ClientOptions, create_client
from vital_tracking.errors import WRONG_KEY, SettingsError, StoreDenied, StoreError, StoreRejected, store_error
from vital_tracking.stores.breakdown import explained_breakdown
from vital_tracking.stores.protocol import ANSWER_S, Row, Store
from vital_tracking.stores.raised import refusal
from vital_tracking.stores.relations import TEXT_OF, ColumnKind, Relation, Values, value_text

_TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0)
_LONG_TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0, read=900.0)
_LONG: Final = frozenset(
    {
        "apply_retention",
        "archive_month_v1",
        "audit_usage_v1",
        "backfill_usage_v1",
        "forget_user_v1",
        "maintain_partitions",
        "maintain_partitions_v1",
        "months_v1",
        "queue_backfill_v1",
        "refresh_analytics",
        "reprice_costs_v1",
        "row_totals_v1",
    }
)
"""Functions that may go through all calls, for which they have up to 15 minutes of the database."""

_answer_within: Final[ContextVar[float | None]] = ContextVar("_answer_within", default=None)
"""How long the request that is made now may wait for its answer, where somebody waits for it."""

_BREAKDOWN: Final = (
    "key",
    "label",
    "calls",
    "failed_calls",
    "cached_calls",
    "unpriced_calls",
    "prompt_tokens",
    "completion_tokens",
    "total_cost",
    "potential_cost",
    "average_latency_ms",
)


class _Questions:
    """The reading methods of a store, and the functions it calls; a subclass says with which rights."""

    def _run(self, request: Callable[[SyncPostgrestClient], Any]) -> Any:
        raise NotImplementedError

    def call(self, function: str, /, **arguments: object) -> Any:
        """Call a function of ours through the API; its JSON result."""
        values: dict[str, Any] = {name: _argument(value) for name, value in arguments.items()}
        answer = self._run(lambda client: client.rpc(function, values).execute().data)
        if not isinstance(answer, str):
            return answer
        try:
            return json.loads(answer)  # some servers hand JSON over as a string
        except ValueError:
            return answer  # the JSON was a string

    def read(
        self,
        relation: str,
        *,
        columns: Sequence[str],
        equals: Mapping[str, object] | None = None,
        since: datetime | None = None,
        limit: int = 100,
    ) -> list[Row]:
        """The newest rows (by `created_at`) of a view; the API gives at most 1,000 at once."""

        def select(client: SyncPostgrestClient) -> Any:
            query = client.table(relation).select(_selection(columns))
            for column, value in (equals or {}).items():
                query = query.eq(column, value)
            if since is not None:
                query = query.gte("created_at", since.isoformat())
            return query.order("created_at", desc=True).order("id", desc=True).limit(limit).execute().data

        return [_typed(row) for row in self._run(select)]

    def stream(
        self,
        relation: Relation,
        *,
        equals: Mapping[str, object] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        batch: int = 5_000,
    ) -> Iterator[list[Values]]:
        """All rows of a relation, page by page, each page after the last row of the one before; the API limits a page."""
        selection = ",".join(
            f"{name}::text" if kind is ColumnKind.decimal else name for name, kind in relation.columns.items()
        )
        cursor: _Cursor | None = None
        while True:
            page = self._page(relation, selection, equals or {}, since, until, min(batch, _PAGE), cursor)
            if not page:
                return
            yield [_values(row, relation) for row in page]
            cursor = _next_cursor(relation, page, cursor)

    def _page(
        self,
        relation: Relation,
        selection: str,
        equals: Mapping[str, object],
        since: datetime | None,
        until: datetime | None,
        limit: int,
        cursor: _Cursor | None,
    ) -> list[Row]:
        def select(client: SyncPostgrestClient) -> Any:
            query = client.table(relation.name).select(selection)
            for column, value in equals.items():
                query = query.eq(column, value)
            if since is not None:
                query = query.gte(relation.time, _argument(since))
            if until is not None:
                query = query.lt(relation.time, _argument(until))
            skip = 0
            if cursor is not None:
                column, value, skip = cursor
                query = query.gte(column, value)
            for column in relation.key:
                query = query.order(column)
            return query.range(skip, skip + limit - 1).execute().data

        page: list[Row] = self._run(select)
        return page

    def breakdown(self, by: str, *, since: datetime | None = None, organization: str | None = None) -> list[Row]:
        """The rows of `cost_breakdown(by)`."""
        arguments: dict[str, Any] = {
            "by": by,
            "organization": organization,
            **({"since": since.isoformat()} if since else {}),
        }
        try:
            rows = self._run(
                lambda client: client.rpc("cost_breakdown", arguments).select(_selection(_BREAKDOWN)).execute().data
            )
            return [_typed(row) for row in rows]
        except StoreRejected as error:
            failed = explained_breakdown(by, error)
        raise failed


class SupabaseStore(_Questions):
    """A Supabase project at its URL. The key is the secret (service role) one: it passes row level security."""

    in_memory = False

    def __init__(self, url: str, service_key: str) -> None:
        self._url = url
        self._key = service_key
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._http: httpx.Client | None = None
        self._inherited: list[object] = []
        self._connect()

    @property
    def description(self) -> str:
        """One line for people: the project's host, never the key."""
        return f"Supabase at {urlsplit(self._url).netloc}"

    @property
    def identity(self) -> str:
        """How the database is reached: the project's host and port."""
        return self.description.lower()

    def as_user(
        self, claims: Mapping[str, object], *, access_token: str = "", anon_key: str = "", timeout_s: float = ANSWER_S
    ) -> Store:
        """The project as the bearer of a token sees it, over the same connections; the API reads the claims itself."""
        del claims
        if not (access_token and anon_key):
            raise StoreDenied("Supabase's API takes a user's question with the user's token and the publishable key.")
        key = {"apikey": anon_key, "Authorization": f"Bearer {access_token}"}
        return _ActingStore(self, self._request, timeout_s, key)

    def within(self, timeout_s: float) -> Store:
        """The same key over the same connections, with a limit to how long an answer may take."""
        return _ActingStore(self, self._request, timeout_s, None)

    def after_fork(self) -> None:
        """Leave the parent's sockets alone and connect anew when next needed."""
        self._lock = threading.Lock()
        self._inherited += [self._client, self._http]
        self._client = self._http = None

    def close(self) -> None:
        """Close the HTTP connections."""
        with self._lock:
            http, self._http, self._client = self._http, None, None
        if http is not None:
            http.close()

    def _connect(self) -> Client:
        with self._lock:
            if self._client is None:
                # HTTP/1.1: a client shared by threads is not safe over HTTP/2.
                self._http = httpx.Client(
                    timeout=_TIMEOUT,
                    http2=False,
                    follow_redirects=True,
                    event_hooks={"request": [_wait_for_it], "response": [self._inspect]},
                )
                try:
                    self._client = create_client(self._url, self._key, _options(self._http))
                except Exception as error:  # noqa: BLE001 - supabase-py checks the key's form and raises its own error
                    self._http.close()
                    raise SettingsError(
                        "SUPABASE_SERVICE_KEY",
                        f"was refused by the Supabase client ({type(error).__name__})",
                        "Copy the secret key (sb_secret_... or service_role) from Project Settings, API Keys.",
                    ) from None
            return self._client

    def _run(self, request: Callable[[SyncPostgrestClient], Any]) -> Any:
        return self._request(request, None)

    def _request(self, request: Callable[[SyncPostgrestClient], Any], key: Mapping[str, str] | None) -> Any:
        """Make a request with the service key, or with another key and token over the same connections."""
        failed: StoreError
        try:
            client = self._connect()
            if key is None:
                return request(client.postgrest)
            shared = client.postgrest.session
            return request(SyncPostgrestClient(str(client.rest_url), headers=dict(key), http_client=shared))
        except APIError as error:
            failed = refusal(_code(error), error.message, error.hint) or store_error(_code(error), "Supabase API")
        except httpx.HTTPError as error:
            failed = store_error(None, f"{self.description}: {type(error).__name__}")
        raise failed

    def _inspect(self, response: httpx.Response) -> None:
        """Refuse what the client would take for an answer, or for an error without a code.

        The gateway says 401 where the key is not the secret one; a proxy or captive portal answers with a page of its own.
        """
        if response.status_code == 401:
            raise store_error("401", self.description)
        if response.is_success and "json" not in response.headers.get("content-type", ""):
            raise store_error(None, f"{self.description}: the answer is no JSON")


class _Request(Protocol):
    def __call__(self, request: Callable[[SyncPostgrestClient], Any], key: Mapping[str, str] | None, /) -> Any: ...


class _ActingStore(_Questions):
    """A project for somebody: the bearer of a token, or, without a key of theirs, the store itself, with a time limit.

    The database stops what runs longer than its roles may (a project's default for signed-in users is 8 seconds); this limit
    is how long the answer is waited for.
    """

    in_memory = False

    def __init__(self, store: Store, request: _Request, timeout_s: float, key: Mapping[str, str] | None) -> None:
        self._store = store
        self._request = request
        self._timeout_s = timeout_s
        self._key = key

    @property
    def description(self) -> str:
        """One line for people: the project's host, never the key."""
        return self._store.description

    @property
    def identity(self) -> str:
        """How the database is reached."""
        return self._store.identity

    def as_user(
        self, claims: Mapping[str, object], *, access_token: str = "", anon_key: str = "", timeout_s: float = ANSWER_S
    ) -> Store:
        """A user's store leads to no other user's; the store's own does."""
        if self._key is not None:
            raise StoreDenied("A user's store asks for this user only.")
        return self._store.as_user(claims, access_token=access_token, anon_key=anon_key, timeout_s=timeout_s)

    def within(self, timeout_s: float) -> Store:
        """The same, with another limit."""
        return _ActingStore(self._store, self._request, timeout_s, self._key)

    def after_fork(self) -> None:
        """The connections are the other store's."""

    def close(self) -> None:
        """The connections are the other store's."""

    def _run(self, request: Callable[[SyncPostgrestClient], Any]) -> Any:
        failed: StoreError
        limit = _answer_within.set(self._timeout_s)
        try:
            return self._request(request, self._key)
        except StoreError as error:
            failed = error
        finally:
            _answer_within.reset(limit)
        if self._key is not None and failed.sqlstate in (*WRONG_KEY, "42501"):
            refused = (
                "tells this user nothing of what was asked for" if failed.sqlstate == "42501" else "refuses the token"
            )
            failed = StoreDenied(f"The database {refused}.", sqlstate=failed.sqlstate)
        raise failed


_: type[Store] = SupabaseStore  # so that the type checker holds it against the protocol


def _wait_for_it(request: httpx.Request) -> None:
    """Give the long functions a longer timeout; the client itself has one for all requests."""
    if (limit := _answer_within.get()) is not None:
        request.extensions["timeout"] = httpx.Timeout(limit, connect=5.0).as_dict()
    elif request.url.path.rpartition("/rpc/")[2] in _LONG:
        request.extensions["timeout"] = _LONG_TIMEOUT.as_dict()


_PAGE: Final = 1_000  # what a project's API gives at most unless its settings say otherwise

_Cursor: TypeAlias = tuple[str, Any, int]
"""Where the next page begins: the leading column of the key, its value, and how many rows of that value are known."""


def _next_cursor(relation: Relation, page: Sequence[Row], cursor: _Cursor | None) -> _Cursor:
    """Behind the last row. Counting rows within one value is enough: ids are unique, and a day has but so many sums."""
    column = relation.key[0]
    last = page[-1][column]
    known = sum(row[column] == last for row in page)
    if cursor is not None and cursor[1] == last and known == len(page):
        known += cursor[2]
    return column, last, known


def _values(row: Row, relation: Relation) -> Values:
    values = []
    for name, kind in relation.columns.items():
        text = value_text(row[name])
        values.append(TEXT_OF[kind](text) if text is not None and kind in TEXT_OF else text)
    return tuple(values)


def _options(http: httpx.Client) -> ClientOptions:
    return SyncClientOptions(httpx_client=http, auto_refresh_token=False, persist_session=False)


def _code(error: APIError) -> str | None:
    return str(error.code) if error.code else None


def _argument(value: object) -> object:
    """A value as JSON holds it: times and amounts as text, of which the database makes what they are."""
    if isinstance(value, list):
        return [_argument(each) for each in value]
    if isinstance(value, Decimal):
        return str(value)
    return value.isoformat() if hasattr(value, "isoformat") else value


def _selection(columns: Sequence[str]) -> str:
    """Columns to ask the API for; amounts as text, since a client reads JSON's numbers as floats."""
    return ",".join(f"{name}::text" if name.endswith("_cost") else name for name in columns)


def _typed(row: Row) -> Row:
    """A row of JSON with its amounts as Decimal and its time as datetime."""
    typed: Row = {name: Decimal(value) if name.endswith("_cost") and value else value for name, value in row.items()}
    if typed.get("created_at"):
        typed["created_at"] = datetime.fromisoformat(typed["created_at"])
    return typed
