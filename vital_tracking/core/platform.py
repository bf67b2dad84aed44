"""The kinds of what is no call to a model."""

from __future__ import annotations

from typing import Final, Literal, get_args

Category = Literal["user_behavior", "system_health", "business"]
"""What an event is about."""

CATEGORIES: Final = get_args(Category)

CostType = Literal["llm", "embedding", "storage", "bandwidth", "compute", "search", "tts", "stt", "other"]
"""What a cost is of; `llm` and `embedding` are what a provider bills beside the calls."""

COST_TYPES: Final = get_args(CostType)

USUAL_UNITS: Final = {
    "storage": "gb_month",
    "bandwidth": "gb",
    "compute": "hour",
    "search": "call",
    "tts": "call",
    "stt": "call",
}
"""In what costs of a kind are counted where nobody says it; of the others there is no usual unit."""
