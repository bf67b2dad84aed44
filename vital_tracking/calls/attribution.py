"""Who and what a call is for: its own metadata over its scope over the tracker's default, and what LangGraph adds."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from time import monotonic
from typing import Any, Final

from vital_tracking.calls.metadata_keys import NAMESPACE_KEY, MetadataKeys, remember
from vital_tracking.core.context import METADATA_KEY, CallContext
from vital_tracking.core.frames import ScopeFrame, resolve
from vital_tracking.core.sanitize import clean_text

ALLOWED_METADATA: Final = frozenset(
    {
        "assistant_id",
        "graph_id",
        "lc_agent_name",
        "langgraph_node",
        "langgraph_step",
        "langgraph_checkpoint_ns",
        "ls_max_tokens",
        "ls_temperature",
        "shadow_of",
        "thread_id",
    }
)
"""Metadata that LangChain, LangGraph and shadow runs add and that say something about cost; others are kept only where the team
allows it."""

_CAPTURED: Final = ("thread_id", "lc_agent_name", "graph_id", "assistant_id")

NOBODY: Final = CallContext()
HASHED_AS_THEY_ARE: Final = frozenset({str, int, type(None)})
"""Types of values that may be part of a cache's key. Not bool: as a key, True is the same as 1."""

# The contexts of calls outside of scopes, by the tracker's default context.
_outside: dict[int, tuple[CallContext, dict[object, CallContext]]] = {}


def context_of(
    default: CallContext,
    frame: ScopeFrame | None,
    marked: ScopeFrame | None,
    metadata: Mapping[str, Any],
    keys: MetadataKeys,
    *,
    in_tool: bool,
) -> CallContext:
    """The context of a call with such metadata. Calls of one scope whose own metadata are equal share one context.

    `frame` is the scope the call is in, `marked` the one whose metadata it carries (see `core.frames.locate`).
    """
    own = keys.owners(metadata)
    step = step_of(metadata, frame) if keys.in_graph else None
    if not (marked is frame or marked is None) or not HASHED_AS_THEY_ARE.issuperset(map(type, own)):
        return _merged(default, frame, marked, metadata, step, in_tool)
    known = frame.known if frame is not None else _known_of(default)
    key = (keys, in_tool, marked is None, step, own)
    context = known.get(key)
    if context is None:
        context = remember(known, key, _merged(default, frame, marked, metadata, step, in_tool))
    return context


def _known_of(default: CallContext) -> dict[object, CallContext]:
    known = _outside.get(id(default))
    if known is None or known[0] is not default:
        known = remember(_outside, id(default), (default, {}))
    return known[1]


def _merged(
    default: CallContext,
    frame: ScopeFrame | None,
    marked: ScopeFrame | None,
    metadata: Mapping[str, Any],
    step: str | None,
    in_tool: bool,
) -> CallContext:
    """The context of scope and metadata, with its gaps filled by what LangGraph and LangChain say of the call."""
    context = resolve(default, frame, marked, metadata)
    gaps = captured(context, metadata, step)
    if context.framework is None:
        gaps["framework"] = "langgraph" if metadata.get("langgraph_node") is not None else "langchain"
    if context.message_type is None:
        gaps["message_type"] = "tool_execution" if in_tool else "chat"
    return context.replace(gaps)


def captured(context: CallContext, metadata: Mapping[str, Any], step: str | None) -> dict[str, Any]:
    """What LangGraph, its server (`langgraph dev` and what it is deployed by) and LangChain say of a call, where nobody else has.

    A served graph is a workflow: its name in `langgraph.json` is the workflow's id, and the assistant, which is the graph with
    one configuration, the service's. `step` is what `step_of` says.
    """
    gaps: dict[str, Any] = {}
    thread, agent, graph, assistant = (clean_text(metadata.get(key)) for key in _CAPTURED)
    if context.workflow_step is None and step is not None:
        gaps["workflow_step"] = step
    if context.session_id is None and thread is not None:
        gaps["session_id"] = thread
    if context.agent_id is None and agent is not None:
        gaps |= {"agent_id": agent, "agent_name": agent}
    if context.workflow_id is None and graph is not None:
        gaps["workflow_id"] = graph
    if context.service_id is None and assistant is not None and context.service_type in (None, "workflow"):
        gaps |= {"service_type": "workflow", "service_id": assistant, "service_name": context.service_name or graph}
    return gaps


def langsmith_project() -> str | None:
    """LangSmith's project while its tracing is on; looked up once a second, for all calls."""
    global _project  # noqa: PLW0603 - one environment a process
    now = monotonic()
    known, project = _project
    if now - known >= 1.0:
        utils = sys.modules.get("langsmith.utils")
        on = utils is not None and utils.tracing_is_enabled()
        name = utils.get_tracer_project() if on and utils is not None else None
        project = name if isinstance(name, str) and name else None
        _project = (now, project)
    return project


_project: tuple[float, str | None] = (float("-inf"), None)


def graph_path(namespace: object) -> str | None:
    """LangGraph's checkpoint namespace `sub:<id>|leaf:<id>` as `sub/leaf`: the nodes from the outermost graph inwards.

    A number in it says how often a node has run the same graph before, and is left out, as LangGraph itself does.
    """
    if not isinstance(namespace, str) or not namespace:
        return None
    return "/".join(part.partition(":")[0] for part in namespace.split("|") if not part.isdigit())


def node_attempt() -> int | None:
    """Which attempt of its LangGraph node this code runs in, from 1; None where LangGraph does not say."""
    runtime = sys.modules.get("langgraph.runtime")
    if runtime is None:
        return None
    try:
        return int(runtime.get_runtime().execution_info.node_attempt)
    except (RuntimeError, AttributeError, KeyError, TypeError, ValueError):
        return None  # called outside a node's own context


def kept_of(frame: ScopeFrame | None, metadata: Mapping[str, Any], allowed: frozenset[str]) -> dict[str, Any]:
    """What is kept of the metadata around a call of which LangChain does not tell, as is kept of those that it tells of."""
    kept: dict[str, Any] = dict(frame.metadata) if frame is not None else {}
    kept |= {key: metadata[key] for key in metadata.keys() & allowed}
    if isinstance(own := metadata.get(METADATA_KEY), Mapping):
        kept |= own
    if path := graph_path(metadata.get(NAMESPACE_KEY)):
        kept["langgraph_path"] = path
    if "langgraph_node" in metadata and (attempt := node_attempt()) is not None:
        kept["attempt"] = attempt
    return kept


def step_of(metadata: Mapping[str, Any], frame: ScopeFrame | None) -> str | None:
    """The workflow step of what runs with such metadata: the outermost node of the workflow's graph that it is in.

    Where the scope `frame` was opened inside a node of another graph, that node and those around it are none of the workflow's.
    The one node of a graph of LangGraph's functional API is the workflow itself; its tasks are the steps.
    """
    namespace = metadata.get(NAMESPACE_KEY)
    if not isinstance(namespace, str) or not namespace:
        return clean_text(metadata.get("langgraph_node"))
    if frame is not None and (around := frame.namespace):
        if namespace == around:
            return None
        if namespace.startswith(around) and namespace[len(around)] == "|":
            namespace = namespace[len(around) + 1 :]
    first, _, inner = namespace.partition("|")
    while inner and (first in _entrypoints or first.isdigit()):
        first, _, inner = inner.partition("|")
    return clean_text(first.partition(":")[0])


def note_entrypoint(metadata: Mapping[str, Any]) -> None:
    """Remember a run of the functional API's one node, by the metadata that its run starts with."""
    if metadata.get("langgraph_triggers") == _STARTED and isinstance(namespace := metadata.get(NAMESPACE_KEY), str):
        remember(_entrypoints, namespace.rpartition("|")[2], True)


# The nodes of a StateGraph are triggered by the edges that lead to them; only an entrypoint by the start itself.
_STARTED: Final = ("__start__",)
_entrypoints: dict[str, bool] = {}
