"""What a request asks for that decides the price of its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vital_tracking.calls.quirks import ASKED_FACTS, AUDIO_BLOCKS, TOOL_FACTS


def asked_facts(params: Mapping[str, Any], *, tools_used: bool) -> dict[str, str]:
    """Facts that hold as they were asked for, as fields of a response; those of tools where the answer `tools_used` some."""
    found: dict[str, str] = {}
    for given in (params, params.get("model_kwargs")):
        if given and not ASKED_FACTS.isdisjoint(given):
            found |= {f"asked_{name}": value for name in ASKED_FACTS if isinstance(value := given.get(name), str)}
    tools = params.get("tools") if tools_used else None
    for tool in tools if isinstance(tools, list) else ():
        kind = str(tool.get("type")) if isinstance(tool, Mapping) else ""
        found |= dict(fact for start, fact in TOOL_FACTS.items() if kind.startswith(start))
    return found


def hidden_modalities(prompts: Sequence[Any] | None) -> tuple[str, ...]:
    """Which modalities of a prompt have prices of their own, so that its bill hangs on a count of them."""
    for messages in prompts or ():
        for message in messages if type(messages) is list else ():
            content = getattr(message, "content", None)
            if type(content) is not list:
                continue
            for block in content:
                if isinstance(block, Mapping) and (
                    block.get("type") in AUDIO_BLOCKS or str(block.get("mime_type", "")).startswith("audio/")
                ):
                    return ("audio",)
    return ()
