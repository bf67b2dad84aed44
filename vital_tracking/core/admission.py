"""The request for a call's admission, and the admission: values that other modules hand to each other."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from vital_tracking.core.context import CallContext

UNKNOWN_SIZE: Final = -1
"""The size of a prompt of which only the tokens are known: estimates learn nothing from such a call."""


class Held(Protocol):
    """What budgets hold for one call, as far as code needs to know that only passes it on."""

    @property
    def holder(self) -> str:
        """The process whose grants it is a part of, by the name under which the database keeps these."""


class Request(NamedTuple):
    """A call that would be made: for whom, with which model, and how large it may get.

    `prompt_bytes` is the size of the prompt's text in UTF-8, in so many `messages`; `prompt_tokens` its tokens where they are
    known; `schema_bytes` is the size of the tools and schemas that go with it; `media_tokens` is what its pictures,
    films and files may well come to, `audio_tokens` what its sounds do, beside its text.
    `max_tokens` is the limit of the answer where one is set; `answers` how many answers are asked for. `downgraded`: the caller
    offers this model in place of a dearer one.
    """

    context: CallContext
    provider: str | None = None
    model: str | None = None
    prompt_bytes: int = 0
    messages: int = 1
    prompt_tokens: int | None = None
    max_tokens: int | None = None
    answers: int = 1
    downgraded: bool = False
    schema_bytes: int = 0
    media_tokens: int = 0
    audio_tokens: int = 0

    @property
    def size(self) -> int:
        """Bytes of all text that goes to the model; UNKNOWN_SIZE where only the prompt's tokens are known."""
        return UNKNOWN_SIZE if self.prompt_bytes < 0 else self.prompt_bytes + self.schema_bytes


@dataclass(slots=True)
class Admission:
    """A call may be made, with the hold that was taken for it, if any budget counts it.

    `action` is the strictest that was applied (`throttle`, `downgrade`; `shadow_block` and the like where a budget that is not
    enforced would have stopped the call; `unchecked` where the database gave no answer); `throttled_ms` the milliseconds waited.
    `max_tokens` is what the answer must be limited to, where the caller asked for clamping and the window cannot pay for more.
    `requested_model` is the dearer model in whose place this one goes. `call_id` is the call's, where it has one before its
    record is made, and `began` when it began and whether by a clock that is still to be corrected.
    """

    hold: Held | None = None
    action: str | None = None
    throttled_ms: float | None = None
    max_tokens: int | None = None
    requested_model: str | None = None
    call_id: str | None = None
    began: tuple[datetime, bool] | None = None
