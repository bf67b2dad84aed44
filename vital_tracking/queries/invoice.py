"""A bill of what an organization used, by service and model, and of its other costs, that adds up to the cent.

Exact amounts are US dollars as Decimal with all their digits. Amounts in cents are rounded by largest remainders: the total is
rounded to the cent (half a cent up), every line is cut off to whole cents, and the cents that are then missing go one by one to
the lines that lost most, the dearer first where they lost the same. So the lines add up to the total, and each is less than a
cent from its exact amount. A credit, which is below 0, is cut off downwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal
from typing import Final

from typing_extensions import TypedDict

from vital_tracking.core.cost import MONEY, ZERO
from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.queries.bill import total
from vital_tracking.queries.explore import Period
from vital_tracking.queries.other_costs import explore_costs
from vital_tracking.stores import Store

OTHER: Final = "other costs"
"""What the lines that are no calls to models stand under."""

_CENT: Final = Decimal("0.01")


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceLine:
    """What one service paid for one model's tokens, or for its fees (`kind`: `tokens` or `fees`); or, of kind `other`, what is no
    call: so much (`quantity`) of a `unit` of a `resource`, in so many `costs`.

    `cost` is exact, `amount` in cents as printed; both are None where nothing of it has a known price. Calls and tokens stand on
    the line for tokens. `unpriced_calls` and `unpriced_costs` are in no amount; `estimated_calls` are in it by estimated tokens.
    """

    kind: str
    service: str | None
    provider: str | None
    model: str | None
    calls: int
    unpriced_calls: int
    estimated_calls: int
    prompt_tokens: int
    completion_tokens: int
    cost: Decimal | None
    amount: Decimal | None
    cost_type: str | None = None
    resource: str | None = None
    unit: str | None = None
    quantity: Decimal | None = None
    costs: int = 0
    unpriced_costs: int = 0

    @property
    def group(self) -> str | None:
        """What it stands under: its service, or that it is no call."""
        return OTHER if self.kind == "other" else self.service


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice:
    """A bill from `since` up to, and without, `until`. `cost` is exact, `model_cost` its part for calls, `other_cost` the rest;
    `amount`, in cents, is the sum of the lines' amounts.
    """

    organization: str
    since: datetime
    until: datetime
    timezone: str
    cost: Decimal
    model_cost: Decimal
    other_cost: Decimal
    amount: Decimal
    calls: int
    unpriced_calls: int
    estimated_calls: int
    unpriced_costs: int
    lines: tuple[InvoiceLine, ...]

    def subtotals(self) -> dict[str | None, tuple[Decimal, Decimal]]:
        """What each service cost exactly, and in cents, in the order of the lines; other costs under OTHER."""
        found: dict[str | None, tuple[Decimal, Decimal]] = {}
        for line in self.lines:
            cost, amount = found.get(line.group, (Decimal(0), Decimal(0)))
            found[line.group] = MONEY.add(cost, line.cost or ZERO), MONEY.add(amount, line.amount or ZERO)
        return found


@answer_type
class _Used(TypedDict):
    service_type: str | None
    provider: str | None
    model: str | None
    calls: int
    failed_calls: int
    cached_calls: int
    unpriced_calls: int
    estimated_calls: int
    prompt_tokens: int
    completion_tokens: int
    input_cost: Decimal
    output_cost: Decimal
    fees: Decimal
    total_cost: Decimal


def invoice(store: Store, organization: str, *, since: datetime, until: datetime, timezone: str = "UTC") -> Invoice:
    """What an organization used from one instant to another; `timezone` says in which zone they were meant.

    Where calls are gone by age, only whole days of UTC can be billed: StoreRejected otherwise. Raises StoreError.
    """
    used = typed(list[_Used], store.call("invoice_v1", organization=organization, since=since, until=until))
    lines: list[InvoiceLine] = []
    for row in used:
        lines.append(_line(row, "tokens", MONEY.add(row["input_cost"], row["output_cost"])))
        if row["fees"]:
            lines.append(_line(row, "fees", row["fees"]))
    model_cost = total(line.cost or ZERO for line in lines)
    lines += _other_lines(store, organization, Period(since, until))
    costs = [line.cost or ZERO for line in lines]
    exact = total(costs)
    amounts = in_cents(costs)
    return Invoice(
        organization=organization,
        since=since,
        until=until,
        timezone=timezone,
        cost=exact,
        model_cost=model_cost,
        other_cost=MONEY.subtract(exact, model_cost),
        amount=sum(amounts, Decimal(0)).quantize(_CENT),
        calls=sum(row["calls"] for row in used),
        unpriced_calls=sum(row["unpriced_calls"] for row in used),
        estimated_calls=sum(row["estimated_calls"] for row in used),
        unpriced_costs=sum(line.unpriced_costs for line in lines),
        lines=tuple(
            line if line.cost is None else replace(line, amount=amount)
            for line, amount in zip(lines, amounts, strict=True)
        ),
    )


def _other_lines(store: Store, organization: str, period: Period) -> list[InvoiceLine]:
    """What is no call, by what it is of: the dearest first."""
    found = explore_costs(
        store,
        period,
        by=("cost_type", "service", "resource", "unit"),
        filters={"organization": [organization]},
        rows=100_000,
        whole=True,
    )
    return [
        InvoiceLine(
            kind="other",
            service=row["service"],
            provider=None,
            model=None,
            calls=0,
            unpriced_calls=0,
            estimated_calls=0,
            prompt_tokens=0,
            completion_tokens=0,
            cost=row["cost_usd"],
            amount=None,
            cost_type=row["cost_type"],
            resource=row["resource"],
            unit=row["unit"],
            quantity=row["quantity"],
            costs=row["costs"],
            unpriced_costs=row["unpriced_costs"],
        )
        for row in found.rows
    ]


def in_cents(costs: Sequence[Decimal]) -> list[Decimal]:
    """Amounts in cents that add up to the rounded sum of these costs by largest remainders."""
    exact = Decimal(0)
    for cost in costs:
        exact = MONEY.add(exact, cost)
    whole = [cost.quantize(_CENT, ROUND_FLOOR, MONEY) for cost in costs]
    missing = int((exact.quantize(_CENT, ROUND_HALF_UP, MONEY) - sum(whole, Decimal(0))) / _CENT)
    lost = sorted(range(len(costs)), key=lambda n: (whole[n] - costs[n], -costs[n], n))
    for number in lost[:missing]:
        whole[number] += _CENT
    return whole


def _line(row: _Used, kind: str, cost: Decimal) -> InvoiceLine:
    counts = kind == "tokens"
    return InvoiceLine(
        kind=kind,
        service=row["service_type"],
        provider=row["provider"],
        model=row["model"],
        calls=row["calls"] if counts else 0,
        unpriced_calls=row["unpriced_calls"] if counts else 0,
        estimated_calls=row["estimated_calls"] if counts else 0,
        prompt_tokens=row["prompt_tokens"] if counts else 0,
        completion_tokens=row["completion_tokens"] if counts else 0,
        cost=None if counts and row["calls"] and row["unpriced_calls"] == row["calls"] else cost,
        amount=None,
    )
