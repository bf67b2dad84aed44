"""Advice as it is kept: for whole months, whenever of a day it is looked for."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

from tests.unit.advice.windows import NO_MACHINES, NO_PLANS, PERIOD, START, group, window
from vital_tracking.advice.advise import advice_of
from vital_tracking.advice.evidence import calls_command
from vital_tracking.advice.life import advice_to_save
from vital_tracking.advice.report import why_not_counted
from vital_tracking.advice.window import Window, so_far
from vital_tracking.queries.answers import typed
from vital_tracking.queries.recommendations import LastAdvice
from vital_tracking.web.pages.advice_parts import cards

UNDECIDED = (
    "decided_by", "decided_at", "reason", "promised", "measured_saving", "measured_at", "measured_note", "measured_from"
)  # fmt: skip


def found(of: Window) -> LastAdvice:
    """Advice about a window as it is read after it was saved."""
    told = advice_to_save(advice_of(of, NO_PLANS, NO_MACHINES), None)
    at = told["until"]
    times = {"since": told["since"], "until": at, "first_seen": at, "last_seen": at}
    saved = [
        {**one, **times, "still_given": True, "status": "open", **dict.fromkeys(UNDECIDED)}
        for one in told["recommendations"]
    ]
    return typed(LastAdvice, {**told, "found_at": at, "recommendations": saved})


def test_the_bill_of_a_month_is_that_of_the_time_that_is_over() -> None:
    """If a day that runs counted as a whole one, the bill would be too small, and the share that is saved too large."""
    noon = START + timedelta(hours=12)
    today = so_far(replace(PERIOD, until=START + timedelta(days=1)), noon + timedelta(microseconds=7))
    last = found(window(group(), tiers=[("big", 1), ("small", 1)], period=today))
    assert (last["since"], last["until"]) == (START, noon)
    (one,) = last["recommendations"]
    # $13 in half a day are $780 in a month, of which $708 are saved.
    assert one["saving"]["expected"] == Decimal(708)
    assert "$780.00" in [card.value for card in cards(last, [one], [])]
    assert "--since 2026-11-02 --until 2026-11-02T12:00:00+00:00 " in calls_command(one)


def test_why_something_is_no_part_of_the_total_is_said_by_its_kind() -> None:
    """If a switch to a model of unknown quality were called an upper bound, nobody would know what to find out."""
    (one,) = found(window(group(), candidates=["small"]))["recommendations"]
    assert (one["type"], one["counted"]) == ("model_switch", False)
    assert why_not_counted(one) == "nobody knows yet how good the other model is at it"
    one["type"] = "semantic_caching"
    assert why_not_counted(one) == "it is an upper bound"
    one["type"] = "plan_upgrade"
    assert "bill" in why_not_counted(one)


def test_work_of_one_name_in_several_services_is_named_once() -> None:
    several = [group(service=service) for service in ("workflow", "virtual_panel", "1:1_conversation")]
    (one,) = advice_of(window(*several, candidates=["small"]), NO_PLANS, NO_MACHINES).recommendations
    assert one.current == "big does the work of agent cardio."
