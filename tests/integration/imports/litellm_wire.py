"""Rows of LiteLLM's spend log, as its API writes them."""

from __future__ import annotations

from typing import Any

SECRET = "what the patient said"


def a_request(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A row of the spend log, as LiteLLM's API writes it."""
    return {
        "request_id": f"chatcmpl-{number}",
        "call_type": "acompletion",
        "api_key": "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b",
        "spend": 0.0008,
        "total_tokens": 300,
        "prompt_tokens": 200,
        "completion_tokens": 100,
        "startTime": "2026-01-15T10:00:00.250000Z",
        "endTime": "2026-01-15T10:00:01.500000+00:00",
        "completionStartTime": "2026-01-15T10:00:00.750000Z",
        "model": "openai/gpt-4o-mini",
        "custom_llm_provider": "openai",
        "user": "key-owner",
        "end_user": "u-1",
        "team_id": "acme",
        "cache_hit": "False",
        "request_tags": ["nightly"],
        "session_id": "s-1",
        "status": "success",
        "metadata": {"usage_object": {"prompt_tokens_details": {"cached_tokens": 50}}},
        "messages": [{"role": "user", "content": SECRET}],
        "response": {"choices": [{"message": {"content": SECRET}}]},
        **changes,
    }
