"""The errors of vital_tracking.

    VitalError
    ├── SettingsError       a setting is missing or wrong
    ├── MissingExtra        an optional part is not installed
    └── StoreError          the database did not take what it was given
        ├── StoreUnavailable    try again later
        ├── StoreNotReady       the migrations are missing, or the role may not use them
        └── StoreRejected       the data are wrong; trying again will not help

None of them reaches the code that calls a model: they leave the set-up, the command line and direct calls only.
"""

from __future__ import annotations

import re


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

    `sqlstate` is PostgreSQL's five-character code where one is known. The message never holds data or keys.
    """

    def __init__(self, message: str | None = None, *, sqlstate: str | None = None) -> None:
        self.sqlstate = sqlstate
        super().__init__(message)


class StoreUnavailable(StoreError):
    """The database cannot be reached or is overloaded; the same request may succeed later."""


class StoreNotReady(StoreError):
    """The database lacks vital_tracking's tables and functions. Run: vital-tracking migrate (or: supabase db push)"""


class StoreRejected(StoreError):
    """The database refused the data; the same request will fail again."""


# SQLSTATE classes (PostgreSQL documentation, appendix A) that blame the data or the set-up. Every other one, a read-only
# server or a full disk among them, will pass: what waits is kept and sent again.
_REFUSED = ("21", "22", "23", "54", "P0001")
_NOT_READY = ("28", "3D", "3F", "42")
_SQLSTATE = re.compile(r"[0-9A-Z]{5}")
_WRONG_KEY = ("401", "403", "PGRST301", "PGRST302", "PGRST303")
_TOO_LARGE = ("413", "414")


def store_error(sqlstate: str | None, summary: str) -> StoreError:
    """Choose the error for a SQLSTATE, a code of PostgREST (PGRST...) or an HTTP status: try again, set up, or refuse.

    `summary` must be free of data: the class name of the driver's error, or a fixed sentence.
    """
    code = sqlstate or ""
    state = code if _SQLSTATE.fullmatch(code) else ""
    if code in _WRONG_KEY:
        return StoreNotReady(
            f"The database refused the key ({summary}). Set SUPABASE_SERVICE_KEY to the project's secret key.",
            sqlstate=sqlstate,
        )
    if state.startswith(_NOT_READY) or code.startswith("PGRST2") or code in ("PGRST106", "404"):
        return StoreNotReady(
            f"The database is not set up for vital_tracking ({summary}, {code}). "
            "Run: vital-tracking migrate (or: supabase db push)",
            sqlstate=sqlstate,
        )
    if state.startswith(_REFUSED) or code in _TOO_LARGE:
        return StoreRejected(f"The database refused the request ({summary}, {code}).", sqlstate=sqlstate)
    return StoreUnavailable(f"The database is unavailable ({summary}).", sqlstate=sqlstate)
