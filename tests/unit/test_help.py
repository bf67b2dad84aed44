"""`help()` reads as documentation: every public object says what it is, and names each of its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

import vital_tracking

# Made by the library, never by a user: of these the methods count, and not how they are made.
MADE_BY_US = {
    "AdmittedCall", "BudgetAlert", "BudgetExceeded", "BudgetThrottled", "BudgetUnavailable", "Delivered", "MissingExtra", "Panel",
    "Scope", "Seat", "SettingsError", "Stats", "StoreError", "StoreNotReady", "StoreRejected", "StoreUnavailable", "VitalError",
}  # fmt: skip
# Whose arguments another's documentation explains.
EXPLAINED_ELSEWHERE = {"aadmit": "admit"}


def public() -> Iterator[tuple[str, Any, str]]:
    """Each public object and method by its name, and the documentation that must name its arguments."""
    for name in vital_tracking.__all__:
        thing = getattr(vital_tracking, name)
        if not inspect.isclass(thing):
            yield name, thing, inspect.getdoc(thing) or ""
            continue
        if name not in MADE_BY_US:
            yield name, thing, inspect.getdoc(thing) or ""
        for base in thing.__mro__:
            if not base.__module__.startswith("vital_tracking"):
                continue
            for attribute, method in vars(base).items():
                function = getattr(thing, attribute) if isinstance(method, classmethod) else method
                if not attribute.startswith("_") and callable(function) and not inspect.isclass(function):
                    explained = getattr(thing, EXPLAINED_ELSEWHERE.get(attribute, attribute))
                    yield f"{name}.{attribute}", function, inspect.getdoc(explained) or ""


@pytest.mark.parametrize(("name", "thing", "text"), [pytest.param(*one, id=one[0]) for one in public()])
def test_help_names_every_argument(name: str, thing: Any, text: str) -> None:
    """If this failed, a user would have to read our code to learn what an option does."""
    assert text.strip(), f"{name} has no documentation"
    if inspect.isclass(thing) and hasattr(thing, "model_rebuild"):
        thing.model_rebuild()  # its fields are arguments once it is built, which is put off until the first one is made
    for argument, parameter in inspect.signature(thing).parameters.items():
        if argument not in ("self", "tracker", "environ", "row") and parameter.kind is not parameter.VAR_POSITIONAL:
            assert f"`{argument}`" in text or f"{argument}=" in text, f"help({name}) does not explain {argument}"


def test_help_shows_no_internals() -> None:
    """If this failed, what may change at any time would look like a promise."""
    shown = {name for name in dir(vital_tracking.VitalTracker) if not name.startswith("_")}
    assert shown == {
        "aadmit", "admit", "close", "closed", "conversation", "embeddings", "flush", "from_env", "guard", "handler",
        "install", "panel", "record", "replay", "solution", "stats", "track_agent_execution", "track_cost", "track_event",
        "uninstall", "workflow",
    }  # fmt: skip
