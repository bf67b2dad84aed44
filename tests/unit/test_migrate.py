"""Migrations: found in their order, known by what they do, compared with what a database has seen, and written into a project."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vital_tracking.errors import VitalError
from vital_tracking.migrate import (
    Applied,
    Migration,
    compare,
    find_migrations,
    objects_of,
    write_into,
    write_uninstall_into,
)

FIRST = Migration("20260101000000", "first", "create table public.a (id int);\n")
SECOND = Migration("20260101000100", "second", "create table public.b (id int);\n")
THIRD = Migration("20260101000200", "third", "create table public.c (id int);\n")


def test_migrations_run_in_the_order_of_their_names() -> None:
    versions = [migration.version for migration in find_migrations()]
    assert versions == sorted(set(versions))
    assert all(len(version) == 14 and version.isdigit() for version in versions)
    names = [migration.name for migration in find_migrations()]
    assert len(set(names)) == len(names), "in a project the name alone tells one from another"


def test_comments_and_layout_do_not_make_another_migration() -> None:
    """If this failed, every typing error mended in a comment would make all databases look like old ones."""
    same = "-- A comment.\ncreate table public.a\n  (id int)\n  -- And one more.\n;;"
    assert Migration("1", "first", same).hash == FIRST.hash
    assert len({migration.hash for migration in find_migrations()}) == len(find_migrations())
    for other in ("create table public.a (id int, no int);", "create table public.a (id int) -- ;\n"):
        assert Migration("1", "first", other).hash != FIRST.hash


def test_a_database_is_compared_with_the_package() -> None:
    """If this failed, a database of other files would be taken for one of these."""

    def seen(*migrations: Migration, other: str | None = None) -> list[Applied]:
        return [Applied(one.version, one.name, other or one.hash) for one in migrations]

    fresh = compare([FIRST, SECOND], [])
    assert (fresh.pending, fresh.changed, fresh.later) == ((FIRST, SECOND), (), ())
    assert compare([FIRST, SECOND], seen(FIRST)).pending == (SECOND,)
    assert compare([FIRST, SECOND], seen(FIRST, SECOND)) == compare([], [])
    assert compare([FIRST, SECOND], [Applied(FIRST.version, "first", None)]).changed == (), "not known is not changed"
    drifted = compare([FIRST, SECOND], seen(FIRST, other="x"))
    assert [str(one) for one in drifted.changed] == ["20260101000000_first"]
    newer = compare([FIRST, SECOND], seen(FIRST, SECOND, THIRD))
    assert (newer.pending, newer.changed, newer.later) == ((), (), tuple(seen(THIRD)))
    gone = compare([FIRST, THIRD], seen(FIRST, SECOND, THIRD))
    assert gone.changed == tuple(seen(SECOND)), "a file that the package has no more"


def test_objects_are_found_and_those_that_were_dropped_are_not() -> None:
    """If this failed, doctor would miss what a later version has taken away."""
    made = Migration(
        "1",
        "made",
        'create table public.a (id int);\ncreate policy "Own rows" on public.a\nusing (true);\n'
        "create function public.f(x text default 'drop') returns int\n"
        "create trigger a_check\nbefore update on public.a\nfor each row;\ncreate view public.v as select 1;\n",
    )
    names = [str(one) for one in objects_of([made])]
    assert names == [
        "relation public.a",
        "policy Own rows on public.a",
        "function public.f",
        "trigger a_check on public.a",
        "relation public.v",
    ]
    drops = 'drop policy "Own rows" on public.a;\ndrop function if exists public.f(text);\ndrop view public.v;\n'
    assert [str(one) for one in objects_of([made, Migration("2", "dropped", drops)])] == [
        "relation public.a",
        "trigger a_check on public.a",
    ]
    assert (
        objects_of(
            [made, Migration("2", "dropped", "drop view public.v;\ndrop function public.f;\ndrop table public.a;")]
        )
        == []
    )


def numbers(folder: Path) -> list[str]:
    return sorted(path.name.partition("_")[0] for path in folder.iterdir())


def test_files_are_numbered_after_the_team_s_and_not_into_the_future(tmp_path: Path) -> None:
    """If this failed, `supabase db push` would refuse our files as too old, or the team's next one."""
    (tmp_path / "20250101000000_teams.sql").write_text("select 1;")
    before = datetime.now(UTC)
    written = write_into(tmp_path, [FIRST, SECOND])
    assert [path.name.partition("_")[2] for path in written] == [
        "vital_tracking_first.sql",
        "vital_tracking_second.sql",
    ]
    assert "20250101000000" < numbers(tmp_path)[1] < numbers(tmp_path)[2] <= datetime.now(UTC).strftime("%Y%m%d%H%M%S")
    assert numbers(tmp_path)[1] >= (before - timedelta(seconds=2)).strftime("%Y%m%d%H%M%S")

    (tmp_path / "20990101235959_ahead.sql").write_text("select 1;")
    [path] = write_into(tmp_path, [FIRST, SECOND, THIRD])
    assert path.name == "20990102000000_vital_tracking_third.sql"
    assert write_into(tmp_path, [FIRST, SECOND, THIRD]) == []


def test_numbers_that_are_no_times_are_followed_too(tmp_path: Path) -> None:
    (tmp_path / "99999999999999_teams.sql").write_text("select 1;")
    assert [path.name for path in write_into(tmp_path, [FIRST, SECOND])] == [
        "999999999999990000_vital_tracking_first.sql",
        "999999999999990001_vital_tracking_second.sql",
    ]


def test_a_file_is_known_whatever_the_team_has_named_it(tmp_path: Path) -> None:
    """If this failed, a team that renumbers its files would get ours twice."""
    [path] = write_into(tmp_path, [FIRST])
    path.rename(tmp_path / "20200101000000_renamed.sql")
    assert write_into(tmp_path, [FIRST]) == []
    with pytest.raises(VitalError, match="20260101000000_first"):
        write_into(tmp_path, [Migration(FIRST.version, FIRST.name, "select 2;")])


def test_after_an_uninstall_all_is_written_again(tmp_path: Path) -> None:
    write_into(tmp_path, [FIRST, SECOND])
    removal = write_uninstall_into(tmp_path, [FIRST, SECOND])
    assert removal == sorted(tmp_path.iterdir())[-1]
    assert "{public.a, public.b}" in removal.read_text()
    assert len(write_into(tmp_path, [FIRST, SECOND])) == 2
    assert len(numbers(tmp_path)) == len(set(numbers(tmp_path))) == 5


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(VitalError, match="supabase/migrations"):
        write_into(tmp_path / "absent", [FIRST])
