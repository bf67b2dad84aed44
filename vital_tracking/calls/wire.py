"""A call as lines of JSON in the spool. They are packed in the caller's thread, so every microsecond counts.

A call that has begun is two lines: what it shares with the other calls of its scope, and what is known at its start. One that has
ended has a third line, of what became of it. The first line is made once for all calls that share it, and is parsed once when
they are read. A line of JSON has no line break in it. It holds no text of a prompt or an answer, and of metadata only what may be
stored. What a later version adds at a line's end is ignored by an earlier one, and what it leaves out is taken as not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import orjson
import uuid_utils

from vital_tracking.calls.error_facts import ErrorFacts
from vital_tracking.calls.json_codec import context_fields, context_from, dumps, mended
from vital_tracking.calls.live import LiveCall
from vital_tracking.calls.metadata_keys import MetadataKeys, remember
from vital_tracking.calls.observed import ObservedCall, SharedFacts
from vital_tracking.calls.quirks import WORDS
from vital_tracking.core.context import CallContext
from vital_tracking.core.sanitize import clean_metadata, clean_text, fields_of, token_count

_LONG: Final = 1024  # bytes of a start past which there may be a text in it that has to be cut
_MOST_ENTRIES: Final = 64
_WHOLE: Final = frozenset({int, type(None)})

# The facts of a start and of an end, in their order on the line; the values of the call's metadata follow those of a start.
_FIRST: Final = ObservedCall._fields.index("call_type")
_MIDDLE: Final = ObservedCall._fields.index("status")
START_FACTS: Final = ("started", "skew_s", *ObservedCall._fields[_FIRST:_MIDDLE])
END_FACTS: Final = ObservedCall._fields[_MIDDLE:]
_UNKNOWN: Final = ObservedCall._field_defaults
_LEFT_OUT_WHEN_SHORT: Final = frozenset({"tags", "request_hash", "prefix_hashes", "hashed_bytes"})

_MOSTLY: Final = tuple(_UNKNOWN[name] for name in END_FACTS)  # the facts of an end that are left out say this
USUAL_END: Final = END_FACTS.index("estimate")
"""So many facts are on the line of an end of which there is nothing unusual to say."""

_USAGE, _TOKEN_USAGE, _ERROR, _NOTES = map(END_FACTS.index, ("usage", "token_usage", "error", "notes"))

# First lines that were written, by the identity of the context and the keys, with the context and the scope's metadata.
_written: dict[tuple[int, MetadataKeys], tuple[CallContext, Mapping[str, Any], bytes]] = {}
# First lines that were read.
_read: dict[bytes, SharedFacts] = {}


def pack_start(call: LiveCall, run_id: object = None) -> bytes:
    """A call that begins; `run_id` is its run's id where that is at hand."""
    context = call.context or call.attribute()
    facts = call.start_facts(run_id, call.metadata_values())
    packed = dumps(facts)
    if len(packed) > _LONG:
        packed = dumps(mended(facts))
    return b"%b\n%b" % (_shared_line(context, call.scope_metadata, call.keys), packed)  # type: ignore[arg-type]


def pack_call(call: LiveCall, *, short: bool = False) -> bytes:
    """A call that has ended; `short` leaves out what says nothing of money or owners."""
    start = call.packed_start or pack_start(call)
    facts = call.end_facts()
    usage, token_usage, error = call.usage, call.token_usage, call.error
    if error is not None or not (_are_counts(usage) and _are_counts(token_usage)):
        kept = list(facts)
        kept[_USAGE], kept[_TOKEN_USAGE] = _counts(usage), _counts(token_usage)
        if error is not None:
            kept[_ERROR] = _error_fields(error)
        facts = tuple(kept)
    if short:
        end: Any = mended((*facts, *_MOSTLY[len(facts) :]))
        end[_NOTES] = [*end[_NOTES], "shortened"]
        start, facts = _shortened(start), end
    return b"%b\n%b" % (start, dumps(facts))


def unpack_call(key: bytes, payload: bytes, former_skew_s: float = 0.0) -> ObservedCall:
    """The call that was packed at its start or at its end; `key` is its id as 16 bytes.

    A call of which only the start was packed counts as abandoned. `former_skew_s` corrects, in seconds, a time that an earlier
    version has left to be corrected.
    """
    lines = payload.split(b"\n")
    first, second, *third = lines if len(lines) > 1 else _lines_of_document(payload)
    shared = _read.get(first)
    if shared is None:
        shared = remember(_read, first, shared_from(orjson.loads(first)))
    facts = orjson.loads(second)
    names = shared.names
    if len(facts) - len(names) == len(START_FACTS):
        started, known_skew_s, *start = facts[: len(START_FACTS)]
        values = facts[len(START_FACTS) :]
    else:  # another version's
        cut = len(facts) - len(names)
        known = {**dict.fromkeys(START_FACTS), **_UNKNOWN, **dict(zip(START_FACTS, facts[:cut], strict=False))}
        started, known_skew_s, *start = (known[name] for name in START_FACTS)
        values = facts[cut:]
    moment = started + (former_skew_s if known_skew_s is None else known_skew_s)
    id = str(uuid_utils.UUID(bytes=key))  # noqa: A001 - the field's name
    if not third:
        return ObservedCall(id, shared, values, moment, *start)
    end = orjson.loads(third[0])
    if len(end) != len(END_FACTS):
        end = [*end, *_MOSTLY[len(end) :]][: len(END_FACTS)]
    if end[_ERROR] is not None:
        end[_ERROR] = _error_from(end[_ERROR])
    return ObservedCall(id, shared, values, moment, *start, *end)


def _lines_of_document(payload: bytes) -> list[bytes]:
    """The lines of a call that an earlier version left in the spool: one document that says the same."""
    document = orjson.loads(payload)
    shared = document.get("opening", document)
    start = shared.pop("values")
    return [orjson.dumps(part) for part in (shared, start, document.get("end")) if part is not None]


def _shared_line(context: CallContext, scope: Mapping[str, Any], keys: MetadataKeys) -> bytes:
    """The first line: to whom the call belongs, what its scope adds, and the names of its metadata."""
    key = (id(context), keys)
    known = _written.get(key)
    if known is not None and known[0] is context and known[1] is scope:
        return known[2]
    line = b'{"context":%b,"scope":%b,"keys":%b}' % (
        dumps(mended(context_fields(context))),
        dumps(mended(clean_metadata(scope, ()))),
        keys.json,
    )
    remember(_written, key, (context, scope, line))
    return line


def shared_from(data: Mapping[str, Any]) -> SharedFacts:
    """What the first line of a call says, parsed."""
    keys = data["keys"]
    return SharedFacts(
        context_from(data["context"]), data["scope"], keys["kept"], frozenset(keys["allowed"]), keys["unknown"]
    )


def _shortened(start: bytes) -> bytes:
    first, second = start.split(b"\n")
    data, facts = mended(orjson.loads(first)), mended(orjson.loads(second))
    data["scope"] = {}
    data["keys"] = {"kept": [], "allowed": [], "unknown": []}  # to whom it belongs is in the context
    named = [None if name in _LEFT_OUT_WHEN_SHORT else fact for name, fact in zip(START_FACTS, facts, strict=False)]
    return b"%b\n%b" % (orjson.dumps(data), orjson.dumps(named))


def _are_counts(usage: Mapping[str, Any] | None) -> bool:
    """Whether there is nothing but whole numbers in it, as providers report them."""
    if usage is None:
        return True
    values = usage.values()
    if _WHOLE.issuperset(map(type, values)):
        return True
    for value in values:
        if type(value) is dict:
            if not _WHOLE.issuperset(map(type, value.values())):
                return False
        elif type(value) not in _WHOLE:
            return False
    return True


def _counts(usage: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    return None if usage is None else {name: _count(value, name) for name, value in usage.items()}


def _count(value: object, name: object = None) -> object:
    """A count as JSON can hold it. NaN becomes text, since null would mean that nothing was reported.

    Of texts only the words are kept that say which price holds, such as a tier.
    """
    if isinstance(value, Mapping):
        return {inner: _count(part, inner) for inner, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_count(part) for part in value[:_MOST_ENTRIES]]
    if isinstance(value, str) and name in WORDS:
        return clean_text(value)
    if hasattr(value, "model_dump"):
        return _count(fields_of(value))
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float, Decimal)):
        whole = token_count(value)
        if whole is None:
            return str(value)
        return (
            whole if isinstance(value, int) else float(whole)
        )  # a cache says that it answered by a cost of 0, not 0.0
    return "no count"


def _error_fields(error: ErrorFacts) -> dict[str, Any]:
    return {**{name: getattr(error, name) for name in ErrorFacts.__slots__}, "usage": _counts(error.usage)}


def _error_from(data: Mapping[str, Any]) -> ErrorFacts:
    error = ErrorFacts.__new__(ErrorFacts)
    for name in ErrorFacts.__slots__:
        setattr(error, name, data.get(name))
    return error
