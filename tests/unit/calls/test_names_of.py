"""Whose model a call is for, by what LangChain says of it. If one of these fails, calls have no provider, and so no price."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.load import dumpd
from langchain_openai import OpenAI

from vital_tracking.calls.names_of import model_of, provider_of, requested_model_of


def test_a_completion_model_names_its_provider_by_its_kind_or_its_module() -> None:
    model = OpenAI(model="gpt-3.5-turbo-instruct", api_key="k")
    kind = {"_type": model._llm_type}
    assert provider_of({}, kind, None) == "openai", "by its kind"
    assert provider_of({}, {}, dumpd(model)) == "openai", "by its module"
    assert provider_of({"ls_provider": "mine"}, kind, dumpd(model)) == "mine", "what LangChain says goes first"


@pytest.mark.parametrize(
    ("package", "provider"),
    [
        ("langchain_anthropic", "anthropic"),
        ("langchain_google_genai", "google_genai"),
        ("langchain_google_vertexai", "google_vertexai"),
        ("langchain_together", "together"),
    ],
)
def test_a_package_of_langchain_s_names_its_provider(package: str, provider: str) -> None:
    assert provider_of({}, {}, {"id": [package, "llms", "Model"]}) == provider


@pytest.mark.parametrize(
    ("kind", "provider"),
    [
        ("together_ai", "together"),
        ("vertexai", "google_vertexai"),
        ("cohere-chat", "cohere"),
        ("amazon_bedrock", "amazon_bedrock"),
        ("azure-openai-chat", "azure"),
        ("google_palm", "google_genai"),
    ],
)
def test_kinds_of_other_integrations_begin_with_their_provider(kind: str, provider: str) -> None:
    assert provider_of({}, {"_type": kind}, None) == provider


@pytest.mark.parametrize(
    "serialized", [None, {}, {"id": None}, {"id": [1, None]}, {"id": "openai"}, {"id": ["own", "Model"]}]
)
def test_nobody_is_guessed(serialized: Any) -> None:
    assert provider_of({"ls_provider": ""}, {"_type": 7}, serialized) is None


def test_the_model_that_answered_goes_before_the_one_that_was_asked_for() -> None:
    asked = requested_model_of({}, {"model": "m-1", "model_name": "stale"})
    assert (asked, requested_model_of({"ls_model_name": "m-2"}, {"model": "m-1"})) == ("m-1", "m-2")
    assert (model_of(asked, {"model_name": "m-1-2026"}), model_of(asked, {})) == ("m-1-2026", "m-1")
