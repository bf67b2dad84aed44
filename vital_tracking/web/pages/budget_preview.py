"""What a budget would have done, as cards and a table by day with its chart."""

from __future__ import annotations

from typing import Final

from vital_tracking.alerts.wording import limit_text
from vital_tracking.queries.preview import BudgetPreview, preview_totals
from vital_tracking.web import numbers
from vital_tracking.web.page import Card, Chart, Column, Part

_MET: Final = {
    "alert": ("stopped", "Over the limit"),
    "throttle": ("slowed", "Slowed down"),
    "downgrade": ("downgraded", "Sent to a cheaper model"),
    "block": ("stopped", "Stopped"),
}


def preview_shown(found: BudgetPreview, metric: str, action: str) -> tuple[list[Card], list[Part]]:
    """The cards and the part of a preview, in what its action does."""
    total = preview_totals(found)
    field, label = _MET[action]
    met = {"stopped": total["stopped"], "slowed": total["slowed"], "downgraded": total["downgraded"]}[field]
    unpriced = f"{total['stopped_unpriced']:,} more have no known price" if total["stopped_unpriced"] else ""
    cards = [
        Card("Calls that it counts", numbers.count(total["calls"]), note=limit_text(total["amount"], metric)),
        Card("Met a limit", f"{found['entities_met']:,} of {found['entities']:,}", note="of those that it counts"),
        Card("Alerts", numbers.count(sum(total["alerts"].values())), note=_by_threshold(total["alerts"])),
    ]
    if action != "alert":
        cards.insert(1, Card(label, numbers.count(met), note="calls"))
    if action == "block":
        cards.insert(2, Card("Cost of those", numbers.usd(total["stopped_cost"]), note=unpriced))
    unit = "usd" if metric == "cost_usd" else "tokens"
    columns = [
        Column("day", "Day", "day"),
        Column("calls", "Calls", "calls"),
        Column("amount", {"cost_usd": "Cost", "tokens": "Tokens", "calls": "Counted"}[metric], unit),  # type: ignore[arg-type]
        Column("raised", "Alerts", "calls"),
    ]
    if action != "alert":
        columns.append(Column(field, label, "calls"))
    if action == "block":
        columns.append(Column("stopped_cost", "Cost of those", "usd"))
    rows = [{**day, "raised": sum(day["alerts"].values())} for day in found["days"]]
    drawn = ("raised",) if action == "alert" else ("calls", field)
    part = Part(
        "preview",
        "What it would have done in the last 30 days",
        columns,
        rows,
        chart=Chart("bars", "day", drawn),
        wide=True,
    )
    return cards, [part]


def _by_threshold(alerts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} at {float(share) * 100:g} %" for share, count in alerts.items())
