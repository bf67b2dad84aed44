"""Chat completions of OpenAI. Prices in US dollars for a million tokens, as of the corpus's day; sources in `openai_wire`."""

from __future__ import annotations

from typing import Final

from tests.integration.providers.corpus import Case
from tests.integration.providers.openai_wire import CHAT, PRICING, TEXT, completion, usage

_AUDIO_ANSWER: Final = {
    "content": None,
    "audio": {"id": "audio_68", "data": "UklGRg==", "expires_at": 1_763_211_600, "transcript": TEXT},
}
_SPEAKS: Final = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}
_CALL: Final = {
    "id": "call_abc123",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Basel"}'},
}
_SEARCHED: Final = {
    "annotations": [
        {
            "type": "url_citation",
            "url_citation": {"start_index": 0, "end_index": 5, "title": "Hello", "url": "https://example.com"},
        }
    ]
}

TOKENS: Final = (
    Case(
        name="plain",
        source=CHAT,
        model="gpt-4o",
        body=completion("gpt-4o-2024-08-06", usage(1000, 500), service_tier="default"),
        tokens={"prompt_tokens": 1000, "completion_tokens": 500},
        cost="1000*2.50/M + 500*10/M",
    ),
    Case(
        name="a snapshot with a price of its own",
        source=PRICING,
        model="gpt-4o-2024-05-13",
        body=completion("gpt-4o-2024-05-13", usage(1000, 500)),
        tokens={"prompt_tokens": 1000, "completion_tokens": 500},
        cost="1000*5/M + 500*15/M",
    ),
    Case(
        name="a fine-tuned model",
        source=PRICING,
        model="ft:gpt-4o-2024-08-06:acme::B7x",
        body=completion("ft:gpt-4o-2024-08-06:acme::B7x", usage(1000, 500)),
        tokens={"prompt_tokens": 1000, "completion_tokens": 500},
        cost="1000*3.75/M + 500*15/M",
    ),
    Case(
        name="usage without details",
        source=CHAT,
        model="gpt-3.5-turbo",
        body=completion("gpt-3.5-turbo-0125", {"prompt_tokens": 57, "completion_tokens": 17, "total_tokens": 74}),
        tokens={"prompt_tokens": 57, "completion_tokens": 17},
        cost="57*0.50/M + 17*1.50/M",
    ),
    Case(
        name="cached",
        source="https://platform.openai.com/docs/guides/prompt-caching",
        model="gpt-4o-mini",
        body=completion("gpt-4o-mini-2024-07-18", usage(2006, 300, cached=1920)),
        tokens={"prompt_tokens": 2006, "cache_read_tokens": 1920, "completion_tokens": 300},
        cost="86*0.15/M + 1920*0.075/M + 300*0.60/M",
    ),
    Case(
        name="cache written",
        source=PRICING,
        model="gpt-6-sol",
        body=completion("gpt-6-sol", usage(5000, 400, cached=1024, written=3000)),
        tokens={
            "prompt_tokens": 5000,
            "cache_read_tokens": 1024,
            "cache_write_tokens": 3000,
            "completion_tokens": 400,
        },
        cost="976*2/M + 1024*0.20/M + 3000*2.50/M + 400*10/M",
    ),
    Case(
        name="reasoning",
        source="https://platform.openai.com/docs/guides/reasoning",
        model="o3",
        body=completion("o3-2025-04-16", usage(75, 1186, reasoning=1024)),
        tokens={"prompt_tokens": 75, "completion_tokens": 1186, "reasoning_tokens": 1024},
        cost="75*2/M + 1186*8/M",
    ),
    Case(
        name="cached and reasoning",
        source=CHAT,
        model="gpt-5-mini",
        body=completion("gpt-5-mini-2025-08-07", usage(4096, 900, cached=3584, reasoning=640)),
        tokens={
            "prompt_tokens": 4096,
            "cache_read_tokens": 3584,
            "completion_tokens": 900,
            "reasoning_tokens": 640,
        },
        cost="512*0.25/M + 3584*0.025/M + 900*2/M",
    ),
    Case(
        name="thought alone until its limit",
        source="https://platform.openai.com/docs/guides/reasoning#managing-costs",
        model="gpt-5-nano",
        body=completion("gpt-5-nano-2025-08-07", usage(30, 2000, reasoning=2000), text="", finish_reason="length"),
        tokens={"prompt_tokens": 30, "completion_tokens": 2000, "reasoning_tokens": 2000},
        cost="30*0.05/M + 2000*0.40/M",
    ),
    Case(
        name="predicted output",
        source="https://platform.openai.com/docs/guides/predicted-outputs",
        model="gpt-4o-mini",
        body=completion(
            "gpt-4o-mini-2024-07-18",
            {
                **usage(202, 172),
                "completion_tokens_details": {
                    "reasoning_tokens": 0,
                    "audio_tokens": 0,
                    "accepted_prediction_tokens": 60,
                    "rejected_prediction_tokens": 95,
                },
            },
        ),
        tokens={"prompt_tokens": 202, "completion_tokens": 172},  # the rejected ones are among them
        cost="202*0.15/M + 172*0.60/M",
    ),
    Case(
        name="tool call",
        source="https://platform.openai.com/docs/guides/function-calling",
        model="gpt-4.1",
        body=completion(
            "gpt-4.1-2025-04-14", usage(82, 17), text=None, message={"tool_calls": [_CALL]}, finish_reason="tool_calls"
        ),
        tokens={"prompt_tokens": 82, "completion_tokens": 17},
        cost="82*2/M + 17*8/M",
    ),
    Case(
        name="two answers to one question",
        source=CHAT,
        model="gpt-4o-mini",
        settings={"n": 2},
        body=completion("gpt-4o-mini-2024-07-18", usage(120, 260), n=2),
        tokens={"prompt_tokens": 120, "completion_tokens": 260},
        cost="120*0.15/M + 260*0.60/M",
    ),
    Case(
        name="images read",
        source="https://platform.openai.com/docs/guides/images-vision#calculating-costs",
        model="gpt-4.1-mini",
        body=completion("gpt-4.1-mini-2025-04-14", usage(1123, 60)),
        tokens={"prompt_tokens": 1123, "completion_tokens": 60},  # what images are worth is in the prompt, as text
        cost="1123*0.40/M + 60*1.60/M",
    ),
    Case(
        name="filtered",
        source=CHAT,
        model="gpt-4o-mini",
        body=completion("gpt-4o-mini-2024-07-18", usage(40, 12), finish_reason="content_filter"),
        tokens={"prompt_tokens": 40, "completion_tokens": 12},
        cost="40*0.15/M + 12*0.60/M",
    ),
    Case(
        name="a model that nobody has a price for",
        source=CHAT,
        model="gpt-99-preview",
        body=completion("gpt-99-preview", usage(1000, 500)),
        tokens={"prompt_tokens": 1000, "completion_tokens": 500},
        cost=None,
    ),
    Case(
        name="a stream whose usage was not asked for",
        source="https://platform.openai.com/docs/api-reference/chat/create#chat-create-stream_options",
        model="gpt-4o",
        settings={"stream_usage": False},
        invoked=False,
        body=completion("gpt-4o-2024-08-06", usage(1000, 500), text="word " * 40),
        tokens={"prompt_tokens": 2, "completion_tokens": 50},  # "Hello" is 5 bytes, the answer 200
        cost="2*2.50/M + 50*10/M",
        estimated=True,
    ),
)

TIERS: Final = (
    Case(
        name="flex",
        source="https://platform.openai.com/docs/guides/flex-processing",
        model="o3",
        settings={"service_tier": "flex"},
        body=completion("o3-2025-04-16", usage(3000, 800, cached=1024, reasoning=512), service_tier="flex"),
        tokens={
            "prompt_tokens": 3000,
            "cache_read_tokens": 1024,
            "completion_tokens": 800,
            "reasoning_tokens": 512,
        },
        cost="1976*1/M + 1024*0.25/M + 800*4/M",
    ),
    Case(
        name="flex with the cache written",
        source=PRICING,
        model="gpt-6-sol",
        settings={"service_tier": "flex"},
        body=completion("gpt-6-sol", usage(5000, 400, cached=1024, written=3000), service_tier="flex"),
        tokens={
            "prompt_tokens": 5000,
            "cache_read_tokens": 1024,
            "cache_write_tokens": 3000,
            "completion_tokens": 400,
        },
        cost="976*1/M + 1024*0.10/M + 3000*1.25/M + 400*5/M",
    ),
    Case(
        name="default",
        source=PRICING,
        model="gpt-5",
        settings={"service_tier": "default"},
        body=completion("gpt-5-2025-08-07", usage(5000, 400), service_tier="default"),
        tokens={"prompt_tokens": 5000, "completion_tokens": 400},
        cost="5000*1.25/M + 400*10/M",
    ),
    Case(
        name="priority",
        source="https://platform.openai.com/docs/guides/priority-processing",
        model="gpt-4.1",
        settings={"service_tier": "priority"},
        body=completion("gpt-4.1-2025-04-14", usage(3000, 800, cached=1024), service_tier="priority"),
        tokens={"prompt_tokens": 3000, "cache_read_tokens": 1024, "completion_tokens": 800},
        cost="1976*3.50/M + 1024*0.875/M + 800*14/M",
    ),
    Case(
        name="priority asked, default given",
        source="https://platform.openai.com/docs/guides/priority-processing",
        model="gpt-4.1",
        settings={"service_tier": "priority"},
        body=completion("gpt-4.1-2025-04-14", usage(3000, 800), service_tier="default"),
        tokens={"prompt_tokens": 3000, "completion_tokens": 800},
        cost="3000*2/M + 800*8/M",
    ),
    Case(
        name="auto asked, priority given",
        source=CHAT,
        model="gpt-4o",
        settings={"service_tier": "auto"},
        body=completion("gpt-4o-2024-08-06", usage(3000, 800), service_tier="priority"),
        tokens={"prompt_tokens": 3000, "completion_tokens": 800},
        cost="3000*4.25/M + 800*17/M",
    ),
    Case(
        name="a tier that the model has no price for",
        source=CHAT,
        model="gpt-4-turbo",
        body=completion("gpt-4-turbo-2024-04-09", usage(3000, 800), service_tier="scale"),
        tokens={"prompt_tokens": 3000, "completion_tokens": 800},
        cost="3000*10/M + 800*30/M",
    ),
    Case(
        name="a long prompt",
        source=PRICING,
        model="gpt-5.4",
        body=completion("gpt-5.4", usage(300_000, 2000, cached=250_000)),
        tokens={"prompt_tokens": 300_000, "cache_read_tokens": 250_000, "completion_tokens": 2000},
        cost="50_000*5/M + 250_000*0.50/M + 2000*22.50/M",
    ),
    Case(
        name="as long as the cheap price goes",
        source=PRICING,
        model="gpt-5.4",
        body=completion("gpt-5.4", usage(272_000, 2000)),
        tokens={"prompt_tokens": 272_000, "completion_tokens": 2000},
        cost="272_000*2.50/M + 2000*15/M",
    ),
    Case(
        name="a long prompt, flex",
        source=PRICING,
        model="gpt-5.5",
        settings={"service_tier": "flex"},
        body=completion("gpt-5.5", usage(300_000, 2000), service_tier="flex"),
        tokens={"prompt_tokens": 300_000, "completion_tokens": 2000},
        cost="300_000*5/M + 2000*22.50/M",
    ),
)

BESIDE_TEXT: Final = (
    Case(
        name="audio heard and said",
        source=f"{PRICING}#audio-tokens: $40 and $80 a million, text $2.50 and $10",
        model="gpt-4o-audio-preview",
        settings={"model_kwargs": _SPEAKS},
        body=completion(
            "gpt-4o-audio-preview-2025-06-03", usage(129, 160, heard=69, said=100), text=None, message=_AUDIO_ANSWER
        ),
        chunks=(),
        tokens={"prompt_tokens": 129, "completion_tokens": 160, "audio_tokens": 169, "audio_output_tokens": 100},
        cost="60*2.50/M + 69*40/M + 60*10/M + 100*80/M",
    ),
    Case(
        name="audio of a small model",
        source=f"{PRICING}#audio-tokens: $10 and $20 a million, text $0.15 and $0.60",
        model="gpt-4o-mini-audio-preview",
        settings={"model_kwargs": _SPEAKS},
        body=completion(
            "gpt-4o-mini-audio-preview-2024-12-17",
            usage(300, 210, heard=250, said=170),
            text=None,
            message=_AUDIO_ANSWER,
        ),
        chunks=(),
        tokens={"prompt_tokens": 300, "completion_tokens": 210, "audio_tokens": 420, "audio_output_tokens": 170},
        cost="50*0.15/M + 250*10/M + 40*0.60/M + 170*20/M",
    ),
    Case(
        name="audio with listed prices",
        source=PRICING,
        model="gpt-audio",
        body=completion("gpt-audio-2025-08-28", usage(1000, 90, heard=940)),
        tokens={"prompt_tokens": 1000, "completion_tokens": 90, "audio_tokens": 940},
        cost="60*2.50/M + 940*32/M + 90*10/M",
    ),
    Case(
        name="a model that searches",
        source=f"{PRICING}#built-in-tools: web search of the preview models that do not reason, $25 a thousand calls",
        model="gpt-4o-search-preview",
        settings={"model_kwargs": {"web_search_options": {}}},
        body=completion("gpt-4o-search-preview-2025-03-11", usage(12, 380), message=_SEARCHED),
        tokens={"prompt_tokens": 12, "completion_tokens": 380},
        cost="12*2.50/M + 380*10/M + 25/K",
        fees="25/K",
    ),
    Case(
        name="a small model that searches",
        source=f"{PRICING}#built-in-tools: web search of the preview models that do not reason, $25 a thousand calls",
        model="gpt-4o-mini-search-preview",
        settings={"model_kwargs": {"web_search_options": {"search_context_size": "low"}}},
        body=completion("gpt-4o-mini-search-preview-2025-03-11", usage(12, 380), message=_SEARCHED),
        tokens={"prompt_tokens": 12, "completion_tokens": 380},
        cost="12*0.15/M + 380*0.60/M + 25/K",
        fees="25/K",
    ),
)

CASES: Final = (*TOKENS, *TIERS, *BESIDE_TEXT)
