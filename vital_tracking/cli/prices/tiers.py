"""`vital-tracking prices tier` and `prices tiers`: how good the team finds the models that it pays for."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from vital_tracking.cli.render.columns import Column, fitted
from vital_tracking.cli.render.console import as_csv, as_json, console, say
from vital_tracking.cli.render.known import check_model
from vital_tracking.cli.render.options import named, words
from vital_tracking.cli.render.session import Csv, Json, opened
from vital_tracking.queries.model_tiers import (
    MODEL_TIER_COLUMNS,
    TIERS,
    model_tiers,
    remove_model_tier,
    set_model_tier,
)
from vital_tracking.queries.prices import price_book

_NONE: Final = "none"


def set_tier(
    model: Annotated[str, typer.Argument(help="The model's name as calls carry it.")],
    tier: Annotated[
        str,
        typer.Argument(help="1 is best; none takes it away.", **words((*map(str, TIERS), _NONE), "tier")),
    ],
    provider: Annotated[str | None, typer.Option(help="Only of this provider; by default of any.")] = None,
    note: Annotated[str | None, typer.Option(help="Why.")] = None,
    new: Annotated[
        bool, typer.Option("--new", help="The model is new: no price list has it, and no call went to it.")
    ] = False,
) -> None:
    """Say how good you find a model, from 1 (best) to 3. Advice names no other model of a lower tier without saying so.

    \b
    Examples:
      vital-tracking prices tier gpt-4o 1
      vital-tracking prices tier gpt-4o-mini 2 --provider openai --note "our own trial of May"
      vital-tracking prices tier gpt-4o none
    """
    model = named(model, "MODEL")
    of = f" of {named(provider, '--provider')}" if provider is not None else ""
    with opened() as store:
        if tier == _NONE:
            gone = remove_model_tier(store, model, provider=provider)
            say(f"{model}{of}: {'no tier any more' if gone else 'had no tier'}")
            return
        if not new:
            check_model(store, price_book(store), model, provider)
        stored = set_model_tier(store, model, int(tier), provider=provider, note=note)
    before = stored["before"]
    was = f", {before} before" if before is not None and before != stored["tier"] else ""
    say(f"{model}{of}: tier {stored['tier']}{was}")


def list_tiers(json_: Json = False, csv_: Csv = False) -> None:
    """List the models of which the team has said how good they are, the best first."""
    with opened() as store:
        rows = model_tiers(store)
    if json_:
        as_json(rows)
    elif csv_:
        as_csv(rows, MODEL_TIER_COLUMNS)
    elif not rows:
        say("No model has a tier. To set one: vital-tracking prices tier MODEL 1")
    else:
        console.print(fitted("Tiers of models: 1 is best", _COLUMNS, rows))


_COLUMNS: Final = (
    Column("tier", True, lambda row: str(row["tier"])),
    Column("provider", False, lambda row: row["provider"] or "any"),
    Column("model", False, lambda row: row["model"]),
    Column("set by", False, lambda row: row["set_by"], 2),
    Column("at (UTC)", False, lambda row: f"{row['set_at']:%Y-%m-%d %H:%M}", 1),
    Column("note", False, lambda row: row["note"] or ""),
)
