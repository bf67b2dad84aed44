"""Advice as it is saved, for tests: recommendations of which only what matters must be said."""

from __future__ import annotations

import hashlib
from typing import Any


def an_id(number: int) -> str:
    """A stable id of a recommendation."""
    return hashlib.blake2b(str(number).encode(), digest_size=8).hexdigest()


def a_recommendation(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A model switch that saves 10 to 20 dollars a month, 15 as expected."""
    return {
        "id": an_id(number),
        "organization_id": None,
        "type": "model_switch",
        "subject": {"model": f"m-{number}"},
        "current": f"m-{number}",
        "recommended": "m-small",
        "impact": "Half the price.",
        "calls": 100,
        "evidence": {"model": f"m-{number}"},
        "saving": {"low": "10", "expected": "15", "high": "20"},
        "sequential": {"low": "9", "expected": "14", "high": "19"},
        "counted": True,
        "revenue": None,
        "confidence": "medium",
        "effort": "low",
        "priority": "high",
        "risk": "Answers may be worse.",
        "how_to_try": "Run both for a day.",
        "command": None,
        "assumptions": ["A cold cache."],
        **changes,
    }


def an_advice(*recommendations: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """What was found in November 2026, of all organizations."""
    return {
        "organization_id": None,
        "since": "2026-11-01T00:00:00+00:00",
        "until": "2026-12-01T00:00:00+00:00",
        "bill": "100",
        "total": {"low": "9", "expected": "14", "high": "19"},
        "recommendations": list(recommendations),
        "not_applicable": [{"type": "auto_scaling", "reason": "No model is priced by the hour."}],
        "notes": [],
        **changes,
    }
