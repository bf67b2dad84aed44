"""The ways to ask a model and the ways to attach budgets to them, for the matrix of test_budget_matrix.

A path is a runnable and a mode in which it is asked; a case is a path, an attachment, a budget and a user of its own. All cases
share one database, one tracker and one provider's server: budgets are for each user of an organization, an organization for
each action.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import operator
import re
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, TypedDict

import psycopg
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware, ModelRetryMiddleware
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import StructuredTool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import RetryPolicy, Send
from psycopg.rows import dict_row

from tests.support.provider_server import ProviderServer, Reply, Request
from vital_tracking import Settings, VitalTracker
from vital_tracking.langchain.middleware import VitalMiddleware
from vital_tracking.stores.postgres import PostgresStore

ANSWER = "Hello there."
DEAR, CHEAP, OTHER = "gpt-4o", "gpt-4o-mini", "claude-haiku-4-5"  # OTHER is another provider's, and cheap as well
PRICES = {DEAR: ("2.5", "10"), CHEAP: ("0.15", "0.6"), OTHER: ("1", "5")}  # dollars per million tokens in and out
INTERVAL_S = 0.2
AUDIT_EVERY = 20

# Organization -> the budgets of each of its users. One call is the limit, but for `none`, where nothing is ever near one.
BUDGETS: dict[str, Sequence[dict[str, Any]]] = {
    "none": [
        {"action": "block", "monthly_limit": "1000"},
        {"action": "throttle", "monthly_limit": "1000"},
        {"action": "downgrade", "monthly_limit": "1000", "downgrade_to": CHEAP},
        {"action": "alert", "monthly_limit": "1000"},
    ],
    "alert": [{"action": "alert"}],
    "shadow": [{"action": "block", "enforce": False}],
    "block": [{"action": "block"}],
    "throttle": [{"action": "throttle", "throttle_interval_s": str(INTERVAL_S)}],
    "slow": [{"action": "throttle", "throttle_interval_s": "60"}],
    "downgrade": [{"action": "downgrade", "downgrade_to": CHEAP}],
    "across": [{"action": "downgrade", "downgrade_to": OTHER}],
}

# A user's windows, each with what must be in it by the calls and by the grants.
_SUMS = """
select
  w.spent, w.granted, w.limit_amount, b.action, b.enforce,
  (select count(*) from token_usage_logs as c where c.user_id = w.entity_id and c.status <> 'blocked') as calls,
  (select coalesce(sum(g.amount), 0) from budget_grants as g where g.window_id = w.id) as grants
from budget_windows as w
join budget_limits as b on b.id = w.budget_id
where w.entity_id = %s
"""

_USER = re.compile(r"user <([^<>]+)>")


# Paths


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
    return ["".join(_text(chunk) for chunk in made.stream(given, config, **thing.stream))]


async def _astream(made: Any, given: Any, config: Any, thing: Thing) -> list[str]:
    return ["".join([_text(chunk) async for chunk in made.astream(given, config, **thing.stream)])]


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


def _text(chunk: Any) -> str:
    """The text of a chunk: of a model, of a chain, or of a graph that streams messages."""
    message = chunk[0] if isinstance(chunk, tuple) else chunk
    return message if isinstance(message, str) else str(message.text)


def _node(model: Any) -> Any:
    """A node that asks a model, in sync and async runs alike."""

    def ask(state: Any) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    async def aask(state: Any) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    return RunnableLambda(ask, aask)


def _graph(node: Any, **options: Any) -> Any:
    return StateGraph(MessagesState).add_node("answer", node, **options).add_edge(START, "answer").compile()


def _sends(case: Case) -> Any:
    def work(state: Done) -> dict[str, Any]:
        return {"done": [case.model.invoke(state["question"]).text]}

    async def awork(state: Done) -> dict[str, Any]:
        return {"done": [(await case.model.ainvoke(state["question"])).text]}

    builder = StateGraph(Done).add_node("work", RunnableLambda(work, awork))
    return builder.add_conditional_edges(START, lambda state: [Send("work", state)] * 3).compile()


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
    return Thing(make, modes, _asked, lambda message: [message.text], **more)


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
    "node": _of_graph(lambda case: _graph(_node(case.model)), "invoke ainvoke batch abatch stream astream v3 av3"),
    "subgraph": _of_graph(lambda case: _graph(_graph(_node(case.model))), "invoke ainvoke v3 av3"),
    "retried_node": _of_graph(
        lambda case: _graph(_node(case.model), retry_policy=_POLICY), "invoke ainvoke", asks=2, repairs=True
    ),
    "sends": Thing(
        _sends, "invoke ainvoke", lambda case: {"question": case.question}, operator.itemgetter("done"), calls=3
    ),
    "tool": Thing(
        _tool, "invoke ainvoke", lambda case: {"messages": [("user", "Consult the other model.")]}, _of_tool
    ),
    "agent": _of_graph(_agent, "invoke ainvoke stream astream v3 av3", agent=True),
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
PATHS = [Path(f"{name}-{mode}", mode, thing) for name, thing in THINGS.items() for mode in thing.modes.split()]


# Attachments


HANDLER = ("config", "scope")  # the plain handler, by the caller's config and by the scope that is open
GUARD = ("guard", "middleware")
EVERY = (*HANDLER, *GUARD)


def cases(attachments: Iterable[str], *, where: Callable[[Path], bool] = lambda path: True) -> list[tuple[str, Path]]:
    """Each path with each attachment that it can have: only an agent's own model is seen by a middleware."""
    return [
        (attachment, path)
        for attachment in attachments
        for path in PATHS
        if where(path) and (path.thing.agent or attachment != "middleware")
    ]


class World:
    """The database, the tracker and the provider's server that all cases share."""

    def __init__(self, url: str, server: ProviderServer) -> None:
        self.server = server
        self.requests: defaultdict[str, list[Request]] = defaultdict(list)
        self.failing: Counter[str] = Counter()
        self.settled = itertools.count(1)
        self.connection = psycopg.connect(url, row_factory=dict_row, autocommit=True)
        store = PostgresStore(url)
        for organization, budgets in BUDGETS.items():
            for budget in budgets:
                common = {"organization_id": organization, "entity_type": "user", "metric": "calls", "monthly_limit": "1"}
                store.call("set_budget_v1", budget=json.dumps({**common, **budget}))
        self.tracker = VitalTracker(store, settings=Settings(flush_interval_s=60.0))
        server.respond_with(self._respond)
        self.models = {
            DEAR: server.chat_openai(model=DEAR),
            CHEAP: server.chat_openai(model=CHEAP),
            OTHER: server.chat_anthropic(model=OTHER),
        }
        self.driver = server.chat_openai(metadata={"vital_user_id": "driver", "vital_organization_id": "none"})

    def _respond(self, request: Request) -> Reply:
        """Answer, or fail where a case asked for that; what belongs to no case comes from the agent that calls the tool."""
        found = _USER.search(json.dumps(request.body))
        if found is None:
            asked = request.body["messages"][-1]["role"] == "user"
            return Reply(text="", tool_calls=[("consult", {})]) if asked else Reply()
        user = found[1]
        self.requests[user].append(request)
        if self.failing[user]:
            self.failing[user] -= 1
            return Reply(status=500)
        return Reply(text=ANSWER)

    def spend(self, *given: Case) -> None:
        """Use up the limits of these cases' users: one call each, which is in the database when this returns."""
        for case in given:
            self.tracker.record(
                model=CHEAP, prompt_tokens=1, completion_tokens=1, user_id=case.user, organization_id=case.organization
            )
        assert self.tracker.flush().complete

    def rows(self, sql: str, *arguments: Any) -> list[dict[str, Any]]:
        """What a query finds."""
        return self.connection.execute(sql, arguments or None).fetchall()

    def settle(self, case: Case) -> None:
        """Deliver all; the sums must be right, nothing may be left open, and nothing may have gone wrong on our side.

        All sums of all budgets are proved every now and then, as that takes longer than a case, and at the end: what a case
        has made wrong stays wrong.
        """
        assert self.tracker.flush().complete
        stats = self.tracker.stats()
        assert (stats.faults, stats.rejected, stats.dropped, stats.unchecked, stats.in_flight) == (0, 0, 0, 0, 0)
        for window in self.rows(_SUMS, case.user):
            assert (window["spent"], window["granted"]) == (window["calls"], window["grants"])
            assert window["action"] != "block" or not window["enforce"] or window["spent"] <= window["limit_amount"]
        if next(self.settled) % AUDIT_EVERY == 0:
            self.audit()

    def audit(self) -> None:
        """Prove all sums of all budgets."""
        audit = self.tracker.store.call("audit_budgets_v1")
        assert (audit["differences"], audit["overshoot"]) == ([], [])

    def close(self) -> None:
        """Close the tracker; nothing may be left set aside for any call."""
        try:
            assert self.tracker.flush().complete
            self.audit()
            assert self.tracker.close().complete
            assert self.rows("select entity_id, granted from budget_windows where granted <> 0") == []
        finally:
            self.connection.close()


@dataclass
class Case:
    """One cell of the matrix."""

    world: World
    organization: str
    attachment: str
    path: Path
    name: str = DEAR
    downgrade_to: Any = None
    more: str = ""  # tells users of one test's several cases apart

    @property
    def user(self) -> str:
        """The case's own user: nobody else's calls count for it."""
        return f"{self.organization}{self.more}/{self.attachment}/{self.path.name}"

    @property
    def question(self) -> str:
        """What the model is asked: the server tells cases apart by it."""
        return f"Hi from user <{self.user}>"

    @cached_property
    def model(self) -> Any:
        """The model that is asked."""
        return self._attached(self.world.models[self.name])

    @cached_property
    def fallback(self) -> Any:
        """Another provider's model, for what falls back."""
        return self._attached(self.world.models[OTHER])

    @property
    def middleware(self) -> list[Any]:
        """What stands around an agent's model, the last."""
        if self.attachment != "middleware":
            return []
        return [VitalMiddleware(self.world.tracker, downgrade_to=self.downgrade_to, max_wait=10)]

    def _attached(self, model: Any) -> Any:
        if self.attachment.startswith("guard"):
            return self.world.tracker.guard(model, downgrade_to=self.downgrade_to, max_wait=10)
        return model

    @contextmanager
    def _scope(self) -> Iterator[Any]:
        if "scope" not in self.attachment:
            config = {"metadata": {"vital_user_id": self.user, "vital_organization_id": self.organization}}
            yield config | ({"callbacks": [self.world.tracker.handler]} if self.attachment == "config" else {})
            return
        with self.world.tracker.workflow("matrix", user_id=self.user, organization_id=self.organization):
            yield {}

    def prepared(self) -> Callable[[], list[str]]:
        """Make the runnable; gives what asks it, and gives its answers."""
        ask = self.path.ask(self)

        def run() -> list[str]:
            with self._scope() as config:
                result = ask(config)
                answers: list[str] = asyncio.run(result) if inspect.iscoroutine(result) else result
                return answers

        return run

    def ask(self) -> list[str]:
        """Ask; the answers."""
        return self.prepared()()

    # What came of it

    @property
    def requests(self) -> list[Request]:
        """What has reached the provider."""
        return self.world.requests[self.user]

    def rows(self) -> list[dict[str, Any]]:
        """The calls of this case, in the order they started; not the one that used up the limit."""
        return self.world.rows(
            "select * from token_usage_logs where user_id = %s and run_id is not null"
            " or user_id = %s and status = 'blocked' order by id",
            self.user,
            self.user,
        )

    def runs(self) -> list[tuple[str, str | None]]:
        """How the service runs of this case have ended."""
        found = self.world.rows("select status, error_type from service_runs where user_id = %s order by id", self.user)
        return [(run["status"], run["error_type"]) for run in found]

    def ended(self, *expected: tuple[str, str | None]) -> bool:
        """Whether the case's scopes ended so; where there are none there is nothing to ask."""
        return self.runs() == (list(expected) if "scope" in self.attachment else [])
