"""`vital-tracking archive`: old months as Parquet files, read back, and only then dropped from the database."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from vital_tracking.cli.render.console import as_json, progress_bar, say
from vital_tracking.cli.render.session import Json, opened
from vital_tracking.core.closest import did_you_mean
from vital_tracking.errors import VitalError
from vital_tracking.queries.archive import Archivable, Archived, archivable, archive_month
from vital_tracking.queries.retention import Month
from vital_tracking.queries.words import counted, size, usd
from vital_tracking.stores import Store
from vital_tracking.stores.relations import MONTHLY

_MONTH: Final = re.compile(r"\d{4}-(0[1-9]|1[0-2])")


def archive(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MONTH]...", help="Such as 2026-07; by default those that are old enough."),
    ] = None,
    of: Annotated[
        list[str] | None,
        typer.Option(metavar="WHAT", help=f"What: {', '.join(MONTHLY)} (by default calls), or all; may be repeated."),
    ] = None,
    to: Annotated[Path, typer.Option(help="The folder of the files.")] = Path("archive"),
    drop: Annotated[bool, typer.Option("--drop", help="Then drop the months from the database.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --drop: do not ask.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that is of another database or content.")
    ] = False,
    json_: Json = False,
) -> None:
    """Write old months of calls, events, costs or executions to Parquet files, one a month: token_usage_logs_2026_07.parquet.

    Old enough are calls that retention would delete, and months of events and executions that ended 30 days ago, of costs 90.
    Each file is read back and compared with the database, in rows, amounts and ids, before anything is dropped; and what is
    dropped is compared once more. Sums and budgets stay as they are. Needs the extra `parquet`. Months go in their order, calls
    not before they ended 31 days ago. Rows that came after their month was dropped go only with --drop, into a file of their own.

    \b
    Examples:
      vital-tracking archive --to archive
      vital-tracking archive 2026-06 2026-07 --to archive --drop
      vital-tracking archive --of all --to archive --drop --yes
      duckdb -c "select model, sum(total_cost) from 'archive/*.parquet' group by 1"
    """
    wanted = names or []
    if bad := [name for name in wanted if not _MONTH.fullmatch(name)]:
        raise typer.BadParameter(f"{bad[0]} is no month: write it as 2026-07")
    done: list[Archived] = []
    with opened() as store:
        before = [archivable(store, what) for what in _kinds(of or [])]
        found = [(one, row) for one in before for row in one.chosen(wanted)]
        late = [] if drop else [(one, row) for one, row in found if row["gone"]]
        chosen = [pair for pair in found if pair not in late]
        if drop and chosen and not yes:
            choice = ", ".join(dict.fromkeys(f"{one.what} of {row['month']}" for one, row in chosen))
            typer.confirm(f"Drop {choice} from the database, once they are in files?", abort=True)
        if chosen:
            _make_folder(to)
        for one, row in chosen:
            done.append(_archive(store, one, row, to, drop=drop, force=force))
            if not json_:
                _tell(done[-1])
        after = [archivable(store, one.what) for one in before] if done else before
    bytes_before, bytes_after = (sum(one.listed["bytes"] for one in listed) for listed in (before, after))
    if json_:
        months_late = [{"of": one.what, "month": row["month"], "rows": row["rows"]} for one, row in late]
        months_done = [_as_row(one) for one in done]
        as_json({"bytes_before": bytes_before, "bytes_after": bytes_after, "months": months_done, "late": months_late})
        return
    for one, row in late:
        say(
            f"{row['month']}  {counted(row['rows'], 'row')} of {one.what} came after the month was dropped: --drop writes "
            "them to a file of their own and takes them out"
        )
    if not found:
        _tell_nothing(before)
    elif done:
        _tell_all(done, to)
        say(f"In the database: {size(bytes_before)} before, {size(bytes_after)} after")
        if not drop:
            say("The months are still in the database: --drop takes them out, and so does vital-tracking retention run")


def _kinds(given: list[str]) -> list[str]:
    """What is to be archived, each once."""
    for what in given:
        if what not in (*MONTHLY, "all"):
            raise typer.BadParameter(
                f"there is no {what} to archive{did_you_mean(what, [*MONTHLY, 'all'])} There are: {', '.join(MONTHLY)}, all"
            )
    return list(MONTHLY) if "all" in given else list(dict.fromkeys(given)) or ["calls"]


def _make_folder(to: Path) -> None:
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VitalError(f"{to} cannot be made a folder ({error.strerror}). Name another one: --to") from None


def _archive(store: Store, of: Archivable, month: Month, to: Path, *, drop: bool, force: bool) -> Archived:
    with progress_bar() as bar:
        task = bar.add_task(f"archiving {of.what} of {month['month']}", total=None)

        def show(rows: int, total: int) -> None:
            bar.update(task, completed=rows, total=total)

        done = archive_month(store, of, month, to, drop=drop, force=force, progress=show)
    if done.odd_amounts:
        odd = ", ".join(done.odd_amounts)
        typer.echo(f"{done.file}: amounts have more digits than in other files; read it by itself: {odd}", err=True)
    return done


def _as_row(one: Archived) -> dict[str, Any]:
    return {
        "of": one.what,
        "month": one.month,
        "file": str(one.file),
        "rows": one.rows,
        one.amount_of: one.amount,
        "bytes_before": one.bytes_before,
        "bytes_after": one.bytes_after,
        "written": True,
        "dropped": one.dropped,
    }


def _tell(one: Archived) -> None:
    amount = f"{one.amount_of} {one.amount:f}" if one.what == "events" else usd(one.amount)
    state = "written and read back" + (", dropped" if one.dropped else "")
    say(f"{one.month}  {counted(one.rows, 'row')}, {amount}  {_saved([one])}  {one.file}: {state}")


def _saved(done: Sequence[Archived]) -> str:
    """How large months were in the database, how large their files are, and by how much they are smaller."""
    before, after = sum(one.bytes_before or 0 for one in done), sum(one.bytes_after for one in done)
    if not all(one.bytes_before for one in done):
        return size(after)
    less = 100 - 100 * after / before
    return f"{size(before)} with indexes -> {size(after)}, {abs(less):.1f} % {'smaller' if less >= 0 else 'larger'}"


def _tell_all(done: Sequence[Archived], to: Path) -> None:
    if len(done) > 1:
        say(f"{counted(len(done), 'file')}: {_saved([one for one in done if one.bytes_before] or done)}")
    say(f"To read them: duckdb -c \"from '{to}/{done[0].file.name[:-16]}_*.parquet' limit 10\"")


def _tell_nothing(listed: Sequence[Archivable]) -> None:
    for one in listed:
        if (until := one.listed["archived_until"]) is None:
            say(f"{one.what.capitalize()} are kept for ever. Name the months: vital-tracking archive 2026-07")
        else:
            say(
                f"Nothing to archive: no {one.what} from before {until:%Y-%m-%d}. To archive later ones, name the month: "
                "vital-tracking archive 2026-07"
            )
