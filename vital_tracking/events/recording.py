"""Records what is not a call to a model: events, other costs, executions of agents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeVar

from uuid_utils import uuid7

from vital_tracking.calls.json_codec import dumps
from vital_tracking.core.addresses import address_hash
from vital_tracking.core.context import Agent, CallContext
from vital_tracking.core.event_properties import ALLOWED_PROPERTIES, kept_properties, without_query
from vital_tracking.core.frames import current_frame, locate, resolve
from vital_tracking.core.platform import CATEGORIES, COST_TYPES, Category, CostType
from vital_tracking.core.sanitize import class_name, clean_metadata, clean_text, finite, instant, money, token_count
from vital_tracking.core.sanitize import duration_ms as duration_ms_of
from vital_tracking.delivery import Recorder
from vital_tracking.delivery.platform_record import PlatformRecord
from vital_tracking.spool.log_record import RecordKind

_MOST: Final = Decimal(10) ** 15  # of a quantity or an amount: beyond that it is a mistake
_MOST_DIGITS: Final = 30

_Value = TypeVar("_Value")


class PlatformRecorder:
    """What a tracker offers for what is not a call to a model. Its methods never wait and never raise for what they are given.

    `default` is the context outside of scopes; `around` gives the metadata of the LangChain run around this code; `properties`
    are further names of events' properties that may be stored; `hash_key` keys the hash of addresses, None: none is kept.
    """

    def __init__(
        self,
        recorder: Recorder,
        default: CallContext,
        around: Callable[[], Mapping[str, Any]],
        *,
        properties: frozenset[str] = frozenset(),
        hash_key: bytes | None = None,
    ) -> None:
        self._recorder = recorder
        self._default = default
        self._around = around
        self._allowed = ALLOWED_PROPERTIES | properties
        self._hash_key = hash_key

    def track_event(
        self,
        event_name: str,
        *,
        category: Category = "user_behavior",
        value: Decimal | float | None = None,
        source: str | None = None,
        ip_address: str | None = None,
        properties: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        organization_id: str | None = None,
        occurred_at: datetime | None = None,
    ) -> str:
        """Record that something happened on the platform, and return the event's id.

        `event_name` is the platform's own word (`page_view`, `report_opened`); `category` is `user_behavior`, `system_health` or
        `business`; business events named `revenue` count US dollars in `value`. `value` is any number that belongs to it,
        `source` where it came from. Of `ip_address` only a keyed hash is kept, and nothing where `VITAL_HASH_KEY` is not set.
        `properties` are small: names that are allow-listed (`VITAL_EVENT_PROPERTIES` adds some), no texts that somebody wrote.
        `user_id`, `session_id` and `organization_id` are those of the scope that is open, unless they are given. `occurred_at`
        is now by default.
        """

        def fill(row: _Row) -> None:
            given, left_out = kept_properties(row.mapping("properties", properties), self._allowed)
            row.notes += left_out
            row.owned_by(
                self._context(user_id=user_id, session_id=session_id, organization_id=organization_id),
                "organization_id",
                "user_id",
                "session_id",
            )
            row.columns |= {
                "category": row.one_of("category", category, CATEGORIES) or "user_behavior",
                "event_name": clean_text(event_name) or "unnamed",
                "source": without_query(clean_text(source)),
                "ip_hash": address_hash(ip_address, self._hash_key),
                "value": row.number("value", value),
            }
            row.detail = given

        return self._put(RecordKind.EVENT, "occurred_at", occurred_at, "properties", fill)

    def track_cost(
        self,
        cost_type: CostType,
        *,
        quantity: Decimal | float = 1,
        unit: str | None = None,
        unit_price: Decimal | float | None = None,
        cost_usd: Decimal | float | None = None,
        service: str | None = None,
        resource: str | None = None,
        user_id: str | None = None,
        organization_id: str | None = None,
        occurred_at: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Record a cost that is no call to a model, and return its id.

        `cost_type` is `storage`, `bandwidth`, `compute`, `search`, `tts`, `stt` or `other`; `llm` and `embedding` are for what
        a provider bills beside the calls that are recorded anyway, such as a monthly fee. It is so much (`quantity`) of a `unit`
        (`gb_month`, `gb`, `hour`, `call`; by default the usual one of its type) of a `resource` (a bucket, a machine), and costs
        `cost_usd`, else `quantity` times `unit_price`, else what the team's prices say, as of `occurred_at`; where there is none
        it is kept without a price, and flagged. Below 0 it is a credit. `service` is what it serves, in the platform's words.
        `user_id` and `organization_id` are those of the scope that is open, unless they are given; `occurred_at` is now by
        default; `metadata` are kept with the row, small and no texts that somebody wrote, please.
        """

        def fill(row: _Row) -> None:
            row.owned_by(self._context(user_id=user_id, organization_id=organization_id), "organization_id", "user_id")
            amount = row.number("quantity", quantity)
            row.columns |= {
                "cost_type": row.one_of("cost_type", cost_type, COST_TYPES) or "other",
                "service": clean_text(service),
                "resource": clean_text(resource),
                "quantity": amount,
                # What no quantity is known of has no price of ours: it costs what was given as a whole, or nobody knows what.
                "unit": "unknown" if amount is None else clean_text(unit),
                "unit_price": None if amount is None else row.number("unit_price", unit_price),
                "cost_usd": row.number("cost_usd", cost_usd),
            }
            row.detail = row.mapping("metadata", metadata)

        return self._put(RecordKind.COST, "occurred_at", occurred_at, "metadata", fill)

    def track_agent_execution(
        self,
        agent: Agent | str,
        *,
        success: bool = True,
        error: BaseException | type[BaseException] | str | None = None,
        duration_ms: float | None = None,
        rating: Decimal | float | None = None,
        faithfulness: Decimal | float | None = None,
        answer_relevancy: Decimal | float | None = None,
        context_precision: Decimal | float | None = None,
        context_recall: Decimal | float | None = None,
        citations: int | None = None,
        total_tokens: int | None = None,
        cost_usd: Decimal | float | None = None,
        workflow_id: str | None = None,
        service_run_id: str | None = None,
        user_id: str | None = None,
        organization_id: str | None = None,
        started_at: datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> str:
        """Record one run of an `agent` as its users see it, and return the execution's id.

        `success` is whether its users got what they came for; of an `error` only the class name is kept. `rating` is a user's,
        from 1 to 5; `faithfulness`, `answer_relevancy`, `context_precision` and `context_recall` run from 0 to 1, as RAGAS
        measures them. `total_tokens` and `cost_usd` (US dollars) are what its calls came to, where that is known here; they are
        in no bill, since the calls are. `citations` is how many sources it named. `started_at` is by default `duration_ms` ago.
        `user_id`, `organization_id`, `workflow_id` and `service_run_id` are those of the scope that is open, unless they are
        given. `metadata` are kept with the row: small, and no texts that somebody wrote, please.
        """
        took = duration_ms_of(duration_ms)
        if started_at is None and took is not None:
            started_at = self._recorder.clock.now()[0] - timedelta(milliseconds=took)

        def fill(row: _Row) -> None:
            context = self._context(user_id=user_id, organization_id=organization_id)
            row.owned_by(context, "organization_id", "user_id")
            own = agent if isinstance(agent, Agent) else Agent(clean_text(agent) or "unnamed")
            row.columns |= {
                "agent_id": clean_text(own.id) or "unnamed",
                "agent_name": clean_text(own.name or own.id),
                "workflow_id": clean_text(workflow_id or context.workflow_id),
                "service_run_id": clean_text(service_run_id or context.service_run_id),
                "duration_ms": row.known("duration_ms", duration_ms, took),
                "success": bool(success) and error is None,
                "error_type": class_name(error),
                "total_tokens": row.known("total_tokens", total_tokens, token_count(total_tokens)),
                "cost_usd": row.number("cost_usd", cost_usd, low=Decimal(0)),
                "rating": row.number("rating", rating, low=Decimal(1), high=Decimal(5)),
                "faithfulness": row.number("faithfulness", faithfulness, low=Decimal(0), high=Decimal(1)),
                "answer_relevancy": row.number("answer_relevancy", answer_relevancy, low=Decimal(0), high=Decimal(1)),
                "context_precision": row.number(
                    "context_precision", context_precision, low=Decimal(0), high=Decimal(1)
                ),
                "context_recall": row.number("context_recall", context_recall, low=Decimal(0), high=Decimal(1)),
                "citations": row.known("citations", citations, token_count(citations)),
            }
            row.detail = row.mapping("metadata", metadata)

        return self._put(RecordKind.EXECUTION, "started_at", started_at, "metadata", fill)

    def _context(self, **changes: Any) -> CallContext:
        around = self._around()
        frame, marked = locate(current_frame.get(), around)
        return resolve(self._default, frame, marked, around).replace(changes)

    def _put(
        self, kind: RecordKind, time_column: str, moment: datetime | None, detail: str, fill: Callable[[_Row], None]
    ) -> str:
        """Fill a row and hand it to delivery. Its id and time are settled here, for good."""
        key = uuid7()
        row = _Row()
        try:
            fill(row)
            occurred = row.known(time_column, moment, instant(moment)) or self._recorder.clock.now()[0]
            columns = {name: value for name, value in row.columns.items() if value is not None}
            columns |= {"id": str(key), time_column: occurred, detail: clean_metadata(row.detail, row.notes)}
            self._recorder.put(PlatformRecord(kind, key.bytes, dumps(columns)))
        except Exception as fault:  # noqa: BLE001 - recording must not break what it records
            self._recorder.fault(fault)
        return str(key)


class _Row:
    """The columns of a row, its small details, and notes on what could not be taken as it was given."""

    def __init__(self) -> None:
        self.columns: dict[str, Any] = {}
        self.detail: Mapping[str, Any] = {}
        self.notes: list[str] = []

    def owned_by(self, context: CallContext, *names: str) -> None:
        """Whose it is."""
        self.columns |= {name: clean_text(getattr(context, name)) for name in names}

    def known(self, name: str, given: object, taken: _Value | None) -> _Value | None:
        """What was taken of a value; a note where it was given, and is none that a row can have."""
        if taken is None and given is not None:
            self.notes.append(f"invalid_{name}")
        return taken

    def number(self, name: str, given: object, *, low: Decimal = -_MOST, high: Decimal = _MOST) -> str | None:
        """A number as PostgreSQL's numeric reads it, all its digits; None where it is none between `low` and `high`."""
        return self.known(name, given, _number(given, low, high))

    def one_of(self, name: str, given: object, words: tuple[str, ...]) -> str | None:
        """One of some words."""
        return self.known(name, given, given if isinstance(given, str) and given in words else None)

    def mapping(self, name: str, given: object) -> Mapping[str, Any]:
        """A mapping; empty where it is none."""
        return self.known(name, given, {**given} if isinstance(given, Mapping) else None) or {}


def _number(value: object, low: Decimal, high: Decimal) -> str | None:
    number = finite(value)
    if number is None or not low <= number <= high:
        return None
    _, digits, exponent = number.as_tuple()
    return money(number) if len(digits) <= _MOST_DIGITS and int(exponent) >= -_MOST_DIGITS else None
