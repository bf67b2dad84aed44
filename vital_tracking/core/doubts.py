"""Why the cost of a call is not known exactly, and what to do about it: one table for the log, for `doctor` and for whoever asks.

A reason is a note of a row, such as `unit_unpriced:web_searches`, or one that its other columns say, such as `usage_estimated`.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Final, NamedTuple


class Doubt(NamedTuple):
    """A reason in words, and what to do. `{}` stands for what the reason says behind its colon, MODEL in `fix` for the model."""

    why: str
    fix: str


DOUBTS: Final[Mapping[str, Doubt]] = {
    "usage_estimated": Doubt(
        "nobody reported their tokens, which are estimates",
        "Streams of ChatOpenAI with a base_url or a client of its own: set stream_usage=True on the model. "
        "Else its client reports none.",
    ),
    "ended_early": Doubt(
        "they ended before their tokens were reported, which are estimates",
        "Calls that are cancelled, time out or break off; the provider may have billed other amounts.",
    ),
    "usage_missing": Doubt(
        "nobody knows how many tokens they used",
        "Give tracker.record the tokens that the provider reports.",
    ),
    "modality_hidden": Doubt(
        "the client does not tell how many tokens were audio, images or video",
        "Compare them with the provider's bill; `tracker.record` takes counts of your own.",
    ),
    "modality_unpriced": Doubt(
        "no price is known for tokens of this kind, which cost as much as text here",
        "Set one: vital-tracking prices set MODEL --unit output_image_tokens=USD (per million), or another unit",
    ),
    "unit_unpriced": Doubt(
        "no price is known for {}",
        "Set one: vital-tracking prices set MODEL --unit {}=USD",
    ),
    "unit_unknown": Doubt(
        "{} is no unit that has prices",
        "Update vital-tracking and genai-prices; until then compare with the provider's bill.",
    ),
    "passes_hidden": Doubt(
        "a stream does not tell the tokens of all passes of an answer",
        "Invoke the model instead, where answers take several passes.",
    ),
    "cache_hidden": Doubt(
        "a stream does not tell how much of the prompt came from a cache",
        "Invoke the model instead, where prompts are cached.",
    ),
    "cache_ttl_hidden": Doubt(
        "a stream does not tell how long what was written to a cache is kept",
        "Invoke the model instead, where caches are kept for five minutes and for an hour.",
    ),
    "billed_units_hidden": Doubt(
        "the client tells more tokens than are billed",
        "Stream the model instead.",
    ),
    "tier_unpriced": Doubt(
        "no price is known for the tier {}, which costs as much as the standard one here",
        "Compare them with the provider's bill.",
    ),
    "total_unexplained": Doubt(
        "the provider's total of tokens is more than its parts",
        "Compare them with the provider's bill.",
    ),
    "total_below_parts": Doubt(
        "the provider's total of tokens is less than its parts",
        "Compare them with the provider's bill.",
    ),
}
"""The reasons, by their first word."""


def doubt_about(reason: str, model: str | None = None) -> Doubt | None:
    """A reason in words and what to do about it, of calls of a model if that is named; None where it is none known here."""
    word, _, detail = reason.partition(":")
    doubt = DOUBTS.get(word)
    if doubt is None:
        return None
    fix = doubt.fix.format(shlex.quote(detail)).replace("MODEL", shlex.quote(model or "MODEL"))
    return Doubt(doubt.why.format(detail), fix)
