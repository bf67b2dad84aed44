"""Where providers and their LangChain integrations put what they bill, and what they count differently: data with its source.

Names of counts are in snake case, to which those of the wire are brought (`promptTokenCount` is `prompt_token_count`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from vital_tracking.core.record import PRICE_FACTS

COUNTS_IN: Final = ("usage", "usage_metadata", "usageMetadata", "token_usage", "token_count", "tool_usage")
"""Names under which an answer holds its counts, best first."""

COUNTS_AMONG_FIELDS: Final = ("prompt_eval_count", "eval_count")
"""Counts that stand among the other fields of an answer: Ollama's, of which the first is left out where the prompt was kept."""

COUNTS: Final[Mapping[str, tuple[str, ...]]] = {
    "input_tokens": (
        "billed_units.input_tokens",  # Cohere, whose `tokens` count also what it added itself
        "prompt_tokens",
        "input_tokens",
        "prompt_token_count",
        "prompt_eval_count",  # Ollama
    ),
    "output_tokens": (
        "billed_units.output_tokens",
        "completion_tokens",
        "output_tokens",
        "candidates_token_count",
        "eval_count",
    ),
    "total": ("total_tokens", "total_token_count"),
    "cache_read": (
        "prompt_tokens_details.cached_tokens",  # OpenAI and who follows it
        "input_tokens_details.cached_tokens",  # its Responses API
        "prompt_cache_hit_tokens",  # DeepSeek
        "num_cached_tokens",  # Mistral, the same count a second time
        "cached_content_token_count",  # Gemini
        "cache_read_tokens",
    ),
    "cache_write": ("prompt_tokens_details.cache_write_tokens", "cache_write_tokens"),
    "cache_write_1h": ("cache_creation.ephemeral_1h_input_tokens", "cache_write_1h_tokens"),
    "reasoning": (
        "completion_tokens_details.reasoning_tokens",
        "output_tokens_details.reasoning_tokens",
        "output_tokens_details.thinking_tokens",  # Anthropic
        "thoughts_token_count",  # Gemini
        "reasoning_tokens",  # Perplexity
    ),
    "audio_input": ("prompt_tokens_details.audio_tokens", "audio_input_tokens"),
    "audio_output": ("completion_tokens_details.audio_tokens", "audio_output_tokens"),
}
"""Paths of counts in a usage object as it came over the wire, the first that is there."""

BESIDE_INPUT: Final[Mapping[str, str]] = {
    # Anthropic's and Bedrock's `input_tokens` leave out what was read from a cache or written to it.
    # https://platform.claude.com/docs/en/build-with-claude/prompt-caching#tracking-cache-performance
    "cache_read_input_tokens": "cache_read",
    "cache_creation_input_tokens": "cache_write",
    "cache_write_input_tokens": "cache_write",
}
"""Counts that stand beside the input wherever they are reported by these names."""

UNIT_COUNTS: Final[Mapping[str, str]] = {
    "server_tool_use.web_search_requests": "web_searches",  # Anthropic, OpenRouter
    "num_search_queries": "web_searches",  # Perplexity
    "web_search.num_requests": "web_searches",  # OpenAI's `tool_usage`
    "citation_tokens": "output_citation_tokens",  # Perplexity
    "prompt_tokens_details.image_tokens": "input_image_tokens",
    "completion_tokens_details.image_tokens": "output_image_tokens",
    "prompt_tokens_details.video_tokens": "input_video_tokens",
    "num_sources_used": "search_sources",  # xAI's Live Search
    "prompt_audio_seconds": "input_audio_seconds",  # Mistral
    "search_units": "rerank_searches",  # Cohere
    "billed_units.search_units": "rerank_searches",
}
"""Paths of counts that are no tokens, or tokens of a modality, and the units they are."""

DETAIL_UNITS: Final[Mapping[tuple[str, str], str]] = {
    ("input", "image"): "input_image_tokens",
    ("input", "video"): "input_video_tokens",
    ("output", "image"): "output_image_tokens",
    ("output", "video"): "output_video_tokens",
    ("output", "citation_tokens"): "output_citation_tokens",
}
"""Details of LangChain's `usage_metadata` that are no bucket of their own, and the units they are."""

PLAIN_DETAILS: Final = frozenset({"text", "flex", "priority", "default"})
"""Details that say nothing new: the rest of a total, under the name of a tier or as plain text."""

MODALITY_LISTS: Final[Mapping[str, Mapping[str, str]]] = {
    "prompt_tokens_details": {
        "AUDIO": "audio_input",
        "IMAGE": "input_image_tokens",
        "VIDEO": "input_video_tokens",
        "DOCUMENT": "input_image_tokens",
    },
    "candidates_tokens_details": {
        "AUDIO": "audio_output",
        "IMAGE": "output_image_tokens",
        "VIDEO": "output_video_tokens",
    },
    "cache_tokens_details": {
        "AUDIO": "cache_audio_read_tokens",
        "IMAGE": "cache_image_read_tokens",
        "VIDEO": "cache_video_read_tokens",
    },
}
"""Gemini's lists of `{modality, token_count}` as Vertex hands them over, and the count or unit of each modality."""


class Hidden(NamedTuple):
    """What an integration keeps to itself unless one of the fields `unless` is among the provider's counts, said by a `note`.

    `estimated`: the totals themselves are not what is billed.
    """

    unless: tuple[str, ...]
    note: str
    estimated: bool = False


HIDDEN: Final[Mapping[str, Hidden]] = {
    # ChatMistralAI hands on three totals of a stream; how much of the prompt was cached, at a tenth of the price, is lost.
    # https://docs.mistral.ai/inference/conversations/advanced/prompt-caching
    "mistral": Hidden(("prompt_tokens",), "cache_hidden"),
    # ChatCohere hands on `billed_units` of a stream, and of an invoked call `tokens`, which are more.
    # https://docs.cohere.com/docs/how-does-cohere-pricing-work
    "cohere": Hidden(("total_tokens", "billed_units"), "billed_units_hidden", estimated=True),
}
"""Providers, by their ids, whose integration does not hand on all that decides the bill."""

REASONING_BESIDE: Final = frozenset({"perplexity"})
"""Providers that leave reasoning out of the output and out of the total, and bill it. https://docs.perplexity.ai/getting-started/pricing"""

REST_OF_TOTAL: Final[Mapping[str, str]] = {
    # What a tool read for the model is prompt, billed as such. https://ai.google.dev/gemini-api/docs/url-context#pricing
    "google": "input_tool_tokens",
}
"""What it is that a provider counts in `total_tokens` alone, by its id."""

IN_TOTAL_ALONE: Final[Mapping[str, str]] = {
    # Mistral bills sound by its seconds and counts its tokens in the total. https://docs.mistral.ai/studio/audio/overview
    "mistral": "input_audio_seconds",
}
"""Units whose tokens a provider counts in `total_tokens` and nowhere else, and does not bill, by its id."""

SEARCHES_BY_PROMPT: Final[Mapping[str, tuple[str, ...]]] = {
    # Up to Gemini 2.5 a prompt that was grounded is billed once, from Gemini 3 on each query.
    # https://ai.google.dev/gemini-api/docs/pricing
    "google": ("gemini-1", "gemini-2", "models/gemini-1", "models/gemini-2"),
}
"""Models, by their names' beginnings, for which one prompt is one search however many queries it took."""


SEARCHES_IN_REQUEST: Final = frozenset({"sonar", "sonar-pro", "sonar-reasoning", "sonar-reasoning-pro"})
"""Perplexity's models whose fee of a request has its searches in it. https://docs.perplexity.ai/getting-started/pricing"""


class Block(NamedTuple):
    """A block of content that is billed: the `unit`, and the field whose different values count, where not each block does."""

    unit: str
    distinct: str | None = None


BLOCKS: Final[Mapping[str, Block]] = {
    "web_search_call": Block("web_searches"),
    "file_search_call": Block("storage_searches"),
    "code_interpreter_call": Block("code_executions", distinct="container_id"),  # billed by the container
    "image_generation_call": Block("image_generations"),
    "server:web_search": Block("web_searches"),
    "server:file_search": Block("storage_searches"),
    "server:code_interpreter": Block("code_executions", distinct="container_id"),
    "server:image_generation": Block("image_generations"),
    "executed:search": Block("web_searches"),
    "executed:browser_search": Block("web_searches"),
    "executed:visit": Block("web_visits"),
    "executed:python": Block("code_executions"),
    "custom:x_keyword_search": Block("social_searches"),
    "custom:x_semantic_search": Block("social_searches"),
    "custom:x_user_search": Block("social_searches"),
    "custom:x_thread_fetch": Block("social_searches"),
}
"""Content blocks that are billed apart from tokens, by their type: OpenAI's and xAI's (Responses API, in its three shapes),
Anthropic's server tools, Groq's executed tools."""

UNBILLED: Final[Mapping[str, frozenset[str]]] = {
    # Google bills the tokens of code and its results, Anthropic the hours of a container beyond those that are free, which no
    # answer tells. https://ai.google.dev/gemini-api/docs/code-execution#billing,
    # https://platform.claude.com/docs/en/agents-and-tools/tool-use/code-execution-tool#usage-and-pricing
    "google": frozenset({"code_executions"}),
    "anthropic": frozenset({"code_executions"}),
}
"""Units that a provider does not bill by their count, by its id."""

FREE_ACTIONS: Final = frozenset({"open_page", "find_in_page", "find"})
"""Actions of a `web_search_call` that are not billed: only searches are. https://platform.openai.com/docs/pricing"""

HIDDEN_PASSES: Final = frozenset({"compaction", "server:advisor"})
"""Blocks of answers that took a pass more, whose tokens a stream does not report."""

FREE_REFUSALS: Final[Mapping[str, str]] = {
    # https://platform.claude.com/docs/en/test-and-evaluate/strengthen-guardrails/handle-streaming-refusals
    "anthropic": "refusal",
}
"""The reason with which a provider declines a request, by its id; it is not billed where nothing was said until then."""

IMAGE_BLOCKS: Final = frozenset({"image", "image_url"})

MEDIA_BLOCKS: Final[Mapping[str, str]] = {
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "audio": "audio",
    "input_audio": "audio",
    "video": "video",
    "video_url": "video",
    "file": "file",
    "input_file": "file",
    "document": "file",
}
"""What a block of a prompt's content holds, by its type, or by the name of its one field, as Bedrock has it."""

PAYLOADS: Final = ("data", "base64", "file_data", "bytes")
"""Fields of such a block that hold the medium itself, as base64 or as bytes."""

ASKED_IMAGES: Final = 1600
"""Tokens that a picture in a prompt is taken for, with most models. It bounds those of most models of Claude, of OpenAI's that
count by tiles (85 and eight times 170) and of Gemini 3; https://platform.claude.com/docs/en/build-with-claude/vision.
It is an estimate, as nobody looks into a picture for its size: where a model counts more, its first call teaches that."""

MOST_IMAGE_TOKENS: Final[Mapping[str, int]] = {
    # A base and a price for each of at most eight tiles: https://platform.openai.com/docs/guides/images-vision
    "gpt-4o-mini": 2833 + 8 * 5667,
    # The same page: at most 1,536 patches, times a factor of the model, 1.62, 1.72 or 2.46.
    "gpt-4.1-mini": 2489,
    "gpt-4.1-nano": 3779,
    "o4-mini": 2642,
    "gpt-5-mini": 2489,
    "gpt-5-nano": 3779,
    # Pictures of up to 2,576 pixels a side, at 28 pixels a patch: https://platform.claude.com/docs/en/build-with-claude/vision
    "claude-opus-4-7": 4784,
    "claude-opus-4-8": 4784,
    "claude-opus-5": 4784,
    "claude-sonnet-5": 4784,
    # One token a patch of 32 pixels: a photograph of 12 megapixels, as https://huggingface.co/datasets/JOHNISKING/image-token-cost
    # has measured it, and no bound of a larger one.
    "gpt-5.5": 12_000,
}
"""The same for models that count more, by a part of their names: the most by the page named, where nothing else is said."""


class MediaSize(NamedTuple):
    """How many bytes of a medium come to one token at the least, and how many tokens one is taken for whose size is not known."""

    bytes_a_token: int
    unknown: int


MEDIA_SIZES: Final[Mapping[str, MediaSize]] = {
    # 32 tokens a second with Gemini, 10 with OpenAI, at 16 kbit/s, about the least that speech is encoded at; else five minutes.
    # https://ai.google.dev/gemini-api/docs/audio
    "audio": MediaSize(60, 9_600),
    "wav": MediaSize(500, 9_600),  # 8,000 samples of two bytes a second at the least
    # 300 tokens a second (https://ai.google.dev/gemini-api/docs/video-understanding) at 100 kbit/s; else a minute.
    "video": MediaSize(40, 18_000),
    # A page: 3,000 tokens of text and its picture (https://platform.claude.com/docs/en/build-with-claude/pdf-support), in about
    # 20,000 bytes; else ten pages.
    "file": MediaSize(4, 46_000),
}
"""Conservative, since nobody opens a medium to see how long it is: a hold that is too large lasts as long as its call."""

MOST_MEDIA_TOKENS: Final = 460_000
"""No medium is taken for more: a hundred pages, which is as much as Claude takes at once."""

UNCOMPRESSED: Final = ("wav", "pcm", "l16")
"""Parts of a format or a MIME type that name sound as it is, which is much longer than compressed sound."""

SCHEMA_PARAMETERS: Final = frozenset(
    {
        "tools",
        "functions",
        "response_format",
        "response_schema",
        "json_schema",
        "output_format",
        "output_config",
        "format",
        "text",
    }
)
"""Parameters of a request that hold tools or the schema of its answer, which are billed as a part of the prompt."""

IMAGE_TOKENS: Final[Mapping[str, Mapping[str, int]]] = {
    # https://ai.google.dev/gemini-api/docs/image-generation#aspect_ratios_and_image_size
    "gemini-2.5-flash-image": {"1K": 1290},
    "gemini-2.0-flash-preview-image-generation": {"1K": 1290},
    "gemini-3-pro-image": {"1K": 1120, "2K": 1120, "4K": 2000},
    "gemini-3.1-flash-image": {"512": 747, "0.5K": 747, "1K": 1120, "2K": 1680, "4K": 2520},
}
"""Tokens of one image of an answer, by model (without `-preview`) and by the size that was asked for."""

IMAGE_SIZE: Final = "1K"
"""The size of an image where none is asked for."""

WORDS: Final = frozenset(
    {*PRICE_FACTS, "traffic_type", "modality", "type", "model", "cost", "total_cost", "upstream_inference_cost"}
)
"""Fields of a usage object whose text is kept: they say which price holds."""

ASKED_FACTS: Final[Mapping[str, str | None]] = {
    "speed": None,
    "inference_geo": None,
    "image_config": "image_size",
}
"""Parameters of a request that hold as they were asked for, where the answer does not repeat them; and the field in them."""

CACHE_MARKS: Final = frozenset({"cache_control", "cachePoint"})
LONG_CACHE: Final = "1h"
"""How a request says what is to be cached and for how long. Streams of Claude do not say how long what was written is kept.
https://platform.claude.com/docs/en/build-with-claude/prompt-caching#1-hour-cache-duration"""

ENDS_WITH_REASON: Final = frozenset({"google"})
"""Providers whose answers always name the reason of their end: counts of one without are those so far."""

NOT_IN_FORCE: Final = frozenset({"auto"})
"""Service tiers that are asked for and never in force: the provider chooses one of the others, and may not say which."""

TOOL_FACTS: Final[Mapping[str, tuple[str, str]]] = {
    # OpenAI's first version of web search has its own fee, which the answer does not tell from the second one's.
    "web_search_preview": ("search_tool", "web_search_preview"),
}
"""Tools that decide a price as they are asked for, by their types' beginnings: the fact of PRICE_FACTS and its value."""

COST_HEADERS: Final = ("x-litellm-response-cost",)
"""Headers, in lower case, by which gateways say what a call cost them in US dollars; an integration keeps headers when it is
told to. https://docs.litellm.ai/docs/proxy/response_headers"""

TICKS_PER_DOLLAR: Final = 10**10
"""xAI's `cost_in_usd_ticks`. https://docs.x.ai/docs/guides/cost-tracking"""
