"""Usage of a stream whose server says with each chunk what was used up to there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from vital_tracking.core.sanitize import token_count

_LOOKS: Final = 3


class RunningUsage:
    """Notices where an integration adds up counts that were sums already, as Perplexity's and vLLM's are through OpenAI's.

    A server does so from the start: after the first chunks without usage no other is looked at.
    """

    __slots__ = ("last", "looks", "repeats")

    def __init__(self) -> None:
        self.looks = _LOOKS
        self.last: Mapping[str, Any] | None = None
        self.repeats = 0

    def look(self, chunk: object) -> None:
        """Note the usage of a chunk, if it has any."""
        self.looks -= 1
        usage = getattr(getattr(chunk, "message", None), "usage_metadata", None)
        if isinstance(usage, Mapping) and (count := token_count(usage.get("input_tokens"))):
            self.looks = _LOOKS
            same = self.last is not None and self.last["input_tokens"] == count
            self.repeats = self.repeats + 1 if same else 1
            self.last = usage

    def whole(self, usage: Mapping[str, Any]) -> Mapping[str, Any]:
        """The usage of the whole stream: what the integration has made of it, or what its last chunk said."""
        last = self.last
        if last is None or self.repeats <= 1 or usage.get("input_tokens") != last["input_tokens"] * self.repeats:
            return usage
        return {**usage, **last}
