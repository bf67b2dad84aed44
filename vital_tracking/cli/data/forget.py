"""`vital-tracking forget-user`: a person is taken out of everything; all sums stay."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

import typer

from vital_tracking.cli.render.console import as_json, progress_bar, say, usd
from vital_tracking.errors import VitalError
from vital_tracking.queries.words import counted
from vital_tracking.settings import Settings
from vital_tracking.stores import Store, open_store

_A_BATCH = 500  # nobody records while a batch is forgotten: a few tenths of a second
_TRACES = ("rows", "runs", "windows", "memberships", "days")


def forget_user(
    user: Annotated[str, typer.Argument(help="The user's id.")],
    organization: Annotated[str | None, typer.Option(help="Only in this organization; by default in all.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what there is of the user.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON; amounts are text.")] = False,
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
    store = open_store(Settings.from_env())
    try:
        traces: dict[str, Any] = store.call("user_traces_v1", user_id=user, organization_id=organization)
        if dry_run or not _anything(traces):
            as_json(traces) if json_ else say(_sentence(user, organization, traces))
            return
        if not json_ or not yes:
            say(_sentence(user, organization, traces))
        if not yes:
            typer.confirm("Forget the user? Nobody can undo it", abort=True)
        answer = _forget(store, user, organization, traces["rows"] + traces["runs"])
        fresh = _refresh(store)
    finally:
        store.close()
    total = answer["total"]
    if json_:
        as_json({"user": answer["digest"], "organization_id": organization, **total, "views_refreshed": fresh})
        return
    say(
        f"forgotten: {counted(total['calls'], 'call')} in {counted(total['rows'], 'row')} became "
        f"{counted(total['merged'], 'row')} of nobody; {counted(total['runs'], 'run')}, "
        f"{counted(total['windows'], 'window')} and {counted(total['memberships'], 'membership')} cleared"
    )
    say(f"admin_audit knows it as {answer['digest']}")
    if not fresh:
        say("The materialized views name the user until they are refreshed: vital-tracking refresh")


def _forget(store: Store, user: str, organization: str | None, expected: int) -> dict[str, Any]:
    """Batch by batch, until there is nothing left; the last answer."""
    done = 0
    with progress_bar() as bar:
        task = bar.add_task("forgetting", total=expected)
        while True:
            answer: dict[str, Any] = store.call(
                "forget_user_v1", user_id=user, organization_id=organization, max_rows=_A_BATCH
            )
            done += answer["rows"] + answer["runs"]
            bar.update(task, completed=done)
            if answer["done"]:
                return answer


def _refresh(store: Store) -> bool:
    """Bring the materialized views up to date, which name users too; whether that was done.

    Who is second while another refreshes is told so at once; the other one may have begun before the user was forgotten.
    """
    try:
        return not store.call("refresh_analytics")["busy"]
    except VitalError:
        return False


def _anything(traces: dict[str, Any]) -> bool:
    return any(traces[name] for name in _TRACES)


def _sentence(user: str, organization: str | None, traces: dict[str, Any]) -> str:
    where = f" in {organization}" if organization else ""
    if not _anything(traces):
        return f"There is nothing of {user}{where}. (Ids are compared letter by letter.)"
    since = f", from {traces['first'][:10]} to {traces['last'][:10]}" if traces["first"] else ""
    unpriced = f" and {counted(traces['unpriced_calls'], 'unpriced call')}" if traces["unpriced_calls"] else ""
    return (
        f"{user}{where}: {counted(traces['calls'], 'call')} for {usd(Decimal(traces['total_cost']))}{unpriced}{since}; "
        f"{counted(traces['runs'], 'run')}, {counted(traces['windows'], 'window')} of budgets, "
        f"{counted(traces['memberships'], 'membership')}, sums of {counted(traces['days'], 'day')}"
    )
