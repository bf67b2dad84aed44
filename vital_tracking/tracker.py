"""VitalTracker: puts the parts of the package together."""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from vital_tracking.budgets.controller import AdmissionController
from vital_tracking.core.context import CallContext
from vital_tracking.core.frames import ScopeFrame
from vital_tracking.core.price import Price
from vital_tracking.core.pricing import PriceBook
from vital_tracking.core.record import RunRecord
from vital_tracking.core.tally import Spent
from vital_tracking.delivery import Delivered, Recorder, Stats
from vital_tracking.direct.record import DirectCalls
from vital_tracking.events.recording import PlatformRecorder
from vital_tracking.ids import new_id
from vital_tracking.scopes import Services
from vital_tracking.settings import Settings
from vital_tracking.spool.orphans import OrphanedSegments
from vital_tracking.stores import Store, open_store

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings
    from langchain_core.language_models import BaseChatModel

    from vital_tracking.alerts.alert import BudgetAlert
    from vital_tracking.alerts.dispatcher import AlertDispatcher
    from vital_tracking.langchain.embeddings import VitalEmbeddings
    from vital_tracking.langchain.handler import VitalHandler
    from vital_tracking.langchain.shadow import ShadowRuns

logger = logging.getLogger("vital_tracking")

Model = TypeVar("Model", bound="BaseChatModel")
_Part = TypeVar("_Part")
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def _by(
    part: str, method: Callable[Concatenate[_Part, _Arguments], _Result]
) -> Callable[Concatenate[VitalTracker, _Arguments], _Result]:
    """A method of the tracker that one of its parts carries out, with that part's arguments and documentation."""

    @functools.wraps(method)
    def call(tracker: VitalTracker, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        return method(getattr(tracker, part), *args, **kwargs)

    call.__qualname__ = f"VitalTracker.{method.__name__}"
    return call


class VitalTracker(Services):
    """Records every model call of this process in a database that you own. Make one per process and keep it.

    `store` is where rows go, and `settings` how (see Settings); `from_env` makes both. `organization_id` and `default` describe
    calls outside any scope; `prices` are the team's own; `default_models` names, by provider, the model that prices a call of
    which only the provider is known; `metadata_keys` are further keys of LangChain's metadata that may be stored; `on_alert` is
    called, on a background thread, with each BudgetAlert that is due.
    """

    def __init__(
        self,
        store: Store,
        *,
        settings: Settings | None = None,
        organization_id: str | None = None,
        default: CallContext | None = None,
        prices: Iterable[Price] = (),
        default_models: Mapping[str, str] | None = None,
        metadata_keys: Iterable[str] = (),
        on_alert: Callable[[BudgetAlert], None] | Sequence[Callable[[BudgetAlert], None]] = (),
    ) -> None:
        self.settings = settings or Settings()
        self.store = store
        self.prices = PriceBook(prices, default_models=default_models)
        context = default or CallContext()
        self._default = context.replace(
            {"organization_id": organization_id or context.organization_id or self.settings.organization_id}
        )
        self._metadata_keys = self.settings.metadata_keys | frozenset(metadata_keys)
        self._recorder = Recorder(store, self.prices, self.settings)
        self._alerts = self._make_alerts([on_alert] if callable(on_alert) else list(on_alert))
        self._recorder.on_alerts = self._alerts_due
        self._controller = AdmissionController(
            self._recorder, self.settings, deliver_alerts=self._alerts.deliver if self._alerts is not None else None
        )
        if self._alerts is not None:
            self._controller.start()  # other processes' alerts are delivered too, whatever this one does
        self._handler: VitalHandler | None = None
        self._shadow_runs: ShadowRuns | None = None
        self._recorder.owner = host = _ScopeHost(self, self._recorder, self._default)
        super().__init__(host)
        self._direct = DirectCalls(
            self._recorder,
            self._controller,
            self.prices,
            self._default,
            _inherited_metadata,
            metadata_keys=self._metadata_keys,
            recorded_by=self.record,  # somebody's subclass may do more
        )
        self._platform = PlatformRecorder(
            self._recorder,
            self._default,
            _inherited_metadata,
            properties=self.settings.event_properties,
            hash_key=self.settings.hash_key_bytes,
        )
        self._closed: Delivered | None = None
        self._lock = threading.Lock()
        _live[self] = self._reset_after_fork
        process = sys.modules.get("multiprocessing.process")
        if process is not None and process.parent_process() is not None:
            _close_with_child(self)

    @classmethod
    def from_env(
        cls,
        *,
        environ: Mapping[str, str] | None = None,
        dotenv: Path | str | None = None,
        organization_id: str | None = None,
        default: CallContext | None = None,
        prices: Iterable[Price] = (),
        default_models: Mapping[str, str] | None = None,
        metadata_keys: Iterable[str] = (),
        on_alert: Callable[[BudgetAlert], None] | Sequence[Callable[[BudgetAlert], None]] = (),
    ) -> VitalTracker:
        """A tracker by the environment and `.env`: Supabase, else PostgreSQL, else the embedded PostgreSQL.

        `environ` replaces the process's environment, `dotenv` names a file in place of `.env.local` and `.env`.
        `organization_id`, `default`, `prices`, `default_models`, `metadata_keys` and `on_alert` are those of VitalTracker.

        Raises SettingsError, which names the variable and the fix, and MissingExtra where the embedded PostgreSQL is needed
        and not installed. The line that says which store it took goes to the logger `vital_tracking`.
        """
        settings = Settings.from_env(environ, dotenv=dotenv)
        store = open_store(settings)
        configured = settings.store != "embedded" or settings.says("VITAL_STORE")
        # With nothing configured a server's data would go to a local folder, so that is a warning.
        level = logging.INFO if configured else logging.WARNING
        logger.log(level, "vital_tracking writes to %s", store.description)
        return cls(
            store,
            settings=settings,
            organization_id=organization_id,
            default=default,
            prices=prices,
            default_models=default_models,
            metadata_keys=metadata_keys,
            on_alert=on_alert,
        )

    def __repr__(self) -> str:
        return f"VitalTracker({self.store.description})"

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._closed is not None

    # Calls that LangChain did not make

    record = _by("_direct", DirectCalls.record)
    admit = _by("_direct", DirectCalls.admit)
    aadmit = _by("_direct", DirectCalls.aadmit)

    # What is not a call to a model

    track_event = _by("_platform", PlatformRecorder.track_event)
    track_cost = _by("_platform", PlatformRecorder.track_cost)
    track_agent_execution = _by("_platform", PlatformRecorder.track_agent_execution)

    # LangChain

    @property
    def handler(self) -> VitalHandler:
        """The callback handler: `config={"callbacks": [tracker.handler], "metadata": {"vital_user_id": "u-1"}}`."""
        if self._handler is None:
            from vital_tracking.langchain.handler import VitalHandler

            with self._lock:
                self._handler = self._handler or VitalHandler(
                    self._recorder,
                    default=self._default,
                    metadata_keys=self._metadata_keys,
                    hash_key=self.settings.hash_key_bytes,
                    call_timeout_s=self.settings.call_timeout_s,
                    controller=self._controller,
                )
            self._controller.start()
        return self._handler

    def install(self) -> None:
        """Attach the handler to every LangChain call of this process, raw threads included. A later install takes over."""
        from vital_tracking.langchain.callbacks import install

        install(self.handler)

    def uninstall(self) -> None:
        """Take the handler off again, if it is this tracker's."""
        if self._handler is not None:
            from vital_tracking.langchain.callbacks import install, installed

            if installed() is self._handler:
                install(None)

    def embeddings(
        self, embeddings: Embeddings, *, provider: str | None = None, model: str | None = None
    ) -> VitalEmbeddings:
        """An Embeddings that records the calls of `embeddings`; LangChain fires no callbacks for them.

        `provider` and `model` are what prices them; by default what the class and its fields say.
        """
        from vital_tracking.langchain.embeddings import VitalEmbeddings

        if isinstance(embeddings, VitalEmbeddings):
            embeddings = embeddings.embeddings  # wrapped twice it would be recorded twice
        self._controller.start()
        return VitalEmbeddings(
            embeddings,
            self._recorder,
            controller=self._controller,
            provider=provider,
            model=model,
            default=self._default,
            metadata_keys=self._metadata_keys,
        )

    def guard(
        self,
        model: Model,
        *,
        downgrade_to: str | BaseChatModel | Sequence[str | BaseChatModel] | None = None,
        max_wait: float = 30.0,
        shadow: str | BaseChatModel | None = None,
        share: float = 0.02,
    ) -> Model:
        """A chat model like `model` whose calls are recorded, and are made only as budgets allow.

        It waits for a throttle, at most `max_wait` seconds and without blocking an event loop, and where a budget asks for
        a cheaper model it takes one of `downgrade_to`, best first: names of the same provider's models, or chat models of
        any provider. It stays an instance of the model's class, for `bind_tools`, `with_structured_output`, LCEL, LangGraph
        and `create_agent`.

        `shadow`, a name or a chat model too, is asked as well on a `share` of the calls (over 0 to 1): in the background, once
        the answer is there, and only as budgets allow; its calls are recorded with `shadow_of` in their metadata, and its
        answers go to nobody.
        """
        from vital_tracking.langchain.guard import guard
        from vital_tracking.langchain.shadow import ShadowRuns

        handler = self.handler
        if shadow is not None and self._shadow_runs is None:
            with self._lock:
                self._shadow_runs = self._shadow_runs or ShadowRuns(handler, self._controller)
        return guard(
            model,
            controller=self._controller,
            handler=handler,
            downgrade_to=downgrade_to,
            max_wait=max_wait,
            shadow=shadow,
            share=share,
            shadow_runs=self._shadow_runs,
        )

    # Delivery

    def flush(self, timeout: float | None = 10.0) -> Delivered:
        """Send what waits and wait for the database's acknowledgement, at most `timeout` seconds (None: as long as it takes).

        Returns counts that the database acknowledged, since the tracker was made. Calls still in flight are not waited for, but
        for shadow runs, for at most half of the time.
        """
        if self._shadow_runs is not None:
            began = time.monotonic()
            self._shadow_runs.wait(None if timeout is None else timeout / 2)
            timeout = None if timeout is None else timeout - (time.monotonic() - began)
        self._recorder.tick()
        return self._recorder.flush(timeout)

    def replay(
        self, timeout: float = 60.0, on_progress: Callable[[OrphanedSegments, int], None] = lambda _orphan, _calls: None
    ) -> bool:
        """Deliver now what dead processes have left in the spool, for at most `timeout` seconds; whether nothing is left.

        That happens by itself, too, in the background, as soon as the first call begins. `on_progress` is told of each batch:
        whose it was, and of how many calls and runs.
        """
        return self._recorder.replay(timeout, on_progress)

    def close(self, timeout: float = 5.0) -> Delivered:
        """Send what waits, for at most `timeout` seconds, and stop. Calls still open are recorded as abandoned; shadow runs are
        waited for before, for at most half of the time."""
        if self._closed is None:
            self.uninstall()
            deadline = time.monotonic() + timeout
            if self._shadow_runs is not None:
                self._shadow_runs.close(timeout / 2)
            if self._handler is not None:
                self._handler.close_all()
            self._closed = self._recorder.close(max(deadline - time.monotonic(), 0.0))
            self._controller.close(max(deadline - time.monotonic(), 0.5))
            if self._alerts is not None and self._closed.complete:
                self._alerts.deliver(max(deadline - time.monotonic(), 0.5))
            with contextlib.suppress(Exception):
                self.store.close()
            _live.pop(self, None)
        return self._closed

    def stats(self) -> Stats:
        """Counts of what was recorded, what waits, and what went wrong."""
        stats = self._recorder.stats()
        stats.in_flight = self._handler.in_flight if self._handler is not None else 0
        stats.unchecked = self._controller.unchecked
        if self._shadow_runs is not None:
            stats.shadow_runs, stats.shadow_runs_left_out = self._shadow_runs.begun, self._shadow_runs.left_out
        return stats

    def __enter__(self) -> VitalTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _make_alerts(self, callbacks: Sequence[Callable[[BudgetAlert], None]]) -> AlertDispatcher | None:
        """What delivers alerts; None where nobody is to be told, and they are left to other processes."""
        if not callbacks and not self.settings.alert_urls:
            return None
        from vital_tracking.alerts.dispatcher import AlertDispatcher

        return AlertDispatcher(self.store, callbacks, self.settings.alert_urls, new_id())

    def _alerts_due(self, rows: list[dict[str, Any]]) -> None:
        """Log the alerts that this process's calls have raised, and have them delivered."""
        from vital_tracking.alerts.dispatcher import log

        log(rows)
        self._controller.look_for_alerts()

    def _reset_after_fork(self) -> None:
        """In a forked child: calls in flight, queue and connections are the parent's; this process starts with none."""
        self._lock = threading.Lock()
        self._recorder.reset_after_fork()
        self._controller.reset_after_fork()
        if self._alerts is not None:
            self._alerts.reset_after_fork()
        if self._handler is not None:
            self._handler.reset_after_fork()
        if self._shadow_runs is not None:
            self._shadow_runs.reset_after_fork()


class _ScopeHost:
    """What scopes ask of their tracker; see `scopes.Host`. LangChain is imported when it is first needed."""

    def __init__(self, tracker: VitalTracker, recorder: Recorder, default: CallContext) -> None:
        self._tracker = tracker
        self._recorder = recorder
        self.default = default

    @property
    def closed(self) -> bool:
        """Whether the tracker is closed."""
        return self._tracker.closed

    @property
    def handler(self) -> VitalHandler:
        """The tracker's callback handler."""
        return self._tracker.handler

    def put_run(self, run: RunRecord) -> None:
        """Record one state of a service run; never raises."""
        self._recorder.put_run(run)

    def spent(self, frame: ScopeFrame) -> Spent:
        """What the calls of a scope have used and cost so far."""
        return self._recorder.spent(frame)

    def attached(self, callbacks: Any, more: Any = None) -> Any:
        """A caller's callbacks, and more of them, with the handler among them, once; without it when the tracker is closed."""
        from vital_tracking.langchain.callbacks import joined

        return joined(callbacks, more, None if self.closed else [self.handler])

    def inherited_config(self) -> Mapping[str, Any]:
        """Callbacks, metadata and tags that the LangChain run around this code hands to its children; else empty."""
        return _inherited_config()

    def watch_scopes(self) -> None:
        """See to it that calls in a scope are recorded although no config is handed to them."""
        try:
            from vital_tracking.langchain.callbacks import watch_scopes

            watch_scopes()
        except Exception as error:  # noqa: BLE001 - a scope must open whatever LangChain's version has become
            self._recorder.fault(error)


def _inherited_metadata() -> Mapping[str, Any]:
    """The metadata of the LangChain run around this code; empty outside of one."""
    return _inherited_config().get("metadata") or {}


def _inherited_config() -> Mapping[str, Any]:
    """Callbacks, metadata and tags that the LangChain run around this code hands to its children; empty outside of one."""
    if "langchain_core.runnables.config" not in sys.modules:
        return {}
    from vital_tracking.langchain import callbacks

    return callbacks.inherited_config()


# Trackers that are not closed, and what each does in a forked child. They are kept here, so that calls still queued are sent at
# exit even where the application no longer refers to its tracker.
_live: dict[VitalTracker, Callable[[], None]] = {}


def _close_all() -> None:
    for tracker in list(_live):
        tracker.close()


def _reset_all_after_fork() -> None:
    util = sys.modules.get("multiprocessing.util")
    for tracker, reset_after_fork in list(_live.items()):
        reset_after_fork()
        if util is not None:
            # multiprocessing's children skip atexit; what they run is this, registered once they have started.
            util.register_after_fork(tracker, _close_with_child)


def _close_with_child(tracker: VitalTracker) -> None:
    from multiprocessing.util import Finalize

    Finalize(tracker, tracker.close, exitpriority=10)


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all_after_fork)
