"""Answers of OpenAI's Responses API, with the tools that OpenAI runs and bills itself."""

from __future__ import annotations

from typing import Final

from tests.integration.providers.corpus import Case
from tests.integration.providers.openai_wire import (
    PRICING,
    RESPONSES,
    code_run,
    file_search,
    message_item,
    reasoning_item,
    response,
    response_usage,
    web_search,
)

_TOOLS: Final = f"{PRICING}#built-in-tools"
_SEARCHES: Final = "https://platform.openai.com/docs/guides/tools-web-search#output-and-citations"
_SEARCH: Final = {"tools": [{"type": "web_search"}]}
_FILES: Final = {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}

TOKENS: Final = (
    Case(
        name="plain",
        source=RESPONSES,
        model="gpt-5",
        body=response("gpt-5-2025-08-07", response_usage(36, 87)),
        tokens={"prompt_tokens": 36, "completion_tokens": 87},
        cost="36*1.25/M + 87*10/M",
    ),
    Case(
        name="cached and reasoning",
        source=RESPONSES,
        model="gpt-5",
        body=response(
            "gpt-5-2025-08-07", response_usage(3000, 900, cached=2560, reasoning=704), reasoning_item(), message_item()
        ),
        tokens={"prompt_tokens": 3000, "cache_read_tokens": 2560, "completion_tokens": 900, "reasoning_tokens": 704},
        cost="440*1.25/M + 2560*0.125/M + 900*10/M",
    ),
    Case(
        name="cache written",
        source=PRICING,
        model="gpt-6-sol",
        body=response("gpt-6-sol", response_usage(5000, 400, cached=1024, written=3000)),
        tokens={"prompt_tokens": 5000, "cache_read_tokens": 1024, "cache_write_tokens": 3000, "completion_tokens": 400},
        cost="976*2/M + 1024*0.20/M + 3000*2.50/M + 400*10/M",
    ),
    Case(
        name="a model without a cache price",
        source=PRICING,
        model="o1-pro",
        body=response("o1-pro-2025-03-19", response_usage(81, 1035, reasoning=832)),
        tokens={"prompt_tokens": 81, "completion_tokens": 1035, "reasoning_tokens": 832},
        cost="81*150/M + 1035*600/M",
    ),
    Case(
        name="flex",
        source="https://platform.openai.com/docs/guides/flex-processing",
        model="gpt-5",
        settings={"service_tier": "flex"},
        body=response("gpt-5-2025-08-07", response_usage(3000, 900, cached=2560, reasoning=704), tier="flex"),
        tokens={"prompt_tokens": 3000, "cache_read_tokens": 2560, "completion_tokens": 900, "reasoning_tokens": 704},
        cost="440*0.625/M + 2560*0.0625/M + 900*5/M",
    ),
    Case(
        name="priority",
        source="https://platform.openai.com/docs/guides/priority-processing",
        model="gpt-5.2",
        settings={"service_tier": "priority"},
        body=response("gpt-5.2", response_usage(3000, 900), tier="priority"),
        tokens={"prompt_tokens": 3000, "completion_tokens": 900},
        cost="3000*3.50/M + 900*28/M",
    ),
    Case(
        name="a long prompt",
        source=PRICING,
        model="gpt-5.5",
        body=response("gpt-5.5", response_usage(272_001, 1000)),
        tokens={"prompt_tokens": 272_001, "completion_tokens": 1000},
        cost="272_001*10/M + 1000*45/M",
    ),
    Case(
        name="cut off at its limit while thinking",
        source="https://platform.openai.com/docs/guides/reasoning#allocating-space-for-reasoning",
        model="gpt-5-mini",
        body=response(
            "gpt-5-mini-2025-08-07",
            response_usage(44, 300, reasoning=300),
            reasoning_item(),
            status="incomplete",
            incomplete_details={"reason": "max_output_tokens"},
        ),
        tokens={"prompt_tokens": 44, "completion_tokens": 300, "reasoning_tokens": 300},
        cost="44*0.25/M + 300*2/M",
    ),
    Case(
        name="no usage in the answer",
        source=RESPONSES,
        model="gpt-5",
        body=response("gpt-5-2025-08-07", None, message_item("word " * 40)),
        tokens={"prompt_tokens": 2, "completion_tokens": 50},  # "Hello" is 5 bytes, the answer 200
        cost="2*1.25/M + 50*10/M",
        estimated=True,
    ),
)

_FOUR_SEARCHES: Final = tuple(web_search(number) for number in range(4))
_FOUR_PRICED: Final = "100*1.25/M + 200*10/M + 4*10/K"


def _four_searches(name: str, **settings: str) -> Case:
    return Case(
        name=name,
        source=_TOOLS,
        model="gpt-5",
        settings=settings,
        request=_SEARCH,
        body=response("gpt-5-2025-08-07", response_usage(100, 200), *_FOUR_SEARCHES, message_item()),
        tokens={"prompt_tokens": 100, "completion_tokens": 200},
        units={"web_searches": 4},
        cost=_FOUR_PRICED,
        fees="4*10/K",
    )


TOOLS: Final = (
    _four_searches("four web searches"),
    _four_searches("four web searches, in the oldest form of messages", output_version="v0"),
    _four_searches("four web searches, in the newest form of messages", output_version="v1"),
    Case(
        name="pages opened after a search",
        source=_SEARCHES,
        model="gpt-5",
        request=_SEARCH,
        body=response(
            "gpt-5-2025-08-07",
            response_usage(9000, 600, reasoning=320),
            reasoning_item(),
            web_search(1),
            web_search(2, "open_page"),
            web_search(3, "find_in_page"),
            message_item(),
        ),
        tokens={"prompt_tokens": 9000, "completion_tokens": 600, "reasoning_tokens": 320},
        units={"web_searches": 1},
        cost="9000*1.25/M + 600*10/M + 1*10/K",
        fees="1*10/K",
    ),
    Case(
        name="pages opened after a search, in the newest form of messages",
        source=_SEARCHES,
        model="gpt-5",
        settings={"output_version": "v1"},
        request=_SEARCH,
        body=response(
            "gpt-5-2025-08-07", response_usage(9000, 600), web_search(1), web_search(2, "open_page"), message_item()
        ),
        tokens={"prompt_tokens": 9000, "completion_tokens": 600},
        units={"web_searches": 1},
        cost="9000*1.25/M + 600*10/M + 1*10/K",
        fees="1*10/K",
    ),
    Case(
        name="the preview of web search, of a model that does not reason",
        source=f"{_TOOLS}: $25 a thousand calls",
        model="gpt-4.1",
        request={"tools": [{"type": "web_search_preview"}]},
        body=response("gpt-4.1-2025-04-14", response_usage(328, 356), web_search(1), message_item()),
        tokens={"prompt_tokens": 328, "completion_tokens": 356},
        units={"web_searches": 1},
        cost="328*2/M + 356*8/M + 1*25/K",
        fees="1*25/K",
    ),
    Case(
        name="file search",
        source=_TOOLS,
        model="gpt-5",
        request=_FILES,
        body=response("gpt-5-2025-08-07", response_usage(100, 200), file_search(1), message_item()),
        tokens={"prompt_tokens": 100, "completion_tokens": 200},
        units={"storage_searches": 1},
        cost="100*1.25/M + 200*10/M + 1*2.50/K",
        fees="1*2.50/K",
    ),
    Case(
        name="file search, in the newest form of messages",
        source=_TOOLS,
        model="gpt-4o-mini",
        settings={"output_version": "v1"},
        request=_FILES,
        body=response("gpt-4o-mini-2024-07-18", response_usage(4000, 200), file_search(1), file_search(2), message_item()),
        tokens={"prompt_tokens": 4000, "completion_tokens": 200},
        units={"storage_searches": 2},
        cost="4000*0.15/M + 200*0.60/M + 2*2.50/K",
        fees="2*2.50/K",
    ),
    Case(
        name="both searches, flex",
        source=_TOOLS,
        model="gpt-5",
        settings={"service_tier": "flex"},
        request={"tools": [*_SEARCH["tools"], *_FILES["tools"]]},
        body=response(
            "gpt-5-2025-08-07",
            response_usage(5000, 700, cached=1024),
            web_search(1),
            file_search(1),
            web_search(2),
            message_item(),
            tier="flex",
        ),
        tokens={"prompt_tokens": 5000, "cache_read_tokens": 1024, "completion_tokens": 700},
        units={"web_searches": 2, "storage_searches": 1},
        cost="3976*0.625/M + 1024*0.0625/M + 700*5/M + 2*10/K + 1*2.50/K",
        fees="2*10/K + 1*2.50/K",
    ),
    Case(
        name="deep research",
        source="https://platform.openai.com/docs/guides/deep-research",
        model="o4-mini-deep-research",
        request=_SEARCH,
        body=response(
            "o4-mini-deep-research-2025-06-26",
            response_usage(60_506, 22_883, reasoning=20_416),
            *(web_search(number) for number in range(12)),
            *(web_search(number, "open_page") for number in range(12, 20)),
            message_item(),
        ),
        tokens={"prompt_tokens": 60_506, "completion_tokens": 22_883, "reasoning_tokens": 20_416},
        units={"web_searches": 12},
        cost="60_506*2/M + 22_883*8/M + 12*10/K",
        fees="12*10/K",
    ),
    Case(
        name="code run twice in one container",
        source=f"{_TOOLS}: $0.03 a container",
        model="gpt-4.1",
        request={"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
        body=response(
            "gpt-4.1-2025-04-14", response_usage(2000, 300), code_run(1, "cntr_a"), code_run(2, "cntr_a"), message_item()
        ),
        tokens={"prompt_tokens": 2000, "completion_tokens": 300},
        units={"code_executions": 1},
        cost="2000*2/M + 300*8/M + 1*30/K",
        fees="1*30/K",
    ),
    Case(
        name="an image made",
        source="https://platform.openai.com/docs/guides/image-generation: tokens of another model, in no answer of LangChain's",
        model="gpt-5",
        request={"tools": [{"type": "image_generation"}]},
        body=response(
            "gpt-5-2025-08-07",
            response_usage(2500, 90),
            {
                "id": "ig_1", "type": "image_generation_call", "status": "completed", "result": "iVBORw0KGgo=",
                "background": "opaque", "output_format": "png", "quality": "high", "size": "1024x1024",
                "revised_prompt": "A cat.",
            },
            message_item(),
        ),
        tokens={"prompt_tokens": 2500, "completion_tokens": 90},
        units={"image_generations": 1},
        cost="2500*1.25/M + 90*10/M",
        notes=("unit_unpriced:image_generations",),
    ),
    Case(
        name="remote tools, which cost nothing but their tokens",
        source=_TOOLS,
        model="gpt-5",
        request={
            "tools": [
                {"type": "mcp", "server_label": "wiki", "server_url": "https://example.com", "require_approval": "never"}
            ]
        },
        body=response(
            "gpt-5-2025-08-07",
            response_usage(1200, 150),
            {
                "id": "mcp_1", "type": "mcp_call", "status": "completed", "name": "ask", "server_label": "wiki",
                "arguments": "{}", "output": "Yes.", "error": None, "approval_request_id": None,
            },
            message_item(),
        ),
        tokens={"prompt_tokens": 1200, "completion_tokens": 150},
        cost="1200*1.25/M + 150*10/M",
    ),
)  # fmt: skip

CASES: Final = (*TOKENS, *TOOLS)
