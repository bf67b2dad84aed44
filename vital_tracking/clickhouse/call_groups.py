"""Billed calls in groups that are priced alike, from a copy: what what-if reprices, for times that the copy holds whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from vital_tracking.clickhouse.asking import FINAL, organization_condition, question, reader_condition
from vital_tracking.clickhouse.client import ClickHouse
from vital_tracking.core.usage import TOKEN_COLUMNS

_OF: Final = {
    "service": ("service_type",),
    "agent": ("agent_id",),
    "tier": ("agent_tier",),
    "workflow": ("workflow_id",),
    "step": ("workflow_step",),
    "rates": ("provider", "model", "sent_model", "call_type", "facts", "size", "era", "unattended", "audio"),
}
_ALWAYS: Final = ("fixed", "shadow", "priced", "hashed")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def copied_groups(
    server: ClickHouse, asked: Mapping[str, Any], arguments: Mapping[str, Any], settings: Mapping[str, Any]
) -> list[dict[str, Any]] | None:
    """The answer of call_groups_v1 to these arguments; None where PostgreSQL has to answer. Raises CopyError.

    `asked` is what call_groups_v1 says to ask the copy.
    """
    dimensions: Sequence[str] | None = arguments.get("dimensions")
    wanted = tuple(_OF) if dimensions is None else dimensions
    parameters: dict[str, Any] = {
        "since": datetime.fromisoformat(asked["since"]),
        "until": datetime.fromisoformat(asked["until"]),
        "sizes": list(arguments.get("sizes") or []),
        "eras": [(era - _EPOCH) // timedelta(microseconds=1) for era in arguments.get("eras") or []],
        "starts": asked["starts"],
        "nights": asked["nights"],
    }
    billed = question(
        "billed_calls",
        organization=organization_condition(arguments.get("organization"), parameters),
        reader=reader_condition(asked["reader"], parameters),
    )
    keys = {name: f"t.{name}" for one in _OF if one in wanted for name in _OF[one]}
    keys |= {name: f"t.{name}" for name in _ALWAYS}
    joined = prefixes = ""
    if asked["repeated_within"] is not None:
        parameters |= {
            "repeated_from": _instant(asked["repeated_from"]),
            "repeated_within": asked["repeated_within"],
            "since_us": (parameters["since"] - _EPOCH) // timedelta(microseconds=1),
        }
        # `global`: on a cluster the answer of all shards is sent to each.
        keys["repeated"] = f"t.id global in ({question('repeated_calls', billed=billed)})"
    if asked["prefixes_within"] is not None:
        parameters |= {"alike_from": _instant(asked["alike_from"]), "prefixes_within": asked["prefixes_within"]}
        joined = f"global any left join ({question('alike_calls', billed=billed)}) as a on a.id = t.id"
        keys["alike"] = "a.read_tokens > 0 or a.write_tokens > 0"
        prefixes = _PREFIXES
    text = question(
        "call_groups",
        shown=", ".join(f"{expression} as {name}" for name, expression in keys.items()),
        keys=", ".join(keys.values()),
        tokens="".join(f"toString(sum(t.{name})) as {name}, " for name in TOKEN_COLUMNS) if "rates" in wanted else "",
        prefixes=prefixes,
        alike=joined,
        billed=billed,
    )
    rows = server.query(text, parameters, settings={**FINAL, **settings})
    if any(row.pop("is_odd") for row in rows):
        return None
    return [{**_NOT_LOOKED_FOR, **row, "facts": dict(row.get("facts", []))} for row in rows]


def _instant(told: str) -> datetime:
    """An instant that the copy takes: there are no calls before 1970."""
    return max(datetime.fromisoformat(told), _EPOCH)


_PREFIXES: Final = """
  toString(sumIf(t.calls, notEmpty(t.prefix_hashes))) as prefixed_calls,
  toString(sum(a.read_tokens)) as prefix_read_tokens,
  toString(sum(a.write_tokens)) as prefix_write_tokens,
"""

_NOT_LOOKED_FOR: Final = {
    "repeated": False,
    "alike": False,
    "prefixed_calls": None,
    "prefix_read_tokens": None,
    "prefix_write_tokens": None,
}
