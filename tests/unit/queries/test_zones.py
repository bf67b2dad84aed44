"""Time zones: those that there are everywhere."""

from __future__ import annotations

import shutil
import zoneinfo
from collections.abc import Iterator
from pathlib import Path

import pytest

from vital_tracking.queries.zones import exact_zone, is_zone, known_zones, proper_zone

_LIST = """# version 2026a
Z Europe/Berlin 0:53:28 - LMT 1893 Ap
L Europe/Berlin Europe/Stockholm
Z Factory 0 - -00
R E 1977 1980 - Ap Su>=1 1u 1 S
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A machine's folder of zones, with what lies in such folders beside them, and one that its owner has made."""
    berlin = next(file for path in zoneinfo.TZPATH if (file := Path(path) / "Europe" / "Berlin").exists())
    for name in ("Europe/Berlin", "Europe/Stockholm", "Factory", "localtime", "posixrules", "Mars/Olympus"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(berlin, tmp_path / name)
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath([tmp_path])
    known_zones.cache_clear()
    yield tmp_path
    zoneinfo.reset_tzpath(before)
    known_zones.cache_clear()


def test_a_name_that_only_this_machine_has_is_no_zone(folder: Path) -> None:
    """If this failed, a report would be of one day here and of another where it is sent, or the database would refuse it."""
    (folder / "tzdata.zi").write_text(_LIST)
    assert {name for name in known_zones() if not name.startswith("Etc/")} - {"UTC"} == {
        "Europe/Berlin",
        "Europe/Stockholm",
    }


def test_where_there_is_no_list_the_files_count_that_are_zones(folder: Path) -> None:
    """If this failed, no zone would be known on a machine that keeps IANA's list elsewhere."""
    assert {"Europe/Berlin", "Mars/Olympus"} <= known_zones()
    assert not known_zones() & {"localtime", "posixrules", "Factory"}


@pytest.mark.parametrize(
    "name", ["localtime", "posixrules", "Factory", "", " ", "Mars", "posix/Europe/Berlin", "../UTC"]
)
def test_what_no_place_has_is_refused(name: str) -> None:
    """If this failed, days would begin where no clock says so."""
    assert not is_zone(name)
    with pytest.raises(ValueError, match="is no IANA time zone"):
        proper_zone(name)


def test_names_that_postgresql_takes_for_abbreviations_are_refused() -> None:
    """If this failed, a day in summer would begin an hour late in the database."""
    for name in ("CET", "met"):
        with pytest.raises(ValueError, match=r"without summer time: name a city, such as Europe/Berlin"):
            proper_zone(name)


def test_small_letters_are_mended_where_people_write_and_refused_where_programs_do() -> None:
    """If this failed, a program would store a name that the database does not find."""
    assert proper_zone(" america/new york ") == "America/New_York"
    with pytest.raises(ValueError, match=r"did you mean America/New_York\?"):
        exact_zone("america/new_york")
    assert exact_zone("Asia/Kolkata") == "Asia/Kolkata"
