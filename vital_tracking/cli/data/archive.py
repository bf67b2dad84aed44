"""`vital-tracking archive`: old months of calls as Parquet files, read back, and only then dropped from the database."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from vital_tracking.cli.render.console import as_json, progress_bar, say
from vital_tracking.cli.render.session import Json, opened
from vital_tracking.errors import VitalError
from vital_tracking.queries.archive import Archived, archive_month, months_to_archive
from vital_tracking.queries.retention import Month, Months, months
from vital_tracking.queries.words import counted, size, usd
from vital_tracking.stores import Store

_MONTH: Final = re.compile(r"\d{4}-(0[1-9]|1[0-2])")


def archive(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MONTH]...", help="Such as 2026-07; by default those that retention would delete."),
    ] = None,
    to: Annotated[Path, typer.Option(help="The folder of the files.")] = Path("archive"),
    drop: Annotated[bool, typer.Option("--drop", help="Then drop the months from the database.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --drop: do not ask.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that is of another database or content.")
    ] = False,
    json_: Json = False,
) -> None:
    """Write old months of calls to Parquet files, one a month: token_usage_logs_2026_07.parquet.

    Each file is read back and compared with the database, in rows and dollars, before anything is dropped; and what is dropped
    is compared once more. Sums and budgets stay as they are. Needs the extra `parquet`. Months go in their order, and not
    before they ended 31 days ago. Calls that came after their month was dropped go only with --drop, into a file of their own.

    \b
    Examples:
      vital-tracking archive --to archive
      vital-tracking archive 2026-06 2026-07 --to archive --drop
      duckdb -c "select model, sum(total_cost) from 'archive/*.parquet' group by 1"
    """
    wanted = names or []
    if bad := [name for name in wanted if not _MONTH.fullmatch(name)]:
        raise typer.BadParameter(f"{bad[0]} is no month: write it as 2026-07")
    done: list[Archived] = []
    with opened() as store:
        listed = months(store)
        found = months_to_archive(listed, wanted)
        late = [] if drop else [row for row in found if row["gone"]]
        chosen = [row for row in found if row not in late]
        if drop and chosen and not yes:
            choice = ", ".join(dict.fromkeys(row["month"] for row in chosen))
            typer.confirm(f"Drop {choice} from the database, once they are in files?", abort=True)
        if chosen:
            _make_folder(to)
        for row in chosen:
            done.append(_archive(store, row, to, drop=drop, force=force))
            if not json_:
                _tell(done[-1])
        after = months(store)["bytes"] if done else listed["bytes"]
    if json_:
        months_late = [{"month": row["month"], "rows": row["rows"]} for row in late]
        months_done = [_as_row(one) for one in done]
        as_json({"bytes_before": listed["bytes"], "bytes_after": after, "months": months_done, "late": months_late})
        return
    for row in late:
        say(
            f"{row['month']}  {counted(row['rows'], 'row')} came after the month was dropped: --drop writes them to a file of "
            "their own and takes them out"
        )
    if not done and not late:
        _tell_nothing(listed)
    elif done:
        files = sum(one.bytes_after for one in done)
        say(f"Calls in the database: {size(listed['bytes'])} before, {size(after)} after; files: {size(files)}")
        say(f"To read them: duckdb -c \"from '{to}/*.parquet' limit 10\"")
        if not drop:
            say("The months are still in the database: --drop takes them out, and so does vital-tracking retention run")


def _make_folder(to: Path) -> None:
    try:
        to.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VitalError(f"{to} cannot be made a folder ({error.strerror}). Name another one: --to") from None


def _archive(store: Store, month: Month, to: Path, *, drop: bool, force: bool) -> Archived:
    with progress_bar() as bar:
        task = bar.add_task(f"archiving {month['month']}", total=None)

        def show(rows: int, total: int) -> None:
            bar.update(task, completed=rows, total=total)

        done = archive_month(store, month, to, drop=drop, force=force, progress=show)
    if done.odd_amounts:
        odd = ", ".join(done.odd_amounts)
        typer.echo(f"{done.file}: amounts have more digits than in other files; read it by itself: {odd}", err=True)
    return done


def _as_row(one: Archived) -> dict[str, Any]:
    return {
        "month": one.month,
        "file": str(one.file),
        "rows": one.rows,
        "total_cost": one.total_cost,
        "bytes_before": one.bytes_before,
        "bytes_after": one.bytes_after,
        "written": True,
        "dropped": one.dropped,
    }


def _tell(one: Archived) -> None:
    before = f"{size(one.bytes_before)} with indexes -> " if one.bytes_before else ""
    share = f" ({100 * one.bytes_after / one.bytes_before:.1f} %)" if one.bytes_before else ""
    state = "written and read back" + (", dropped" if one.dropped else "")
    say(
        f"{one.month}  {counted(one.rows, 'row')}, {usd(one.total_cost)}  {before}{size(one.bytes_after)}{share}  "
        f"{one.file}: {state}"
    )


def _tell_nothing(listed: Months) -> None:
    if listed["kept_from"] is None:
        say("Calls are kept for ever. Name the months: vital-tracking archive 2026-07")
    else:
        say(
            f"Nothing to archive: no calls from before {listed['kept_from']:%Y-%m-%d}, when retention begins. "
            "To archive later ones, name the month: vital-tracking archive 2026-07"
        )
