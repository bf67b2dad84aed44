"""Time zones by their IANA names: those that mean the same on every machine, here and in PostgreSQL."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from vital_tracking.core.closest import did_you_mean

# Names of which PostgreSQL takes some for abbreviations, of fixed offsets; and a city with the same time.
_CITIES: Final = {"CET": "Europe/Berlin", "EET": "Europe/Athens", "MET": "Europe/Berlin", "WET": "Europe/Lisbon"}
# Files that lie beside the zones: what this machine is set to, what POSIX rules are taken from, and a clock that nobody has set.
_NO_ZONES: Final = frozenset({"localtime", "posixrules", "Factory"})


@cache
def known_zones() -> frozenset[str]:
    """The names of all zones that may be asked for: to find them takes longer than most answers. Empty where none are installed.

    Where this machine has IANA's own list (tzdata.zi), what lies among the zones and is not on it counts for none.
    """
    here = zoneinfo.available_timezones() - _NO_ZONES - _CITIES.keys()
    listed = {name for folder in zoneinfo.TZPATH for name in _listed(Path(folder) / "tzdata.zi")}
    return frozenset(here & listed or here)


def is_zone(name: str) -> bool:
    """Whether a time zone has exactly this name."""
    return name in known_zones()


def proper_zone(text: str) -> str:
    """A time zone by its proper name, however its letters are written; ValueError says what is wrong, after the text."""
    text = text.strip()
    known = known_zones()
    if text in known:
        return text
    if city := _CITIES.get(text.upper()):
        raise ValueError(f"would be read as a fixed offset, without summer time: name a city, such as {city}")
    wanted = text.lower().replace(" ", "_")
    for name in known:
        if name.lower() == wanted:
            return name
    raise _no_zone(did_you_mean(text, sorted(known)))


def exact_zone(text: str) -> str:
    """A time zone that is given by its proper name already, as the database takes it; ValueError as `proper_zone`."""
    if (proper := proper_zone(text)) != text:
        raise _no_zone(f"; did you mean {proper}?")
    return text


def _no_zone(meant: str) -> ValueError:
    return ValueError(f"is no IANA time zone{meant} It looks like Europe/Berlin, Asia/Kolkata or UTC")


def _listed(file: Path) -> Iterator[str]:
    """The zones (`Z name ...`) and links (`L target name`) of IANA's list; none where it is not there."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return
    for line in text.splitlines():
        match line.split():
            case ["Z", name, *_] | ["L", _, name]:
                yield name
