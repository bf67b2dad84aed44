"""What a recommendation that was taken really saved: the calls of the 30 days after it, as if nothing had changed.

What is made otherwise since is repriced as it was made before: by the model of before, whose answers were as long as they were
then, one by one instead of in a batch, without the provider's cache. What was made so already in the 30 days before is taken off,
as far as there is as much of that work now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from vital_tracking.advice.change_json import change_from_json, where_from_json
from vital_tracking.advice.changes import (
    Change,
    ExactCache,
    Factors,
    LeftOut,
    Otherwise,
    Processing,
    PromptCaching,
    Prospect,
    Scenario,
    SwitchModel,
    Where,
)
from vital_tracking.advice.quality import ENOUGH
from vital_tracking.advice.recommendation import MONTH_DAYS, Kind
from vital_tracking.advice.what_if import what_if
from vital_tracking.advice.window import Model, cuts_for, used_models
from vital_tracking.core.cost import MONEY, ZERO, exact_sum
from vital_tracking.core.pricing import PriceBook
from vital_tracking.queries.call_groups import CallGroup, read_call_groups
from vital_tracking.queries.explore import ANY, Period, explore
from vital_tracking.queries.prices import price_book
from vital_tracking.queries.recommendations import (
    SavedRecommendation,
    note_saving,
    saved_recommendation,
    saved_recommendations,
)
from vital_tracking.queries.words import counted, usd
from vital_tracking.stores import Store


@dataclass(frozen=True, slots=True)
class Measured:
    """What was saved in the month, in US dollars; None: it cannot be measured. `note` says how, or why not.

    `calls` were made as advised.
    """

    saving: Decimal | None
    note: str
    calls: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Singly(Change):
    """Calls that were processed in a way of its own, such as a batch, made as all others."""

    way: str

    def apply(self, calls: Otherwise, scenario: Scenario, prospect: Prospect) -> Otherwise | LeftOut:  # noqa: ARG002
        """The same tokens at the plain price."""
        facts = {name: value for name, value in calls.facts.items() if name not in _WAYS or value != self.way}
        return calls if len(facts) == len(calls.facts) else replace(calls, facts=facts)


_WAYS: Final = ("processing", "service_tier")


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncached(Change):
    """Calls whose prompts no provider had kept."""

    def apply(self, calls: Otherwise, scenario: Scenario, prospect: Prospect) -> Otherwise | LeftOut:  # noqa: ARG002
        """All tokens of the prompt at the plain price."""
        usage = calls.usage
        if not usage.cache_read_tokens and not usage.cache_write_tokens:
            return calls
        plain = usage._replace(cache_read_tokens=0, cache_write_tokens=0, cache_write_1h_tokens=0)
        return replace(calls, usage=plain)


def undone(change: Change) -> Change | None:
    """What makes calls that follow a change what they were before it; None where nothing does."""
    match change:
        case SwitchModel(where=where, model=model, provider=provider) if where.model is not None and where.model != ANY:
            after = replace(where, provider=provider or where.provider, model=model)
            before = None if where.provider == ANY else where.provider
            return SwitchModel(where=after, model=where.model, provider=before)
        case Processing(where=where, way=way):
            return Singly(where=where, way=way)
        case PromptCaching(where=where):
            return Uncached(where=where)
        case _:
            return None


def measure_due(
    store: Store,
    writer: Store,
    *,
    organization: str | None = None,
    now: datetime | None = None,
    prices: PriceBook | None = None,
) -> list[SavedRecommendation]:
    """Measure what was taken 30 days ago with the rights of `store`, and write it down with those of `writer`."""
    moment = now or datetime.now(UTC)
    due = saved_recommendations(store, organization=organization, due=True)
    done = []
    for one in due:
        if one["measured_from"] is not None and one["measured_from"] <= moment:
            found = measured(store, one, prices or price_book(writer))
            note_saving(writer, one["id"], found.saving, note=found.note)
            done.append(saved_recommendation(store, one["id"]))
    return done


def measured(store: Store, one: SavedRecommendation, prices: PriceBook) -> Measured:
    """What a recommendation that was taken has saved. Raises StoreError."""
    if (why := _CANNOT.get(one["type"])) is not None:
        return Measured(None, why)
    after, before = _periods(one)
    if one["type"] == Kind.semantic_caching:
        return _of_caches(store, one, [where_from_json(one["evidence"])], after, before)
    changes = [change_from_json(told) for told in one["changes"]]
    caches = [change.where for change in changes if isinstance(change, ExactCache)]
    if caches:
        return _of_caches(store, one, caches, after, before)
    reverse = [None if change is None else undone(change) for change in changes]
    wanted = [change for change in reverse if change is not None]
    if not wanted or len(wanted) < len(reverse):
        return Measured(None, "What the calls would have cost without it is not known.")
    return _of_calls(store, prices, one["organization_id"], wanted, after, before)


_INVOICE: Final = "What machines cost is in their invoices, not in the calls."
_SUBSCRIBERS: Final = "What it brings is in what subscribers pay, not in the calls."
_HOURS: Final = "At which hour a call would have been made is not known."
_CANNOT: Final[Mapping[str, str]] = {
    Kind.plan_upgrade: _SUBSCRIBERS,
    Kind.plan_optimization: _SUBSCRIBERS,
    Kind.billing_model: _SUBSCRIBERS,
    Kind.resource_optimization: _INVOICE,
    Kind.auto_scaling: _INVOICE,
    Kind.job_scheduling: _HOURS,
    Kind.peak_shifting: _HOURS,
}


def _periods(one: SavedRecommendation) -> tuple[Period, Period]:
    """The 30 whole days (UTC) after it was taken, and those before."""
    if one["decided_at"] is None:
        raise ValueError("a recommendation that was not taken is not measured")
    day = one["decided_at"].astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    month = timedelta(days=MONTH_DAYS)
    after = day + timedelta(days=1)
    return Period(after, after + month), Period(day - month, day)


@dataclass(frozen=True, slots=True)
class _Window:
    """Of a window: how many calls do that work, how many were made as advised, what these saved, how many nobody can tell of."""

    calls: int
    followed: int
    saved: Decimal
    left_out: int = 0


def _of_calls(
    store: Store,
    prices: PriceBook,
    organization: str | None,
    reverse: Sequence[Change],
    after: Period,
    before: Period,
) -> Measured:
    models = [
        *used_models(store, Period(before.since, after.until), organization),
        *(Model(change.provider, change.model) for change in reverse if isinstance(change, SwitchModel)),
    ]
    cuts = {period: cuts_for(prices, models, period) for period in (after, before)}
    groups = {
        period: read_call_groups(store, period, cuts[period], organization=organization) for period in (after, before)
    }

    def of(period: Period) -> _Window:
        answering = [_answering_as_before(change, groups[before], groups[period]) for change in reverse]
        return _repriced(groups[period], answering, Prospect(prices, (period.since, *cuts[period].eras)))

    return _against(of(after), of(before), after, "repriced as they were made before")


def _answering_as_before(change: Change, before: Sequence[CallGroup], now: Sequence[CallGroup]) -> Change:
    """A switch back to a model, whose answers are as long as they were on average where enough of them are known."""
    if not isinstance(change, SwitchModel):
        return change
    then = _mean_answer(before, replace(change.where, provider=ANY, model=change.model))
    since = _mean_answer(now, change.where)
    if not then or not since:
        return change
    factor = MONEY.divide(then, since)
    return replace(change, answers=Factors(factor, factor, factor, "as before"))


def _mean_answer(groups: Sequence[CallGroup], where: Where) -> Decimal | None:
    meant = [group for group in groups if where.matches(group.key)]
    calls = sum(group.calls for group in meant)
    if calls < ENOUGH:
        return None
    return MONEY.divide(Decimal(sum(group.usage.completion_tokens for group in meant)), Decimal(calls))


def _repriced(groups: Sequence[CallGroup], reverse: Sequence[Change], prospect: Prospect) -> _Window:
    effects = what_if(groups, reverse, prospect).effects
    return _Window(
        calls=_calls_of(groups, reverse),
        followed=sum(effect.calls for effect in effects),
        saved=exact_sum(MONEY.minus(effect.saving.expected) for effect in effects),
        left_out=sum(sum(effect.left_out.values()) for effect in effects),
    )


def _calls_of(groups: Sequence[CallGroup], reverse: Sequence[Change]) -> int:
    """The calls that do the work, whichever model does it."""
    work = [replace(change.where, provider=ANY, model=ANY) for change in reverse]
    return sum(group.calls for group in groups if any(where.matches(group.key) for where in work))


def _of_caches(
    store: Store, one: SavedRecommendation, where: Sequence[Where], after: Period, before: Period
) -> Measured:
    """What LangChain's cache saved: what its answers would have cost."""

    def of(period: Period) -> _Window:
        rows = [_cached(store, one["organization_id"], each.named, period) for each in where]
        return _Window(
            calls=sum(row["calls"] for row in rows),
            followed=sum(row["cached_calls"] for row in rows),
            saved=exact_sum(row["cache_savings"] for row in rows),
        )

    return _against(of(after), of(before), after, "answered from a cache")


def _cached(
    store: Store, organization: str | None, named: Mapping[str, str | None], period: Period
) -> Mapping[str, Any]:
    filters: dict[str, list[str | None]] = {name: [value] for name, value in named.items()}
    if organization is not None:
        filters["organization"] = [organization]
    return explore(store, period, filters=filters, measures=["calls", "cached_calls", "cache_savings"]).total


def _against(now: _Window, then: _Window, after: Period, made: str) -> Measured:
    """What was saved beyond what had been saved without it."""
    days = f"from {after.first_day} to {after.last_day}"
    if not now.calls:
        return Measured(None, f"Nobody called for that work {days}.")
    usual = ZERO
    if then.calls:
        usual = MONEY.divide(MONEY.multiply(then.saved, Decimal(now.calls)), Decimal(then.calls))
    saving = MONEY.subtract(now.saved, usual)
    note = f"{now.followed:,} of {counted(now.calls, 'call')} {days}, {made}, saved {usd(now.saved)}"
    if usual:
        note += f"; {usd(usual.quantize(Decimal('0.0001')))} of it as before"
    if now.left_out:
        note += f"; {now.left_out:,} could not be repriced"
    return Measured(saving, f"{note}.", now.followed)
