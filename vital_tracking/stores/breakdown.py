"""Why the database has refused a breakdown."""

from __future__ import annotations

from vital_tracking.core.breakdowns import no_breakdown
from vital_tracking.errors import StoreRejected


def explained_breakdown(by: str, error: StoreRejected) -> StoreRejected:
    """Why a breakdown was refused: where the word is none of those that calls are grouped by, which was meant."""
    problem = no_breakdown(by)
    return error if problem is None else StoreRejected(problem, sqlstate=error.sqlstate)
