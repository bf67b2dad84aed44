"""Calls that LangChain did not make: recorded after the fact, or admitted by their budgets before it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from vital_tracking.budgets.controller import AdmissionController
from vital_tracking.budgets.pending import Waits, blocking, suspending
from vital_tracking.calls.asked import schema_size
from vital_tracking.calls.attribution import ALLOWED_METADATA, captured, kept_of, step_of
from vital_tracking.calls.stopped import begun_record, stopped_record
from vital_tracking.core.admission import UNKNOWN_SIZE, Admission, Request
from vital_tracking.core.context import Agent, CallContext
from vital_tracking.core.frames import current_frame, locate, resolve
from vital_tracking.core.pricing import PriceBook
from vital_tracking.core.record import PRICE_FACTS, STATUSES, CallRecord, CallType, Status
from vital_tracking.core.sanitize import class_name, clean_text, dollars, instant, token_count
from vital_tracking.core.usage import TokenUsage, estimate_tokens
from vital_tracking.delivery import Recorder
from vital_tracking.direct.admitted_call import AdmittedCall
from vital_tracking.errors import BudgetExceeded
from vital_tracking.ids import new_id

_LONGEST_FACT: Final = 32
_LONGEST_CALL_MS: Final = 86_400_000


class DirectCalls:
    """What a tracker offers to code that calls a provider by itself.

    `default` is the context of a call outside of scopes; `around` gives the metadata of the LangChain run around this code, and
    `metadata_keys` are further keys of those that may be stored; `recorded_by` is what calls that were admitted are recorded by,
    in place of `record`.
    """

    def __init__(
        self,
        recorder: Recorder,
        controller: AdmissionController,
        prices: PriceBook,
        default: CallContext,
        around: Callable[[], Mapping[str, Any]],
        *,
        metadata_keys: frozenset[str] = frozenset(),
        recorded_by: Callable[..., str] | None = None,
    ) -> None:
        self._recorder = recorder
        self._controller = controller
        self._prices = prices
        self._default = default
        self._around = around
        self._allowed = ALLOWED_METADATA | metadata_keys
        self._recorded_by = recorded_by or self.record

    def record(
        self,
        *,
        provider: str | None = None,
        model: str | None = None,
        prompt_tokens: int | None = None,
        completion_tokens: int | None = None,
        cache_read_tokens: int = 0,
        cache_write_tokens: int = 0,
        cache_write_1h_tokens: int = 0,
        reasoning_tokens: int = 0,
        audio_input_tokens: int = 0,
        audio_output_tokens: int = 0,
        web_searches: int = 0,
        billed_units: Mapping[str, int | Decimal] | None = None,
        reported_cost: Decimal | float | str | None = None,
        response_time_ms: float | None = None,
        ttft_ms: float | None = None,
        first_word_ms: float | None = None,
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
        price_facts: Mapping[str, str] | None = None,
        started_at: datetime | None = None,
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        admission: Admission | None = None,
    ) -> str:
        """Record a call that no LangChain object made (AutoGen, a raw SDK, Perplexity), and return its id.

        What was called: `provider` and `model`; with a provider and no model, the provider's default model prices the call and
        the row says so. `call_type` is `chat`, `completion` or `embedding`; `service_tier` the provider's (`priority`, `flex`,
        `batch`), where that has prices of its own; `price_facts` what else decides the price, by the names of PRICE_FACTS, such
        as `{"speed": "fast"}`.

        What it used, in tokens as the provider counts them: `prompt_tokens` with the cached ones, of which `cache_read_tokens`,
        `cache_write_tokens` (and of these `cache_write_1h_tokens`, kept an hour) and `audio_input_tokens` are parts;
        `completion_tokens`, of which `reasoning_tokens` and `audio_output_tokens` are parts. Counts that are missing are
        estimated, and flagged. `web_searches`, and `billed_units` for all other units by their names, such as
        `{"storage_searches": 1, "output_image_tokens": 1290}`; tokens of a modality are parts of the totals. `reported_cost` is
        the provider's own figure in US dollars, which prices a call that no price is known for.

        How it went: `response_time_ms`, `ttft_ms` (to the first token) and `first_word_ms` (to the first that is no thought) in
        milliseconds; `started_at`, by default that long ago; `success`, or the `error`, of which only the class name is kept; or
        `status` itself: `ok`, `error`, `cancelled`, `abandoned` or `blocked`.

        Whom it is for: `user_id`, `session_id`, `organization_id` and `agent` (an Agent or its id), over the scope that is open.
        `framework` and `message_type` are free words (langchain, autogen, perplexity, hybrid; chat, preset_action,
        tool_execution). `tags` and `metadata` are kept with the row: small, and no texts of prompts or answers, please.

        `admission` is for calls that `admit` let go. Never raises for what it is given: what cannot be stored is left out and
        named in the row's metadata.
        """
        call_id = (admission.call_id if admission is not None else None) or new_id()
        try:
            notes: tuple[str, ...] = ()
            extra: dict[str, Any] = {}
            provider, model, service_tier = map(clean_text, (provider, model, service_tier))
            if model is None and (assumed := self._prices.default_model(provider)) is not None:
                model = assumed
                extra["model_assumed"] = True
            context, kept = self._context(
                agent,
                user_id=user_id,
                session_id=session_id,
                organization_id=organization_id,
                framework=framework,
                message_type=message_type,
            )
            if context.message_type is None:
                context = context.replace({"message_type": "chat"})
            failed = not success or error is not None
            state: Status = status if status in STATUSES else ("error" if failed else "ok")
            usage = TokenUsage.reported(
                input_tokens=prompt_tokens,
                output_tokens=0 if completion_tokens is None and call_type == "embedding" else completion_tokens,
                cache_read=cache_read_tokens,
                cache_write=cache_write_tokens,
                cache_write_1h=cache_write_1h_tokens,
                reasoning=reasoning_tokens,
                audio_input=audio_input_tokens,
                audio_output=audio_output_tokens,
            )
            billed = usage is not None or state == "ok"
            if usage is None:
                usage = TokenUsage(estimated=billed)
                if billed:
                    notes = ("usage_missing",)
            elif "token_total_missing" in usage.notes:
                usage = usage._replace(estimated=True)
            counted = {"web_searches": web_searches} if web_searches else {}
            given_objects = {"billed_units": billed_units, "price_facts": price_facts, "metadata": metadata}
            units, facts, own = ({**value} if isinstance(value, Mapping) else {} for value in given_objects.values())
            notes = (*notes, *_not_objects(given_objects))
            usage = usage.with_units({**counted, **units})
            reported = dollars(reported_cost)
            if reported is None and reported_cost is not None:
                notes = (*notes, "invalid_reported_cost")
            given = instant(started_at)
            if given is None and started_at is not None:
                notes = (*notes, "invalid_started_at")
            began = given or _start(response_time_ms), given is None
            taken = admission or Admission()
            if taken.began is not None:
                began = taken.began  # the time of its beginning in the spool: id and time tell that both are one call
            put = self._recorder.put if taken.hold is None else self._recorder.put_held
            put(
                CallRecord(
                    id=call_id,
                    created_at=began[0],
                    clocked=began[1],
                    context=context,
                    provider=provider,
                    model=model,
                    call_type=call_type if call_type in ("chat", "completion", "embedding") else "chat",
                    usage=usage,
                    billed=billed,
                    status=state,
                    error_type=class_name(error) if state != "ok" else None,
                    latency_ms=response_time_ms,
                    ttft_ms=ttft_ms,
                    first_word_ms=first_word_ms,
                    price_facts=_facts(service_tier, facts),
                    reported_cost=reported,
                    requested_model=taken.requested_model,
                    budget_action=taken.action,
                    throttled_ms=taken.throttled_ms,
                    hold=taken.hold,
                    tags=[tags] if isinstance(tags, str) else list(tags) if isinstance(tags, Iterable) else [],
                    metadata={**kept, **own, **extra},
                    notes=notes,
                )
            )
        except Exception as fault:  # noqa: BLE001 - recording must not break what it records
            self._recorder.fault(fault)
            if admission is not None:
                self._controller.release(admission)
        return call_id

    def _admitting(
        self,
        *,
        provider: str | None = None,
        model: str | None = None,
        prompt: str | None = None,
        prompt_tokens: int | None = None,
        max_tokens: int | None = None,
        tools: object = None,
        max_wait: float = 0.0,
        downgrade_to: str | Sequence[str] | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        organization_id: str | None = None,
        agent: Agent | str | None = None,
    ) -> Waits[AdmittedCall]:
        try:
            context, kept = self._context(
                agent, user_id=user_id, session_id=session_id, organization_id=organization_id
            )
        except Exception as fault:  # noqa: BLE001 - then the budgets decide without knowing whose call it is
            self._controller.undecided(fault)
            context, kept = CallContext(), {}
        cheaper = [downgrade_to] if isinstance(downgrade_to, str) else downgrade_to or ()
        request = Request(
            context,
            provider=provider,
            model=model,
            prompt_bytes=_size(prompt) if prompt_tokens is None else UNKNOWN_SIZE,
            prompt_tokens=token_count(prompt_tokens),
            max_tokens=token_count(max_tokens),
            schema_bytes=schema_size({"tools": tools}),
        )
        requests = [request, *(request._replace(model=name, downgraded=True) for name in cheaper)]
        self._controller.start()
        for request in requests:
            try:
                admission = yield from self._controller.admitting(request, max_wait=max_wait, clamp=True)
            except BudgetExceeded as error:
                if error.action == "downgrade" and request is not requests[-1]:
                    continue
                try:
                    self._recorder.put(stopped_record(request, error, requested_model=model, metadata=kept))
                except Exception as fault:  # noqa: BLE001 - it is stopped all the same
                    self._recorder.fault(fault)
                raise
            if request.downgraded:
                admission.requested_model, admission.action = model, "downgrade"
            record = functools.partial(
                self._recorded_by,
                provider=provider,
                user_id=user_id,
                session_id=session_id,
                organization_id=organization_id,
                agent=agent,
            )
            return self._admitted(admission, request, record, kept)
        raise AssertionError  # the last one was admitted or has raised

    admit = blocking(
        _admitting,
        name="admit",
        doc="""Ask the budgets before a call that your code makes by itself, and set aside what it may cost.

        `with tracker.admit(provider="openai", model="gpt-4o", prompt=text, max_tokens=500) as call:` make the call with
        `call.model`, then `call.record(prompt_tokens=..., completion_tokens=...)`.

        `provider` and `model` say what is to be called. `prompt` is the prompt's text, of which only the size is taken, or
        `prompt_tokens` its tokens where they are known; `tools` are the tools and schemas that go with it, of which only the
        size is taken, too; `max_tokens` limits the answer. `downgrade_to` names cheaper models,
        best first, to take where a budget asks for that; `max_wait` is the longest wait for a throttle, in seconds. `user_id`,
        `session_id`, `organization_id` and `agent` say whom the call is for, over the scope that is open. Raises BudgetExceeded
        where the call may not be made; that is recorded.
        """,
    )
    aadmit = suspending(
        _admitting,
        name="aadmit",
        doc="""Do what `admit` does, with the same arguments, without holding up the event loop.

        `async with await tracker.aadmit(provider="openai", model="gpt-4o", prompt=text, max_tokens=500) as call:`
        """,
    )

    def _admitted(
        self, admission: Admission, request: Request, record: Callable[..., str], kept: Mapping[str, Any]
    ) -> AdmittedCall:
        admission.began = self._recorder.clock.now()  # the grant that pays for it is of a window of this moment
        if self._recorder.spool is not None:
            admission.call_id = new_id()
            tokens = request.prompt_tokens
            if tokens is None:
                tokens = estimate_tokens(max(request.prompt_bytes, 0))
            usage = TokenUsage(tokens, estimated=True)
            begun = self._recorder.begun(begun_record(request, admission, usage, metadata=kept))
            admission.began = begun.created_at, begun.clocked
        return AdmittedCall(admission, record, self._not_made, model=request.model, max_tokens=request.max_tokens)

    def _not_made(self, admission: Admission) -> None:
        """A call that was admitted is not made."""
        self._controller.release(admission)
        if admission.call_id is not None:
            self._recorder.void(admission.call_id)

    def _context(self, agent: Agent | str | None, **changes: Any) -> tuple[CallContext, dict[str, Any]]:
        """Who and what a call made here is for, and what its row says of the scope and the LangChain run around this code."""
        if agent is not None:
            changes |= (agent if isinstance(agent, Agent) else Agent(clean_text(agent) or "")).fields()
        around = self._around()
        frame, marked = locate(current_frame.get(), around)
        context = resolve(self._default, frame, marked, around).replace(changes)
        context = context.replace(captured(context, around, step_of(around, frame)))
        return context, kept_of(frame, around, self._allowed)


def _not_objects(given: Mapping[str, object]) -> Iterator[str]:
    """Notes on what should have been a mapping."""
    return (f"invalid_{name}" for name, value in given.items() if value is not None and not isinstance(value, Mapping))


def _facts(service_tier: str | None, more: Mapping[str, str]) -> dict[str, str]:
    """What decides the price beside the model, clean and only by the names that are known."""
    given = {"service_tier": service_tier, **more}
    return {name: text for name in PRICE_FACTS if (text := clean_text(given.get(name), _LONGEST_FACT))}


def _size(prompt: object) -> int:
    """Bytes of UTF-8 of a prompt that is a text."""
    return len(prompt.encode("utf-8", "replace")) if isinstance(prompt, str) else 0


def _start(response_time_ms: object) -> datetime:
    """When a call began that has just ended after so many milliseconds."""
    now = datetime.now(UTC)
    if isinstance(response_time_ms, (int, float)) and 0 < response_time_ms < _LONGEST_CALL_MS:
        return now - timedelta(milliseconds=response_time_ms)
    return now
