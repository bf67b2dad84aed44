"""Advice that one can believe: whoever follows it on the made-up history finds the promised saving in the month after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from tests.sql.helpers import connect
from tests.support.postgres import PostgresServer
from vital_tracking.advice.change_json import change_from_json
from vital_tracking.advice.changes import Change, ExactCache, Processing, SwitchModel, Where
from vital_tracking.advice.life import renew_advice
from vital_tracking.advice.measured import measured
from vital_tracking.core.pricing import PriceBook
from vital_tracking.core.record import CallRecord
from vital_tracking.delivery.costs import Costs
from vital_tracking.demo import writing
from vital_tracking.demo.history import Day, History
from vital_tracking.queries.recommendations import SavedRecommendation, decide, saved_recommendation
from vital_tracking.stores.postgres import PostgresStore

END = datetime(2026, 11, 16, tzinfo=UTC)
MONTH = timedelta(days=32)
MONTHLY = Decimal(30) / Decimal(29)  # what is promised is for 30 days, and 29 were over when it was


@pytest.fixture
def url(postgres_server: PostgresServer, template_database: str) -> Iterator[str]:
    postgres_server.create_database("second_month", template=template_database)
    yield postgres_server.url("second_month")
    postgres_server.drop_database("second_month")


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    opened = PostgresStore(url)
    yield opened
    opened.close()


class Followed(History):
    """A history whose calls are made as recommendations say."""

    changes: Sequence[Change] = ()
    since: datetime = END

    def each_day(self, blocked_by: object = None) -> Iterator[Day]:
        """Day by day; nothing is blocked, so that what differs is the advice alone."""
        asked: dict[str, datetime] = {}
        for day in super().each_day():
            calls = [self._otherwise(call, asked) for call in day.calls if call.created_at >= self.since]
            yield Day([run for run in day.runs if run.started_at >= self.since], calls, day.platform)

    def _otherwise(self, call: CallRecord, asked: dict[str, datetime]) -> CallRecord:
        for change in self.changes:
            if not _meant(change.where, call) or call.status != "ok":
                continue
            match change:
                case SwitchModel():
                    # Its answers are a fifth longer.
                    longer = call.usage._replace(completion_tokens=call.usage.completion_tokens * 6 // 5)
                    call = call._replace(model=change.model, provider=change.provider or call.provider, usage=longer)
                case Processing():
                    call = call._replace(price_facts={"service_tier": change.way})
                case ExactCache():
                    request = call.request_hash or call.id
                    before = asked.get(request)
                    if before is not None and call.created_at - before < timedelta(hours=24):
                        call = call._replace(cache_hit=True)
                    else:
                        asked[request] = call.created_at
                case _:
                    raise AssertionError(f"nobody knows how to follow {change}")
        return call


def _meant(where: Where, call: CallRecord) -> bool:
    context = call.context
    of_call = {
        "provider": call.provider, "model": call.model, "service": context.service_type, "agent": context.agent_id,
        "tier": context.agent_tier, "workflow": context.workflow_id, "step": context.workflow_step,
    }  # fmt: skip
    waited = call.ttft_ms is not None or not (call.created_at.hour >= 22 or call.created_at.hour < 6)
    return all(of_call[name] == value for name, value in where.named.items()) and not (where.unattended and waited)


def the_first(found: Sequence[SavedRecommendation], many: int) -> list[SavedRecommendation]:
    """The first that are in the total and that a program can follow."""
    return [one for one in found if one["counted"] and one["sequential"]["expected"] > 0][:many]


def test_the_first_three_recommendations_save_what_they_promise(store: PostgresStore, url: str) -> None:
    costs = Costs(PriceBook(), "15/75")
    writing.write(store, History(END, 32), costs)
    advice = renew_advice(store, store, now=END)
    assert {"model_switch", "batch_processing", "caching"} <= {one["type"] for one in advice["recommendations"]}
    taken = the_first(advice["recommendations"], 3)
    assert len(taken) == 3
    assert len({one["type"] for one in taken}) > 1
    for one in taken:
        decide(store, one["id"], "taken")
    with connect(url) as connection:
        connection.execute(
            "update recommendations set decided_at = %s where status = 'taken'", [END - timedelta(hours=1)]
        )

    second = Followed(END + MONTH, 33)
    object.__setattr__(second, "changes", [change_from_json(told) for one in taken for told in one["changes"]])
    writing.write(store, second, costs)
    for one in taken:
        followed = saved_recommendation(store, one["id"])
        promised, found = followed["promised"], measured(store, followed, PriceBook())
        assert promised is not None
        assert found.saving is not None, found.note
        # Work grows by some percent a week: what was promised for a call is compared with what one saved. Calls differ from
        # month to month by chance, which is allowed a tenth.
        by_then = MONTHLY * one["calls"]
        assert promised["low"] / by_then * Decimal("0.9") <= found.saving / found.calls, found
        assert found.saving / found.calls <= promised["high"] / by_then * Decimal("1.1"), found
