"""A call as JSON: in the caller's thread, so every microsecond counts; and back, on the writer's, perhaps of another process.

What was known at the start is packed once and goes into both frames of a call, its beginning and its end: each can stand alone.
No text of a prompt or an answer is in there, and of metadata only what may be stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import orjson
import uuid_utils

from vital_tracking.budgets.admission import Admission
from vital_tracking.context import METADATA_KEY, CallContext, unknown_keys
from vital_tracking.delivery.codec import LONGEST, context_fields, context_from, dumps, mended
from vital_tracking.langchain.extract import ErrorFacts
from vital_tracking.langchain.records import call_context, project_of, run_id_of, trace_id_of
from vital_tracking.usage import MAX_TEXT, TokenUsage, clean_metadata, clean_text

if TYPE_CHECKING:
    from vital_tracking.langchain.calls import OpenCall

_MODEL_PARAMETERS: Final = ("model", "model_name", "model_id", "_type")
_READ_METADATA: Final = frozenset({"ls_provider", "ls_model_name", "langgraph_checkpoint_ns"})
_MOST_KNOWN: Final = 1000
_WHOLE: Final = frozenset({int, type(None)})

_Fragment = orjson.Fragment

# Contexts are shared by the calls of a scope, and metadata have the same keys in call after call. Both books are emptied, not
# trimmed, when they are full; other threads may write to them meanwhile.
_contexts: dict[int, tuple[CallContext, Any]] = {}
_key_plans: dict[tuple[frozenset[str], tuple[str, ...]], tuple[tuple[str, ...], list[str]]] = {}


def pack_opening(call: OpenCall, run_id: object = None) -> bytes:
    """What is known of a call at its start; `run_id` is its run's id where that is at hand."""
    context = call.context
    if context is None:
        context = call.context = call_context(call)
    metadata = call.metadata
    keys, unknown = _plan(call.allowed, metadata)
    call.unknown_keys = unknown
    params = call.params
    run_id = run_id if type(run_id) is UUID else run_id_of(call)
    data: dict[str, Any] = {
        "started": call.started,
        "skew": call.skew_s,
        "type": call.call_type,
        "run": run_id,
        "parent": _id(call.parent_run_id),
        "trace": _id(call.tree[0]) if call.tree is not None and call.tree[0] is not None else trace_id_of(call, run_id),  # type: ignore[arg-type]
        "project": project_of(call),
        "context": _context(context),
        "metadata": {key: _kept(metadata[key]) for key in keys},
        "params": {name: _kept(params[name]) for name in _MODEL_PARAMETERS if name in params},
        "size": call.prompt_size(),
    }
    # What most calls have none of.
    if call.run is not None and call.run.tool is not None:
        data["tool"] = call.run.tool
    if call.tags:
        data["tags"] = call.tags
    if call.batch_size != 1:
        data["batch"] = call.batch_size
    if call.attempt is not None:
        data["attempt"] = call.attempt
    if call.hash is not None:
        data["hash"] = call.hash
    if unknown:
        data["unknown"] = unknown
    if "ls_provider" not in metadata and isinstance(call.serialized, Mapping):
        data["serialized"] = call.serialized.get("id")
    scope = call.scope_metadata
    if scope:
        data["scope"] = clean_metadata(scope, ())
    if METADATA_KEY in metadata and isinstance(own := metadata[METADATA_KEY], Mapping):
        data["own"] = clean_metadata(own, ())
    admission = call.admission
    if admission is not None and (admission.action or admission.throttled_ms or admission.requested_model):
        data["admission"] = (admission.action, admission.throttled_ms, admission.requested_model)
    packed = dumps(data)
    return packed if len(packed) <= LONGEST else dumps(mended(data))


def pack_call(call: OpenCall, *, short: bool = False) -> bytes:
    """A call that has ended; `short` leaves out what says nothing of money or to whom it belongs."""
    opening = call.opening or pack_opening(call)
    if short:
        kept = mended(orjson.loads(opening))
        for name in ("tags", "scope", "own", "unknown", "tool", "serialized", "hash"):
            kept.pop(name, None)
        kept["metadata"] = {name: kept["metadata"].get(name) for name in ("ls_provider", "ls_model_name")}
        opening = orjson.dumps(kept)
    ended = call.ended if call.ended is not None else call.touched
    end: dict[str, Any] = {
        "status": call.status,
        "ms": (ended - call.started_clock) * 1000,
        "usage": call.usage if call.usage is None else _counts(call.usage),
        "response": call.response,
        "message": call.message_id,
    }
    if call.first_token is not None:
        end["ttft"] = (call.first_token - call.started_clock) * 1000
    if call.token_usage is not None:
        end["token_usage"] = call.token_usage
    if call.estimate is not None:
        end["estimate"] = call.estimate
    if call.error is not None:
        end["error"] = _error_fields(call.error)
    if call.inner:
        end["inner"] = True
    if not call.batch_reported:
        end["batch_unreported"] = True
    if call.replaces_abandoned:
        end["replaces"] = True
    notes = (*call.notes, "shortened") if short else call.notes
    if notes:
        end["notes"] = notes
    admission = call.admission
    if call.status == "blocked" and admission is not None:
        end["action"] = admission.action
    return b'{"opening":%b,"end":%b}' % (opening, dumps(mended(end) if short else end))


def unpack_call(key: bytes, payload: bytes, skew_s: float) -> OpenCall:
    """The call that was packed at its end."""
    data = orjson.loads(payload)
    call = _opened(key, data["opening"], skew_s)
    end = data["end"]
    call.status = end["status"]
    call.ended = end["ms"] / 1000
    call.usage = end.get("usage")
    call.response = end.get("response") or {}
    call.message_id = end.get("message")
    call.first_token = end["ttft"] / 1000 if end.get("ttft") is not None else None
    call.token_usage = end.get("token_usage")
    call.estimate = tuple(end["estimate"]) if end.get("estimate") else None
    call.error = _error_from(end["error"]) if end.get("error") else None
    call.inner = end.get("inner", False)
    call.batch_reported = not end.get("batch_unreported", False)
    call.replaces_abandoned = end.get("replaces", False)
    call.notes = tuple(end.get("notes", ()))
    if end.get("action"):
        call.admission = Admission(action=end["action"])
    return call


def unpack_opening(key: bytes, payload: bytes, skew_s: float) -> OpenCall:
    """A call of which nothing is known but its start: its process has died."""
    call = _opened(key, orjson.loads(payload), skew_s)
    call.lost = True
    call.status = "abandoned"
    call.ended = 0.0
    call.estimate = (call.size or 0, 0)
    return call


def _opened(key: bytes, data: Mapping[str, Any], skew_s: float) -> OpenCall:
    from vital_tracking.langchain.calls import OpenCall, Run

    run_id, parent = data["run"], data.get("parent")
    metadata = data["metadata"]
    if "own" in data:
        metadata[METADATA_KEY] = data["own"]
    call = OpenCall(
        _key(run_id), data["type"], None, None, parent, data.get("tags"), metadata, data["params"], data.get("batch", 1)
    )
    call.id = uuid_utils.UUID(bytes=key)
    known_skew = data.get("skew")
    call.started = data["started"] + (skew_s if known_skew is None else known_skew)
    call.clocked = False
    call.started_clock = call.touched = 0.0
    call.allowed = frozenset(metadata) - _READ_METADATA - {METADATA_KEY} | (call.allowed & metadata.keys())
    call.serialized = {"id": data["serialized"]} if data.get("serialized") else None
    call.context = context_from(data["context"])
    call.tree = (data.get("trace"), data.get("project") or "")
    call.run = Run(run_id, data["tool"]) if data.get("tool") else None
    call.attempt = data.get("attempt")
    call.hash = data.get("hash")
    call.size = data.get("size")
    call.scope = data.get("scope") or {}
    call.unknown_keys = data.get("unknown") or ()
    if admission := data.get("admission"):
        call.admission = Admission(action=admission[0], throttled_ms=admission[1], requested_model=admission[2])
    return call


def _plan(allowed: frozenset[str], metadata: Mapping[str, Any]) -> tuple[tuple[str, ...], list[str]]:
    """Which keys of such metadata are kept, and which name nothing."""
    try:
        sort = (allowed, tuple(metadata))
        plan = _key_plans.get(sort)
    except TypeError:  # a key that cannot be hashed
        return (), []
    if plan is None:
        kept = allowed | _READ_METADATA
        plan = tuple(key for key in metadata if isinstance(key, str) and key in kept), unknown_keys(metadata)
        if len(_key_plans) >= _MOST_KNOWN:
            _key_plans.clear()
        _key_plans[sort] = plan
    return plan


def _kept(value: object) -> Any:
    """A value of metadata as it may be stored; almost all are."""
    kind = type(value)
    if kind is str:
        return value if len(value) <= MAX_TEXT else clean_text(value)  # type: ignore[arg-type]
    if kind is int or kind is float or kind is bool or value is None:
        return value
    return clean_metadata({"value": value}, ()).get("value")


def _context(context: CallContext) -> Any:
    known = _contexts.get(id(context))
    if known is not None and known[0] is context:
        return known[1]
    fragment = _Fragment(dumps(context_fields(context)))
    if len(_contexts) >= _MOST_KNOWN:
        _contexts.clear()
    _contexts[id(context)] = (context, fragment)
    return fragment


def _id(value: object) -> object:
    return value if value is None or type(value) in (UUID, str) else str(value)


def _key(run_id: str) -> Any:
    try:
        return UUID(run_id).int
    except ValueError:
        return run_id


def _counts(usage: Mapping[str, Any]) -> Mapping[str, Any]:
    """Usage as JSON can hold it: what is no whole number goes as text, since NaN would become nothing, which nobody reported."""
    for value in usage.values():
        if type(value) is not int and (type(value) is not dict or not _WHOLE.issuperset(map(type, value.values()))):
            return {name: _count(value) for name, value in usage.items()}
    return usage


def _count(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _count(inner) for name, inner in value.items()}
    if hasattr(value, "model_dump"):
        return value
    if isinstance(value, float) and value.is_integer():
        return value
    return value if isinstance(value, (bool, int)) or value is None else clean_text(value)


def _error_fields(error: ErrorFacts) -> dict[str, Any]:
    fields = {name: getattr(error, name) for name in ErrorFacts.__slots__ if name != "usage"}
    return fields if error.usage is None else {**fields, "usage": asdict(error.usage)}


def _error_from(data: Mapping[str, Any]) -> ErrorFacts:
    error = ErrorFacts.__new__(ErrorFacts)
    for name in ErrorFacts.__slots__:
        setattr(error, name, data.get(name))
    if error.usage is not None:
        usage: Mapping[str, Any] = data["usage"]
        error.usage = TokenUsage(**{**usage, "notes": tuple(usage["notes"])})
    return error
