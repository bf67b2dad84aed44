"""A database of every released version is brought to this one with all that it holds, and no released migration changes.

If one of these failed, somebody's upgrade would lose calls, change a bill, or be refused.
"""

from __future__ import annotations

import json
import lzma
import shutil
from pathlib import Path

import pytest

from tests.support.release import FIGURES, RELEASED, UNDELIVERED, figures_of
from vital_tracking import Settings, VitalTracker, __version__
from vital_tracking.migrate import Applied, Migration, compare, find_migrations
from vital_tracking.stores.backup import restore
from vital_tracking.stores.postgres import PostgresStore

VERSIONS = sorted(path.name for path in RELEASED.iterdir() if path.is_dir())
# Stands for what a later version will do first: a column in the table that is largest, filled for the rows that are there.
LATER = Migration(
    "29990101000000",
    "of_a_later_version",
    "alter table public.token_usage_logs add column later text default 'before';\n",
)


def released(version: str) -> list[Applied]:
    lines = (RELEASED / version / "migrations.txt").read_text(encoding="utf-8").splitlines()
    return [Applied(*name.split("_", 1), known) for known, name in (line.split() for line in lines)]


def test_this_version_is_kept() -> None:
    assert __version__ in VERSIONS, "python -m tests.support.release keeps it"


@pytest.mark.parametrize("version", VERSIONS)
def test_released_migrations_are_only_added_to(version: str) -> None:
    standing = compare(find_migrations(), released(version))
    assert standing.changed == (), "a released migration was altered: undo that, and say the same in a new file"
    assert standing.later == ()
    newest = max(one.version for one in released(version))
    assert all(one.version > newest for one in standing.pending), "a new migration must come after all released ones"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_database_of_that_version_is_upgraded_with_all_that_it_holds(
    version: str, empty_database: str, tmp_path: Path
) -> None:
    dump = tmp_path / "database.dump"
    dump.write_bytes(lzma.decompress((RELEASED / version / "database.dump.xz").read_bytes()))
    spool = shutil.copytree(RELEASED / version / "spool", tmp_path / "spool")
    before = json.loads((RELEASED / version / "figures.json").read_text(encoding="utf-8"))
    assert all(float(value) > 0 for values in before.values() for value in values), "every kind of record is in it"

    store = PostgresStore(empty_database)
    restore(store, dump)  # which migrates
    assert store.migrate([*find_migrations(), LATER]) == [LATER]
    assert figures_of(empty_database) == before

    # A process of the new version goes on where one of the old was killed: each of its calls once, and then its own.
    with VitalTracker(store, settings=Settings(spool_dir=spool, background=False)) as tracker:
        tracker.record(provider="openai", model="gpt-4o", prompt_tokens=10, completion_tokens=1, user_id="u-new")
        assert tracker.flush().complete
    after = figures_of(empty_database)
    assert int(after["calls"][0]) - int(before["calls"][0]) == UNDELIVERED + 1
    assert int(after["days"][0]) - int(before["days"][0]) == UNDELIVERED + 1
    assert {name for name in FIGURES if after[name] != before[name]} == {"calls", "owners", "days"}
