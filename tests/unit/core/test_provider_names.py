"""Which listed price holds for a provider and a model, by every name under which integrations and gateways give them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from vital_tracking.core.pricing import PriceBook
from vital_tracking.core.usage import TokenUsage

AT = datetime(2026, 11, 15, 12, tzinfo=UTC)
BOOK = PriceBook()

SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
REGIONAL_SONNET = f"aws/regional.{SONNET}"
GLOBAL_SONNET = f"aws/global.{SONNET}"
HAIKU_3 = "anthropic.claude-3-haiku-20240307-v1:0"

# Who reports the name, and what it is: the provider, the model, the entry of genai-prices that prices it.
OFFICIAL = [
    ("openai-codex", "gpt-5.1-codex", "openai/gpt-5.1"),
    # langchain-openai
    ("openai", "gpt-4o", "openai/gpt-4o"),
    ("openai", "gpt-4o-2024-08-06", "openai/gpt-4o"),
    ("azure", "gpt-4o", "azure/gpt-4o"),
    ("azure", "gpt-4o-2024-11-20", "azure/gpt-4o"),
    # langchain-anthropic
    ("anthropic", "claude-sonnet-4-5-20250929", "anthropic/claude-sonnet-4-5"),
    # langchain-aws: ChatBedrock and ChatBedrockConverse
    ("amazon_bedrock", SONNET, REGIONAL_SONNET),
    ("amazon_bedrock", f"us.{SONNET}", REGIONAL_SONNET),
    ("amazon_bedrock", f"eu.{SONNET}", REGIONAL_SONNET),
    ("amazon_bedrock", f"jp.{SONNET}", REGIONAL_SONNET),
    ("amazon_bedrock", f"global.{SONNET}", GLOBAL_SONNET),
    (
        "amazon_bedrock",
        "apac.anthropic.claude-sonnet-4-20250514-v1:0",
        "aws/regional.anthropic.claude-sonnet-4-20250514-v1:0",
    ),
    ("amazon_bedrock", "amazon.nova-lite-v1:0", "aws/amazon.nova-lite-v1:0"),
    ("amazon_bedrock", "us.amazon.nova-lite-v1:0", "aws/amazon.nova-lite-v1:0"),
    ("amazon_bedrock", "us.meta.llama3-3-70b-instruct-v1:0", "aws/meta.llama3-3-70b-instruct-v1:0"),
    ("amazon_bedrock", "us.deepseek.r1-v1:0", "aws/deepseek.r1-v1:0"),
    ("amazon_bedrock", "openai.gpt-oss-120b-1:0", "aws/openai.gpt-oss-120b-1:0"),
    ("amazon_bedrock", f"arn:aws:bedrock:us-east-1::foundation-model/{HAIKU_3}", f"aws/regional.{HAIKU_3}"),
    ("amazon_bedrock", f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.{SONNET}", REGIONAL_SONNET),
    ("amazon_bedrock", f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/global.{SONNET}", GLOBAL_SONNET),
    # langchain-aws: ChatAnthropicBedrock, ChatAnthropicMantle, ChatOpenAIMantle
    ("anthropic-bedrock", SONNET, REGIONAL_SONNET),
    ("anthropic-bedrock", f"us.{SONNET}", REGIONAL_SONNET),
    ("anthropic-bedrock", f"global.{SONNET}", GLOBAL_SONNET),
    ("anthropic-bedrock", "claude-sonnet-4-5-20250929", REGIONAL_SONNET),
    ("anthropic-mantle", "anthropic.claude-opus-4-7", "aws/regional.anthropic.claude-opus-4-7-v1:0"),
    ("anthropic-mantle", "anthropic.claude-haiku-4-5", "aws/regional.anthropic.claude-haiku-4-5-20251001-v1:0"),
    ("openai-mantle", "openai.gpt-oss-120b", "aws/openai.gpt-oss-120b-1:0"),
    ("openai-mantle", "openai.gpt-5.4", "aws/openai.gpt-5.4"),
    # langchain-google-genai, langchain-google-vertexai
    ("google_genai", "gemini-2.5-pro", "google/gemini-2.5-pro"),
    ("google_genai", "models/gemini-2.5-pro", "google/gemini-2.5-pro"),
    ("google_vertexai", "gemini-2.5-flash", "google/gemini-2.5-flash"),
    ("google_vertexai", "publishers/google/models/gemini-2.5-flash", "google/gemini-2.5-flash"),
    ("google_vertexai", "claude-sonnet-4-5@20250929", "google/claude-sonnet-4-5"),
    ("google_anthropic_vertex", "claude-sonnet-4-5@20250929", "google/claude-sonnet-4-5"),
    ("anthropicvertex", "claude-sonnet-4-5@20250929", "google/claude-sonnet-4-5"),
    # langchain-mistralai, -cohere, -groq, -fireworks, -deepseek, -xai, -perplexity, -openrouter
    ("mistral", "mistral-large-2512", "mistral/mistral-large-2512"),
    ("cohere", "command-a-03-2025", "cohere/command-a"),
    ("groq", "openai/gpt-oss-120b", "groq/openai/gpt-oss-120b"),
    ("groq", "llama-3.3-70b-versatile", "groq/llama-3.3-70b-versatile"),
    ("fireworks", "accounts/fireworks/models/deepseek-v3p2", "fireworks/deepseek-v3p2"),
    ("deepseek", "deepseek-chat", "deepseek/deepseek-chat"),
    ("deepseek", "deepseek-reasoner", "deepseek/deepseek-reasoner"),
    ("xai", "grok-4", "x-ai/grok-4-0709"),
    ("perplexity", "sonar-pro", "perplexity/sonar-pro"),
    ("openrouter", "anthropic/claude-sonnet-4.5", "openrouter/anthropic/claude-sonnet-4.5"),
    ("openrouter", "meta-llama/llama-3.3-70b-instruct", "openrouter/meta-llama/llama-3.3-70b-instruct"),
    # langchain-together, -cerebras, -voyageai, databricks-langchain, and those of langchain-community
    (
        "together",
        "meta-llama/Llama-3.3-70B-Instruct-Turbo",
        "together/meta-llama/Llama-3.3-70B-Instruct-Turbo",
    ),
    ("together", "openai/gpt-oss-120b", "together/openai/gpt-oss-120b"),
    ("cerebras", "gpt-oss-120b", "cerebras/gpt-oss-120b"),
    ("voyageai", "voyage-3", "voyageai/voyage-3"),
    (
        "databricks",
        "databricks-meta-llama-3-3-70b-instruct",
        "databricks/databricks-meta-llama-3-3-70b-instruct",
    ),
    ("moonshot", "kimi-k2-thinking", "moonshotai/kimi-k2-thinking"),
    ("zhipuai", "glm-4-plus", "zhipuai/GLM-4-Plus"),
]

# Names of the same providers elsewhere: `init_chat_model`, LiteLLM, OpenTelemetry's `gen_ai.provider.name`, and plain spelling.
SPELLED_OTHERWISE = [
    ("OpenAI ", " GPT-4o", "openai/gpt-4o"),
    ("azure_openai", "gpt-4o", "azure/gpt-4o"),
    ("azure-openai", "gpt-4o", "azure/gpt-4o"),
    ("azure_ai", "gpt-4o", "azure/gpt-4o"),
    ("azure.ai.openai", "gpt-4o", "azure/gpt-4o"),
    ("azureai", "gpt-4o", "azure/gpt-4o"),
    ("aws.bedrock", f"us.{SONNET}", REGIONAL_SONNET),
    ("bedrock", HAIKU_3, f"aws/regional.{HAIKU_3}"),
    ("bedrock_converse", "us.amazon.nova-lite-v1:0", "aws/amazon.nova-lite-v1:0"),
    ("anthropic_bedrock", f"us.{SONNET}", REGIONAL_SONNET),
    ("gemini", "gemini-2.5-pro", "google/gemini-2.5-pro"),
    ("gcp.gemini", "gemini-2.5-pro", "google/gemini-2.5-pro"),
    ("gcp.vertex_ai", "gemini-2.5-pro", "google/gemini-2.5-pro"),
    ("vertex_ai", "claude-sonnet-4-5@20250929", "google/claude-sonnet-4-5"),
    ("mistralai", "mistral-large-2512", "mistral/mistral-large-2512"),
    ("mistral_ai", "mistral-large-2512", "mistral/mistral-large-2512"),
    ("fireworks_ai", "accounts/fireworks/models/deepseek-v3p2", "fireworks/deepseek-v3p2"),
    ("together_ai", "openai/gpt-oss-120b", "together/openai/gpt-oss-120b"),
    ("x-ai", "grok-4", "x-ai/grok-4-0709"),
    ("x_ai", "grok-4", "x-ai/grok-4-0709"),
    ("voyage", "voyage-3", "voyageai/voyage-3"),
    ("moonshot_ai", "kimi-k2-thinking", "moonshotai/kimi-k2-thinking"),
]

# A prefix that says again who the provider is.
REPEATED = [
    ("openai", "openai/gpt-4o", "openai/gpt-4o"),
    ("azure", "azure/gpt-4o", "azure/gpt-4o"),
    ("azure_openai", "azure/gpt-4o", "azure/gpt-4o"),
    ("anthropic", "anthropic/claude-sonnet-4-5", "anthropic/claude-sonnet-4-5"),
    ("xai", "xai/grok-4", "x-ai/grok-4-0709"),
    ("amazon_bedrock", f"bedrock/us.{SONNET}", REGIONAL_SONNET),
    ("google_genai", "gemini/gemini-2.5-pro", "google/gemini-2.5-pro"),
    ("mistral", "mistral/mistral-large-2512", "mistral/mistral-large-2512"),
    ("groq", "groq/llama-3.3-70b-versatile", "groq/llama-3.3-70b-versatile"),
    ("deepseek", "deepseek/deepseek-chat", "deepseek/deepseek-chat"),
    ("cohere", "cohere/command-a-03-2025", "cohere/command-a"),
    ("openrouter", "openrouter/openai/gpt-4o", "openrouter/openai/gpt-4o"),
]

# Gateways whose model's name says whose it is: LiteLLM's prefixes, OpenRouter's suffixes, calls without a provider.
GATEWAYS = [
    ("litellm", "gpt-4o", "openai/gpt-4o"),
    ("litellm", "claude-sonnet-4-5", "anthropic/claude-sonnet-4-5"),
    ("litellm", "openai/gpt-4o", "openai/gpt-4o"),
    ("litellm", "azure/gpt-4o", "azure/gpt-4o"),
    ("litellm", f"bedrock/us.{SONNET}", REGIONAL_SONNET),
    ("litellm", f"bedrock/converse/us.{SONNET}", REGIONAL_SONNET),
    ("litellm", f"bedrock/us-east-1/{HAIKU_3}", f"aws/regional.{HAIKU_3}"),
    ("litellm", "vertex_ai/gemini-2.5-pro", "google/gemini-2.5-pro"),
    ("litellm", "vertex_ai/claude-sonnet-4-5@20250929", "google/claude-sonnet-4-5"),
    ("litellm", "gemini/gemini-2.5-pro", "google/gemini-2.5-pro"),
    ("litellm", "groq/llama-3.3-70b-versatile", "groq/llama-3.3-70b-versatile"),
    ("litellm", "openrouter/anthropic/claude-sonnet-4.5", "openrouter/anthropic/claude-sonnet-4.5"),
    ("litellm", "fireworks_ai/accounts/fireworks/models/deepseek-v3p2", "fireworks/deepseek-v3p2"),
    (
        "litellm",
        "together_ai/meta-llama/Llama-3.3-70B-Instruct-Turbo",
        "together/meta-llama/Llama-3.3-70B-Instruct-Turbo",
    ),
    ("litellm", "xai/grok-4", "x-ai/grok-4-0709"),
    ("litellm", "perplexity/sonar-pro", "perplexity/sonar-pro"),
    ("litellm", "deepseek/deepseek-chat", "deepseek/deepseek-chat"),
    ("litellm", "mistral/mistral-large-2512", "mistral/mistral-large-2512"),
    ("litellm", "cohere_chat/command-a-03-2025", "cohere/command-a"),
    ("litellm", "cerebras/gpt-oss-120b", "cerebras/gpt-oss-120b"),
    ("openrouter", "openai/gpt-4o:online", "openrouter/openai/gpt-4o"),
    ("openrouter", "openai/gpt-oss-120b:nitro", "openrouter/openai/gpt-oss-120b"),
    ("openrouter", "deepseek/deepseek-r1:free", "openrouter/deepseek/deepseek-r1:free"),
    ("openrouter", "x-ai/grok-4", "x-ai/grok-4-0709"),
    (None, "gpt-4o", "openai/gpt-4o"),
    (None, "claude-sonnet-4-5", "anthropic/claude-sonnet-4-5"),
    (None, "anthropic/claude-sonnet-4.5", "openrouter/anthropic/claude-sonnet-4.5"),
]

# OpenAI's client before another server, whose models run nowhere but at their vendor.
BEHIND_OPENAIS_CLIENT = [
    ("openai", "anthropic/claude-sonnet-4.5", "openrouter/anthropic/claude-sonnet-4.5"),
    ("openai", "x-ai/grok-4", "x-ai/grok-4-0709"),
    ("openai", "x-ai/grok-4:online", "x-ai/grok-4-0709"),
    ("openai", "google/gemini-2.5-pro", "openrouter/google/gemini-2.5-pro"),
    ("openai", "perplexity/sonar-pro", "openrouter/perplexity/sonar-pro"),
    ("openai", "grok-4", "x-ai/grok-4-0709"),  # https://docs.x.ai, https://api.x.ai/v1
    ("openai", "claude-sonnet-4-5", "anthropic/claude-sonnet-4-5"),  # Anthropic's OpenAI SDK compatibility
    ("openai", "gemini-2.5-pro", "google/gemini-2.5-pro"),  # Gemini's OpenAI compatibility
    ("openai", "models/gemini-2.5-pro", "google/gemini-2.5-pro"),
    ("openai", "sonar-pro", "perplexity/sonar-pro"),  # Perplexity's OpenAI compatibility
]

# No list price may hold.
UNPRICED = [
    # Gateways and servers that nobody knows, whatever is in their names.
    ("my-openai-proxy", "gpt-4o"),
    ("openai-compatible", "gpt-4o"),
    ("openai_compatible", "openai/gpt-4o"),
    ("company-anthropic", "claude-sonnet-4-5"),
    ("my-gemini-gateway", "gemini-2.5-pro"),
    ("vertex-proxy", "gemini-2.5-pro"),
    ("acme-bedrock", HAIKU_3),
    ("amazon-q-mirror", HAIKU_3),
    ("mistral-on-prem", "mistral-large-2512"),
    ("coherent", "command-a-03-2025"),
    ("multimodal-gateway", "deepseek-ai/DeepSeek-V4.1-Flash"),
    ("our-copilot", "gpt-4o"),
    ("portkey", "gpt-4o"),
    ("helicone", "openai/gpt-4o"),
    ("vercel", "anthropic/claude-sonnet-4.5"),
    ("litellm", "my-openai/gpt-4o"),
    ("litellm", "my-alias"),
    ("litellm", "company/gpt-4o"),
    # Open weights on a server of one's own, or on one that nobody lists.
    ("openai", "gpt-oss-120b"),
    ("openai", "openai/gpt-oss-120b"),
    ("openai", "gpt-oss-20b"),
    ("openai", "google/gemma-3-27b-it"),
    ("openai", "gemma-3-27b-it"),
    ("openai", "meta-llama/llama-3.3-70b-instruct"),
    ("openai", "mistral-large-2512"),
    ("openai", "kimi-k2-thinking"),
    ("openai", "Qwen/Qwen3-32B"),
    ("litellm", "gpt-oss-120b"),
    ("litellm", "openai/gpt-oss-120b"),
    ("litellm", "hosted_vllm/openai/gpt-oss-120b"),
    ("litellm", "ollama/llama3.1"),
    ("litellm", "ollama_chat/gpt-oss:20b"),
    (None, "gpt-oss-120b"),
    ("ollama", "llama3.1:8b"),
    ("ollama", "gpt-oss:20b"),
    ("ollama", "deepseek-r1"),
    ("ollama", "mistral-small"),
    ("vllm", "openai/gpt-oss-120b"),
    ("llamacpp", "gpt-oss-120b"),
    ("huggingface", "openai/gpt-oss-120b"),
    ("NVIDIA", "openai/gpt-oss-120b"),
    ("nvidia", "meta/llama-3.3-70b-instruct"),
    ("ibm", "ibm/granite-3-8b-instruct"),
    ("watsonx", "meta-llama/llama-3-3-70b-instruct"),
    ("sambanova", "Meta-Llama-3.3-70B-Instruct"),
    ("qwq", "qwq-plus"),
    ("tongyi", "qwen-max"),
    # Names that say nothing of the model.
    ("azure", "my-deployment"),
    ("amazon_bedrock", "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123xyz"),
    ("openrouter", "openrouter/auto"),
    ("fireworks", "accounts/my-team/models/support-bot"),
    (None, "my-model"),
    ("nobody", "in-house-7b"),
]


def entry(provider: str | None, model: str) -> str | None:
    """The entry that prices a model, as `provider/model` of genai-prices."""
    rates = BOOK.rates(provider, model, AT)
    return None if rates is None else rates.version.split(" ")[2]


@pytest.mark.parametrize(
    ("provider", "model", "expected"),
    [*OFFICIAL, *SPELLED_OTHERWISE, *REPEATED, *GATEWAYS, *BEHIND_OPENAIS_CLIENT],
)
def test_the_entry_that_prices_a_model(provider: str | None, model: str, expected: str) -> None:
    assert entry(provider, model) == expected


@pytest.mark.parametrize(("provider", "model"), UNPRICED)
def test_no_list_price_holds(provider: str | None, model: str) -> None:
    assert entry(provider, model) is None


@pytest.mark.parametrize(
    ("provider", "answered", "sent", "expected"),
    [
        ("anthropic-bedrock", "claude-sonnet-4-5-20250929", f"global.{SONNET}", GLOBAL_SONNET),
        ("anthropic-bedrock", "claude-sonnet-4-5-20250929", f"us.{SONNET}", REGIONAL_SONNET),
        ("openrouter", "deepseek/deepseek-r1", "deepseek/deepseek-r1:free", "openrouter/deepseek/deepseek-r1:free"),
        ("azure", "gpt-4o-2024-11-20", "my-deployment", "azure/gpt-4o"),
        ("openai", "gpt-4o", "gpt-4o-mini", "openai/gpt-4o"),  # another model than was sent
        ("openai", "gpt-4o-mini-2024-07-18", "gpt-4o", "openai/gpt-4o-mini"),
    ],
)
def test_the_name_that_says_more_prices_a_call(provider: str, answered: str, sent: str, expected: str) -> None:
    """What was sent may hold the region, the version or the route of what answered; it may also be another model."""
    cost = BOOK.cost(TokenUsage(1000, 100), provider, [answered, sent], AT)
    assert cost is not None
    assert cost.version.split(" ")[2] == expected
