"""A group whose commands are imported when they are called: help and the completion of names need none of them."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

if TYPE_CHECKING:
    from collections.abc import Mapping


def commands_of(places: Mapping[str, tuple[str, str]]) -> type[TyperGroup]:
    """The class of a group with such commands: by its name, the module and function, or Typer, of each, and its short help."""

    class LazyGroup(TyperGroup):
        def __init__(self, **attributes: Any) -> None:
            super().__init__(**attributes)
            self.commands = {name: TyperCommand(name, help=text) for name, (_, text) in places.items()}

        def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
            if (both := " ".join(args[:2])) in places and " " in both:  # a name of two words, such as export clickhouse
                return both, load(both, places[both][0]), args[2:]
            name, listed, rest = super().resolve_command(ctx, args)
            return name, load(name, places[name][0]) if name and listed else listed, rest

    return LazyGroup


@cache
def load(name: str, place: str) -> Any:
    """The command that stands at `place`, module:name; CONTEXT_SETTINGS of its module are its own."""
    room, _, attribute = place.partition(":")
    module = import_module(f"vital_tracking.cli.{room}")
    found = getattr(module, attribute)
    alone = typer.Typer(rich_markup_mode=None)
    if isinstance(found, typer.Typer):
        alone.add_typer(found, name=name)
    else:
        alone.command(name, context_settings=getattr(module, "CONTEXT_SETTINGS", None))(found)
    return get_group(alone).commands[name]
