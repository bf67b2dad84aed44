"""What the three organizations did, day by day: weekdays and hours, growth, a spike, an outage, and a program gone wrong."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from vital_tracking.core.record import CallRecord, RunRecord
from vital_tracking.demo.cast import ORGANIZATIONS, Organization
from vital_tracking.demo.platform import PlatformDay, platform_day
from vital_tracking.demo.turns import Turn

MARK: Final = "demo_history"
"""The key of the metadata by which calls and runs of the history are known."""

DAYS: Final = 60
_SEED: Final = 7
_SPIKE: Final = ("demo-juniper", 16, 3.2)
"""Whose day it was, how many days before the end, and how many times the usual."""
_BURST: Final = (9, "anthropic", range(12, 15))
"""The error burst: how many days before the end, which provider failed, and in which hours (UTC)."""
_LOOP: Final = ("demo-kestrel", 75, timedelta(minutes=4))
"""Whose program goes wrong, how often it asks the same, and how long before the end it begins."""
# How much is done in each hour of the clock: mornings, a lunch, afternoons, and a few late ones.
_HOURS: Final = (1, 1, 0, 0, 0, 1, 3, 9, 24, 38, 42, 36, 22, 30, 40, 38, 30, 18, 9, 6, 5, 4, 3, 2)
_MARKED: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\dZ)/(\d{1,3})")


@dataclass(frozen=True, slots=True)
class Day:
    """A day of the history: its runs and calls, and the rows of what is no call."""

    runs: list[RunRecord] = field(default_factory=list)
    calls: list[CallRecord] = field(default_factory=list)
    platform: PlatformDay = field(default_factory=PlatformDay)


@dataclass(frozen=True, slots=True)
class History:
    """`days` days that end at `until`; the same two give the same history, to the last digit."""

    until: datetime
    days: int = DAYS

    @classmethod
    def marked(cls, mark: str) -> History | None:
        """The history whose calls have this mark; None where it is none of ours."""
        found = _MARKED.fullmatch(mark)
        if found is None:
            return None
        return cls(datetime.strptime(found[1], "%Y-%m-%dT%H:%MZ").replace(tzinfo=UTC), int(found[2]))

    @property
    def mark(self) -> str:
        """What stands in the metadata of its calls and runs."""
        return f"{self.until:%Y-%m-%dT%H:%MZ}/{self.days}"

    def each_day(self, blocked_by: Mapping[str, Mapping[str, object]] | None = None) -> Iterator[Day]:
        """Day by day; `blocked_by` says, for an organization, what the rows of its blocked calls say of the budget."""
        for back in range(self.days - 1, -1, -1):
            day = Day()
            for organization in ORGANIZATIONS:
                self._day_of(organization, back, (blocked_by or {}).get(organization.id), day)
            day.calls.sort(key=lambda call: call.created_at)
            yield day

    def _day_of(self, organization: Organization, back: int, blocked_by: Mapping[str, object] | None, day: Day) -> None:
        chance = random.Random(f"{_SEED}/{organization.id}/{back}")  # noqa: S311 - no secret
        zone = ZoneInfo(organization.zone)
        midnight = (self.until.astimezone(zone) - timedelta(days=back)).replace(
            hour=0, minute=0, second=0, microsecond=0
        )
        usual = organization.turns / (1 + organization.growth) ** (back / 7)
        if midnight.isoweekday() > 5:
            usual *= organization.weekend
        spike = (organization.id, back) == _SPIKE[:2]
        turns = round(usual * chance.lognormvariate(0, 0.12) * (_SPIKE[2] if spike else 1))
        stopped = blocked_by is not None and back in (2, 5)
        runs: list[RunRecord] = []
        for _ in range(turns):
            hour = chance.choices(range(24), _HOURS)[0]
            at = midnight.replace(hour=hour, minute=chance.randrange(60), second=chance.randrange(60)).astimezone(UTC)
            turn = Turn(
                chance,
                organization,
                _user(chance, organization, spike),
                at.replace(microsecond=chance.randrange(1000) * 1000),
                {MARK: self.mark},
                troubled=_BURST[1] if back == _BURST[0] and at.hour in _BURST[2] else None,
                blocked_by=blocked_by if stopped and hour >= 15 else None,
            )
            _play(turn, spike)
            if turn.at < self.until:
                runs.extend(turn.runs)
                day.calls.extend(turn.calls)
        runs.extend(self._night_of(organization, back, midnight, day))
        if (organization.id, back) == (_LOOP[0], 0):
            gone_wrong = Turn(chance, organization, organization.users[1], self.until - _LOOP[2], {MARK: self.mark})
            gone_wrong.loop(organization.talkers[0], _LOOP[1])
            runs.extend(gone_wrong.runs)
            day.calls.extend(gone_wrong.calls)
        day.runs.extend(runs)
        beside = random.Random(f"{_SEED}/{organization.id}/{back}/platform")  # noqa: S311 - no secret
        added = platform_day(beside, organization, midnight, runs, {MARK: self.mark}, self.until)
        day.platform.events.extend(added.events)
        day.platform.costs.extend(added.costs)
        day.platform.executions.extend(added.executions)

    def _night_of(self, organization: Organization, back: int, midnight: datetime, day: Day) -> Iterator[RunRecord]:
        """The runs of a workflow at two in the morning; its calls go into the day."""
        workflow, runs = organization.nightly or (None, 0)
        chance = random.Random(f"{_SEED}/{organization.id}/{back}/night")  # noqa: S311 - no secret
        at = (midnight + timedelta(hours=2)).astimezone(UTC)
        for _ in range(runs):
            turn = Turn(chance, organization, organization.users[0], at, {MARK: self.mark}, streamed=False)
            if workflow is not None:
                turn.workflow(workflow)
            at = turn.at
            if at < self.until:
                day.calls.extend(turn.calls)
                yield from turn.runs


def _user(chance: random.Random, organization: Organization, spike: bool) -> str:
    if spike and chance.random() < 0.6:
        return organization.users[2]
    weights = [1 / (place + 1.5) for place in range(len(organization.users))]
    return chance.choices(organization.users, weights)[0]


def _play(turn: Turn, spike: bool) -> None:
    chance, organization = turn.chance, turn.organization
    services: dict[Any, float] = {"workflow": 1.0} if spike else {**organization.services}
    service = chance.choices([*services], [*services.values()])[0]
    if service == "conversation":
        turn.conversation(chance.choice(organization.talkers))
    elif service == "panel":
        turn.panel(chance.choice(organization.panels))
    elif service == "workflow":
        turn.workflow(chance.choice(organization.workflows))
    else:
        turn.solution()
