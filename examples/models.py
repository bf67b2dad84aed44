"""The models of the examples: a provider's own where its key is set, else fake ones that report usage and cost nothing."""

from __future__ import annotations

import os
from typing import Any

from dotenv import find_dotenv, load_dotenv
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable

from vital_tracking.testing import fake_chat_model

# Tokens that a fake model reports: prompt, completion.
_TOKENS = {"gpt-4o": (1840, 212), "gpt-4o-mini": (930, 88), "claude-haiku-4-5": (2210, 164)}

load_dotenv(find_dotenv(usecwd=True))


def chat_model(model: str = "gpt-4o-mini") -> BaseChatModel:
    """`gpt-...` of OpenAI or `claude-...` of Anthropic; a fake one of that name where its provider's key is not set."""
    anthropic = model.startswith("claude")
    if anthropic and os.environ.get("ANTHROPIC_API_KEY"):
        from langchain_anthropic import ChatAnthropic

        return ChatAnthropic(model_name=model, timeout=60, stop=None)
    if not anthropic and os.environ.get("OPENAI_API_KEY"):
        from langchain_openai import ChatOpenAI

        return ChatOpenAI(model=model, stream_usage=True)
    prompt, completion = _TOKENS[model]
    return fake_chat_model(
        model=model,
        provider="anthropic" if anthropic else "openai",
        replies=["First, ask who will use it."],
        input_tokens=prompt,
        output_tokens=completion,
    )


def tool_calling_model(*messages: AIMessage, model: str = "gpt-4o-mini") -> BaseChatModel:
    """OpenAI's model, or a fake one that answers with `messages`, which may hold tool calls, one after the other."""
    if os.environ.get("OPENAI_API_KEY"):
        return chat_model(model)
    return _Scripted(messages=iter(messages), model=model)


def embedding_model(model: str = "text-embedding-3-small") -> Embeddings:
    """OpenAI's embeddings, or fake ones where its key is not set."""
    if os.environ.get("OPENAI_API_KEY"):
        from langchain_openai import OpenAIEmbeddings

        return OpenAIEmbeddings(model=model)
    return DeterministicFakeEmbedding(size=64)


class _Scripted(GenericFakeChatModel):
    """LangChain's fake model, with a name and with tools that it does not look at."""

    model: str

    def bind_tools(self, *_: Any, **__: Any) -> Runnable[LanguageModelInput, AIMessage]:
        return self

    def _get_ls_params(self, *_: Any, **__: Any) -> LangSmithParams:
        return LangSmithParams(ls_provider="openai", ls_model_name=self.model, ls_model_type="chat")
