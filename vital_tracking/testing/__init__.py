"""Helpers for your own tests: a store in memory with budgets, and a fake model with tools, errors and streams.

```python
from vital_tracking import VitalTracker
from vital_tracking.testing import MemoryStore, fake_chat_model

store = MemoryStore()
tracker = VitalTracker(store)
fake_chat_model().invoke("Hello", config={"callbacks": [tracker.handler]})
tracker.flush()
assert store.calls[0]["total_tokens"] == 120
```

pytest knows the fixtures `vital_store` and `vital_tracker` wherever this package is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vital_tracking.testing.memory_store import MemoryStore

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage

    from vital_tracking.langchain.fake import FakeUsageModel

__all__ = ["MemoryStore", "fake_chat_model"]


def fake_chat_model(
    *,
    replies: Sequence[str | AIMessage | BaseException] = ("Hello there.",),
    model: str = "gpt-4o-mini",
    provider: str = "openai",
    input_tokens: int = 100,
    output_tokens: int = 20,
    cache_read_tokens: int = 0,
    reasoning_tokens: int = 0,
) -> FakeUsageModel:
    """A chat model that answers `replies` in turn, over and over, and reports the given usage; it makes no request.

    A reply is a text, an AIMessage (with tool calls, with usage of its own), or an exception, which is raised. Streams give a
    text word by word, and the usage last. Tools can be bound to it, so that it serves agents.
    """
    from vital_tracking.langchain.fake import FakeUsageModel

    return FakeUsageModel(
        responses=["unused"],
        replies=tuple(replies),
        model=model,
        provider=provider,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read_tokens=cache_read_tokens,
        reasoning_tokens=reasoning_tokens,
    )
