"""`vital-tracking what-if`: what the calls of some days would have cost otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Final

import typer

from vital_tracking.advice.asked import NotUnderstood, factors_of, switch_of
from vital_tracking.advice.changes import Change, ExactCache, OffPeak, Processing, PromptCaching, SwitchModel, Where
from vital_tracking.advice.recommendation import Saving
from vital_tracking.advice.what_if import Effect, WhatIf
from vital_tracking.advice.window import PREFIX_TTL, ask_what_if, used_models
from vital_tracking.cli.render import filters
from vital_tracking.cli.render.amounts import dollars
from vital_tracking.cli.render.console import as_csv, as_json, console, printable, progress_bar, say, table
from vital_tracking.cli.render.known import check_called, known_organization
from vital_tracking.cli.render.options import span, words, zone
from vital_tracking.cli.render.session import Csv, Json, opened
from vital_tracking.core.pricing import PriceBook
from vital_tracking.core.request_size import Size
from vital_tracking.queries.explore import ANY, Period
from vital_tracking.queries.prices import price_book
from vital_tracking.queries.words import counted
from vital_tracking.stores import Store

_COLUMNS: Final = ("change", "calls", "cost", "saving_low", "saving_expected", "saving_high", "left_out")
_WAYS: Final = ("batch", "flex", "priority")
_MOST_SAID: Final = 5


@dataclass(frozen=True, slots=True)
class _Asked:
    switch: list[str]
    where: Where
    processing: str | None
    ttl: timedelta | None
    prompt_cache: bool
    off_peak: bool
    tokens: str | None
    answers: str | None


def what_if(
    switch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FROM=TO", help="Another model: gpt-4o=gpt-4o-mini; *=TO for every model; may be repeated."
        ),
    ] = None,
    processing: Annotated[
        str | None,
        typer.Option(help="The listed price of another way of processing.", **words(_WAYS, "way of processing")),
    ] = None,
    cache: Annotated[
        str | None, typer.Option(metavar="SPAN", help="An exact cache that keeps answers so long, such as 1h or 30m.")
    ] = None,
    prompt_cache: Annotated[
        bool,
        typer.Option("--prompt-cache", help="The provider keeps how prompts begin, for five minutes after each use."),
    ] = False,
    off_peak: Annotated[
        bool, typer.Option("--off-peak", help="The cheapest hour of the day, where a price has hours.")
    ] = False,
    service: filters.Service = None,
    agent: filters.Agent = None,
    workflow: filters.Workflow = None,
    step: Annotated[str | None, typer.Option(help="Only this step's (its id).")] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Only requests of this size: below 500 tokens, below 2,000, or more.", **words(tuple(Size), "size")
        ),
    ] = None,
    unattended: Annotated[bool, typer.Option("--unattended", help="Only calls that nobody seems to wait for.")] = False,
    tokens: Annotated[
        str | None, typer.Option(metavar="RANGE", help="How many times as many tokens another model counts: 0.9..1.1")
    ] = None,
    answers: Annotated[
        str | None, typer.Option(metavar="RANGE", help="How many times as long its answers are: 0.8..1.2")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=366, help="The last so many days, today included.")] = 30,
    organization: filters.Organization = None,
    timezone: filters.Timezone = "UTC",
    exact: Annotated[bool, typer.Option("--exact", help="All digits of amounts.")] = False,
    json_: Json = False,
    csv_: Csv = False,
) -> None:
    """Show what the calls of the last days would have cost otherwise, each repriced once through all changes together.

    Calls are repriced token by token at the prices of the moment at which they began. What nobody can know, how many tokens
    another model would have counted and how long it would have answered, is a range. The filters hold for all changes, which are
    applied in this order: cache, switches, prompt cache, processing, off-peak.

    \b
    Examples:
      vital-tracking what-if --switch gpt-4o=gpt-4o-mini
      vital-tracking what-if --switch claude-opus-4-5=claude-sonnet-4-5 --agent counsel --answers 0.9..1.1
      vital-tracking what-if --switch '*=openai/gpt-5-mini' --size simple
      vital-tracking what-if --cache 1h --processing batch --unattended --days 90
    """
    asked = _Asked(
        switch or [],
        Where(
            service=service or ANY,
            agent=agent or ANY,
            workflow=workflow or ANY,
            step=step or ANY,
            size=Size(size) if size else None,
            unattended=True if unattended else None,
        ),
        processing,
        None if cache is None else timedelta(seconds=float(span(cache, "--cache"))),
        prompt_cache,
        off_peak,
        tokens,
        answers,
    )
    period = Period.last_days(days, timezone=zone(timezone))
    with opened() as store:
        known_organization(store, organization)
        check_called(store, period, {"agent": agent, "workflow": workflow, "step": step}, organization)
        prices = price_book(store)
        changes = list(_changes(asked, store, prices, period, organization))
        if not changes:
            raise typer.BadParameter(
                "say what would have been otherwise, such as --switch gpt-4o=gpt-4o-mini (see --help)"
            )
        with progress_bar() as bar:
            task = bar.add_task("reading calls", total=100)
            found = ask_what_if(
                store,
                period,
                changes,
                organization=organization,
                ttl=asked.ttl,
                prefix_ttl=PREFIX_TTL if prompt_cache else None,
                prices=prices,
                progress=lambda share: bar.update(task, completed=round(100 * share)),
            )
    if json_:
        as_json(_as_object(found, period))
    elif csv_:
        as_csv([_as_row(effect) for effect in found.effects], _COLUMNS)
    else:
        _show(found, f"What if, of the last {counted(days, 'day')}", exact=exact)


def _changes(
    asked: _Asked, store: Store, prices: PriceBook, period: Period, organization: str | None
) -> Iterator[Change]:
    try:
        tokens = None if asked.tokens is None else factors_of(asked.tokens, "--tokens")
        answers = None if asked.answers is None else factors_of(asked.answers, "--answers")
        if asked.ttl is not None:
            yield ExactCache(where=asked.where)
        if asked.switch:
            used = used_models(store, period, organization)
            for text in asked.switch:
                yield switch_of(text, asked.where, used, prices, tokens=tokens, answers=answers)
    except NotUnderstood as error:
        raise typer.BadParameter(str(error)) from None
    if asked.prompt_cache:
        yield PromptCaching(where=asked.where)
    if asked.processing is not None:
        yield Processing(where=asked.where, way=asked.processing)
    if asked.off_peak:
        yield OffPeak(where=asked.where)


def _title(change: Change) -> str:
    match change:
        case SwitchModel():
            source = "every model" if change.where.model == ANY else change.where.model
            return f"{source} -> {change.model}"
        case ExactCache():
            return "an exact cache"
        case PromptCaching():
            return "prompts kept by the provider"
        case Processing():
            return f"{change.way} processing"
        case _:
            return "the cheapest hour"


def _show(found: WhatIf, title: str, *, exact: bool) -> None:
    def money(amount: Decimal) -> str:
        return dollars(amount, exact=exact)

    def row(name: str, calls: int, cost: Decimal, saving: Saving) -> tuple[str, ...]:
        return (name, f"{calls:,}", money(cost), money(saving.low), money(saving.expected), money(saving.high))

    rows = [row(_title(effect.change), effect.calls, effect.cost, effect.saving) for effect in found.effects]
    rows.append(row("together", found.calls, found.bill, found.saving))
    headings = ("", "calls", "cost", "saves at least", "expected", "at most")
    console.print(table(title, [(heading, place > 0) for place, heading in enumerate(headings)], rows))
    after = sorted(found.after.values())
    say(f"The bill of {money(found.bill)} would have been {money(after[0])} to {money(after[-1])}.")
    if found.unpriced_calls:
        say(f"{counted(found.unpriced_calls, 'call')} without a known price in no amount: vital-tracking prices check")
    for effect in found.effects:
        for reason, calls in sorted(effect.left_out.items(), key=lambda item: -item[1])[:_MOST_SAID]:
            say(printable(f"{_title(effect.change)}: {counted(calls, 'call')} left as they were: {reason}."))
    for sentence in dict.fromkeys(sentence for effect in found.effects for sentence in effect.change.assumptions):
        say(f"Assumed: {sentence}")
    source = (
        "sums by service, agent and model, which say all of it" if found.source == "sums" else "the calls themselves"
    )
    say(f"Reckoned from {source}.")


def _as_row(effect: Effect) -> dict[str, Any]:
    low, expected, high = effect.saving.amounts
    return {
        "change": _title(effect.change),
        "calls": effect.calls,
        "cost": effect.cost,
        "saving_low": low,
        "saving_expected": expected,
        "saving_high": high,
        "left_out": sum(effect.left_out.values()),
    }


def _as_object(found: WhatIf, period: Period) -> dict[str, Any]:
    return {
        "since": period.since,
        "until": period.until,
        "timezone": period.timezone,
        "source": found.source,
        "calls": found.calls,
        "unpriced_calls": found.unpriced_calls,
        "bill": found.bill,
        "after": dict(found.after),
        "saving": found.saving,
        "changes": [
            {**_as_row(effect), "left_out": dict(effect.left_out), "assumptions": effect.change.assumptions}
            for effect in found.effects
        ],
    }
