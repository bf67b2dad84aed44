"""What a request says of its price where the answer says nothing: read from its parameters, settings and messages."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, TypedDict
from uuid import uuid4

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from vital_tracking.calls.asked import asked_cache, asked_facts, hidden_modalities, media_tokens, schema_size
from vital_tracking.calls.live import LiveCall

HOUR = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
MINUTES = {"cache_control": {"type": "ephemeral"}}


def marked(mark: dict[str, Any]) -> dict[str, Any]:
    return {"type": "text", "text": "Hi", **mark}


@pytest.mark.parametrize(
    ("prompts", "params", "kept"),
    [
        ([[HumanMessage("Hi")]], {}, None),
        ([[HumanMessage([marked(MINUTES)])]], {}, None),
        ([[HumanMessage([marked(HOUR)])]], {}, "long"),
        ([[SystemMessage([marked(HOUR)]), HumanMessage([marked(HOUR)])]], {}, "long"),
        ([[SystemMessage([marked(HOUR)]), HumanMessage([marked(MINUTES)])]], {}, "both"),
        ([[HumanMessage("Hi")]], {"tools": [{"name": "weather", **HOUR}]}, "long"),
        ([[HumanMessage("Hi")]], {"tools": [{"name": "weather", **MINUTES}], **HOUR}, "both"),
        ([[HumanMessage([{"cachePoint": {"type": "default", "ttl": "1h"}}])]], {}, "long"),
        (None, {}, None),
    ],
)
def test_how_long_a_cache_is_kept_is_read_from_its_marks(
    prompts: list[list[Any]] | None, params: dict[str, Any], kept: str | None
) -> None:
    """An hour's write costs 1.6 times as much as that of five minutes, and a stream of Claude does not say which it was."""
    assert asked_cache(prompts, params) == kept


def test_a_call_overrules_the_settings_of_its_model() -> None:
    """A call that asked for standard speed would be billed as fast."""
    settings = {"kwargs": {"inference_geo": "us", "model_kwargs": {"speed": "fast"}}}
    params = {"model_kwargs": {"speed": "fast"}, "speed": "standard", "image_config": {"image_size": "4K"}}
    assert asked_facts(params, settings, tools_used=False) == {
        "asked_speed": "standard",
        "asked_inference_geo": "us",
        "asked_image_size": "4K",
    }


@pytest.mark.parametrize("broken", [{"speed": 1}, {"image_config": "4K"}, {"image_config": {"image_size": 4}}])
def test_what_is_no_text_is_left_out(broken: dict[str, Any]) -> None:
    """A parameter of another shape would end in a fault of ours."""
    assert asked_facts(broken, {"kwargs": None}, tools_used=True) == {}


# What a prompt and its tools come to

PDF = base64.b64encode(bytes(400_000)).decode()
SPEECH = base64.b64encode(bytes(60_000)).decode()

SHEETS: dict[str, dict[str, Any]] = {
    "LangChain": {"type": "file", "mime_type": "application/pdf", "base64": PDF},
    "LangChain, before": {"type": "file", "source_type": "base64", "mime_type": "application/pdf", "data": PDF},
    "OpenAI": {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}},
    "OpenAI's Responses": {"type": "input_file", "file_data": f"data:application/pdf;base64,{PDF}"},
    "Anthropic": {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}},
    "Gemini": {"type": "media", "mime_type": "application/pdf", "data": bytes(400_000)},
    "Bedrock": {"document": {"format": "pdf", "name": "a", "source": {"bytes": bytes(400_000)}}},
}
SOUNDS: dict[str, dict[str, Any]] = {
    "LangChain": {"type": "audio", "mime_type": "audio/mpeg", "base64": SPEECH},
    "OpenAI": {"type": "input_audio", "input_audio": {"data": SPEECH, "format": "mp3"}},
    "Gemini": {"type": "media", "mime_type": "audio/mp3", "data": SPEECH},
}


@pytest.mark.parametrize("name", SHEETS)
def test_a_file_counts_by_its_size(name: str) -> None:
    """A budget would set nothing aside for a PDF of a hundred pages."""
    seen, sounds = media_tokens([[HumanMessage([marked({}), SHEETS[name]])]], "m")
    assert 100_000 <= seen <= 100_100
    assert sounds == 0


@pytest.mark.parametrize("name", SOUNDS)
def test_a_sound_counts_by_its_size(name: str) -> None:
    """As above, of an hour of speech; and a sound may cost more than text."""
    prompts = [[HumanMessage([marked({}), SOUNDS[name]])]]
    assert media_tokens(prompts, "m") == (0, 1001)
    assert hidden_modalities(prompts) == ("audio",)


@pytest.mark.parametrize(
    ("block", "model", "tokens"),
    [
        ({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}, "m", (1600, 0)),
        ({"type": "image", "source": {"type": "base64", "data": PDF}}, "claude-opus-4-7", (4784, 0)),
        ({"image": {"format": "png", "source": {"bytes": b"1"}}}, None, (1600, 0)),
        ({"type": "media", "mime_type": "image/png", "data": PDF}, "m", (1600, 0)),
        ({"type": "file", "file": {"file_id": "file-1"}}, "m", (46_000, 0)),
        ({"type": "video", "url": "https://example.com/a.mp4", "mime_type": "video/mp4"}, "m", (18_000, 0)),
        ({"type": "audio", "url": "https://example.com/a.mp3"}, "m", (0, 9_600)),
        ({"type": "input_audio", "input_audio": {"data": SPEECH, "format": "wav"}}, "m", (0, 121)),
        ({"type": "file", "mime_type": "application/pdf", "base64": 10 * PDF}, "m", (460_000, 0)),
        ({"type": "text-plain", "mime_type": "text/plain", "text": "Hi"}, "m", (0, 0)),
        ({"type": "tool_use", "input": {"data": "Hi"}}, "m", (0, 0)),
        ({"type": 5, "mime_type": 5}, "m", (0, 0)),
    ],
)
def test_what_is_in_a_block_decides_how_it_counts(
    block: dict[str, Any], model: str | None, tokens: tuple[int, int]
) -> None:
    """A picture counts by its model and not by its bytes, a text by its letters, and what lies elsewhere by a guess."""
    assert media_tokens([[HumanMessage([block])]], model) == tokens


class Visit(BaseModel):
    """Where somebody went, and why."""

    place: str = Field(description="A town or a village, by the name that the people there use.")
    reason: str


class Stay(TypedDict):
    """How long somebody stayed."""

    nights: int


@dataclass
class Trip:
    """A journey there and back."""

    days: int


def book(nights: int, place: str) -> str:
    """Book a room for so many nights."""
    return place * nights


@tool
def cancel(number: int) -> str:
    """Cancel a room by the number of its booking."""
    return str(number)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Visit, ("people there use", "Where somebody went", "reason")),
        (Stay, ("How long", "nights")),
        (Trip, ("A journey", "days")),
        (book, ("Book a room", "nights", "place")),
        (cancel, ("Cancel a room", "number")),
        ({"type": "function", "function": {"name": "visit", "parameters": Visit}}, ("people there use",)),
    ],
)
def test_schemas_given_as_code_count_as_what_is_sent(given: Any, words: tuple[str, ...]) -> None:
    """Twenty classes as tools would be taken for twenty short names, though their schemas are sent and billed."""
    size = schema_size({"tools": [given]})
    assert size >= len(repr([given])) + sum(map(len, words))
    assert schema_size({"tools": [given, given]}) >= 2 * size - 2
    assert schema_size({"response_format": given}) == size - 2  # the brackets


def test_code_that_has_no_schema_counts_as_its_name() -> None:
    """A tool that only we cannot describe must not be a fault of the call's."""
    assert schema_size({"tools": [object, len]}) >= len(repr([object, len]))


@pytest.mark.parametrize("asked", [True, False], ids=["by a budget", "by nobody"])
@pytest.mark.parametrize("sounds", [True, False], ids=["sounds", "text"])
def test_sounds_of_a_prompt_are_noted_whoever_has_looked_for_them_before(asked: bool, sounds: bool) -> None:
    """If this failed, a prompt of sounds would have the price of text, and its row would not say that this is uncertain."""
    content: Any = [{"type": "audio", "base64": "QUFB", "mime_type": "audio/wav"}] if sounds else "Hello"
    call = LiveCall(uuid4().int, "chat", None, [[HumanMessage(content)]], None, None, None, None, 1)
    if asked:
        call.request()
    call.end(LLMResult(generations=[[ChatGeneration(message=AIMessage("Yes"))]]))
    assert call.hidden == (("audio",) if sounds else ())
