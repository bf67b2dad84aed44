"""Billed calls in groups that are priced alike: what what-if reprices, exactly, however many calls there are.

Costs are US dollars as Decimal with all their digits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

from typing_extensions import TypedDict

from vital_tracking.core.cost import MONEY, ZERO
from vital_tracking.core.usage import TOKEN_COLUMNS, TOKEN_FIELDS, TokenUsage
from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.queries.explore import Period, explore
from vital_tracking.stores import Store

_READERS: Final = 2

CALLS_AT_ONCE: Final = 200_000
"""So many calls are read by one request, of which none may take longer than the Data API waits (8 s)."""


RATES: Final = "rates"
"""What decides about prices, among the dimensions by which groups are told apart."""


class GroupKey(NamedTuple):
    """What the calls of a group have in common.

    `size` is the greatest of the sizes asked for that their prompts reach, `era` how many of the instants had passed when they
    began. `fixed` calls are those that cannot be repriced from their tokens, `shadow` ones are shadow runs, `unattended` ones
    those that nobody waited for, `audio` ones those with tokens of sound. Of `hashed` ones it is known whether they are
    `repeated`, so that an exact cache would have answered; `alike` ones begin as others do, which a provider's cache would
    have kept.
    """

    provider: str | None = None
    model: str | None = None
    sent_model: str | None = None
    service: str | None = None
    call_type: str = "chat"
    agent: str | None = None
    tier: str | None = None
    workflow: str | None = None
    step: str | None = None
    facts: tuple[tuple[str, str], ...] = ()
    size: int = 0
    era: int = 0
    fixed: bool = False
    shadow: bool = False
    unattended: bool = False
    audio: bool = False
    priced: bool = True
    hashed: bool = False
    repeated: bool = False
    alike: bool = False

    @property
    def kind(self) -> str:
        """What they are, as the dimension of that name has it: `llm` or `embeddings`."""
        return "embeddings" if self.call_type == "embedding" else "llm"


@dataclass(frozen=True, slots=True)
class CallGroup:
    """The sums of the calls of a group: how many, their tokens, what they cost.

    `prefixed_calls` are those of which it is known how their prompts begin: `prefix_read_tokens` are those that a provider's
    cache would have read beyond what it did, and `prefix_write_tokens` what it would have had to write for them.
    """

    key: GroupKey
    calls: int
    usage: TokenUsage
    cost: Decimal
    estimated_calls: int = 0
    prefixed_calls: int = 0
    prefix_read_tokens: int = 0
    prefix_write_tokens: int = 0

    @property
    def hashed_calls(self) -> int:
        """How many of them are known to repeat others or not."""
        return self.calls if self.key.hashed else 0

    def plus(self, other: CallGroup) -> CallGroup:
        """Both together."""
        sums = {name: getattr(self.usage, name) + getattr(other.usage, name) for name in TOKEN_FIELDS}
        counts = {name: getattr(self, name) + getattr(other, name) for name in _COUNTS}
        return replace(self, usage=TokenUsage(**sums), cost=MONEY.add(self.cost, other.cost), **counts)


_COUNTS: Final = ("calls", "estimated_calls", "prefixed_calls", "prefix_read_tokens", "prefix_write_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cuts:
    """Where groups are cut, beside their dimensions: at sizes of the prompt and at instants, each in order.

    `ttl` is how long an exact cache would keep an answer, `prefix_ttl` how long a provider keeps the beginning of a prompt; None:
    nobody looks for repeated calls, or beginnings. Of service, agent, tier, workflow and step groups are told apart by those that
    `dimensions` names, and by what decides about prices where it names `rates`; without, they have no tokens. None: all.
    """

    sizes: Sequence[int] = ()
    eras: Sequence[datetime] = ()
    ttl: timedelta | None = None
    prefix_ttl: timedelta | None = None
    dimensions: Collection[str] | None = None


def read_call_groups(
    store: Store,
    period: Period,
    cuts: Cuts = Cuts(),
    *,
    organization: str | None = None,
    progress: Callable[[float], None] = lambda _share: None,
) -> list[CallGroup]:
    """The billed calls of a period in groups, from the calls themselves: two requests at a time, of some hundred thousand each.

    `progress` is told the share of the calls that has been read. Raises StoreError.
    """

    def read(part: tuple[datetime, datetime, float]) -> tuple[list[CallGroup], float]:
        since, until, share = part
        rows = store.call(
            "call_groups_v1",
            since=since,
            until=until,
            organization=organization,
            sizes=list(cuts.sizes),
            eras=list(cuts.eras),
            timezone=period.timezone,
            repeated_within=_interval(cuts.ttl),
            prefixes_within=_interval(cuts.prefix_ttl),
            dimensions=None if cuts.dimensions is None else sorted(cuts.dimensions),
        )
        return [_group(row) for row in typed(list[_GroupRow], [{**_ABSENT, **row} for row in rows])], share

    found: dict[GroupKey, CallGroup] = {}
    parts = list(_slices(store, period, organization))
    with ThreadPoolExecutor(min(_READERS, len(parts)), "vital-call-groups") as readers:
        for groups, share in readers.map(read, parts):
            _gather(found, groups)
            progress(share)
    return list(found.values())


def _interval(span: timedelta | None) -> str | None:
    return None if span is None else f"{span.total_seconds():f} seconds"


def _gather(found: dict[GroupKey, CallGroup], groups: Iterable[CallGroup]) -> None:
    for group in groups:
        known = found.get(group.key)
        found[group.key] = group if known is None else known.plus(group)


def _slices(store: Store, period: Period, organization: str | None) -> Iterator[tuple[datetime, datetime, float]]:
    """The period in parts of about as many calls as are read at once: since, until, the share that is read after it."""
    filters = {} if organization is None else {"organization": [organization]}
    days = explore(store, period, by=["hour"], filters=filters, measures=["calls"], rows=10_000)
    total = sum(row["calls"] for row in days.rows)
    since, waiting, done = period.since, 0, 0
    for row in days.rows:
        if waiting and waiting + row["calls"] > CALLS_AT_ONCE:
            done += waiting
            yield since, row["hour"], done / total
            since, waiting = row["hour"], 0
        waiting += row["calls"]
    yield since, period.until, 1.0


@answer_type
class _GroupRow(TypedDict):
    """A group as the database tells it."""

    provider: str | None
    model: str | None
    sent_model: str | None
    service_type: str | None
    call_type: str
    agent_id: str | None
    agent_tier: str | None
    workflow_id: str | None
    workflow_step: str | None
    facts: dict[str, str] | None
    size: int
    era: int
    fixed: bool
    shadow: bool
    unattended: bool
    audio: bool
    priced: bool
    hashed: bool
    repeated: bool
    alike: bool
    calls: int
    estimated_calls: int | None
    prompt_tokens: int
    completion_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    reasoning_tokens: int
    audio_tokens: int
    audio_output_tokens: int
    total_cost: Decimal
    prefixed_calls: int | None
    prefix_read_tokens: int | None
    prefix_write_tokens: int | None


_ABSENT: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("service_type", "agent_id", "agent_tier", "workflow_id", "workflow_step")),
    **dict.fromkeys(("provider", "model", "sent_model", "facts")),
    **dict.fromkeys(TOKEN_COLUMNS, 0),
    "call_type": GroupKey().call_type,
    "size": 0,
    "era": 0,
    "unattended": False,
    "audio": False,
}
"""What groups have that were not to be told apart by it."""


def _group(row: _GroupRow) -> CallGroup:
    key = GroupKey(
        provider=row["provider"],
        model=row["model"],
        sent_model=row["sent_model"],
        service=row["service_type"],
        call_type=row["call_type"],
        agent=row["agent_id"],
        tier=row["agent_tier"],
        workflow=row["workflow_id"],
        step=row["workflow_step"],
        facts=tuple(sorted((row["facts"] or {}).items())),
        size=row["size"],
        era=row["era"],
        fixed=row["fixed"],
        shadow=row["shadow"],
        unattended=row["unattended"],
        audio=row["audio"],
        priced=row["priced"],
        hashed=row["hashed"],
        repeated=row["repeated"],
        alike=row["alike"],
    )
    return CallGroup(
        key,
        row["calls"],
        TokenUsage.of_columns(row),
        row["total_cost"],
        estimated_calls=row["estimated_calls"] or 0,
        prefixed_calls=row["prefixed_calls"] or 0,
        prefix_read_tokens=row["prefix_read_tokens"] or 0,
        prefix_write_tokens=row["prefix_write_tokens"] or 0,
    )


# From sums


_SUMMED: Final = (
    "calls", "cached_calls", "blocked_calls", "unpriced_calls", "estimated_calls", "prompt_tokens", "completion_tokens",
    "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "audio_tokens", "fees", "total_cost",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SummedCalls:
    """All calls of a period by service, agent, provider, model and kind, from the daily sums.

    What sums cannot say stands in `unclear`: groups in which caches answered, calls were blocked or have no price, or something
    else than plain tokens was billed.
    """

    groups: Sequence[CallGroup]
    unclear: frozenset[GroupKey] = field(default_factory=frozenset)


def read_summed_calls(store: Store, period: Period, *, organization: str | None = None) -> SummedCalls:
    """The calls of a period from the daily sums, within a second however many there are. Raises StoreError."""
    groups: list[CallGroup] = []
    unclear: set[GroupKey] = set()
    for kind, call_type in (("llm", "chat"), ("embeddings", "embedding")):
        filters: dict[str, Sequence[str | None]] = {"kind": [kind]}
        if organization is not None:
            filters["organization"] = [organization]
        found = explore(
            store, period, by=["service", "agent", "provider", "model"], filters=filters, measures=_SUMMED, rows=100_000
        )
        for row in found.rows:
            if not row["calls"]:  # sums of calls that were deleted
                continue
            group = _summed_group(row, call_type)
            groups.append(group)
            if any(
                row[name]
                for name in (
                    "cached_calls",
                    "blocked_calls",
                    "unpriced_calls",
                    "cache_write_tokens",
                    "audio_tokens",
                    "fees",
                )
            ):
                unclear.add(group.key)
    return SummedCalls(groups, frozenset(unclear))


def _summed_group(row: Mapping[str, Any], call_type: str) -> CallGroup:
    key = GroupKey(
        provider=row["provider"],
        model=row["model"],
        service=row["service"],
        call_type=call_type,
        agent=row["agent"],
        priced=row["unpriced_calls"] < row["calls"],
    )
    usage = TokenUsage(
        prompt_tokens=int(row["prompt_tokens"]),
        completion_tokens=int(row["completion_tokens"]),
        cache_read_tokens=int(row["cache_read_tokens"]),
        cache_write_tokens=int(row["cache_write_tokens"]),
        reasoning_tokens=int(row["reasoning_tokens"]),
        audio_input_tokens=int(row["audio_tokens"]),
    )
    return CallGroup(key, row["calls"], usage, row["total_cost"] or ZERO, estimated_calls=row["estimated_calls"])
