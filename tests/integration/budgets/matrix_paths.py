"""The ways to ask a model, for the matrix of test_budget_matrix: a thing that asks, and a mode in which it is asked."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware, ModelRetryMiddleware
from langchain.agents.structured_output import ToolStrategy
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import StructuredTool, tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import RetryPolicy, Send
from pydantic import BaseModel

if TYPE_CHECKING:
    from tests.integration.budgets.matrix_world import Case

ANSWER = "Hello there."


class Done(TypedDict):
    question: str
    done: Annotated[list[str], operator.add]


@dataclass(frozen=True)
class Thing:
    """Something that asks a model: how it is made, what it is given, and which answers its result holds."""

    make: Callable[[Case], Any]
    modes: str
    given: Callable[[Case], Any]
    answers: Callable[[Any], list[str]]
    calls: int = 1
    asks: int = 1  # how often it may ask where every call is stopped
    repairs: bool = False  # answers although the first request fails
    agent: bool = False  # its model is one that a middleware sees
    stream: dict[str, Any] = field(default_factory=dict)  # options of its streams
    whole: Callable[[list[Any]], Any] | None = None  # what the chunks of a stream make, where that is more than text


@dataclass(frozen=True)
class Path:
    """A thing and a mode in which it is asked."""

    name: str
    mode: str
    thing: Thing

    @property
    def questions(self) -> int:
        """How many questions are asked at once."""
        return 2 if "batch" in self.mode else 1

    @property
    def calls(self) -> int:
        """Calls of the model, where none is stopped or fails."""
        return self.questions * self.thing.calls

    def ask(self, case: Case) -> Callable[[Any], Any]:
        """Make the thing; gives a function of the config, which gives the answers, perhaps by a coroutine."""
        made, given, thing = self.thing.make(case), self.thing.given(case), self.thing
        return lambda config: _MODES[self.mode](made, given, config, thing)


def _invoke(made: Any, given: Any, config: Any, thing: Thing) -> list[str]:
    return thing.answers(made.invoke(given, config))


async def _ainvoke(made: Any, given: Any, config: Any, thing: Thing) -> list[str]:
    return thing.answers(await made.ainvoke(given, config))


def _batch(made: Any, given: Any, config: Any, thing: Thing) -> list[str]:
    return [answer for result in made.batch([given, given], config) for answer in thing.answers(result)]


async def _abatch(made: Any, given: Any, config: Any, thing: Thing) -> list[str]:
    # Where one question fails, the others would go on behind our back.
    results = await made.abatch([given, given], config, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [answer for result in results for answer in thing.answers(result)]


def _stream(made: Any, given: Any, config: Any, thing: Thing) -> list[str]:
    return _joined(list(made.stream(given, config, **thing.stream)), thing)


async def _astream(made: Any, given: Any, config: Any, thing: Thing) -> list[str]:
    return _joined([chunk async for chunk in made.astream(given, config, **thing.stream)], thing)


async def _events_v2(made: Any, given: Any, config: Any, thing: Thing) -> list[str]:
    events = [event async for event in made.astream_events(given, config, version="v2")]
    return [event["data"]["output"].text for event in events if event["event"] == "on_chat_model_end"]


def _v3(made: Any, given: Any, config: Any, thing: Thing) -> list[str]:
    return thing.answers(made.stream_events(given, config, version="v3").output)


async def _av3(made: Any, given: Any, config: Any, thing: Thing) -> list[str]:
    output = (await made.astream_events(given, config, version="v3")).output
    return thing.answers(await (output() if callable(output) else output))


_MODES: dict[str, Callable[..., Any]] = {
    "invoke": _invoke,
    "ainvoke": _ainvoke,
    "batch": _batch,
    "abatch": _abatch,
    "stream": _stream,
    "astream": _astream,
    "events_v2": _events_v2,
    "v3": _v3,
    "av3": _av3,
}


def _joined(chunks: list[Any], thing: Thing) -> list[str]:
    return ["".join(map(_text, chunks))] if thing.whole is None else thing.answers(thing.whole(chunks))


def _text(chunk: Any) -> str:
    """The text of a chunk: of a model, of a chain, or of a graph that streams messages."""
    message = chunk[0] if isinstance(chunk, tuple) else chunk
    return message if isinstance(message, str) else str(message.text)


def node(model: Any) -> Any:
    """A node that asks a model, in sync and async runs alike."""

    def ask(state: Any) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    async def aask(state: Any) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    return RunnableLambda(ask, aask)


def _graph(inside: Any, **options: Any) -> Any:
    return StateGraph(MessagesState).add_node("answer", inside, **options).add_edge(START, "answer").compile()


def sends(case: Case, **options: Any) -> Any:
    """A graph that runs one node three times at once; `options` are those of compile()."""

    def work(state: Done) -> dict[str, Any]:
        return {"done": [case.model.invoke(state["question"]).text]}

    async def awork(state: Done) -> dict[str, Any]:
        return {"done": [(await case.model.ainvoke(state["question"])).text]}

    builder = StateGraph(Done).add_node("work", RunnableLambda(work, awork))
    return builder.add_conditional_edges(START, lambda state: [Send("work", state)] * 3).compile(**options)


def _tool(case: Case) -> Any:
    """An agent, whose own model is no concern of the case's budget, and a tool of its that asks the case's model."""

    def consult() -> str:
        """Ask the other model."""
        return str(case.model.invoke(case.question).text)

    async def aconsult() -> str:
        return str((await case.model.ainvoke(case.question)).text)

    return create_agent(case.world.driver, [StructuredTool.from_function(consult, aconsult)])


def _agent(case: Case, *around: Any) -> Any:
    return create_agent(case.model, middleware=[*around, *case.middleware])


def _last(state: Any) -> list[str]:
    return [state["messages"][-1].text]


def _of_tool(state: Any) -> list[str]:
    return [message.text for message in state["messages"] if message.type == "tool"]


def _asked(case: Case) -> Any:
    return case.question


def _messages(case: Case) -> Any:
    return {"messages": [("user", case.question)]}


_PROMPT = ChatPromptTemplate.from_messages([("user", "{question}")])
_AGAIN: dict[str, Any] = {"stop_after_attempt": 2, "wait_exponential_jitter": False}
_POLICY = RetryPolicy(max_attempts=2, initial_interval=0.001, jitter=False, retry_on=Exception)
_IN_MESSAGES: dict[str, Any] = {"stream_mode": "messages"}


def _of_model(make: Callable[[Case], Any], modes: str, **more: Any) -> Thing:
    return Thing(make, modes, _asked, **{"answers": lambda message: [message.text], **more})


def _of_graph(make: Callable[[Case], Any], modes: str, **more: Any) -> Thing:
    return Thing(make, modes, _messages, _last, stream=_IN_MESSAGES, **more)


THINGS = {
    "model": _of_model(lambda case: case.model, "invoke ainvoke batch abatch stream astream events_v2 v3 av3"),
    "chain": Thing(
        lambda case: _PROMPT | case.model | StrOutputParser(),
        "invoke ainvoke batch abatch stream astream events_v2",
        lambda case: {"question": case.question},
        lambda text: [text],
    ),
    "with_retry": _of_model(
        lambda case: case.model.with_retry(**_AGAIN), "invoke ainvoke batch abatch", asks=2, repairs=True
    ),
    "with_fallbacks": _of_model(
        lambda case: case.model.with_fallbacks([case.fallback]),
        "invoke ainvoke batch abatch stream astream",
        asks=2,
        repairs=True,
    ),
    "node": _of_graph(
        lambda case: _graph(node(case.model)), "invoke ainvoke batch abatch stream astream events_v2 v3 av3"
    ),
    "subgraph": _of_graph(lambda case: _graph(_graph(node(case.model))), "invoke ainvoke v3 av3"),
    "retried_node": _of_graph(
        lambda case: _graph(node(case.model), retry_policy=_POLICY), "invoke ainvoke", repairs=True
    ),
    "sends": Thing(
        sends, "invoke ainvoke", lambda case: {"question": case.question}, operator.itemgetter("done"), calls=3
    ),
    "tool": Thing(_tool, "invoke ainvoke", lambda case: {"messages": [("user", "Consult the other model.")]}, _of_tool),
    "agent": _of_graph(_agent, "invoke ainvoke stream astream events_v2 v3 av3", agent=True),
    "retry_middleware": _of_graph(
        lambda case: _agent(case, ModelRetryMiddleware(max_retries=1, initial_delay=0, jitter=False)),
        "invoke ainvoke",
        agent=True,
        repairs=True,
    ),
    "fallback_middleware": _of_graph(
        lambda case: _agent(case, ModelFallbackMiddleware(case.fallback)), "invoke ainvoke", agent=True, repairs=True
    ),
}


class Sum(BaseModel):
    """The sum."""

    total: int


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def _sum(found: Any) -> list[str]:
    return [ANSWER if found == Sum(total=3) else repr(found)]


# What is bound to a model must be bound to the one that it is downgraded to.
BOUND = {
    "tools": _of_model(
        lambda case: case.model.bind_tools([add]),
        "invoke ainvoke batch abatch stream astream v3 av3",
        answers=lambda message: [ANSWER if message.tool_calls[0]["args"] == {"a": 1, "b": 2} else repr(message)],
        whole=lambda chunks: reduce(operator.add, chunks),
    ),
    "structured": Thing(
        lambda case: case.model.with_structured_output(Sum),
        "invoke ainvoke batch abatch stream astream",
        _asked,
        _sum,
        whole=lambda chunks: chunks[-1],
    ),
    "structured_raw": Thing(
        lambda case: case.model.with_structured_output(Sum, include_raw=True),
        "invoke ainvoke",
        _asked,
        lambda found: _sum(found["parsed"]),
    ),
    "agent_with_tools": Thing(
        lambda case: create_agent(case.model, [add], middleware=case.middleware, response_format=ToolStrategy(Sum)),
        "invoke ainvoke",
        _messages,
        lambda state: _sum(state["structured_response"]) * 2,
        calls=2,
        agent=True,
    ),
}


# Not a chat model: what may be guarded is one, so that only the handler applies.
COMPLETION = {
    "completion": Thing(
        lambda case: case.model, "invoke ainvoke batch abatch stream astream", _asked, lambda text: [text]
    )
}


def _paths(things: dict[str, Thing]) -> list[Path]:
    return [Path(f"{name}-{mode}", mode, thing) for name, thing in things.items() for mode in thing.modes.split()]


PATHS, BOUND_PATHS, COMPLETION_PATHS = _paths(THINGS), _paths(BOUND), _paths(COMPLETION)

# Where the path makes no difference but to show that there is none: a sync one, an async one, one through an agent.
FEW = [path for path in PATHS if path.name in ("model-invoke", "chain-astream", "agent-ainvoke")]
