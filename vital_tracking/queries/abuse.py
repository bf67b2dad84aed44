"""Abuse: what was found, by which patterns, what was decided about it, marks of false alarms, and rules that act by themselves.

Values are Decimal in the finding's `measure`: calls, requests, errors, addresses, or US dollars (`cost`, `day_cost`).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from typing_extensions import TypedDict

from vital_tracking.errors import StoreRejected
from vital_tracking.queries.answers import Amount, answer_type, typed
from vital_tracking.queries.budgets import all_budgets
from vital_tracking.queries.words import usd
from vital_tracking.stores import Store

ACTIONS: Final = ("watch", "throttle", "block")
"""What can be done: `watch` stops nothing and notes on calls that a block would have stopped them."""

STATES: Final = ("open", "acted_on", "false_alarm")
SEVERITIES: Final = ("low", "medium", "high")
MOST_FINDINGS: Final = 1000


@answer_type
class ActionBeside(TypedDict):
    """What runs against whoever is behind a finding, put up because of another one."""

    finding: int
    action: str
    until: datetime


@answer_type
class AbuseFinding(TypedDict):
    """Something that looked like abuse: in `minutes` minutes it came to `value`, where `threshold` had to be reached.

    `usual` is the median of the subject's own days at their busiest; where fewer than three are known (`known_days`), what 19 of
    20 days of others come to; None: not known. `entity_type` and `entity_id` are whom an action stands on, None: there is nobody.
    `query` shows its rows in SQL; they begin at `rows_since` and end with `last_seen`. `with_finding` is the one about the same
    user or organization with which it was decided; `beside` what runs against them while this one is open.
    """

    id: int
    pattern: str
    about: str
    organization_id: str | None
    subject_kind: str
    subject: str
    entity_type: str | None
    entity_id: str | None
    severity: str
    state: str
    first_seen: datetime
    last_seen: datetime
    rows_since: datetime
    measure: str
    minutes: int
    value: Amount
    usual: Amount | None
    threshold: Amount
    known_days: int
    action: str | None
    action_until: datetime | None
    acting: bool
    with_finding: int | None
    beside: ActionBeside | None
    decided_at: datetime | None
    decided_by: str | None
    reason: str | None
    query: str


@answer_type
class AbuseScan(TypedDict):
    """What a look has come to: findings that are new (or worse than before), that go on, that marks have silenced.

    `busy`: somebody else is looking just now; `learning`: the past is still being counted, so nothing was looked for yet.
    """

    new: int
    going_on: int
    silenced: int
    busy: bool
    learning: bool


@answer_type
class AbusePattern(TypedDict):
    """A pattern, its least values in five minutes and in an hour, how many times the usual it must be, and why that is so."""

    pattern: str
    about: str
    kind: str
    measure: str
    short_floor: Amount | None
    long_floor: Amount
    times: Amount
    alone: Amount
    reason: str


@answer_type
class AbuseMark(TypedDict):
    """A pattern of a subject that is no abuse up to a size, in how many looks it has been silent since, and who said why."""

    id: int
    pattern: str
    organization_id: str | None
    subject: str
    up_to: Amount
    finding_id: int | None
    silenced: int
    last_silenced_at: datetime | None
    marked_at: datetime
    marked_by: str | None
    reason: str | None


@answer_type
class AbuseRule(TypedDict):
    """What is done by itself with findings of a pattern (None: of any) from a severity on, and for how many seconds."""

    id: int
    organization_id: str | None
    pattern: str | None
    severity: str
    action: str
    lasts_s: int


@answer_type
class AbuseSettings(TypedDict):
    """By what abuse is found, and what is done about it."""

    patterns: list[AbusePattern]
    marks: list[AbuseMark]
    rules: list[AbuseRule]


FINDING_COLUMNS: Final = tuple(AbuseFinding.__annotations__)
LONGEST: Final = timedelta(days=31)
"""For how long an action runs at most."""


class NoSuchFinding(StoreRejected):
    """There is no finding or mark of that id that the caller may see."""


def abuse_findings(
    store: Store,
    *,
    organization: str | None = None,
    state: str | None = None,
    since: datetime | None = None,
    before: int | None = None,
    limit: int = 100,
) -> list[AbuseFinding]:
    """The findings that may be seen, the newest first, below an id: of an organization, in a state, seen since an instant."""
    found = store.call(
        "abuse_findings_v1", organization=organization, state=state, since=since, before_id=before, max_rows=limit
    )
    return typed(list[AbuseFinding], found)


def abuse_finding(store: Store, number: int) -> AbuseFinding:
    """The finding of an id; NoSuchFinding where there is none that may be seen."""
    found = typed(list[AbuseFinding], store.call("abuse_findings_v1", id=number))
    if not found:
        raise _missing(number)
    return found[0]


def abuse_settings(store: Store, *, organization: str | None = None) -> AbuseSettings:
    """Patterns, marks and rules that may be seen, marks and rules of an organization alone where one is named."""
    return typed(AbuseSettings, store.call("abuse_settings_v1", organization=organization))


def find_abuse(store: Store) -> AbuseScan:
    """Look for abuse in the last hour, with the store's own rights; where a thousand users call, it takes a tenth of a second."""
    return typed(AbuseScan, store.call("find_abuse_v1"))


def act_on(store: Store, number: int, action: str, *, lasts: timedelta, why: str = "") -> AbuseFinding:
    """Watch, throttle or block whoever is behind a finding, for a time from now on; what was done before ends.

    What else is open about the same user or organization is closed with it.

    Raises NoSuchFinding; StoreRejected where the caller is no admin, nobody is behind it, or the time is longer than 31 days.
    """
    until = all_budgets(store)["now"] + lasts
    return typed(AbuseFinding, _decided(number, _decide(store, number, action, until=until, why=why or None)))


def mark_false_alarm(store: Store, number: int, *, why: str = "") -> AbuseFinding:
    """Say that a finding is none: its like is silent up to its size, visibly, and what was done about it ends."""
    return typed(AbuseFinding, _decided(number, _decide(store, number, "false_alarm", why=why or None)))


def reopen(store: Store, number: int) -> AbuseFinding:
    """Take back what was decided about a finding: what was put up, and its mark."""
    return typed(AbuseFinding, _decided(number, _decide(store, number, "open")))


def remove_mark(store: Store, number: int) -> None:
    """Take a mark back: its like is told of again. Raises as `act_on` does."""
    _decided(number, store.call("unmark_abuse_v1", mark=number))


def set_rule(
    store: Store,
    *,
    organization: str | None,
    pattern: str | None,
    action: str | None,
    severity: str = "high",
    lasts: timedelta = timedelta(hours=1),
) -> None:
    """Have findings of a pattern (None: any) acted on by itself, from a severity on; without an action the rule goes."""
    rule = {"organization_id": organization, "pattern": pattern, "severity": severity, "action": action}
    told = store.call("set_abuse_rule_v1", rule=json.dumps({**rule, "lasts_s": lasts.total_seconds()}))
    _decided(0, told)


def figures(finding: AbuseFinding) -> str:
    """What made it a finding, in words: 412 calls in 5 minutes; usual at the busiest: 12; from 60 on."""
    measure = finding["measure"]
    span = {5: "5 minutes", 60: "an hour"}.get(finding["minutes"], "a day")
    usual = "not known" if finding["usual"] is None else value_text(finding["usual"], measure)
    whose = "" if finding["known_days"] >= 3 or finding["usual"] is None else " (of others)"
    what = "" if measure in _MONEY else f" {measure}"
    value, threshold = value_text(finding["value"], measure), value_text(finding["threshold"], measure)
    return f"{value}{what} in {span}; usual at the busiest{whose}: {usual}; found from {threshold} on"


_MONEY: Final = ("cost", "day_cost")


def became(finding: AbuseFinding, moment: Callable[[datetime], str]) -> str:
    """What became of a finding, in words, with times as `moment` tells them: block until 12:30 (with finding 3)."""
    if finding["state"] == "acted_on":
        until = f" until {moment(finding['action_until'])}" if finding["action_until"] else ""
        over = "" if finding["acting"] or finding["action"] == "watch" else " (over)"
        beside = f" (with finding {finding['with_finding']})" if finding["with_finding"] else ""
        return f"{finding['action']}{until}{over}{beside}"
    if finding["state"] == "open" and (action := finding["beside"]):
        return f"open; {action['action']} until {moment(action['until'])} by finding {action['finding']}"
    return finding["state"].replace("_", " ")


def value_text(value: Any, measure: str) -> str:
    """A value in its measure."""
    return usd(value) if measure in _MONEY else f"{value:,.0f}"


def _decide(store: Store, number: int, decision: str, **more: Any) -> object:
    return store.call("decide_abuse_v1", finding=number, decision=decision, **more)


def _decided(number: int, answer: Any) -> Any:
    """The answer, where it is no refusal."""
    if answer.get("missing"):
        raise _missing(number)
    if answer.get("refused"):
        raise StoreRejected(
            "Only an admin of that organization decides about what was found there; about themselves another one, about"
            " the organization itself an operator.",
            sqlstate="42501",
        )
    return answer


def _missing(number: int) -> NoSuchFinding:
    return NoSuchFinding(f"There is none with the id {number}.", sqlstate="P0002")
