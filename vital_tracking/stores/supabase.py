"""Supabase over its Data API, with supabase-py and the service key."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from postgrest.exceptions import APIError
from supabase.lib.client_options import SyncClientOptions

from supabase import Client, ClientOptions, create_client
from vital_tracking.errors import SettingsError, store_error
from vital_tracking.stores.protocol import Row

_TIMEOUT: Final = httpx.Timeout(30.0, connect=5.0)


class SupabaseStore:
    """A Supabase project at its URL. The key is the secret (service role) one: it passes row level security."""

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

    def call(self, function: str, /, **arguments: object) -> Any:
        """Call a function of ours through the API; its JSON result."""
        values = {name: _argument(value) for name, value in arguments.items()}
        return self._run(lambda client: client.rpc(function, values).execute().data)

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

        def select(client: Client) -> Any:
            query = client.table(relation).select(",".join(columns))
            for column, value in (equals or {}).items():
                query = query.eq(column, value)
            if since is not None:
                query = query.gte("created_at", since.isoformat())
            return query.order("created_at", desc=True).order("id", desc=True).limit(limit).execute().data

        return [_exact(row) for row in self._run(select)]

    def breakdown(self, by: str, *, since: datetime | None = None, organization: str | None = None) -> list[Row]:
        """The rows of `cost_breakdown(by)`."""
        arguments = {"by": by, "organization": organization, **({"since": since.isoformat()} if since else {})}
        return [_exact(row) for row in self.call("cost_breakdown", **arguments)]

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
                self._http = httpx.Client(timeout=_TIMEOUT, http2=False, follow_redirects=True)
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

    def _run(self, request: Callable[[Client], Any]) -> Any:
        try:
            return request(self._connect())
        except APIError as error:
            failed = store_error(_code(error), "Supabase API")
        except httpx.HTTPError as error:
            failed = store_error(None, f"{self.description}: {type(error).__name__}")
        raise failed


def _options(http: httpx.Client) -> ClientOptions:
    return SyncClientOptions(httpx_client=http, auto_refresh_token=False, persist_session=False)


def _code(error: APIError) -> str | None:
    return str(error.code) if error.code else None


def _argument(value: object) -> object:
    return value.isoformat() if hasattr(value, "isoformat") else value


def _exact(row: Row) -> Row:
    """Amounts as Decimal: JSON carries them as text or as a number, and the shortest text of a float is what was written."""
    return {
        name: Decimal(str(value)) if name.endswith("_cost") and value is not None else value
        for name, value in row.items()
    }
