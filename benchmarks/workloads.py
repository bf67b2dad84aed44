"""What the contestants work at: models that answer at once and report usage, and works that call them."""

from __future__ import annotations

import asyncio
import contextvars
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.callbacks.manager import handle_event
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

CHUNKS = 100
AT_ONCE = 100
NODES = 10

PROVIDER, NAME = "openai", "gpt-4o-mini"


class InstantModel(BaseChatModel):
    """Answers at once and reports usage."""

    @property
    def _llm_type(self) -> str:
        return "instant"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return {"ls_provider": PROVIDER, "ls_model_name": NAME, "ls_model_type": "chat"}

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.answer(messages))])

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return self._generate(messages)

    def _stream(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Iterator[Any]:
        for chunk in _chunks():
            if run_manager:
                run_manager.on_llm_new_token("x", chunk=chunk)
            yield chunk

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        for chunk in _chunks():
            if run_manager:
                await run_manager.on_llm_new_token("x", chunk=chunk)
            yield chunk

    def answer(self, messages: Sequence[BaseMessage]) -> AIMessage:
        """The one answer it knows."""
        return _message("hello")


class ToolUser(InstantModel):
    """Calls a tool once, then answers."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind()

    def answer(self, messages: Sequence[BaseMessage]) -> AIMessage:
        """A tool call, and after the tool's answer its own."""
        if isinstance(messages[-1], ToolMessage):
            return _message("hello")
        return _message("", tool_calls=[{"name": "look_up", "args": {"key": "a"}, "id": "call-1"}])


def _message(text: str, **more: Any) -> AIMessage:
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    return AIMessage(text, usage_metadata=usage, response_metadata={"model_name": NAME}, **more)


def _chunks() -> Iterator[ChatGenerationChunk]:
    usage: Any = {"input_tokens": 10, "output_tokens": CHUNKS, "total_tokens": 10 + CHUNKS}
    for number in range(CHUNKS):
        last = usage if number == CHUNKS - 1 else None
        yield ChatGenerationChunk(message=AIMessageChunk(content="x", usage_metadata=last))


# Works


@dataclass(frozen=True)
class Work:
    """A work that is done in slices of `count` calls or runs, each of which calls a model `calls` times."""

    name: str
    about: str
    do: Callable[[Any, int], Coroutine[Any, Any, None] | None]
    count: int
    slices: int
    each: str = "call"
    calls: int = 1

    def run(self, config: Any, loop: asyncio.Runner, count: int | None = None) -> None:
        """Do a slice of it, all calls with the same config."""
        coroutine = self.do(config, count or self.count)
        if coroutine is not None:
            # Or else all runs of the loop would share one context, and what one contestant leaves in it.
            loop.run(coroutine, context=contextvars.copy_context())


_model = InstantModel()


def invoke(config: Any, count: int) -> None:
    for _ in range(count):
        _model.invoke("hi", config=config)


def stream(config: Any, count: int) -> None:
    for _ in range(count):
        for _ in _model.stream("hi", config=config):
            pass


async def ainvoke(config: Any, count: int) -> None:
    await asyncio.gather(*(_model.ainvoke("hi", config=config) for _ in range(count)))


async def astream(config: Any, count: int) -> None:
    async def one() -> None:
        async for _ in _model.astream("hi", config=config):
            pass

    await asyncio.gather(*(one() for _ in range(count)))


def graph(config: Any, count: int) -> None:
    compiled = _graph()
    for _ in range(count):
        compiled.invoke({"text": "hi"}, config)


def agent(config: Any, count: int) -> None:
    compiled = _agent()
    for _ in range(count):
        compiled.invoke({"messages": [("user", "hi")]}, config)


def works(astreams: int) -> tuple[Work, ...]:
    """All works; so many streams at once."""
    return (
        Work("invoke", "one after the other", invoke, 20, 10),
        Work("stream", f"{CHUNKS} chunks", stream, 2, 3),
        Work("ainvoke", f"{AT_ONCE} at once", ainvoke, AT_ONCE, 1),
        Work("astream", f"{astreams} at once, {CHUNKS} chunks", astream, astreams, max(1, 40 // astreams)),
        Work("graph", f"LangGraph with {NODES} nodes, one call", graph, 1, 8, each="run"),
        Work("agent", "create_agent, a tool, two calls", agent, 1, 4, each="run", calls=2),
    )


@cache
def _graph() -> Any:
    from langgraph.graph import END, START, StateGraph
    from typing_extensions import TypedDict

    class State(TypedDict):
        text: str

    def calls(state: State) -> State:
        return {"text": str(_model.invoke(state["text"]).content)}

    def passes(state: State) -> State:
        return {"text": state["text"]}

    builder = StateGraph(State)
    names = [f"node_{number}" for number in range(NODES)]
    for number, name in enumerate(names):
        builder.add_node(name, calls if number == NODES // 2 else passes)
    for one, other in zip([START, *names], [*names, END], strict=True):
        builder.add_edge(one, other)
    return builder.compile()


@cache
def _agent() -> Any:
    from langchain.agents import create_agent
    from langchain_core.tools import tool

    @tool
    def look_up(key: str) -> str:
        """Look something up."""
        return key

    return create_agent(ToolUser(), tools=[look_up])


class Events(BaseCallbackHandler):
    """Counts what LangChain tells of: `chain` the events of chains, graphs and tools, `call` those of models' starts."""

    run_inline = True
    raise_error = True

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.seen["call"] += 1

    def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
        self.seen["chain"] += 1

    on_chain_end = on_chain_error = on_chain_start
    on_tool_start = on_tool_end = on_tool_error = on_chain_start


def events(work: Work, loop: asyncio.Runner) -> Counter[str]:
    """What LangChain tells of one call or run."""
    handler = Events()
    work.run({"callbacks": [handler]}, loop, 1)
    return handler.seen


class Tape(BaseCallbackHandler):
    """The chain events of a run, to be told again."""

    run_inline = True

    def __init__(self) -> None:
        self.events: list[tuple[str, tuple[Any, ...], Mapping[str, Any]]] = []

    def on_chain_start(self, *arguments: Any, **named: Any) -> None:
        self.events.append(("on_chain_start", arguments, named))

    def on_chain_end(self, *arguments: Any, **named: Any) -> None:
        self.events.append(("on_chain_end", arguments, named))

    def played_to(self, handler: BaseCallbackHandler) -> None:
        """Tell a handler all of it, as LangChain does."""
        handlers = [handler]
        for event, arguments, named in self.events:
            handle_event(handlers, event, "ignore_chain", *arguments, **named)


def taped(work: Work, loop: asyncio.Runner) -> Tape:
    """The chain events of one run."""
    tape = Tape()
    work.run({"callbacks": [tape]}, loop, 1)
    return tape
