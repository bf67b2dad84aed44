"""A fake chat model that reports usage as a provider does: for demonstrations and users' own tests, without a network."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import ToolCallChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool


class FakeUsageModel(FakeListChatModel):
    """LangChain's fake list model, which also says what it is and what it used.

    Token counts are those given; `input_tokens` holds the cached ones, as providers report it. `replies` are given in turn, and
    over again: texts, messages, and exceptions, which are raised.
    """

    replies: Sequence[Any] = ()

    model: str = "gpt-4o-mini"
    provider: str = "openai"
    input_tokens: int = 100
    output_tokens: int = 20
    cache_read_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def usage(self) -> UsageMetadata:
        """The usage that each answer reports."""
        return UsageMetadata(
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            total_tokens=self.input_tokens + self.output_tokens,
            input_token_details=InputTokenDetails(cache_read=self.cache_read_tokens),
            output_token_details=OutputTokenDetails(reasoning=self.reasoning_tokens),
        )

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return LangSmithParams(
            ls_provider=self.provider, ls_model_name=kwargs.get("model") or self.model, ls_model_type="chat"
        )

    def bind_tools(self, tools: Sequence[Any], *, tool_choice: Any = None, **kwargs: Any) -> Runnable[Any, AIMessage]:
        """The model as it is: what it answers is in `replies`, whatever tools there are."""
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._answer(kwargs.get("model")))])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return self._generate(messages, stop, None, **kwargs)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        yield from self._chunks(self._answer(kwargs.get("model")))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._chunks(self._answer(kwargs.get("model"))):
            yield chunk

    def _answer(self, model: str | None) -> AIMessage:
        """The next answer, whole; raises where an exception is next."""
        given: Any = self.replies or self.responses
        reply = given[self.i % len(given)]
        self.i += 1
        if isinstance(reply, BaseException):
            raise reply
        message = AIMessage(reply) if isinstance(reply, str) else reply
        facts = {"model_name": model or self.model, "finish_reason": "tool_calls" if message.tool_calls else "stop"}
        return message.model_copy(
            update={
                "usage_metadata": message.usage_metadata or self.usage,
                "response_metadata": {**facts, **message.response_metadata},
            }
        )

    @staticmethod
    def _chunks(answer: AIMessage) -> Iterator[ChatGenerationChunk]:
        words = re.findall(r"\S+\s*|\s+", answer.content) if isinstance(answer.content, str) else []
        for word in words:
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))
        calls = [
            ToolCallChunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=place)
            for place, call in enumerate(answer.tool_calls)
        ]
        last = AIMessageChunk(
            content="" if words else answer.content,
            tool_call_chunks=calls,
            usage_metadata=answer.usage_metadata,
            response_metadata=answer.response_metadata,
            chunk_position="last",
        )
        yield ChatGenerationChunk(message=last)
