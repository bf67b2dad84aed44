"""Tables of pages: amounts whose points stand below each other, and columns that are there when they say something."""

from __future__ import annotations

from decimal import Decimal

from vital_tracking.web.page import Column, Part, Row

COST = Column("cost", "Cost", "usd", none="unpriced")
HELD = Column("held", "Held", "usd", rare=True)


def a_part(*rows: Row, total: Row | None = None) -> Part:
    return Part("x", "X", [Column("name", "Name"), COST, HELD], rows, total=total)


def test_points_of_amounts_stand_below_each_other() -> None:
    """If this failed, $0.0000000028 would look larger than $1,234,567.89."""
    costs = (Decimal("1234567.89"), Decimal("0.0000000028"), Decimal(0), None)
    part = a_part(*({"cost": cost, "held": Decimal(1)} for cost in costs), total={"cost": Decimal("1234567.9")})
    assert [COST.text(row) for row in part.rows] == ["$1,234,567.89", "$0.0000000028", "$0.00", "unpriced"]
    assert [part.pads["cost"] - COST.places(COST.text(row)) for row in part.rows] == [8, 0, 8, 10]
    assert part.pads["held"] == 2


def test_a_rare_column_is_shown_where_a_row_has_something_in_it() -> None:
    """If this failed, tables would be as wide as all that could ever stand in them; or what is there would be hidden."""
    empty = a_part({"cost": Decimal(1), "held": Decimal(0)}, {"cost": None, "held": None})
    assert [column.name for column in empty.shown] == ["name", "cost"]
    assert next(empty.csv()).splitlines()[0] == "name,cost,held"
    assert [column.name for column in a_part({"held": Decimal("0.01")}).shown] == ["name", "cost", "held"]
