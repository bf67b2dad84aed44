"""For each set of metadata keys, worked out once: which values are kept, and which say to whom a call belongs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, Final, TypeVar

from vital_tracking.calls.json_codec import dumps
from vital_tracking.core.context import CONTEXT_KEYS, METADATA_KEY, unknown_keys
from vital_tracking.core.sanitize import clean_metadata, clean_text

NAMESPACE_KEY: Final = "langgraph_checkpoint_ns"
"""LangGraph's name for where in a graph and its subgraphs something runs: see `attribution.graph_path`."""

READ_KEYS: Final = frozenset({NAMESPACE_KEY, METADATA_KEY})
"""Metadata that records are made from, beside the allowed ones and those of context, provider and model."""

OWNER_KEYS: Final = CONTEXT_KEYS | {"assistant_id", "graph_id", "langgraph_node", "lc_agent_name", "thread_id"}
"""Metadata that say to whom a call belongs."""

MOST_KNOWN: Final = 1000
"""Entries of one cache, such as of the sets of metadata keys that were seen, or of the contexts in one scope."""

Key = TypeVar("Key")
Value = TypeVar("Value")


def remember(cache: dict[Key, Value], key: Key, value: Value) -> Value:
    """Keep a value in a cache. A full one is emptied, not trimmed; other threads may write to it meanwhile."""
    if len(cache) >= MOST_KNOWN:
        cache.clear()
    cache[key] = value
    return value


Values = Callable[[Mapping[str, Any]], tuple[Any, ...]]


class MetadataKeys:
    """The names of some metadata that are kept, in their order, and how the values are taken from metadata with these keys.

    `values` takes those of `names`, `owners` those of `OWNER_KEYS`; `in_graph` is whether LangGraph says where they belong;
    `unknown` are names that are most likely spelling mistakes;
    `json` holds all that as JSON. Equal only to itself.
    """

    __slots__ = ("in_graph", "json", "names", "owners", "unknown", "values")

    def __init__(self, names: tuple[str, ...], allowed: frozenset[str], unknown: list[str]) -> None:
        self.names = tuple(name for name in names if name in allowed or name in READ_KEYS)
        self.in_graph = NAMESPACE_KEY in names or "langgraph_node" in names
        self.values = _taker(self.names)
        self.owners = _taker(tuple(name for name in names if name in OWNER_KEYS))
        self.unknown = [clean_text(name) or "" for name in unknown]
        self.json = dumps(
            {
                "kept": self.names,
                "allowed": [name for name in self.names if name in allowed],
                "unknown": self.unknown,
            }
        )


def _taker(names: tuple[str, ...]) -> Values:
    if len(names) > 1:
        return itemgetter(*names)
    if names:
        return lambda metadata: (metadata[names[0]],)
    return lambda _metadata: ()


_known: dict[tuple[frozenset[str], tuple[str, ...]], MetadataKeys] = {}


def metadata_keys(allowed: frozenset[str], metadata: Mapping[str, Any]) -> MetadataKeys:
    """The keys of some metadata, of which the `allowed` are kept, and those that rows are made of."""
    names = tuple(metadata)
    try:
        keys = _known.get((allowed, names))
    except TypeError:  # a key that cannot be hashed
        names, keys = tuple(name for name in names if isinstance(name, str)), None
    if keys is None:
        keys = MetadataKeys(tuple(name for name in names if isinstance(name, str)), allowed, unknown_keys(metadata))
        remember(_known, (allowed, names), keys)
    return keys


def storable(name: str, value: object) -> Any:
    """A value of its metadata as the database will have it: flat, and not too long."""
    if name == METADATA_KEY:
        return clean_metadata(value, ()) if isinstance(value, Mapping) else None
    if name in OWNER_KEYS or isinstance(value, str):
        return clean_text(value)
    return clean_metadata({name: value}, ()).get(name)
