"""A store whose questions about many calls are answered from a copy in a ClickHouse, as far as it holds them.

The answers are those that the database alone would give: it says what the asker may see and what the copy holds as it is, and
reads the rest itself. Where the copy is away, not filled or too far behind, the database answers alone.
"""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from vital_tracking.clickhouse.call_groups import copied_groups
from vital_tracking.clickhouse.client import ClickHouse, address_of
from vital_tracking.clickhouse.duplicates import copied_duplicates
from vital_tracking.clickhouse.exploring import explored_groups
from vital_tracking.errors import CopyError, MissingExtra
from vital_tracking.settings import Settings
from vital_tracking.stores import Store, open_store
from vital_tracking.stores.protocol import ANSWER_S, Row

if TYPE_CHECKING:
    from vital_tracking.stores.relations import Relation, Values

_log = logging.getLogger(__name__)


def open_reading_store(settings: Settings) -> Store:
    """The store that the settings name, with the copy that VITAL_CLICKHOUSE_URL names beside it. Raises SettingsError."""
    store = open_store(settings)
    if settings.clickhouse_url is None:
        return store
    return CopiedStore(store, Copy(ClickHouse(address_of(settings.clickhouse_url.get_secret_value()))))


LEAST_CALLS: Final = 500_000
"""Of so many calls a copy tells sooner than the database: see docs/performance.md."""


class Copy:
    """A copy that may be asked, by several threads. Where it does not answer, the database does; that is logged once.

    It is explored where there are `least` calls: of fewer the database tells sooner.
    """

    def __init__(self, server: ClickHouse, *, least: int = LEAST_CALLS) -> None:
        self._least = least
        self._server = server
        self._id: str | None = None
        self._lock = threading.Lock()
        self._warned = False

    def answer(self, store: Store, function: str, arguments: Mapping[str, Any], timeout_s: float) -> Any:
        """The answer of a function, from both; None where the database has to answer alone."""
        settings = {"max_execution_time": math.ceil(timeout_s)}
        try:
            copied = json.dumps({"copy": self._known_id(), "least": self._least})
            planned = store.call(function, **arguments, copied=copied)
            if "ask_copy" not in planned:
                return planned
            if self._known_id(again=True) not in copied:
                return None
            if function == "call_groups_v1":
                return copied_groups(self._server, planned["ask_copy"], arguments, settings)
            if function == "duplicates_v2":
                return copied_duplicates(self._server, planned["ask_copy"], settings)
            groups = explored_groups(self._server, planned["ask_copy"], settings)
        except (CopyError, MissingExtra) as error:
            self._warn(error)
            return None
        return None if groups is None else store.call(function, **arguments, copied=groups)

    def after_fork(self) -> None:
        """Leave the parent's connections alone."""
        self._server = ClickHouse(self._server.address)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Give connections back."""
        self._server.close()

    def _known_id(self, *, again: bool = False) -> str:
        """The id of the copy: one that is made anew has another."""
        if again or self._id is None:
            rows = self._server.query("select toString(copy) as copy from vital_tracking_copy order by made_at limit 1")
            self._id = rows[0]["copy"] if rows else "00000000-0000-0000-0000-000000000000"
        return self._id

    def _warn(self, error: Exception) -> None:
        with self._lock:
            warned, self._warned = self._warned, True
        if not warned:
            _log.warning("The copy is not asked, PostgreSQL answers alone: %s", error)


class CopiedStore:
    """A store, and the copy that may answer for it: itself, or as somebody, who is answered of his own calls by both."""

    def __init__(self, store: Store, copy: Copy, timeout_s: float | None = None) -> None:
        self._store = store
        self._copy = copy
        self._timeout_s = timeout_s

    @property
    def description(self) -> str:
        """One line for people: what and where, never a key or password."""
        return self._store.description

    @property
    def identity(self) -> str:
        """How the database is reached."""
        return self._store.identity

    @property
    def in_memory(self) -> bool:
        """Whether what is stored ends with this process."""
        return self._store.in_memory

    def call(self, function: str, /, **arguments: object) -> Any:
        """Call a function in the schema public with named arguments."""
        if function in ("usage_explore_v1", "call_groups_v1", "duplicates_v2"):
            answer = self._copy.answer(self._store, function, arguments, self._timeout_s or _LONG_S)
            if answer is not None:
                return answer
        return self._store.call(function, **arguments)

    def read(
        self,
        relation: str,
        *,
        columns: Sequence[str],
        equals: Mapping[str, object] | None = None,
        since: datetime | None = None,
        limit: int = 100,
    ) -> list[Row]:
        """The newest rows (by `created_at`) of a view in the schema public."""
        return self._store.read(relation, columns=columns, equals=equals, since=since, limit=limit)

    def stream(
        self,
        relation: Relation,
        *,
        equals: Mapping[str, object] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        batch: int = 5_000,
    ) -> Iterator[list[Values]]:
        """All rows of a relation in batches."""
        return self._store.stream(relation, equals=equals, since=since, until=until, batch=batch)

    def breakdown(self, by: str, *, since: datetime | None = None, organization: str | None = None) -> list[Row]:
        """The rows of `cost_breakdown(by)`."""
        return self._store.breakdown(by, since=since, organization=organization)

    def as_user(
        self, claims: Mapping[str, object], *, access_token: str = "", anon_key: str = "", timeout_s: float = ANSWER_S
    ) -> Store:
        """The same as a signed-in user sees it: the database tells the copy's question whose calls those are."""
        user = self._store.as_user(claims, access_token=access_token, anon_key=anon_key, timeout_s=timeout_s)
        return CopiedStore(user, self._copy, timeout_s)

    def within(self, timeout_s: float) -> Store:
        """The same, with a limit to how long an answer may take."""
        return CopiedStore(self._store.within(timeout_s), self._copy, timeout_s)

    def after_fork(self) -> None:
        """Leave the parent's connections alone."""
        self._store.after_fork()
        self._copy.after_fork()

    def close(self) -> None:
        """Give connections back."""
        self._store.close()
        self._copy.close()


_LONG_S = 600.0
"""How many seconds a copy has for an answer where nobody has said less."""
