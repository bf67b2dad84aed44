"""Records and calls as JSON: what comes back is what went, however strange it is."""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vital_tracking.calls.attribution import NOBODY
from vital_tracking.calls.hashes import Prefix
from vital_tracking.calls.json_codec import LONGEST, id_bytes, pack_record, pack_run, unpack_record, unpack_run
from vital_tracking.calls.live import LiveCall
from vital_tracking.calls.resolve import record_of
from vital_tracking.calls.run import Run
from vital_tracking.calls.wire import END_FACTS, USUAL_END, pack_call, pack_start, unpack_call
from vital_tracking.core.admission import Admission
from vital_tracking.core.context import CONTEXT_FIELDS, METADATA_KEY, CallContext
from vital_tracking.core.cost import AMOUNTS, Cost
from vital_tracking.core.frames import ScopeFrame
from vital_tracking.core.record import PRICE_FACTS, CallRecord, RunRecord
from vital_tracking.core.usage import Pass, TokenUsage
from vital_tracking.delivery.encoding import dated
from vital_tracking.delivery.rows import call_row, run_row
from vital_tracking.errors import BudgetExceeded, Stop
from vital_tracking.ids import new_id
from vital_tracking.spool.log_record import MAX_BODY

TRIES = settings(max_examples=25, deadline=None, derandomize=True)
NOON = datetime(2026, 5, 4, 12, 0, 0, 123456, tzinfo=UTC)


class Strange:
    """Somebody's idea of an id."""

    def __str__(self) -> str:
        return "strange-1"


class Broken:
    """What cannot even be printed."""

    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


class Shade(Enum):
    RED = "red"


@dataclasses.dataclass(frozen=True)
class Point:
    x: int


TEXTS = st.text(max_size=20) | st.sampled_from(["\ud800", "nul\0", "x" * 300, "ä" * 300, "\ud83d", ""])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.decimals(allow_nan=True, allow_infinity=True)
)
HOSTILE = st.sampled_from(
    [
        b"bytes", b"\xff", {1, 2}, frozenset("a"), (1, 2), ["a", ["b"]], {"a": {"b": {"c": 1}}}, {1: 2}, object(), Strange(),
        Shade.RED, Point(1), 10**30, -(10**30), math.nan, math.inf, uuid4(), NOON, NOON.date(), Decimal("1e400"),
        range(3), type, {"k": object()}, [object()], {"\ud800": "\ud800"}, True, 2**53 + 1, 1e300,
    ]
) | st.builds(Broken)  # fmt: skip  # not among the samples, which Hypothesis prints where it draws again
ANYTHING = SCALARS | HOSTILE
MAYBE_TEXT = st.none() | TEXTS
SHORT = st.text(max_size=10)
METADATA = st.dictionaries(SHORT | st.integers(), ANYTHING, max_size=4)
TIMES = st.datetimes(
    datetime(1971, 1, 1),  # noqa: DTZ001
    datetime(9000, 1, 1),  # noqa: DTZ001
    timezones=st.none() | st.sampled_from([UTC, timezone(timedelta(hours=-7))]),
)
COUNTS = st.integers(0, 10**12)


def made(kind: type[Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Instances of a named tuple; of one, `builds` would make up the fields that have a default."""
    return st.fixed_dictionaries(fields).map(lambda drawn: kind(**drawn))


PLAIN_USAGES = made(TokenUsage, prompt_tokens=COUNTS, completion_tokens=COUNTS)
USAGES = st.builds(
    TokenUsage, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS,
    units=st.dictionaries(
        st.sampled_from(["web_searches", "output_image_tokens", "input_audio_seconds", "own_unit"]),
        COUNTS | st.decimals(0, 1000, places=3),
    ),
    passes=st.lists(st.builds(Pass, PLAIN_USAGES, st.sampled_from([None, "advisor"])), max_size=2).map(tuple),
    estimated=st.booleans(), notes=st.just(()) | st.just(("token_total_missing",)),
)  # fmt: skip
DOLLARS = st.decimals(min_value=0, max_value=10**6, places=18)
COSTS = st.none() | st.builds(
    Cost.of, st.fixed_dictionaries(dict.fromkeys(AMOUNTS, DOLLARS)), st.sampled_from(["v", "listed ä"])
)
CONTEXTS = st.dictionaries(st.sampled_from(CONTEXT_FIELDS), MAYBE_TEXT | st.integers(), max_size=5).map(
    lambda fields: CallContext(**fields)  # type: ignore[arg-type]
)
RECORDS = made(
    CallRecord,
    id=st.builds(new_id),
    created_at=TIMES,
    context=CONTEXTS,
    provider=MAYBE_TEXT,
    model=MAYBE_TEXT,
    requested_model=MAYBE_TEXT,
    call_type=st.sampled_from(["chat", "completion", "embedding"]),
    run_id=MAYBE_TEXT,
    parent_run_id=MAYBE_TEXT,
    trace_id=MAYBE_TEXT,
    langsmith_project=MAYBE_TEXT,
    usage=USAGES,
    billed=st.booleans(),
    status=st.sampled_from(["ok", "error", "cancelled", "abandoned", "blocked"]),
    error_type=MAYBE_TEXT,
    latency_ms=st.none() | st.floats(),
    ttft_ms=st.none() | st.floats(),
    cache_hit=st.booleans(),
    price_facts=st.dictionaries(st.sampled_from(PRICE_FACTS), st.sampled_from(["flex", "us"]), max_size=3),
    sent_model=MAYBE_TEXT,
    first_word_ms=st.none() | st.floats(),
    reported_cost=st.none() | st.decimals(0, 1000, places=12),
    budget_action=MAYBE_TEXT,
    throttled_ms=st.none() | st.floats(),
    request_hash=MAYBE_TEXT,
    prefix_hashes=st.sampled_from([(), ("0" * 16, "f" * 16)]),
    prompt_bytes=st.none() | st.integers(8192, 2**40),
    tags=st.lists(TEXTS, max_size=40),
    metadata=METADATA,
    notes=st.lists(st.sampled_from(["usage_missing", "merged"]), max_size=2).map(tuple),
    hold=st.none(),
    clocked=st.just(False),
    replaces_abandoned=st.booleans(),
    calls=st.integers(1, 10**9),
    cost=COSTS,
)


def rows_of(record: CallRecord, other: CallRecord) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the database would be sent for both, in the same words."""
    rows = [call_row(one, one.cost) for one in (record, other)]
    for row, one in zip(rows, (record, other), strict=True):
        moment = one.created_at if one.created_at.tzinfo else one.created_at.replace(tzinfo=UTC)
        row["created_at"] = moment.astimezone(UTC).isoformat()
        # Ids of LangGraph's have columns; beside them they stand as text or not at all.
        kept = row.get("metadata", {})
        row["metadata"] = {
            key: value for key, value in kept.items() if key not in ("thread_id", "langgraph_node", "lc_agent_name")
        }
        if not row["metadata"]:
            row.pop("metadata", None)  # nothing is the column's default
    return rows[0], rows[1]


# Records


@TRIES
@given(RECORDS)
def test_a_record_is_read_as_it_was_written(record: CallRecord) -> None:
    """If this failed, a call that went through the spool would not be stored as one that did not."""
    packed = pack_record(record)
    back = unpack_record(packed, 3600.0)
    ours, theirs = rows_of(record, back)
    assert theirs == ours
    assert back.cost == record.cost
    assert (back.usage, back.billed, back.calls, back.notes) == (
        record.usage,
        record.billed,
        record.calls,
        record.notes,
    )
    assert (back.replaces_abandoned, back.clocked) == (record.replaces_abandoned, False)
    # As often as it is taken up and put down again.
    assert rows_of(back, unpack_record(pack_record(back), 0.0))[0] == rows_of(back, back)[0]


@TRIES
@given(RECORDS)
def test_a_shortened_record_keeps_its_money_and_owners(record: CallRecord) -> None:
    """If this failed, a full disk would change the bill."""
    packed = pack_record(record, short=True)
    assert len(packed) < LONGEST
    ours, theirs = rows_of(record, unpack_record(packed))
    for row in (ours, theirs):
        row.pop("tags", None)
        row.pop("metadata", None)
    assert theirs == ours
    assert "shortened" in unpack_record(packed).notes


@TRIES
@given(st.sampled_from([name for name in CONTEXT_FIELDS if not name.startswith("panel_")]), ANYTHING, METADATA)
@example("organization_id", float("inf"), {})
def test_any_owner_is_read_as_it_would_be_stored(name: str, value: Any, metadata: dict[Any, Any]) -> None:
    """If this failed, a call would belong to nobody because its user id is an object of somebody's."""
    record = CallRecord(new_id(), NOON, CallContext(**{name: value}), metadata=metadata, clocked=False)
    for short in (False, True):
        ours, theirs = rows_of(record, unpack_record(pack_record(record, short=short), 0.0))
        assert theirs.get(name) == ours.get(name)
        if not short:
            assert theirs.get("metadata") == ours.get("metadata")


def test_a_records_time_is_corrected_by_the_database_clock_once() -> None:
    """If this failed, a call that is sent again would have another time, and count twice."""
    read = CallRecord(new_id(), NOON, clocked=True)
    for known, by in ((None, 0.0), (90.5, 90.5)):
        once = dated(read, known)
        assert (once.created_at, once.clocked) == (NOON + timedelta(seconds=by), False)
        assert dated(once, 3600.0) == once
    back = unpack_record(pack_record(read), 90.5)  # as an earlier version has left it
    assert (back.created_at, back.clocked) == (NOON + timedelta(seconds=90.5), False)
    assert unpack_record(pack_record(back), 90.5).created_at == back.created_at
    given_ = CallRecord(new_id(), NOON, clocked=False)
    assert unpack_record(pack_record(given_), 90.5).created_at == NOON


def test_a_user_id_of_a_megabyte_is_shortened() -> None:
    """If this failed, one mad id would cost its call, or a megabyte of disk for each."""
    record = CallRecord(
        new_id(), NOON, CallContext(user_id="u" * (1 << 20), session_id="s"), model="m" * (1 << 20), usage=TokenUsage(7, 3),
        metadata={"k": "v" * (1 << 20)}, tags=["t" * (1 << 20)] * 100, clocked=False,
    )  # fmt: skip
    short = pack_record(record, short=True)
    assert len(short) < LONGEST
    ours, theirs = rows_of(record, unpack_record(short, 0.0))
    assert (theirs["user_id"], theirs["model"], theirs["prompt_tokens"]) == (ours["user_id"], ours["model"], 7)
    assert len(pack_record(record)) < 3 * MAX_BODY


def test_what_a_later_version_adds_to_a_record_is_ignored() -> None:
    """If this failed, a process of an older version would set aside what a newer one has left."""
    record = CallRecord(
        new_id(),
        NOON,
        CallContext(user_id="u"),
        usage=TokenUsage(1, 2),
        cost=Cost.of(dict.fromkeys(AMOUNTS, Decimal(1)), "v"),
    )
    data = orjson.loads(pack_record(record))
    data |= {"later": {"x": 1}}
    for part in ("context", "usage", "cost"):
        data[part] |= {"later": [1]}
    back = unpack_record(orjson.dumps(data), 0.0)
    assert (back.context, back.usage, back.cost) == (record.context, record.usage, record.cost)
    run = RunRecord(new_id(), CallContext(user_id="u"), NOON)
    data = orjson.loads(pack_run(run)) | {"later": 1}
    data["context"]["later"] = 2
    assert unpack_run(orjson.dumps(data)) == run


# Service runs

RUNS = made(
    RunRecord,
    id=st.builds(new_id) | TEXTS,
    context=CONTEXTS,
    started_at=TIMES,
    status=st.sampled_from(["running", "ok", "error", "cancelled"]),
    ended_at=st.none() | TIMES,
    error_type=MAYBE_TEXT,
    parent_run_id=MAYBE_TEXT,
    ancestor_run_ids=st.lists(TEXTS, max_size=3).map(tuple),
    metadata=METADATA,
)


@TRIES
@given(RUNS)
def test_a_service_run_is_read_as_it_was_written(run: RunRecord) -> None:
    """If this failed, a service run that went through the spool would lose who it was for, or its end."""
    assert run_row(unpack_run(pack_run(run))) == run_row(run)


# LangChain's calls

DETAIL = st.sampled_from(["cache_read", "cache_creation", "audio", "reasoning", "ephemeral_1h_input_tokens"])
A_COUNT = COUNTS | ANYTHING.filter(lambda value: not isinstance(value, Decimal))  # no JSON, so no provider, has these
DETAILS = st.dictionaries(DETAIL, A_COUNT, max_size=3)
CALL_USAGE = st.none() | st.fixed_dictionaries(
    {}, optional={
        "input_tokens": A_COUNT, "output_tokens": A_COUNT, "total_tokens": COUNTS, "total_cost": ANYTHING,
        "input_token_details": DETAILS | A_COUNT, "output_token_details": DETAILS,
    },
)  # fmt: skip
# What is read as a text, and nothing else that has one.
NAMES = MAYBE_TEXT | st.integers(0, 9) | st.sampled_from([["a"], {"a": 1}, b"b"])
OWNERS = (
    MAYBE_TEXT
    | st.sampled_from([b"bytes", Strange(), ["a"], {1: 2}, 10**30, True, uuid4(), object])
    | st.builds(Broken)
)
CALL_METADATA = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("ls_provider", "ls_model_name", "langgraph_checkpoint_ns"), NAMES),
        **dict.fromkeys(("vital_user_id", "vital_session_id", "vital_agent_id", "thread_id"), OWNERS),
        **dict.fromkeys(("langgraph_node", "lc_agent_name"), OWNERS),
        **dict.fromkeys(("vital_oops", "langgraph_step", "ls_temperature", "other"), SCALARS),
        METADATA_KEY: st.dictionaries(SHORT, SCALARS, max_size=3) | ANYTHING,
    },
)
PARAMETERS = st.dictionaries(st.sampled_from(["model", "model_name", "_type", "n"]), NAMES, max_size=3)
RESPONSES = st.dictionaries(
    st.sampled_from(["model_name", "finish_reason", "service_tier", "model"]), NAMES, max_size=3
)
PROMPT_AND_ANSWER = st.fixed_dictionaries({"prompt_tokens": COUNTS, "completion_tokens": COUNTS})


class Failure(Exception):
    code = "rate_limit_exceeded"
    status_code = 429


@st.composite
def open_calls(draw: st.DrawFn) -> LiveCall:
    """A call as the handler would have it when it has ended."""
    frame = (
        ScopeFrame(new_id(), draw(CONTEXTS), metadata=draw(st.dictionaries(SHORT, SCALARS, max_size=3)))
        if draw(st.booleans())
        else None
    )
    call = LiveCall(
        draw(st.builds(uuid4)).int,
        draw(st.sampled_from(["chat", "completion"])),
        draw(st.none() | st.just({"id": ["langchain", "openai", "Chat"]}) | st.just({"id": object()})),
        None,
        draw(st.none() | st.builds(uuid4)),
        draw(st.none() | st.lists(TEXTS, max_size=3)),
        draw(CALL_METADATA),
        draw(PARAMETERS),
        draw(st.integers(1, 3)),
    )
    call.frame = call.marked = frame
    call.default = draw(st.just(NOBODY) | CONTEXTS)
    call.allowed |= {"other"} if draw(st.booleans()) else set()
    call.size = draw(st.integers(0, 10**6))
    call.run = Run(uuid4(), draw(MAYBE_TEXT)) if draw(st.booleans()) else None
    call.attempt = draw(st.none() | st.integers(1, 5))
    call.hash = draw(st.none() | st.just("f" * 32))
    call.prefix = draw(st.none() | st.just(Prefix(("0" * 16, "f" * 16), 8200)))
    call.usage = draw(CALL_USAGE)
    call.token_usage = draw(st.none() | st.just({}) | PROMPT_AND_ANSWER)
    call.response = draw(RESPONSES)
    call.message_id = draw(st.none() | st.builds(lambda run: f"lc_run--{run}", st.builds(uuid4)))
    call.inner = draw(st.booleans())
    call.batch_reported = draw(st.booleans())
    call.notes = draw(st.sampled_from([(), ("start_missed",)]))
    call.estimate = draw(st.none() | st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)))
    call.replaces_abandoned = draw(st.booleans())
    if draw(st.booleans()):
        call.fail(Failure())
    else:
        call.status = draw(st.sampled_from(["ok", "abandoned", "cancelled"]))
    if draw(st.booleans()):
        call.admission = Admission(action="downgrade", throttled_ms=12.5, requested_model="dear")
    call.first_token = draw(st.none() | st.just(call.started_clock + 0.25))
    call.ended = call.started_clock + draw(st.floats(0, 1000))
    return call


@TRIES
@given(open_calls())
def test_a_call_is_read_as_it_was_written(call: LiveCall) -> None:
    """If this failed, a call would be stored otherwise than it was made, only because it lay in a file for a while."""
    expected = record_of(call.observed())
    back = record_of(unpack_call(call.id.bytes, pack_call(call)))
    ours, theirs = rows_of(expected, back)
    for row in (ours, theirs):
        row["latency_ms"] = row.get("latency_ms") and pytest.approx(row["latency_ms"], abs=0.01)
    assert theirs == ours
    assert (back.usage, back.billed, back.notes) == (expected.usage, expected.billed, expected.notes)


UNUSUAL: dict[str, tuple[str, Any]] = {
    "estimate": ("estimate", [1, 2, 3]),
    "inner": ("answered_inside", True),
    "batch_reported": ("batch_reported", False),
    "replaces_abandoned": ("replaces_abandoned", True),
    "notes": ("notes", ["start_missed"]),
    "first_word": ("first_word_ms", 500.0),
    "hidden": ("hidden", ["audio"]),
}
"""What may be unusual of an end alone, by the attribute of the live call: what it is read as."""


@pytest.mark.parametrize("attribute", [None, *UNUSUAL])
def test_of_an_end_nothing_unusual_is_left_out(attribute: str | None) -> None:
    """If this failed, a single note, or a sound in the prompt, would be forgotten on the way to the row."""
    call = LiveCall(uuid4().int, "chat", None, None, None, None, None, None, 1)
    call.end(None)
    call.estimate = None
    if attribute is not None:
        field, value = UNUSUAL[attribute]
        setattr(call, attribute, call.started_clock + 0.5 if attribute == "first_word" else value)
    back = unpack_call(call.id.bytes, pack_call(call))
    usual = unpack_call(call.id.bytes, pack_start(call))
    for name in [name for name, _ in UNUSUAL.values()]:
        expected = value if attribute is not None and name == field else getattr(usual, name)
        found = getattr(back, name)
        assert (list(found) if isinstance(found, tuple) else found) == (
            list(expected) if isinstance(expected, tuple) else pytest.approx(expected)
        )
    assert len(orjson.loads(pack_call(call).split(b"\n")[2])) == (USUAL_END if attribute is None else len(END_FACTS))


@TRIES
@given(open_calls())
def test_a_shortened_call_keeps_its_money_and_owners(call: LiveCall) -> None:
    """If this failed, a full disk would change the bill, or to whom it goes."""
    expected = record_of(call.observed())
    packed = pack_call(call, short=True)
    assert len(packed) < LONGEST
    back = record_of(unpack_call(call.id.bytes, packed))
    assert (list(back.tags), back.request_hash, back.prefix_hashes, back.metadata.get("other")) == ([], None, (), None)
    ours, theirs = rows_of(expected, back)
    for row in (ours, theirs):
        for name in ("tags", "metadata", "request_hash", "prefix_hashes", "prompt_bytes", "latency_ms", "message_type"):
            row.pop(name, None)
    assert theirs == ours
    assert (back.usage, back.billed) == (expected.usage, expected.billed)
    assert "shortened" in back.notes


@TRIES
@given(open_calls())
def test_a_beginning_says_whose_call_it_was(call: LiveCall) -> None:
    """If this failed, a call in flight at a kill would be billed to nobody."""
    call.error, call.status, call.usage, call.token_usage, call.inner = None, "abandoned", None, None, False
    call.notes, call.response, call.first_token, call.replaces_abandoned, call.message_id = (), {}, None, False, None
    call.estimate = (call.size or 0, 0)
    expected = record_of(call.observed())
    expected = expected._replace(latency_ms=None)  # nobody knows when it ended
    back = record_of(unpack_call(call.id.bytes, pack_start(call)))
    ours, theirs = rows_of(expected, back)
    assert theirs == ours
    assert back.usage.estimated


def test_a_run_id_that_is_no_uuid_is_read_as_it_was_written() -> None:
    """If this failed, calls of a framework with ids of its own could not be delivered."""
    call = LiveCall("run-1", "chat", None, None, None, None, {}, {}, 1)  # type: ignore[arg-type]
    assert record_of(unpack_call(call.id.bytes, pack_call(call))).run_id == "run-1"


def test_a_call_that_was_stopped_after_its_start_was_packed_was_not_admitted() -> None:
    """If this failed, a call that was never made would be said to have waited, and to have been asked of a dearer model."""
    call = LiveCall(uuid4().int, "chat", None, None, None, None, {"ls_model_name": "m"}, {}, 2)
    call.admission = Admission(action="downgrade", throttled_ms=12.5, requested_model="dear")
    call.packed_start = pack_start(call)
    call.stop(BudgetExceeded(Stop(action="block", entity_type="user", entity_id="u")))
    for record in (
        record_of(call.observed()),
        record_of(unpack_call(call.id.bytes, pack_call(call))),
    ):
        assert (record.status, record.budget_action) == ("blocked", "block")
        assert (record.throttled_ms, record.requested_model) == (None, None)


@pytest.mark.parametrize("cost", [0, 0.0, 0.25, Decimal(0), False])
def test_only_a_cost_of_zero_as_the_cache_writes_it_is_a_cache_hit(cost: Any) -> None:
    """If this failed, the calls of a model that costs nothing would be taken for answers of the cache, once they lay on disk."""
    call = LiveCall(uuid4().int, "chat", None, None, None, None, {}, {}, 1)
    call.usage = {"input_tokens": 3, "output_tokens": 4, "total_cost": cost}
    call.ended = call.started_clock
    hit = type(cost) is int
    assert record_of(call.observed()).cache_hit is hit
    assert record_of(unpack_call(call.id.bytes, pack_call(call))).cache_hit is hit


def test_models_that_are_stored_under_one_name_are_one() -> None:
    """If this failed, a row would name its model twice, or once, by where the call has waited."""
    call = LiveCall(uuid4().int, "chat", None, None, None, None, {"ls_provider": "p", "ls_model_name": "m\0"}, {}, 1)
    call.response, call.ended = {"model_name": "m"}, call.started_clock
    for record in (record_of(call.observed()), record_of(unpack_call(call.id.bytes, pack_call(call)))):
        assert (record.model, record.requested_model) == ("m", None)


def test_a_parent_without_an_id_is_none() -> None:
    """If this failed, calls of a framework that says "" for no parent would have a parent, which is nobody."""
    call = LiveCall(uuid4().int, "chat", None, None, "", None, {}, {}, 1)
    for record in (record_of(call.observed()), record_of(unpack_call(call.id.bytes, pack_call(call)))):
        assert (record.parent_run_id, record.trace_id) == (None, record.run_id)


def test_a_calls_time_is_corrected_by_the_database_clock_once() -> None:
    """If this failed, the same call would have another time in its second frame."""
    call = LiveCall(uuid4().int, "chat", None, None, None, None, {}, {}, 1)
    moment = datetime.fromtimestamp(call.started, UTC)
    times = [record_of(unpack_call(call.id.bytes, pack_call(call), skew)).created_at - moment for skew in (0.0, 60.0)]
    assert times == [timedelta(0), timedelta(seconds=60)]  # as an earlier version has left it
    assert dated(dated(call, -30.0), 3600.0).skew_s == -30.0
    for pack in (pack_call, pack_start):
        assert record_of(unpack_call(call.id.bytes, pack(call), 60.0)).created_at - moment == timedelta(seconds=-30)


@TRIES
@given(open_calls())
def test_what_an_earlier_version_has_left_is_read(call: LiveCall) -> None:
    """If this failed, the calls that wait in the spool while a process gets a new version would never be stored."""
    shared, start, *_ = started = pack_start(call).splitlines()
    opening = b'%b,"values":%b}' % (shared[:-1], start)
    ended = b'{"opening":%b,"end":%b}' % (opening, pack_call(call).splitlines()[2])
    for former, lines in ((opening, b"\n".join(started)), (ended, pack_call(call))):
        assert b"\n" not in former
        ours, theirs = (record_of(unpack_call(call.id.bytes, payload)) for payload in (lines, former))
        assert theirs == ours


@TRIES
@given(open_calls())
def test_a_call_of_a_version_that_hashed_no_prefixes_is_read(call: LiveCall) -> None:
    """If this failed, its values would be taken for those of other fields."""
    call.prefix = None
    shared, start, end = map(orjson.loads, pack_call(call).splitlines())
    values = len(shared["keys"]["kept"])
    cut = len(start) - values
    assert start[cut - 2 : cut] == [None, None]
    former = b"\n".join(map(orjson.dumps, (shared, [*start[: cut - 2], *start[cut:]], end)))
    ours, theirs = (record_of(unpack_call(call.id.bytes, payload)) for payload in (pack_call(call), former))
    assert theirs == ours


def test_what_a_later_version_adds_to_a_call_is_ignored() -> None:
    """If this failed, a process of an older version would set aside what a newer one has left."""
    call = LiveCall(uuid4().int, "chat", None, None, None, None, {"ls_model_name": "m"}, {}, 1)
    failure = Failure()
    failure.completion = type("C", (), {"usage": TokenUsage()})()  # type: ignore[attr-defined]
    call.fail(failure)
    assert call.error is not None
    call.error.usage = {"prompt_tokens": 3, "completion_tokens": 4}
    shared, start, end = map(orjson.loads, pack_call(call).splitlines())

    def grown(value: Any) -> Any:
        if isinstance(value, dict):
            return {**{name: grown(inner) for name, inner in value.items()}, "later": {"x": [1]}}
        return value

    values = len(shared["keys"]["kept"])
    start = [*start[: len(start) - values], "later", *start[len(start) - values :]]
    lines = (grown(shared), [*map(grown, start)], [*map(grown, end), "later"])
    back = record_of(unpack_call(call.id.bytes, b"\n".join(map(orjson.dumps, lines))))
    expected = record_of(call.observed())
    assert (back.model, back.usage, back.error_type) == (expected.model, expected.usage, expected.error_type)


def test_the_key_of_an_end_is_that_of_its_beginning() -> None:
    """If this failed, no end would find its beginning."""
    call_id = new_id()
    assert UUID(bytes=id_bytes(call_id)) == UUID(call_id)
