"""Dead letters: rows that the database refused. Listed, sent again, or discarded.

They are sent in batches; a batch that is refused is halved until only the rows at fault are left.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final, TypedDict

from vital_tracking.delivery.dead_letters import FILE, DeadLetters, Letter, forget_taken, letters_in, take_letters
from vital_tracking.delivery.platform_record import RECORDING
from vital_tracking.errors import StoreRejected, VitalError
from vital_tracking.stores import Store

_CALLS: Final = "record_calls_v1"
_ARGUMENTS: Final = {_CALLS: "calls", "record_runs_v1": "runs", **dict(RECORDING.values())}
_BATCH: Final = 500


class DeadLetterRow(TypedDict):
    """A refused row: when, by which function, why (SQLSTATE and rule), and what is known of the call; cost in US dollars."""

    at: str
    function: str
    sqlstate: str | None
    rule: str | None
    id: str | None
    model: str | None
    total_cost: str | float | None
    row: dict[str, Any] | str


DEAD_LETTER_COLUMNS: Final = tuple(DeadLetterRow.__annotations__)


def dead_letters_of(folder: Path) -> list[Letter]:
    """The dead letters of a database's folder, the oldest first, those included that somebody began to send again."""
    return [letter for name in (f"{FILE}.taken", FILE) for letter in letters_in(folder / name)]


def dead_letter_row(letter: Letter) -> DeadLetterRow:
    """A dead letter for programs."""
    fields = letter.fields
    return DeadLetterRow(
        at=letter.at,
        function=letter.function,
        sqlstate=letter.sqlstate,
        rule=letter.rule,
        id=fields.get("id"),
        model=fields.get("model") or fields.get("requested_model"),
        total_cost=fields.get("total_cost"),
        row=fields or letter.row,
    )


def cost_of(row: DeadLetterRow) -> Decimal | None:
    """The cost of a refused row in US dollars; None where it says none that can be read."""
    try:
        return None if row["total_cost"] is None else Decimal(str(row["total_cost"]))
    except InvalidOperation:
        return None


def is_call(row: DeadLetterRow) -> bool:
    """Whether the refused row is of a call, not of a service run."""
    return row["function"] == _CALLS


class Resent(TypedDict):
    """What has become of dead letters that were sent again; `kept` are those of which no row could be made."""

    sent: int
    inserted: int
    duplicate: int
    rejected: int
    kept: int


@dataclass(slots=True)
class _Sent:
    inserted: int = 0
    duplicate: int = 0
    refused: list[Letter] = field(default_factory=list)


def resend(store: Store, folder: Path) -> Resent:
    """Send the dead letters of a folder again; counts of what has become of them.

    A VitalError of the store leaves all of them where they are: what was stored meanwhile is a duplicate next time.
    """
    with _alone(folder):
        letters = take_letters(folder)
        sent = _Sent()
        kept = [letter for letter in letters if not _is_row(letter)]
        for function in _ARGUMENTS:
            rows = [letter for letter in letters if letter.function == function and _is_row(letter)]
            for start in range(0, len(rows), _BATCH):
                _send(store, function, rows[start : start + _BATCH], sent)
        _set_aside(folder, [*kept, *sent.refused])
    return Resent(
        sent=len(letters) - len(kept),
        inserted=sent.inserted,
        duplicate=sent.duplicate,
        rejected=len(sent.refused),
        kept=len(kept),
    )


def discard(folder: Path) -> int:
    """Delete the dead letters of a folder; how many there were."""
    with _alone(folder):
        number = len(take_letters(folder))
        forget_taken(folder)
    return number


def _send(store: Store, function: str, letters: Sequence[Letter], sent: _Sent) -> None:
    """Send some dead letters, and note what has become of each."""
    try:
        report = store.call(
            function, **{_ARGUMENTS[function]: f"[{','.join(letter.row.strip() for letter in letters)}]"}
        )
    except StoreRejected as error:
        if len(letters) == 1:
            sent.refused.append(_because(letters[0], error.sqlstate, None))
        else:
            middle = len(letters) // 2
            _send(store, function, letters[:middle], sent)
            _send(store, function, letters[middle:], sent)
        return
    sent.inserted += report["inserted"]
    sent.duplicate += report["duplicate"]
    refused = list(_matched(report["rejected"], letters))
    if len(refused) == len(report["rejected"]):
        sent.refused += refused
        return
    for letter in letters:  # the report names an id that none of them has: sent alone, each has a report of its own
        alone = _Sent()
        _send(store, function, [letter], alone)
        sent.refused += alone.refused


def _is_row(letter: Letter) -> bool:
    return letter.function in _ARGUMENTS and isinstance(letter.fields.get("id"), str)


def _matched(rejected: Sequence[dict[str, Any]], letters: Sequence[Letter]) -> Iterator[Letter]:
    """The dead letters that a report says were refused, each with the reason."""
    known: dict[str, list[Letter]] = {}
    for letter in letters:
        known.setdefault(letter.fields["id"][:64], []).append(letter)
    for one in rejected:
        same = [letters[0]] if len(letters) == 1 else known.get(one.get("id") or "")
        if same:
            yield _because(same.pop(), one.get("sqlstate"), one.get("rule"))


def _because(letter: Letter, sqlstate: str | None, rule: str | None) -> Letter:
    return Letter(letter.at, letter.function, sqlstate, rule, letter.row)


def _set_aside(folder: Path, letters: Sequence[Letter]) -> None:
    """Write dead letters to the file again, and delete the file of those that were taken."""
    keeper = DeadLetters(folder)
    if not all(keeper.add(letter.function, letter.row, letter.sqlstate, letter.rule) for letter in letters):
        raise VitalError(
            f"What was refused once more cannot be written to {folder / FILE}, so all of it was kept beside it, in "
            f"{FILE}.taken: make room, and run this again."
        )
    forget_taken(folder)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from sending or discarding the dead letters of this folder."""
    import fcntl  # a system without it has no spool, and so no dead letters

    held = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)
