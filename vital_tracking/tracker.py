"""VitalTracker: puts the rooms together."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import logging
import os
import re
import sys
import threading
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from vital_tracking.context import Agent, CallContext, current_frame, locate, resolve
from vital_tracking.delivery import Delivered, Recorder, Stats
from vital_tracking.ids import new_id
from vital_tracking.pricing import Price, PriceBook
from vital_tracking.scopes import Host, Services
from vital_tracking.settings import Settings
from vital_tracking.stores import Store, open_store
from vital_tracking.usage import STATUSES, CallRecord, CallType, RunRecord, Status, TokenUsage, clean_text

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

    from vital_tracking.langchain.embeddings import VitalEmbeddings
    from vital_tracking.langchain.handler import VitalHandler

logger = logging.getLogger("vital_tracking")

_CLASS_NAME: Final = re.compile(r"[A-Za-z_][\w.]{0,79}")


class VitalTracker(Services):
    """Records every model call of this process in a database that you own. Make one per process and keep it.

    `store` is where rows go; `organization_id` and `default` describe calls outside any scope; `prices` are the team's own;
    `default_models` names, by provider, the model that prices a call of which only the provider is known; `metadata_keys`
    are further keys of LangChain's metadata that may be stored.
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
        self._handler: VitalHandler | None = None
        self._host: Host = self
        self._closed: Delivered | None = None
        self._lock = threading.Lock()
        _live.add(self)
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
    ) -> VitalTracker:
        """A tracker by the environment and `.env`: Supabase, else PostgreSQL, else the embedded PostgreSQL.

        Raises SettingsError, which names the variable and the fix, and MissingExtra where the embedded PostgreSQL is needed
        and not installed. The line that says which store it took goes to the logger `vital_tracking`.
        """
        settings = Settings.from_env(environ, dotenv=dotenv)
        store = open_store(settings)
        configured = settings.supabase_url or settings.database_url
        # With nothing configured a server's data would go to a local folder: worth more than a whisper.
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
        )

    def __repr__(self) -> str:
        return f"VitalTracker({self.store.description})"

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._closed is not None

    # LangChain

    @property
    def handler(self) -> VitalHandler:
        """The callback handler: `config={"callbacks": [tracker.handler], "metadata": {"vital_user_id": "u-1"}}`."""
        if self._handler is None:
            from vital_tracking.langchain.handler import VitalHandler

            key = self.settings.hash_key
            with self._lock:
                self._handler = self._handler or VitalHandler(
                    self._recorder,
                    default=self._default,
                    metadata_keys=self._metadata_keys,
                    hash_key=key.get_secret_value().encode() if key else None,
                    call_timeout_s=self.settings.call_timeout_s,
                )
        return self._handler

    def install(self) -> None:
        """Attach the handler to every LangChain call of this process, raw threads included. A later install takes over."""
        from vital_tracking.langchain.attach import install

        install(self.handler)

    def uninstall(self) -> None:
        """Take the handler off again, if it is this tracker's."""
        if self._handler is not None:
            from vital_tracking.langchain.attach import install, installed

            if installed() is self._handler:
                install(None)

    def embeddings(
        self, embeddings: Embeddings, *, provider: str | None = None, model: str | None = None
    ) -> VitalEmbeddings:
        """An Embeddings that records its calls; LangChain fires no callbacks for them."""
        from vital_tracking.langchain.embeddings import VitalEmbeddings

        if isinstance(embeddings, VitalEmbeddings):
            embeddings = embeddings.embeddings  # wrapped twice it would be recorded twice
        return VitalEmbeddings(
            embeddings,
            self._recorder,
            provider=provider,
            model=model,
            default=self._default,
            metadata_keys=self._metadata_keys,
        )

    # Calls that LangChain did not make

    def record(
        self,
        *,
        provider: str | None = None,
        model: str | None = None,
        prompt_tokens: int | None = None,
        completion_tokens: int | None = None,
        cache_read_tokens: int = 0,
        cache_write_tokens: int = 0,
        reasoning_tokens: int = 0,
        audio_input_tokens: int = 0,
        audio_output_tokens: int = 0,
        response_time_ms: float | None = None,
        ttft_ms: float | None = None,
        success: bool = True,
        error: BaseException | type[BaseException] | str | None = None,
        status: Status | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        organization_id: str | None = None,
        agent: Agent | str | None = None,
        framework: str | None = None,
        message_type: str | None = None,
        call_type: CallType = "chat",
        service_tier: str | None = None,
        started_at: datetime | None = None,
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Record a call that no LangChain object made (AutoGen, a raw SDK, Perplexity), and return its id.

        Tokens are counts as the provider reports them, `prompt_tokens` with the cached ones; times are milliseconds;
        `framework` and `message_type` are free words (langchain, autogen, perplexity, hybrid; chat, preset_action,
        tool_execution). Inside a scope the call belongs to it. With a provider and no model, the provider's default model
        prices the call and the row says so. Of an error only the class name is kept. Never raises for what it is given:
        what cannot be stored is left out and named in the row's metadata.
        """
        call_id = new_id()
        try:
            notes: list[str] = []
            extra: dict[str, Any] = {}
            provider, model, service_tier = map(clean_text, (provider, model, service_tier))
            if model is None and (assumed := self.prices.default_model(provider)) is not None:
                model = assumed
                extra["model_assumed"] = True
            changes: dict[str, Any] = {
                "user_id": user_id,
                "session_id": session_id,
                "organization_id": organization_id,
                "framework": framework,
                "message_type": message_type,
            }
            if agent is not None:
                changes |= (agent if isinstance(agent, Agent) else Agent(clean_text(agent) or "")).fields()
            around = self.inherited_config().get("metadata") or {}
            frame, marked = locate(current_frame.get(), around)
            base = resolve(self._default, frame, marked, around).replace(changes)
            if base.message_type is None:
                base = base.replace({"message_type": "chat"})
            failed = not success or error is not None
            state: Status = status if status in STATUSES else ("error" if failed else "ok")
            usage = TokenUsage.reported(
                input_tokens=prompt_tokens,
                output_tokens=0 if completion_tokens is None and call_type == "embedding" else completion_tokens,
                cache_read=cache_read_tokens,
                cache_write=cache_write_tokens,
                reasoning=reasoning_tokens,
                audio_input=audio_input_tokens,
                audio_output=audio_output_tokens,
            )
            billed = usage is not None or state == "ok"
            if usage is None:
                usage = TokenUsage(estimated=billed)
                if billed:
                    notes.append("usage_missing")
            elif "token_total_missing" in usage.notes:
                usage = dataclasses.replace(usage, estimated=True)
            self._recorder.put(
                CallRecord(
                    id=call_id,
                    created_at=started_at if isinstance(started_at, datetime) else _start(response_time_ms),
                    context=base,
                    provider=provider,
                    model=model,
                    call_type=call_type if call_type in ("chat", "completion", "embedding") else "chat",
                    usage=usage,
                    billed=billed,
                    status=state,
                    error_type=_class_name(error) if state != "ok" else None,
                    latency_ms=response_time_ms,
                    ttft_ms=ttft_ms,
                    service_tier=service_tier,
                    tags=[tags] if isinstance(tags, str) else list(tags),
                    metadata={**(frame.metadata if frame else {}), **(metadata or {}), **extra},
                    notes=tuple(notes),
                )
            )
        except Exception as fault:  # noqa: BLE001 - recording must not break what it records
            self._recorder.fault(fault)
        return call_id

    # Delivery

    def flush(self, timeout: float | None = 10.0) -> Delivered:
        """Send what waits and wait for the database's acknowledgement, at most `timeout` seconds (None: as long as it takes).

        Returns counts that the database acknowledged, since the tracker was made. Calls still in flight are not waited for.
        """
        self._recorder.tick()
        return self._recorder.flush(timeout)

    def close(self, timeout: float = 5.0) -> Delivered:
        """Send what waits, for at most `timeout` seconds, and stop. Calls still open are recorded as abandoned."""
        if self._closed is None:
            self.uninstall()
            if self._handler is not None:
                self._handler.close_all()
            self._closed = self._recorder.close(timeout)
            with contextlib.suppress(Exception):
                self.store.close()
            _live.discard(self)
        return self._closed

    def stats(self) -> Stats:
        """Counts of what was recorded, what waits, and what went wrong."""
        stats = self._recorder.stats()
        stats.in_flight = self._handler.in_flight if self._handler is not None else 0
        return stats

    def __enter__(self) -> VitalTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # What scopes ask of their tracker

    @property
    def default(self) -> CallContext:
        """The context of a call outside any scope."""
        return self._default

    def put_run(self, run: RunRecord) -> None:
        """Record one state of a service run."""
        self._recorder.put(run)

    def attached(self, callbacks: Any, more: Any = None) -> Any:
        """A caller's callbacks, and more of them, with the handler among them, once; without it when this is closed."""
        from vital_tracking.langchain.attach import joined

        return joined(callbacks, more, None if self.closed else [self.handler])

    def inherited_config(self) -> Mapping[str, Any]:
        """Callbacks, metadata and tags that the LangChain run around this code hands to its children; else empty."""
        if "langchain_core.runnables.config" not in sys.modules:
            return {}
        from vital_tracking.langchain.attach import inherited_config

        return inherited_config()

    def watch_scopes(self) -> None:
        """See to it that calls in a scope are recorded although no config is handed to them."""
        try:
            from vital_tracking.langchain.attach import watch_scopes

            watch_scopes()
        except Exception as error:  # noqa: BLE001 - a scope must open whatever LangChain's version has become
            self._recorder.fault(error)

    def reset_after_fork(self) -> None:
        """In a forked child: calls in flight, queue and connections are the parent's; this process starts with none."""
        self._lock = threading.Lock()
        self._recorder.reset_after_fork()
        if self._handler is not None:
            self._handler.reset_after_fork()


def _start(response_time_ms: object) -> datetime:
    """When a call began that has just ended after so many milliseconds."""
    now = datetime.now(UTC)
    if isinstance(response_time_ms, (int, float)) and 0 < response_time_ms < 86_400_000:
        return now - timedelta(milliseconds=response_time_ms)
    return now


def _class_name(error: object) -> str | None:
    """The class name of an error given as itself, its class, or its name; a text that is no name is not kept."""
    if error is None:
        return None
    if isinstance(error, type):
        return error.__name__
    if isinstance(error, BaseException):
        return type(error).__name__
    return error if isinstance(error, str) and _CLASS_NAME.fullmatch(error) else "Error"


# Trackers that are not closed. Held, so that calls still queued are sent at exit whatever became of the tracker's name.
_live: set[VitalTracker] = set()


def _close_all() -> None:
    for tracker in list(_live):
        tracker.close()


def _reset_all_after_fork() -> None:
    util = sys.modules.get("multiprocessing.util")
    for tracker in list(_live):
        tracker.reset_after_fork()
        if util is not None:
            # multiprocessing's children skip atexit; what they run is this, registered once they have started.
            util.register_after_fork(tracker, _close_with_child)


def _close_with_child(tracker: VitalTracker) -> None:
    from multiprocessing.util import Finalize

    Finalize(tracker, tracker.close, exitpriority=10)


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all_after_fork)
