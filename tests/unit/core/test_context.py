"""The context of a call: what wins over what, and what never mixes."""

from __future__ import annotations

import gc
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vital_tracking.core.context import (
    _FIELD_OF,
    CONTEXT_FIELDS,
    METADATA_KEY,
    SCOPE_KEY,
    Agent,
    CallContext,
    step,
    unknown_keys,
)
from vital_tracking.core.frames import ScopeFrame, current_frame, locate, resolve

PLAIN_FIELDS = [
    name
    for name in CONTEXT_FIELDS
    if name not in ("agent_id", "agent_name", "agent_tier", "agent_role", "workflow_step", "workflow_step_name")
]
values = st.one_of(st.none(), st.text("abc", max_size=2))
changes = st.dictionaries(st.sampled_from(PLAIN_FIELDS), values)
anything = st.dictionaries(st.sampled_from([*CONTEXT_FIELDS, "unknown", ""]), values)
contexts = st.builds(lambda fields: CallContext(**fields), st.dictionaries(st.sampled_from(CONTEXT_FIELDS), values))
own_metadata = st.dictionaries(st.sampled_from([f"vital_{name}" for name in PLAIN_FIELDS] + ["other"]), values)


def test_an_agent_gives_all_its_fields() -> None:
    """An agent without a tier replaces one with a tier whole."""
    assert Agent("a").fields() == {"agent_id": "a", "agent_name": "a", "agent_tier": None, "agent_role": None}


@given(contexts, changes)
def test_merging_sets_what_is_said_and_leaves_the_rest(context: CallContext, change: dict[str, Any]) -> None:
    """None means: not said."""
    before, after = context._asdict(), context.replace(change)._asdict()
    for name in CONTEXT_FIELDS:
        given_value = change.get(name)
        assert after[name] == (before[name] if given_value is None else given_value)


@given(contexts, anything)
def test_merging_the_same_metadata_twice_changes_nothing_more(context: CallContext, change: dict[str, Any]) -> None:
    """Merging the same metadata again, as nested runs do, changes nothing more."""
    once = context.replace(change)
    assert once.replace(change) == once
    assert context.replace({}) == context


@given(contexts, changes, changes)
def test_the_later_change_wins(context: CallContext, first: dict[str, Any], second: dict[str, Any]) -> None:
    """Precedence is a matter of order alone."""
    said = {name: value for name, value in second.items() if value is not None}
    assert context.replace(first).replace(second) == context.replace(first | said)


@given(contexts, st.text("abc", min_size=1, max_size=2))
def test_another_agent_or_step_takes_the_old_ones_name_away(context: CallContext, name: str) -> None:
    """The names, tier and role of one agent never stand beside the id of another."""
    changed = context.replace({"agent_id": name})
    if context.agent_id == name:
        assert changed == context
    else:
        assert (changed.agent_id, changed.agent_name, changed.agent_tier, changed.agent_role) == (
            name,
            None,
            None,
            None,
        )
    moved = context.replace({"workflow_step": name})
    assert moved.workflow_step_name == (context.workflow_step_name if context.workflow_step == name else None)


@given(contexts)
def test_a_context_goes_through_metadata_and_back(context: CallContext) -> None:
    """What a scope hands to LangChain is all of itself."""
    metadata = context.as_metadata()
    assert None not in metadata.values()
    assert resolve(CallContext(), None, None, metadata) == context


@given(contexts, contexts, own_metadata)
def test_metadata_win_over_the_scope_and_the_scope_over_the_default(
    default: CallContext, inner: CallContext, own: dict[str, Any]
) -> None:
    """Field by field; the scope's context is whole already, so the default does not show through it."""
    frame = ScopeFrame("scope", inner)
    seen = resolve(default, frame, None, own)
    for name in PLAIN_FIELDS:
        said = own.get(f"vital_{name}")
        assert getattr(seen, name) == (said if said is not None else getattr(inner, name))
    assert resolve(default, None, None, {}) is default
    assert resolve(default, frame, None, {"other": 1}) is inner


@given(contexts, contexts, own_metadata)
def test_an_inner_scope_wins_over_the_outer_scopes_metadata(
    outer: CallContext, inner: CallContext, own: dict[str, Any]
) -> None:
    """LangChain hands the outer scope's metadata to every call inside; they must not win over the inner scope."""
    around = ScopeFrame("outer", outer)
    inside = ScopeFrame("inner", inner, parent=around, absorbed=MappingProxyType(dict(around.exported)))
    frame, marked = locate(inside, around.exported)
    assert (frame, marked) == (inside, around)
    assert resolve(CallContext(), frame, marked, around.exported) == inner


def test_a_config_kept_from_elsewhere_wins_over_the_open_scope() -> None:
    """A seat's config used inside another conversation still says whose call it is."""
    kept, opened = ScopeFrame("kept", CallContext(user_id="u-1")), ScopeFrame("open", CallContext(user_id="u-2"))
    frame, marked = locate(opened, kept.exported)
    assert frame is marked is kept
    assert resolve(CallContext(), frame, marked, kept.exported).user_id == "u-1"
    # A scope that is gone, or another process's: its metadata alone say what the call is for.
    assert locate(opened, {SCOPE_KEY: "gone"}) == (None, None)
    assert locate(None, None) == (None, None)
    assert locate(opened, {SCOPE_KEY: ["no", "text"]}) == (opened, None)


def test_a_config_of_a_forgotten_scope_still_attributes_its_calls() -> None:
    """A scope that nobody holds is gone from memory; a config of it that is still used loses nothing."""
    frame: ScopeFrame | None = ScopeFrame("gone", CallContext(user_id="u-1"))
    assert frame is not None
    exported = dict(frame.exported)
    del frame
    gc.collect()
    assert locate(None, exported) == (None, None)
    assert resolve(CallContext(), None, None, exported).user_id == "u-1"


@pytest.mark.parametrize("name", ["agent_id", "workflow_step"])
def test_a_value_that_cannot_be_compared_is_another_one(name: str) -> None:
    """If this failed, an array for an agent's id would take everything else that is known of the call away."""

    class Array:
        def __eq__(self, other: object) -> bool:
            raise ValueError

        __hash__ = None  # type: ignore[assignment]

    array = Array()
    base = CallContext(user_id="u", **{name: "old"})  # type: ignore[arg-type]
    context = resolve(base, None, None, {_name: array for _name, field in _FIELD_OF.items() if field == name})
    assert context.user_id == "u"
    assert getattr(context, name) is array


def test_no_scope_is_open_at_first() -> None:
    """The context variable starts empty in every thread."""
    assert current_frame.get() is None


def test_misspelt_keys_are_found() -> None:
    """A key that names nothing is most likely a mistake worth telling."""
    known = dict.fromkeys([*_FIELD_OF, SCOPE_KEY, METADATA_KEY], "x")
    assert unknown_keys({**known, "vital_usr_id": 1, "other": 2, 3: 4}) == ["vital_usr_id"]


def test_a_step_names_itself_its_agent_and_its_metadata() -> None:
    """Id, name, agent and small metadata; the id stands for a name that is not given."""
    assert step("triage") == {"vital_workflow_step": "triage", "vital_workflow_step_name": "triage"}
    full = step("t", name="Triage", agent=Agent("a", tier="tier_1"), message_type="preset_action", metadata={"k": 1})
    assert full == {
        "vital_workflow_step": "t",
        "vital_workflow_step_name": "Triage",
        "vital_agent_id": "a",
        "vital_agent_name": "a",
        "vital_agent_tier": "tier_1",
        "vital_message_type": "preset_action",
        METADATA_KEY: {"k": 1},
    }


@pytest.mark.parametrize("name", CONTEXT_FIELDS)
def test_a_context_shared_by_many_calls_cannot_be_changed(name: str) -> None:
    """A context is shared by every call of a scope."""
    with pytest.raises(AttributeError):
        setattr(CallContext(), name, "x")
