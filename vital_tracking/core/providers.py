"""Providers' names, and where the price of a model that one of them runs is listed in genai-prices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

# LangChain's `ls_provider` and other frameworks' names -> the id in genai-prices, where they differ.
PROVIDER_ALIASES: Final[Mapping[str, str]] = {
    "amazon": "aws",
    "amazon_bedrock": "aws",
    "azure_ai": "azure",
    "azure_openai": "azure",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "fireworks_ai": "fireworks",
    "gemini": "google",
    "google_anthropic_vertex": "google",
    "google_genai": "google",
    "google_vertexai": "google",
    "grok": "x-ai",
    "mistralai": "mistral",
    "moonshot": "moonshotai",
    "together_ai": "together",
    "togetherai": "together",
    "vertexai": "google",
    "voyage": "voyageai",
    "xai": "x-ai",
}

# Where a name such as `anthropic/claude-3.5-haiku` says whose model it is. Elsewhere (Ollama, vLLM, Hugging Face) such names
# are of open models that run somewhere else, where no list price holds.
_GATEWAYS: Final = (None, "litellm", "openrouter")

# Many gateways are reached with OpenAI's client, and so are many servers of one's own: there only models that run nowhere but
# at their vendor are looked up by their name's beginning.
_VENDORS: Final = ("anthropic", "google", "openai", "perplexity", "x-ai")
_OPEN_WEIGHTS: Final = ("gemma", "gpt-oss")


def provider_id(provider: str | None) -> str | None:
    """A provider's name as `genai-prices` has it, whatever LangChain or the team calls it."""
    if not provider or not (name := provider.strip().lower()):
        return None
    return PROVIDER_ALIASES.get(name, name)


def listed_names(provider: str | None, model: str) -> Iterator[tuple[str | None, str]]:
    """Where to look for a model's price, best first: (provider's id, or None for whoever is known by the model; model).

    `provider` is an id, `model` in lower case.
    """
    prefix, slash, rest = model.partition("/")
    if provider == "openai" and model.rpartition("/")[2].startswith(_OPEN_WEIGHTS):
        return  # OpenAI serves none of these itself: its client is talking to another server
    yield provider, model
    if slash and rest and provider_id(prefix) == provider:  # `azure/gpt-4o` of azure
        yield provider, rest
    if provider in ("aws", "google") and slash:  # `models/gemini-2.5-pro`, and the ARNs of Bedrock's profiles
        yield provider, model.rpartition("/")[2]
    if provider == "openrouter" and ":" in model:  # `:online`, `:nitro` and the like route, they do not price
        yield provider, model.partition(":")[0]
    if slash and rest and (provider in _GATEWAYS or (provider == "openai" and prefix in _VENDORS)):
        yield "openrouter", model
        yield provider_id(prefix), rest
