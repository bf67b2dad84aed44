"""`vital-tracking budgets set --instead` and `budgets raise`: other limits for one of those who have one each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer

from vital_tracking.alerts.wording import entity, limit_text, local_time
from vital_tracking.cli.budgets.options import budget_entity, limit_of
from vital_tracking.cli.budgets.tables import period_name
from vital_tracking.cli.render import options
from vital_tracking.cli.render.console import as_json, say
from vital_tracking.cli.render.organizations import New, check_organizations
from vital_tracking.cli.render.session import opened
from vital_tracking.core.days import known_day
from vital_tracking.core.entities import ACTIONS, ENTITY_TYPES, METRICS, PERIODS
from vital_tracking.errors import StoreRejected, VitalError
from vital_tracking.queries import budgets as queries
from vital_tracking.queries.budgets import LimitInForce
from vital_tracking.queries.organizations import organizations_named

_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_SPAN: Final = re.compile(r"(\d{1,4})\s*(h|d)")


def replace_limits(given: Mapping[str, Any], *, new: bool, json_: bool) -> None:
    """Put the limits of one entity in place of those that each of its kind has."""
    whose = entity(given["entity_type"], given["entity_id"], given["organization_id"])
    if given["entity_id"] == "*":
        raise typer.BadParameter(
            "--instead is for one of them: name it, such as: budgets set user u-1 --daily 10 --instead"
        )
    limits = {column: given[column] for column in PERIODS.values() if column in given}
    if not limits:
        raise typer.BadParameter(
            "--instead needs a limit: give --minute, --daily, --monthly or --total, such as --daily 10"
        )
    with opened() as store:
        check_organizations(store, organizations_named(given).values(), new=new)
        found = queries.override_budget(store, given)
    everybody = [row for row in found if row["entity_id"] == "*"]
    met = {PERIODS[row["period"]] for row in everybody if given["action"] in (None, row["action"])}
    if missing := [column for column, limit in limits.items() if limit is not None and column not in met]:
        periods = ", ".join(period for period, column in PERIODS.items() if column in missing)
        say(
            f"Mind: no budget of each {given['entity_type']} has such a limit ({periods}), so there is nothing to replace yet."
        )
    _tell(whose, given["metric"], found, json_=json_)


def raise_limits(
    entity_type: Annotated[str, typer.Argument(help=f"{options.either(ENTITY_TYPES)}.")],
    entity_id: Annotated[str, typer.Argument(help="Which one.")],
    amount: Annotated[str, typer.Argument(help="How much more, such as +10; `none` ends all raises now.")],
    until: Annotated[
        str | None, typer.Option(help="When it ends: tomorrow, a day such as 2026-12-24, or a span such as 12h or 3d.")
    ] = None,
    metric: Annotated[str, typer.Option(help="What is limited: cost_usd (US dollars), tokens or calls.")] = "cost_usd",
    action: Annotated[str | None, typer.Option(help="Only budgets with this action; by default all.")] = None,
    organization: Annotated[str | None, typer.Option(help="Of this organization's budgets.")] = None,
    new: New = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the limits in force as JSON.")] = False,
) -> None:
    """Give one user, session or other entity more until a moment: the amount is added to each of its limits."""
    entity_type, entity_id = budget_entity(entity_type, entity_id)
    if entity_id == "*":
        raise typer.BadParameter(
            "a raise is for one of them: name it, such as: budgets raise user u-1 +10 --until tomorrow"
        )
    given: dict[str, Any] = {
        "organization_id": options.named(organization, "--organization") if organization is not None else None,
        "entity_type": entity_type,
        "entity_id": entity_id,
        "metric": options.chosen(metric, "--metric", METRICS),
        "action": options.chosen(action, "--action", ACTIONS) if action is not None else None,
    }
    more = limit_of(amount.strip().removeprefix("+"), "the amount", metric)
    if more is not None:
        if until is None:
            raise typer.BadParameter("say when it ends: --until tomorrow, --until 2026-12-24 or --until 12h")
        given |= {"raise_by": more, "until": _until(until)}
    with opened() as store:
        check_organizations(store, organizations_named(given).values(), new=new)
        try:
            found = queries.raise_budget(store, given)
        except StoreRejected as error:
            hint = "" if error.problem is not None else " It must end later than now."
            raise VitalError(f"{error}{hint}") from None
    whose = entity(entity_type, entity_id, organization)
    if not found:
        say(f"Mind: no budget in {metric} gives {whose} a limit, so there is nothing to raise yet.")
    _tell(whose, metric, found, json_=json_)


def _until(text: str) -> str:
    """When a raise ends, as the database takes it: a day, or an instant."""
    wanted = text.strip().lower()
    if wanted == "tomorrow":
        return wanted
    if match := _SPAN.fullmatch(wanted):
        hours = int(match[1]) * (24 if match[2] == "d" else 1)
        return (datetime.now(UTC) + timedelta(hours=hours)).isoformat()
    try:
        moment = known_day(datetime.fromisoformat(text.strip()))
    except ValueError as wrong:
        of = f": {wrong}" if _DAY.fullmatch(wanted) else ""
        raise typer.BadParameter(
            f"--until takes tomorrow, a day such as 2026-12-24, or a span such as 12h or 3d, not {text!r}{of}"
        ) from None
    if _DAY.fullmatch(wanted):
        return wanted
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


def _tell(whose: str, metric: str, found: Sequence[LimitInForce], *, json_: bool) -> None:
    if json_:
        as_json(found)
        return
    for row in found:
        changed = row["in_force"] != row["limit_amount"]
        ends = f", until {local_time(row['until'], row['timezone'])}" if changed and row["until"] else ""
        each = f" (each has {limit_text(row['limit_amount'], metric)})" if changed else ""
        say(
            f"{whose}, {period_name(row['period'])}: {limit_text(row['in_force'], metric)}{ends}{each}; "
            f"budget {row['budget_id']}, {row['action']}"
        )
