"""Guards a chat model: asks the budgets before each call, waits for a slot, and goes down to a cheaper model.

The guarded model is of a class of its own below the model's: whatever the model can do it can, and copies of it are guarded
too. What it adds happens before the call; the call itself is the plain model's.
"""

# ruff: noqa: A002, SLF001 - names that LangChain gives, and a class whose instances are another class's

from __future__ import annotations

import asyncio
import inspect
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Sequence
from contextlib import aclosing, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import update_wrapper
from types import FunctionType, NoneType
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, cast

from langchain_core._api import beta
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import ensure_config

from vital_tracking.budgets.pending import Waits, run, run_async
from vital_tracking.calls.live import admitted
from vital_tracking.calls.shadowing import shadowing
from vital_tracking.core.admission import Admission, Request
from vital_tracking.errors import BudgetExceeded
from vital_tracking.langchain.callbacks import joined
from vital_tracking.langchain.control_flow import stopped
from vital_tracking.langchain.downgrade import Cheaper, PlannedCall, in_class, note_tools, under_name
from vital_tracking.langchain.shadow import Shadow, ShadowRuns

if TYPE_CHECKING:
    from langchain_core.language_models.chat_model_stream import AsyncChatModelStream, ChatModelStream

    from vital_tracking.budgets.controller import AdmissionController
    from vital_tracking.langchain.handler import VitalHandler

    _Base = BaseChatModel
else:
    _Base = object

Model = TypeVar("Model", bound=BaseChatModel)

_BINDS: Final = frozenset({"bind_tools", "with_structured_output"})


def guard(
    model: Model,
    *,
    controller: AdmissionController,
    handler: VitalHandler,
    downgrade_to: Cheaper | Sequence[Cheaper] | None = None,
    max_wait: float = 30.0,
    shadow: Cheaper | None = None,
    share: float = 0.02,
    shadow_runs: ShadowRuns | None = None,
) -> Model:
    """A copy of `model` whose calls are recorded, and are made only as budgets allow; it is of the model's own class.

    `downgrade_to`: the name of a cheaper model of the same provider, another chat model, or several of these, best first.
    `max_wait`: the longest wait for a throttle's slot, in seconds. `shadow` is the name of a model of the same provider or a chat
    model, which `shadow_runs` ask on a `share` of the calls, over 0 to 1. Calls that may not be made raise BudgetExceeded. Raises
    TypeError for what is no chat model, and for a name where the model's field for it is not known; ValueError for another share.
    """
    if not isinstance(model, BaseChatModel):
        raise TypeError(f"guard() takes a chat model, not {type(model).__name__}: guard first, then bind and compose.")
    listed = [downgrade_to] if isinstance(downgrade_to, (str, BaseChatModel)) else list(downgrade_to or ())
    if isinstance(shadow, _Guarded):
        shadow = shadow._vital_plain()
    if not isinstance(shadow, (str, BaseChatModel, NoneType)):
        raise TypeError(f"shadow takes the name of a model or a chat model, not {type(shadow).__name__}.")
    if not 0 < share <= 1:
        raise ValueError(f"share is over 0 and at most 1, not {share!r}.")
    shadowed = None if shadow is None else Shadow(shadow, share)
    if isinstance(model, _Guarded):
        former = model._vital_guard
        if not listed and shadow is None and former.controller is controller:
            return model
        if former.controller is controller:  # what is not given anew stays
            listed, shadowed = listed or list(former.chain), shadowed or former.shadow
        model = cast("Model", model._vital_plain())
    chain: list[Cheaper] = []
    for cheaper in listed:
        if isinstance(cheaper, _Guarded):  # its own cheaper models follow it
            plain = cheaper._vital_plain()
            chain += [
                plain,
                *(under_name(plain, one) if isinstance(one, str) else one for one in cheaper._vital_guard.chain),
            ]
        elif isinstance(cheaper, (str, BaseChatModel)):
            chain.append(cheaper)
        else:
            raise TypeError(f"downgrade_to takes names of models and chat models, not {type(cheaper).__name__}.")
    for name in (*chain, shadow):
        if isinstance(name, str):
            under_name(model, name)  # raises TypeError now, not when the other model is first asked
    base: Any = type(model)
    names = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
    guarded = type(base)(base.__name__, (_Guarded, base), {**names, **dict(_methods_for(base))})
    guarded._vital_guard = _Guard(
        controller, handler, base, tuple(chain), max(float(max_wait), 0.0), shadowed, shadow_runs
    )
    copied = model.model_copy()
    return cast("Model", in_class(guarded, copied, copied.__dict__))


class _Guarded(_Base):
    """The methods that a guarded model has before those of the model's own class."""

    _vital_guard: ClassVar[_Guard]

    def generate(self, messages: Any, stop: Any = None, callbacks: Any = None, **kwargs: Any) -> Any:
        run = {name: kwargs.pop(name) for name in ("run_name", "run_id") if name in kwargs}
        call = self._vital_guard.ask(self._vital_call(kwargs, stop, {"callbacks": callbacks, **kwargs}), messages)
        with self._vital_guard.starting(call):
            return call.model.generate(messages, stop, **call.given(), **run)

    async def agenerate(self, messages: Any, stop: Any = None, callbacks: Any = None, **kwargs: Any) -> Any:
        run = {name: kwargs.pop(name) for name in ("run_name", "run_id") if name in kwargs}
        call = await self._vital_guard.aask(
            self._vital_call(kwargs, stop, {"callbacks": callbacks, **kwargs}), messages
        )
        with self._vital_guard.starting(call):
            return await call.model.agenerate(messages, stop, **call.given(), **run)

    def stream(self, input: Any, config: Any = None, *, stop: Any = None, **kwargs: Any) -> Iterator[Any]:
        config, messages = ensure_config(config), self._convert_input(input).to_messages()
        call = self._vital_guard.ask(self._vital_call(kwargs, stop, config), [messages])
        with self._vital_guard.starting(call):  # to the first chunk: between chunks the context is the caller's own
            chunks = iter(call.model.stream(input, **call.streamed(config)))
            first = next(chunks, None)
        with closing(chunks) if isinstance(chunks, Generator) else nullcontext():
            if first is not None:
                yield first
                yield from chunks

    async def astream(self, input: Any, config: Any = None, *, stop: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
        config, messages = ensure_config(config), self._convert_input(input).to_messages()
        call = await self._vital_guard.aask(self._vital_call(kwargs, stop, config), [messages])
        with self._vital_guard.starting(call):
            chunks = aiter(call.model.astream(input, **call.streamed(config)))
            first = await anext(chunks, None)
        async with aclosing(chunks) if isinstance(chunks, AsyncGenerator) else nullcontext():
            if first is not None:
                yield first
                async for chunk in chunks:
                    yield chunk

    def _chat_model_stream_v3(
        self, input: Any, config: Any = None, *, stop: Any = None, **kwargs: Any
    ) -> ChatModelStream:
        from langchain_core.language_models.chat_model_stream import ChatModelStream

        config, messages = ensure_config(config), self._convert_input(input).to_messages()
        stream: Any = ChatModelStream()
        unasked = self._vital_guard.attached(self._vital_call(kwargs, stop, config))
        if not self._vital_guard.adopts(stream):
            return unasked.model.stream_events(input, version="v3", **unasked.streamed(config))

        def start() -> None:
            if stream.done:
                return
            try:
                call = self._vital_guard.ask(unasked, [messages])
            except BudgetExceeded as error:
                stream.fail(error)
                raise
            with self._vital_guard.starting(call):
                _become(stream, call.model.stream_events(input, version="v3", **call.streamed(config)))
                stream._ensure_started()

        def more() -> bool:
            start()
            return not stream.done and bool(stream._request_more())

        stream.set_start(start)
        stream.set_request_more(more)
        return cast("ChatModelStream", stream)

    async def _achat_model_stream_v3(
        self, input: Any, config: Any = None, *, stop: Any = None, **kwargs: Any
    ) -> AsyncChatModelStream:
        from langchain_core.language_models.chat_model_stream import AsyncChatModelStream

        config, messages = ensure_config(config), self._convert_input(input).to_messages()
        stream: Any = AsyncChatModelStream()
        unasked = self._vital_guard.attached(self._vital_call(kwargs, stop, config))
        if not self._vital_guard.adopts(stream):
            unguarded = await _v3(unasked.model)(unasked.model, input, **unasked.streamed(config))
            return cast("AsyncChatModelStream", unguarded)
        starting = asyncio.Lock()

        async def start() -> None:
            async with starting:
                if stream.done or stream._producer_task is not None:
                    return
                try:
                    call = await self._vital_guard.aask(unasked, [messages])
                except BudgetExceeded as error:
                    stream.fail(error)
                    raise
                with self._vital_guard.starting(call):
                    _become(stream, await _v3(call.model)(call.model, input, **call.streamed(config)))
                    await stream._ensure_started()

        stream.set_start(start)
        return cast("AsyncChatModelStream", stream)

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        """The model with tools bound; a model further down the chain, or a shadow, gets them bound in its own way."""
        if not self._vital_guard.chain and self._vital_guard.shadow is None:
            return super().bind_tools(tools, **kwargs)
        bearer = self.model_copy()
        binding = super(_Guarded, bearer).bind_tools(tools, **kwargs)
        note_tools(bearer, tools, kwargs, binding)
        return binding

    def with_structured_output(self, schema: Any = None, *, include_raw: bool = False, **kwargs: Any) -> Any:
        """The model with structured answers: where another provider's model may give them, by a tool call, which all can read."""
        if self._vital_guard.foreign:
            return BaseChatModel.with_structured_output(self, schema, include_raw=include_raw, **kwargs)
        return super().with_structured_output(schema, include_raw=include_raw, **kwargs)

    def _vital_plain(self) -> BaseChatModel:
        """The same model without the guard: of its plain class, with one and the same state."""
        return cast("BaseChatModel", in_class(self._vital_guard.base, self, self.__dict__))

    def _vital_call(self, kwargs: dict[str, Any], stop: Any, config: Any) -> PlannedCall:
        """A call of the plain model with the callbacks, tags and metadata of a config, or of generate()'s arguments."""
        kept = {name: value for name, value in kwargs.items() if name not in ("tags", "metadata")}
        return PlannedCall(
            self._vital_plain(), config.get("callbacks"), config.get("tags"), config.get("metadata"), kept, stop
        )


def _methods_for(base: type[BaseChatModel]) -> Iterator[tuple[str, Any]]:
    """The methods of a guarded model, as the class of its plain one shows them. What that class cannot do it does not show:
    whether a model takes tools is read off its class."""
    for name, ours in vars(_Guarded).items():
        theirs = getattr(base, name, None)
        if theirs is None or not isinstance(ours, FunctionType):
            continue
        lacking = name in _BINDS and theirs is getattr(BaseChatModel, name)
        yield name, theirs if lacking else _shaped_as(theirs, ours)


def _shaped_as(theirs: Any, ours: FunctionType) -> Any:
    """Our method with the signature and documentation of theirs, by which callers decide what to pass."""
    copied = FunctionType(ours.__code__, ours.__globals__, ours.__name__, ours.__defaults__, ours.__closure__)
    copied.__kwdefaults__ = ours.__kwdefaults__
    if (theirs.__doc__ or "").startswith(".. beta::"):  # the warning is to name the line that calls ours
        return beta()(update_wrapper(copied, inspect.unwrap(theirs)))
    return update_wrapper(copied, theirs)


def _v3(model: BaseChatModel) -> Any:
    """What streams a plain model's v3 events, without the warning that it is in beta: that was given where ours was called."""
    return inspect.unwrap(type(model)._achat_model_stream_v3)


@dataclass(frozen=True, slots=True)
class _Guard:
    """What a guard was given, and how it asks."""

    controller: AdmissionController
    handler: VitalHandler
    base: type[BaseChatModel]
    chain: tuple[Cheaper, ...]
    max_wait: float
    shadow: Shadow | None
    shadow_runs: ShadowRuns | None

    @property
    def foreign(self) -> bool:
        """Whether models of another class are on the chain."""
        return any(isinstance(cheaper, BaseChatModel) and type(cheaper) is not self.base for cheaper in self.chain)

    def ask(self, call: PlannedCall, prompts: Sequence[Any]) -> PlannedCall:
        """The call that may be made, perhaps after a wait in this thread; raises BudgetExceeded where none may."""
        call = self.attached(call)
        return self.followed(call, run(self._asking(call, prompts)), prompts)

    async def aask(self, call: PlannedCall, prompts: Sequence[Any]) -> PlannedCall:
        """The same; a wait does not hold up the event loop."""
        call = self.attached(call)
        return self.followed(call, await run_async(self._asking(call, prompts)), prompts)

    def followed(self, call: PlannedCall, allowed: PlannedCall, prompts: Sequence[Any]) -> PlannedCall:
        """The call that is made in place of `call`, with the shadow runs that are to follow it: none where it is downgraded, as
        there is no money to spare."""
        if self.shadow is None or self.shadow_runs is None:
            return allowed
        if any(admission.action == "downgrade" for admission in allowed.admissions):
            return allowed
        return replace(allowed, shadows=self.shadow_runs.after(self.shadow, call, prompts))

    def _asking(self, call: PlannedCall, prompts: Sequence[Any]) -> Waits[PlannedCall]:
        """The call that may be made. After a fault of ours it is the call as it was, for which the handler asks."""
        if not self.controller.active or admitted.get():  # no budgets, or a guard around this one has asked them
            return call
        try:
            return (yield from self._down_the_chain(call, prompts))
        except BudgetExceeded:
            raise
        except Exception as fault:  # noqa: BLE001 - no fault of ours stops a call
            self.handler.recorder.fault(fault)
            return call

    def _down_the_chain(self, call: PlannedCall, prompts: Sequence[Any]) -> Waits[PlannedCall]:
        """Ask for the model, then for each cheaper one, until one may be called. Of several prompts all are admitted, or none."""
        until = time.monotonic() + self.max_wait
        wanted: str | None = None
        for number, cheaper in enumerate((None, *self.chain)):
            attempt = call if cheaper is None else call.downgraded(cheaper)
            metadata, taken = attempt.merged(), attempt.admissions
            context = self.handler.context_of(metadata)
            requests = attempt.requests(prompts, context, metadata, downgraded=cheaper is not None)
            try:
                for request in requests:
                    max_wait = max(until - time.monotonic(), 0.0)
                    admission = yield from self.controller.admitting(request, max_wait=max_wait, clamp=True)
                    taken.append(admission)
                    if cheaper is not None:
                        admission.action, admission.requested_model = "downgrade", wanted
                return attempt.clamped()
            except BudgetExceeded as error:
                self._release(taken)
                if error.action == "downgrade" and number < len(self.chain):
                    wanted = wanted or request.model
                    continue
                self._blocked(attempt, request, error, metadata, wanted)
                raise stopped(error) from None
            except BaseException:
                self._release(taken)
                raise
        raise AssertionError  # the last one may be called, or has raised

    @contextmanager
    def starting(self, call: PlannedCall) -> Iterator[None]:
        """While the call starts, the handler can take its admissions, and what follows its answers; admissions that it has not
        taken then are given back."""
        if not call.admissions and not call.shadows:
            yield
            return
        token = admitted.set(call.admissions) if call.admissions else None
        shadows = shadowing.set((self.handler, call.shadows)) if call.shadows else None
        try:
            yield
        finally:
            with suppress(ValueError):  # a generator that is closed in another context
                if shadows is not None:
                    shadowing.reset(shadows)
                if token is not None:
                    admitted.reset(token)
            self._release(call.admissions)

    def adopts(self, stream: Any) -> bool:
        """Whether a v3 stream is handed out before anything is asked; else the handler asks when it starts."""
        asks = self.controller.active or self.shadow is not None
        return asks and hasattr(stream, "_ensure_started")

    def attached(self, call: PlannedCall) -> PlannedCall:
        """The call with the handler among its callbacks, once."""
        if self.handler in (getattr(call.callbacks, "handlers", call.callbacks) or ()):
            return call
        return replace(call, callbacks=joined(call.callbacks, [self.handler]))

    def _blocked(
        self, call: PlannedCall, request: Request, error: BudgetExceeded, metadata: dict[str, Any], wanted: str | None
    ) -> None:
        try:
            parent = getattr(call.callbacks, "parent_run_id", None)
            tags = call.all_tags()
            self.handler.blocked(
                request, error, metadata=metadata, tags=tags, parent_run_id=parent, requested_model=wanted
            )
        except Exception as fault:  # noqa: BLE001 - the call is stopped although that is not recorded
            self.handler.recorder.fault(fault)

    def _release(self, admissions: deque[Admission]) -> None:
        """Give back what was admitted and not used."""
        while admissions:
            try:
                self.controller.release(admissions.popleft())
            except Exception as fault:  # noqa: BLE001 - what is not given back lapses
                self.handler.recorder.fault(fault)


def _become(stream: Any, inner: Any) -> None:
    """Have a v3 stream that was handed out go on as another one, by sharing its state."""
    stream.set_start(inner._ensure_started)
    if hasattr(inner, "_on_aclose_fail"):
        stream._on_aclose_fail = inner._on_aclose_fail
    else:
        stream.set_request_more(inner._request_more)
    inner.__dict__ = stream.__dict__
