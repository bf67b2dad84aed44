"""A call as JSON: packed in the caller's thread, so every microsecond counts; unpacked on the writer's, or in another process.

What was known at the start is packed once and goes into both frames of a call, its beginning and its end: each can stand alone.
What many calls share (to whom they belong, the names of their metadata) is packed once and copied. No text of a prompt or an
answer is in there, and of metadata only what may be stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import orjson
import uuid_utils

from vital_tracking.calls.json_codec import context_fields, context_from, dumps, mended
from vital_tracking.calls.metadata_keys import OWNER_KEYS, MetadataKeys, remember, shape_of
from vital_tracking.calls.resolve import HASHED_AS_THEY_ARE, call_context, project_of, run_id_of
from vital_tracking.calls.usage_of import ErrorFacts, provider_of, requested_model_of
from vital_tracking.core.admission import Admission
from vital_tracking.core.context import METADATA_KEY, CallContext
from vital_tracking.core.sanitize import clean_metadata, clean_text, token_count
from vital_tracking.core.usage import TokenUsage

if TYPE_CHECKING:
    from vital_tracking.calls.live import LiveCall

_LONG: Final = 1024
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})
_WHOLE: Final = frozenset({int, type(None)})
_NOT_ASKED: Final = (None, None, None)

# In this order they stand in an opening's list of values, before those of its metadata; an end's in that of `_END`.
_OPENING: Final = (
    "started",
    "skew_s",
    "type",
    "run",
    "parent",
    "root",
    "tool",
    "trace",
    "project",
    "provider",
    "model",
    "size",
    "batch",
    "attempt",
    "hash",
    "tags",
    "action",
    "throttled_ms",
    "requested_model",
)
_END: Final = (
    "status",
    "ms",
    "ttft",
    "message",
    "response",
    "usage",
    "token_usage",
    "estimate",
    "error",
    "inner",
    "batch_reported",
    "replaces",
    "notes",
    "action",
)


# What calls of one context and shape have in common, as JSON, by the context's identity and the shape; with the context and the
# metadata of its scope.
_heads: dict[tuple[int, MetadataKeys], tuple[CallContext, Mapping[str, Any], bytes]] = {}

_unpacked: dict[tuple[tuple[str, Any], ...], CallContext] = {}


def pack_opening(call: LiveCall, run_id: object = None) -> bytes:
    """What is known of a call at its start; `run_id` is its run's id where that is at hand."""
    context = call.context
    if context is None:
        context = call.context = call_context(call)
    metadata, tree, run, admission, parent = call.metadata, call.tree, call.run, call.admission, call.parent_run_id
    shape = call.shape or shape_of(call.allowed, metadata)
    values = (
        call.started,
        call.skew_s,
        call.call_type,
        run_id if type(run_id) is UUID else run_id_of(call),
        parent if parent is None or type(parent) is UUID else str(parent),
        None if run is None else _id(run.root),
        None if run is None else run.tool,
        None if tree is None else _id(tree[0]),
        project_of(call),
        provider_of(metadata, call.params, call.serialized),
        requested_model_of(metadata, call.params),
        call.prompt_size(),
        call.batch_size,
        call.attempt,
        call.hash,
        call.tags and [tag for tag in call.tags[:32] if isinstance(tag, str)],
        *(_NOT_ASKED if admission is None else (admission.action, admission.throttled_ms, admission.requested_model)),
        *_stored(shape, metadata),
    )
    packed = dumps(values)
    if len(packed) > _LONG:  # perhaps there is a text among them that will be cut
        packed = dumps(mended(values))
    return b"%b%b}" % (_head(context, call.scope_metadata, shape), packed)


def pack_call(call: LiveCall, *, short: bool = False) -> bytes:
    """A call that has ended; `short` leaves out what says nothing of money or to whom it belongs."""
    opening = call.opening or pack_opening(call)
    ended = call.ended if call.ended is not None else call.touched
    message_id = call.message_id
    usage, error, first_token, notes = call.usage, call.error, call.first_token, call.notes
    if usage is not None and not _are_counts(usage):
        usage = {name: _count(value) for name, value in usage.items()}
    token_usage = call.token_usage
    if token_usage is not None and not _are_counts(token_usage):
        token_usage = {name: _count(value) for name, value in token_usage.items()}
    end = (
        call.status,
        (ended - call.started_clock) * 1000,
        None if first_token is None else (first_token - call.started_clock) * 1000,
        message_id if isinstance(message_id, str) and message_id.startswith("lc_run--") else None,
        call.response,
        usage,
        token_usage,
        call.estimate,
        None if error is None else _error_fields(error),
        call.inner,
        call.batch_reported,
        call.replaces_abandoned,
        (*notes, "shortened") if short else notes,
        call.admission.action if call.status == "blocked" and call.admission is not None else None,
    )
    if short:
        opening, packed_end = _shortened(opening), dumps(mended(end))
    else:
        packed_end = dumps(end)
    return b'{"opening":%b,"end":%b}' % (opening, packed_end)


def unpack_call(key: bytes, payload: bytes, skew_s: float) -> LiveCall:
    """The call that was packed at its end."""
    data = orjson.loads(payload)
    call = _opened(key, data["opening"], skew_s)
    end: dict[str, Any] = {**dict.fromkeys(_END), **dict(zip(_END, data["end"], strict=False))}
    call.status = end["status"]
    call.ended = end["ms"] / 1000
    call.first_token = None if end["ttft"] is None else end["ttft"] / 1000
    call.message_id = end["message"]
    call.response = end["response"] or {}
    call.usage = end["usage"]
    call.token_usage = end["token_usage"]
    call.estimate = tuple(end["estimate"]) if end["estimate"] else None
    call.error = _error_from(end["error"]) if end["error"] else None
    call.inner = end["inner"]
    call.batch_reported = end["batch_reported"]
    call.replaces_abandoned = end["replaces"]
    call.notes = tuple(end["notes"])
    if end["action"]:
        call.admission = Admission(action=end["action"])
    return call


def unpack_opening(key: bytes, payload: bytes, skew_s: float) -> LiveCall:
    """A call of which nothing is known but its start: its process has died."""
    call = _opened(key, orjson.loads(payload), skew_s)
    call.lost = True
    call.status = "abandoned"
    call.ended = 0.0
    call.estimate = (call.size or 0, 0)
    return call


def _opened(key: bytes, data: Mapping[str, Any], skew_s: float) -> LiveCall:
    from vital_tracking.calls.live import LiveCall, Run

    values = data["values"]
    kept = data["keys"]["kept"]
    named = len(values) - len(kept)  # another version's may be fewer or more
    start: dict[str, Any] = {**dict.fromkeys(_OPENING), **dict(zip(_OPENING, values[:named], strict=False))}
    metadata = dict(zip(kept, values[named:], strict=True))
    metadata |= {"ls_provider": start["provider"], "ls_model_name": start["model"]}
    run_id = start["run"]  # its own text: nobody looks an unpacked call up by its number
    call = LiveCall(run_id, start["type"], None, None, start["parent"], start["tags"], metadata, None, start["batch"])
    call.id = uuid_utils.UUID(bytes=key)
    call.started = start["started"] + (skew_s if start["skew_s"] is None else start["skew_s"])
    call.clocked = False
    call.started_clock = call.touched = 0.0
    call.allowed = frozenset(data["keys"]["allowed"])
    call.unknown_keys = data["keys"]["unknown"]
    call.tree = (start["trace"], start["project"] or "")
    if start["root"] is not None:
        call.run = Run(start["root"], start["tool"])
    call.attempt, call.hash, call.size = start["attempt"], start["hash"], start["size"]
    if start["action"] or start["throttled_ms"] or start["requested_model"]:
        call.admission = Admission(None, start["action"], start["throttled_ms"], None, start["requested_model"])
    call.scope = data["scope"]
    call.context = _context_of(data["context"])
    return call


def _context_of(packed: Mapping[str, Any]) -> CallContext:
    """The context that was packed: one for all calls that have the same, since the writer has more to do for each."""
    if not HASHED_AS_THEY_ARE.issuperset(map(type, packed.values())):
        return context_from(packed)
    key = tuple(packed.items())
    context = _unpacked.get(key)
    if context is None:
        context = remember(_unpacked, key, context_from(packed))
    return context


def _head(context: CallContext, scope: Mapping[str, Any], shape: MetadataKeys) -> bytes:
    """The JSON of an opening, up to its values: to whom the call belongs, and the names of its metadata."""
    key = (id(context), shape)
    known = _heads.get(key)
    if known is not None and known[0] is context and known[1] is scope:
        return known[2]
    head = b'{"context":%b,"scope":%b,"keys":%b,"values":' % (
        dumps(mended(context_fields(context))),
        dumps(mended(clean_metadata(scope, ()))),
        shape.json,
    )
    remember(_heads, key, (context, scope, head))
    return head


def _stored(shape: MetadataKeys, metadata: Mapping[str, Any]) -> tuple[Any, ...]:
    """The values of metadata that are kept, as the database will have them: flat and not too long."""
    values = shape.values(metadata)
    return values if _PLAIN.issuperset(map(type, values)) else tuple(map(_storable, shape.names, values))


def _storable(name: str, value: object) -> Any:
    if name == METADATA_KEY:
        return clean_metadata(value, ()) if isinstance(value, Mapping) else None
    if name in OWNER_KEYS or isinstance(value, str):
        return clean_text(value)
    return clean_metadata({name: value}, ()).get(name)


def _shortened(opening: bytes) -> bytes:
    data = mended(orjson.loads(opening))
    values = dict(zip(_OPENING, data["values"], strict=False))
    values |= dict.fromkeys(("tags", "hash"))
    named = zip(data["keys"]["kept"], data["values"][len(_OPENING) :], strict=False)
    kept = {name: value for name, value in named if name in OWNER_KEYS}
    data["scope"] = {}
    data["keys"] = {"kept": list(kept), "allowed": [], "unknown": []}
    data["values"] = [*values.values(), *kept.values()]
    return orjson.dumps(data)


def _id(value: object) -> object:
    return value if value is None or type(value) in (UUID, str) else str(value)


def _are_counts(usage: Mapping[str, Any]) -> bool:
    """Whether there is nothing but whole numbers in it, as providers report them."""
    for value in usage.values():
        kind = type(value)
        if kind is int or value is None:
            continue
        if kind is not dict or not _WHOLE.issuperset(map(type, value.values())):
            return False
    return True


def _count(value: object) -> object:
    """A count as JSON can hold it: NaN would become nothing, which nobody reported; and a text may be somebody's."""
    if isinstance(value, Mapping):
        return {name: _count(inner) for name, inner in value.items()}
    if (dump := getattr(value, "model_dump", None)) is not None:
        return _count(dump())
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float, Decimal)):
        whole = token_count(value)
        return str(value) if whole is None else whole
    return "no count"


def _error_fields(error: ErrorFacts) -> dict[str, Any]:
    fields = {name: getattr(error, name) for name in ErrorFacts.__slots__ if name != "usage"}
    return fields if error.usage is None else {**fields, "usage": asdict(error.usage)}


def _error_from(data: Mapping[str, Any]) -> ErrorFacts:
    error = ErrorFacts.__new__(ErrorFacts)
    for name in ErrorFacts.__slots__:
        setattr(error, name, data.get(name))
    if error.usage is not None:
        usage: Mapping[str, Any] = data["usage"]
        known = {f.name: usage[f.name] for f in fields(TokenUsage) if f.name in usage}
        error.usage = TokenUsage(**{**known, "notes": tuple(usage.get("notes", ()))})
    return error
