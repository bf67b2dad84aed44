"""Which organizations a budget or a subscription names: the same for commands and pages, or one would let typing errors pass."""

from __future__ import annotations

from typing import Any

import pytest

from vital_tracking.queries.organizations import organizations_named


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ({"entity_type": "organization", "entity_id": "acme"}, {"entity_id": "acme"}),
        ({"entity_type": "organization", "entity_id": "*", "organization_id": None}, {}),
        ({"entity_type": "user", "entity_id": "u-1", "organization_id": "acme"}, {"organization_id": "acme"}),
        ({"entity_type": "user", "entity_id": "*"}, {}),
        (
            {"entity_type": "organization", "entity_id": "acme", "organization_id": "north"},
            {"organization_id": "north", "entity_id": "acme"},
        ),
        ({"entity_type": "organization", "entity_id": "", "organization_id": ""}, {}),
    ],
)
def test_names_stand_under_the_columns_that_hold_them(columns: dict[str, Any], named: dict[str, str]) -> None:
    assert organizations_named(columns) == named
