"""The runs around calls: chains, graphs and tools."""

from __future__ import annotations

from uuid import UUID


class Run:
    """A run around calls: the root of its tree, and the tool it is in, if any."""

    __slots__ = ("root", "tool")

    def __init__(self, root: UUID, tool: str | None) -> None:
        self.root = root
        self.tool = tool
