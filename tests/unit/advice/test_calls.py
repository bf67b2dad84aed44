"""Advice that comes from calls: hand-computed windows for each kind, and every reason why a kind says nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.advice.windows import BOOK, NO_MACHINES, NO_PLANS, PERIOD, START, group, outcome, window
from vital_tracking.advice.advise import OF_CALLS, Advice, advice_of
from vital_tracking.advice.changes import Change, ExactCache, Factors, Processing, Scenario, SwitchModel, Where
from vital_tracking.advice.kinds import (
    batch_processing,
    caching,
    job_scheduling,
    model_consolidation,
    model_switch,
    peak_shifting,
    semantic_caching,
    smart_routing,
)
from vital_tracking.advice.kinds.off_peak import NO_HOURS
from vital_tracking.advice.recommendation import NOTHING, Kind, Level, NotApplicable, Recommendation, Saving
from vital_tracking.advice.window import Model, Window, cuts_for
from vital_tracking.core.request_size import Size
from vital_tracking.queries.call_groups import CallGroup
from vital_tracking.queries.explore import ANY
from vital_tracking.queries.shadow import ShadowPairs

Found = list[Recommendation] | NotApplicable


def only(found: Found) -> Recommendation:
    assert isinstance(found, list), found
    (one,) = found
    return one


def reason(found: Found) -> str:
    assert isinstance(found, NotApplicable), found
    return found.reason


def saving(*amounts: str) -> Saving:
    return Saving(*map(Decimal, amounts))


def advice(of: Window) -> Advice:
    return advice_of(of, NO_PLANS, NO_MACHINES)


# model_switch


def test_a_model_of_the_same_tier_is_advised_with_what_its_calls_would_have_cost() -> None:
    # 1,000 calls of 1,000 + 100 tokens: $10 + $3 at big, $1 + 0.1 x $2 at small; answers 0.75 to 1.5 times as long.
    found = only(model_switch.advise(window(group(), tiers=[("big", 2), ("small", 1)])))
    assert (found.calls, found.counted, found.confidence) == (1000, True, Level.medium)
    assert found.saving == saving("11.7", "11.8", "11.85")
    assert found.subject["to"] == "small"
    assert found.evidence == {
        "provider": None, "model": "big", "service": "workflow", "agent": "cardio", "workflow": None, "step": None,
        "repriceable": "yes", "audio": "no",
    }  # fmt: skip
    assert "tier" in found.impact


def test_of_several_that_are_as_good_it_is_the_one_that_saves_most() -> None:
    found = only(model_switch.advise(window(group(), tiers=[("big", 1), ("middle", 1), ("small", 1), ("tiny", 2)])))
    assert found.subject["to"] == "small"


def test_outcomes_of_the_same_agent_decide_before_tiers() -> None:
    tiers = [("big", 2), ("small", 1)]
    as_good = [outcome("big", "97.0"), outcome("small", "95.0")]
    worse = [outcome("big", "97.0"), outcome("small", "94.9")]
    assert only(model_switch.advise(window(group(), tiers=tiers, outcomes=as_good))).confidence is Level.high
    assert "not known to be worse" in reason(model_switch.advise(window(group(), tiers=tiers, outcomes=worse)))
    too_few = [outcome("big", "97.0"), outcome("small", "10.0", executions=29)]
    assert only(model_switch.advise(window(group(), tiers=tiers, outcomes=too_few))).confidence is Level.medium


@pytest.mark.parametrize(
    ("scale", "count", "good", "bad"),
    [
        ("rating", "ratings", "4.3", "4.2"),
        ("faithfulness", "faithfulness_scores", "0.90", "0.89"),
        ("answer_relevancy", "answer_relevancy_scores", "0.90", "0.89"),
    ],
)
def test_ratings_and_scores_count_where_there_are_enough(scale: str, count: str, good: str, bad: str) -> None:
    mine: dict[str, Any] = {scale: Decimal("4.5") if scale == "rating" else Decimal("0.95"), count: 40}

    def advised(its: str, enough: int = 40) -> Found:
        other: dict[str, Any] = {scale: Decimal(its), count: enough}
        outcomes = [outcome("big", "97", **mine), outcome("small", "97", **other)]
        return model_switch.advise(window(group(), outcomes=outcomes, candidates=["small"]))

    assert isinstance(advised(good), list)
    assert isinstance(advised(bad), NotApplicable)
    assert isinstance(advised(bad, enough=29), list)


def test_unknown_quality_is_said_once_a_model_and_is_no_part_of_the_total() -> None:
    found = advice(window(group(), group(agent="legal"), candidates=["small"]))
    one = only([each for each in found.recommendations if each.kind is Kind.model_switch])
    assert "Unknown quality" in one.impact
    assert "shadow" in one.how_to_try
    assert "prices tier" in one.how_to_try
    assert (one.counted, one.confidence, one.calls) == (False, Level.low, 2000)
    assert one.saving.expected == Decimal("23.6")
    assert found.total == saving("0", "0", "0")


def test_shadow_runs_say_how_many_tokens_another_model_takes_and_do_no_work_themselves() -> None:
    pairs: ShadowPairs = {
        "model": "big", "shadow_model": "small", "agent_id": "cardio", "pairs": 40, "succeeded": 40, "shadow_succeeded": 40,
        "measured_pairs": 40, "prompt_tokens": 1_000, "shadow_prompt_tokens": 1_200, "completion_tokens": 100,
        "shadow_completion_tokens": 50, "priced_pairs": 0, "cost": None, "shadow_cost": None, "latency_ms": None,
        "shadow_latency_ms": None,
    }  # fmt: skip
    shadow_run = group("small", calls=20, shadow=True)
    found = only(model_switch.advise(window(group(), shadow_run, tiers=[("big", 1), ("small", 1)], shadows=[pairs])))
    # 1,000 calls: $13 at big; at small 1,200 tokens in and 50 out, $1.30, give or take a tenth.
    assert found.saving == saving("11.57", "11.7", "11.83")
    assert "40 shadow runs" in found.assumptions[0]
    assert isinstance(model_consolidation.advise(window(group(calls=9_000), shadow_run)), NotApplicable)
    few: ShadowPairs = {**pairs, "measured_pairs": 29}
    found = only(model_switch.advise(window(group(), tiers=[("big", 1), ("small", 1)], shadows=[few])))
    assert found.saving == saving("11.7", "11.8", "11.85")


def test_what_a_model_thinks_before_it_answers_is_not_guessed() -> None:
    """A model that reasons may answer a hundred tokens after thousands that are paid for as well."""
    thinks = group("small", calls=10, agent="other")
    thinks = replace(thinks, usage=thinks.usage._replace(reasoning_tokens=500))
    tiers = [("big", 1), ("middle", 1), ("small", 1)]
    assert only(model_switch.advise(window(group(), thinks, tiers=tiers))).subject["to"] == "middle"
    assert isinstance(model_switch.advise(window(group(), thinks, tiers=[tiers[0], tiers[2]])), NotApplicable)
    also = replace(group(), usage=group().usage._replace(reasoning_tokens=50_000))
    assert only(model_switch.advise(window(also, thinks, tiers=[tiers[0], tiers[2]]))).subject["to"] == "small"


def test_what_cannot_be_switched_is_not_advised() -> None:
    assert "Only one chat model" in reason(model_switch.advise(window(group())))
    tiers = [("big", 1), ("small", 1)]
    for calls in (group(fixed=True), group(priced=False), group(call_type="embedding"), group("small")):
        assert isinstance(model_switch.advise(window(calls, tiers=tiers)), NotApplicable)


# smart_routing


def test_short_requests_may_go_one_tier_lower() -> None:
    # 1,000 short calls of 100 + 50 tokens: $1 + $1.5 at big, $0.1 + $0.1 at small.
    found = only(smart_routing.advise(window(group(prompt=100, answer=50), group(), tiers=[("big", 1), ("small", 2)])))
    assert (found.calls, found.counted, found.effort) == (1000, True, Level.high)
    assert found.saving == saving("2.25", "2.3", "2.325")
    assert found.changes[0].where.size is Size.simple


def test_routing_says_nothing_where_requests_are_long_or_models_are_too_weak() -> None:
    short = group(prompt=100, answer=50)
    assert isinstance(
        smart_routing.advise(window(short, group(calls=4001), tiers=[("big", 1), ("small", 2)])), NotApplicable
    )
    assert isinstance(smart_routing.advise(window(short, tiers=[("big", 1), ("small", 3)])), NotApplicable)
    # As good for all of it: that is model_switch's.
    assert isinstance(smart_routing.advise(window(short, tiers=[("big", 1), ("small", 1)])), NotApplicable)


# caching and semantic_caching


def hashed(calls: int, **more: Any) -> CallGroup:
    return group(calls=calls, hashed=True, **more)


def test_an_exact_cache_saves_what_was_asked_again() -> None:
    found = only(caching.advise(window(hashed(80), hashed(20, repeated=True))))
    # 20 of 100 requests, $0.013 each.
    assert found.saving == Saving.exactly(Decimal("0.26"))
    assert (found.calls, found.confidence, found.subject["cache"]) == (20, Level.high, "exact")


def test_a_cache_is_not_advised_below_a_fifth_or_without_hashes() -> None:
    assert "20 %" in reason(caching.advise(window(hashed(81), hashed(20, repeated=True))))
    assert "VITAL_HASH_KEY" in reason(caching.advise(window(group())))
    assert isinstance(caching.advise(window(hashed(9), hashed(10, repeated=True))), NotApplicable)


def test_prompts_that_begin_alike_are_advised_where_reads_save_more_than_writes_cost() -> None:
    # Haiku: $1.00 a million, reads $0.10, writes $1.25. 800,000 read, 100,000 written: 0.72 - 0.025.
    calls = group(
        "claude-haiku-4-5",
        provider="anthropic",
        alike=True,
        prefixed_calls=1000,
        prefix_read_tokens=800_000,
        prefix_write_tokens=100_000,
    )
    found = only(caching.advise(window(calls)))
    # Nobody knows whether the model keeps beginnings as short as these.
    assert found.saving == saving("0", "0.695", "0.695")
    assert found.subject["cache"] == "prompt"
    assert isinstance(
        caching.advise(window(replace(calls, prefix_read_tokens=1_000, prefix_write_tokens=90_000))), NotApplicable
    )


def test_a_semantic_cache_is_an_upper_bound_and_no_part_of_the_total() -> None:
    of = window(hashed(95, prompt=100), hashed(5, prompt=100, repeated=True))
    found = only(semantic_caching.advise(of))
    # The 95 short requests that are not equal, $0.004 each.
    assert (found.saving, found.counted, found.calls) == (saving("0", "0", "0.38"), False, 95)
    assert "upper bound" in found.impact
    assert advice(of).total == saving("0", "0", "0")
    assert "5 %" in reason(
        semantic_caching.advise(window(hashed(96, prompt=100), hashed(4, prompt=100, repeated=True)))
    )
    assert "VITAL_HASH_KEY" in reason(semantic_caching.advise(window(group(prompt=100))))


# model_consolidation


def test_models_that_are_hardly_used_can_go() -> None:
    # tiny has 0.1 % of the bill, and does 10 calls where small does 1,000.
    found = only(
        model_consolidation.advise(
            window(group("big", agent="legal"), group("small", calls=5000), group("middle", calls=50))
        )
    )
    # 50 calls at middle $0.325, at small $0.06; answers 0.75 to 1.5 times as long.
    assert found.saving == saving("0.26", "0.265", "0.2675")
    assert (found.calls, found.subject["model"]) == (50, "middle")


def test_models_with_work_of_their_own_stay() -> None:
    assert "Only one" in reason(model_consolidation.advise(window(group())))
    apart = window(group("big"), group("middle", calls=10, agent="legal"))
    assert isinstance(model_consolidation.advise(apart), NotApplicable)
    worse = window(
        group("big", agent="legal"),
        group("small", calls=5000),
        group("middle", calls=50),
        tiers=[("small", 2), ("middle", 1)],
    )
    assert isinstance(model_consolidation.advise(worse), NotApplicable)
    dearer = window(group("big", calls=5000), group("small", calls=100))
    assert isinstance(model_consolidation.advise(dearer), NotApplicable)


def test_a_model_that_is_asked_seldom_may_be_the_better_one() -> None:
    """If its going counted without anybody knowing, the total would promise what an escalation to it is there for."""
    calls = (group("big", agent="legal"), group("small", calls=5000), group("middle", calls=50))
    unknown = only(model_consolidation.advise(window(*calls)))
    assert (unknown.counted, unknown.confidence) == (False, Level.low)
    assert "Unknown quality" in unknown.impact
    known = only(model_consolidation.advise(window(*calls, tiers=[("small", 1), ("middle", 1)])))
    assert (known.counted, known.confidence) == (True, Level.medium)


def test_what_takes_over_the_work_of_one_that_could_go_stays() -> None:
    """If both were to go, following all of the advice would leave one in use, and advise against it."""
    hardly = [group("middle", calls=50), group("small", calls=60), group("tiny", calls=70)]
    worse = [outcome("middle", "99"), outcome("tiny", "80")]  # and of small nobody knows
    found = model_consolidation.advise(window(group("big", 5_000, agent="legal"), *hardly, outcomes=worse))
    assert only(found).subject["model"] == "middle"
    assert {change.model for change in only(found).changes if isinstance(change, SwitchModel)} == {"small"}


# batch_processing, job_scheduling, peak_shifting


def test_what_nobody_waits_for_goes_into_batches_at_the_listed_price() -> None:
    calls = group("claude-haiku-4-5", provider="anthropic", unattended=True)
    found = only(batch_processing.advise(window(calls, group())))
    # $1.00 + $0.50, for half in a batch.
    assert found.saving == Saving.exactly(Decimal("0.75"))
    assert found.calls == 1000


def test_whose_night_it_is_is_said() -> None:
    """If it were not, a team in California would not learn that its afternoon is taken for the night."""
    found = only(batch_processing.advise(window(group("claude-haiku-4-5", provider="anthropic", unattended=True))))
    assert "22 to 6 o'clock (UTC)" in found.assumptions[-1]


def test_no_batches_where_somebody_waits_or_no_price_is_listed() -> None:
    assert "wait" in reason(batch_processing.advise(window(group())))
    assert "no lower price" in reason(batch_processing.advise(window(group(unattended=True))))


def test_steps_that_wait_for_each_other_go_into_no_batch() -> None:
    haiku: dict[str, Any] = {"provider": "anthropic", "workflow": "nightly", "unattended": True}
    two = window(group("claude-haiku-4-5", step="read", **haiku), group("claude-haiku-4-5", step="write", **haiku))
    assert "wait for each other" in reason(batch_processing.advise(two))
    one = only(batch_processing.advise(window(group("claude-haiku-4-5", step="read", **haiku))))
    assert one.subject["workflow"] == "nightly"


def deepseek(**more: Any) -> Window:
    """A thousand calls at the dear hours of DeepSeek."""
    cuts = cuts_for(BOOK, [Model("deepseek", "deepseek-chat")], PERIOD)
    dear = max(
        range(len(cuts.eras)),
        key=lambda era: BOOK.cost(group().usage, "deepseek", ("deepseek-chat",), cuts.eras[era]).total,  # type: ignore[union-attr]
    )
    found = group("deepseek-chat", provider="deepseek", era=dear + 1, **more)
    dearest = BOOK.cost(found.usage, "deepseek", ("deepseek-chat",), cuts.eras[dear], calls=found.calls)
    assert dearest is not None
    return window(replace(found, cost=dearest.total))


def test_jobs_run_at_the_hours_at_which_a_model_costs_less() -> None:
    at_dear_hours = deepseek(unattended=True)
    found = only(job_scheduling.advise(at_dear_hours))
    cheap = min(
        cost.total
        for at in at_dear_hours.prospect.eras
        if (cost := BOOK.cost(at_dear_hours.groups[0].usage, "deepseek", ("deepseek-chat",), at)) is not None
    )
    assert found.saving == Saving.exactly(at_dear_hours.bill - cheap)
    assert found.saving.low > 0
    assert found.counted
    assert isinstance(peak_shifting.advise(at_dear_hours), NotApplicable)
    waited_for = only(peak_shifting.advise(deepseek()))
    assert (waited_for.counted, waited_for.saving.expected) == (False, found.saving.expected)


@pytest.mark.parametrize("advise", [job_scheduling.advise, peak_shifting.advise])
def test_providers_that_bill_by_token_give_nothing_for_the_hour(advise: Callable[[Window], Found]) -> None:
    assert reason(advise(window(group(unattended=True)))) == NO_HOURS


# All together


def test_no_advice_where_there_is_none_to_give() -> None:
    """One model, the cheapest, nothing repeated, somebody waiting for all of it: each kind says why it is silent."""
    found = advice(window(hashed(10_000, model="tiny")))
    assert found.recommendations == []
    assert [one.kind for one in found.not_applicable if one.kind in OF_CALLS] == list(OF_CALLS)
    assert all(len(one.reason) > 20 for one in found.not_applicable)
    assert len(found.not_applicable) == len(Kind)


def test_the_planted_optimum_is_found() -> None:
    """An oversized model, a set of questions asked again, and jobs of the night: all three, and nothing else in the total."""
    found = advice(
        window(
            group("big", agent="lawyer", calls=500),
            hashed(300, model="tiny", agent="faq"),
            hashed(700, model="tiny", agent="faq", repeated=True),
            group("claude-haiku-4-5", provider="anthropic", agent="indexer", unattended=True),
            tiers=[("big", 2), ("middle", 2), ("small", 2), ("tiny", 3), ("claude-haiku-4-5", 1)],
        )
    )
    counted = {
        (one.kind, one.subject.get("agent"), one.subject.get("to")) for one in found.recommendations if one.counted
    }
    # $6.50 at big, $0.60 at small; 700 answers asked again; $1.50 for half in batches.
    again = Decimal("0.00012") * 700
    assert found.total.expected == Decimal("5.9") + again + Decimal("0.75")
    assert counted >= {
        (Kind.model_switch, "lawyer", "small"),
        (Kind.caching, "faq", None),
        (Kind.batch_processing, None, None),
    }


def test_the_same_advice_has_the_same_id_tomorrow() -> None:
    today = advice(window(group(), tiers=[("big", 1), ("small", 1)]))
    later = replace(PERIOD, since=START + timedelta(days=1), until=PERIOD.until + timedelta(days=1))
    tomorrow = advice(window(group(calls=1_234), tiers=[("big", 1), ("small", 1)], period=later))
    assert [one.id for one in today.recommendations] == [one.id for one in tomorrow.recommendations] != []


MODELS = ("big", "middle", "small", "tiny", "claude-haiku-4-5", "nobody knows")


@st.composite
def groups(draw: st.DrawFn) -> CallGroup:
    model = draw(st.sampled_from(MODELS))
    calls = draw(st.integers(1, 5_000))
    return group(
        model,
        calls,
        draw(st.integers(0, 5_000)),
        draw(st.integers(0, 2_000)),
        provider="anthropic" if model.startswith("claude") else None,
        priced=model != "nobody knows",
        agent=draw(st.sampled_from(("a", "b", None))),
        service=draw(st.sampled_from(("workflow", None))),
        repeated=draw(st.booleans()),
        unattended=draw(st.booleans()),
        fixed=draw(st.booleans()),
        hashed=True,
    )


def factors() -> st.SearchStrategy[Factors]:
    three = st.lists(st.decimals("0.1", "3", places=2), min_size=3, max_size=3)
    return three.map(sorted).map(lambda found: Factors(found[0], found[1], found[2]))


def changes() -> st.SearchStrategy[Change]:
    where = st.builds(
        Where,
        model=st.sampled_from((ANY, *MODELS)),
        agent=st.sampled_from((ANY, "a", None)),
        size=st.sampled_from((None, *Size)),
        unattended=st.sampled_from((None, True)),
    )
    return st.one_of(
        st.builds(SwitchModel, where=where, model=st.sampled_from(MODELS), tokens=factors(), answers=factors()),
        st.builds(ExactCache, where=where),
        st.builds(Processing, where=where),
    )


@given(st.lists(groups(), max_size=12), st.lists(changes(), max_size=5))
def test_savings_in_sequence_are_the_bill_before_minus_the_bill_after(
    found: list[CallGroup], asked: list[Change]
) -> None:
    """Whatever is changed: nothing is counted twice, nothing saves more than the bill, what is not repriced stays as it was."""
    done = window(*found).what_if(*asked)
    bill = sum((one.cost for one in found), Decimal(0))
    assert done.bill == bill
    assert sum((effect.saving.expected for effect in done.effects), Decimal(0)) == bill - done.after[Scenario.expected]
    assert all(cost >= 0 for cost in done.after.values())
    assert done.saving.high <= bill
    untouched = sum((one.cost for one in found if one.key.fixed), Decimal(0))
    assert all(cost >= untouched for cost in done.after.values())


def test_what_is_dismissed_takes_nothing_from_the_others() -> None:
    """If it did, a cache would seem to save little because of a switch that nobody wants."""
    of = window(group(repeated=True, hashed=True), group(hashed=True), tiers=[("big", 1), ("small", 1)])
    switch, cache = advice(of).recommendations
    assert (switch.kind, cache.kind) == (Kind.model_switch, Kind.caching)
    assert advice(of).sequential[1].expected < cache.saving.expected
    without = advice_of(of, NO_PLANS, NO_MACHINES, {switch.id})
    assert without.sequential == [NOTHING, cache.saving]
    assert without.total == cache.saving


def test_a_batch_stays_a_batch_whichever_model_answers_it() -> None:
    """If a switch took calls out of their batch, two savings would be worth less together, by the order in which they stand."""
    sonnet: dict[str, Any] = {"provider": "anthropic", "model": "claude-sonnet-4-5"}
    switch = SwitchModel(where=Where(**sonnet), model="claude-haiku-4-5", provider="anthropic")
    batch = Processing(where=Where(**sonnet, unattended=True))
    of = window(group(**sonnet, unattended=True))
    # 1,000 calls of 1,000 + 100 tokens: $3 + $1.50 at sonnet, $1 + $0.50 at haiku; half of it in batches.
    for order in ((switch, batch), (batch, switch)):
        assert of.what_if(*order).after[Scenario.expected] == Decimal("0.75")
    already = window(group(**sonnet, facts=(("processing", "batch"),)))
    assert already.what_if(switch).effects[0].saving.expected == Decimal("1.5")


@given(st.lists(groups(), max_size=12))
def test_the_total_of_all_advice_is_that_of_its_calls_repriced_once(found: list[CallGroup]) -> None:
    tiers = [("big", 1), ("middle", 1), ("small", 2), ("tiny", 2), ("claude-haiku-4-5", 1)]
    of = window(*found, tiers=tiers)
    given_advice = advice(of)
    counted = [change for one in given_advice.recommendations if one.counted for change in one.changes]
    done = of.what_if(*counted)
    assert given_advice.total.expected == of.bill - done.after[Scenario.expected]
    assert given_advice.total.expected <= given_advice.bill
    alone = [one.saving.expected for one in given_advice.recommendations]
    assert alone == sorted(alone, reverse=True)
