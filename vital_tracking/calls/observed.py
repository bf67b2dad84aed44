"""What was observed of one call: plain facts that never change, from which the call's record is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vital_tracking.calls.error_facts import ErrorFacts
from vital_tracking.calls.metadata_keys import NAMESPACE_KEY, READ_KEYS
from vital_tracking.core.context import METADATA_KEY, CallContext
from vital_tracking.core.record import CallType, Status


class SharedFacts:
    """What calls of one scope whose metadata have the same keys share: worked out once, for all of them.

    `scope` is the scope's own metadata, `names` those of the calls' metadata that are kept. `stored` has the place of each
    value that is stored under its own name, `own` and `namespace` the places of those that are only read.
    """

    __slots__ = ("context", "names", "namespace", "own", "scope", "stored", "unknown_keys")

    def __init__(
        self,
        context: CallContext,
        scope: Mapping[str, Any],
        names: Sequence[str],
        allowed: frozenset[str],
        unknown_keys: Sequence[str],
    ) -> None:
        self.context = context
        self.scope = scope
        self.names = names
        self.unknown_keys = unknown_keys
        self.stored = tuple((place, name) for place, name in enumerate(names) if name in allowed)
        self.own = self.namespace = -1
        for place, name in enumerate(names):
            if name in READ_KEYS:
                if name == METADATA_KEY:
                    self.own = place
                elif name == NAMESPACE_KEY:
                    self.namespace = place


class ObservedCall(NamedTuple):
    """One call that has ended, or of which only its start is known.

    `started` is the start in seconds since the epoch, by the database's clock as far as that was known; times are milliseconds,
    sizes bytes of UTF-8. `values` are those of its metadata, in the order of the names in `shared`; `estimate` is the size of its
    prompt, of its answer, and of the part of that which was reasoning, where counts are missing. `hashed_bytes` is the size of
    the prompt with its tools, of which `prefix_hashes` were made. `usage`, `token_usage` and `response` are what `read_answer`
    took.
    """

    id: str
    shared: SharedFacts
    values: Sequence[Any]
    started: float
    call_type: CallType = "chat"
    run_id: Any = None
    parent_run_id: Any = None
    root_run_id: Any = None
    tool: str | None = None
    trace_id: Any = None
    project: str | None = None
    provider: str | None = None
    requested_model: str | None = None
    prompt_bytes: int = 0
    batch_size: int = 1
    attempt: int | None = None
    request_hash: str | None = None
    tags: Sequence[Any] | None = None
    budget_action: str | None = None
    throttled_ms: float | None = None
    dearer_model: str | None = None
    prefix_hashes: Sequence[str] | None = None
    hashed_bytes: int | None = None
    status: Status = "abandoned"
    duration_ms: float | None = None
    ttft_ms: float | None = None
    message_id: str | None = None
    response: Mapping[str, Any] = {}
    usage: Mapping[str, Any] | None = None
    token_usage: Mapping[str, Any] | None = None
    estimate: Sequence[int] | None = None
    error: ErrorFacts | None = None
    answered_inside: bool = False
    batch_reported: bool = True
    replaces_abandoned: bool = False
    notes: Sequence[str] = ()
    stopped_by: str | None = None
    first_word_ms: float | None = None
    hidden: Sequence[str] = ()
    blocked_by: Mapping[str, Any] | None = None
