"""What is shown of advice: cards that open to their evidence, and tables of what is open, taken, dismissed or does not apply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlencode

from vital_tracking.advice.evidence import calls_asked, calls_command
from vital_tracking.advice.priority import time_in_words
from vital_tracking.advice.recommendation import MONTH_DAYS, Level
from vital_tracking.advice.report import about, money, range_text, saves_something, why_not_counted
from vital_tracking.core.cost import MONEY, ZERO
from vital_tracking.queries.recommendations import LastAdvice, SavedRecommendation, total_of
from vital_tracking.queries.words import counted
from vital_tracking.web import numbers
from vital_tracking.web.page import Card, Column, Part, Row
from vital_tracking.web.view import View

COLOURS: Final = {"high": "bad", "medium": "warn", "low": "quiet"}


@dataclass(frozen=True, slots=True)
class Opened:
    """A recommendation as a card that opens: its words, and where its calls are."""

    one: SavedRecommendation
    about: str
    label: str
    colour: str
    saving: str
    expected: str
    range: str
    beside: str
    calls: str
    link: str
    command: str


def type_text(kind: str) -> str:
    """A kind as pages call it."""
    return kind.replace("_", " ").capitalize()


def about_text(one: SavedRecommendation) -> str:
    """What a recommendation is about, with an arrow in place of its sign."""
    return about(one).replace(" -> ", " \N{RIGHTWARDS ARROW} ")


def _flag(level: str) -> tuple[str, str]:
    return COLOURS[level], level.upper()


def opened(view: View, one: SavedRecommendation) -> Opened:
    """A recommendation as a card that opens to its evidence."""
    colour, label = _flag(one["priority"])
    return Opened(
        one=one,
        about=about_text(one),
        label=label,
        colour=colour,
        saving=_saves(one),
        expected=money(one["saving"]["expected"]),
        range=range_text(one["saving"]),
        beside=_beside(one),
        calls=f"{counted(one['calls'], 'call')} {_days_text(one['since'], one['until'])}",
        link=f"{view.path('calls')}?{urlencode(calls_asked(one))}",
        command=calls_command(one),
    )


def _saves(one: SavedRecommendation) -> str:
    """What it is worth, in a few words; nothing where there is no money in it."""
    if not saves_something(one):
        return ""
    if one["revenue"] and not one["saving"]["expected"]:
        return f"{money(one['revenue'])} of revenue"
    return money(one["saving"]["expected"])


def _beside(one: SavedRecommendation) -> str:
    """What it adds to the total."""
    if not one["counted"]:
        return f"It is no part of the total: {why_not_counted(one)}."
    if one["sequential"] == one["saving"]:
        return "All of it is part of the total."
    adds = one["sequential"]
    return f"Where those above are followed too, it adds {money(adds['expected'])} a month ({range_text(adds)})."


def _days_text(since: datetime, until: datetime) -> str:
    last = until - timedelta(microseconds=1)
    return f"from {since:%Y-%m-%d} to {last:%Y-%m-%d}"


def found_text(found: LastAdvice) -> str:
    return f"Found {numbers.moment(found['found_at'])} UTC, in the calls {_days_text(found['since'], found['until'])}."


def lead(found: LastAdvice | None, shown: Sequence[SavedRecommendation]) -> str:
    if found is None:
        return (
            "Nobody has looked yet. Looking reprices the calls of the last 30 days, and says of each saving which calls"
            " it rests on."
        )
    if not shown:
        return "Nothing is advised that is not decided already: what does not apply, and why, stands below."
    total = total_of(shown)
    if not any(one["counted"] for one in shown):
        return (
            f"None of the {len(shown)} that are open counts yet: what each needs first, such as knowing how good another"
            " model is, stands in it."
        )
    share = _share(total["expected"], _monthly(found))
    of_bill = f", {numbers.percent(share)} of the bill" if share is not None else ""
    said = f"To follow what is open saves about {money(total['expected'])} a month{of_bill} ({range_text(total)})."
    if len(shown) == 1:
        return said
    return f"{said} Each call is repriced once, so this is less than their own figures add up to."


def _monthly(found: LastAdvice) -> Decimal:
    """The bill of the window, for a month of 30 days."""
    seconds = Decimal(int((found["until"] - found["since"]).total_seconds()))
    return MONEY.divide(MONEY.multiply(found["bill"], Decimal(MONTH_DAYS * 86_400)), seconds)


def _share(amount: Decimal, bill: Decimal) -> Decimal | None:
    return MONEY.divide(MONEY.multiply(amount, Decimal(100)), bill) if bill > 0 else None


def cards(found: LastAdvice, shown: Sequence[SavedRecommendation], taken: Sequence[SavedRecommendation]) -> list[Card]:
    total, bill = total_of(shown), _monthly(found)
    high = sum(one["priority"] == "high" for one in shown)
    measured = [one["measured_saving"] for one in taken if one["measured_saving"] is not None]
    promised = [one["promised"]["expected"] for one in taken if one["measured_saving"] is not None and one["promised"]]
    saved = sum(measured, ZERO)
    return [
        Card(
            "To be saved a month",
            money(total["expected"]),
            numbers.usd_exact(total["expected"]),
            note=f"{range_text(total)}, each call repriced once"
            if any(one["counted"] for one in shown)
            else "nothing that is open counts yet",
        ),
        Card("Bill a month", money(bill), numbers.usd_exact(bill), note="of calls to models, for 30 days"),
        Card(
            "Open",
            numbers.count(len(shown)),
            note=f"{high} of high priority; {time_in_words(Level(one['effort']) for one in shown)} of work",
        ),
        Card(
            "Really saved a month",
            money(saved) if measured else numbers.NOTHING,
            note=f"{money(sum(promised, ZERO))} were promised of it"
            if measured
            else f"{counted(len(taken), 'recommendation')} taken; measured after 30 days",
        ),
    ]


_TYPE: Final = Column("type", "Type")
ABOUT: Final = Column("about", "About", "prose")
RECOMMENDED: Final = Column("recommended", "Better", "prose")


def row_of(one: SavedRecommendation) -> dict[str, Any]:
    saving, sequential = one["saving"], one["sequential"]
    return {
        **one,
        "type": type_text(one["type"]),
        "about": about_text(one),
        "level": _flag(one["priority"]),
        "saving_low": saving["low"],
        "saving_expected": saving["expected"],
        "saving_high": saving["high"],
        "sequential_expected": sequential["expected"] if one["counted"] else None,
        "promised": None if one["promised"] is None else range_text(one["promised"]),
        "promised_expected": None if one["promised"] is None else one["promised"]["expected"],
        "seen": one["last_seen"],
    }


def open_part(view: View, shown: Sequence[SavedRecommendation], found: LastAdvice | None) -> Part:
    rows: dict[str, SavedRecommendation] = {one["id"]: one for one in shown}

    def calls(row: Row) -> str | None:
        one = rows.get(row.get("id", ""))
        return None if one is None else f"{view.path('calls')}?{urlencode(calls_asked(one))}"

    total = total_of(shown)
    return Part(
        "recommendations",
        "In figures",
        [
            Column("level", "Priority", "flag"),
            _TYPE,
            ABOUT,
            RECOMMENDED,
            Column("saving_low", "At least", "usd", about="US dollars a month of 30 days, where it alone is followed"),
            Column("saving_expected", "Expected", "usd"),
            Column("saving_high", "At most", "usd"),
            Column(
                "sequential_expected",
                "Adds",
                "usd",
                about="What it adds to the total, where those above are followed, too",
                none="no part of it",
            ),
            Column("calls", "Calls", "calls", link=calls),
            Column("confidence", "Confidence"),
            Column("effort", "Effort"),
        ],
        [row_of(one) for one in shown],
        note="US dollars a month. Savings of one exclude those of another: what each adds makes up the total.",
        empty="Nobody has looked yet." if found is None else "Nothing is open.",
        total={"type": "Total", "sequential_expected": total["expected"]}
        if sum(one["counted"] for one in shown) > 1
        else None,
        wide=True,
    )


def taken_part(taken: Sequence[SavedRecommendation]) -> Part:
    rows = []
    for one in taken:
        saved = one["measured_saving"]
        note = one["measured_note"] or (
            f"It is measured from {one['measured_from']:%Y-%m-%d} on" if one["measured_from"] else None
        )
        rows.append({**row_of(one), "saved": saved, "kept": _kept(one), "note": note})
    return Part(
        "taken",
        "Taken: what was promised, and what it really saved",
        [
            _TYPE,
            ABOUT,
            RECOMMENDED,
            Column("decided_at", "Taken (UTC)", "moment"),
            Column("promised", "Promised a month"),
            Column("saved", "Saved a month", "usd", none="not yet"),
            Column("kept", "Against the promise", "flag"),
            Column("note", "How it was measured", "prose"),
            Column("decided_by", "By"),
            Column("reason", "Why", "prose", rare=True),
        ],
        rows,
        empty="None was taken yet. Of one that is, the calls of the 30 days after it are measured.",
        wide=True,
    )


def _kept(one: SavedRecommendation) -> tuple[str, str] | None:
    saved, promised = one["measured_saving"], one["promised"]
    if saved is None or promised is None:
        return ("quiet", "cannot be measured") if one["measured_at"] else None
    if saved < promised["low"]:
        return "bad", "less"
    return ("ok", "more") if saved > promised["high"] else ("ok", "kept")


def dismissed_part(dismissed: Sequence[SavedRecommendation]) -> Part:
    return Part(
        "dismissed",
        "Dismissed",
        [
            _TYPE,
            ABOUT,
            RECOMMENDED,
            Column("saving_expected", "Would save a month", "usd"),
            Column("decided_at", "Dismissed (UTC)", "moment"),
            Column("decided_by", "By"),
            Column("reason", "Why", "prose"),
        ],
        [row_of(one) for one in dismissed],
        empty="None is dismissed.",
        wide=True,
    )


def not_applicable_part(found: LastAdvice | None) -> Part:
    rows = [] if found is None else [{**one, "type": type_text(one["type"])} for one in found["not_applicable"]]
    return Part(
        "not-applicable",
        "What does not apply, and why",
        [_TYPE, Column("reason", "Why", "prose")],
        rows,
        empty="Nobody has looked yet." if found is None else "Every kind applies.",
        wide=True,
    )


def no_longer_part(gone: Sequence[SavedRecommendation]) -> Part:
    return Part(
        "no-longer",
        "No longer given",
        [
            _TYPE,
            ABOUT,
            RECOMMENDED,
            Column("saving_expected", "Saved a month", "usd"),
            Column("seen", "Given last (UTC)", "moment"),
        ],
        [row_of(one) for one in gone],
        empty="All that was ever advised and not decided is still advised.",
        wide=True,
    )
