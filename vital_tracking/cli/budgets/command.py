"""`vital-tracking budgets`: what may be spent, by whom, and what happens at the limit."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Container, Sequence
from dataclasses import fields
from typing import Annotated, Any, Final, get_type_hints

import typer

from vital_tracking.alerts.wording import entity, limit_text, sentence
from vital_tracking.cli.budgets.check import check
from vital_tracking.cli.budgets.exceptions import raise_limits, replace_limits
from vital_tracking.cli.budgets.options import LIFTED, budget_entity, limit_of, thresholds_of
from vital_tracking.cli.budgets.tables import (
    RATE_IS,
    SET_ONE,
    budgets_table,
    exception_text,
    next_commands,
    remarks,
    windows_table,
)
from vital_tracking.cli.render import options
from vital_tracking.cli.render.console import as_csv, as_json, console, say
from vital_tracking.cli.render.organizations import New, check_organizations
from vital_tracking.cli.render.session import Csv, Json, Yes, opened
from vital_tracking.core.entities import ACTIONS, ENTITY_TYPES, METRICS, PERIODS
from vital_tracking.errors import StoreRejected, VitalError
from vital_tracking.queries import budgets as queries
from vital_tracking.queries.budgets import (
    BUDGET_COLUMNS,
    BUDGET_KEY,
    MOST_WINDOWS,
    WINDOW_COLUMNS,
    BudgetLimit,
    belongs,
)
from vital_tracking.queries.organizations import organizations_named
from vital_tracking.queries.outlook import Outlook, outlooks
from vital_tracking.queries.preview import MOST_PREVIEW_DAYS, PREVIEW_DAYS, UNKNOWN, preview_budget, preview_totals
from vital_tracking.queries.words import counted
from vital_tracking.stores import Store

app = typer.Typer(
    help="Budgets: what may be spent, by whom, and what happens at the limit.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("check")(check)
app.command("raise")(raise_limits)

Organization = Annotated[str | None, typer.Option(help="Only this organization's own.")]


@app.command("list")
def list_budgets(organization: Organization = None, json_: Json = False, csv_: Csv = False) -> None:
    """List the budgets, each with the window that is nearest to its limit."""
    with opened() as store:
        every = queries.all_budgets(store)["budgets"]
        rows = [row for row in every if belongs(row, organization)]
        plain = rows and not (json_ or csv_)
        fullest = queries.fullest_windows(store) if plain else {}
        exceptions = [row for row in queries.overrides(store) if belongs(row, organization)] if plain else []
    if json_:
        as_json(rows)
    elif csv_:
        as_csv(rows, BUDGET_COLUMNS)
    elif not every:
        say(f"No budgets. {SET_ONE}")
    else:
        if rows:
            console.print(budgets_table(rows, fullest))
            for exception in exceptions:
                say(exception_text(exception))
        else:
            say(f"No budgets of organization {organization}.")
        if others := sum(row["organization_id"] is None and not belongs(row, organization) for row in every):
            say(f"{counted(others, 'budget')} of no organization may count its calls too: vital-tracking budgets list")


@app.command("set")
def set_budget(
    entity_type: Annotated[
        str,
        typer.Argument(help=f"{options.either(ENTITY_TYPES)}."),
    ],
    entity_id: Annotated[str, typer.Argument(help="Which one; by default (*) each of them has its own.")] = "*",
    minute: Annotated[str | None, typer.Option(help="Limit a minute; `none` lifts it.")] = None,
    daily: Annotated[str | None, typer.Option(help="Limit a day.")] = None,
    monthly: Annotated[str | None, typer.Option(help="Limit a month.")] = None,
    total: Annotated[str | None, typer.Option(help="Limit from now on, for good.")] = None,
    metric: Annotated[str, typer.Option(help="What is limited: cost_usd (US dollars), tokens or calls.")] = "cost_usd",
    action: Annotated[
        str | None,
        typer.Option(help="At the limit: alert (the default; nothing is stopped), throttle, downgrade or block."),
    ] = None,
    every: Annotated[
        str | None, typer.Option(help="With throttle: one call each span, such as 500ms, 10s (the default) or 2m.")
    ] = None,
    downgrade_to: Annotated[
        str | None, typer.Option(help="With downgrade: only models no dearer than this one pass; `none` clears it.")
    ] = None,
    thresholds: Annotated[
        str | None, typer.Option(help="Raise an alert at these shares; by default 0.5,0.8,1.0. `none` for no alerts.")
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(help="Where days and months begin at midnight, such as Europe/Berlin; by default UTC.")
    ] = None,
    organization: Annotated[
        str | None, typer.Option(help="Count only this organization's calls; by default all, together.")
    ] = None,
    enforce: Annotated[
        bool | None, typer.Option("--enforce/--shadow", help="Shadow: stop nothing, only note what would have been.")
    ] = None,
    strict: Annotated[
        bool | None,
        typer.Option("--strict/--no-strict", help="Count a token a byte of the prompt; require max_tokens."),
    ] = None,
    when_unavailable: Annotated[
        str | None, typer.Option(help="While the database is away: allow (the default) or deny.")
    ] = None,
    instead: Annotated[
        bool,
        typer.Option("--instead", help="In place of the limits that each has (*): more, or less, for this one alone."),
    ] = False,
    new: New = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the stored budget as JSON.")] = False,
) -> None:
    """Make a budget, or change the one of the same entity, organization, metric and action in what is given."""
    given = _columns(
        entity_type,
        entity_id,
        minute,
        daily,
        monthly,
        total,
        metric,
        action,
        every,
        downgrade_to,
        thresholds,
        timezone,
        organization,
        enforce,
        strict,
        when_unavailable,
    )
    action = given["action"] if action is not None or not instead else None
    if instead:
        if given.keys() - {*BUDGET_KEY, *PERIODS.values()}:
            raise typer.BadParameter("--instead goes with limits alone: leave the other options out")
        replace_limits({**given, "action": action}, new=new, json_=json_)
        return
    with opened() as store:
        check_organizations(store, organizations_named(given).values(), new=new)
        before = queries.all_budgets(store)["budgets"]
        known = queries.find_budget(before, given)
        if all(given.get(column, known and known.get(column)) is None for column in PERIODS.values()):
            raise typer.BadParameter(
                "a budget needs a limit: give --minute, --daily, --monthly or --total, such as --daily 5"
            )
        stored = _stored(store, given)
    if json_:
        as_json(stored)
        return
    done = "made" if not known else "changed" if len(given) > len(BUDGET_KEY) else "as it was:"
    say(f"{done} budget {stored['id']}")
    console.print(budgets_table([stored]))
    say(f"\n{sentence(stored)}")
    for remark in remarks(stored, queries.beside(before, stored), queries.reached_first(before, stored)):
        say(remark)
    say("\nNext:")
    for command in next_commands(stored):
        say(f"  {command}")


def _columns(
    entity_type: str,
    entity_id: str,
    minute: str | None,
    daily: str | None,
    monthly: str | None,
    total: str | None,
    metric: str,
    action: str | None,
    every: str | None,
    downgrade_to: str | None,
    thresholds: str | None,
    timezone: str | None,
    organization: str | None,
    enforce: bool | None,
    strict: bool | None,
    when_unavailable: str | None,
) -> dict[str, Any]:
    """The columns of a budget that options name."""
    entity_type, entity_id = budget_entity(entity_type, entity_id)
    given: dict[str, Any] = {
        "organization_id": options.named(organization, "--organization") if organization is not None else None,
        "entity_type": entity_type,
        "entity_id": entity_id,
        "metric": options.chosen(metric, "--metric", METRICS),
        "action": options.chosen(action or "alert", "--action", ACTIONS),
    }
    action = given["action"]
    limits = {"minute": minute, "daily": daily, "monthly": monthly, "total": total}
    for (option, text), column in zip(limits.items(), PERIODS.values(), strict=True):
        if text is not None:
            given[column] = limit_of(text, f"--{option}", metric)
    for option, wanted, text in (("--every", "throttle", every), ("--downgrade-to", "downgrade", downgrade_to)):
        if text is not None and action != wanted:
            raise typer.BadParameter(f"{option} goes with --action {wanted}: add that, or leave it out")
    if every is not None:
        given["throttle_interval_s"] = format(options.span(every, "--every"), "f")
    if downgrade_to is not None:
        given["downgrade_to"] = None if downgrade_to == LIFTED else options.named(downgrade_to, "--downgrade-to")
    if thresholds is not None:
        given["alert_thresholds"] = thresholds_of(thresholds)
    if timezone is not None:
        given["timezone"] = options.zone(timezone)
    if when_unavailable is not None:
        given["when_unavailable"] = options.chosen(when_unavailable, "--when-unavailable", ("allow", "deny"))
    given |= {name: value for name, value in (("enforce", enforce), ("strict", strict)) if value is not None}
    return given


def _stored(store: Store, given: dict[str, Any]) -> BudgetLimit:
    try:
        return queries.set_budget(store, given)
    except StoreRejected as error:
        unsaid = error.problem is None and "timezone" in given
        hint = f" It may not know the time zone {given['timezone']}." if unsaid else ""
        raise VitalError(f"{error}{hint}") from None


def _preview(
    *,
    days: Annotated[int, typer.Option(min=1, max=MOST_PREVIEW_DAYS, help="Of the last so many days.")] = PREVIEW_DAYS,
    json_: Json = False,
    **given: Any,
) -> None:
    """Show what a budget would have done to the calls of the last days. Nothing is stored."""
    columns = _columns(**given)
    if all(columns.get(column) is None for column in PERIODS.values()):
        raise typer.BadParameter(
            "a budget needs a limit: give --minute, --daily, --monthly or --total, such as --daily 5"
        )
    with opened() as store:
        found = preview_budget(store, columns, days=days)
    total = preview_totals(found)
    if json_:
        as_json({"preview": found, "total": total, "unknown": UNKNOWN})
        return
    whose = entity(columns["entity_type"], columns["entity_id"], columns["organization_id"])
    amount = limit_text(total["amount"], columns["metric"])
    say(f"From {found['first_day']} to {found['last_day']}, for {whose}: {counted(total['calls'], 'call')}, {amount}.")
    say(f"Met a limit: {found['entities_met']} of {found['entities']}.")
    for name in ("stopped", "slowed", "downgraded"):
        if count := total[name]:
            say(f"Calls that would have been {name}: {count:,}")
    for threshold, count in total["alerts"].items():
        say(f"Alerts at {float(threshold) * 100:g} %: {count:,}")
    say(UNKNOWN)


def _with_options_of_set(command: Callable[..., None]) -> Callable[..., None]:
    """A command that takes the options by which a budget is set, and its own."""
    hints = get_type_hints(set_budget, include_extras=True) | get_type_hints(command, include_extras=True)
    of_storing = ("instead", "new", "json_")
    of_set = [one for name, one in inspect.signature(set_budget).parameters.items() if name not in of_storing]
    own = [one for name, one in inspect.signature(command).parameters.items() if name != "given"]
    parameters = [
        one.replace(annotation=hints[one.name], kind=inspect.Parameter.KEYWORD_ONLY) for one in (*of_set, *own)
    ]

    @functools.wraps(command)
    def run(**given: Any) -> None:
        command(**given)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


app.command("preview")(_with_options_of_set(_preview))


@app.command("remove")
def remove_budgets(
    ids: Annotated[list[int], typer.Argument(metavar="ID", help="The budgets' ids; see vital-tracking budgets list.")],
    yes: Yes = False,
) -> None:
    """Remove budgets with their windows; their alerts stay. Asks first. Exit code 1 where there is no such budget."""
    wanted = list(dict.fromkeys(ids))
    with opened() as store:
        known = {row["id"]: row for row in queries.all_budgets(store)["budgets"]}
        _all_there(wanted, known)
        for number in wanted:
            say(f"budget {number}: {sentence(known[number])}")
        if not yes:
            what = "this budget" if len(wanted) == 1 else f"these {len(wanted)} budgets"
            typer.confirm(f"Remove {what}? From then on nothing of this is checked", abort=True)
        removed = [number for number in wanted if queries.remove_budget(store, number)]
    for number in removed:
        say(f"removed budget {number}")
    _all_there(wanted, removed)


def _all_there(wanted: Sequence[int], there: Container[int]) -> None:
    if missing := [str(number) for number in wanted if number not in there]:
        raise VitalError(f"There is no budget {', '.join(missing)}. See: vital-tracking budgets list")


_OUTLOOK: Final = tuple(field.name for field in fields(Outlook))


def _facts(one: Outlook) -> dict[str, Any]:
    return {name: getattr(one, name) for name in _OUTLOOK}


@app.command("windows")
def list_windows(
    entity: Annotated[
        str | None, typer.Option(help="Only those of this user, service or other entity (its id).")
    ] = None,
    organization: Organization = None,
    every: Annotated[bool, typer.Option("--all", help="Also those that have ended.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=MOST_WINDOWS, help="How many, the fullest first.")] = 200,
    json_: Json = False,
    csv_: Csv = False,
) -> None:
    """Show the running windows of the budgets, the fullest first: what is spent and left, when each ends, and is reached.

    When a limit is reached is told by the rate of this window so far; while less than a tenth of it has passed, by that of the
    window before. Where there is neither, it is unknown.
    """
    with opened() as store:
        state = queries.all_budgets(store)
        rows = queries.windows(store, entity=entity, organization=organization, ended=every, limit=limit)
        ahead = outlooks(store, rows, state["now"])
    if json_ or csv_:
        told = [{**row, **_facts(one)} for row, one in zip(rows, ahead, strict=True)]
        if json_:
            as_json(told)
        else:
            as_csv(told, (*WINDOW_COLUMNS, *_OUTLOOK))
    elif rows:
        console.print(windows_table(rows, state["now"], console.width, ahead))
        if any(one.rate_per_hour is not None for one in ahead):
            say(RATE_IS)
        if len(rows) == limit:
            say(f"The fullest {limit}; for more: --limit {min(10 * limit, MOST_WINDOWS)}")
    elif not state["budgets"]:
        say(f"No budgets, so no windows. {SET_ONE}")
    elif entity is not None and entity not in {row["entity_id"] for row in state["budgets"]}:
        say(
            f"No window of {entity!r}. It begins with the first call that a budget counts. All: vital-tracking budgets windows"
        )
    else:
        say("No window runs: each begins with the first call that its budget counts. See: vital-tracking budgets list")
