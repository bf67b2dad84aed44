"""Records embeddings: LangChain fires no callbacks for them, so a wrapper around the Embeddings does."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any

from langchain_core.embeddings import Embeddings

from vital_tracking.budgets.controller import AdmissionController
from vital_tracking.budgets.pending import Waits, run, run_async
from vital_tracking.calls.attribution import ALLOWED_METADATA, captured, kept_of, step_of
from vital_tracking.calls.error_facts import ErrorFacts
from vital_tracking.calls.stopped import begun_record, stopped_record
from vital_tracking.calls.texts import text_size
from vital_tracking.calls.usage_of import estimated_usage
from vital_tracking.core.admission import Admission, Request
from vital_tracking.core.context import CallContext
from vital_tracking.core.frames import ScopeFrame, current_frame, locate, resolve
from vital_tracking.core.record import CallRecord, Status
from vital_tracking.core.sanitize import token_count
from vital_tracking.core.usage import TokenUsage
from vital_tracking.delivery import Recorder
from vital_tracking.errors import BudgetExceeded
from vital_tracking.ids import new_id
from vital_tracking.langchain.callbacks import inherited_config
from vital_tracking.langchain.control_flow import stopped

# Requests and reported tokens of the embedding call that runs now in this task or thread.
_reported: ContextVar[list[int | None] | None] = ContextVar("vital_tracking_embedding_usage", default=None)

# Class of the wrapped Embeddings -> LangChain's name of its provider, where the class name does not begin with it.
_PROVIDERS = {
    "AzureOpenAI": "azure",
    "Bedrock": "amazon_bedrock",
    "Cohere": "cohere",
    "Fireworks": "fireworks",
    "GoogleGenerativeAI": "google_genai",
    "Mistral": "mistralai",
    "Ollama": "ollama",
    "OpenAI": "openai",
    "Together": "together",
    "VertexAI": "google_vertexai",
    "Voyage": "voyageai",
}


class VitalEmbeddings(Embeddings):
    """An Embeddings that records each call of the one it wraps, as one row of type `embedding`.

    Token counts are the provider's own where its client reports them (OpenAI, Azure OpenAI and what is built like them);
    else they are estimated from the texts and flagged.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        recorder: Recorder,
        *,
        controller: AdmissionController,
        provider: str | None = None,
        model: str | None = None,
        default: CallContext | None = None,
        metadata_keys: frozenset[str] = frozenset(),
    ) -> None:
        self.embeddings = _probed(embeddings)
        self._recorder = recorder
        self._controller = controller
        self._default = default or CallContext()
        self._allowed = ALLOWED_METADATA | metadata_keys
        self._provider = provider or _provider_of(embeddings)
        self._model = model or _model_of(embeddings)

    def embed_documents(self, texts: list[str], **options: Any) -> list[list[float]]:
        """Embed documents, and record the call; `options` are the wrapped one's own, such as `chunk_size`."""
        with self._recorded(texts, run(self._admitting(texts))):
            return self.embeddings.embed_documents(texts, **options)

    def embed_query(self, text: str, **options: Any) -> list[float]:
        """Embed a query, and record the call."""
        with self._recorded([text], run(self._admitting([text]))):
            return self.embeddings.embed_query(text, **options)

    async def aembed_documents(self, texts: list[str], **options: Any) -> list[list[float]]:
        """Embed documents, and record the call; `options` are the wrapped one's own, such as `chunk_size`."""
        with self._recorded(texts, await run_async(self._admitting(texts))):
            return await self.embeddings.aembed_documents(texts, **options)

    async def aembed_query(self, text: str, **options: Any) -> list[float]:
        """Embed a query, and record the call."""
        with self._recorded([text], await run_async(self._admitting([text]))):
            return await self.embeddings.aembed_query(text, **options)

    def __getattr__(self, name: str) -> Any:
        if name == "embeddings":  # not made yet: copying or unpickling
            raise AttributeError(name)
        return getattr(self.embeddings, name)

    def _admitting(self, texts: list[str]) -> Waits[Admission]:
        """Ask the budgets; a stopped call is recorded, and raises BudgetExceeded or its kin."""
        if not texts or not self._controller.active:
            return Admission()
        request = Request(CallContext())
        try:
            try:
                request = self._request(texts)
            except Exception as fault:  # noqa: BLE001 - then the budgets decide as they do without a database
                return self._controller.undecided(fault)
            return (yield from self._controller.admitting(request))
        except BudgetExceeded as error:
            try:
                self._recorder.put(stopped_record(request, error, call_type="embedding", metadata=self._kept()))
            except Exception as fault:  # noqa: BLE001 - it is stopped all the same
                self._recorder.fault(fault)
            raise stopped(error) from None

    def _request(self, texts: list[str]) -> Request:
        return Request(self._context(), self._provider, self._model, prompt_bytes=text_size(texts), max_tokens=0)

    def _context(self) -> CallContext:
        """Who and what a call made here is for."""
        metadata, frame, marked = self._around()
        context = resolve(self._default, frame, marked, metadata)
        gaps = captured(context, metadata, step_of(metadata, frame))
        gaps |= {"framework": context.framework or "langchain", "message_type": context.message_type or "embedding"}
        return context.replace(gaps)

    def _kept(self) -> dict[str, Any]:
        """What a row says of the scope and the run around this code."""
        metadata, frame, _ = self._around()
        return kept_of(frame, metadata, self._allowed)

    def _around(self) -> tuple[Mapping[str, Any], ScopeFrame | None, ScopeFrame | None]:
        """The metadata of the run around this code, the scope that a call made here is in, and the one whose metadata it has."""
        metadata = inherited_config().get("metadata") or {}
        return metadata, *locate(current_frame.get(), metadata)

    @contextmanager
    def _recorded(self, texts: list[str], admission: Admission) -> Iterator[None]:
        started, clock = self._recorder.clock.now(), time.perf_counter()
        if texts and self._recorder.spool is not None:
            admission.call_id = new_id()
            self._begun(admission, texts)
        reported: list[int | None] = []
        token = _reported.set(reported)
        failure: BaseException | None = None
        try:
            yield
        except BaseException as error:
            failure = error
            raise
        finally:
            _reported.reset(token)
            try:
                self._record(texts, started, (time.perf_counter() - clock) * 1000, reported, failure, admission)
            except Exception as fault:  # noqa: BLE001 - no fault of ours reaches the caller
                self._recorder.fault(fault)
                self._controller.release(admission)

    def _begun(self, admission: Admission, texts: list[str]) -> None:
        """Note in the spool that a call has begun, for the case that this process dies before it ends."""
        try:
            usage = estimated_usage(text_size(texts), 0)
            request = self._request(texts)
            record = begun_record(request, admission, usage, call_type="embedding", metadata=self._kept())
            begun = self._recorder.begun(record)
            admission.began = begun.created_at, begun.clocked
        except Exception as fault:  # noqa: BLE001 - no fault of ours reaches the caller
            self._recorder.fault(fault)

    def _record(
        self,
        texts: list[str],
        started: tuple[datetime, bool],
        latency_ms: float,
        reported: list[int | None],
        failure: BaseException | None,
        admission: Admission,
    ) -> None:
        if not texts:
            return  # no request was made
        facts = ErrorFacts(failure) if failure is not None else None
        counts = [count for count in reported if count is not None]
        status: Status = "ok" if facts is None else "cancelled" if facts.hung_up else "error"
        usage, billed = TokenUsage(prompt_tokens=sum(counts)), True
        if facts is not None and not counts and not facts.perhaps_billed:
            usage, billed = TokenUsage(), False
        elif not counts or len(counts) < len(reported) or (facts is not None and facts.perhaps_billed):
            # Of several requests those that were answered count; one that was refused costs nothing.
            usage = estimated_usage(text_size(texts), 0)
        kept = self._kept()
        kept |= {"texts": len(texts)} | ({"requests": len(reported)} if len(reported) > 1 else {})
        began = admission.began or started
        put = self._recorder.put if admission.hold is None else self._recorder.put_held
        put(
            CallRecord(
                id=admission.call_id or new_id(),
                created_at=began[0],
                clocked=began[1],
                context=self._context(),
                provider=self._provider,
                model=self._model,
                call_type="embedding",
                usage=usage,
                billed=billed,
                status=status,
                error_type=facts.name if facts is not None else None,
                latency_ms=latency_ms,
                budget_action=admission.action,
                throttled_ms=admission.throttled_ms,
                hold=admission.hold,
                metadata=kept,
            )
        )


class _Probe:
    """Stands before an OpenAI-style embeddings client and notes the usage of each of its answers."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def create(self, *args: Any, **kwargs: Any) -> Any:
        answer = self._client.create(*args, **kwargs)
        return _noted_later(answer) if hasattr(answer, "__await__") else _noted(answer)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


async def _noted_later(answer: Any) -> Any:
    return _noted(await answer)


def _noted(answer: Any) -> Any:
    reported = _reported.get()
    if reported is not None:
        usage = answer.get("usage") if isinstance(answer, dict) else getattr(answer, "usage", None)
        count = usage.get("prompt_tokens") if isinstance(usage, dict) else getattr(usage, "prompt_tokens", None)
        reported.append(token_count(count) or None)  # a count of 0 is none: every text has tokens
    return answer


def _probed(embeddings: Embeddings) -> Embeddings:
    """A copy whose OpenAI-style clients are probed; the embeddings as they are where there are none."""
    clients = {
        name: _Probe(client)
        for name in ("client", "async_client")
        if (client := getattr(embeddings, name, None)) is not None and callable(getattr(client, "create", None))
    }
    if not clients:
        return embeddings
    try:
        probed = copy.copy(embeddings)
        for name, probe in clients.items():
            setattr(probed, name, probe)
    except (AttributeError, TypeError, ValueError):
        return embeddings  # a frozen or validated model: its usage is estimated
    return probed


def _provider_of(embeddings: Embeddings) -> str | None:
    name = type(embeddings).__name__
    starts: Callable[[str], bool] = name.startswith
    return next((provider for start, provider in _PROVIDERS.items() if starts(start)), None)


def _model_of(embeddings: Embeddings) -> str | None:
    for attribute in ("model", "model_name", "model_id"):
        value = getattr(embeddings, attribute, None)
        if isinstance(value, str) and value:
            return value
    return None
