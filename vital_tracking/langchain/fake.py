"""A fake chat model that reports usage as a provider does: for demonstrations and users' own tests, without a network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult


class FakeUsageModel(FakeListChatModel):
    """LangChain's fake list model, which also says what it is and what it used.

    Token counts are those given; `input_tokens` holds the cached ones, as providers report it.
    """

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

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        answer = AIMessage(
            content=self._call(messages, stop, run_manager, **kwargs),
            usage_metadata=self.usage,
            response_metadata={"model_name": kwargs.get("model") or self.model, "finish_reason": "stop"},
        )
        return ChatResult(generations=[ChatGeneration(message=answer)])

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
        for chunk in super()._stream(messages, stop, run_manager, **kwargs):
            # The last chunk of the parent is told from the others by our own, which follows it.
            yield ChatGenerationChunk(message=AIMessageChunk(content=chunk.message.content))
        yield self._last_chunk(**kwargs)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for chunk in super()._astream(messages, stop, run_manager, **kwargs):
            yield ChatGenerationChunk(message=AIMessageChunk(content=chunk.message.content))
        yield self._last_chunk(**kwargs)

    def _last_chunk(self, **kwargs: Any) -> ChatGenerationChunk:
        return ChatGenerationChunk(
            message=AIMessageChunk(
                content="",
                usage_metadata=self.usage,
                response_metadata={"model_name": kwargs.get("model") or self.model, "finish_reason": "stop"},
                chunk_position="last",
            )
        )
