"""By what calls can be grouped: the words for it, and what is said of another word."""

from __future__ import annotations

from typing import Final

from vital_tracking.core.closest import did_you_mean

DIMENSIONS: Final = (
    "organization", "service", "user", "session", "agent", "tier", "provider", "model", "panel", "workflow",
    "workflow_step", "solution", "framework", "message_type", "status",
)  # fmt: skip
"""By what reports can be split beside their grouping; anything else is a key of the calls' metadata."""

BREAKDOWNS: Final = (*DIMENSIONS, "panel_seat")
"""By what `cost_breakdown` groups."""


def no_breakdown(by: str) -> str | None:
    """What to say of a word that `cost_breakdown` does not group by: the closest, and all there are, but not the word itself.

    None where it groups by it.
    """
    if by in BREAKDOWNS:
        return None
    return f"Calls cannot be grouped by that{did_you_mean(by, BREAKDOWNS)} One of: {', '.join(BREAKDOWNS)}"
