"""The form of a budget: its fields as people fill them in, what is wrong with them, and the budget that they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from pydantic import ValidationError

from vital_tracking.core.entities import ACTIONS, ENTITY_TYPES, METRICS, PERIODS
from vital_tracking.queries.zones import exact_zone
from vital_tracking.web import numbers
from vital_tracking.web.api.budgets import BudgetWanted

KEY_FIELDS: Final = ("organization_id", "entity_type", "entity_id", "metric", "action")
FIELDS: Final = (
    *KEY_FIELDS, *PERIODS.values(), "alert_thresholds", "throttle_interval_s", "downgrade_to", "zone", "enforce", "strict",
    "when_unavailable",
)  # fmt: skip
CHOICES: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "entity_type": tuple((name, "agent tier" if name == "tier" else name) for name in ENTITY_TYPES),
    "metric": tuple((name, {"cost_usd": "US dollars"}.get(name, name)) for name in METRICS),
    "action": tuple((name, {"alert": "alert, stop nothing"}.get(name, name)) for name in ACTIONS),
}
_USUAL: Final = {"entity_type": "user", "entity_id": "*", "metric": "cost_usd", "action": "alert", "zone": "UTC",
                 "alert_thresholds": "50, 80, 100", "enforce": "true", "strict": "false",
                 "when_unavailable": "allow"}  # fmt: skip
_LONGEST: Final = 300


@dataclass(frozen=True, slots=True)
class BudgetForm:
    """What the fields hold, what is wrong with each, and what is wrong with all together.

    `fixed`: the key cannot change; `new`: an organization may be marked as new.
    """

    values: Mapping[str, str]
    errors: dict[str, str] = field(default_factory=dict)
    message: str = ""
    fixed: bool = False
    new: bool = False
    organizations: list[str] | None = None


def usual() -> dict[str, str]:
    """The fields of a budget that is not there yet."""
    return {name: _USUAL.get(name, "") for name in FIELDS}


def filled(given: Mapping[str, Any], usual: Mapping[str, str]) -> dict[str, str]:
    """The fields as they were sent; what was not sent is as usual."""
    return {name: str(given[name])[:_LONGEST].strip() if name in given else usual[name] for name in FIELDS}


def of_budget(budget: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a budget that is stored."""
    known = {**budget, "zone": budget["timezone"]}
    values = {name: "" if known[name] is None else _shown(known[name]) for name in FIELDS}
    return {**values, "alert_thresholds": ", ".join(_shown(share * 100) for share in budget["alert_thresholds"])}


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value.normalize():f}" if isinstance(value, Decimal) else str(value)


def wanted(values: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The columns that are asked for, as `set_budget` takes them, and what is wrong with which field."""
    given: dict[str, Any] = {name: value or None for name, value in values.items() if name != "zone"}
    given["timezone"] = values["zone"] or None
    given["entity_id"] = values["entity_id"] or "*"
    errors: dict[str, str] = {}
    for name in PERIODS.values():
        given[name] = values[name].removeprefix("$").strip() or None
    given["alert_thresholds"] = _shares(values["alert_thresholds"], errors)
    if values["zone"]:
        try:
            exact_zone(values["zone"])
        except ValueError as wrong:
            errors["zone"] = f"This {wrong}."
    if all(given[name] is None for name in PERIODS.values()):
        errors["daily_limit"] = "A budget needs a limit: give at least one of the four."
    try:
        budget = BudgetWanted(**{name: value for name, value in given.items() if value is not None or name not in _SET})
    except ValidationError as wrong:
        for one in wrong.errors():
            name = str(one["loc"][0]) if one["loc"] else ""
            errors.setdefault("zone" if name == "timezone" else name, _said(name))
        return {}, errors
    for name in PERIODS.values():
        limit = getattr(budget, name)
        if limit is not None and budget.metric != "cost_usd" and limit != limit.to_integral_value():
            errors[name] = f"Give a whole number of {budget.metric}."
    return budget.columns, errors


_SET: Final = ("entity_type", "metric", "action")
"""Fields that a budget cannot be without."""


def _said(name: str) -> str:
    if name in PERIODS.values():
        return "Give an amount such as 5 or 0.50, not negative, or nothing."
    if name in CHOICES:
        return f"Choose one of {', '.join(value for value, _ in CHOICES[name])}."
    if name == "throttle_interval_s":
        return "Give seconds, more than 0 and at most 86,400."
    return "This cannot be taken: it is too long, or nothing that this field knows."


def _shares(text: str, errors: dict[str, str]) -> list[str]:
    try:
        shares = [Decimal(part.strip().removesuffix("%")) / 100 for part in text.split(",") if part.strip()]
        if len(shares) <= 10 and all(share.is_finite() and 0 < share <= 10 for share in shares):
            return [numbers.machine(share) for share in sorted(set(shares))]
    except InvalidOperation:
        pass
    errors["alert_thresholds"] = "Give percent of the limit such as 50, 80, 100; above 0, up to 1000, at most ten."
    return []
