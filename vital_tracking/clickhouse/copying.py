"""Fills a copy in ClickHouse: first all rows there are, by spans of time, then what is new, changed or gone, again and again.

Each step notes in PostgreSQL what is in the copy, after ClickHouse has said that it is. A process that ends between the two sends
the last rows again, which changes nothing there: they are the same rows in the same or a later state. Two processes that fill one
copy do no harm; the one that started first notices and stops.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from vital_tracking.clickhouse.client import ClickHouse
from vital_tracking.clickhouse.schema import COPIED, copy_id, input_table, local_table, migrate
from vital_tracking.errors import CopyRefused, CopyUnavailable
from vital_tracking.stores.changes import Chunk, exported_columns, key_columns
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.stores.relations import Relation

CHUNK_BYTES: Final = 24 * 2**20
_AT_ONCE: Final = 2
_ROWS_A_SPAN: Final = 1_000_000
_LEAST_SPAN: Final = timedelta(minutes=1)
_LONGEST_SPAN: Final = timedelta(days=31)
_HEARTBEAT_S: Final = 30.0
_PATIENCE_S: Final = 60.0

Progress = Callable[[str, int], None]
"""Told the name of a table and how many rows of it have just arrived."""


@dataclass(slots=True)
class _Place:
    """How far the copy of a table is: see vital_private.export_places."""

    relation: Relation
    place: int
    loading: datetime | None
    loaded: bool
    to_clean: list[str]
    saved_at: float = 0.0


def chunk_token(chunk: Chunk) -> str:
    """By what a chunk that is sent again is known: by what is in it."""
    return hashlib.blake2b(chunk.data, digest_size=16).hexdigest()


class Copying:
    """Fills the copy of a PostgreSQL in a ClickHouse. `since`: of a copy that is new, from when on rows are in it."""

    def __init__(
        self,
        store: PostgresStore,
        server: ClickHouse,
        *,
        since: datetime | None = None,
        progress: Progress = lambda _table, _rows: None,
        chunk_bytes: int = CHUNK_BYTES,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._store = store
        self._server = server
        self._since = since
        self._progress = progress
        self._chunk_bytes = chunk_bytes
        self._patience_s = patience_s
        self._session = uuid4()
        self._copy: UUID | None = None
        self._epoch = 0
        self._places: list[_Place] = []
        self._stopping = threading.Event()

    def begin(self) -> list[str]:
        """Make what is missing on both sides, and take the copy over; the files of our tables that were applied.

        Raises StoreError, and CopyError.
        """
        applied = migrate(self._server)
        self._copy = copy_id(self._server, self._store.call("database_id_v1"))
        self._check_known(self._copy)
        begun = self._store.call(
            "export_begin_v1",
            copy=self._copy,
            target=self._server.address.shown,
            session=self._session,
            since=self._since,
        )
        self._epoch = begun["epoch"]
        self._since = datetime.fromisoformat(begun["since"]) if begun["since"] else None
        self._places = [
            _Place(
                relation,
                int(known["place"]),
                datetime.fromisoformat(known["loading"]) if known["loading"] else None,
                known["loaded"],
                known["to_clean"],
            )
            for relation in COPIED
            for known in [begun["tables"][relation.name]]
        ]
        while self._store.call("export_index_v1"):
            pass
        return applied

    def _check_known(self, copy: UUID) -> None:
        """Refuse rows that PostgreSQL does not know to be a copy: nobody has noted what was deleted since."""
        known = {UUID(one["copy"]) for one in self._store.call("export_status_v1")}
        if copy in known:
            return
        if any(self._server.query(f"select 1 from {relation.name} limit 1") for relation in COPIED):  # noqa: S608 - our names
            raise CopyRefused(
                f"{self._server.address.shown} holds a copy that this PostgreSQL does not know: it was ended, or made after the "
                "backup that this is. Rows may be in it that are deleted here. Name another database in the URL, or drop that "
                "one: the next export fills it anew."
            )

    def bring_up_to_date(self) -> int:
        """Send all that the copy lacks, of transactions that are over; how many rows. Raises StoreError, and CopyError."""
        if not self.begun:
            self.begin()
        sent = 0
        for place in self._places:
            sent += self._load(place)
            sent += self._follow(place)
        return sent

    def stop(self) -> None:
        """Have the current step be the last one."""
        self._stopping.set()

    def pause(self, seconds: float) -> None:
        """Wait, but not once it is to stop."""
        self._stopping.wait(max(seconds, 0))

    @property
    def begun(self) -> bool:
        """Whether `begin` is done."""
        return bool(self._places)

    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping.is_set()

    def _load(self, at: _Place) -> int:
        """Send the rows that were there at the beginning, those of one span of time after another."""
        span, sent = timedelta(days=1), 0
        while not at.loaded and not self.stopping():
            with self._reading(at) as changes:
                from_ = at.loading if at.loading and (self._since is None or at.loading > self._since) else self._since
                start = changes.first_time(from_)
                if start is None:
                    break
                until = start + span
                rows = self._send(at, exported_columns(at.relation), changes.of_time(start, until, self._chunk_bytes))
            sent += rows
            if self.stopping():
                return sent
            self._save(at, loading=until, sent=rows)
            span = min(max(span * _ROWS_A_SPAN // max(rows, 1), _LEAST_SPAN), _LONGEST_SPAN, span * 8)
        if not self.stopping() and not at.loaded:
            self._save(at, loaded=True)
        return sent

    def _follow(self, at: _Place) -> int:
        """Send what transactions have deleted, added and changed since; deletions first, since rows move the place past them."""
        if self.stopping() or not at.loaded:
            return 0
        with self._reading(at) as changes:
            months = changes.months_deleted(at.place, self._since)
            if set(months) - set(at.to_clean):
                self._save(at, clean=months)
            self._send(at, key_columns(at.relation), changes.deleted(at.place, self._since, self._chunk_bytes))
            sent = self._send(
                at,
                exported_columns(at.relation),
                changes.changed(at.place, self._since, self._chunk_bytes),
                keep_place=True,
            )
            horizon = changes.horizon
        if self.stopping():  # perhaps between two chunks
            return sent
        if sent or months or time.monotonic() - at.saved_at > _HEARTBEAT_S:
            self._save(at, place=horizon)
        for month in list(at.to_clean):
            self._clean(at.relation, month)
            self._save(at, cleaned=[month])
        return sent

    def _clean(self, relation: Relation, month: str) -> None:
        """Take the bytes of deleted rows out of a month: its parts are written anew without them."""
        cluster = self._server.address.cluster
        where = f" on cluster '{cluster}'" if cluster else ""
        partition = month[:7].replace("-", "")
        self._patiently(
            lambda: self._server.command(
                f"optimize table {local_table(relation, cluster)}{where} partition {partition} final cleanup"
            )
        )

    def _reading(self, at: _Place) -> Any:
        return self._store.reading(at.relation, self._epoch)

    def _send(self, at: _Place, columns: Sequence[str], chunks: Iterable[Chunk], *, keep_place: bool = False) -> int:
        """Insert chunks, each while the next one is read; how many rows. With `keep_place` each is noted once it is there."""
        rows = 0
        for chunk in self._inserted(at.relation, columns, chunks):
            rows += chunk.rows
            self._progress(at.relation.name, chunk.rows)
            if keep_place:
                self._save(at, place=chunk.last_xact, sent=chunk.rows)
            if self.stopping():
                break
        return rows

    def _inserted(self, relation: Relation, columns: Sequence[str], chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        """The same chunks, in their order, each once it is stored; two are on their way while the next one is read."""
        under_way: deque[tuple[Future[None], Chunk]] = deque()
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="vital-tracking-copy") as pool:
            for chunk in chunks:
                if len(under_way) == _AT_ONCE:
                    stored, before = under_way.popleft()
                    stored.result()
                    yield before
                under_way.append((pool.submit(self._insert, relation, columns, chunk), chunk))
                del chunk
            while under_way:
                stored, before = under_way.popleft()
                stored.result()
                yield before

    def _insert(self, relation: Relation, columns: Sequence[str], chunk: Chunk) -> None:
        token = chunk_token(chunk)
        self._patiently(lambda: self._server.insert(input_table(relation), columns, chunk.data, token=token))

    def _patiently(self, work: Callable[[], None]) -> None:
        """Try again for a while where the server is away. What it may have taken before it takes once, by the token."""
        deadline, wait = time.monotonic() + self._patience_s, 0.2
        while True:
            try:
                return work()
            except CopyUnavailable:
                if time.monotonic() + wait > deadline or self._stopping.wait(wait):
                    raise
                wait = min(wait * 2, 10.0)

    def _save(self, at: _Place, **progress: Any) -> None:
        place = progress.pop("place", None)
        if not self._store.call(
            "export_save_v1",
            copy=self._copy,
            session=self._session,
            table_name=at.relation.name,
            **({"place": str(place)} if place is not None else {}),
            **progress,
        ):
            raise CopyRefused(
                f"Another process fills {self._server.address.shown} by now, or the copy was ended: this one stops."
            )
        at.saved_at = time.monotonic()
        at.place = max(at.place, place or 0)
        at.loading = progress.get("loading", at.loading)
        at.loaded = progress.get("loaded", at.loaded)
        at.to_clean = sorted((set(at.to_clean) | set(progress.get("clean", []))) - set(progress.get("cleaned", [])))
