"""Completes values by what was seen: the models, agents, users and so on of the last 30 days' calls."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from vital_tracking.cli.render.session import opened
from vital_tracking.queries.filters import Filters
from vital_tracking.queries.usage import usage_report
from vital_tracking.settings import Settings
from vital_tracking.stores.embedded import server_dir

_REACH: Final = timedelta(days=30)
_MOST: Final = 200


def seen(grouping: str, column: str) -> Callable[[str], list[str]]:
    """What completes an option by the values of a column of a report. Nothing where the database does not answer: a key is no
    place for errors, nor one that starts a server."""

    def complete(incomplete: str) -> list[str]:
        try:
            settings = Settings.from_env()
            if settings.store == "embedded":
                folder = server_dir(settings.data_dir, settings.postgres_version)
                if not (folder / "postmaster.pid").exists():
                    return []
            now = datetime.now(UTC)
            with opened(settings) as store:
                report = usage_report(store, grouping, Filters(since=now - _REACH, until=now), rows=_MOST)
        except Exception:  # noqa: BLE001 - whatever is wrong, the shell goes on
            return []
        rows: list[dict[str, object]] = [dict(row) for row in report["rows"]]
        values = {str(row[column]) for row in rows if row.get(column) is not None}
        return sorted(value for value in values if value.startswith(incomplete))

    return complete
