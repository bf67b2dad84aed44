"""What the rest of the package needs of a store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from vital_tracking.stores.relations import Relation, Values

Row = dict[str, Any]

ANSWER_S: Final = 10.0
"""How many seconds the database has to answer somebody who waits for it."""


class Store(Protocol):
    """A database with our functions and views. Methods are safe to use from several threads.

    Every method raises StoreUnavailable (try again), StoreNotReady (migrations or rights are missing) or StoreRejected
    (the data are wrong), that of a user StoreDenied too, and nothing else.
    """

    @property
    def description(self) -> str:
        """One line for people: what and where, never a key or password."""

    @property
    def identity(self) -> str:
        """How the database is reached, by which it is known until its id is. Never a key or password."""

    @property
    def in_memory(self) -> bool:
        """Whether what is stored ends with this process: nothing is spooled for such a store."""

    def call(self, function: str, /, **arguments: object) -> Any:
        """Call one of our functions in the schema public with named arguments; its JSON result as Python values."""

    def read(
        self,
        relation: str,
        *,
        columns: Sequence[str],
        equals: Mapping[str, object] | None = None,
        since: datetime | None = None,
        limit: int = 100,
    ) -> list[Row]:
        """The newest rows (by `created_at`) of one of our views; amounts are Decimal."""

    def stream(
        self,
        relation: Relation,
        *,
        equals: Mapping[str, object] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        batch: int = 5_000,
    ) -> Iterator[list[Values]]:
        """All rows of a relation in batches, each once, in as much memory as a batch takes, however many there are.

        Cut by the relation's time: from `since` up to, and without, `until`.
        """

    def breakdown(self, by: str, *, since: datetime | None = None, organization: str | None = None) -> list[Row]:
        """The rows of `cost_breakdown(by)`; amounts are Decimal."""

    def as_user(
        self, claims: Mapping[str, object], *, access_token: str = "", anon_key: str = "", timeout_s: float = ANSWER_S
    ) -> Store:
        """The same database as a signed-in user sees it: row level security decides, and nothing of this store's rights is left.

        The caller has verified the token. PostgreSQL is told its `claims`; Supabase's API gets `access_token` and `anon_key`, and
        verifies the token again. The database is given `timeout_s` for an answer, after which StoreTimeout is raised.
        It shares this store's connections, which it does not close.
        """

    def within(self, timeout_s: float) -> Store:
        """The same store, which gives the database `timeout_s` for an answer, and raises StoreTimeout after that."""

    def after_fork(self) -> None:
        """Forget, in a forked child, every connection that belongs to the parent, without touching it."""

    def close(self) -> None:
        """Give connections back; the store cannot be used afterwards."""
