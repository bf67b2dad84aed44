"""Calls that LangChain did not make: recorded after the fact, or admitted by their budgets before it."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypedDict, Unpack, cast

from vital_tracking.budgets.controller import AdmissionController
from vital_tracking.core.admission import UNKNOWN_SIZE, Admission, Request
from vital_tracking.core.context import Agent, CallContext
from vital_tracking.core.frames import ScopeFrame, current_frame, locate, resolve
from vital_tracking.core.pricing import PriceBook
from vital_tracking.core.record import STATUSES, CallRecord, CallType, Status
from vital_tracking.core.sanitize import clean_text, token_count
from vital_tracking.core.usage import TokenUsage, estimate_tokens
from vital_tracking.delivery import Recorder
from vital_tracking.direct.admitted_call import AdmittedCall
from vital_tracking.errors import BudgetExceeded
from vital_tracking.ids import new_id

_CLASS_NAME: Final = re.compile(r"[A-Za-z_][\w.]{0,79}")


class AdmitOptions(TypedDict, total=False):
    """What `admit` is told of a call: whom it is for, which model, and how large it may get."""

    provider: str | None
    model: str | None
    prompt: str | None
    prompt_tokens: int | None
    max_tokens: int | None
    max_wait: float
    downgrade_to: str | Sequence[str] | None
    user_id: str | None
    session_id: str | None
    organization_id: str | None
    agent: Agent | str | None


# What of it the record of the call is made with.
_ADMITTED: Final = ("provider", "user_id", "session_id", "organization_id", "agent")


class DirectCalls:
    """What a tracker offers to code that calls a provider by itself."""

    prices: PriceBook
    controller: AdmissionController
    _recorder: Recorder
    _default: CallContext

    def inherited_config(self) -> Mapping[str, Any]:
        """Callbacks, metadata and tags that the LangChain run around this code hands to its children; else empty."""
        raise NotImplementedError

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
        admission: Admission | None = None,
    ) -> str:
        """Record a call that no LangChain object made (AutoGen, a raw SDK, Perplexity), and return its id.

        Tokens are counts as the provider reports them, `prompt_tokens` with the cached ones; times are milliseconds;
        `framework` and `message_type` are free words (langchain, autogen, perplexity, hybrid; chat, preset_action,
        tool_execution). Inside a scope the call belongs to it. With a provider and no model, the provider's default model
        prices the call and the row says so. Of an error only the class name is kept. Never raises for what it is given:
        what cannot be stored is left out and named in the row's metadata. `admission` is for calls that `admit` let go.
        """
        call_id = (admission.call_id if admission is not None else None) or new_id()
        try:
            notes: list[str] = []
            extra: dict[str, Any] = {}
            provider, model, service_tier = map(clean_text, (provider, model, service_tier))
            if model is None and (assumed := self.prices.default_model(provider)) is not None:
                model = assumed
                extra["model_assumed"] = True
            base, frame = self._context(
                agent,
                user_id=user_id,
                session_id=session_id,
                organization_id=organization_id,
                framework=framework,
                message_type=message_type,
            )
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
            given = started_at if isinstance(started_at, datetime) else None
            began = given or _start(response_time_ms), given is None
            if admission is not None and admission.began is not None:
                began = admission.began  # its beginning says so too, and the two must be known for one
            put = self._recorder.put if admission is None or admission.hold is None else self._recorder.put_held
            put(
                CallRecord(
                    id=call_id,
                    created_at=began[0],
                    clocked=began[1],
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
                    requested_model=admission.requested_model if admission is not None else None,
                    budget_action=admission.action if admission is not None else None,
                    throttled_ms=admission.throttled_ms if admission is not None else None,
                    hold=admission.hold if admission is not None else None,
                    tags=[tags] if isinstance(tags, str) else list(tags),
                    metadata={**(frame.metadata if frame else {}), **(metadata or {}), **extra},
                    notes=tuple(notes),
                )
            )
        except Exception as fault:  # noqa: BLE001 - recording must not break what it records
            self._recorder.fault(fault)
            if admission is not None:
                self.controller.release(admission)
        return call_id

    def admit(self, **call: Unpack[AdmitOptions]) -> AdmittedCall:
        """Ask the budgets before a call that your code makes by itself, and set aside what it may cost.

        `with tracker.admit(provider="openai", model="gpt-4o", prompt=text, max_tokens=500) as call:` make the call with
        `call.model`, then `call.record(prompt_tokens=..., completion_tokens=...)`. `downgrade_to` names cheaper models, best
        first, to take where a budget asks for that; `max_wait` is the longest wait for a throttle, in seconds. Raises
        BudgetExceeded where the call may not be made; that is recorded.
        """
        rungs, requests, max_wait = self._requests(call)
        for number, request in enumerate(requests):
            try:
                admission = self.controller.admit(request, max_wait=max_wait, clamp=True)
            except BudgetExceeded as error:
                self._stop(error, request, rungs, last=number == len(requests) - 1)
            else:
                return self._admitted(admission, request, rungs, call)
        raise AssertionError  # the last one was admitted or has raised

    async def aadmit(self, **call: Unpack[AdmitOptions]) -> AdmittedCall:
        """`admit` for an event loop: `async with await tracker.aadmit(...) as call:`; a wait blocks nothing."""
        rungs, requests, max_wait = self._requests(call)
        for number, request in enumerate(requests):
            try:
                admission = await self.controller.aadmit(request, max_wait=max_wait, clamp=True)
            except BudgetExceeded as error:
                self._stop(error, request, rungs, last=number == len(requests) - 1)
            else:
                return self._admitted(admission, request, rungs, call)
        raise AssertionError  # as above

    def _requests(self, call: AdmitOptions) -> tuple[list[str | None], list[Request], float]:
        """What to ask for, the model itself first, then what it may be downgraded to."""
        context, _ = self._context(
            call.get("agent"),
            user_id=call.get("user_id"),
            session_id=call.get("session_id"),
            organization_id=call.get("organization_id"),
        )
        cheaper = call.get("downgrade_to") or ()
        rungs: list[str | None] = [call.get("model"), *([cheaper] if isinstance(cheaper, str) else cheaper)]
        prompt = call.get("prompt")
        size = len(prompt.encode("utf-8", "replace")) if isinstance(prompt, str) else 0
        requests = [
            Request(
                context,
                provider=call.get("provider"),
                model=model,
                prompt_bytes=size if call.get("prompt_tokens") is None else UNKNOWN_SIZE,
                prompt_tokens=token_count(call.get("prompt_tokens")),
                max_tokens=token_count(call.get("max_tokens")),
                downgraded=model is not rungs[0],
            )
            for model in rungs
        ]
        self.controller.start()
        return rungs, requests, call.get("max_wait", 0.0)

    def _stop(self, error: BudgetExceeded, request: Request, rungs: list[str | None], *, last: bool) -> None:
        """Go on to the next model where one may help; else record the stopped call and raise."""
        if error.action == "downgrade" and not last:
            return
        self._recorder.put(
            CallRecord(
                id=new_id(),
                created_at=datetime.now(UTC),
                context=request.context,
                provider=request.provider,
                model=request.model,
                requested_model=rungs[0] if rungs[0] != request.model else None,
                billed=False,
                status="blocked",
                error_type=type(error).__name__,
                budget_action=error.action,
            )
        )
        raise error

    def _admitted(
        self, admission: Admission, request: Request, rungs: list[str | None], call: AdmitOptions
    ) -> AdmittedCall:
        if request.downgraded:
            admission.requested_model, admission.action = rungs[0], "downgrade"
        given = cast("dict[str, Any]", call)
        whom = {name: given[name] for name in _ADMITTED if name in given}
        if self._recorder.spool is not None:
            admission.call_id = new_id()
            size, tokens = request.prompt_bytes, request.prompt_tokens
            begun = self._recorder.begun(
                CallRecord(
                    id=admission.call_id,
                    created_at=datetime.now(UTC),
                    context=request.context,
                    provider=request.provider,
                    model=request.model,
                    requested_model=admission.requested_model,
                    usage=TokenUsage(estimate_tokens(max(size, 0)) if tokens is None else tokens, estimated=True),
                    status="abandoned",
                    budget_action=admission.action,
                    throttled_ms=admission.throttled_ms,
                )
            )
            admission.began = begun.created_at, begun.clocked
        return AdmittedCall(
            admission,
            functools.partial(self.record, **whom),
            self._not_made,
            model=request.model,
            max_tokens=request.max_tokens,
        )

    def _not_made(self, admission: Admission) -> None:
        """A call that was admitted is not made."""
        self.controller.release(admission)
        if admission.call_id is not None:
            self._recorder.void(admission.call_id)

    def _context(self, agent: Agent | str | None, **changes: Any) -> tuple[CallContext, ScopeFrame | None]:
        """Who and what a call made here is for, and the scope that it is in."""
        if agent is not None:
            changes |= (agent if isinstance(agent, Agent) else Agent(clean_text(agent) or "")).fields()
        around = self.inherited_config().get("metadata") or {}
        frame, marked = locate(current_frame.get(), around)
        return resolve(self._default, frame, marked, around).replace(changes), frame


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
