"""Takes from LangChain's result what is billed by it, as it stands at that moment: a cache may change it later.

Runs in the caller's thread, so it only looks for names and counts blocks; what they mean is worked out later, in `usage_of`.
No text is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from vital_tracking.calls.quirks import (
    BLOCKS,
    COST_HEADERS,
    COUNTS_AMONG_FIELDS,
    FREE_ACTIONS,
    HIDDEN_PASSES,
    IMAGE_BLOCKS,
)
from vital_tracking.calls.texts import text_size
from vital_tracking.core.sanitize import MAX_TEXT, MAX_TOKENS, clean_text, is_mapping

# Only these fields of a result are kept; others may hold text, such as the tokens in `logprobs`.
_TEXTS: Final = frozenset(
    {
        "model_name",
        "model",
        "model_id",
        "finish_reason",
        "stop_reason",
        "service_tier",
        "search_context_size",
        "inference_profile_id",
        "status",
    }
)
_OTHERS: Final = frozenset(
    {"num_search_queries", "cost", "cost_details", "serviceTier", "performanceConfig", "grounding_metadata", "headers"}
)
_FIELDS: Final = _TEXTS | _OTHERS
_COUNTS: Final = ("usage", "token_usage", "token_count", "usage_metadata")
_MOST_BLOCKS: Final = 10_000


class Answer(NamedTuple):
    """What a result says of its bill: LangChain's `usage`, the provider's counts, fields of the response, the message's id."""

    usage: Mapping[str, Any] | None
    token_usage: Mapping[str, Any] | None
    response: Mapping[str, Any]
    message_id: Any


def read_answer(result: Any) -> Answer:
    """Read an LLMResult."""
    generations = getattr(result, "generations", None)
    first = next((group[0] for group in generations or () if group), None)
    message = getattr(first, "message", None)
    usage = message_id = None
    kept: dict[str, Any] = {}
    if message is not None:
        found = getattr(message, "usage_metadata", None)
        if type(found) is dict or is_mapping(found):
            usage = dict(found)
        fields = getattr(message, "response_metadata", None)
        message_id = getattr(message, "id", None)
        content, beside = getattr(message, "content", None), getattr(message, "additional_kwargs", None)
        if type(content) is list or beside:
            _count_blocks(kept, content, beside)
    else:
        fields = getattr(first, "generation_info", None)
    token_usage = None
    output = getattr(result, "llm_output", None)
    for source in (output, fields):
        if not source or not is_mapping(source):
            continue
        for name in _FIELDS.intersection(source):
            value = source[name]
            if type(value) is str and name in _TEXTS and len(value) <= MAX_TEXT:  # as most are
                kept[name] = value
            else:
                _keep(kept, name, value)
        if not token_usage:
            for name in _COUNTS:
                if (counts := source.get(name)) is not None and is_mapping(counts):
                    token_usage = dict(counts)
                    break
            else:
                if loose := [name for name in COUNTS_AMONG_FIELDS if source.get(name) is not None]:
                    token_usage = {name: source[name] for name in loose}
    return Answer(usage, token_usage, kept, message_id)


def holds_counts(usage: Mapping[str, Any] | None) -> bool:
    """Whether usage holds both counts; a quick check. Where it does not, sizes of texts are taken to estimate by."""
    return (
        usage is not None
        and type(prompt := usage.get("input_tokens")) is int
        and type(completion := usage.get("output_tokens")) is int
        and 0 < prompt <= MAX_TOKENS
        and 0 < completion <= MAX_TOKENS
    )


def _keep(kept: dict[str, Any], name: str, value: object) -> None:
    if isinstance(value, str):
        if name in _TEXTS:
            kept[name] = value if len(value) <= MAX_TEXT else clean_text(value)
    elif name == "grounding_metadata":
        queries = value.get("web_search_queries") if isinstance(value, Mapping) else None
        if queries:
            # Empty queries and those that are the same are not billed. https://ai.google.dev/gemini-api/docs/google-search#pricing
            kept["search_queries"] = len({query for query in queries if query})
    elif name == "serviceTier":  # Bedrock's
        if isinstance(value, Mapping) and isinstance(tier := value.get("type"), str):
            kept["service_tier"] = clean_text(tier)
    elif name == "performanceConfig":  # Bedrock's
        if isinstance(value, Mapping) and isinstance(latency := value.get("latency"), str):
            kept["latency"] = clean_text(latency)
    elif name == "headers":
        if isinstance(value, Mapping):
            found = next((value[header] for header in COST_HEADERS if header in value), None)
            if found is not None:
                kept.setdefault("cost", clean_text(str(found)))
    elif name in _OTHERS and value is not None:
        kept[name] = value


def _count_blocks(kept: dict[str, Any], content: object, beside: object) -> None:
    """Count what is billed apart: blocks of content, and the tool calls that some integrations put beside it."""
    blocks: list[tuple[str, Mapping[str, Any]]] = []
    if isinstance(content, list):
        blocks += [(_kind(block), block) for block in content[:_MOST_BLOCKS] if isinstance(block, Mapping)]
    if isinstance(beside, Mapping):
        if isinstance(calls := beside.get("tool_outputs"), Sequence):
            blocks += [(_kind(call), call) for call in calls[:_MOST_BLOCKS] if isinstance(call, Mapping)]
        if isinstance(calls := beside.get("executed_tools"), Sequence):
            blocks += [
                (f"executed:{call.get('type')}", call) for call in calls[:_MOST_BLOCKS] if isinstance(call, Mapping)
            ]
    if not blocks:
        return
    failed = {call for kind, block in blocks if (call := _failed_call(kind, block)) is not None}
    counts: dict[str, int] = {}
    seen: set[tuple[str, object]] = set()
    for kind, block in blocks:
        if kind in HIDDEN_PASSES or kind in IMAGE_BLOCKS:
            counts[kind] = counts.get(kind, 0) + 1
            continue
        billed = BLOCKS.get(kind)
        if billed is None or block.get("id") in failed or _action(block) in FREE_ACTIONS:
            continue
        if billed.distinct is not None and (mark := _inside(block, billed.distinct)) is not None:
            if (kind, mark) in seen:
                continue
            seen.add((kind, mark))
        counts[kind] = counts.get(kind, 0) + 1
    if counts:
        kept["blocks"] = counts
        if not IMAGE_BLOCKS.isdisjoint(counts):
            kept["text_bytes"] = text_size(
                [block for kind, block in blocks if kind == "text" or kind in IMAGE_BLOCKS]
                + [block for block in content if isinstance(block, str)]
                if isinstance(content, list)
                else content
            )


def _failed_call(kind: str, block: Mapping[str, Any]) -> object:
    """The call of a server's tool that a block says has failed, in Anthropic's words or in those of LangChain's v1."""
    result = block.get("output" if kind == "server_tool_result" else "content")
    if not kind.endswith("tool_result") or not isinstance(result, Mapping) or "error_code" not in result:
        return None
    return block.get("tool_use_id") or block.get("tool_call_id")


def _kind(block: Mapping[str, Any]) -> str:
    kind = block.get("type")
    if kind == "non_standard" and isinstance(inner := block.get("value"), Mapping):
        return _kind(inner)
    if kind == "text" and str(block.get("mime_type", "")).startswith("image/"):
        return "image"  # a stream of LangChain's v1 adds an image to the text before it
    if kind == "text" and isinstance(extras := block.get("extras"), Mapping) and "content" in extras:
        return "compaction"  # and so a summary of the conversation
    if kind in ("server_tool_use", "server_tool_call"):
        return f"server:{block.get('name')}"
    return f"custom:{block.get('name')}" if kind == "custom_tool_call" else str(kind)


def _action(block: Mapping[str, Any]) -> object:
    for name in ("action", "args"):
        if isinstance(inner := block.get(name), Mapping):
            return inner.get("type")
    return None


def _inside(block: Mapping[str, Any], name: str) -> object:
    extras = block.get("extras")
    found = block.get(name) or (extras.get(name) if isinstance(extras, Mapping) else None)
    return found if isinstance(found, str) else None
