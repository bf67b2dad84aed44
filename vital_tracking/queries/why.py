"""Why a call was blocked, in words: what stopped it, what was in the window at that moment, and the command that mends it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from decimal import ROUND_UP, Decimal
from typing import Final

from vital_tracking.alerts.wording import entity, local_time, period_now, spent_text, used
from vital_tracking.core.amounts import amount_text
from vital_tracking.queries.answers import typed
from vital_tracking.queries.budgets import BlockedBy, BlockedCall, would_pass
from vital_tracking.queries.calls import StoredCall

_STEPS: Final = {"cost_usd": Decimal("0.01")}


def why_blocked(call: BlockedCall) -> Iterator[str]:
    """What stopped a call, as it was at that moment, in sentences."""
    yield from _stopped_by(call["blocked_by"] or {})


def why_stored(call: StoredCall) -> str:
    """The same of a blocked call as it is stored, in one line."""
    return " ".join(_stopped_by(typed(BlockedBy, call["blocked_by"] or {})))


def _stopped_by(by: BlockedBy) -> Iterator[str]:
    if not by:
        yield "Which budget stopped it was not noted."
        return
    budget = f"Budget {by['budget']}, {by['action']}, of" if "budget" in by else "Stopped for"
    yield f"{budget} {entity(by['entity_type'], by['entity_id'], by.get('organization_id'))}"
    metric = by.get("metric", "cost_usd")
    if "limit" in by and "spent" in by:
        held = by.get("held", Decimal(0))
        aside = f", {amount_text(held, metric)} held for other calls" if held else ""
        needed = f"; this call might have taken {amount_text(by['needed'], metric)}" if "needed" in by else ""
        gone = f"{spent_text(by['spent'], by['limit'], metric)} {used(metric)} {period_now(by['period'])}"
        yield f"At that moment {gone}{aside}{needed}."
    if "reason" in by:
        yield f"{by['reason'][:1].upper()}{by['reason'][1:]}"


def what_mends(call: BlockedCall) -> Iterator[str]:
    """How it stands now, and what to do; nothing where it was not noted what stopped the call."""
    by: BlockedBy = call["blocked_by"] or {}
    if not by:
        return
    metric = by.get("metric", "cost_usd")
    stored = call["budget"]
    if "limit" not in by:
        yield "See: vital-tracking doctor"
        return
    if stored is None:
        yield "That budget has been removed."
        return
    if would_pass(call):
        yield "A call like that would pass now."
        return
    if call["limit_amount"] is not None and call["spent"] is not None:
        ends = f"; it ends {local_time(call['ends_at'], stored['timezone'])}" if call["ends_at"] else ""
        yield f"The window that runs now: {spent_text(call['spent'], call['limit_amount'], metric)} {used(metric)}{ends}."
    needed = by.get("needed")
    more = "AMOUNT" if needed is None else f"{needed.quantize(_STEPS.get(metric, Decimal(1)), rounding=ROUND_UP):f}"
    command = ["vital-tracking", "budgets", "raise", by["entity_type"], shlex.quote(by["entity_id"]), f"+{more}"]
    if metric != "cost_usd":
        command += ["--metric", metric]
    if stored["organization_id"] and by["entity_type"] != "organization":
        command += ["--organization", shlex.quote(stored["organization_id"])]
    yield f"To let it pass until tomorrow: {' '.join(command)} --until tomorrow"
