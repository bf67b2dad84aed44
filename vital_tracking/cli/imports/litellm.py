"""`vital-tracking import litellm`: what a LiteLLM proxy counted, and the requests of its spend log."""

from __future__ import annotations

from typing import Annotated

import typer

from vital_tracking.cli.render.columns import Column, fitted
from vital_tracking.cli.render.console import as_json, console, say
from vital_tracking.cli.render.options import named
from vital_tracking.cli.render.organizations import New, check_organizations
from vital_tracking.cli.render.session import Json, opened
from vital_tracking.imports.litellm_metrics import CountersRead, import_metrics
from vital_tracking.imports.litellm_spend import OWN_TAG, SpendImported, import_spend
from vital_tracking.queries.csv import plain
from vital_tracking.queries.words import counted, usd
from vital_tracking.settings import Settings


def litellm(
    metrics: Annotated[
        str | None,
        typer.Option(
            help="The address of its metrics, such as http://localhost:4000/metrics; with VITAL_LITELLM_KEY as its key.",
            metavar="URL",
        ),
    ] = None,
    spend: Annotated[
        str | None,
        typer.Option(help="Its spend log: JSON lines, a JSON array, or CSV; - is the standard input.", metavar="FILE"),
    ] = None,
    costs: Annotated[
        bool,
        typer.Option(
            "--costs",
            help="Record what --metrics says was spent as costs: only where these requests are recorded nowhere else.",
        ),
    ] = False,
    organization: Annotated[
        str | None, typer.Option(help="Whose it is, where LiteLLM names no organization or team.")
    ] = None,
    new: New = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --spend: read, price, and record nothing.")] = False,
    json_: Json = False,
) -> None:
    """Import what a LiteLLM proxy saw: its counters since the last reading, or each request of its spend log as a call.

    A request that an application records itself counts twice, unless the application gives it the tag vital_tracking: then it
    is left out of the spend log.

    \b
    Examples:
      vital-tracking import litellm --spend spend.jsonl
      vital-tracking import litellm --metrics http://localhost:4000/metrics
    """
    if (metrics is None) == (spend is None):
        raise typer.BadParameter("give one of --metrics URL and --spend FILE")
    settings = Settings.from_env()
    whose = named(organization, "--organization") if organization is not None else settings.organization_id
    with opened(settings) as store:
        check_organizations(store, [organization], new=new)
        if spend is not None:
            _tell_spend(
                import_spend(store, spend, organization=whose, ceiling_price=settings.ceiling_price, dry_run=dry_run),
                dry_run=dry_run,
                json_=json_,
            )
        elif metrics is not None:
            token = settings.litellm_key.get_secret_value() if settings.litellm_key else None
            _tell_metrics(import_metrics(store, metrics, token=token, organization=whose, costs=costs), json_=json_)


def _tell_spend(done: SpendImported, *, dry_run: bool, json_: bool) -> None:
    if json_:
        as_json(done)
        return
    would = "would record" if dry_run else "recorded"
    known = f", {done.known:,} were there" if done.known else ""
    say(f"{counted(done.requests, 'request')}: {would} {counted(done.recorded, 'call')}{known}")
    say(f"  {usd(done.cost_usd)} by our prices; {usd(done.reported_usd)} as LiteLLM reckons")
    if done.own:
        say(f"  {done.own:,} left out: their tag {OWN_TAG} says that an application recorded them")
    if done.unpriced:
        say(
            f"  {counted(done.unpriced, 'call')} without a price: vital-tracking prices set MODEL --input USD --output USD"
        )
    if done.bad_rows:
        say(f"  {counted(done.bad_rows, 'bad row')}")
    for number, reason in done.bad:
        say(f"    row {number:,}: {reason}")


def _tell_metrics(read: CountersRead, *, json_: bool) -> None:
    if json_:
        as_json(read)
        return
    if read["first"]:
        say("The first reading says where the counters stand; what is used from now on is recorded with the next one.")
        return
    if read["resets"]:
        say(f"{counted(read['resets'], 'model')} counted anew since the last reading: LiteLLM was restarted.")
    if not read["used"]:
        say("Nothing was used since the last reading.")
        return
    columns = [
        Column("model", False, lambda u: u["model"]),
        *(
            Column(heading, True, lambda u, name=name: plain(u[name]) if name in u else "")  # type: ignore[misc]
            for heading, name in (
                ("US dollars", "cost_usd"), ("requests", "requests"), ("errors", "errors"), ("tokens in", "input_tokens"),
                ("tokens out", "output_tokens"), ("seconds", "latency_s"),
            )
        ),
    ]  # fmt: skip
    console.print(fitted("Used since the last reading", columns, read["used"]))
