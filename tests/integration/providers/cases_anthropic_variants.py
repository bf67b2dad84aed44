"""Answers of Anthropic's Messages API in several passes and at other prices than the standard ones, and what they cost."""

from __future__ import annotations

from typing import Final

from tests.integration.providers.corpus import Case
from tests.integration.providers.wire_anthropic import (
    ADVISOR_TOOL,
    DOCS,
    SEARCH_TOOL,
    TEXT,
    case,
    one_pass,
    said,
    searches,
    usage,
    writes,
)
from tests.support.wire_server import Json

_SEARCH: Final = DOCS + "agents-and-tools/tool-use/web-search-tool"
_ADVISOR: Final = DOCS + "agents-and-tools/tool-use/advisor-tool"
_FALLBACK: Final = DOCS + "build-with-claude/refusals-and-fallback"
_COMPACTION: Final = DOCS + "build-with-claude/compaction"
_FAST: Final = DOCS + "build-with-claude/fast-mode"
_GEO: Final = DOCS + "manage-claude/data-residency"
_BATCH: Final = DOCS + "build-with-claude/batch-processing"

_ADVISED: Final[list[Json]] = [
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "advisor", "input": {}},
    {
        "type": "advisor_tool_result",
        "tool_use_id": "srvtoolu_1",
        "content": {"type": "advisor_result", "text": "Sort first."},
    },
    TEXT,
]

VARIANTS: Final[tuple[Case, ...]] = (
    case(
        "several passes of one loop",
        _SEARCH,
        "claude-sonnet-4-6",
        usage(
            2000,
            100,
            server_tool_use={"web_search_requests": 1, "web_fetch_requests": 0},
            iterations=[one_pass("message", 800, 60), one_pass("message", 1200, 40)],
        ),
        said(2000, 100),
        "2000*3/M + 100*15/M + 1*10/K",
        fees="1*10/K",
        units={"web_searches": 1},
        content=searches(1),
        request={"tools": [SEARCH_TOOL]},
    ),
    case(
        "fast",
        _FAST,
        "claude-opus-4-8",
        usage(600, 1000, speed="fast"),
        said(600, 1000),
        "600*10/M + 1000*50/M",
        request={"speed": "fast"},
    ),
    case(
        "fast by the model's settings",
        _FAST,
        "claude-opus-5",
        usage(600, 1000, speed="fast"),
        said(600, 1000),
        "600*10/M + 1000*50/M",
        settings={"model_kwargs": {"speed": "fast"}},
    ),
    case(
        "fast, with a cache",
        _FAST,
        "claude-opus-5-5",
        usage(100, 700, speed="fast", cache_read_input_tokens=30_000, **writes(short=2000)),
        said(32_100, 700, cache_read_tokens=30_000, cache_write_tokens=2000),
        "100*8/M + 30000*0.40/M + 2000*10/M + 700*40/M",
        request={"speed": "fast"},
    ),
    case(
        "standard speed",
        _FAST,
        "claude-opus-4-8",
        usage(600, 1000, speed="standard"),
        said(600, 1000),
        "600*5/M + 1000*25/M",
    ),
    case(
        "only in the US",
        _GEO,
        "claude-sonnet-4-6",
        usage(1000, 200, inference_geo="us"),
        said(1000, 200),
        "1000*3.3/M + 200*16.5/M",
        request={"inference_geo": "us"},
    ),
    case(
        "only in the US by the model's settings, with a cache",
        _GEO,
        "claude-opus-4-8",
        usage(100, 200, inference_geo="us", cache_read_input_tokens=5000, **writes(short=1000)),
        said(6100, 200, cache_read_tokens=5000, cache_write_tokens=1000),
        "100*5.5/M + 5000*0.55/M + 1000*6.875/M + 200*27.5/M",
        settings={"inference_geo": "us"},
    ),
    case(
        "only in the US, with searches at their own price",
        _GEO,
        "claude-sonnet-4-6",
        usage(1000, 200, inference_geo="us", server_tool_use={"web_search_requests": 3, "web_fetch_requests": 0}),
        said(1000, 200),
        "1000*3.3/M + 200*16.5/M + 3*10/K",
        fees="3*10/K",
        units={"web_searches": 3},
        content=searches(3),
        request={"inference_geo": "us", "tools": [SEARCH_TOOL]},
    ),
    case(
        "only in the US, and fast",
        _FAST,
        "claude-opus-5-5",
        usage(600, 1000, inference_geo="us", speed="fast"),
        said(600, 1000),
        "600*8.8/M + 1000*44/M",
        request={"inference_geo": "us", "speed": "fast"},
    ),
    case(
        "anywhere",
        _GEO,
        "claude-sonnet-4-6",
        usage(1000, 200, inference_geo="global"),
        said(1000, 200),
        "1000*3/M + 200*15/M",
    ),
    case(
        "a model without a choice of place",
        _GEO,
        "claude-haiku-4-5",
        usage(1000, 200, inference_geo="not_available"),
        said(1000, 200),
        "1000*1/M + 200*5/M",
    ),
)
"""Price variants, and passes whose sum stands in the usage as well."""

PASSES: Final[tuple[Case, ...]] = (
    case(
        "a conversation compacted",
        _COMPACTION,
        "claude-sonnet-4-6",
        usage(110, 30, iterations=[one_pass("compaction", 52_321, 700), one_pass("message", 110, 30)]),
        said(52_431, 730),
        "52321*3/M + 700*15/M + 110*3/M + 30*15/M",
        content=[{"type": "compaction", "content": "What was said so far."}, TEXT],
        settings={"betas": ["compact-2026-01-12"]},
    ),
    case(
        "a conversation compacted, with a cache",
        _COMPACTION,
        "claude-opus-4-8",
        usage(
            45,
            1234,
            cache_read_input_tokens=2000,
            **writes(short=500),
            iterations=[
                one_pass("compaction", 61, 3500, cache_read_input_tokens=180_000),
                one_pass("message", 45, 1234, cache_read_input_tokens=2000, **writes(short=500)),
            ],
        ),
        said(182_606, 4734, cache_read_tokens=182_000, cache_write_tokens=500),
        "61*5/M + 180000*0.50/M + 3500*25/M + 45*5/M + 2000*0.50/M + 500*6.25/M + 1234*25/M",
        content=[{"type": "compaction", "content": "What was said so far."}, TEXT],
        settings={"betas": ["compact-2026-01-12"]},
    ),
    case(
        "an adviser asked",
        _ADVISOR,
        "claude-sonnet-4-6",
        usage(
            412,
            531,
            iterations=[
                one_pass("message", 412, 89),
                one_pass("advisor_message", 823, 1612, model="claude-opus-4-8"),
                one_pass("message", 1348, 442, cache_read_input_tokens=412),
            ],
        ),
        said(2172, 531, cache_read_tokens=412),
        "1760*3/M + 412*0.30/M + 531*15/M + 823*5/M + 1612*25/M",
        fees="823*5/M + 1612*25/M",
        content=_ADVISED,
        request={"tools": [ADVISOR_TOOL]},
    ),
    case(
        "another model that answered after the first had declined",
        _FALLBACK,
        "claude-opus-5-5",
        usage(
            700,
            120,
            iterations=[
                one_pass("message", 700, 12, model="claude-opus-5-5"),
                one_pass("fallback_message", 700, 120, model="claude-sonnet-5-5-20261001"),
            ],
        ),
        said(700, 120),
        "700*2/M + 120*10/M + 700*4/M + 12*20/M",
        fees="700*4/M + 12*20/M",
        answering="claude-sonnet-5-5",
    ),
    case(
        "an adviser asked, with a cache of its own",
        _ADVISOR,
        "claude-haiku-4-5",
        usage(
            400,
            90,
            iterations=[
                one_pass("message", 400, 90),
                one_pass(
                    "advisor_message",
                    100,
                    500,
                    model="claude-opus-4-8",
                    cache_read_input_tokens=8000,
                    **writes(long=1000),
                ),
            ],
        ),
        said(400, 90),
        "400*1/M + 90*5/M + 100*5/M + 8000*0.50/M + 1000*10/M + 500*25/M",
        fees="100*5/M + 8000*0.50/M + 1000*10/M + 500*25/M",
        content=_ADVISED,
        request={"tools": [ADVISOR_TOOL]},
    ),
)
"""Answers made in several passes. A stream has only the counts of the last ones, since LangChain drops the list of passes."""

BATCHED: Final[tuple[Case, ...]] = (
    case(
        "from a batch",
        _BATCH,
        "claude-sonnet-4-6",
        usage(10_000, 500, service_tier="batch"),
        said(10_000, 500),
        "10000*1.5/M + 500*7.5/M",
    ),
    case(
        "from a batch, with searches at full price",
        _BATCH,
        "claude-opus-5-5",
        usage(10_000, 500, service_tier="batch", server_tool_use={"web_search_requests": 2, "web_fetch_requests": 0}),
        said(10_000, 500),
        "10000*2/M + 500*10/M + 2*10/K",
        fees="2*10/K",
        units={"web_searches": 2},
        content=searches(2),
    ),
    case(
        "from a batch, with a cache",
        _BATCH,
        "claude-haiku-4-5",
        usage(10_000, 500, service_tier="batch", cache_read_input_tokens=20_000, **writes(short=1000)),
        said(31_000, 500, cache_read_tokens=20_000, cache_write_tokens=1000),
        "10000*0.5/M + 20000*0.05/M + 1000*0.625/M + 500*2.5/M",
    ),
)
"""Answers whose tier only the whole usage tells, which a stream does not have."""
