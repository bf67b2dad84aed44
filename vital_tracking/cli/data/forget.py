"""`vital-tracking forget-user`: a person is taken out of everything; all sums stay."""

from __future__ import annotations

from typing import Annotated

import typer

from vital_tracking.cli.render.console import as_json, progress_bar, say
from vital_tracking.cli.render.options import a_name
from vital_tracking.cli.render.session import Json, Yes, opened
from vital_tracking.queries import forget
from vital_tracking.queries.forget import Forgotten, UserTraces, any_traces, user_traces, views_forget
from vital_tracking.queries.words import counted, usd
from vital_tracking.stores import Store


def forget_user(
    user: Annotated[str, typer.Argument(help="The user's id.")],
    organization: Annotated[
        str | None, typer.Option(callback=a_name, help="Only in this organization; by default in all.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what there is of the user.")] = False,
    yes: Yes = False,
    json_: Json = False,
) -> None:
    """Forget a user: calls are merged by the minute without the person, and what was the person's own is removed.

    What it cost stays in every sum and every other budget, to the last decimal. For good: nobody can undo it. In batches, between
    which calls go on being recorded; where it is stopped, run it again. admin_audit tells that it was done, with a digest
    of the id. It cannot reach what is not in the database: spools that still hold the user's calls (run it again when they
    have been sent), archives, LangSmith.

    \b
    Examples:
      vital-tracking forget-user u-1 --dry-run
      vital-tracking forget-user u-1 --organization acme --yes
    """
    if not user.strip():
        raise typer.BadParameter("name the user")
    with opened() as store:
        traces = user_traces(store, user, organization=organization)
        if dry_run or not any_traces(traces):
            as_json(traces) if json_ else say(_sentence(user, organization, traces))
            return
        if not json_ or not yes:
            say(_sentence(user, organization, traces))
        if not yes:
            typer.confirm("Forget the user? Nobody can undo it", abort=True)
        answer = _forget(store, user, organization, traces["rows"] + traces["runs"])
        fresh = views_forget(store)
    total = answer["total"]
    if json_:
        as_json({"user": answer["digest"], "organization_id": organization, **total, "views_refreshed": fresh})
        return
    say(
        f"forgotten: {counted(total['calls'], 'call')} in {counted(total['rows'], 'row')} became "
        f"{counted(total['merged'], 'row')} of nobody; {counted(total['runs'], 'run')}, {counted(total['events'], 'event')}, "
        f"{counted(total['costs'], 'other cost')}, {counted(total['executions'], 'execution')}, "
        f"{counted(total['windows'], 'window')} and {counted(total['memberships'], 'membership')} cleared"
    )
    say(f"admin_audit knows it as {answer['digest']}")
    if not fresh:
        say("The materialized views name the user until they are refreshed: vital-tracking refresh")


def _forget(store: Store, user: str, organization: str | None, expected: int) -> Forgotten:
    with progress_bar() as bar:
        task = bar.add_task("forgetting", total=expected)
        return forget.forget_user(
            store, user, organization=organization, progress=lambda rows: bar.update(task, completed=rows)
        )


def _sentence(user: str, organization: str | None, traces: UserTraces) -> str:
    where = f" in {organization}" if organization else ""
    if not any_traces(traces):
        return f"There is nothing of {user}{where}. (Ids are compared letter by letter.)"
    since = f", from {traces['first']:%Y-%m-%d} to {traces['last']:%Y-%m-%d}" if traces["first"] else ""
    unpriced = f" and {counted(traces['unpriced_calls'], 'unpriced call')}" if traces["unpriced_calls"] else ""
    return (
        f"{user}{where}: {counted(traces['calls'], 'call')} for {usd(traces['total_cost'])}{unpriced}{since}; "
        f"{counted(traces['runs'], 'run')}, {counted(traces['events'], 'event')}, {counted(traces['costs'], 'other cost')}, "
        f"{counted(traces['executions'], 'execution')}, {counted(traces['windows'], 'window')} of budgets, "
        f"{counted(traces['memberships'], 'membership')}, sums of {counted(traces['days'], 'day')}"
    )
