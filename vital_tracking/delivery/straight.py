"""The straight way from a log record to a row, for calls of which nothing unusual has to be said.

What calls of a scope share is cleaned and encoded once and put into each row as it is; what calls of a model share likewise;
prices are whole numbers (`core.price_spans`). What is not known to be usual goes the long way by `encoding.decoded`, `PriceBook`
and `rows`, which say what a row is. A row that goes straight is the same, to the last digit.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from decimal import Decimal
from math import modf
from typing import Any, Final, NamedTuple

import orjson
import uuid_utils

from vital_tracking.calls.metadata_keys import remember
from vital_tracking.calls.names_of import first_text
from vital_tracking.calls.quirks import ENDS_WITH_REASON
from vital_tracking.calls.resolve import kept_metadata, other_than, own_tags, reason_of
from vital_tracking.calls.row_literal import list_field, number_field, text_field
from vital_tracking.calls.usual_usage import Facts, UsualUsage, is_usual, usual_facts, usual_usage
from vital_tracking.calls.wire import END_FACTS, START_FACTS, USUAL_END, shared_from
from vital_tracking.core.context import CONTEXT_FIELDS, CallContext
from vital_tracking.core.draws import Draw, texts_of
from vital_tracking.core.price_spans import PriceSpan, PriceSpans
from vital_tracking.core.providers import provider_id
from vital_tracking.core.record import Used
from vital_tracking.core.sanitize import LATEST, MAX_TEXT, clean_metadata, clean_text, duration_ms
from vital_tracking.core.usage import NO_UNITS, TokenUsage
from vital_tracking.delivery.rows import context_columns, row_tags
from vital_tracking.spool.log_record import LogRecord

_MOST_SCOPES: Final = 256
_STARTS: Final = len(START_FACTS)
_ENDS: Final = len(END_FACTS)
_LONGEST_MS: Final = 1e11  # below which Python writes all digits that there are after three places
_LATEST_S: Final = LATEST.timestamp() - 1


class _Scope:
    """What calls share whose first lines are the same: the fields of their context; the last call's metadata and tags."""

    __slots__ = ("_metadata", "_metadata_of", "_tags", "_tags_of", "fields", "shared", "usual")

    def __init__(self, first: bytes) -> None:
        self.shared = shared_from(orjson.loads(first))
        columns, notes = context_columns(self.shared.context)
        self.fields = ",".join([_field(columns.get(name)) for name in CONTEXT_FIELDS])
        self.usual = not notes
        self._metadata_of = b""
        self._metadata = ""
        self._tags_of: object = None
        self._tags = ""

    def metadata(
        self, values: list[Any], attempt: int | None, tool: str | None, reason: str | None, facts: Facts
    ) -> str:
        """The field `metadata`; empty where there is nothing to say."""
        asked = orjson.dumps((values, attempt, tool, reason, facts))  # of which 1 and 1.0 are not the same
        if asked == self._metadata_of:
            return self._metadata
        kept = kept_metadata(self.shared, values, attempt=attempt, batch_size=1, tool=tool, reason=reason)
        if self.shared.unknown_keys:
            kept["unknown_keys"] = self.shared.unknown_keys
        found = text_field(orjson.dumps(clean_metadata(kept, (), dict(facts))).decode()) if kept or facts else ""
        self._metadata_of, self._metadata = asked, found
        return found

    def tags(self, tags: list[Any]) -> str:
        """The field `tags`; empty where there is none of the call's own."""
        if tags != self._tags_of:
            own = row_tags(own_tags(tags))
            self._tags_of, self._tags = tags, list_field(own) if own else ""
        return self._tags


class _Model:
    """What calls share that were sent to one model and answered by one: these fields, and the prices."""

    __slots__ = ("action", "facts", "fields", "models", "project", "provider", "span", "version")

    def __init__(
        self,
        call_type: str,
        provider: str | None,
        sent: str | None,
        dearer: str | None,
        facts: Facts,
        answered: tuple[Any, ...],
        project: str | None,
        action: str | None,
    ) -> None:
        model = first_text(*answered) or sent
        other = other_than(model, sent)
        asked = other if dearer is None else other_than(model, dearer)
        self.fields = ",".join(map(_text, (provider, model, asked, other, call_type, "ok")))
        self.project = _text(project)
        self.action = _text(action)
        self.provider = provider
        self.models = tuple(name for name in (model, other) if name)
        self.facts = facts
        self.span: PriceSpan | None = None
        self.version = ""


class StraightCall(NamedTuple):
    """A call on the straight way: whose it is, what it used and cost, and its row but for what it draws on grants.

    Of its `used` tokens see UsualUsage; `total` is what it cost in US dollars.
    """

    id: str
    context: CallContext
    used: UsualUsage
    total: Decimal
    fields: str

    def used_by_budgets(self) -> Used:
        """What it used, as budgets look at it."""
        prompt, cache_read, completion, reasoning = self.used
        fields = (prompt, completion, cache_read, 0, 0, reasoning, 0, 0, NO_UNITS, (), False, ())
        return tuple.__new__(Used, (tuple.__new__(TokenUsage, fields), True, True))

    def encoded(self, draws: Collection[Draw]) -> str:
        """The literal of its row, with what it draws on its process's grants."""
        windows, amounts = texts_of(draws)
        if not windows:
            return f'{self.fields},,)"'
        if "," in windows:
            return f'{self.fields}\\"{{{windows}}}\\",\\"{{{amounts}}}\\",)"'
        return f'{self.fields}{{{windows}}},{{{amounts}}},)"'


class StraightWay:
    """Makes the rows of usual calls. For one thread."""

    def __init__(self, spans: PriceSpans) -> None:
        self._spans = spans
        self._scopes: dict[bytes, _Scope] = {}
        self._models: dict[tuple[Any, ...], _Model] = {}
        self._scope: _Scope | None = None  # of the last call
        self._first = b""  # its line, with the end
        self._second, self._as_text = -1, ""  # the last one

    def renew(self) -> None:
        """Take other prices where there are any; to be called before the calls of a batch."""
        if self._spans.renew():
            for model in self._models.values():
                model.span = None

    def call(self, record: LogRecord) -> StraightCall | None:
        """The call that a log record of the kind CALL holds; None where it has to go the long way."""
        payload, scope, first = record.payload, self._scope, b""
        if scope is not None and payload.startswith(self._first):  # as most do: the scope of the call before
            lines = payload[len(self._first) :].split(b"\n")
        else:
            scope = None
            first, *lines = payload.split(b"\n")
        if len(lines) != 2:
            return None
        second, third = lines
        end = orjson.loads(third)
        if len(end) == USUAL_END:
            status, duration, ttft, _message_id, response, usage, token_usage = end
            first_word = unusual = None
        elif len(end) == _ENDS:
            (
                status,
                duration,
                ttft,
                _message_id,
                response,
                usage,
                token_usage,
                _estimate,
                error,
                answered_inside,
                _batch_reported,
                replaces_abandoned,
                notes,
                stopped_by,
                first_word,
                hidden,
                blocked_by,
            ) = end
            unusual = error or answered_inside or replaces_abandoned or notes or stopped_by or hidden or blocked_by
        else:
            return None
        if status != "ok" or unusual:
            return None
        used, facts = usual_usage(usage, token_usage), usual_facts(response, token_usage)
        if used is None or facts is None:
            return None
        if scope is None:
            scope = self._scopes.get(first)
            if scope is None:
                if len(self._scopes) >= _MOST_SCOPES:  # calls of a scope are near each other
                    self._scopes.clear()
                scope = self._scopes[first] = _Scope(first)
            self._first, self._scope = first + b"\n", scope
        start = orjson.loads(second)
        values = start[_STARTS:]
        if not scope.usual or len(values) != len(scope.shared.names):
            return None
        (
            started,
            skew_s,
            call_type,
            run_id,
            parent_run_id,
            root_run_id,
            tool,
            trace_id,
            project,
            provider,
            sent,
            _prompt_bytes,
            batch_size,
            attempt,
            request_hash,
            tags,
            budget_action,
            throttled_ms,
            dearer,
            prefix_hashes,
            hashed_bytes,
        ) = start[:_STARTS]
        if batch_size != 1 or type(run_id) is not str or not is_usual(provider):
            return None
        reason = reason_of(response)
        if ttft is not None and reason is None and provider_id(provider) in ENDS_WITH_REASON:
            return None
        started += record.former_skew_s if skew_s is None else skew_s
        if not 0 <= started < _LATEST_S:
            return None
        moment, created_at = self._moment(started)
        answered = (response.get("model_name"), response.get("model"), response.get("model_id"))
        names = (call_type, provider, sent, dearer, facts, answered, project, budget_action)
        model = self._models.get(names)
        if model is None:
            model = remember(self._models, names, _Model(*names))
        span = model.span
        if span is None or not span.since <= moment < span.until:
            span = model.span = self._spans.at(model.provider, model.models, model.facts, moment)
            model.version = _text(span.version)
        cost = span.cost(*used)
        if cost is None:
            return None
        paid, earned, total, potential = cost
        prompt, read, completion, thought = used
        id = str(uuid_utils.UUID(bytes=record.id))  # noqa: A001 - the column's name
        # The fields in the order of CALL_COLUMNS, up to those of the draws.
        fields = (
            f'"({id},{created_at},{scope.fields},{model.fields},'
            f"{_ids(run_id, parent_run_id or None, trace_id or root_run_id or parent_run_id or run_id)},{model.project},"
            f"{prompt},{completion},{prompt + completion},{read or ''},,,{thought or ''},,,,"
            f"t,{paid},{earned},0,{total},{potential},{model.version},,,"
            f"{_duration(duration)},{'' if ttft is None else _duration(ttft)},"
            f"{'' if first_word is None else _duration(first_word)},{'' if throttled_ms is None else _duration(throttled_ms)},,"
            f"{'' if request_hash is None else _text(request_hash)},"
            f"{list_field(prefix_hashes) + ',' + _field(hashed_bytes) if prefix_hashes else ','},"
            f"{scope.tags(tags) if tags else ''},{scope.metadata(values, attempt, tool, reason, facts)},,,,{model.action},,"
        )
        return tuple.__new__(StraightCall, (id, scope.shared.context, used, Decimal(total), fields))

    def _moment(self, seconds: float) -> tuple[int, str]:
        """An instant in microseconds since 1970, rounded as `datetime` rounds it, and in ISO format."""
        fraction, whole = modf(seconds)
        second, microsecond = int(whole), round(fraction * 1e6)
        if microsecond == 1_000_000:
            second, microsecond = second + 1, 0
        if second != self._second:
            self._second, self._as_text = second, datetime.fromtimestamp(second, UTC).isoformat()[:19]
        text = f"{self._as_text}.{str(1_000_000 + microsecond)[1:]}+00:00" if microsecond else f"{self._as_text}+00:00"
        return second * 1_000_000 + microsecond, text


def _ids(run: str, parent: str | None, trace: str) -> str:
    """The fields of a run's, its parent's and its trace's ids."""
    every = f"{run}{parent or ''}{trace}"
    plain = run and len(every) <= MAX_TEXT and every.isascii()  # as UUIDs are
    if plain and not ("," in every or "(" in every or ")" in every or '"' in every or "\\" in every or "\0" in every):
        return f"{run},{parent or ''},{trace}"
    return f"{_text(run)},{_text(parent)},{_text(trace)}"


def _text(value: object) -> str:
    """A text, clean, as a field."""
    text = clean_text(value)
    return "" if text is None else text_field(text)


def _field(value: str | int | None) -> str:
    """What is clean already as a field."""
    return "" if value is None else text_field(value) if isinstance(value, str) else number_field(value)


def _duration(value: object) -> str:
    """Milliseconds as a field, as `duration_ms` rounds them."""
    if type(value) is float and 0 <= value < _LONGEST_MS:
        text = f"{value:.3f}".rstrip("0")
        return f"{text}0" if text[-1] == "." else text
    return "" if (duration := duration_ms(value)) is None else number_field(duration)
