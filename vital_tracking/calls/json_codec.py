"""Records as JSON, for the spool and back. What a later version adds is ignored by an earlier one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any, Final
from uuid import UUID

import orjson

from vital_tracking.core.context import CONTEXT_FIELDS, INTEGER_FIELDS, CallContext
from vital_tracking.core.cost import AMOUNTS, Cost
from vital_tracking.core.record import CallRecord, RunRecord
from vital_tracking.core.sanitize import clean_metadata, clean_text, money, token_count
from vital_tracking.core.usage import TokenUsage

_RECORD_FIELDS: Final = frozenset(CallRecord._fields) - {
    "hold",
    "context",
    "usage",
    "cost",
    "reported_cost",
    "created_at",
    "metadata",
    "tags",
}
_RUN_FIELDS: Final = frozenset(RunRecord._fields) - {"context", "started_at", "ended_at", "metadata"}
_USAGE_FIELDS: Final = frozenset(TokenUsage._fields) - {"units", "passes"}
_DEEPEST: Final = 6
_AS_THEY_ARE: Final = frozenset({str, int, bool})

LONGEST: Final = 32 << 10
"""Bytes of JSON past which a record is shortened."""


def id_bytes(id: str) -> bytes:  # noqa: A002 - the word of the format
    """The 16 bytes of an id of ours."""
    return bytes.fromhex(id.replace("-", ""))


def dumps(value: object) -> bytes:
    """JSON of a record's fields; what JSON cannot hold is mended as it will be for the database, or left out."""
    try:
        return orjson.dumps(value, default=_plain)
    except (TypeError, ValueError):  # a lone surrogate, a very large integer, a key that is no text, a cycle
        return orjson.dumps(mended(value), default=_plain)


def _plain(value: object) -> Any:
    """A value that JSON has no type for: amounts, ids and times as text, pydantic models as they dump themselves, else None."""
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    if isinstance(value, datetime):  # a subclass, such as pandas' or pendulum's
        return value.isoformat()
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset)):
        return sorted(str(item) for item in value)
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        try:
            return dump()
        except Exception:  # noqa: BLE001 - a user's class may raise anything; only this value is left out
            return None
    return None


def mended(value: object, depth: int = _DEEPEST) -> Any:
    """A value as JSON can hold it, its texts as the database will: clean, and not too long."""
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    if depth == 0:
        return None
    if isinstance(value, Mapping):
        return {clean_text(key) or "": mended(item, depth - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [mended(item, depth - 1) for item in value]
    if isinstance(value, orjson.Fragment):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    return mended(_plain(value), depth - 1)


def context_fields(context: CallContext) -> dict[str, Any]:
    """The fields of a context that are set."""
    return {
        name: _context_value(name, value) for name in CONTEXT_FIELDS if (value := getattr(context, name)) is not None
    }


def _context_value(name: str, value: object) -> object:
    """A value as JSON can hold it, that becomes the same column: somebody's own number stays one where a number is meant."""
    if type(value) in _AS_THEY_ARE or (type(value) is float and isfinite(value)):
        return value
    number = token_count(value) if name in INTEGER_FIELDS else None
    return clean_text(value) if number is None else number


def context_from(data: Mapping[str, Any]) -> CallContext:
    """The context that `context_fields` described."""
    return CallContext(**{name: data[name] for name in CONTEXT_FIELDS if name in data})


def pack_record(record: CallRecord, *, short: bool = False) -> bytes:
    """A call's record as JSON; `short` leaves out its metadata and tags, which say nothing of money or owners."""
    data: dict[str, Any] = {name: getattr(record, name) for name in _RECORD_FIELDS}
    data = {name: value for name, value in data.items() if value is not None}
    data["created_at"] = record.created_at
    data["context"] = context_fields(record.context)
    data["usage"] = {name: value for name in _USAGE_FIELDS if (value := getattr(record.usage, name))}
    if record.usage.units or record.usage.passes:
        data["billed_units"] = record.usage.billed_units()
    if record.reported_cost is not None:
        data["reported_cost"] = money(record.reported_cost)
    if (cost := record.cost) is not None:
        data["cost"] = {**{name: money(getattr(cost, name)) for name in AMOUNTS}, "version": cost.version}
    if short:
        data["notes"] = (*record.notes, "shortened")
    else:
        data["metadata"] = clean_metadata(record.metadata, ())
        data["tags"] = [clean_text(tag) for tag in list(record.tags)[:32]]
    return dumps(mended(data) if short else data)


def unpack_record(payload: bytes, former_skew_s: float = 0.0) -> CallRecord:
    """The record that `pack_record` packed; `former_skew_s` corrects, in seconds, a time that an earlier version has left to be
    corrected."""
    data = orjson.loads(payload)
    kept = {name: data[name] for name in _RECORD_FIELDS if name in data}
    kept["notes"] = tuple(data.get("notes", ()))
    usage = {name: value for name, value in data["usage"].items() if name in _USAGE_FIELDS}
    usage["notes"] = tuple(usage.get("notes", ()))
    created_at = datetime.fromisoformat(data["created_at"])
    if kept.get("clocked"):
        created_at += timedelta(seconds=former_skew_s)
    if "service_tier" in data:  # of an earlier version
        kept["price_facts"] = {"service_tier": data["service_tier"]}
    used, reported = TokenUsage(**usage), data.get("reported_cost")
    return CallRecord(
        **{
            **kept,
            "created_at": created_at,
            "clocked": False,
            "context": context_from(data["context"]),
            "usage": used.with_billed_units(data["billed_units"]) if "billed_units" in data else used,
            "reported_cost": None if reported is None else Decimal(reported),
            "metadata": data.get("metadata", {}),
            "tags": data.get("tags", ()),
            "cost": _cost(data["cost"]) if data.get("cost") else None,
        }
    )


def _cost(data: Mapping[str, str]) -> Cost:
    return Cost.of({name: Decimal(data[name]) for name in AMOUNTS if name in data}, data["version"])


def pack_run(run: RunRecord) -> bytes:
    """One state of a service run as JSON."""
    data: dict[str, Any] = {name: getattr(run, name) for name in _RUN_FIELDS}
    data["started_at"], data["ended_at"] = run.started_at, run.ended_at
    data["context"] = context_fields(run.context)
    data["metadata"] = clean_metadata(run.metadata, ())
    packed = dumps(data)
    return packed if len(packed) <= LONGEST else dumps(mended(data))


def unpack_run(payload: bytes) -> RunRecord:
    """The state that `pack_run` packed."""
    data = orjson.loads(payload)
    kept = {name: data[name] for name in _RUN_FIELDS if name in data}
    kept["ancestor_run_ids"] = tuple(kept.get("ancestor_run_ids", ()))
    return RunRecord(
        **{
            **kept,
            "context": context_from(data["context"]),
            "started_at": datetime.fromisoformat(data["started_at"]),
            "ended_at": datetime.fromisoformat(data["ended_at"]) if data.get("ended_at") else None,
            "metadata": data.get("metadata", {}),
        }
    )
