"""Copies of the rows in a ClickHouse: how far each is behind, whether it holds what is here, and sending again what differs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final
from uuid import UUID

from typing_extensions import TypedDict

from vital_tracking.clickhouse.client import ClickHouse, address_of
from vital_tracking.clickhouse.compare import Difference, differences, repair
from vital_tracking.errors import SettingsError, VitalError
from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.queries.check import Check
from vital_tracking.queries.words import counted
from vital_tracking.settings import Settings
from vital_tracking.stores import Store, direct_store

_SHOWN: Final = 5
_LATE_S: Final = 300
_GONE: Final = timedelta(hours=1)
_COPYING: Final = "vital-tracking export clickhouse --follow"


@answer_type
class CopiedTable(TypedDict):
    """How far the copy of a table is. `lag_seconds`: the age of the oldest change that it lacks; `waiting_rows`: at most 100,001.

    Until `loaded`, the rows that were there at its beginning are on their way, up to `loading` so far. `to_clean` are months out
    of whose parts forgotten rows are still to be taken.
    """

    table_name: str
    loaded: bool
    loading: datetime | None
    sent_rows: int
    lag_seconds: Decimal
    waiting_rows: int
    to_clean: list[str]


@answer_type
class Holder(TypedDict):
    """The transaction that holds all copies back: it has written and is not over."""

    pid: int | None
    application: str | None
    role: str | None
    database: str | None
    since: datetime


@answer_type
class Copy(TypedDict):
    """A copy: where, from when on, when the process that fills it was last heard of, and its tables."""

    copy: UUID
    target: str
    epoch: int
    since: datetime | None
    seen_at: datetime
    tables: list[CopiedTable]
    held_by: Holder | None


def copies(store: Store) -> list[Copy]:
    """All copies. Raises StoreError."""
    return typed(list[Copy], store.call("export_status_v1"))


def lag_of(copy: Copy) -> Decimal:
    """How many seconds a copy is behind."""
    return max((table["lag_seconds"] for table in copy["tables"]), default=Decimal(0))


def end_copies(store: Store, target: str) -> list[Copy]:
    """Have PostgreSQL forget the copies in a place (`Address.shown`), and note nothing for them any more; which they were.

    Nothing is removed from the ClickHouse, which need not be there any more. Raises StoreError.
    """
    ended = [one for one in copies(store) if one["target"] == target]
    for one in ended:
        store.call("export_end_v1", copy=one["copy"])
    return ended


def holder_text(holder: Holder) -> str:
    """Who holds a copy back, and what ends that."""
    who = f"the session {holder['pid']}" if holder["pid"] else str(holder["application"])
    named = f" ({holder['application']})" if holder["pid"] and holder["application"] else ""
    return f"{who}{named} of {holder['role']} in {holder['database']}, since {holder['since']:%Y-%m-%d %H:%M:%S} UTC"


def check_copies(
    store: Store, settings: Settings, now: datetime, *, since: datetime | None, mend: bool
) -> Iterator[Check]:
    """The checks of the copy that the settings name: how far it is behind, and whether its days are those here.

    With `mend` days that differ are sent again. Raises StoreError.
    """
    if settings.clickhouse_url is None:
        return
    try:
        address = address_of(settings.clickhouse_url.get_secret_value())
    except SettingsError as error:
        yield Check("fail", "VITAL_CLICKHOUSE_URL cannot be used", str(error))
        return
    known = [one for one in copies(store) if one["target"] == address.shown]
    if not known:
        yield Check("warn", f"{address.shown} holds no copy yet", f"To fill it: {_COPYING}")
        return
    copy = known[-1]
    yield _check_lag(copy, now)
    server = ClickHouse(address)
    try:
        yield from _check_days(store, settings, server, copy, since=since, mend=mend)
    except VitalError as error:
        yield Check("fail", f"the copy in ClickHouse cannot be compared: {error}")
    finally:
        server.close()


def _check_lag(copy: Copy, now: datetime) -> Check:
    where, lag = copy["target"], lag_of(copy)
    loading = [table["table_name"] for table in copy["tables"] if not table["loaded"]]
    waiting = sum(table["waiting_rows"] for table in copy["tables"])
    if copy["held_by"] is not None and waiting:
        return Check(
            "warn",
            f"{where} is {lag:.0f} s behind: it waits for a transaction that does not end",
            f"It is that of {holder_text(copy['held_by'])}. End it there, or in SQL: pg_terminate_backend",
        )
    if loading:
        return Check(
            "warn", f"{where} is being filled; not whole yet: {', '.join(loading)}", f"It goes on with: {_COPYING}"
        )
    if lag > _LATE_S or (waiting and now - copy["seen_at"] > _GONE):
        return Check(
            "warn", f"{where} is {lag:.0f} s behind, by {counted(waiting, 'row')}", f"Does this run? {_COPYING}"
        )
    return Check("ok", f"the copy in {where} is {lag:.0f} s behind")


def _check_days(
    store: Store, settings: Settings, server: ClickHouse, copy: Copy, *, since: datetime | None, mend: bool
) -> Iterator[Check]:
    found = list(differences(store, server, str(copy["copy"]), since=since))
    if found:  # what came while one side was read, and then the other
        found = list(differences(store, server, str(copy["copy"]), since=since))
    waiting = [one for one in found if one.waiting]
    wrong = found if mend else [one for one in found if not one.waiting]
    if mend and wrong:
        yield _mended(settings, server, copy, wrong)
        return
    if wrong:
        named = "; ".join(f"{one.day} of {one.relation.name}: {one.what}" for one in wrong[:_SHOWN])
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        yield Check(
            "fail",
            f"the copy differs on {counted(len(wrong), 'day')}: {named}{more}",
            "vital-tracking doctor --full --repair",
        )
        return
    also = f"; {counted(len(waiting), 'day')} with changes that are on their way" if waiting else ""
    yield Check("ok", f"the copy holds what is here{also}")


def _mended(settings: Settings, server: ClickHouse, copy: Copy, wrong: list[Difference]) -> Check:
    store = direct_store(
        settings,
        SettingsError(
            "VITAL_DATABASE_URL", "is not set", "Days are sent again from the database itself: its connection string."
        ),
    )
    try:
        rows = sum(repair(store, server, one, copy["epoch"]) for one in wrong)
    finally:
        store.close()
    return Check("ok", f"{counted(len(wrong), 'day')} of the copy sent again, {counted(rows, 'row')}")
