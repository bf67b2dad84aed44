"""Duplicates: requests that were made, answered and paid for more than once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from rich.table import Table

from vital_tracking.cli.render.amounts import cost_text, dollars
from vital_tracking.cli.render.console import as_csv, as_json, console, printable, say, table
from vital_tracking.cli.report.request import PRICE_THEM, ReportRequest, say_no_calls
from vital_tracking.cli.report.usage import any_calls
from vital_tracking.queries.usage import Duplicate, Duplicates, duplicate_query, duplicates
from vital_tracking.queries.words import counted
from vital_tracking.stores import Store

_COLUMNS: Final = tuple(Duplicate.__annotations__)
_HEADINGS: Final = (
    ("request", False),
    ("calls", True),
    ("model", False),
    ("agent", False),
    ("first (UTC)", True),
    ("last (UTC)", True),
    ("cost", True),
    ("a cache would save", True),
)


def show(store: Store, asked: ReportRequest) -> None:
    """Print the duplicates, and what a cache of answers would have saved."""
    answer = duplicates(store, **asked.range, rows=asked.rows)
    if asked.json:
        as_json(answer)
    elif asked.csv:
        as_csv(answer["rows"], _COLUMNS)
    elif answer["rows"]:
        console.print(_table(answer, f"Requests made more than once, {asked.days}", exact=asked.exact))
        for line in _remarks(answer, exact=asked.exact):
            say(line)
    elif any_calls(store, asked):
        say(
            f"No request was made twice: {asked.days}. Requests are told apart only where "
            "VITAL_HASH_KEY is set for the processes that make them."
        )
    else:
        say_no_calls(store, asked)


def _table(answer: Duplicates, title: str, *, exact: bool) -> Table:
    return table(
        title,
        _HEADINGS,
        [
            (
                row["request_hash"][:12],
                f"{row['calls']:,}",
                row["model"] or "-",
                row["agent_id"] or "-",
                _minute(row["first_at"]),
                _minute(row["last_at"]),
                cost_text(row["cost"], row["calls"], row["unpriced_calls"], exact=exact)
                + ("*" if row["unpriced_calls"] else " "),
                dollars(row["saved_by_caching"], exact=exact),
            )
            for row in answer["rows"]
        ],
    )


def _minute(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"


def _remarks(answer: Duplicates, *, exact: bool) -> Iterator[str]:
    """What caching would save, how to, and how to see the calls."""
    if any(row["unpriced_calls"] for row in answer["rows"]):
        yield f"* with calls without a known price, in no amount here.\n{PRICE_THEM}"
    yield (
        f"{counted(answer['requests'], 'request')} made again, {counted(answer['repeated_calls'], 'time')} in all: a cache of "
        f"answers would have saved {dollars(answer['saved_by_caching'], exact=exact)}. In Python: "
        "langchain_core.globals.set_llm_cache(langchain_core.caches.InMemoryCache())"
    )
    yield f"The calls of the first, in SQL: {printable(duplicate_query(answer['rows'][0]))}"
