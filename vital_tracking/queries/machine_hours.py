"""How busy the machines are on which a team runs models itself, and pays for by the hour."""

from __future__ import annotations

from datetime import datetime

from typing_extensions import TypedDict

from vital_tracking.queries.answers import Amount, answer_type, typed
from vital_tracking.stores import Store


@answer_type
class MachineHour(TypedDict):
    """An hour (UTC) for which machines of a model were billed: how many hours of machines, and what they cost in US dollars.

    `calls` began in it; of these `untimed_calls` have no latency. `busy_s` are seconds of machines that calls kept busy, each
    call one machine, so at most; `most_in_flight` is how many calls there were at once. Costs without a price are in no amount.
    """

    model: str
    hour: datetime
    machine_hours: Amount
    cost_usd: Amount
    unpriced_costs: int
    calls: int
    untimed_calls: int
    busy_s: Amount
    most_in_flight: int


@answer_type
class MachineHours(TypedDict):
    """The hours by model and time; and the resources that are billed by the hour and are no name of a model that was called."""

    rows: list[MachineHour]
    not_called: list[str]


def machine_hours(store: Store, since: datetime, until: datetime, organization: str | None = None) -> MachineHours:
    """The hours between two moments for which machines were billed that serve models of the team's own.

    These are costs (`track_cost`) of the type compute, counted in hours, whose resource is the name of a model that was called.
    Of an organization they are the machines booked to it, with the calls of all that used the model. Raises StoreError.
    """
    return typed(MachineHours, store.call("machine_hours_v1", since=since, until=until, organization=organization))
