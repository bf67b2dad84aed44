"""Keyed hashes of prompts' beginnings: if they were wrong, advice on prompt caching would promise what no provider gives."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from pydantic import BaseModel

from vital_tracking.calls.hashes import FIRST_BLOCK, MOST_BLOCKS, Prefix, RequestHashes, request_hash

HASHES = RequestHashes(b"key")
RULES = SystemMessage("Rule. " * 2000)  # 12,000 bytes: two blocks
TOOL = {"type": "function", "function": {"name": "add", "description": "Adds. " * 800, "parameters": {}}}


def prefix(*messages: Any, hashes: RequestHashes = HASHES, **params: Any) -> Prefix:
    found = hashes.prefix(params, [list(messages)])
    assert found is not None
    return found


def shared(one: Prefix, other: Prefix) -> int:
    """How many blocks two prompts begin with alike."""
    same = [a == b for a, b in zip(one.hashes, other.hashes, strict=False)]
    return same.index(False) if False in same else len(same)


def test_prompts_that_begin_alike_share_the_blocks_up_to_where_they_differ() -> None:
    """If this failed, nobody could tell how much of a prompt a provider would find in its cache."""
    first = prefix(RULES, HumanMessage("a" * 9000), model="m", temperature=0.1)
    other = prefix(RULES, HumanMessage("b" * 90_000), model="other", temperature=0.9, user="x")
    assert (len(first.hashes), len(other.hashes), shared(first, other)) == (3, 5, 2)
    longer = prefix(RULES, HumanMessage("a" * 9000, id="m-1"), AIMessage("Yes."), HumanMessage("c" * 90_000))
    assert shared(first, longer) == 3, "the next turn of a conversation begins with all of the one before"
    assert shared(first, prefix(SystemMessage("Other. " + "Rule. " * 2000))) == 0


def test_the_size_says_how_many_tokens_a_block_is() -> None:
    """If this failed, the tokens of a beginning, and so the saving, would be miscounted."""
    found = prefix(HumanMessage("ä" * FIRST_BLOCK))
    assert len(found.hashes) == 2
    assert 0 < found.size - 2 * FIRST_BLOCK < 16
    assert HASHES.prefix({}, [[HumanMessage("a" * (FIRST_BLOCK - 20))]]) is None
    assert HASHES.prefix({}, []) is None
    most = prefix(HumanMessage("a" * (FIRST_BLOCK << 9)))
    assert (len(most.hashes), len(set(most.hashes))) == (MOST_BLOCKS, MOST_BLOCKS)


@given(st.lists(st.text(max_size=3000), min_size=1, max_size=8), st.integers(0, 2))
def test_a_prompt_has_one_hash_however_it_comes_in_pieces(texts: list[str], cut: int) -> None:
    """If this failed, the hash of a block would hang on where messages end, and not on the bytes before it."""
    padding = HumanMessage("x" * 2 * FIRST_BLOCK)
    messages: list[BaseMessage] = [HumanMessage(text) for text in texts]
    whole = prefix(*messages, padding)
    again = prefix(*messages, padding, *messages[:cut])
    assert again.hashes[: len(whole.hashes)] == whole.hashes
    assert again.size >= whole.size
    reused = RequestHashes(b"key")
    assert [prefix(*messages, padding, hashes=reused) for _ in range(2)] == [whole, whole]


def test_tools_come_first_and_sampling_does_not_count() -> None:
    """If this failed, a call with other tools would seem to find a cached beginning."""
    ask = HumanMessage("Hi")
    plain = prefix(ask, tools=[TOOL], temperature=0.1, tool_choice="auto")
    assert shared(plain, prefix(HumanMessage("x" * 9000), tools=[TOOL], temperature=0.9)) == 1
    renamed = {**TOOL, "function": {**TOOL["function"], "name": "sub"}}  # type: ignore[dict-item]
    assert shared(plain, prefix(ask, tools=[renamed])) == 0
    assert shared(prefix(RULES), prefix(RULES, tools=[TOOL])) == 0
    assert shared(prefix(RULES, response_format={"a": 1}), prefix(RULES, response_format={"a": 2})) == 0


def test_marks_of_what_is_to_be_cached_are_no_part_of_a_prompt() -> None:
    """In a conversation the mark moves on from turn to turn, and what was kept is found all the same."""
    text = "Rule. " * 2000
    mark = {"cache_control": {"type": "ephemeral"}}
    marked = SystemMessage([{"type": "text", "text": text, **mark}])
    bedrock = SystemMessage([{"type": "text", "text": text}, {"cachePoint": {"type": "default"}}])
    assert prefix(RULES, tools=[TOOL]) == prefix(marked, tools=[{**TOOL, **mark}]) == prefix(bedrock, tools=[TOOL])


def test_where_a_part_ends_counts() -> None:
    """If this failed, one message and two of the same text would be one prompt."""
    half, rest = "a" * FIRST_BLOCK, HumanMessage("b" * FIRST_BLOCK)
    calls = [{"name": "f", "args": {"a": 1}, "id": "c-1", "type": "tool_call"}]
    kinds = (
        [HumanMessage(half + "c")],
        [HumanMessage(half[:-1]), HumanMessage("ac")],
        [HumanMessage([{"type": "text", "text": half[:-1]}, {"type": "text", "text": "ac"}])],
        [SystemMessage(half + "c")],
        [AIMessage(half + "c", tool_calls=calls)],
        [AIMessage(half + "c", tool_calls=[{**calls[0], "args": {"a": 2}}])],
        [ToolMessage(half + "c", tool_call_id="c-1")],
        [HumanMessage([{"type": "image", "base64": half + "c"}])],
    )
    seconds = {prefix(*messages, rest).hashes[1] for messages in kinds}
    assert len(seconds) == len(kinds)


def test_the_key_changes_everything() -> None:
    """If this failed, whoever knows one installation's prompts could find them in another's."""
    others = [RequestHashes(key) for key in (b"other", b"k" * 64, b"k" * 65, b"k" * 300, b"")]
    found = [prefix(RULES, hashes=one).hashes[0] for one in (HASHES, *others)]
    assert len(set(found)) == len(found)
    assert all(len(one) == 16 for one in found)
    plain = request_hash(b"key", ({}, [[RULES]]))
    assert HASHES.of({}, [[RULES]]) == (plain, prefix(RULES))
    assert not any(one in plain for one in found)


class Answer(BaseModel):
    """What is asked for."""

    text: str


class Bad(BaseModel):
    """A value that cannot be dumped."""

    def model_dump(self, **_: Any) -> Any:
        raise ValueError("canary")


@pytest.mark.parametrize(
    "odd",
    [
        "\ud800 alone",
        2**80,
        float("nan"),
        None,
        object,
        Answer,
        Answer(text="a"),
        Bad(),
        uuid4,
        b"\xff" * 100,
        {1: {2}, "a": (1, 2)},
        [[], {}, ""],
    ],
)
def test_whatever_users_put_in_a_prompt_has_a_hash(odd: Any) -> None:
    """If this failed, a call would not be recorded, for what is in its tools or in a block of its content."""
    assert len(prefix(HumanMessage([{"type": "odd", "value": "x"}]), RULES, tools=[odd]).hashes) == 2
    message = HumanMessage("x")
    message.content = [{"type": "odd", "value": odd}, odd]
    for _ in range(2):
        assert prefix(message, RULES).hashes == prefix(message, RULES).hashes
    assert HASHES.prefix(odd, [odd, [odd]]) is None
