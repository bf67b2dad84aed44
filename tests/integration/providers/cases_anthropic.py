"""Answers of Anthropic's Messages API in one pass, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from tests.integration.providers.corpus import Case
from tests.integration.providers.wire_anthropic import (
    DOCS,
    ONE_HOUR,
    SEARCH_TOOL,
    TEXT,
    THOUGHT,
    case,
    said,
    searches,
    usage,
    writes,
)
from tests.support.wire_server import Json

_PRICES: Final = DOCS + "about-claude/pricing"
_CACHE: Final = DOCS + "build-with-claude/prompt-caching"
_THINKING: Final = DOCS + "build-with-claude/extended-thinking"
_SEARCH: Final = DOCS + "agents-and-tools/tool-use/web-search-tool"
_FETCH: Final = DOCS + "agents-and-tools/tool-use/web-fetch-tool"
_CODE: Final = DOCS + "agents-and-tools/tool-use/code-execution-tool"
_TIERS: Final = DOCS + "api/service-tiers"

_FETCHED: Final[list[Json]] = [
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_fetch", "input": {"url": "https://a.example"}},
    {
        "type": "web_fetch_tool_result",
        "tool_use_id": "srvtoolu_1",
        "content": {
            "type": "web_fetch_result",
            "url": "https://a.example",
            "content": {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "A page."}},
            "retrieved_at": "2026-11-15T12:00:00Z",
        },
    },
    TEXT,
]
_RUN: Final[list[Json]] = [
    {"type": "server_tool_use", "id": "srvtoolu_9", "name": "bash_code_execution", "input": {"command": "ls"}},
    {
        "type": "bash_code_execution_tool_result",
        "tool_use_id": "srvtoolu_9",
        "content": {
            "type": "bash_code_execution_result",
            "stdout": "",
            "stderr": "",
            "return_code": 0,
            "content": [],
        },
    },
]
_WEATHER: Final[Json] = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}}

CASES: Final[tuple[Case, ...]] = (
    case("plain", _PRICES, "claude-sonnet-4-6", usage(1000, 500), said(1000, 500), "1000*3/M + 500*15/M"),
    case("dated name", _PRICES, "claude-haiku-4-5-20251001", usage(812, 93), said(812, 93), "812*1/M + 93*5/M"),
    case("newest opus", _PRICES, "claude-opus-5-5", usage(2400, 310), said(2400, 310), "2400*4/M + 310*20/M"),
    case(
        "read from the cache",
        _CACHE,
        "claude-sonnet-4-6",
        usage(50, 503, cache_read_input_tokens=100_000),
        said(100_050, 503, cache_read_tokens=100_000),
        "50*3/M + 100000*0.30/M + 503*15/M",
    ),
    case(
        "written for five minutes",
        _CACHE,
        "claude-sonnet-4-6",
        usage(21, 393, **writes(short=188_086)),
        said(188_107, 393, cache_write_tokens=188_086),
        "21*3/M + 188086*3.75/M + 393*15/M",
    ),
    case(
        "read and written",
        _CACHE,
        "claude-opus-4-8",
        usage(2048, 503, cache_read_input_tokens=1800, **writes(short=248)),
        said(4096, 503, cache_read_tokens=1800, cache_write_tokens=248),
        "2048*5/M + 1800*0.50/M + 248*6.25/M + 503*25/M",
    ),
    case(
        "written for an hour",
        _CACHE,
        "claude-sonnet-4-6",
        usage(300, 80, **writes(long=4000)),
        said(4300, 80, cache_write_tokens=4000, cache_write_1h_tokens=4000),
        "300*3/M + 4000*6/M + 80*15/M",
        request={"cache_control": ONE_HOUR},
    ),
    case(
        "written for both",
        _CACHE,
        "claude-sonnet-4-6",
        usage(2048, 503, cache_read_input_tokens=1800, **writes(short=456, long=100)),
        said(4404, 503, cache_read_tokens=1800, cache_write_tokens=556, cache_write_1h_tokens=100),
        "2048*3/M + 1800*0.30/M + 456*3.75/M + 100*6/M + 503*15/M",
        request={
            "cache_control": ONE_HOUR,
            "tools": [{"name": "weather", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}],
        },
    ),
    case(
        "thinking, counted",
        _THINKING,
        "claude-sonnet-4-6",
        usage(210, 2300, output_tokens_details={"thinking_tokens": 1900}),
        said(210, 2300, reasoning_tokens=1900),
        "210*3/M + 2300*15/M",
        content=[THOUGHT, TEXT],
    ),
    case(
        "thinking, not counted apart",
        _THINKING,
        "claude-sonnet-4-6",
        usage(210, 2300),
        said(210, 2300),
        "210*3/M + 2300*15/M",
        content=[THOUGHT, TEXT],
    ),
    case(
        "thinking, redacted",
        _THINKING,
        "claude-sonnet-4-6",
        usage(210, 900),
        said(210, 900),
        "210*3/M + 900*15/M",
        content=[{"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3p"}, TEXT],
        settings={"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2048},
    ),
    case(
        "two searches",
        _SEARCH,
        "claude-sonnet-4-6",
        usage(9638, 510, server_tool_use={"web_search_requests": 2, "web_fetch_requests": 0}),
        said(9638, 510),
        "9638*3/M + 510*15/M + 2*10/K",
        fees="2*10/K",
        units={"web_searches": 2},
        content=searches(2),
        request={"tools": [SEARCH_TOOL]},
    ),
    case(
        "three searches of which one failed",
        _SEARCH,
        "claude-haiku-4-5",
        usage(6039, 931, server_tool_use={"web_search_requests": 2, "web_fetch_requests": 0}),
        said(6039, 931),
        "6039*1/M + 931*5/M + 2*10/K",
        fees="2*10/K",
        units={"web_searches": 2},
        content=searches(3, failed=1),
        request={"tools": [SEARCH_TOOL]},
    ),
    case(
        "a page fetched, which is free",
        _FETCH,
        "claude-sonnet-4-6",
        usage(25_039, 931, server_tool_use={"web_search_requests": 0, "web_fetch_requests": 1}),
        said(25_039, 931),
        "25039*3/M + 931*15/M",
        content=_FETCHED,
        request={"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]},
    ),
    case(
        "code run beside a search, which is free",
        _CODE,
        "claude-sonnet-4-6",
        usage(4100, 620, server_tool_use={"web_search_requests": 1, "web_fetch_requests": 0}),
        said(4100, 620),
        "4100*3/M + 620*15/M + 1*10/K",
        fees="1*10/K",
        units={"web_searches": 1},
        content=[*_RUN, *searches(1)],
        request={"tools": [SEARCH_TOOL, {"type": "code_execution_20250825", "name": "code_execution"}]},
    ),
    case(
        "priority, bought beforehand",
        _TIERS,
        "claude-sonnet-4-6",
        usage(410, 585, service_tier="priority"),
        said(410, 585),
        "410*3/M + 585*15/M",
    ),
    case(
        "a long prompt at the long price",
        _PRICES,
        "claude-haiku-5-5",
        usage(70_001, 1000, cache_read_input_tokens=30_000),
        said(100_001, 1000, cache_read_tokens=30_000),
        "70001*0.50/M + 30000*0.05/M + 1000*2.50/M",
    ),
    case(
        "a long prompt just below",
        _PRICES,
        "claude-haiku-5-5",
        usage(100_000, 1000),
        said(100_000, 1000),
        "100000*0.10/M + 1000*0.50/M",
    ),
    case(
        "a long prompt of a model with one price",
        _PRICES,
        "claude-sonnet-4-6",
        usage(600_000, 1000),
        said(600_000, 1000),
        "600000*3/M + 1000*15/M",
    ),
    case(
        "a call of a tool",
        _PRICES,
        "claude-sonnet-4-6",
        usage(472, 65),
        said(472, 65),
        "472*3/M + 65*15/M",
        content=[TEXT, _WEATHER],
        stop_reason="tool_use",
        request={"tools": [{"name": "weather", "input_schema": {"type": "object"}}]},
    ),
    case(
        "a refusal, which is billed",
        DOCS + "test-and-evaluate/strengthen-guardrails/handle-streaming-refusals",
        "claude-sonnet-4-6",
        usage(564, 12),
        said(564, 12),
        "564*3/M + 12*15/M",
        stop_reason="refusal",
    ),
    case(
        "cut short by its limit",
        _PRICES,
        "claude-sonnet-4-6",
        usage(564, 1024),
        said(564, 1024),
        "564*3/M + 1024*15/M",
        stop_reason="max_tokens",
    ),
    case("a model that nobody knows", _PRICES, "claude-nocturne-9", usage(10, 20), said(10, 20), None),
)

STREAMED: Final[Mapping[str, Mapping[str, Any]]] = {
    "written for an hour": {"notes": ("cache_ttl_from_request",)},
    "written for both": {
        "tokens": said(4404, 503, cache_read_tokens=1800, cache_write_tokens=556),
        "cost": "2048*3/M + 1800*0.30/M + 556*3.75/M + 503*15/M",
        "notes": ("cache_ttl_hidden",),
        "estimated": True,
    },
}
"""Where a stream tells less, what is different in the row: `message_delta` does not say how long a cache entry is kept."""


def streamed(case: Case) -> Case:
    """The case as a stream tells it."""
    return replace(case, **STREAMED.get(case.name, {}))
