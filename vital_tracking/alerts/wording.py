"""Budgets in words for people: amounts, periods, what a budget does. Values in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from vital_tracking.core.amounts import amount_text
from vital_tracking.core.entities import PERIODS

# How messages say a metric's amounts and a period; the keys are those of `core/entities.py`.
_DONE: Final = {"cost_usd": "spent", "tokens": "used", "calls": "made"}
_MAY_DO: Final = {"cost_usd": "spend", "tokens": "use", "calls": "make"}
_THIS_PERIOD: Final = {"minute": "this minute", "day": "today", "month": "this month", "total": "in all"}
_PER_PERIOD: Final = {"minute": "a minute", "day": "a day", "month": "a month", "total": "in all"}
# What is said of calls at a limit that is enforced, and of one that only watches.
_AT_THE_LIMIT: Final = {
    "throttle": ("calls pass one by one", "calls would pass one by one"),
    "downgrade": ("only cheaper models pass", "only cheaper models would pass"),
    "block": ("calls are blocked", "calls would be blocked"),
}
# Entities that sentences call by another word.
_NOUNS: Final = {"tier": "agent tier"}


def limit_text(limit: Decimal, metric: str) -> str:
    """A limit with its unit, exact: $5, $0.50, 1,000 tokens, 1 call."""
    text = amount_text(limit, metric, exact=True).removesuffix(".00")
    if metric == "cost_usd":
        return text
    return f"{text} {metric.removesuffix('s') if limit == 1 else metric}"


def spent_text(spent: Decimal, limit: Decimal, metric: str) -> str:
    """How much of a limit is gone: $4.02 of $5.00, 4,020 of 5,000 tokens."""
    unit = "" if metric == "cost_usd" else f" {metric}"
    return f"{amount_text(spent, metric)} of {amount_text(limit, metric, exact=True)}{unit}"


def held_text(held: Decimal, metric: str) -> str:
    """How much is set aside for calls: $0.60 is set aside for other calls."""
    unit, verb = ("", "is") if metric == "cost_usd" else (f" {metric}", "are")
    return f"{amount_text(held, metric)}{unit} {verb} set aside for other calls"


def abuse_text(
    pattern: str, severity: str | None, whose: str, value: Decimal, metric: str, period: str, action: str
) -> str:
    """What looks like abuse, in one sentence, with what was done about it."""
    much = limit_text(value, metric) if metric == "cost_usd" else f"{value:,.0f} {metric}"
    done = {"alert": "nothing is done yet", "watch": "it is watched"}.get(action, f"it is met by {action}")
    return (
        f"{whose} looks like abuse ({pattern}, {severity}): {much} within {_WITHIN.get(period, period)}; {done}. "
        "See: vital-tracking abuse list"
    )


_WITHIN: Final = {"hour": "an hour", "day": "a day"}


def percent(spent: Decimal, limit: Decimal) -> int:
    """Share of a limit in per cent, rounded down; of a limit of nothing, 100."""
    return int(spent * 100 / limit) if limit else 100


def period_now(period: str) -> str:
    """A running window: today, this month, in all."""
    return _THIS_PERIOD.get(period, period)


def used(metric: str) -> str:
    """What was done with an amount: spent, used, made."""
    return _DONE.get(metric, _DONE["tokens"])


def one_line(text: str, length: int = 100) -> str:
    """A name that others chose, fit for a line of a log or a message: no line breaks or control characters, not endless."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    return line if len(line) <= length else f"{line[: length - 1]}…"


def entity(entity_type: str, entity_id: str, organization: str | None = None) -> str:
    """What a budget or window is for: user u-1, each user, user u-1 of organization acme."""
    whose = f" of organization {one_line(organization)}" if organization and entity_type != "organization" else ""
    return f"{f'each {entity_type}' if entity_id == '*' else f'{entity_type} {one_line(entity_id)}'}{whose}"


def at_the_limit(action: str, *, enforce: bool, reached: bool, fits: bool = True) -> str:
    """The end of a message about a threshold: what the budget does now, or will do at its limit; `fits`: no call was refused."""
    if not reached:
        return f"at the limit: {action}{'' if enforce else ' (shadow: nothing is stopped)'}."
    what = _AT_THE_LIMIT.get(action)
    if not fits and action == "block":
        what = ("it is blocked, and all that need as much", "it would be blocked")
    if what is None:
        return "the limit is reached."
    why = "the limit is reached" if fits else "a call did not fit"
    return f"{why}: {what[0]}." if enforce else f"{why}: {what[1]} (shadow)."


def limits(budget: Mapping[str, Any]) -> list[tuple[str, Decimal]]:
    """The periods of a budget's row that have a limit, the shortest first."""
    return [(period, Decimal(budget[column])) for period, column in PERIODS.items() if budget[column] is not None]


def limits_text(budget: Mapping[str, Any]) -> str:
    """The limits of a budget's row: $5 a day and $100 a month."""
    said: list[str] = []
    for period, limit in limits(budget):
        # The unit is said once: 100 calls a day and 1,000 a month.
        text = limit_text(limit, budget["metric"])
        said.append(f"{text.partition(' ')[0] if said else text} {_PER_PERIOD[period]}")
    return _listed(said)


def over_it(budget: Mapping[str, Any]) -> str:
    """What a budget's row does over its limit, in a few words for a table."""
    words = {
        "throttle": f"throttle: one in {seconds_text(Decimal(budget['throttle_interval_s']))}",
        "downgrade": f"downgrade to {one_line(budget['downgrade_to'])}" if budget["downgrade_to"] else "downgrade",
    }.get(budget["action"], budget["action"])
    return words if budget["enforce"] else f"{words} (shadow)"


def sentence(budget: Mapping[str, Any]) -> str:
    """What a budget's row does, in one plain sentence: "Each user may spend $5 a day; over that, calls are blocked." """
    noun = _NOUNS.get(budget["entity_type"], budget["entity_type"])
    everyone = budget["entity_id"] == "*"
    subject = f"Each {noun}" if everyone else f"{noun.capitalize()} {one_line(budget['entity_id'])}"
    if budget["organization_id"] and budget["entity_type"] != "organization":
        subject += f" of organization {one_line(budget['organization_id'])}"
    verb = _MAY_DO[budget["metric"]]
    return f"{subject} may {verb} {limits_text(budget)}; {_consequence(budget)}."


def _consequence(budget: Mapping[str, Any]) -> str:
    raised = thresholds_text(budget["alert_thresholds"])
    if budget["action"] == "alert":
        return (
            f"an alert is raised at {raised}, and nothing is stopped"
            if raised
            else "nothing is stopped, nobody is told"
        )
    would = not budget["enforce"]
    if budget["action"] == "throttle":
        every = seconds_text(Decimal(budget["throttle_interval_s"]))
        what = f"calls {'would pass' if would else 'pass'} one every {every}"
    elif budget["action"] == "downgrade":
        what = (
            f"only models no dearer than {one_line(budget['downgrade_to'])} {'would pass' if would else 'pass'}"
            if (budget["downgrade_to"])
            else f"only the cheaper models that the code offers {'would pass' if would else 'pass'}"
        )
    else:
        what = f"calls {'would be' if would else 'are'} blocked"
    return f"over that, {what}" + (", but it only watches (shadow): nothing is stopped" if would else "")


def thresholds_text(thresholds: Sequence[str | Decimal]) -> str:
    """Shares of a limit in per cent: 50 %, 80 % and 100 %."""
    return _listed([f"{(Decimal(share) * 100).normalize():f} %" for share in thresholds])


def seconds_text(seconds: Decimal) -> str:
    """A span as people write it: 500 ms, 10 s, 2 min, 1 h."""
    for size, unit in ((Decimal(3600), "h"), (Decimal(60), "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size:f} {unit}"
    if seconds < 1:
        return f"{(seconds * 1000).normalize():f} ms"
    return f"{seconds.normalize():f} s"


def time_left(ends_at: datetime | None, now: datetime) -> str:
    """How long a window still runs: in 5 h 12 min."""
    if ends_at is None:
        return "never"
    left = int((ends_at - now).total_seconds())
    if left < 0:
        return "over"
    days, hours, minutes = left // 86_400, left // 3600 % 24, left // 60 % 60
    if days:
        return f"in {days} d {hours} h"
    if hours:
        return f"in {hours} h {minutes} min"
    return f"in {minutes} min" if minutes else f"in {left} s"


def local_time(moment: datetime | None, zone: str) -> str:
    """An instant in a budget's time zone: 24 Nov 00:00 CET; UTC where this machine does not know the zone."""
    if moment is None:
        return ""
    return f"{moment.astimezone(_zone(zone)):%d %b %H:%M %Z}"


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return UTC


def _listed(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else "".join(parts)
