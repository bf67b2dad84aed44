"""The audit: who changed, read or was refused what, as far as whoever asks may see it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from typing_extensions import TypedDict

from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.queries.budgets import BudgetLimit
from vital_tracking.queries.paging import every_row
from vital_tracking.stores import Store

_A_PAGE: Final = 1000
_BUDGETS: Final = "budget_limits"
_EXCEPTIONS: Final = "budget_overrides"


@answer_type
class AuditLine(TypedDict):
    """A change, a reading or a refusal. `what` is a table or a page, `actor` the subject of a token, None for an operator.

    `key` says which row it was, `changes` are columns with their values before and after, as text.
    """

    id: int
    at: datetime
    actor: str | None
    database_role: str
    application: str | None
    organization_id: str | None
    what: str
    operation: str
    key: dict[str, Any]
    changes: dict[str, Any]


AUDIT_COLUMNS: Final = tuple(AuditLine.__annotations__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilters:
    """Only lines for which all that is given holds."""

    organization: str | None = None
    actor: str | None = None
    operation: str | None = None
    what: str | None = None
    since: datetime | None = None


def audit_lines(
    store: Store, filters: AuditFilters, *, limit: int = 100, before_id: int | None = None
) -> list[AuditLine]:
    """The newest lines, at most `limit` (up to 1,000), of those with an id below `before_id`. Raises StoreError."""
    asked = {name: value for name, value in asdict(filters).items() if value is not None}
    return typed(list[AuditLine], store.call("audit_v1", **asked, before_id=before_id, max_rows=limit))


def every_line(store: Store, filters: AuditFilters) -> Iterator[AuditLine]:
    """All lines, the newest first, in as much memory as a page of them takes."""
    return every_row(
        lambda before: audit_lines(store, filters, limit=_A_PAGE, before_id=before), lambda line: line["id"], _A_PAGE
    )


def changes_of(store: Store, budget: BudgetLimit) -> list[AuditLine]:
    """What was changed of a budget, and of exceptions from it, the newest first."""
    whose = budget["entity_id"] if budget["entity_type"] == "organization" else budget["organization_id"]
    changes = [
        line
        for table in (_BUDGETS, _EXCEPTIONS)
        for line in audit_lines(store, AuditFilters(what=table, organization=whose), limit=_A_PAGE)
        if _is_about(line["key"], budget, exact=table == _BUDGETS)
    ]
    return sorted(changes, key=lambda line: line["id"], reverse=True)


def _is_about(key: Mapping[str, Any], budget: BudgetLimit, *, exact: bool) -> bool:
    """Whether a line of the audit is about a budget, or about an exception from it."""
    if exact:
        return str(key.get("id")) == str(budget["id"])
    return (
        (key.get("entity_type"), key.get("metric")) == (budget["entity_type"], budget["metric"])
        and key.get("organization_id") == budget["organization_id"]
        and key.get("action") in (None, budget["action"])
        and budget["entity_id"] in ("*", key.get("entity_id"))
    )
