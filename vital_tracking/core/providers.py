"""Providers' names, and where the price of a model that one of them runs is listed in genai-prices."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

_SPELLINGS: Final[Mapping[str, str]] = {
    "aws": "amazon amazon_bedrock anthropic_bedrock anthropic_mantle aws_bedrock bedrock bedrock_converse bedrock_mantle "
    "openai_mantle",
    "azure": "azure_ai azure_ai_inference azure_ai_openai azure_openai azureai azureaichatcompletionsmodel",
    "cohere": "cohere_chat",
    "fireworks": "fireworks_ai",
    "github-copilot": "github_copilot",
    "google": "anthropic_vertex anthropicvertex gcp_gemini gcp_gen_ai gcp_vertex_ai gemini google_anthropic_vertex google_genai "
    "google_gla google_vertex google_vertexai vertex_ai vertexai",
    "mistral": "mistral_ai mistralai",
    "moonshotai": "moonshot moonshot_ai",
    "openai": "openai_codex",
    "perplexity": "perplexity_ai",
    "together": "together_ai togetherai",
    "voyageai": "voyage voyage_ai",
    "x-ai": "grok x_ai xai",
}

PROVIDER_ALIASES: Final[Mapping[str, str]] = {
    alias: listed for listed, aliases in _SPELLINGS.items() for alias in aliases.split()
}
"""Names of providers, with `_` for whatever parts their words, and the id in genai-prices, where they differ.

They are LangChain's `ls_provider` and `init_chat_model`'s, LiteLLM's prefixes, and OpenTelemetry's `gen_ai.provider.name`. A
name that is not here is the id itself or nobody's: a part of it (`my-openai-proxy`) says nothing of who is paid. `openai-codex`
counts as OpenAI's list price; who pays for it by a ChatGPT plan sets a price of his own, which may be 0.
"""

MODEL_ALIASES: Final[Mapping[tuple[str, str], str]] = {
    # Bedrock's Mantle endpoints leave out date and version. https://docs.aws.amazon.com/bedrock/latest/userguide/bedrock-mantle.html
    ("aws", "anthropic.claude-haiku-4-5"): "anthropic.claude-haiku-4-5-20251001-v1:0",
    ("aws", "openai.gpt-oss-120b"): "openai.gpt-oss-120b-1:0",
    ("aws", "openai.gpt-oss-20b"): "openai.gpt-oss-20b-1:0",
}
"""Names of models that genai-prices does not know, by its provider's id, and those by which it does."""

# Many gateways are reached with OpenAI's client, and so are many servers of one's own: there only models that run nowhere but
# at their vendor are looked up.
_VENDORS: Final = ("anthropic", "google", "openai", "perplexity", "x-ai")

# Who runs other vendors' models at the vendors' own prices. https://docs.perplexity.ai/getting-started/pricing, "Agent API"
_RESELLERS: Final = ("perplexity",)

_OPEN_WEIGHTS: Final = ("gemma", "gpt-oss")

UNTOLD: Final = (None, "litellm")
"""In place of a provider's name where only the model's says who runs it."""

_PARTING: Final = re.compile(r"[\s.-]+")


@lru_cache(maxsize=1024)
def provider_id(provider: str | None) -> str | None:
    """A provider's name as `genai-prices` has it, whatever LangChain or the team calls it."""
    if not provider or not (name := provider.strip().lower()):
        return None
    return PROVIDER_ALIASES.get(_PARTING.sub("_", name), name)


def listed_names(provider: str | None, model: str) -> Iterator[tuple[str | None, str]]:
    """Where to look for a model's price, best first: (provider's id, or None for whoever is known by the model; model).

    `provider` is an id, `model` in lower case.
    """
    prefix, _, rest = model.partition("/")
    owner = provider_id(prefix) if rest else None
    name = model.rpartition("/")[2]
    if provider in UNTOLD:
        yield from _by_name(provider, owner, model, rest)
        return
    if provider == "openai" and name.startswith(_OPEN_WEIGHTS):
        return  # OpenAI serves none of these itself: its client is talking to another server
    yield provider, MODEL_ALIASES.get((provider, model), model)
    if owner == provider and not (provider == "openai" and ":" in rest):  # `azure/gpt-4o` of azure
        yield from listed_names(provider, rest)
    elif provider in ("aws", "google") and rest:  # `models/gemini-2.5-pro`, and the ARNs of Bedrock's profiles
        yield provider, name
    elif provider == "openrouter":
        plain, _, suffix = model.partition(":")  # `:online`, `:nitro` and the like route, they do not price
        yield provider, plain
        if owner is not None and suffix != "free":
            yield from listed_names(owner, plain.partition("/")[2])
    elif provider in _RESELLERS and owner is not None:
        yield from listed_names(owner, rest)
    elif provider == "openai" and owner in _VENDORS:
        yield from listed_names("openrouter", model)
    elif provider == "openai" and (not rest or prefix == "models"):
        yield from ((vendor, name) for vendor in _VENDORS if vendor != provider)


def _by_name(provider: str | None, owner: str | None, model: str, rest: str) -> Iterator[tuple[str | None, str]]:
    """Where to look for a model of which only its name says who runs it: LiteLLM's prefix, or a name alone."""
    open_weights = model.rpartition("/")[2].startswith(_OPEN_WEIGHTS)
    if owner is None:
        if not open_weights:
            yield None, model
        return
    if provider is None and not (open_weights and owner in _VENDORS):
        yield "openrouter", model
    yield from listed_names(owner, rest)
