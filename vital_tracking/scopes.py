"""The scopes of the four services: open one, and every call inside is attributed to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextvars import Token
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypedDict, Unpack, cast

from vital_tracking.core.context import METADATA_PREFIX, SCOPE_KEY, Agent, CallContext, same
from vital_tracking.core.frames import ScopeFrame, current_frame, enter, exported_by, leave, locate, resolve, seat_id
from vital_tracking.core.record import HUNG_UP, RunRecord, RunStatus
from vital_tracking.core.tally import Spent
from vital_tracking.errors import BudgetExceeded, VitalError
from vital_tracking.ids import new_id

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig

# LangGraph's control flow travels as exceptions and is no failure.
_CONTROL_FLOW = frozenset({"GraphBubbleUp", "GraphInterrupt"})


class ContextOptions(TypedDict, total=False):
    """What every scope may be given besides its own: who, for whom, and small metadata."""

    user_id: str | None
    session_id: str | None
    organization_id: str | None
    agent: Agent | str | None
    framework: str | None
    message_type: str | None
    metadata: Mapping[str, Any] | None


class Host(Protocol):
    """What a scope needs of its tracker."""

    default: CallContext
    """The context of a call outside any scope."""

    def put_run(self, run: RunRecord) -> None:
        """Record one state of a service run; never raises."""

    def spent(self, frame: ScopeFrame) -> Spent:
        """What the calls of the scope of that `frame`, and of those inside it, have used and cost so far."""

    def attached(self, callbacks: Any, more: Any = None) -> Any:
        """A caller's callbacks, and more of them, with the tracker's handler among them."""

    def inherited_config(self) -> Mapping[str, Any]:
        """Callbacks, metadata and tags that the LangChain run around this code hands to its children; else empty."""

    def watch_scopes(self) -> None:
        """See to it that calls in a scope are recorded although no config is handed to them."""


class Services:
    """Opens the scopes of the four services: inside this one where it is a scope, else inside the one that is open then."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def _parent(self) -> ScopeFrame | None:
        """The scope in which they open, as it is by then: one that is used again is another run."""
        return None

    def conversation(self, conversation_id: str | None = None, /, **options: Unpack[ContextOptions]) -> Scope:
        """A turn of a 1:1 conversation: `with tracker.conversation(user_id="u-1", session_id="s-1", agent=cardio) as turn:`.

        `conversation_id` is by default the session's id. `options` are those of every scope: `user_id`, `session_id`,
        `organization_id`, `agent` (an Agent or its id), `framework`, `message_type` and small `metadata`. TypeError for others.
        """
        agent = _agent(options.get("agent"))
        changes = {
            "service_type": "1:1_conversation",
            "service_id": conversation_id or options.get("session_id"),
            "service_name": agent.name or agent.id if agent else None,
        }
        return Scope(self._host, changes, options, self._parent)

    def panel(
        self,
        panel_id: str,
        /,
        *,
        members: Sequence[Agent | str] = (),
        name: str | None = None,
        **options: Unpack[ContextOptions],
    ) -> Panel:
        """A session of the virtual panel `panel_id`: `with tracker.panel("board", members=[cardio, legal]) as panel:`.

        Each of `members` (Agents or their ids) has a seat in `panel.seats`, numbered from 1 in the order given; TypeError
        where they are one text. `name` is shown in reports, by default
        the id. `options` are those of every scope; see `conversation`.
        """
        if isinstance(members, (str, Agent)):
            raise TypeError(f"members must be a list of agents or of their ids, such as [{members!r}].")
        changes = {
            "service_type": "virtual_panel",
            "service_id": panel_id,
            "service_name": name or panel_id,
            "panel_id": panel_id,
            "panel_size": len(members) or None,
        }
        return Panel(self._host, changes, options, self._parent, [_as_agent(member) for member in members])

    def workflow(self, workflow_id: str, /, *, name: str | None = None, **options: Unpack[ContextOptions]) -> Scope:
        """A run of the workflow `workflow_id`: `with tracker.workflow("intake", user_id="u-1") as workflow:`.

        LangGraph nodes inside it are its steps; `step(...)` names them. `name` is shown in reports, by default the id. `options`
        are those of every scope; see `conversation`.
        """
        changes = {
            "service_type": "workflow",
            "service_id": workflow_id,
            "service_name": name or workflow_id,
            "workflow_id": workflow_id,
        }
        return Scope(self._host, changes, options, self._parent)

    def solution(self, solution_id: str, /, *, name: str | None = None, **options: Unpack[ContextOptions]) -> Scope:
        """A run of the solution `solution_id` of the solution builder: whatever runs inside belongs to it.

        `name` is shown in reports, by default the id. `options` are those of every scope; see `conversation`.
        """
        changes = {
            "service_type": "solution_builder",
            "service_id": solution_id,
            "service_name": name or solution_id,
            "solution_id": solution_id,
        }
        return Scope(self._host, changes, options, self._parent)


class _Enterable(ABC):
    """What is entered alike by `with` and by `async with`: entering does no I/O."""

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)


class _Framed(_Enterable):
    """What calls are made in: hands its frame to LangChain as a config, and knows what they have cost."""

    _host: Host
    _frame: ScopeFrame

    # Metadata that keep this scope's values, whatever a config around it says.
    _pinned: frozenset[str] = frozenset()

    @property
    def spent(self) -> Spent:
        """What its calls that have ended have used and cost so far, with those of scopes inside it, as far as this process made
        them: calls still open are not in it. It is known without the database, and may be asked for at any time.
        """
        return self._host.spent(self._frame)

    @property
    def cost(self) -> Decimal:
        """What its calls have cost so far, in US dollars, as far as their prices are known: see `unpriced`."""
        return self.spent.cost

    @property
    def tokens(self) -> int:
        """The tokens that its calls have used so far, of prompts and answers."""
        return self.spent.tokens

    @property
    def calls(self) -> int:
        """How many of its calls have ended so far."""
        return self.spent.calls

    @property
    def unpriced(self) -> int:
        """How many of its calls have no known price, so that they are missing in `cost`."""
        return self.spent.unpriced

    def config(self, config: RunnableConfig | None = None, /, **extra: Any) -> RunnableConfig:
        """A RunnableConfig that carries this scope, merged into the caller's own: callbacks, metadata and tags are joined.

        `config` is a RunnableConfig of the caller's, by default the one of the LangChain run around this code; `extra` are
        further keys of one, such as `configurable={...}`. What they say of the call itself wins over the scope; what they
        carry from scopes and steps around this one does not.
        """
        around: Mapping[str, Any] = self._host.inherited_config() if config is None else config
        frame = self._frame
        given: dict[str, Any] = {}
        metadata: dict[str, Any] = dict(frame.exported)
        tags: list[str] = []
        for part, pinned in ((around, self._pinned), (extra, frozenset[str]())):
            own = part.get("metadata") or {}
            older = {**exported_by(own.get(SCOPE_KEY)), **frame.absorbed}
            metadata |= {
                key: value
                for key, value in own.items()
                if key != SCOPE_KEY and key not in pinned and not (key in older and same(older[key], value))
            }
            tags += [tag for tag in part.get("tags") or [] if tag not in tags]
            configurable = {**(given.get("configurable") or {}), **(part.get("configurable") or {})}
            given |= part
            if configurable:
                given["configurable"] = configurable
        given["callbacks"] = self._host.attached(around.get("callbacks"), extra.get("callbacks"))
        given["metadata"] = metadata
        if tags:
            given["tags"] = tags
        return cast("RunnableConfig", given)


class Scope(Services, _Framed):
    """One run of a service: `with` or `async with` it. Its start, end and status become a row of `service_runs`."""

    def __init__(
        self,
        host: Host,
        changes: Mapping[str, Any],
        options: ContextOptions,
        parent: Callable[[], ScopeFrame | None],
    ) -> None:
        if unknown := options.keys() - ContextOptions.__annotations__.keys():
            raise TypeError(
                f"Unknown arguments: {', '.join(sorted(unknown))}. A scope takes {', '.join(ContextOptions.__annotations__)}."
            )
        super().__init__(host)
        self._changes = changes
        self._options = options
        self._find_parent = parent
        self._token: Token[ScopeFrame | None] | None = None
        self._used = False
        self._open()

    def _open(self) -> None:
        metadata_around = self._host.inherited_config().get("metadata") or {}
        absorbed = {key: value for key, value in metadata_around.items() if str(key).startswith(METADATA_PREFIX)}
        around, marked = locate(self._find_parent() or current_frame.get(), absorbed)
        namespace = around.namespace if around is not None else ""
        base = resolve(self._host.default, around, marked, absorbed)
        changes = {**self._changes, "service_run_id": new_id()}
        options = dict(self._options)
        agent = _agent(options.pop("agent", None))
        metadata = cast("Mapping[str, Any]", options.pop("metadata", None) or {})
        # A new service run is in no step and on no seat yet.
        base = base._replace(service_id=None, service_name=None, panel_position=None)
        if "panel_id" in changes:
            base = base._replace(panel_size=None)
        if "workflow_id" in changes:
            base = base._replace(workflow_step=None, workflow_step_name=None)
            namespace = str(metadata_around.get("langgraph_checkpoint_ns") or "")
        if agent is not None:
            changes |= agent.fields()
        context = base.replace(changes | options)
        self._frame = ScopeFrame(
            id=str(changes["service_run_id"]),
            context=context,
            parent=around,
            owner=self._host,
            absorbed=MappingProxyType(absorbed),
            metadata=MappingProxyType({**(around.metadata if around else {}), **metadata}),
            namespace=namespace,
        )
        self._record = RunRecord(
            id=self._frame.id,
            context=context,
            started_at=datetime.now(UTC),
            parent_run_id=base.service_run_id,
            ancestor_run_ids=_ancestors(around, base.service_run_id),
            metadata=metadata,
        )

    def _parent(self) -> ScopeFrame | None:
        return self._frame

    @property
    def run_id(self) -> str:
        """The id of this service run: `service_run_id` of its calls, `id` of its row of `service_runs`."""
        return self._frame.id

    @property
    def context(self) -> CallContext:
        """What calls in this scope are attributed to."""
        return self._frame.context

    @property
    def frame(self) -> ScopeFrame:
        """This scope as the context variable holds it; see `core.frames`."""
        return self._frame

    def __enter__(self) -> Self:
        if self._token is not None:
            raise VitalError(
                "This scope is open already. Open one for each run, for example: with tracker.workflow(...)."
            )
        if self._used:
            self._open()
        self._used = True
        self._host.watch_scopes()
        self._token = enter(self._frame)
        self._host.put_run(self._record)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        token, self._token = self._token, None
        if token is not None:
            leave(self._frame, token)
        self._host.put_run(_ended(self._record, kind))


class Seat(_Framed):
    """A member's place in a panel: hand its `config()` to the member's calls, or make them inside `with seat:`."""

    _pinned = frozenset(
        METADATA_PREFIX + name
        for name in ("agent_id", "agent_name", "agent_tier", "agent_role", "panel_id", "panel_position", "panel_size")
    )

    def __init__(self, host: Host, panel: ScopeFrame, agent: Agent, position: int) -> None:
        self._host = host
        self.agent = agent
        self.position = position
        context = panel.context.replace({**agent.fields(), "panel_position": position})
        self._frame = ScopeFrame(
            id=seat_id(panel.id, position),
            context=context,
            parent=panel,
            owner=host,
            absorbed=panel.absorbed,
            metadata=panel.metadata,
            namespace=panel.namespace,
        )
        self._tokens: list[Token[ScopeFrame | None]] = []

    def __enter__(self) -> Self:
        self._tokens.append(enter(self._frame))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Two tasks may be in this seat at once: each takes back the token that it set itself.
        for token in reversed(self._tokens):
            if leave(self._frame, token):
                self._tokens.remove(token)
                return


class Panel(Scope):
    """A session of a virtual panel, with its seats."""

    def __init__(
        self,
        host: Host,
        changes: Mapping[str, Any],
        options: ContextOptions,
        parent: Callable[[], ScopeFrame | None],
        members: Sequence[Agent],
    ) -> None:
        self._members = tuple(members)
        super().__init__(host, changes, options, parent)

    def _open(self) -> None:
        super()._open()
        self.seats = tuple(
            Seat(self._host, self._frame, agent, position) for position, agent in enumerate(self._members, start=1)
        )

    def seat(self, agent: Agent | str) -> Seat:
        """The seat of the member `agent`, given as itself or by its id; VitalError where it is no member."""
        wanted = agent.id if isinstance(agent, Agent) else agent
        for seat in self.seats:
            if seat.agent.id == wanted:
                return seat
        raise VitalError(f"No member {wanted!r} sits in this panel; its members are {[a.id for a in self._members]}.")


def _agent(agent: object) -> Agent | None:
    """An agent given as itself or by its id."""
    return None if agent is None else _as_agent(agent)


def _as_agent(agent: object) -> Agent:
    return agent if isinstance(agent, Agent) else Agent(str(agent))


def _ancestors(around: ScopeFrame | None, parent_run_id: str | None) -> tuple[str, ...]:
    """The ids of the service runs around, the nearest first."""
    found: dict[str, None] = {}
    if parent_run_id:
        found[parent_run_id] = None
    frame = around
    while frame is not None:
        if frame.context.service_run_id:
            found[frame.context.service_run_id] = None
        frame = frame.parent
    return tuple(found)


def _ended(record: RunRecord, kind: type[BaseException] | None) -> RunRecord:
    names = {cls.__name__ for cls in kind.__mro__} if kind is not None else set()
    status: RunStatus = "ok"
    # A budget's stop travels as control flow too, past retries and fallbacks, and is a failure all the same.
    if names and (not names & _CONTROL_FLOW or (kind is not None and issubclass(kind, BudgetExceeded))):
        status = "cancelled" if names & HUNG_UP else "error"
    return record._replace(
        status=status,
        ended_at=max(datetime.now(UTC), record.started_at),
        error_type=kind.__name__ if kind is not None and status != "ok" else None,
    )
