"""Records of calls that a budget stopped, and of calls that have begun and may never report an end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from vital_tracking.core.admission import Admission, Request
from vital_tracking.core.record import CallRecord, CallType
from vital_tracking.core.usage import TokenUsage
from vital_tracking.errors import BudgetExceeded
from vital_tracking.ids import new_id


def stopped_record(
    request: Request,
    error: BudgetExceeded,
    *,
    call_type: CallType = "chat",
    requested_model: str | None = None,
    parent_run_id: object = None,
    tags: Iterable[str] = (),
    metadata: Mapping[str, Any] | None = None,
) -> CallRecord:
    """The record of a call that a budget stopped before it was made: `blocked`, and at no cost.

    `requested_model` is the model that the caller wanted, where the request is for a cheaper one.
    """
    return CallRecord(
        id=new_id(),
        created_at=datetime.now(UTC),
        context=request.context,
        provider=request.provider,
        model=request.model,
        requested_model=requested_model if requested_model != request.model else None,
        call_type=call_type,
        parent_run_id=str(parent_run_id) if parent_run_id else None,
        billed=False,
        status="blocked",
        error_type=type(error).__name__,
        budget_action=error.action,
        blocked_by=error.stop.as_row(),
        tags=list(tags),
        metadata=metadata or {},
    )


def begun_record(
    request: Request,
    admission: Admission,
    usage: TokenUsage,
    *,
    call_type: CallType = "chat",
    metadata: Mapping[str, Any] | None = None,
) -> CallRecord:
    """The record of a call that has begun, for the case that it never reports an end: `abandoned`, with what it may have used."""
    return CallRecord(
        id=admission.call_id or new_id(),
        created_at=datetime.now(UTC),
        context=request.context,
        provider=request.provider,
        model=request.model,
        requested_model=admission.requested_model,
        call_type=call_type,
        usage=usage,
        status="abandoned",
        budget_action=admission.action,
        throttled_ms=admission.throttled_ms,
        metadata=metadata or {},
    )
