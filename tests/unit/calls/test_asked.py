"""What a request says of its price where the answer says nothing: read from its parameters, settings and messages."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import HumanMessage, SystemMessage

from vital_tracking.calls.asked import asked_cache, asked_facts

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
