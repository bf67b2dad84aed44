"""What is stored costs by the time for which it stands: to the last digit, and each reading once."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integration.imports.conftest import ORGANIZATIONS
from tests.sql.helpers import connect
from tests.sql.platform_rows import differences
from tests.support.effort import examples
from vital_tracking.errors import VitalError
from vital_tracking.imports.meters import Size, database_sizes, folder_size, record_sizes
from vital_tracking.stores.postgres import PostgresStore

GB = 10**9
NOVEMBER = datetime(2025, 11, 1, tzinfo=UTC)
DECEMBER = datetime(2025, 12, 1, tzinfo=UTC)
MONTH_S = 30 * 86_400


def costs(url: str, organization: str) -> list[tuple[datetime, Decimal, Decimal]]:
    with connect(url) as connection:
        rows = connection.execute(
            "select occurred_at, quantity, cost_usd from tenant_cost_events where organization_id = %s order by occurred_at",
            [organization],
        ).fetchall()
    return [(row["occurred_at"], row["quantity"], row["cost_usd"]) for row in rows]


@settings(max_examples=examples(30), deadline=None)
@given(moments=st.lists(st.integers(1, MONTH_S - 1), max_size=8, unique=True), again=st.booleans())
def test_a_month_costs_the_same_however_often_it_is_read(
    shared: PostgresStore, url: str, moments: list[int], again: bool
) -> None:
    """If this failed, the bill would depend on cron."""
    organization = f"o-{next(ORGANIZATIONS)}"
    for second in [0, *sorted(moments), MONTH_S]:
        for _ in range(1 + again):
            size = Size("disk", 7 * GB)
            record_sizes(shared, [size], organization=organization, read_at=NOVEMBER + timedelta(seconds=second))
    found = costs(url, organization)
    assert sum(quantity for _, quantity, _ in found) == 7
    assert sum(cost for _, _, cost in found) == 7 * Decimal("0.023")
    assert all(NOVEMBER <= moment < DECEMBER for moment, _, _ in found)


def test_a_size_costs_its_part_of_each_month_that_it_stood_in(
    shared: PostgresStore, url: str, whose: dict[str, str]
) -> None:
    organization = whose["organization"]

    def read(size: int, moment: datetime) -> Decimal | None:
        (done,) = record_sizes(shared, [Size("disk", size)], organization=organization, read_at=moment)
        return done["gb_months"]

    assert read(5 * GB, NOVEMBER + timedelta(days=15)) == 0
    assert record_sizes(shared, [Size("disk", 9 * GB)], organization=organization, read_at=NOVEMBER) == []
    # 15 of November's 30 days, and 31 of December's 31; then half of January
    assert read(2 * GB, datetime(2026, 1, 1, tzinfo=UTC)) == 3
    assert read(4 * GB, datetime(2026, 1, 16, 12, tzinfo=UTC)) == 2
    assert costs(url, organization) == [
        (NOVEMBER + timedelta(days=15), 1, Decimal("0.023")),
        (DECEMBER, 2, Decimal("0.046")),
        (datetime(2026, 1, 1, tzinfo=UTC), 2, Decimal("0.046")),
    ]
    with connect(url) as connection:
        assert differences(connection) == []


def test_what_a_folder_holds_is_counted_once(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "one").write_bytes(b"x" * 1000)
    (tmp_path / "a" / "b" / "two").write_bytes(b"x" * 234)
    os.link(tmp_path / "one", tmp_path / "a" / "hard")
    (tmp_path / "a" / "soft").symlink_to(tmp_path / "one")
    (tmp_path / "a" / "circle").symlink_to(tmp_path)
    assert folder_size(tmp_path) == Size(f"folder:{tmp_path}", 1234)
    assert folder_size(tmp_path / "a" / "soft" / "..") == folder_size(tmp_path)
    with pytest.raises(VitalError, match="cannot be read: No such file"):
        folder_size(tmp_path / "none")


def test_databases_are_as_large_as_postgresql_says(shared: PostgresStore, url: str) -> None:
    sizes = {size.resource: size.bytes for size in database_sizes(shared)}
    assert sizes["postgresql:imports"] > 1_000_000
    assert "postgresql:template0" not in sizes
