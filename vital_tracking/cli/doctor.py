"""`vital-tracking doctor`: what works, what does not, and how to mend it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Final

import typer
from rich.text import Text

from vital_tracking.cli.render.console import as_json, console, drawable, say
from vital_tracking.queries.check import State
from vital_tracking.queries.health import examine

_MARKS: Final[dict[State, tuple[str, str, str]]] = {
    "ok": ("✓", "+", "green"),
    "warn": ("!", "!", "yellow"),
    "fail": ("✗", "x", "red"),
}


def doctor(
    json_: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Compare the sums of all days with their calls, not only those of the last 7 days."
        ),
    ] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Send the days again on which the copy in VITAL_CLICKHOUSE_URL differs; with --full of all days.",
        ),
    ] = False,
) -> None:
    """Check settings, store, migrations, prices, delivery and sums; say what is wrong and how to mend it.

    Exit code 1 on a failure.

    \b
    Examples:
      vital-tracking doctor
      vital-tracking doctor --full --json
      vital-tracking doctor --full --repair
    """
    checks = list(examine(full=full, mend=repair))
    if json_:
        as_json([asdict(check) for check in checks])
    else:
        arrow = "→" if drawable("→") else "->"
        for check in checks:
            mark, plain, colour = _MARKS[check.state]
            console.print(Text.assemble((mark if drawable(mark) else plain, colour), f" {check.what}"), soft_wrap=True)
            if check.fix:
                say(f"    {arrow} {check.fix}")
    if any(check.state == "fail" for check in checks):
        raise typer.Exit(1)
