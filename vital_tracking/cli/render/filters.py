"""The options that say which calls: the same words for every command that has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, TypeAlias

import typer

from vital_tracking.cli.render.options import a_name, words
from vital_tracking.cli.render.seen import seen
from vital_tracking.core.closest import did_you_mean
from vital_tracking.core.context import SERVICE_TYPES
from vital_tracking.core.record import STATUSES
from vital_tracking.queries.chosen import CHOICES, chosen_of
from vital_tracking.queries.explore import DIMENSIONS, TIMES

WHEN_HELP: Final = "a date, a month, a span back such as 7d, today, yesterday, monday ..."

Since: TypeAlias = Annotated[str | None, typer.Option(help=f"From then on: {WHEN_HELP}")]
Until: TypeAlias = Annotated[str | None, typer.Option(help="Up to then, and without it; written as --since.")]
Month: TypeAlias = Annotated[str | None, typer.Option("--month", help="This month alone, such as 2026-11.")]
Timezone: TypeAlias = Annotated[
    str, typer.Option(help="Where days begin at midnight, and times without a zone are meant, such as Europe/Berlin.")
]
Organization: TypeAlias = Annotated[
    str | None,
    typer.Option(
        callback=a_name, help="Only this organization's.", autocompletion=seen("organizations", "organization_id")
    ),
]
User: TypeAlias = Annotated[
    str | None, typer.Option(callback=a_name, help="Only this user's.", autocompletion=seen("users", "user_id"))
]
Session: TypeAlias = Annotated[str | None, typer.Option(callback=a_name, help="Only this session's.")]
Service: TypeAlias = Annotated[str | None, typer.Option(help="Only this service's.", **words(SERVICE_TYPES, "service"))]
Agent: TypeAlias = Annotated[
    str | None,
    typer.Option(callback=a_name, help="Only this agent's (its id).", autocompletion=seen("agents", "agent_id")),
]
Tier: TypeAlias = Annotated[str | None, typer.Option(callback=a_name, help="Only of agents of this tier.")]
Workflow: TypeAlias = Annotated[
    str | None,
    typer.Option(
        callback=a_name, help="Only this workflow's (its id).", autocompletion=seen("workflows", "workflow_id")
    ),
]
Step: TypeAlias = Annotated[
    str | None, typer.Option(callback=a_name, help="Only this step's (its id or name, or the node of the graph).")
]
Panel: TypeAlias = Annotated[
    str | None,
    typer.Option(callback=a_name, help="Only this panel's (its id).", autocompletion=seen("panels", "panel_id")),
]
Solution: TypeAlias = Annotated[str | None, typer.Option(callback=a_name, help="Only this solution's (its id).")]
Run: TypeAlias = Annotated[
    str | None, typer.Option(callback=a_name, help="Only this service run's, with all that is nested in it.")
]
Framework: TypeAlias = Annotated[
    str | None, typer.Option(callback=a_name, help="Only of this framework, such as langgraph.")
]
Provider: TypeAlias = Annotated[
    str | None, typer.Option(callback=a_name, help="Only this provider's.", autocompletion=seen("models", "provider"))
]
Model: TypeAlias = Annotated[
    str | None, typer.Option(callback=a_name, help="Only this model's.", autocompletion=seen("models", "model"))
]
MessageType: TypeAlias = Annotated[
    str | None, typer.Option(callback=a_name, help="Only of this message type, such as tool_execution.")
]
Status: TypeAlias = Annotated[str | None, typer.Option(help="Only calls that ended so.", **words(STATUSES, "status"))]
Unpriced: TypeAlias = Annotated[bool, typer.Option("--unpriced", help="Only calls without a known price.")]
Blocked: TypeAlias = Annotated[bool, typer.Option("--blocked", help="Only calls that a budget stopped.")]
Where: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--where", metavar="KEY=VALUE", help="Only calls whose metadata have this value; may be repeated."),
]
Only: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="NAME=VALUE",
        help="Only calls chosen as advice does, such as prompt_below=500, repeated_within=24h, unattended=UTC, "
        "repriceable=yes, without=agent=cardio; or of any dimension, none where VALUE is empty; may be repeated.",
    ),
]
Search: TypeAlias = Annotated[
    str | None, typer.Option(help="Only calls with each of these words in a name, an id or a tag.")
]


def metadata_of(where: Sequence[str] | None) -> dict[str, str]:
    """The metadata that `--where KEY=VALUE` asks for; a value is compared as text."""
    found: dict[str, str] = {}
    for word in where or ():
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise typer.BadParameter(f"--where takes KEY=VALUE, such as prompt_version=v2, not {word!r}")
        found[key] = value
    return found


def only_of(only: Sequence[str] | None) -> tuple[dict[str, list[str | None]], dict[str, Any]]:
    """What `--only NAME=VALUE` asks for: values by dimension, and what `queries.chosen` has."""
    where: dict[str, list[str | None]] = {}
    chosen: list[tuple[str, str]] = []
    for word in only or ():
        name, equals, value = word.partition("=")
        if name in CHOICES and equals:
            chosen.append((name, value))
        elif name in DIMENSIONS and name not in TIMES and equals:
            where.setdefault(name, []).append(value or None)
        else:
            known = [*CHOICES, *(one for one in DIMENSIONS if one not in TIMES)]
            raise typer.BadParameter(f"--only takes NAME=VALUE, and has no {name!r}{did_you_mean(name, known)}")
    try:
        return where, chosen_of(chosen)
    except ValueError as error:
        raise typer.BadParameter(f"--only {error}") from None
