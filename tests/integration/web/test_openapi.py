"""The API against its own description: schemathesis makes requests of it, good and bad, and finds nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast
from uuid import uuid4

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode

from tests.integration.web.conftest import Issuer, Make, bearer
from tests.integration.web.history import READERS
from tests.support.effort import LONG
from vital_tracking.stores.postgres import PostgresStore

ZONES = ("UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns")

# Of the days that there are, which a pattern could say, but then most of what is generated would not fit it.
INSTANTS = st.integers(86_400, 32_503_500_000).map(lambda at: datetime.fromtimestamp(at, UTC).isoformat())

schemathesis.openapi.format("iana-time-zone", st.sampled_from(ZONES))
schemathesis.openapi.format("date-time", INSTANTS)
schemathesis.openapi.format("vital-place", st.builds(lambda at, one: f"{at}/{one}", INSTANTS, st.builds(uuid4)))

pytestmark = pytest.mark.timeout(600)

EXAMPLES = 25 if LONG else 3


@pytest.fixture
def app(history_url: str, make: Make) -> Iterator[FastAPI]:
    """The API over three weeks of calls."""
    store = PostgresStore(history_url)
    plenty = dict.fromkeys(("user_requests", "organization_requests", "burst_requests"), 1_000_000)
    yield make(over=store, **plenty)
    store.close()


def sensible(case: Any) -> bool:
    """Whether parameters go together, which OpenAPI cannot say."""
    return not {"since", "until"} & set(case.query or {})


@pytest.mark.parametrize("mode", GenerationMode)
def test_the_api_is_what_its_description_says(app: FastAPI, issuer: Issuer, mode: GenerationMode) -> None:
    """If this failed, a client made from the description would break, or bad requests would get wrong answers."""
    schema = schemathesis.openapi.from_asgi("/api/v1/openapi.json", app)
    headers = bearer(issuer.token(sub=READERS["organization admin"].subject))
    for found in schema.get_all_operations():
        operation = cast("Any", found).ok()
        if mode is GenerationMode.NEGATIVE and not (operation.query or operation.path_parameters):
            continue  # nothing can be wrong with it
        if mode is GenerationMode.POSITIVE and operation.path.startswith("/api/v1/budgets") and operation.body:
            continue  # how many digits an amount may have, OpenAPI cannot say; test_budgets_api.py makes good ones

        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(mode))
        def asked(case: Any) -> None:
            assume(mode is GenerationMode.NEGATIVE or sensible(case))
            case.call_and_validate(headers=headers)

        asked()
