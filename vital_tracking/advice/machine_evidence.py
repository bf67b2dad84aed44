"""How busy the machines are on which a team runs models itself: the evidence of resource_optimization and auto_scaling.

Both are about the same hours, so only one of them can be had in full: the one that saves more counts, the other is told beside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import cached_property
from itertools import groupby
from typing import Final

from vital_tracking.advice.recommendation import Saving
from vital_tracking.core.cost import MONEY, ZERO, exact_sum
from vital_tracking.queries.explore import Period
from vital_tracking.queries.machine_hours import MachineHour, machine_hours
from vital_tracking.stores import Store

WELL_USED: Final = Decimal("0.7")
"""The share of billed time that machines may well be busy: what is below it leaves room for fewer or smaller ones."""

START_UP_HOURS: Final = 1
"""Of each run of idle hours so many are billed all the same: the machine is started before the next call comes."""

_HOUR_S: Final = Decimal(3600)
_AN_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True)
class Machine:
    """The machines of one model, by the hours (UTC) for which they were billed, in their order."""

    model: str
    hours: Sequence[MachineHour]

    @cached_property
    def cost(self) -> Decimal:
        """US dollars of all hours."""
        return _cost(self.hours)

    @cached_property
    def billed_hours(self) -> Decimal:
        """Hours of machines that were billed."""
        return sum((hour["machine_hours"] for hour in self.hours), ZERO)

    @cached_property
    def busy_hours(self) -> Decimal:
        """Hours of machines in which calls were in flight; never more than were billed."""
        return min(sum((hour["busy_s"] for hour in self.hours), ZERO) / _HOUR_S, self.billed_hours)

    @property
    def utilisation(self) -> Decimal:
        """The busy part of the billed hours, from 0 to 1."""
        return self.busy_hours / self.billed_hours

    @property
    def calls(self) -> int:
        """The calls that began in these hours."""
        return sum(hour["calls"] for hour in self.hours)

    @property
    def untimed_calls(self) -> int:
        """Calls of which nobody knows how long they took."""
        return sum(hour["untimed_calls"] for hour in self.hours)

    @property
    def single(self) -> bool:
        """Whether no hour had more than one machine."""
        return all(hour["machine_hours"] <= 1 for hour in self.hours)

    @property
    def unknown(self) -> str | None:
        """What is missing to say anything of it; None where nothing is."""
        if unpriced := sum(hour["unpriced_costs"] for hour in self.hours):
            return (
                f"{self.model} has {unpriced:,} hours without a price (vital-tracking prices resource set compute USD)"
            )
        if self.untimed_calls:
            calls = f"{self.untimed_calls:,} of {self.calls:,} calls"
            return f"{calls} of {self.model} have no latency, so nobody knows when it was busy"
        return None

    @cached_property
    def smaller(self) -> Saving | None:
        """What fewer or smaller machines would save: None where they are busy for seven tenths of the billed time.

        Expected: as much as brings them there. At most: all the time in which they are not busy. At least: machines for which
        there was no call even when most were in flight; 0 where one machine is billed, since nobody can have less than one.
        """
        if self.utilisation >= WELL_USED:
            return None
        expected = MONEY.multiply(self.cost, 1 - self.utilisation / WELL_USED)
        never = sum((_never_needed(hour) for hour in self.hours), ZERO)
        return Saving(min(never, expected), expected, MONEY.multiply(self.cost, 1 - self.utilisation))

    @cached_property
    def switched_off(self) -> Saving | None:
        """What switching off would save in hours in which nothing was called: None where no run of them is longer than a start.

        At most: exactly these hours. Expected: those of runs of consecutive idle hours, but for the last one of each run, in
        which the machine starts. At least: of these, the hours of the day (UTC) in which nothing was called on any day, as a
        fixed timetable would have it.
        """
        runs = [run[:-START_UP_HOURS] for run in self.idle_runs]
        off = [hour for run in runs for hour in run]
        if not off:
            return None
        busy = {hour["hour"].hour for hour in self.hours if not is_idle(hour)}
        low = _cost([hour for hour in off if hour["hour"].hour not in busy])
        return Saving(low, _cost(off), _cost([hour for run in self.idle_runs for hour in run]))

    @cached_property
    def idle_runs(self) -> Sequence[Sequence[MachineHour]]:
        """The runs of consecutive billed hours in which nothing was called."""
        numbered = enumerate(hour for hour in self.hours if is_idle(hour))
        runs = groupby(numbered, lambda pair: pair[1]["hour"] - pair[0] * _AN_HOUR)
        return [[hour for _, hour in run] for _, run in runs]

    @property
    def better_switched_off(self) -> bool:
        """Whether switching off saves more than fewer machines; then that one counts."""
        off, smaller = self.switched_off, self.smaller
        return off is not None and (smaller is None or off.expected > smaller.expected)


def is_idle(hour: MachineHour) -> bool:
    """Whether nothing was called in an hour, and nothing was in flight."""
    return not hour["calls"] and not hour["busy_s"]


def _cost(hours: Sequence[MachineHour]) -> Decimal:
    return exact_sum(hour["cost_usd"] for hour in hours)


def _never_needed(hour: MachineHour) -> Decimal:
    needed = max(hour["most_in_flight"], 1)
    if hour["machine_hours"] <= needed:
        return ZERO
    return MONEY.multiply(hour["cost_usd"], 1 - needed / hour["machine_hours"])


@dataclass(frozen=True)
class MachineEvidence:
    """The machines of models that were called in a period, and resources that are billed by the hour for none (`not_called`)."""

    period: Period
    organization: str | None
    machines: Sequence[Machine]
    not_called: Sequence[str] = ()

    def known(self) -> Iterator[Machine]:
        """The machines of which everything is known that advice needs."""
        return (machine for machine in self.machines if machine.unknown is None)

    @property
    def missing(self) -> str:
        """Why there is nothing to say of some machines, or of any: with what would have to be recorded."""
        if self.machines:
            return "; ".join(filter(None, (machine.unknown for machine in self.machines)))
        named = f" ({', '.join(self.not_called[:5])} are none)" if self.not_called else ""
        return (
            f"no compute cost by the hour bears the name of a model that was called{named}: record each hour with "
            'track_cost("compute", unit="hour", resource=MODEL)'
        )


def read_machine_evidence(store: Store, period: Period, organization: str | None = None) -> MachineEvidence:
    """The machines of a period, of an organization or of all that the asker may see. Raises StoreError."""
    found = machine_hours(store, period.since, period.until, organization)
    rows = sorted(found["rows"], key=lambda row: (row["model"].lower(), row["hour"]))
    machines = []
    for _, hours in groupby(rows, lambda row: row["model"].lower()):
        its = list(hours)
        machines.append(Machine(its[-1]["model"], its))
    return MachineEvidence(period, organization, machines, found["not_called"])
