"""What becomes of an error of the database: tried again or not, and said so that it can be mended."""

from __future__ import annotations

import pytest

from vital_tracking.errors import StoreRejected, StoreUnavailable, refused_data, store_error


@pytest.mark.parametrize(
    "state", ["25006", "XX000", "58030", "0A000", "53100", "57P01", "40001", "08006", "57014", None, "SUP"]
)
def test_an_error_that_does_not_blame_the_data_is_tried_again(state: str | None) -> None:
    """A read-only server or a full disk passes; a bill thrown away does not come back."""
    assert isinstance(store_error(state, "test"), StoreUnavailable)


def test_a_statement_that_took_too_long_is_said_to_have_taken_too_long() -> None:
    """If this failed, a database that works would be called unavailable, and nobody would think of its time limit."""
    said = str(store_error("57014", "QueryCanceled"))
    assert "unavailable" not in said
    for word in ("statement_timeout", "VITAL_DATABASE_URL", "QueryCanceled"):
        assert word in said


def test_a_refusal_says_what_is_wrong_and_never_what_was_sent() -> None:
    """A class name of the driver's is no help to an admin, and PostgreSQL's own words may hold data."""
    said = store_error("22023", "InvalidParameterValue")
    assert isinstance(said, StoreRejected)
    assert str(said) == (
        "The database refused the data: a value is none of those that it may be (InvalidParameterValue, 22023)."
    )
    assert str(store_error("23999", "IntegrityError")) == "The database refused the data (IntegrityError, 23999)."
    assert str(refused_data(None, "UnicodeEncodeError")) == "The database refused the data (UnicodeEncodeError)."
    assert "refused the request" in str(store_error("413", "too large"))
