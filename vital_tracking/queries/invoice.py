"""A bill of what an organization used, by service and model, that adds up to the cent.

Exact amounts are US dollars as Decimal with all their digits. Amounts in cents are rounded by largest remainders: the total is
rounded to the cent (half a cent up), every line is cut off to whole cents, and the cents that are then missing go one by one to
the lines that lost most, the dearer first where they lost the same. So the lines add up to the total, and each is less than a
cent from its exact amount.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal
from typing import Final

from typing_extensions import TypedDict

from vital_tracking.core.cost import MONEY
from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.stores import Store

_CENT: Final = Decimal("0.01")


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceLine:
    """What one service paid for one model's tokens, or for its fees (`kind`: `tokens` or `fees`).

    `cost` is exact, `amount` in cents as printed. Calls and tokens stand on the line for tokens. `unpriced_calls` have no known
    price and are in no amount; `estimated_calls` are in it by estimated tokens.
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
    cost: Decimal
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice:
    """A bill from `since` up to, and without, `until`. `cost` is exact; `amount`, in cents, is the sum of the lines' amounts."""

    organization: str
    since: datetime
    until: datetime
    timezone: str
    cost: Decimal
    amount: Decimal
    calls: int
    unpriced_calls: int
    estimated_calls: int
    lines: tuple[InvoiceLine, ...]

    def subtotals(self) -> dict[str | None, tuple[Decimal, Decimal]]:
        """What each service cost exactly, and in cents, in the order of the lines."""
        found: dict[str | None, tuple[Decimal, Decimal]] = {}
        for line in self.lines:
            cost, amount = found.get(line.service, (Decimal(0), Decimal(0)))
            found[line.service] = MONEY.add(cost, line.cost), MONEY.add(amount, line.amount)
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
    parts: list[tuple[_Used, str, Decimal]] = []
    for row in used:
        parts.append((row, "tokens", MONEY.add(row["input_cost"], row["output_cost"])))
        if row["fees"]:
            parts.append((row, "fees", row["fees"]))
    exact = Decimal(0)
    for _, _, cost in parts:
        exact = MONEY.add(exact, cost)
    amounts = in_cents([cost for _, _, cost in parts])
    return Invoice(
        organization=organization,
        since=since,
        until=until,
        timezone=timezone,
        cost=exact,
        amount=sum(amounts, Decimal(0)).quantize(_CENT),
        calls=sum(row["calls"] for row in used),
        unpriced_calls=sum(row["unpriced_calls"] for row in used),
        estimated_calls=sum(row["estimated_calls"] for row in used),
        lines=tuple(_line(row, kind, cost, amount) for (row, kind, cost), amount in zip(parts, amounts, strict=True)),
    )


def in_cents(costs: Sequence[Decimal]) -> list[Decimal]:
    """Amounts in cents that add up to the rounded sum of these costs, none of them below 0, by largest remainders."""
    exact = Decimal(0)
    for cost in costs:
        exact = MONEY.add(exact, cost)
    whole = [cost.quantize(_CENT, ROUND_FLOOR, MONEY) for cost in costs]
    missing = int((exact.quantize(_CENT, ROUND_HALF_UP, MONEY) - sum(whole, Decimal(0))) / _CENT)
    lost = sorted(range(len(costs)), key=lambda n: (whole[n] - costs[n], -costs[n], n))
    for number in lost[:missing]:
        whole[number] += _CENT
    return whole


def _line(row: _Used, kind: str, cost: Decimal, amount: Decimal) -> InvoiceLine:
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
        cost=cost,
        amount=amount,
    )
