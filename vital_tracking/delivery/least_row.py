"""What is left of a row of a call that the database has refused: its money and its owners, without the details.

Values are cleaned before they are sent, so a refusal is rare: a rule of the team's own, or one that we do not know.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from vital_tracking.core.record import PRICE_FACTS
from vital_tracking.core.sanitize import EARLIEST, LATEST, clean_text
from vital_tracking.ids import made_at

# Whose call it was, and what budgets and sums go by.
_OWNERS: Final = (
    "organization_id",
    "user_id",
    "session_id",
    "service_type",
    "service_id",
    "service_run_id",
    "agent_id",
    "agent_tier",
    "workflow_id",
    "panel_id",
    "solution_id",
    "provider",
    "model",
    "requested_model",
    "sent_model",
    "budget_action",
)
# What it was, and what it cost. A row whose money is at fault is refused again.
_MONEY: Final = (
    "id",
    "call_type",
    "status",
    "calls",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "audio_tokens",
    "audio_output_tokens",
    "usage_estimated",
    "input_cost",
    "output_cost",
    "fees",
    "total_cost",
    "potential_cost",
    "price_version",
    "priced",
    "ceiling_cost",
    "reported_cost",
    "cache_hit",
    "replaces_abandoned",
    "draws",
)


def least_row(text: str, rule: str | None) -> str | None:
    """The JSON of a row without its details, which says that `rule` refused them; None where no row can be read."""
    try:
        row = orjson.loads(text)
        kept: dict[str, Any] = {name: row[name] for name in _MONEY if name in row}
        kept |= {name: row[name] for name in _OWNERS if isinstance(row.get(name), str)}
        kept["created_at"] = _instant(row).isoformat()
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    metadata = row.get("metadata")
    notes = metadata.get("notes") if isinstance(metadata, dict) else None
    marks = [note for note in notes[:16] if isinstance(note, str)] if isinstance(notes, list) else []
    if isinstance(metadata, dict):  # what decides the price stays: the row may have to be priced anew
        facts = {name: metadata[name] for name in PRICE_FACTS if isinstance(metadata.get(name), str)}
    else:
        facts = {}
    kept["metadata"] = {**facts, "notes": [*marks, f"refused:{clean_text(rule or 'unknown', 64)}"]}
    return orjson.dumps(kept).decode()


def _instant(row: dict[str, Any]) -> datetime:
    """When the call began; where that is no time that the database can hold, when its id was made."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        moment = datetime.fromisoformat(row["created_at"])
        if EARLIEST <= (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) < LATEST:
            return moment
    return made_at(row["id"])
