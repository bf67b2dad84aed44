"""Calls whose cost is not known exactly, why, and what to do about it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final

from typing_extensions import TypedDict

from vital_tracking.core.price_list import RELEASE
from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.queries.check import Check
from vital_tracking.queries.words import counted, usd
from vital_tracking.stores import Store

_SHOWN: Final = 10


@answer_type
class InexactCalls(TypedDict):
    """Calls of a model that share a reason why their cost is no exact one; `cost` is that of those with a price, in US dollars.

    `reason` is `usage_estimated`, `ended_early` (estimated, too, since the call did not succeed), `usage_missing`, `unpriced`,
    or a note of the row on a modality, a unit, a total, a tier, passes, or what an integration hides (`cache_hidden`).
    """

    provider: str | None
    model: str | None
    framework: str | None
    call_type: str
    reason: str
    calls: int
    cost: Decimal
    newest: datetime


@answer_type
class UsedPriceList(TypedDict):
    """A release of genai-prices by which calls were priced."""

    version: str
    calls: int
    newest: datetime


@answer_type
class Exactness(TypedDict):
    """Which of the calls from `since` on are not known exactly. `complete` is False where there were too many to read them all.

    `calls` is how many were read, the newest ones; of `rows` there are at most 200, those with most calls first.
    """

    since: datetime
    complete: bool
    calls: int
    rows: list[InexactCalls]
    price_lists: list[UsedPriceList]


def inexact_calls(store: Store, *, since: datetime) -> Exactness:
    """Which calls from `since` on have a cost that is not known exactly, and why. Raises StoreError."""
    return typed(Exactness, store.call("inexact_calls_v1", since=since))


def check_exactness(found: Exactness) -> Iterator[Check]:
    """The checks of `doctor` on this: one a reason and model, with what to do. Unpriced calls have a check of their own."""
    rows = [row for row in found["rows"] if row["reason"] != "unpriced"]
    if not rows:
        yield Check("ok", f"the cost of every call that has a price is exact ({_of(found)})")
    for row in rows[:_SHOWN]:
        yield Check(
            "warn", f"{counted(row['calls'], 'call')} of {_model(row)}, {usd(row['cost'])}: {_why(row)}", _fix(row)
        )
    if more := rows[_SHOWN:]:
        yield Check(
            "warn", f"{sum(row['calls'] for row in more)} more calls whose cost is not exact", "See: doctor --json"
        )
    if stale := [used for used in found["price_lists"] if used["version"] != RELEASE]:
        versions = ", ".join(used["version"] for used in stale)
        yield Check(
            "warn",
            f"{counted(sum(used['calls'] for used in stale), 'call')} of the last week priced by genai-prices {versions}; "
            f"here is {RELEASE}",
            "Install the same release wherever calls are made. What it changes: vital-tracking prices check",
        )


_WHY: Final[Mapping[str, str]] = {
    "usage_estimated": "nobody reported their tokens, which are estimates",
    "ended_early": "they ended before their tokens were reported, which are estimates",
    "usage_missing": "nobody knows how many tokens they used",
    "modality_hidden": "the client does not tell how many tokens were audio, images or video",
    "modality_unpriced": "no price is known for tokens of this kind, which cost as much as text here",
    "unit_unpriced": "no price is known for {}",
    "unit_unknown": "{} is no unit that has prices",
    "passes_hidden": "a stream does not tell the tokens of all passes of an answer",
    "cache_hidden": "a stream does not tell how much of the prompt came from a cache",
    "cache_ttl_hidden": "a stream does not tell how long what was written to a cache is kept",
    "billed_units_hidden": "the client tells more tokens than are billed",
    "tier_unpriced": "no price is known for the tier {}, which costs as much as the standard one here",
    "total_unexplained": "the provider's total of tokens is more than its parts",
    "total_below_parts": "the provider's total of tokens is less than its parts",
}
"""What a reason means, by its first word; what stands behind a colon goes into the brackets."""

_FIXES: Final[Mapping[str, str]] = {
    "usage_estimated": "Streams of ChatOpenAI with a base_url or a client of its own: set stream_usage=True on the model. "
    "Else its client reports none.",
    "ended_early": "Calls that are cancelled, time out or break off; the provider may have billed other amounts.",
    "usage_missing": "Give tracker.record the tokens that the provider reports.",
    "modality_hidden": "Compare them with the provider's bill; `tracker.record` takes counts of your own.",
    "modality_unpriced": "Set one: vital-tracking prices set MODEL --unit output_image_tokens=USD (per million), or another unit",
    "unit_unpriced": "Set one: vital-tracking prices set MODEL --unit {}=USD",
    "unit_unknown": "Update vital-tracking and genai-prices; until then compare with the provider's bill.",
    "passes_hidden": "Invoke the model instead, where answers take several passes.",
    "cache_hidden": "Invoke the model instead, where prompts are cached.",
    "cache_ttl_hidden": "Invoke the model instead, where caches are kept for five minutes and for an hour.",
    "billed_units_hidden": "Stream the model instead.",
    "tier_unpriced": "Compare them with the provider's bill.",
    "total_unexplained": "Compare them with the provider's bill.",
    "total_below_parts": "Compare them with the provider's bill.",
}


def _why(row: InexactCalls) -> str:
    word, _, detail = row["reason"].partition(":")
    return _WHY.get(word, word.replace("_", " ") + (": {}" if detail else "")).format(detail)


def _fix(row: InexactCalls) -> str | None:
    word, _, detail = row["reason"].partition(":")
    if word == "usage_estimated" and row["call_type"] == "embedding":
        return "The client of these embeddings reports no tokens."
    fix = _FIXES.get(word)
    return fix.format(shlex.quote(detail)).replace("MODEL", shlex.quote(row["model"] or "MODEL")) if fix else None


def _model(row: InexactCalls) -> str:
    return " ".join(part for part in (row["provider"], row["model"] or "(no model)") if part)


def _of(found: Exactness) -> str:
    calls = counted(found["calls"], "call")
    return f"{calls} of the last week" if found["complete"] else f"the newest {calls}"
