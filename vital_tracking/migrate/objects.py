"""What the migrations make, read from their files: what a healthy database holds, and what taking them out removes.

Each statement begins a line, in lower case (sqlfluff holds that), also inside of a text that is executed. A test holds what is
found in the schemas public and analytics against a database.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from vital_tracking.migrate.files import Migration

_NAME: Final = r"(?P<name>(?:public|vital_private|analytics)\.\w++)(?!%)"
# A view whose name is computed has a comment under its name.
_RELATION: Final = re.compile(
    rf"^[ ']*(?:create (?:or replace )?|comment on )(?:table|view|materialized view) (?:if not exists )?{_NAME}",
    re.MULTILINE,
)
_FUNCTION: Final = re.compile(rf"^[ ']*create (?:or replace )?(?:function|procedure|aggregate) {_NAME}", re.MULTILINE)
_TRIGGER: Final = re.compile(rf"^[ ']*create (?:or replace )?trigger (?P<part>\w+)\s[^;]*?\bon {_NAME}", re.MULTILINE)
_POLICY: Final = re.compile(rf'^[ \']*create policy "(?P<part>[^"]+)" on {_NAME}', re.MULTILINE)
_DROPPED: Final = re.compile(
    r"^drop (?:table|view|materialized view|function|procedure|aggregate|routine) (?:if exists )?"
    rf"{_NAME}",
    re.MULTILINE,
)
_PART_DROPPED: Final = re.compile(
    rf'^drop (?:trigger|policy) (?:if exists )?"?(?P<part>[^"\n]+?)"? on {_NAME}', re.MULTILINE
)
_MADE: Final = (("relation", _RELATION), ("function", _FUNCTION), ("trigger", _TRIGGER), ("policy", _POLICY))


@dataclass(frozen=True, slots=True)
class DatabaseObject:
    """A relation, function, trigger or policy: `part` is the name of a trigger or policy of the relation `name`."""

    kind: str
    name: str
    part: str | None
    made_in: str

    def __str__(self) -> str:
        return f"{self.kind} {self.part} on {self.name}" if self.part else f"{self.kind} {self.name}"


def objects_of(migrations: Iterable[Migration]) -> list[DatabaseObject]:
    """What there is when these were applied, in the order in which it is made; what a statement computes is left out."""
    there: dict[tuple[str, str | None], DatabaseObject] = {}
    for migration in migrations:
        for name, part, made in _statements(migration):
            if made is None:
                there = {key: value for key, value in there.items() if key[0] != name or (part and key[1] != part)}
            else:
                there[name, part] = made
    return list(there.values())


def _statements(migration: Migration) -> Iterator[tuple[str, str | None, DatabaseObject | None]]:
    found: list[tuple[int, str, str | None, DatabaseObject | None]] = []
    for kind, pattern in _MADE:
        for match in pattern.finditer(migration.sql):
            name, part = match["name"], match.groupdict().get("part")
            found.append((match.start(), name, part, DatabaseObject(kind, name, part, str(migration))))
    for pattern in (_DROPPED, _PART_DROPPED):
        found += [
            (match.start(), match["name"], match.groupdict().get("part"), None)
            for match in pattern.finditer(migration.sql)
        ]
    for _, name, part, made in sorted(found, key=lambda one: one[0]):
        yield name, part, made
