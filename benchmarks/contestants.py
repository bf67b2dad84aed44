"""Who is compared: nothing, handlers of no substance, ours, and what users would pick instead.

  none             no handler
  empty            a handler with empty methods, inline: the floor, LangChain's dispatch alone
  recording        ours, without budgets and spool
  budgets          ours, with budgets of a session, user, service, agent tier and organization in force, far from their limits
  budgets+spool    the same with the spool, as `VitalTracker.from_env()` has it
  UsageMetadata    langchain_core's UsageMetadataCallbackHandler, which adds up tokens in memory
  LangSmith        LangChainTracer with a Client: a queue and threads that send compressed multipart
  Langfuse         langfuse.langchain.CallbackHandler: spans, sent by OpenTelemetry's batch processor with Langfuse's settings
  OpenInference    LangChainInstrumentor, attached to the whole process, and OpenTelemetry's own batch processor and exporter

Calls of ours are delivered to a PostgreSQL, those of the last three to a local sink that accepts and discards; all by their own
threads with their default settings. All calls carry the same metadata, those of a conversation's scope, also where nobody reads
them: only the handler differs.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import psycopg
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.tracers.context import _configure_hooks

from benchmarks.sink import received
from vital_tracking import Agent, Settings, VitalTracker
from vital_tracking.core.context import SCOPE_KEY, CallContext
from vital_tracking.langchain.callbacks import _ambient, watch_scopes
from vital_tracking.stores.postgres import PostgresStore

AGENT = Agent("cardio", name="Cardiologist", tier="tier_1", role="expert")
USER, SESSION = "u-1", "s-1"

TIERS = ("session", "user", "service", "tier", "organization")

# For every organization whose name begins so; `recording` has none.
BUDGETED = ("budgets", "budgets+spool")
BUDGETS = [
    {"entity_type": tier, "organization_id": organization, "monthly_limit": "1000000", "action": "block"}
    for organization in BUDGETED
    for tier in TIERS
]


@cache
def _watched() -> Any:
    """Scopes are watched by a hook that all calls of a process pass."""
    watch_scopes()
    return next(hook for hook in _configure_hooks if hook[0] is _ambient)


@dataclass(frozen=True)
class Places:
    """Where contestants deliver to: a database with `BUDGETS`, the address of a `benchmarks.sink`; and a folder for the spool."""

    database: str
    sink: str
    folder: Path


class Contestant:
    """No handler."""

    def __init__(self, name: str, places: Places) -> None:
        self.name = name
        self._places = places

    @contextlib.contextmanager
    def turn(self) -> Iterator[dict[str, Any]]:
        """What is around all calls, and their config."""
        context = CallContext(
            organization_id=self.name,
            user_id=USER,
            session_id=SESSION,
            service_type="1:1_conversation",
            service_id=SESSION,
            service_name=AGENT.name,
            service_run_id="0" * 36,
            **AGENT.fields(),
        )
        yield {**self._config(), "metadata": {**context.as_metadata(), SCOPE_KEY: context.service_run_id}}

    def _config(self) -> dict[str, Any]:
        return {}

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """What must be around a slice of calls, and not around others'."""
        yield

    def flush(self) -> None:
        """Deliver all that was told."""

    def arrived(self) -> int | None:
        """How many calls are where they were to be delivered; None where there is no such place."""
        return None

    def close(self) -> None:
        """End its threads."""


class EmptyHandler(BaseCallbackHandler):
    """LangChain's dispatch to methods that do nothing."""

    run_inline = True
    raise_error = True

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None: ...

    def on_llm_new_token(self, *args: Any, **kwargs: Any) -> None: ...

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None: ...

    def on_llm_error(self, *args: Any, **kwargs: Any) -> None: ...

    def on_chain_start(self, *args: Any, **kwargs: Any) -> None: ...

    def on_chain_end(self, *args: Any, **kwargs: Any) -> None: ...

    def on_chain_error(self, *args: Any, **kwargs: Any) -> None: ...

    def on_tool_start(self, *args: Any, **kwargs: Any) -> None: ...

    def on_tool_end(self, *args: Any, **kwargs: Any) -> None: ...

    def on_tool_error(self, *args: Any, **kwargs: Any) -> None: ...


class Handled(Contestant):
    """A handler among the callbacks, which delivers nothing."""

    handler: BaseCallbackHandler

    def _config(self) -> dict[str, Any]:
        return {"callbacks": [self.handler]}


class Empty(Handled):
    """The floor."""

    def __init__(self, name: str, places: Places) -> None:
        super().__init__(name, places)
        self.handler = EmptyHandler()


class Ours(Contestant):
    """A tracker on the database; its organization has its name."""

    def __init__(self, name: str, places: Places, **settings: Any) -> None:
        super().__init__(name, places)
        self._hook = _watched()
        if self._hook in _configure_hooks:  # it is there for calls of ours alone
            _configure_hooks.remove(self._hook)
        self.tracker = VitalTracker(
            PostgresStore(places.database),
            settings=Settings(spool_dir=places.folder, **settings),
            organization_id=self.name,
        )
        self.handler = self.tracker.handler

    @contextlib.contextmanager
    def turn(self) -> Iterator[dict[str, Any]]:
        with self.tracker.conversation(user_id=USER, session_id=SESSION, agent=AGENT) as conversation:
            yield dict(conversation.config())

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        _configure_hooks.append(self._hook)
        try:
            yield
        finally:
            _configure_hooks.remove(self._hook)

    def flush(self) -> None:
        if not self.tracker.flush(600).complete:
            raise RuntimeError(f"{self.name}: not all is delivered: {self.tracker.stats()}")

    def arrived(self) -> int:
        """Rows of calls in the database; where budgets are, all of them are in the windows of all tiers."""
        with psycopg.connect(self._places.database) as connection:
            [(calls, cost)] = connection.execute(
                "select count(*), sum(total_cost) from token_usage_logs where organization_id = %s", [self.name]
            ).fetchall()
            windows = connection.execute(
                "select entity_type, sum(spent) from budget_windows join budget_limits on budget_id = budget_limits.id"
                " where organization_id = %s group by entity_type",
                [self.name],
            ).fetchall()
        if (
            dict(windows) != dict.fromkeys(TIERS if self.name in BUDGETED else (), cost)
            or self.tracker.stats().unchecked
        ):
            raise RuntimeError(f"{self.name}: {calls} calls cost {cost}, and the windows say {windows}")
        return int(calls)

    def close(self) -> None:
        self.tracker.close(60)
        if self._hook not in _configure_hooks:
            _configure_hooks.append(self._hook)


class UsageMetadata(Handled):
    """What langchain_core has of its own."""

    def __init__(self, name: str, places: Places) -> None:
        super().__init__(name, places)
        self.handler = UsageMetadataCallbackHandler()


class Sent(Contestant):
    """Delivers to the sink, which knows who comes from their addresses."""

    def arrived(self) -> int:
        return received(self._places.sink, self.name)["calls"]


class LangSmith(Sent, Handled):
    """One tracer for all calls; switched on by the environment there would be a new one for each."""

    def __init__(self, name: str, places: Places) -> None:
        super().__init__(name, places)
        from langchain_core.tracers import LangChainTracer
        from langsmith import Client

        self._client = Client(api_url=places.sink, api_key="key")
        self.handler = LangChainTracer(client=self._client, project_name="bench")

    def flush(self) -> None:
        self._client.flush()

    def close(self) -> None:
        self._client.cleanup()


class Langfuse(Sent, Handled):
    """One handler for all calls."""

    def __init__(self, name: str, places: Places) -> None:
        super().__init__(name, places)
        from langfuse import Langfuse as Client
        from langfuse.langchain import CallbackHandler

        self._client = Client(public_key="pk-lf-bench", secret_key="sk-lf-bench", base_url=places.sink)
        self.handler = CallbackHandler(public_key="pk-lf-bench")

    def flush(self) -> None:
        self._client.flush()

    def close(self) -> None:
        self._client.shutdown()


class OpenInference(Sent):
    """Its handler is in every callback manager that is made while it is attached."""

    def __init__(self, name: str, places: Places) -> None:
        super().__init__(name, places)
        from openinference.instrumentation.langchain import LangChainInstrumentor
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._provider = TracerProvider()
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{places.sink}/v1/traces")))
        self._instrumentor = LangChainInstrumentor()

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        self._instrumentor.instrument(tracer_provider=self._provider, skip_dep_check=True)
        try:
            yield
        finally:
            self._instrumentor.uninstrument()

    def flush(self) -> None:
        self._provider.force_flush()

    def close(self) -> None:
        self._provider.shutdown()


CONTESTANTS: dict[str, Callable[[str, Places], Contestant]] = {
    "none": Contestant,
    "empty": Empty,
    "recording": partial(Ours, budgets=False, spool=False),
    "budgets": partial(Ours, spool=False),
    "budgets+spool": Ours,
    "UsageMetadata": UsageMetadata,
    "LangSmith": LangSmith,
    "Langfuse": Langfuse,
    "OpenInference": OpenInference,
}


OURS = ("recording", "budgets", "budgets+spool")


def names_of(contestants: str) -> list[str]:
    """The names that an option tells: `all`, or names with commas between them."""
    names = list(CONTESTANTS) if contestants == "all" else contestants.split(",")
    if "none" not in names or not CONTESTANTS.keys() >= set(names):
        others = ", ".join(name for name in CONTESTANTS if name != "none")
        raise SystemExit(f"--contestants: `none`, and any of {others}, with commas between them")
    return names


@contextlib.contextmanager
def contestant(name: str, places: Places) -> Iterator[Contestant]:
    """A contestant that is closed in the end. What the environment says of tracing would be said to all: it is forgotten."""
    for variable in [one for one in os.environ if one.startswith(("LANGSMITH_", "LANGCHAIN_", "LANGFUSE_", "OTEL_"))]:
        del os.environ[variable]
    one = CONTESTANTS[name](name, places)
    try:
        yield one
    finally:
        one.close()
