"""What a store is asked, as SQL, over whichever connection it has and as whoever asks.

A store that asks for somebody sets role, claims and time limit for one transaction, in the same message as the question: one
round trip, and nothing is left in the session, as a pooler in transaction mode demands. PostgreSQL runs the statements of one
simple query as one transaction, and each of them under its own statement_timeout (its documentation, 54.2.2.1 and 19.11.1).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar

import psycopg
from psycopg import sql

from vital_tracking.errors import StoreDenied, StoreError, StoreNotReady, StoreRejected, VitalError
from vital_tracking.stores.breakdown import explained_breakdown
from vital_tracking.stores.protocol import ANSWER_S, Row, Store
from vital_tracking.stores.relations import TEXT_OF, ColumnKind, Relation, Values

Result = TypeVar("Result")
Work = Callable[[psycopg.Connection[Row]], Result]

_EXPORT_S: Final = 900
"""How many seconds an export may take for somebody; the store's own has no limit."""


class Run(Protocol):
    """Does work on a connection; the driver's errors become ours."""

    def __call__(self, work: Work[Result], /) -> Result: ...


@dataclass(frozen=True, slots=True)
class Database:
    """Where questions go: a pool of connections, and what its errors and the driver's are for us (None: not one of these)."""

    run: Run
    connection: Callable[[], AbstractContextManager[psycopg.Connection[Row]]]
    failure: Callable[[Exception], VitalError | None]


class SqlQuestions:
    """The reading methods of a store, and the functions it calls. Amounts come as Decimal.

    A subclass says where questions go, and which settings hold for the transaction of each.
    """

    _settings: Mapping[str, str] = {}

    @property
    def _database(self) -> Database:
        raise NotImplementedError

    def call(self, function: str, /, **arguments: object) -> Any:
        """Call a function in the schema public with named arguments; its (JSON) result as Python values."""
        query = sql.SQL("select public.{}({})").format(sql.Identifier(function), _named(arguments))
        rows = self._ask(query, list(arguments.values()))
        return next(iter(rows[0].values())) if rows else None

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
        conditions: list[sql.Composable] = [
            sql.SQL("{} = %s").format(sql.Identifier(column)) for column in equals or {}
        ]
        values: list[object] = list((equals or {}).values())
        if since is not None:
            conditions.append(sql.SQL("created_at >= %s"))
            values.append(since)
        where = sql.SQL(" where ") + sql.SQL(" and ").join(conditions) if conditions else sql.SQL("")
        query = sql.SQL("select {} from public.{}{} order by created_at desc, id desc limit %s").format(
            sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(relation), where
        )
        return self._ask(query, [*values, limit])

    def stream(
        self,
        relation: Relation,
        *,
        equals: Mapping[str, object] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        batch: int = 5_000,
    ) -> Iterator[list[Values]]:
        """All rows of a relation as one COPY, which sees the database at one moment, however long it takes."""
        query = _copy(relation, equals or {}, since, until)
        settings = {**_AS_TEXT, **self._settings}
        if "statement_timeout" in self._settings:
            settings["statement_timeout"] = _milliseconds(_EXPORT_S)
        shaped = [(place, TEXT_OF[kind]) for place, kind in enumerate(relation.columns.values()) if kind in TEXT_OF]
        failed: VitalError
        try:
            with self._database.connection() as connection, connection.transaction():
                connection.execute(*_setting(settings))
                with connection.cursor().copy(query) as copy:
                    rows: list[Values] = []
                    for found in copy.rows():
                        row = list(found)
                        for place, shape in shaped:
                            if row[place] is not None:
                                row[place] = shape(row[place])
                        rows.append(tuple(row))
                        if len(rows) >= batch:
                            yield rows
                            rows = []
                    if rows:
                        yield rows
            return
        except Exception as error:
            ours = self._database.failure(error)
            if ours is None:
                raise
            failed = ours
        raise self._explained(failed)

    def breakdown(self, by: str, *, since: datetime | None = None, organization: str | None = None) -> list[Row]:
        """The rows of `cost_breakdown(by)`."""
        arguments = {"by": by, **({"since": since} if since else {}), "organization": organization}
        query = sql.SQL("select * from public.cost_breakdown({})").format(_named(arguments))
        try:
            return self._ask(query, list(arguments.values()))
        except StoreRejected as error:
            failed = explained_breakdown(by, error)
        raise failed

    def _ask(self, query: sql.Composed, values: Sequence[object]) -> list[Row]:
        """The rows of a query."""
        if not self._settings:
            return self._database.run(lambda connection: connection.execute(query, values).fetchall())
        setting, of_settings = _setting(self._settings)
        both = setting + sql.SQL("; ") + query

        def work(connection: psycopg.Connection[Row]) -> list[Row]:
            cursor = psycopg.ClientCursor(connection, row_factory=connection.row_factory)
            cursor.execute(both, [*of_settings, *values])
            cursor.nextset()
            return cursor.fetchall()

        failed: StoreError
        try:
            return self._database.run(work)
        except StoreError as error:
            failed = error
        raise self._explained(failed)

    def _explained(self, failed: VitalError) -> VitalError:
        """An error as whoever asks must understand it."""
        return failed


class ActingStore(SqlQuestions):
    """A store of PostgreSQL for somebody: a signed-in user by the `claims` of the token, or, without them, the store itself.

    A question that takes longer than `timeout_s` is stopped by the database.
    """

    in_memory = False

    def __init__(self, store: Store, database: Database, claims: Mapping[str, object] | None, timeout_s: float) -> None:
        self._store = store
        self._over = database
        self._claims = claims
        self._settings = {"statement_timeout": _milliseconds(timeout_s), **_as_user(claims)}

    @property
    def _database(self) -> Database:
        return self._over

    @property
    def description(self) -> str:
        """One line for people: what and where, never a password."""
        return self._store.description

    @property
    def identity(self) -> str:
        """How the database is reached."""
        return self._store.identity

    def as_user(
        self, claims: Mapping[str, object], *, access_token: str = "", anon_key: str = "", timeout_s: float = ANSWER_S
    ) -> Store:
        """A user's store leads to no other user's; the store's own does."""
        if self._claims is not None:
            raise StoreDenied("A user's store asks for this user only.")
        return ActingStore(self._store, self._database, claims, timeout_s)

    def within(self, timeout_s: float) -> Store:
        """The same, with another limit."""
        return ActingStore(self._store, self._database, self._claims, timeout_s)

    def after_fork(self) -> None:
        """The connections are the other store's."""

    def close(self) -> None:
        """The connections are the other store's."""

    def _explained(self, failed: VitalError) -> VitalError:
        """Tell a user who is refused from a login role that may not act for users: only then setting the role fails by itself."""
        if self._claims is None or not isinstance(failed, StoreError) or failed.sqlstate not in _REFUSALS:
            return failed
        try:
            self._database.run(lambda connection: connection.execute(*_setting(_ROLE)))
        except StoreError as error:
            if error.sqlstate not in _REFUSALS:
                return error
            return StoreNotReady(
                f"The role that connects to {self.description} may not act for signed-in users. As an admin of the "
                "database run: grant authenticated to THAT_ROLE (and vital-tracking migrate, if that role is unknown).",
                sqlstate=error.sqlstate,
            )
        if failed.sqlstate == _FORBIDDEN:
            return StoreDenied("The database tells this user nothing of what was asked for.", sqlstate=failed.sqlstate)
        return failed


_FORBIDDEN: Final = "42501"
# The role may not be taken on, or is unknown.
_REFUSALS: Final = (_FORBIDDEN, "22023", "42704")
_ROLE: Final = {"role": "authenticated"}

# Times in UTC and numbers with all their digits, whatever the role's settings say; no statement_timeout stops a long export.
_AS_TEXT: Final = {"timezone": "UTC", "datestyle": "ISO", "extra_float_digits": "1", "statement_timeout": "0"}


def _as_user(claims: Mapping[str, object] | None) -> Mapping[str, str]:
    if claims is None:
        return {}
    # The older of Supabase's two ways to tell the subject comes first in auth.uid(): none may be left from elsewhere.
    return {"request.jwt.claim.sub": "", "request.jwt.claims": json.dumps(dict(claims)), **_ROLE}


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))  # 0 would be no limit


def _setting(settings: Mapping[str, str]) -> tuple[sql.Composed, list[str]]:
    """A statement, and its values, that makes settings for the transaction, in their order: the role last, which may set less."""
    query = sql.SQL("select {}").format(sql.SQL(", ").join([sql.SQL("set_config(%s, %s, true)")] * len(settings)))
    return query, [text for setting in settings.items() for text in setting]


def _named(arguments: Mapping[str, object]) -> sql.Composed:
    return sql.SQL(", ").join(sql.SQL("{} => %s").format(sql.Identifier(name)) for name in arguments)


def _copy(
    relation: Relation, equals: Mapping[str, object], since: datetime | None, until: datetime | None
) -> sql.Composed:
    """COPY of a relation's columns as text; COPY takes no parameters, so values stand in it, quoted."""
    columns = [
        sql.SQL("to_jsonb({})").format(sql.Identifier(name)) if kind is ColumnKind.list else sql.Identifier(name)
        for name, kind in relation.columns.items()
    ]
    conditions = [sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value)) for name, value in equals.items()]
    for sign, moment in ((">=", since), ("<", until)):
        if moment is not None:
            conditions.append(
                sql.SQL("{} {} {}").format(sql.Identifier(relation.time), sql.SQL(sign), sql.Literal(moment))
            )
    where = sql.SQL(" where ") + sql.SQL(" and ").join(conditions) if conditions else sql.SQL("")
    return sql.SQL("copy (select {} from public.{}{}) to stdout").format(
        sql.SQL(", ").join(columns), sql.Identifier(relation.name), where
    )
