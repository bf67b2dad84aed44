"""A call that a budget stops is stopped, whatever part of ours fails meanwhile.

If one of these fails, a bug of ours lets calls pass that are over their budget, and nobody is told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from vital_tracking import BudgetExceeded, VitalTracker
from vital_tracking.budgets.controller import AdmissionController
from vital_tracking.calls.live import LiveCall
from vital_tracking.delivery import Recorder
from vital_tracking.direct.record import DirectCalls
from vital_tracking.langchain.embeddings import VitalEmbeddings
from vital_tracking.langchain.handler import VitalHandler
from vital_tracking.testing import MemoryStore, fake_chat_model

CALL: dict[str, Any] = {"provider": "openai", "model": "gpt-4o-mini", "prompt_tokens": 10, "max_tokens": 5}
CONFIG: dict[str, Any] = {"metadata": {"vital_user_id": "u-1"}}

WAYS: dict[str, Callable[[VitalTracker], object]] = {
    "admit": lambda tracker: tracker.admit(user_id="u-1", **CALL),
    "handler": lambda tracker: fake_chat_model().invoke("Hi", {**CONFIG, "callbacks": [tracker.handler]}),
    "stream": lambda tracker: list(fake_chat_model().stream("Hi", {**CONFIG, "callbacks": [tracker.handler]})),
    "guard": lambda tracker: tracker.guard(fake_chat_model()).invoke("Hi", CONFIG),
    "embeddings": lambda tracker: tracker.embeddings(DeterministicFakeEmbedding(size=2)).embed_query("Hi"),
}


@pytest.mark.parametrize(
    ("where", "ways"),
    [
        ((Recorder, "put"), WAYS),
        ((LiveCall, "stop"), ("handler", "stream")),
        ((LiveCall, "forget"), ("handler", "stream")),
        ((VitalHandler, "_is_echo"), ("handler", "stream")),
        ((AdmissionController, "admit"), ("handler", "stream")),
        ((DirectCalls, "_context"), ("admit",)),
        ((VitalEmbeddings, "_kept"), ("embeddings",)),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) and isinstance(value[0], type) else "",
)
def test_a_fault_of_ours_lets_no_call_pass_that_is_over_its_budget(
    where: tuple[type, str], ways: Any, quick: VitalTracker, memory: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.set_budget("user", "u-1", metric="calls", total=1)
    memory._budgets._rows[0]["when_unavailable"] = "deny"
    quick.admit(user_id="u-1", **CALL).record(prompt_tokens=10, completion_tokens=5)

    def broken(*_args: Any, **_kwargs: Any) -> Any:
        raise ZeroDivisionError

    with quick.conversation(user_id="u-1"):
        monkeypatch.setattr(*where, broken)
        for number, way in enumerate(ways):
            with pytest.raises(BudgetExceeded):
                WAYS[way](quick)
            assert quick.stats().faults > number
        monkeypatch.undo()
    assert quick.handler.in_flight == 0
