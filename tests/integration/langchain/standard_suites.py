"""LangChain's standard tests of chat models, on plain and on guarded ones, against a local server.

Run by `test_guard_as_plain.py`, each class in a pytest of its own: that compares what became of each test, and what the server
was asked meanwhile. Some tests fail on any model, as the server answers by rules and does not think.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from tests.support.provider_server import ProviderServer, Reply, Request
from vital_tracking import VitalTracker
from vital_tracking.testing import MemoryStore

_VALUES = {"integer": 3, "number": 1.5, "boolean": True, "array": [], "object": {}}


def _filled(schema: dict[str, Any]) -> dict[str, Any]:
    """Arguments that a JSON schema takes."""
    properties: dict[str, Any] = schema.get("properties", {})
    return {name: one.get("enum", [_VALUES.get(one.get("type"), "cats")])[0] for name, one in properties.items()}


def answer(request: Request) -> Reply:
    """A call of the tool that is asked for, else of the first one; a text where there are none, or one has answered."""
    body = request.body
    last = body["messages"][-1]
    tools = [tool.get("function", tool) for tool in body.get("tools", ())]
    answered = last["role"] == "tool" or "tool_result" in json.dumps(last)
    if tools and not answered:
        choice = body.get("tool_choice")
        wanted = choice.get("function", choice).get("name") if isinstance(choice, dict) else None
        tool = next((one for one in tools if one["name"] == wanted), tools[0])
        schema = tool.get("parameters") or tool.get("input_schema") or {}
        return Reply(text="", tool_calls=[(tool["name"], _filled(schema))])
    form = body.get("response_format") or {}
    if form.get("type") == "json_schema":
        return Reply(text=json.dumps(_filled(form["json_schema"]["schema"])))
    return Reply(text='{"setup": "Why?", "punchline": "Why not."}' if form else "Hello there, what a day it is.")


@pytest.fixture(scope="session")
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as running:
        running.respond_with(answer)
        yield running


@pytest.fixture(scope="session")
def quiet_tracker() -> Iterator[VitalTracker]:
    with VitalTracker(MemoryStore()) as made:
        yield made


class _Plain:
    """What the suites ask of a class of tests: which model, and how it is made."""

    plain: type[BaseChatModel]
    path: str
    model_name: str
    cheaper: str
    guarded = False
    downgrades = False
    model_class: type[BaseChatModel]
    url: str

    @pytest.fixture(autouse=True)
    def _made_of(self, server: ProviderServer, quiet_tracker: VitalTracker, record_property: Any) -> Iterator[None]:
        self.url = server.url
        self.model_class = self.plain
        if self.guarded:
            made = self.plain(**self.chat_model_params)
            self.model_class = type(quiet_tracker.guard(made, downgrade_to=self.cheaper if self.downgrades else None))
        before = len(server.requests)
        yield
        asked = [[request.path, request.body] for request in server.requests[before:]]
        record_property("requests", json.dumps(sorted(asked, key=str), sort_keys=True))

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return self.model_class

    @property
    def chat_model_params(self) -> dict[str, Any]:
        url = self.url + self.path
        return {"model": self.model_name, "base_url": url, "api_key": "key", "max_retries": 0}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_image_inputs(self) -> bool:
        return False

    @property
    def model_override_value(self) -> str:
        return self.model_name + "-other"


class _OpenAI(_Plain):
    plain, path, model_name, cheaper = ChatOpenAI, "/v1", "gpt-4o", "gpt-4o-mini"


class _Anthropic(_Plain):
    plain, path, model_name, cheaper = ChatAnthropic, "", "claude-sonnet-4-5", "claude-haiku-4-5"


class _WithoutTools(GenericFakeChatModel):
    """A model that takes no tools: suites see that by its class."""

    model: str = "none"

    def __init__(self, **options: Any) -> None:
        super().__init__(messages=iter(AIMessage("Hello") for _ in range(100)), **options)


class _NoTools(_Plain):
    plain, path, model_name = _WithoutTools, "", "none"

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "none"}


class _Unit(ChatModelUnitTests):
    @pytest.fixture
    def snapshot(self) -> Callable[..., Any]:
        return lambda name: pytest.skip("the serialized form is compared elsewhere")


class TestOpenAIUnit(_OpenAI, _Unit): ...


class TestOpenAIUnitGuarded(_OpenAI, _Unit):
    guarded = True


class TestOpenAIUnitInChain(_OpenAI, _Unit):
    guarded = downgrades = True


class TestOpenAICalls(_OpenAI, ChatModelIntegrationTests): ...


class TestOpenAICallsGuarded(_OpenAI, ChatModelIntegrationTests):
    guarded = True


class TestOpenAICallsInChain(_OpenAI, ChatModelIntegrationTests):
    guarded = downgrades = True


class TestAnthropicUnit(_Anthropic, _Unit): ...


class TestAnthropicUnitGuarded(_Anthropic, _Unit):
    guarded = True


class TestAnthropicUnitInChain(_Anthropic, _Unit):
    guarded = downgrades = True


class TestAnthropicCalls(_Anthropic, ChatModelIntegrationTests): ...


class TestAnthropicCallsGuarded(_Anthropic, ChatModelIntegrationTests):
    guarded = True


class TestAnthropicCallsInChain(_Anthropic, ChatModelIntegrationTests):
    guarded = downgrades = True


class TestNoToolsUnit(_NoTools, _Unit): ...


class TestNoToolsUnitGuarded(_NoTools, _Unit):
    guarded = True


class TestNoToolsCalls(_NoTools, ChatModelIntegrationTests): ...


class TestNoToolsCallsGuarded(_NoTools, ChatModelIntegrationTests):
    guarded = True
