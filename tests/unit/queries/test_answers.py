"""What the database answers becomes typed values, and what does not fit is said without a word of the data."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from typing_extensions import TypedDict

from vital_tracking.core.entities import ENTITY_TYPES
from vital_tracking.errors import StoreNotReady
from vital_tracking.queries.answers import FiniteTime, answer_type, typed
from vital_tracking.queries.catalogue import FILTERS, GROUPINGS, MEASURES
from vital_tracking.queries.filters import Filters
from vital_tracking.queries.usage import Sums, UsageRow


@answer_type
class Answer(TypedDict):
    cost: Decimal
    at: datetime
    ends_at: FiniteTime


ROW = {"cost": "0.10000000000000000001", "at": "2026-01-31T12:00:00+00:00", "ends_at": "infinity"}


def test_amounts_keep_every_digit_and_times_their_zone() -> None:
    """A float on the way would lose the last decimals, and a time without a zone would be read as another one."""
    answer = typed(Answer, ROW)
    assert answer == {
        "cost": Decimal("0.10000000000000000001"),
        "at": datetime(2026, 1, 31, 12, tzinfo=UTC),
        "ends_at": None,
    }


def test_what_a_later_database_tells_is_passed_on() -> None:
    """After a migration, programs that read the JSON would have to wait for a new version of the package."""
    assert typed(list[Answer], [{**ROW, "later": 1}])[0].get("later") == 1


def test_an_answer_that_does_not_fit_says_what_to_do_and_none_of_the_data() -> None:
    """An admin would see a traceback, with somebody's data in it."""
    with pytest.raises(StoreNotReady) as failed:
        typed(list[Answer], [{**ROW, "cost": "secret"}])
    assert "0.cost" in str(failed.value)
    assert "vital-tracking migrate" in str(failed.value)
    assert "secret" not in str(failed.value)
    assert failed.value.__cause__ is None
    assert failed.value.__suppress_context__


def test_the_catalogue_and_the_answers_have_the_same_measures_and_labels() -> None:
    """A measure or a grouping that is in one of them alone would be an empty column, or none."""
    some = {"share"}.union(*(grouping.more for grouping in GROUPINGS.values()))
    assert set(MEASURES) == set(Sums.__annotations__) | some
    for grouping in GROUPINGS.values():
        assert set(grouping.columns) <= set(Sums.__annotations__) | set(UsageRow.__annotations__)


def test_calls_are_filtered_by_what_the_catalogue_has() -> None:
    """A filter would be taken and not heeded: all calls, where somebody asked for one user's."""
    names = {field.name for field in fields(Filters)} - {"since", "until"}
    assert set(FILTERS) <= names
    assert set(ENTITY_TYPES) <= set(FILTERS)
    values: dict[str, Any] = {name: name for name in names} | {"unpriced": True, "metadata": {"k": "v"}}
    values["chosen"] = {"reached": True}
    everything = Filters(**values | {"blocked": False})
    assert set(everything.beyond_equals) == names - set(FILTERS) - {"blocked"}
    assert len(everything.equals) == len(FILTERS)
    # What advice chooses calls by stands beside the others.
    assert json.loads(everything.text()).keys() == names - {"blocked", "chosen"} | {"reached"}
    assert Filters(blocked=True).equals == {"status": "blocked"}
    assert Filters().text() == "{}"
