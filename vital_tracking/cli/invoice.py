"""`vital-tracking invoice`: what an organization used in a month, by service and model, and what else it cost, to the cent."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final

import typer

from vital_tracking.cli.render import filters
from vital_tracking.cli.render.columns import Column, fitted
from vital_tracking.cli.render.console import as_csv, as_json, console, printable, say
from vital_tracking.cli.render.options import zone
from vital_tracking.cli.render.session import Csv, Json, one_organization, opened
from vital_tracking.cli.render.times import days_text, month
from vital_tracking.errors import StoreRejected, VitalError
from vital_tracking.queries.csv import plain
from vital_tracking.queries.invoice import Invoice, InvoiceLine, invoice
from vital_tracking.queries.words import counted, usd

_UTC: Final = "UTC"
_CSV: Final = (
    *("organization", "since", "until", "timezone", "line", "service", "provider", "model", "calls", "unpriced_calls"),
    *("estimated_calls", "prompt_tokens", "completion_tokens", "cost", "amount"),
    *("cost_type", "resource", "unit", "quantity", "costs", "unpriced_costs"),
)


def invoice_command(
    month_: Annotated[str, typer.Argument(metavar="MONTH", help="Such as 2026-11.")],
    organization: Annotated[str | None, typer.Option(help="Whose; by default that of VITAL_ORGANIZATION_ID.")] = None,
    timezone: filters.Timezone = _UTC,
    json_: Json = False,
    csv_: Csv = False,
) -> None:
    """Show what an organization used in a month: every service and model, fees and other costs apart, and what has no price.

    The table is in cents, and adds up: the total is rounded to the cent, each line is cut off, and the cents that are then
    missing go to the lines that lost most. What a line cost exactly stands beside it; JSON and CSV hold both.

    \b
    Examples:
      vital-tracking invoice 2026-11 --organization acme
      vital-tracking invoice 2026-11 --organization acme --timezone Europe/Berlin --csv > acme-2026-11.csv
    """
    zoned = timezone if timezone == _UTC else zone(timezone)
    since, until = month(month_, zoned)
    whose = one_organization(organization)
    with opened() as store:
        try:
            bill = invoice(store, whose, since=since, until=until, timezone=zoned)
        except StoreRejected as error:
            if error.sqlstate != _GONE:
                raise
            raise VitalError(
                "Calls of this month are gone by age, and with them what parts of days cost: days of UTC are still known. "
                "Leave --timezone out."
            ) from None
    if json_:
        as_json(bill)
    elif csv_:
        as_csv(list(_rows(bill)), _CSV)
    else:
        _show(bill)


_GONE: Final = "22VT1"


def _show(bill: Invoice) -> None:
    days = days_text(bill.since, bill.until, bill.timezone)
    say(printable(f"Invoice for organization {bill.organization}, {days} ({bill.timezone})"))
    if not bill.lines:
        if bill.since > datetime.now(UTC):
            say("The month has not begun.")
        else:
            say("Nothing was used. Which organizations there are: vital-tracking report organizations")
        return
    console.print(fitted("", _COLUMNS, list(_lines(bill))))
    if bill.unpriced_calls:
        models = sorted({line.model or "(no model)" for line in bill.lines if line.unpriced_calls})
        say(
            printable(
                f"Not in it: {counted(bill.unpriced_calls, 'call')} without a known price, of {', '.join(models)}. "
                "To price them: vital-tracking prices set MODEL --input USD --output USD, then: vital-tracking reprice"
            )
        )
    if bill.unpriced_costs:
        say(
            f"Not in it: {counted(bill.unpriced_costs, 'other cost')} without a known price. How to price them: docs/platform.md"
        )
    if bill.other_cost:
        say(f"Calls to models {usd(bill.model_cost)}, other costs {usd(bill.other_cost)}.")
    if bill.estimated_calls:
        say(f"In it by estimated tokens, since nobody reported any: {counted(bill.estimated_calls, 'call')}.")
    say(f"Exactly {usd(bill.cost)}; in cents by largest remainders, so that the lines add up to the total.")


def _lines(bill: Invoice) -> Iterator[InvoiceLine | tuple[str, Decimal, Decimal]]:
    """The lines, after those of each service what they come to together, and the total."""
    subtotals = bill.subtotals()
    for service in subtotals:
        lines = [line for line in bill.lines if line.group == service]
        yield from lines
        if len(subtotals) > 1 and len(lines) > 1:
            yield f"all of {service or '(no service)'}", *subtotals[service]
    yield "total", bill.cost, bill.amount


def _count(line: InvoiceLine | tuple[str, Decimal, Decimal], *names: str) -> str:
    if isinstance(line, tuple) or line.kind != "tokens":
        return ""
    return f"{sum(getattr(line, name) for name in names):,}"


def _model(line: InvoiceLine | tuple[str, Decimal, Decimal]) -> str:
    if isinstance(line, tuple):
        return ""
    if line.kind == "other":
        return _used(line)
    model = line.model or "(no model)"
    if line.kind == "fees":
        return f"{model}: fees"
    return f"{model}: unpriced" if line.calls and line.unpriced_calls == line.calls else model


def _used(line: InvoiceLine) -> str:
    """What is no call: for what, of what, and how much."""
    what = " / ".join(part for part in (line.service, line.resource) if part)
    much = f"{plain(line.quantity)} {line.unit or ''}".strip() if line.quantity is not None else ""
    said = ": ".join(part for part in (what, much) if part) or "-"
    return f"{said}: unpriced" if line.unpriced_costs == line.costs else said


def _unpriced(line: InvoiceLine | tuple[str, Decimal, Decimal]) -> str:
    if not isinstance(line, tuple) and line.kind == "other":
        return f"{line.unpriced_costs:,}" if line.unpriced_costs else ""
    return "" if _count(line, "unpriced_calls") == "0" else _count(line, "unpriced_calls")


def _provider(line: InvoiceLine | tuple[str, Decimal, Decimal]) -> str:
    return "" if isinstance(line, tuple) else str(line.cost_type or line.provider or "-")


def _cents(amount: Decimal | None) -> str:
    return "-" if amount is None else f"{amount:,.2f}"


_COLUMNS: Final = (
    Column("service", False, lambda line: line[0] if isinstance(line, tuple) else line.group or "(no service)"),
    Column("provider", False, _provider, 4),
    Column("model", False, _model),
    Column("calls", True, lambda line: _count(line, "calls"), 2),
    Column("unpriced", True, _unpriced, 1),
    Column("tokens", True, lambda line: _count(line, "prompt_tokens", "completion_tokens"), 3),
    Column("exactly", True, lambda line: usd(line[1] if isinstance(line, tuple) else line.cost), 5),
    Column("USD", True, lambda line: _cents(line[2] if isinstance(line, tuple) else line.amount)),
)


def _rows(bill: Invoice) -> Iterator[dict[str, Any]]:
    """The lines, and the total as the last row."""
    head = {"organization": bill.organization, "since": bill.since, "until": bill.until, "timezone": bill.timezone}
    for line in bill.lines:
        facts = {name: getattr(line, name) for name in _CSV if name not in head and name != "line"}
        yield {**head, "line": line.kind, **facts}
    counts = {"calls": bill.calls, "unpriced_calls": bill.unpriced_calls, "estimated_calls": bill.estimated_calls}
    tokens = {name: sum(getattr(line, name) for line in bill.lines) for name in ("prompt_tokens", "completion_tokens")}
    others = {name: sum(getattr(line, name) for line in bill.lines) for name in ("costs", "unpriced_costs")}
    yield {**head, "line": "total", **counts, **tokens, **others, "cost": bill.cost, "amount": bill.amount}
