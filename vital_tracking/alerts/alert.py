"""An alert of a budget, and the message that tells of one or several."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple, TypeAlias

from vital_tracking.alerts.wording import (
    abuse_text,
    at_the_limit,
    entity,
    held_text,
    percent,
    period_now,
    spent_text,
    used,
)

logger = logging.getLogger("vital_tracking.budgets")


class Notification(NamedTuple):
    """A message to people: a title of one line, plain text, and `urgent`: a limit was reached.

    Of a report the text is Markdown, and `html` the same for services that show that, such as mail.
    """

    title: str
    body: str
    urgent: bool = False
    html: str = ""


_LISTED: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetAlert:
    """A threshold of a budget that was crossed in one of its windows.

    `limit` and `spent` are in the budget's `metric` (US dollars, tokens or calls); `spent` is what it was at that moment.
    `threshold` is the share of the limit: 0.8 is four fifths; 0 means that a call did not fit under the limit. `held` is what was
    set aside for other calls then; None where the alert is about what was spent alone.
    An alert with a `pattern` is about what looks like abuse: `spent` is what was counted in the `period`, `limit` what it had to
    come to, `severity` low, medium or high.
    `enforce` is False for a budget that only watches. `window_ends_at` is None where the window never ends.
    """

    organization_id: str | None
    entity_type: str
    entity_id: str
    metric: str
    action: str
    enforce: bool
    period: str
    window_starts_at: datetime
    window_ends_at: datetime | None
    threshold: Decimal
    limit: Decimal
    spent: Decimal
    created_at: datetime
    held: Decimal | None = None
    pattern: str | None = None
    severity: str | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> BudgetAlert:
        """An alert from the JSON of the database; KeyError, TypeError or ValueError where that is no alert."""
        return cls(
            organization_id=row["organization_id"],
            entity_type=row["entity_type"],
            entity_id=row["entity_id"],
            metric=row["metric"],
            action=row["action"],
            enforce=row["enforce"],
            period=row["period"],
            window_starts_at=datetime.fromisoformat(row["window_starts_at"]),
            window_ends_at=datetime.fromisoformat(row["window_ends_at"]) if row["window_ends_at"] else None,
            threshold=Decimal(str(row["threshold"])),
            limit=Decimal(str(row["limit_amount"])),
            spent=Decimal(str(row["spent"])),
            created_at=datetime.fromisoformat(row["created_at"]),
            held=None if row.get("held") is None else Decimal(str(row["held"])),
            pattern=row.get("pattern"),
            severity=row.get("severity"),
        )

    @property
    def reached(self) -> bool:
        """Whether the limit itself is reached, and not only a share of it; of abuse, whether it is severe."""
        if self.pattern:
            return self.severity == "high"
        return self.threshold >= 1 or self.refused or self.spent >= self.limit

    @property
    def refused(self) -> bool:
        """Whether this tells of a call that did not fit under the limit any more (`threshold` 0)."""
        return not self.threshold

    @property
    def message(self) -> str:
        """One sentence for people: user u-1 has spent $4.02 of $5.00 today (80 %); at the limit: block.

        Where a call did not fit, what was held for others is told as well.
        """
        whose = entity(self.entity_type, self.entity_id, self.organization_id)
        if self.pattern:
            return abuse_text(self.pattern, self.severity, whose, self.spent, self.metric, self.period, self.action)
        share = f" ({percent(self.spent, self.limit)} %)" if self.limit else ""
        held = f", and {held_text(self.held, self.metric)}" if self.held else ""
        return (
            f"{whose} has {used(self.metric)} {spent_text(self.spent, self.limit, self.metric)} {period_now(self.period)}"
            f"{share}{held}; {at_the_limit(self.action, enforce=self.enforce, reached=self.reached, fits=not self.refused)}"
        )


Digest: TypeAlias = Callable[[Sequence[BudgetAlert]], Notification]
"""Turns alerts into one notification."""


def read(rows: Iterable[Mapping[str, Any]] | None) -> dict[int, BudgetAlert]:
    """Alerts by their ids from the JSON of the database; a row that cannot be read is left out and logged."""
    alerts: dict[int, BudgetAlert] = {}
    for row in rows or ():
        try:
            alerts[int(row["id"])] = BudgetAlert.from_row(row)
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
            logger.warning("An alert of the database cannot be read (%s).", type(error).__name__)
    return alerts


def digest(alerts: Sequence[BudgetAlert]) -> Notification:
    """One notification for alerts: those that reached their limit first, then those of the highest thresholds."""
    first = sorted(alerts, key=lambda alert: (alert.reached, alert.threshold), reverse=True)
    reached = sum(alert.reached for alert in alerts)
    if len(alerts) == 1:
        whose = entity(first[0].entity_type, first[0].entity_id, first[0].organization_id)
        title = f"Abuse? {whose}" if first[0].pattern else f"Budget {'reached' if reached else 'alert'}: {whose}"
    else:
        found = sum(alert.pattern is not None for alert in alerts)
        title = (
            f"{len(alerts)} budget alerts" if not found else f"{len(alerts)} alerts, {found} of what looks like abuse"
        )
        if reached and not found:
            title += f", {reached} {'limit' if reached == 1 else 'limits'} reached"
    lines = [alert.message for alert in first[:_LISTED]]
    if len(alerts) > _LISTED:
        lines.append(f"and {len(alerts) - _LISTED} more. See: vital-tracking alerts list")
    return Notification(title, "\n".join(lines), urgent=bool(reached))
