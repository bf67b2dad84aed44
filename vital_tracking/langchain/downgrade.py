"""A call on its way down a guard's chain of models: copies of the model under other names and limits, and what was bound for
one model as another one takes it."""

# ruff: noqa: SLF001 - what LangChain computes of a model for its callbacks is needed before they are called

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from langchain_core.language_models import BaseChatModel

from vital_tracking.calls.asked import media_tokens, schema_size
from vital_tracking.calls.names_of import ANSWER_LIMITS
from vital_tracking.calls.shadowing import Answered
from vital_tracking.calls.texts import text_size
from vital_tracking.core.admission import Admission, Request
from vital_tracking.core.context import CallContext
from vital_tracking.langchain.callbacks import joined

Cheaper = str | BaseChatModel

# What integrations call their model, as field and as keyword argument.
_NAMES: Final = ("model_name", "model", "model_id")

# Keyword arguments that every provider's models take; what else was bound for one provider another one would refuse.
_SHARED: Final = frozenset(
    {"temperature", "top_p", "stream", "ls_structured_output_format", "structured_output_format"}
)

# Where a model that tools were bound to keeps them as they were given: beside its fields, so that no serialization shows them.
_BOUND: Final = "_vital_bound"


@dataclass(slots=True)
class PlannedCall:
    """A call as LangChain is to make it: which model makes it, what it is given, was admitted for it, and follows its answers."""

    model: BaseChatModel
    callbacks: Any
    tags: list[str] | None
    metadata: dict[str, Any] | None
    kwargs: dict[str, Any]
    stop: Any
    admissions: deque[Admission] = field(default_factory=deque)
    shadows: deque[Answered] = field(default_factory=deque)

    def given(self) -> dict[str, Any]:
        """The arguments of generate()."""
        return {"callbacks": self.callbacks, "tags": self.tags, "metadata": self.metadata, **self.kwargs}

    def streamed(self, config: Any) -> dict[str, Any]:
        """The arguments of stream()."""
        around = {"callbacks": self.callbacks, "tags": self.tags, "metadata": self.metadata}
        return {"config": {**config, **around}, "stop": self.stop, **self.kwargs}

    def merged(self) -> dict[str, Any]:
        """The metadata that the start of the call will show, merged as LangChain does."""
        around = getattr(self.callbacks, "metadata", None) or {}
        asked = self.model._get_ls_params(stop=self.stop, **self.kwargs)
        return {**around, **(self.metadata or {}), **asked, **(self.model.metadata or {})}

    def all_tags(self) -> list[str]:
        """The tags that the start of the call will show."""
        return [*(getattr(self.callbacks, "tags", None) or ()), *(self.tags or ()), *(self.model.tags or ())]

    def requests(
        self, prompts: Sequence[Any], context: CallContext, metadata: Mapping[str, Any], *, downgraded: bool
    ) -> list[Request]:
        """What is to be asked for each of the prompts."""
        limits = [self.kwargs.get(name) for name in ANSWER_LIMITS] + [metadata.get("ls_max_tokens")]
        fields = self.model.__dict__  # asking a pydantic model for a missing attribute takes long
        limits += [fields.get(name) for name in ANSWER_LIMITS]
        answers = self.kwargs.get("n") or fields.get("n")
        request = Request(
            context=context,
            provider=metadata.get("ls_provider"),
            model=metadata.get("ls_model_name"),
            max_tokens=next((limit for limit in limits if type(limit) is int and limit > 0), None),
            answers=answers if type(answers) is int and answers > 0 else 1,
            downgraded=downgraded,
            schema_bytes=schema_size(self.kwargs),
        )
        media = [media_tokens([prompt], request.model) for prompt in prompts]
        return [
            request._replace(
                prompt_bytes=text_size(prompt),
                messages=len(prompt),
                media_tokens=seen,
                audio_tokens=sounds,
            )
            for prompt, (seen, sounds) in zip(prompts, media, strict=True)
        ]

    def clamped(self) -> PlannedCall:
        """The call with its answers limited to what was admitted."""
        limits = [admission.max_tokens for admission in self.admissions if admission.max_tokens is not None]
        if not limits:
            return self
        own: dict[str, Any] = {name: min(limits) for name in ANSWER_LIMITS if name in type(self.model).model_fields}
        given = {name: min(limits) for name in ANSWER_LIMITS if name in self.kwargs}
        if not own and not given:
            given = {"max_tokens": min(limits)}
        return replace(self, model=_variant(self.model, own), kwargs=self.kwargs | given)

    def downgraded(self, cheaper: Cheaper) -> PlannedCall:
        """The call as a model further down the chain makes it; what was admitted is no part of it."""
        kwargs = {name: value for name, value in self.kwargs.items() if name not in _NAMES}
        if isinstance(cheaper, str):
            return PlannedCall(
                under_name(self.model, cheaper), self.callbacks, self.tags, self.metadata, kwargs, self.stop
            )
        return PlannedCall(
            model=cheaper,
            callbacks=joined(self.callbacks, self.model.callbacks),
            tags=[*(self.tags or ()), *(self.model.tags or ())],
            metadata={**(self.metadata or {}), **(self.model.metadata or {})},
            kwargs=_translated(self.model, cheaper, kwargs),
            stop=self.stop,
        )


def in_class(cls: type[Any], model: BaseChatModel, state: dict[str, Any]) -> Any:
    """The model as an instance of another class, with this state."""
    made: Any = object.__new__(cls)
    object.__setattr__(made, "__dict__", state)
    for name in ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__"):
        object.__setattr__(made, name, getattr(model, name, None))
    return made


def note_tools(model: BaseChatModel, tools: Any, options: dict[str, Any], binding: Any) -> None:
    """Keep with a model the tools that were bound to it, and what binding them made of them."""
    model.__dict__[_BOUND] = (tools, options, dict(getattr(binding, "kwargs", ())))


def under_name(model: BaseChatModel, name: str) -> BaseChatModel:
    """The model under another name, of the same provider; TypeError where the model's field for it is not known."""
    fields = type(model).model_fields
    own = next((one for one in _NAMES if one in fields), None)
    if own is None or getattr(model, "deployment_name", None):
        raise TypeError(f"{name!r}: {type(model).__name__} takes no model by its name. Give a chat model.")
    made = _variant(model, {own: name, "profile": None})
    with suppress(Exception):  # what is known of models differs by version and provider
        made.__dict__["profile"] = profile = made._resolve_model_profile()
        most = (profile or {}).get("max_output_tokens")
        for limit in ANSWER_LIMITS:
            if most and type(asked := made.__dict__.get(limit)) is int and asked > most:
                made.__dict__[limit] = most  # Anthropic's default limit is the dearer model's
    return made


def _variant(model: BaseChatModel, changes: Mapping[str, Any]) -> BaseChatModel:
    """A copy with other fields; LangChain's cache must not take its answers for those of the model itself."""
    made = model.model_copy(update=changes)
    made.__dict__.pop("_serialized", None)
    return made


def _translated(model: BaseChatModel, other: BaseChatModel, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments bound for one model as another one takes them: its own form of the tools, and what all share."""
    tools, options, bound = model.__dict__.get(_BOUND, (None, {}, {}))
    if "tools" not in kwargs or kwargs["tools"] is not bound.get("tools"):  # bound by hand, or none
        tools, options = kwargs.get("tools"), {"tool_choice": kwargs.get("tool_choice")}
        bound = {"tools": ..., "tool_choice": ...}
    rest = {name: value for name, value in kwargs.items() if name not in bound}
    if type(other) is not type(model):
        limit = next((rest[name] for name in ANSWER_LIMITS if name in rest), None)
        rest = {name: value for name, value in rest.items() if name in _SHARED}
        rest |= {} if limit is None else {"max_tokens": limit}
    choice = _choice(options.get("tool_choice"))
    if tools is None or choice == "none":
        return rest
    options = {name: value for name, value in options.items() if name != "tool_choice"}
    binding = other.bind_tools(tools, **options, **({} if choice is None else {"tool_choice": choice}))
    return {**rest, **getattr(binding, "kwargs", {})}


def _choice(choice: Any) -> str | None:
    """A tool choice in the words that all providers know: `any`, `auto`, `none` or a tool's name."""
    if isinstance(choice, Mapping):
        function = choice.get("function", choice)
        choice = (function.get("name") if isinstance(function, Mapping) else None) or choice.get("type")
    return "any" if choice is True or choice == "required" else choice or None
