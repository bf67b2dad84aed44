"""What questions to a copy have in common: their texts, and which calls they are about."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from string import Template
from typing import Any, Final

FINAL: Final = {"do_not_merge_across_partitions_select_final": 1}
"""The key of a table holds the time by which months are its parts, so no state of a row is in another one."""


def question(name: str, **places: str) -> str:
    """The SQL of a question to the copy, with what stands in its `places`."""
    return _text(name).substitute(places)


def reader_condition(reader: Mapping[str, Any], parameters: dict[str, Any]) -> str:
    """Which calls whoever asks may see, by what PostgreSQL says of him (vital_private.reader_of_calls)."""
    if not reader:
        return "true"
    parameters["reader"] = reader["user"]
    condition = "ifNull(t.user_id = {reader:Nullable(String)}, 0)"
    if reader["organizations"]:
        parameters["organizations"] = reader["organizations"]
        condition = f"({condition} or ifNull(t.organization_id in {{organizations:Array(String)}}, 0))"
    return condition


def organization_condition(organization: str | None, parameters: dict[str, Any]) -> str:
    """The calls of an `organization`, whose name is bound; all where it is None."""
    if organization is None:
        return "true"
    parameters["organization"] = organization
    return "ifNull(t.organization_id = {organization:String}, 0)"


@cache
def _text(name: str) -> Template:
    return Template((files("vital_tracking") / "clickhouse" / "questions" / f"{name}.sql").read_text(encoding="utf-8"))
