"""Whether the tokens that a result counts are all that is billed of its call, so that they bound what it cost.

Runs in a caller's thread before the next call, in place of working out the bill, which takes far longer. It knows what is
harmless, not what is billed: whatever it does not know means that the bill must be worked out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from vital_tracking.calls.live import LiveCall
from vital_tracking.calls.names_of import requested_model_of
from vital_tracking.core.sanitize import MAX_TOKENS, is_mapping

_FIELDS: Final = frozenset(
    {"model_name", "model", "model_id", "finish_reason", "stop_reason", "status", "service_tier"}
)
_USUAL_TIERS: Final = frozenset({None, "default", "standard"})

# Names of counts that are parts of the prompt or of the answer and no dearer than the dearest price that a hold is quoted at.
_PARTS: Final = frozenset(
    {
        "cache_read",
        "cache_creation",
        "ephemeral_5m_input_tokens",
        "reasoning",
        "cached_tokens",
        "reasoning_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "prompt_tokens",
        "completion_tokens",
        "input_tokens",
        "output_tokens",
        "total_tokens",
    }
)
_WHOLE: Final = frozenset({int, type(None)})
_GROUPS: Final = frozenset(
    {
        "input_token_details",
        "output_token_details",
        "prompt_tokens_details",
        "completion_tokens_details",
        "input_tokens_details",
        "output_tokens_details",
        "cache_creation",
    }
)


def billed_tokens(call: object) -> tuple[int, int] | None:
    """The tokens of prompt and answer where nothing else can be billed of an ended call; None where that is not certain."""
    if (
        not isinstance(call, LiveCall)
        or call.call_type != "chat"
        or call.error is not None
        or call.inner
        or call.hidden
    ):
        return None
    usage, response = call.usage, call.response
    if usage is None or response is None or not _FIELDS.issuperset(response):
        return None
    prompt, answer = usage.get("input_tokens"), usage.get("output_tokens")
    if (
        type(prompt) is not int
        or type(answer) is not int
        or not (0 < prompt <= MAX_TOKENS and 0 < answer <= MAX_TOKENS)
    ):
        return None
    if usage.get("total_tokens") != prompt + answer or response.get("service_tier") not in _USUAL_TIERS:
        return None
    asked = requested_model_of(call.metadata, call.params)
    answered = response.get("model_name") or response.get("model") or asked
    if asked is None or not str(answered).startswith(asked):
        return None
    if not _all_known(usage) or not _all_known(call.token_usage):
        return None
    cached = usage.get("input_token_details")
    if cached and sum(filter(None, cached.values())) > prompt:  # then they stand beside the prompt
        return None
    return prompt, answer


def _all_known(counts: Mapping[str, Any] | None) -> bool:
    """Whether all counts that are not 0 have names that are known to be harmless."""
    if not counts:
        return True
    if _PARTS.issuperset(counts) and _WHOLE.issuperset(map(type, counts.values())):  # as mostly
        return True
    for name, count in counts.items():
        if type(count) is int:
            if count and name not in _PARTS:
                return False
        elif count and not (name in _GROUPS and is_mapping(count) and _all_known(count)):
            return False
    return True
