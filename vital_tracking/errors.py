"""The errors of vital_tracking.

    VitalError
    ├── SettingsError       a setting is missing or wrong
    ├── MissingExtra        an optional part is not installed
    ├── StoreError          the database did not take what it was given
    │   ├── StoreUnavailable    try again later
    │   │   └── StoreTimeout        the answer took longer than it may
    │   ├── StoreNotReady       the migrations are missing, or the role may not use them
    │   ├── StoreDenied         the user who asks may not know or do this
    │   └── StoreRejected       the data are wrong; trying again will not help
    ├── CopyError           the copy in a ClickHouse did not take what it was given, or does not answer
    │   ├── CopyUnavailable     try again later
    │   └── CopyRefused         trying again will not help
    └── BudgetExceeded      a budget stops a call before it is made
        ├── BudgetThrottled     it may be made later: retry_after
        └── BudgetUnavailable   nobody can say, and the budget denies what it cannot check

Only BudgetExceeded and its kin reach the code that calls a model; the others leave the set-up, the command line and direct
calls only.
"""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple


class VitalError(Exception):
    """Something in vital_tracking went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class SettingsError(VitalError):
    """A setting is missing or wrong."""

    def __init__(self, variable: str, problem: str, fix: str) -> None:
        self.variable = variable
        self.fix = fix
        super().__init__(f"{variable} {problem}. {fix}")


class MissingExtra(VitalError):
    """An optional part is not installed."""

    def __init__(self, extra: str, purpose: str) -> None:
        self.extra = extra
        super().__init__(f'{purpose} needs an optional part: pip install "vital-tracking[{extra}]"')


class StoreError(VitalError):
    """The database did not take what it was given.

    `sqlstate` is PostgreSQL's five-character code where one is known. The message never holds keys, nor data but what a
    function of ours names of the request that it refuses.
    """

    def __init__(self, message: str | None = None, *, sqlstate: str | None = None) -> None:
        self.sqlstate = sqlstate
        super().__init__(message)


class StoreUnavailable(StoreError):
    """The database cannot be reached or is overloaded; the same request may succeed later."""


class StoreTimeout(StoreUnavailable):
    """The database stopped the statement, because it took longer than it may."""


class StoreNotReady(StoreError):
    """The database lacks vital_tracking's tables and functions. Run: vital-tracking migrate (or: supabase db push)"""


class StoreDenied(StoreError):
    """The user who asks may not know or do this. Only stores that ask for a user (`as_user`) raise it."""


class StoreRejected(StoreError):
    """The database refused the data; the same request will fail again.

    Where a function of ours says why, `problem` and `hint` are its words.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        sqlstate: str | None = None,
        problem: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.problem = problem
        self.hint = hint
        super().__init__(message, sqlstate=sqlstate)


class CopyError(VitalError):
    """The copy in a ClickHouse did not take what it was given, or does not answer. `code` is ClickHouse's, where one is known."""

    def __init__(self, message: str | None = None, *, code: int | None = None) -> None:
        self.code = code
        super().__init__(message)


class CopyUnavailable(CopyError):
    """The ClickHouse cannot be reached or is overloaded; the same request may succeed later."""


class CopyRefused(CopyError):
    """The ClickHouse refuses; the same request will fail again."""


class Stop(NamedTuple):
    """Why a budget stops a call: which budget, its window, and what may be done.

    `limit`, `spent`, `granted` and `needed` are in the budget's `metric` (US dollars, tokens or calls); `granted` is what
    processes hold for calls under way. `ends_at` is None where the window never ends, or is unknown.
    """

    action: str
    entity_type: str
    entity_id: str
    metric: str = "cost_usd"
    period: str | None = None
    budget_id: int | None = None
    organization_id: str | None = None
    limit: Decimal | None = None
    spent: Decimal | None = None
    granted: Decimal | None = None
    needed: Decimal | None = None
    ends_at: datetime | None = None
    downgrade_to: str | None = None
    retry_after: float | None = None
    reason: str | None = None

    def as_row(self) -> dict[str, object]:
        """What is kept of it on the row of the stopped call: amounts as text, and nothing that is not known."""
        facts: dict[str, object] = {
            "budget": self.budget_id,
            "action": self.action,
            "entity_type": self.entity_type,
            "entity_id": self.entity_id,
            "organization_id": self.organization_id,
            "metric": self.metric,
            "period": self.period,
            "limit": _amount(self.limit),
            "spent": _amount(self.spent),
            "held": _amount(self.granted),
            "needed": _amount(self.needed),
            "ends_at": None if self.ends_at is None else self.ends_at.isoformat(),
            "downgrade_to": self.downgrade_to,
            "retry_after": self.retry_after,
            "reason": self.reason,
        }
        return {name: value for name, value in facts.items() if value is not None}


def _amount(amount: Decimal | None) -> str | None:
    return None if amount is None else format(amount, "f")


class BudgetExceeded(VitalError):
    """A budget stops this call before it is made; no request was sent.

    `stop` holds all there is to know; its fields can be read from the error itself: `error.entity_type`, `error.entity_id`,
    `error.period`, `error.limit`, `error.spent`, `error.ends_at`, `error.action`, `error.retry_after` (seconds).
    """

    def __init__(self, stop: Stop) -> None:
        self.stop = stop
        super().__init__(_stopped(stop))

    def __reduce__(self) -> tuple[type[BudgetExceeded], tuple[Stop]]:
        return type(self), (self.stop,)

    @property
    def action(self) -> str:
        """The budget's action: block, downgrade or throttle."""
        return self.stop.action

    @property
    def entity_type(self) -> str:
        """What the budget is for: organization, service, tier, user, session, and the like."""
        return self.stop.entity_type

    @property
    def entity_id(self) -> str:
        """Which one of them."""
        return self.stop.entity_id

    @property
    def period(self) -> str | None:
        """minute, day, month or total."""
        return self.stop.period

    @property
    def limit(self) -> Decimal | None:
        """The limit in force, in the budget's metric."""
        return self.stop.limit

    @property
    def spent(self) -> Decimal | None:
        """What had been spent when the database was last asked."""
        return self.stop.spent

    @property
    def ends_at(self) -> datetime | None:
        """When the window ends and money is there again; None where it never does."""
        return self.stop.ends_at

    @property
    def retry_after(self) -> float | None:
        """Seconds after which to try again, where that is known."""
        return self.stop.retry_after


class BudgetThrottled(BudgetExceeded):
    """The budget's limit is reached and calls pass one by one; the next free slot is later than the caller would wait."""


class BudgetUnavailable(BudgetExceeded):
    """The database cannot be asked, and the budget denies what it cannot check (`when_unavailable = 'deny'`)."""


def _stopped(stop: Stop) -> str:
    """One message for people: the budget, its window, how far it is spent, and what to do."""
    whose = f"{stop.entity_type} {stop.entity_id}"
    period = {"minute": "this minute", "day": "today", "month": "this month", "total": "in all"}.get(stop.period or "")
    numbers = ""
    if stop.limit is not None and stop.spent is not None:
        mark = ";" if stop.action == "throttle" else ":"
        numbers = f"{mark} {_number(stop.spent, stop.metric)} of {_quantity(stop.limit, stop.metric)} spent"
        if stop.granted:
            numbers += f", {_number(stop.granted, stop.metric)} set aside for other calls"
        if stop.needed is not None:
            numbers += f", this call may take {_number(stop.needed, stop.metric)}"
    what = {
        "downgrade": "cannot pay for a call of this model",
        "throttle": "is used up: calls pass one by one",
    }.get(stop.action, "cannot pay for this call")
    named = f" (budget {stop.budget_id})" if stop.budget_id else ""
    parts = [f"The budget of {whose}{f' {period}' if period else ''}{named} {what}{numbers}."]
    if stop.reason:
        parts = [
            f"{f'The budget of {whose}{named} stops this call' if stop.budget_id else 'This call is stopped'}: {stop.reason}"
        ]
    if stop.action == "downgrade" and not stop.reason:
        cheaper = f"no dearer than {stop.downgrade_to}" if stop.downgrade_to else "given to guard() as downgrade_to"
        parts.append(f"Only models {cheaper} pass now.")
    if stop.retry_after is not None:
        parts.append(f"Try again in {stop.retry_after:.1f} s.")
    elif stop.ends_at is not None:
        parts.append(f"The window ends at {stop.ends_at.isoformat(timespec='seconds')}.")
    if not stop.reason:
        parts.append(
            f"See: vital-tracking budgets windows --entity {stop.entity_id!r}, and: vital-tracking why {stop.entity_id!r}"
        )
    return " ".join(parts)


def _number(amount: Decimal, metric: str) -> str:
    text = format(amount, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return f"${text}" if metric == "cost_usd" else text


def _quantity(amount: Decimal, metric: str) -> str:
    unit = {"cost_usd": "", "calls": " call" if amount == 1 else " calls"}.get(metric, f" {metric}")
    return _number(amount, metric) + unit


# SQLSTATE classes (PostgreSQL documentation, appendix A) that blame the data or the set-up. Every other one, a read-only
# server or a full disk among them, will pass: what waits is kept and sent again.
_REFUSED = ("21", "22", "23", "54", "P0001")
_NOT_READY = ("28", "3D", "3F", "42")
_SQLSTATE = re.compile(r"[0-9A-Z]{5}")
WRONG_KEY = ("401", "403", "PGRST301", "PGRST302", "PGRST303")
_TOO_LARGE = ("413", "414")
_QUERY_CANCELED = "57014"
_INSUFFICIENT_PRIVILEGE = "42501"
_WHAT_IS_WRONG = {
    "22001": "a text is longer than it may be",
    "22003": "a number is larger than it may be",
    "22007": "a date or time cannot be read",
    "22008": "a date or time is further away than there are any",
    "22021": "a text holds characters that PostgreSQL does not take",
    "22023": "a value is none of those that it may be",
    "22P02": "a text is not the number, date or id that it stands for",
    "22P05": "a text holds characters that PostgreSQL does not take",
    "23502": "a value that is needed is missing",
    "23503": "something is named that is not there",
    "23505": "it is there already",
    "23514": "a value is outside of its limits",
    "54000": "it is more than PostgreSQL takes at once",
}
"""What people need to know of a refusal of PostgreSQL's own, whose text may hold data."""


def refused_data(sqlstate: str | None, summary: str) -> StoreRejected:
    """The error for data that PostgreSQL refuses, in words where its code tells what is wrong; `summary` as in `store_error`."""
    wrong = _WHAT_IS_WRONG.get(sqlstate or "")
    code = ", ".join(word for word in (summary, sqlstate) if word)
    return StoreRejected(f"The database refused the data{f': {wrong}' if wrong else ''} ({code}).", sqlstate=sqlstate)


def store_error(sqlstate: str | None, summary: str) -> StoreError:
    """Choose the error for a SQLSTATE, a code of PostgREST (PGRST...) or an HTTP status: try again, set up, or refuse.

    `summary` must be free of data: the class name of the driver's error, or a fixed sentence.
    """
    code = sqlstate or ""
    state = code if _SQLSTATE.fullmatch(code) else ""
    if code in WRONG_KEY:
        return StoreNotReady(
            f"The database refused the key ({summary}). Set SUPABASE_SERVICE_KEY to the project's secret key.",
            sqlstate=sqlstate,
        )
    if state == _INSUFFICIENT_PRIVILEGE:
        return StoreNotReady(
            f"Your role may not do this ({summary}, {code}). Ask the database's owner for the right, or connect as a role that "
            "has it: SUPABASE_SERVICE_KEY with the project's secret key, or VITAL_DATABASE_URL as the owner.",
            sqlstate=sqlstate,
        )
    if state.startswith(_NOT_READY) or code.startswith("PGRST2") or code in ("PGRST106", "404"):
        return StoreNotReady(
            f"The database is not set up for this version of vital_tracking ({summary}, {code}). "
            "Run: vital-tracking migrate (or: supabase db push)",
            sqlstate=sqlstate,
        )
    if state.startswith(_REFUSED):
        return refused_data(sqlstate, summary)
    if code in _TOO_LARGE:
        return StoreRejected(f"The database refused the request ({summary}, {code}).", sqlstate=sqlstate)
    if state == _QUERY_CANCELED:
        return StoreTimeout(
            f"The database stopped the statement, because it took longer than its statement_timeout allows ({summary}, {code}). "
            "Connect to PostgreSQL directly (VITAL_DATABASE_URL), or raise the role's statement_timeout.",
            sqlstate=sqlstate,
        )
    return StoreUnavailable(f"The database is unavailable ({summary}).", sqlstate=sqlstate)
