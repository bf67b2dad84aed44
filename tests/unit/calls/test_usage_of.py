"""What providers report, as LangChain hands it over: usage, model, provider, errors, sizes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, Generation

from vital_tracking.calls.error_facts import ErrorFacts
from vital_tracking.calls.hashes import request_hash
from vital_tracking.calls.names_of import model_of, provider_of, requested_model_of
from vital_tracking.calls.texts import text_size, thought_size
from vital_tracking.calls.usage_of import estimated_usage, reported_cost_of, usage_of
from vital_tracking.core.usage import TokenUsage

json_like = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=12), inner, max_size=4)),
    max_leaves=12,
)


@pytest.mark.parametrize("prefix", ["", "priority_", "flex_"])
def test_token_details_are_found_under_every_tiers_prefix(prefix: str) -> None:
    """OpenAI's tiers name the details `priority_cache_read`; a key `priority` alone is no detail."""
    usage = usage_of(
        None,
        {
            "input_tokens": 1000,
            "output_tokens": 300,
            "input_token_details": {f"{prefix}cache_read": 400, "audio": 10, "priority": 600},
            "output_token_details": {f"{prefix}reasoning": 256, "audio": 7, "flex": 44},
        },
    )
    assert usage == TokenUsage(
        1000, 300, cache_read_tokens=400, reasoning_tokens=256, audio_input_tokens=10, audio_output_tokens=7
    )


@pytest.mark.parametrize(
    ("details", "writes", "writes_1h"),
    [
        ({"cache_creation": 500}, 500, 0),
        ({"cache_creation": 0, "ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 200}, 500, 200),
        ({"ephemeral_5m_input_tokens": 300}, 300, 0),
        ({"ephemeral_1h_input_tokens": 200}, 200, 200),
        ({"cache_creation": 500, "ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 200}, 500, 200),
        ({"cache_creation": None, "ephemeral_5m_input_tokens": None}, 0, 0),
    ],
)
def test_cache_writes_are_counted_by_their_lifetime(details: dict[str, Any], writes: int, writes_1h: int) -> None:
    """Anthropic tells the lifetimes apart and sets the sum to zero then; both forms are one count."""
    usage = usage_of(None, {"input_tokens": 1000, "output_tokens": 1, "input_token_details": details})
    assert usage is not None
    assert (usage.prompt_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens) == (1000, writes, writes_1h)


@given(json_like)
def test_no_answer_of_a_provider_raises(value: Any) -> None:
    """No answer of a provider raises here."""
    for provider in (None, "google_genai", "perplexity"):
        usage_of(provider, value, value, value if isinstance(value, dict) else {}, "gemini-2.5-flash")
    if isinstance(value, dict):
        usage_of(
            None, {"input_tokens": 1, "output_tokens": 1, "input_token_details": value, "output_token_details": value}
        )
        usage_of(None, None, {"prompt_tokens": 1, "prompt_tokens_details": value, "completion_tokens_details": value})
        usage_of("anthropic", None, {"input_tokens": 1, "output_tokens": 1, "iterations": [value], "usage": value})
        reported_cost_of(value, value)
        model_of(requested_model_of(value, value), value)
        provider_of(value, value, value)
    assert text_size(value) >= thought_size(value) >= 0


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 40, "completion_tokens": 12, "prompt_tokens_details": {"cached_tokens": 8}},
        {"input_tokens": 40, "output_tokens": 12, "prompt_tokens_details": {"cached_tokens": 8}},
    ],
)
def test_usage_that_stands_in_llm_output_is_found(usage: dict[str, Any]) -> None:
    """Completion models report in `llm_output`, in OpenAI's words or Anthropic's."""
    assert usage_of(None, None, usage) == TokenUsage(40, 12, cache_read_tokens=8)
    assert usage_of(None, None, {}) is None


def test_the_model_that_answered_counts_before_the_one_asked_for() -> None:
    """`model_name` among the parameters is stale after an override; `metadata["model"]` is the caller's configurable."""
    metadata = {"ls_model_name": "new", "model": "leaked"}
    params = {"model": "new", "model_name": "stale"}

    def models(
        metadata: dict[str, Any], params: dict[str, Any], response: dict[str, Any]
    ) -> tuple[str | None, str | None]:
        requested = requested_model_of(metadata, params)
        return model_of(requested, response), requested

    assert models(metadata, params, {"model_name": "new-2024"}) == ("new-2024", "new")
    assert models(metadata, params, {}) == ("new", "new")
    assert models({"model": "leaked"}, params, {}) == ("new", "new")
    assert models({}, {"model_name": "only"}, {}) == ("only", "only")
    assert models({}, {}, {"model": "claude"}) == ("claude", None)
    assert models({"ls_model_name": ""}, {"model": 5}, {"model_name": None}) == (None, None)


def test_the_provider_is_found_wherever_langchain_says_it() -> None:
    """LangChain's word for it, else the kind of completion model, else the module it comes from."""
    assert provider_of({"ls_provider": "azure"}, {"_type": "openai"}, None) == "azure"
    assert provider_of({}, {"_type": "openai-chat"}, None) == "openai"
    assert provider_of({}, {"_type": "amazon_bedrock_converse"}, None) == "amazon_bedrock"
    assert provider_of({}, {}, {"id": ["langchain", "llms", "openai", "OpenAI"]}) == "openai"
    assert provider_of({}, {"_type": "fake"}, {"id": ["tests", "Fake"]}) is None
    assert provider_of({}, {"_type": 5}, {"id": "openai"}) is None


@given(st.text(max_size=50))
def test_estimates_count_bytes_of_utf8_once(text: str) -> None:
    """Of a text, a message, a list of blocks and a generation alike; a text that stands twice is counted once."""
    size = len(text.encode("utf-8", "replace"))
    assert text_size(text) == size
    assert text_size([HumanMessage(text), HumanMessage(text)]) == 2 * size
    assert text_size(HumanMessage([{"type": "text", "text": text}, {"type": "image", "data": "x" * 1000}])) == size
    assert text_size(ChatGeneration(message=AIMessage(text))) == size
    assert text_size([[Generation(text=text)]]) == size


def test_estimates_count_the_arguments_of_tool_calls() -> None:
    """A tool call's name and arguments are billed as output; bytes and nothing have no text."""
    message = AIMessage("", tool_calls=[{"name": "weather", "args": {"text": "Basel"}, "id": "c"}])
    assert text_size(message) == len("weather") + len("Basel")
    assert text_size(None) == text_size(b"bytes") == text_size(object()) == 0


def test_an_estimate_keeps_what_is_known() -> None:
    """The exact prompt of a stream broken off, and its count so far as a lower bound."""
    known = TokenUsage(5000, 3, cache_read_tokens=4000, notes=("n",))
    assert estimated_usage(400, 80, known) == TokenUsage(5000, 20, cache_read_tokens=4000, estimated=True, notes=("n",))
    assert estimated_usage(400, 8, TokenUsage(0, 50)) == TokenUsage(100, 50, estimated=True)
    assert estimated_usage(0, 0) == TokenUsage(estimated=True)


class Failed(Exception):
    """With whatever attributes a provider's error has."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__("canary")
        self.__dict__.update(attributes)


class APITimeoutError(Failed):
    """As OpenAI's."""


def test_errors_say_how_a_call_ended_and_nothing_of_its_text() -> None:
    """Class, status and an allow-listed code; whether the provider may have billed."""
    refused = ErrorFacts(Failed(status_code=429, code="rate_limit_exceeded"))
    assert (refused.name, refused.status, refused.code, refused.refused, refused.hung_up) == (
        "Failed", 429, "rate_limit_exceeded", True, False,
    )  # fmt: skip
    assert ErrorFacts(Failed(code="canary said this")).code is None
    assert ErrorFacts(Failed(type="overloaded_error")).code == "overloaded_error"
    assert ErrorFacts(Failed(response={"ResponseMetadata": {"HTTPStatusCode": 503}})).status == 503
    assert ErrorFacts(Failed(status_code="429", response=None)).status is None
    assert ErrorFacts(APITimeoutError()).perhaps_billed
    assert not ErrorFacts(ValueError("canary")).perhaps_billed
    for error in (asyncio.CancelledError(), GeneratorExit(), KeyboardInterrupt()):
        facts = ErrorFacts(error)
        assert facts.hung_up
        assert facts.perhaps_billed
    assert "canary" not in str([getattr(refused, name) for name in ErrorFacts.__slots__])


def test_equal_requests_have_equal_hashes_under_one_key() -> None:
    """Duplicates are found; without the key nothing can be guessed from a hash."""
    first = request_hash(b"key", ({"model": "m"}, [HumanMessage("Hi", id="1")]))
    assert first == request_hash(b"key", ({"model": "m"}, [HumanMessage("Hi", id="1")]))
    assert len({first, request_hash(b"other", ({"model": "m"}, [])), request_hash(b"key", ({"model": "m"}, []))}) == 3
    assert request_hash(b"key", ("ab", "c")) != request_hash(b"key", ("a", "bc"))
    assert len(first) == 32
