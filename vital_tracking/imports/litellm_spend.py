"""LiteLLM's spend log as calls: each request one row of `token_usage_logs`, priced by us, with LiteLLM's own figure beside it.

The columns are those of LiteLLM's table `LiteLLM_SpendLogs` (its schema.prisma), as its API and `COPY ... to` write them. Of
messages and responses, which it may hold, nothing is read.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import orjson

from vital_tracking.calls.row_literal import batch_of
from vital_tracking.core.context import CallContext
from vital_tracking.core.record import CallRecord, CallType
from vital_tracking.core.sanitize import class_name, clean_text, dollars, instant
from vital_tracking.core.usage import TokenUsage
from vital_tracking.delivery.costs import Costs
from vital_tracking.delivery.rows import encode_call
from vital_tracking.errors import VitalError
from vital_tracking.queries.prices import price_book
from vital_tracking.stores import Store

OWN_TAG: Final = "vital_tracking"
"""Requests with this tag are recorded by the application that made them, and left out here."""

_BATCH: Final = 1_000
_SHOWN: Final = 20
_MOST_CELL: Final = 1 << 26  # a cell of CSV may hold the messages of a request
_BOM: Final = b"\xef\xbb\xbf"


class _BadRow(ValueError):
    """A row that cannot be read; its text says what is missing."""


@dataclass(slots=True)
class SpendImported:
    """What became of the requests of a spend log: recorded now, `known` before, `own` are left out by their tag."""

    requests: int = 0
    recorded: int = 0
    known: int = 0
    own: int = 0
    unpriced: int = 0
    bad_rows: int = 0
    bad: list[tuple[int, str]] = field(default_factory=list)
    cost_usd: Decimal = Decimal(0)
    reported_usd: Decimal = Decimal(0)

    def note_bad(self, number: int, reason: str) -> None:
        """Count a request that was not recorded; the first ones are kept, by number and reason."""
        self.bad_rows += 1
        if len(self.bad) < _SHOWN:
            self.bad.append((number, reason))


def import_spend(
    store: Store,
    path: str,
    *,
    organization: str | None = None,
    ceiling_price: str = "15/75",
    dry_run: bool = False,
) -> SpendImported:
    """Record the requests of a spend log: JSON lines, a JSON array, or CSV; plain or gzip; `-` is the standard input.

    `organization` is that of requests without an organization or team of LiteLLM's; `ceiling_price` is what budgets count where
    no price is known. Each request has an id made of its `request_id` and start, so that it is recorded once, however often it is
    imported. Raises VitalError where the file cannot be read, StoreError where the database cannot answer.
    """
    costs = Costs(price_book(store), ceiling_price)
    done = SpendImported()
    rows = enumerate(_rows(path), 1)
    while batch := list(islice(rows, _BATCH)):
        encoded: list[str] = []
        numbers: dict[str, int] = {}
        for number, row in batch:
            done.requests += 1
            try:
                if row is None:
                    raise _BadRow("no json object")
                if OWN_TAG in _listed(row.get("request_tags")):
                    done.own += 1
                    continue
                record = call_of(row, organization)
            except _BadRow as bad:
                done.note_bad(number, str(bad))
                continue
            cost = costs.cost_of(record)
            encoded.append(encode_call(record, cost, costs.counted(record, cost), ()))
            numbers[record.id] = number
            done.unpriced += cost is None
            done.cost_usd += cost.total if cost is not None else 0
            done.reported_usd += record.reported_cost or 0
        if dry_run:
            done.recorded += len(encoded)
        elif encoded:
            answer = store.call("record_calls_v2", calls=batch_of(encoded))
            done.recorded += answer["inserted"]
            done.known += answer["duplicate"]
            for refused in answer["rejected"]:
                done.note_bad(
                    numbers.get(refused["id"], 0), f"refused: {refused['sqlstate']} {refused['rule'] or ''}".strip()
                )
    return done


def call_of(row: Mapping[str, Any], organization: str | None) -> CallRecord:
    """The call that a row of the spend log tells of."""
    request_id = clean_text(row.get("request_id"))
    if not request_id:
        raise _BadRow("no request_id")
    began, ended = _time(row.get("startTime")), _time(row.get("endTime"))
    if began is None:
        raise _BadRow("no startTime")
    first = _time(row.get("completionStartTime"))
    details = _object(row.get("metadata"))
    counted = _object(details.get("usage_object")) or _object(details.get("additional_usage_values"))
    of_prompt, of_answer = (_object(counted.get(f"{part}_tokens_details")) for part in ("prompt", "completion"))
    usage = TokenUsage.reported(
        input_tokens=_whole(row.get("prompt_tokens")),
        output_tokens=_whole(row.get("completion_tokens")),
        cache_read=_whole(of_prompt.get("cached_tokens") or counted.get("cache_read_input_tokens")),
        cache_write=_whole(of_prompt.get("cache_creation_tokens") or counted.get("cache_creation_input_tokens")),
        reasoning=_whole(of_answer.get("reasoning_tokens")),
        audio_input=_whole(of_prompt.get("audio_tokens")),
        audio_output=_whole(of_answer.get("audio_tokens")),
    )
    failed = row.get("status") == "failure"
    cached = str(row.get("cache_hit")).lower() == "true"
    spend = dollars(row.get("spend") if row.get("spend") != "" else None)
    provider, model = _model_of(row)
    tokens = usage is not None and usage.prompt_tokens + usage.completion_tokens > 0
    error = _object(details.get("error_information")).get("error_class")
    return CallRecord(
        id=_id_of(request_id, began),
        created_at=began,
        clocked=False,
        context=CallContext(
            organization_id=_name(row, "organization_id", "team_id") or organization,
            user_id=_name(row, "end_user", "user"),
            session_id=_name(row, "session_id"),
            agent_id=_name(row, "agent_id"),
            framework="litellm",
            message_type="chat",
        ),
        provider=provider,
        model=model,
        call_type=_kind(str(row.get("call_type") or "")),
        usage=usage if usage is not None else TokenUsage(estimated=not failed),
        notes=() if usage is not None or failed else ("usage_missing",),
        billed=tokens or not failed,
        status="error" if failed else "ok",
        error_type=class_name(error or "Error") if failed else None,
        latency_ms=(ended - began).total_seconds() * 1000 if ended is not None and ended >= began else None,
        ttft_ms=(first - began).total_seconds() * 1000
        if first is not None and ended and began <= first < ended
        else None,
        cache_hit=cached,
        # LiteLLM writes 0 where it knows no price: that is no figure of its own.
        reported_cost=spend if spend or cached else None,
        tags=[tag for tag in _listed(row.get("request_tags")) if isinstance(tag, str)],
        metadata={"litellm_request_id": request_id},
    )


def _id_of(request_id: str, began: datetime) -> str:
    """A UUIDv8 that begins with the request's time, as a UUIDv7 does; the rest is a hash of LiteLLM's id of it."""
    digest = int.from_bytes(hashlib.sha256(f"litellm\0{request_id}".encode()).digest()[:10], "big")
    high, low = digest >> 62 & 0xFFF, digest & ((1 << 62) - 1)
    number = f"{int(began.timestamp() * 1000) << 80 | 8 << 76 | high << 64 | 2 << 62 | low:032x}"
    return "-".join((number[:8], number[8:12], number[12:16], number[16:20], number[20:]))


def _model_of(row: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Provider and model. LiteLLM names the provider in a column of its own, and often before the model as well."""
    model, provider = _name(row, "model"), _name(row, "custom_llm_provider")
    if model is not None and provider is not None:
        model = model.removeprefix(f"{provider}/")
    return provider or "litellm", model


def _kind(call_type: str) -> CallType:
    if "embedding" in call_type:
        return "embedding"
    return "completion" if "text_completion" in call_type else "chat"


def _name(row: Mapping[str, Any], *columns: str) -> str | None:
    """The first of some columns that says something."""
    return next((text for column in columns if (text := clean_text(row.get(column)))), None)


def _time(value: object) -> datetime | None:
    if not isinstance(value, str) or not value:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return instant(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _whole(value: object) -> object:
    """A count, which CSV holds as text."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value or 0


def _object(value: object) -> Mapping[str, Any]:
    value = _parsed(value)
    return value if isinstance(value, Mapping) else {}


def _listed(value: object) -> list[Any]:
    value = _parsed(value)
    return value if isinstance(value, list) else []


def _parsed(value: object) -> object:
    """JSON in a cell of CSV."""
    if isinstance(value, str):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return None
    return value


def _rows(path: str) -> Iterator[Mapping[str, Any] | None]:
    """The rows of a file, whose first character says how it is written; None for one that is none."""
    try:
        with cast("BinaryIO", sys.stdin.buffer) if path == "-" else Path(path).open("rb") as raw:
            peek = getattr(raw, "peek", lambda _: b"")
            file = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if peek(2)[:2] == b"\x1f\x8b" else raw
            first = file.readline()
            beginning = first.removeprefix(_BOM).lstrip()
            if beginning.startswith(b"["):
                found = orjson.loads(beginning + file.read())
                yield from (row if isinstance(row, dict) else None for row in found)
            elif beginning.startswith(b"{"):
                for line in _with(beginning, file):
                    if line.strip():
                        yield _json_row(line)
            elif beginning:
                csv.field_size_limit(_MOST_CELL)
                yield from csv.DictReader(line.decode("utf-8", "replace") for line in _with(beginning, file))
    except orjson.JSONDecodeError:
        raise VitalError(
            f"{path} is no JSON: a spend log is JSON lines, a JSON array, or CSV with a line of names."
        ) from None
    except (OSError, EOFError, csv.Error) as error:
        raise VitalError(
            f"{path} cannot be read ({getattr(error, 'strerror', None) or type(error).__name__})."
        ) from None


def _with(first: bytes, rest: BinaryIO) -> Iterator[bytes]:
    yield first
    yield from rest


def _json_row(line: bytes) -> Mapping[str, Any] | None:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None
