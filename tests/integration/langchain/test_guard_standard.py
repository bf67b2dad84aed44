"""LangChain's own unit tests for chat models, run on guarded ones: what it asks of every integration, a guarded model keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.load import dumpd
from langchain_openai import ChatOpenAI
from langchain_tests.unit_tests import ChatModelUnitTests
from pydantic import SecretStr

from vital_tracking import VitalTracker
from vital_tracking.stores.postgres import PostgresStore

# ChatAnthropic says so of one of the methods that the tests try.
pytestmark = pytest.mark.filterwarnings("ignore:Unrecognized structured output method")


@pytest.fixture(scope="module")
def tracker() -> Iterator[VitalTracker]:
    """A tracker of which nothing is sent: the unit tests make no calls."""
    with VitalTracker(PostgresStore("postgresql://nobody@127.0.0.1:1/none")) as unused:
        yield unused


class _Guarded(ChatModelUnitTests):
    """The class of a guarded model, of which every instance is guarded."""

    plain: type[BaseChatModel]
    environment: tuple[dict[str, str], dict[str, Any], dict[str, Any]]
    downgrade_to: Any = None
    guarded: type[BaseChatModel]

    @pytest.fixture(autouse=True)
    def _guard(self, tracker: VitalTracker, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in self.environment[0].items():
            monkeypatch.setenv(name, value)
        self.guarded = type(tracker.guard(self.plain(**self.chat_model_params), downgrade_to=self.downgrade_to))

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return self.guarded

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return self.environment[1]

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return self.environment

    @pytest.fixture
    def snapshot(self) -> Callable[..., dict[str, Any]]:
        """What a guarded model is to be serialized to: what the plain one is."""
        return lambda name: dumpd(self.plain(**{**self.standard_chat_model_params, **self.chat_model_params}))


class _OpenAI:
    plain = ChatOpenAI
    environment = (
        {"OPENAI_API_KEY": "key", "OPENAI_ORG_ID": "org", "OPENAI_API_BASE": "http://127.0.0.1:1/v1"},
        {"model": "gpt-4o"},
        {"openai_api_key": "key", "openai_organization": "org", "openai_api_base": "http://127.0.0.1:1/v1"},
    )


class _Anthropic:
    plain = ChatAnthropic
    environment = ({"ANTHROPIC_API_KEY": "key"}, {"model": "claude-sonnet-4-5"}, {"anthropic_api_key": "key"})


class TestGuardedOpenAI(_OpenAI, _Guarded): ...


class TestOpenAIGuardedWithADowngradeChain(_OpenAI, _Guarded):
    downgrade_to = ("gpt-4o-mini", ChatAnthropic(model="claude-haiku-4-5", api_key=SecretStr("key")))


class TestGuardedAnthropic(_Anthropic, _Guarded): ...


class TestAnthropicGuardedWithADowngradeChain(_Anthropic, _Guarded):
    downgrade_to = ("claude-haiku-4-5", ChatOpenAI(model="gpt-4o-mini", api_key=SecretStr("key")))
