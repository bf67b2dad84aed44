"""`vital-tracking reprice`: gives unpriced calls the price that is known now, as of their start."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import typer
from rich.progress import Progress

from vital_tracking.cli.render.console import console, say, usd
from vital_tracking.core.pricing import PriceBook
from vital_tracking.core.record import CallRecord, Cost
from vital_tracking.core.sanitize import money
from vital_tracking.core.usage import TokenUsage
from vital_tracking.delivery.upkeep import team_prices
from vital_tracking.queries.words import counted
from vital_tracking.settings import Settings
from vital_tracking.stores import open_store

_BATCH = 500


def reprice(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be priced and change nothing.")] = False,
) -> None:
    """Price the calls that had no known price. Calls that have one keep it, so running this again changes nothing."""
    store = open_store(Settings.from_env())
    book = PriceBook(team_prices(store.call("model_prices_v1")))
    total, priced, amount = 0, 0, Decimal(0)
    left: Counter[str] = Counter()
    after: dict[str, Any] = {"after_created_at": None, "after_id": None}
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("repricing", total=None)
        while calls := store.call("unpriced_calls_v1", **after, batch_size=_BATCH):
            after = {"after_created_at": calls[-1]["created_at"], "after_id": calls[-1]["id"]}
            updates, known = [], 0
            for call in calls:
                cost = book.cost_of(record_of_row(call))
                if cost is None:
                    left[call["model"] or "(no model)"] += call["calls"]
                    continue
                updates.append(_update(call, cost))
                known += call["calls"]
                amount += cost.total
            done = len(updates)
            if updates and not dry_run:
                done = store.call("reprice_calls_v1", prices=json.dumps(updates))
            priced += known if done == len(updates) else done  # fewer where somebody else priced them meanwhile
            total += sum(call["calls"] for call in calls)
            progress.update(task, advance=len(calls), description=f"repricing: {total} seen")
    store.close()
    say(f"{'would price' if dry_run else 'priced'} {priced} of {counted(total, 'call')}: {usd(amount)}")
    for model, count in left.most_common():
        say(f"  {model}: {counted(count, 'call')} still without a price")
    if left:
        say(
            "Run: vital-tracking prices set MODEL --input USD --output USD   (per million tokens; --from DATE for older calls)"
        )


def record_of_row(call: dict[str, Any]) -> CallRecord:
    """The record of a row of `unpriced_calls_v1`, as far as its price goes."""
    usage = TokenUsage(
        prompt_tokens=call["prompt_tokens"],
        completion_tokens=call["completion_tokens"],
        cache_read_tokens=call["cache_read_tokens"],
        cache_write_tokens=call["cache_write_tokens"],
        cache_write_1h_tokens=call["cache_write_1h_tokens"],
        reasoning_tokens=call["reasoning_tokens"],
        audio_input_tokens=call["audio_tokens"] - call["audio_output_tokens"],
        audio_output_tokens=call["audio_output_tokens"],
    )
    return CallRecord(
        id=call["id"],
        created_at=datetime.fromisoformat(call["created_at"]),
        provider=call["provider"],
        model=call["model"],
        requested_model=call["requested_model"],
        usage=usage,
        cache_hit=call["cache_hit"],
        service_tier=call["service_tier"],
        calls=call["calls"],
    )


def _update(call: dict[str, Any], cost: Cost) -> dict[str, str]:
    return {
        "id": call["id"],
        "created_at": call["created_at"],
        "input_cost": money(cost.input),
        "output_cost": money(cost.output),
        "total_cost": money(cost.total),
        "potential_cost": money(cost.potential),
        "price_version": cost.version,
    }
