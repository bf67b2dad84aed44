"""The arithmetic of the benchmarks, and that the page shows the figures that were measured. Nothing is measured here."""

import inspect
import json
import math

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks.figures import Claim, Table, claims_table, exponent, number, ratios, spanned, spread
from benchmarks.growing import Growth
from benchmarks.growth import claims as claims_of_growth
from benchmarks.growth import sizes
from benchmarks.growth import tables as tables_of_growth

SIZES = (1, 10, 100)
MEASURED = benchmarks.DOCS / "performance.json"
PAGE = benchmarks.DOCS / "performance.md"


# Figures


@pytest.mark.parametrize("power", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_the_exponent_is_the_power_of_the_size(power: float) -> None:
    assert exponent(SIZES, [3.0 * size**power for size in SIZES]) == pytest.approx(power)


def test_the_exponent_of_figures_that_scatter_is_that_of_the_line_through_them() -> None:
    assert exponent(SIZES, [2.0, 10.0, 200.0]) == pytest.approx(1.0)
    assert exponent((10, 1000), [1.0, 10.0]) == pytest.approx(0.5)


def test_a_figure_of_nothing_has_an_exponent() -> None:
    assert math.isfinite(exponent(SIZES, [0.0, -1.0, 5.0]))


def test_a_spread_has_the_median_its_quartiles_and_the_extremes() -> None:
    assert spread([5.0, 1.0, 2.0, 4.0, 3.0]) == {"median": 3.0, "least": 1.0, "most": 5.0, "low": 1.5, "high": 4.5}
    assert set(spread([7.0]).values()) == {7.0}


def test_ratios_are_those_of_the_rounds_not_of_the_medians() -> None:
    assert ratios([10.0, 30.0, 90.0], [5.0, 30.0, 30.0])["median"] == 2.0
    with pytest.raises(ValueError):
        ratios([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.00012345, "0.0001"),
        (0.123456, "0.123"),
        (3.14159, "3.14"),
        (123.4, "123"),
        (1234567.8, "1,234,568"),
    ],
)
def test_a_number_has_three_digits_that_say_something(value: float, text: str) -> None:
    assert number(value) == text


def test_what_is_no_number_is_told_as_it_is() -> None:
    assert number(math.inf) == "inf"


@pytest.mark.parametrize(
    ("bound", "value", "kept"),
    [("at most", 2.0, True), ("at most", 2.01, False), ("at least", 2.0, True), ("at least", 1.99, False)],
)
def test_a_size_is_kept_up_to_its_limit(bound: str, value: float, kept: bool) -> None:
    claim = Claim("recording", value, bound, 2, "times")  # type: ignore[arg-type]
    assert claim.kept is kept
    assert claim.cells() == ["recording", f"{number(value)} times", f"{bound} 2.00 times", "yes" if kept else "**no**"]


def test_a_size_that_could_not_be_measured_is_not_kept() -> None:
    assert not Claim("recording", math.nan, "at most", 2).kept
    assert not Claim("recording", math.nan, "at least", 2).kept


def test_a_table_has_columns_as_wide_as_what_stands_in_them() -> None:
    table = Table("Costs", ["", "us"], [["one", "1,234"], ["and another", "5"]])
    assert table.text().splitlines() == [
        "Costs",
        "                   us",
        "  one           1,234",
        "  and another       5",
    ]
    assert table.markdown().splitlines() == [
        "Costs:",
        "",
        "|  | us |",
        "| --- | ---: |",
        "| one | 1,234 |",
        "| and another | 5 |",
    ]


# Growth


def test_growth_is_measured_in_turns_that_begin_elsewhere() -> None:
    order: list[int] = []

    def cost(size: int) -> float:
        order.append(size)
        return float(size)

    growth = Growth("it", "size", "us", SIZES, [lambda size=size: cost(size) for size in SIZES])
    for turn in range(2):
        growth.measure(turn)
    assert order == [1, 10, 100, 10, 100, 1]
    assert growth.rounds == [[1.0, 10.0, 100.0]] * 2
    assert growth.found()["exponent"]["median"] == growth.found()["last"]["median"] == pytest.approx(1.0)


def grown(what: str, by: str, power: float, *, total: bool) -> Growth:
    growth = Growth(what, by, "us", SIZES, [lambda size=size: size**power for size in SIZES], total=total)
    for turn in range(3):
        growth.measure(turn)
    return growth


def test_the_fastest_growth_is_that_of_all_of_them_together() -> None:
    growths = [
        grown("a call's start and end", "rows stored", 0.05, total=False),
        grown("delivering", "calls that wait", 1.02, total=True),
        grown("an admission", "windows", 0.2, total=False),
    ]
    found = {"rounds": 3, "growths": [growth.found() for growth in growths]}
    fastest, still = claims_of_growth(found)
    assert (fastest.value, fastest.kept) == (pytest.approx(1.2), False)
    assert "an admission, by windows" in fastest.what
    assert (still.value, still.kept) == (pytest.approx(0.05), True)
    single, total = tables_of_growth(found)
    assert [row[0] for row in single.rows] == ["a call's start and end", "an admission"]
    assert total.rows == [
        ["delivering", "calls that wait", "1.00 us at 1", "110 us at 100", "1.02 (1.02 to 1.02)", "1.02 (1.02 to 1.02)"]
    ]


def test_a_total_whose_growth_a_part_that_does_not_grow_hides_is_judged_by_its_last_tenfold() -> None:
    growth = Growth(
        "delivering", "calls", "s", SIZES, [lambda size=size: 50 + size**2 / 100 for size in SIZES], total=True
    )
    growth.measure(0)
    (fastest,) = claims_of_growth({"growths": [growth.found()]})
    assert fastest.value == pytest.approx(math.log10(150 / 51))
    assert fastest.value > growth.found()["exponent"]["median"]


def test_sizes_are_tenfold() -> None:
    assert sizes(5000) == (50, 500, 5000)


# The page


def test_a_block_is_filled_and_all_else_stays() -> None:
    page = "Before.\n\n<!-- one -->\n\nold\n\n<!-- /one -->\n\nBetween.\n\n<!-- two --><!-- /two -->\n"
    filled = benchmarks.filled(page, {"one": "| new |", "two": "other"})
    assert filled == (
        "Before.\n\n<!-- one -->\n\n| new |\n\n<!-- /one -->\n\nBetween.\n\n<!-- two -->\n\nother\n\n<!-- /two -->\n"
    )
    assert benchmarks.filled(filled, {"one": "| new |", "two": "other"}) == filled


@pytest.mark.parametrize("page", ["nothing", "<!-- one --> without an end", "<!-- /one --> <!-- one -->"])
def test_a_page_without_the_block_is_not_written(page: str) -> None:
    with pytest.raises(SystemExit, match="no block"):
        benchmarks.filled(page, {"one": "text"})


@pytest.mark.parametrize("name", [*benchmarks.PARTS, *benchmarks.ON_DEMAND])
def test_a_part_has_its_name_and_options_of_its_measurement(name: str) -> None:
    part = benchmarks.part_of(name)
    assert part.name == name
    wanted = inspect.signature(part.measure).parameters
    assert part.quick.keys() == wanted.keys()
    assert part.full.keys() <= wanted.keys()


@pytest.mark.skipif(not MEASURED.exists(), reason="no figures are written down")
def test_the_page_shows_the_figures_that_were_measured() -> None:
    found = json.loads(MEASURED.read_text(encoding="utf-8"))
    page = PAGE.read_text(encoding="utf-8")
    assert set(benchmarks.PARTS) <= found["parts"].keys() <= {*benchmarks.PARTS, *benchmarks.ON_DEMAND}
    assert benchmarks.filled(page, benchmarks.blocks(found)) == page
    told = claims_table(benchmarks.all_claims(found))
    assert told.rows
    assert all(len(row) == len(told.columns) for row in told.rows)


def test_a_figure_is_told_with_the_middle_half_of_its_rounds() -> None:
    assert spanned(spread([1.0, 2.0, 3.0])) == "2.00 (1.00 to 3.00)"
