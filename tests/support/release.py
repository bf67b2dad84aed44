"""Keeps what a released version leaves behind, so that all later ones are held to it: `python -m tests.support.release`.

In `tests/released/VERSION/` are `migrations.txt`, the hash and name of each migration; `database.dump.xz`, a backup of a database
of that version with records of every kind; `spool/`, the files of a process of that version whose calls were not delivered; and
`figures.json`, what that database says of itself. Written once, when the version is released: from then on nothing of it changes.
"""

from __future__ import annotations

import json
import lzma
import shutil
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import psycopg

from tests.support.folders import quick_temporary
from tests.support.postgres import PostgresServer
from vital_tracking import Settings, VitalTracker, __version__
from vital_tracking.core.pricing import PriceBook
from vital_tracking.delivery.costs import Costs
from vital_tracking.demo.writing import found, history_of, write
from vital_tracking.migrate import find_migrations
from vital_tracking.stores.backup import back_up
from vital_tracking.stores.postgres import PostgresStore

RELEASED: Final = Path(__file__).parents[1] / "released"
UNDELIVERED: Final = 5
_DAYS: Final = 2

# What an upgrade must leave as it is, whatever else is new: each a question with one row as its answer.
FIGURES: Final = {
    "calls": "select count(*), sum(total_cost), sum(total_tokens), sum(latency_ms)::numeric(20, 3) from token_usage_logs",
    "owners": "select count(distinct user_id), count(distinct session_id), count(distinct agent_id) from token_usage_logs",
    "runs": "select count(*), count(distinct id) from service_runs",
    "days": "select sum(calls), sum(total_cost) from usage_aggregations_daily_totals",
    "events": "select count(*) from platform_events",
    "costs": "select count(*), sum(cost_usd) from tenant_cost_events",
    "executions": "select count(*) from agent_executions",
    "budgets": "select count(*), sum(daily_limit), sum(monthly_limit) from budget_limits",
    "windows": "select count(*), sum(spent) from budget_windows",
    "subscriptions": "select count(*) from subscriptions",
}


def figures_of(url: str) -> dict[str, list[str | None]]:
    """What a database says of itself, amounts to the last digit."""
    with psycopg.connect(url) as connection:
        answers = {name: connection.execute(question).fetchone() or () for name, question in FIGURES.items()}
    return {name: [_plain(value) for value in answer] for name, answer in answers.items()}


def keep_release(folder: Path, url: str) -> None:
    """Fill an empty database, and write what this version leaves behind into a folder that is not there yet."""
    migrations = find_migrations()
    folder.mkdir(parents=True)
    store = PostgresStore(url)
    store.migrate(migrations)
    write(store, history_of(found(store), _DAYS), Costs(PriceBook(), Settings().ceiling_price))
    with quick_temporary("vital-release-") as files:
        tracker = VitalTracker(store, settings=Settings(spool_dir=files / "spool", background=False))
        tracker.record(provider="openai", model="gpt-4o", prompt_tokens=1000, completion_tokens=10, user_id="u-told")
        tracker.flush()  # from now on its files note which database they are for
        for number in range(UNDELIVERED):
            tracker.record(
                provider="openai", model="gpt-4o", prompt_tokens=1001 + number, completion_tokens=10, user_id="u-waits"
            )
        # As a killed process would leave them; what is set aside for a full disk tells nothing.
        shutil.copytree(files / "spool", folder / "spool", ignore=shutil.ignore_patterns("reserve"))
        back_up(store, files / "database.dump")
        dump, figures = (files / "database.dump").read_bytes(), figures_of(url)
        tracker.close()
    (folder / "database.dump.xz").write_bytes(lzma.compress(dump, preset=9 | lzma.PRESET_EXTREME))
    (folder / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    (folder / "migrations.txt").write_text("".join(f"{one.hash} {one}\n" for one in migrations), encoding="utf-8")


def _plain(value: Any) -> str | None:
    if value is None:
        return None
    return f"{value.normalize():f}" if isinstance(value, Decimal) else str(value)


def main() -> None:
    """Keep this version."""
    folder = RELEASED / __version__
    if folder.exists():
        sys.exit(f"{folder} is there: a version is kept once. Raise __version__ first.")
    with quick_temporary("vital-release-") as data:
        data.chmod(0o755)
        with PostgresServer(data / "data") as server:
            server.create_database("released")
            keep_release(folder, server.url("released"))
    print(f"{datetime.now(UTC):%F}: {__version__} is kept in {folder}.")


if __name__ == "__main__":
    main()
