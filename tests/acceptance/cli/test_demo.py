"""`vital-tracking demo`: what a newcomer sees first, on the embedded PostgreSQL."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from tests.acceptance.cli.helpers import fine
from tests.acceptance.helpers import COMMAND, run
from tests.integration.helpers import dollars
from tests.support.folders import quick_temporary

POSTGRES_VERSION = os.environ.get("VITAL_TEST_POSTGRES", "18")


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A data folder that the embedded server's own user can reach; the server in it is stopped at the end."""
    with quick_temporary("vital-data-") as folder:
        folder.chmod(0o755)
        yield folder
        if (folder / f"postgresql-{POSTGRES_VERSION}" / "postmaster.pid").exists():
            run([str(COMMAND), "stop"], tmp_path, VITAL_DATA_DIR=folder, VITAL_POSTGRES_VERSION=POSTGRES_VERSION)


def line(label: str, calls: int, tokens: int, cost: Decimal) -> re.Pattern[str]:
    """A line of a table of costs."""
    amount = re.escape(f"${cost.normalize():f}")
    return re.compile(rf"^{re.escape(label)} +{calls} +{tokens:,} +{amount}(?!\d)", re.MULTILINE)


def test_the_demonstration_shows_exact_costs_and_leaves_a_database_behind(data_dir: Path, tmp_path: Path) -> None:
    settings = {"VITAL_DATA_DIR": data_dir, "VITAL_POSTGRES_VERSION": POSTGRES_VERSION}

    def embedded(*arguments: str) -> str:
        return fine(run([str(COMMAND), *arguments], tmp_path, **settings))

    said = embedded("demo")
    cardio, cardio_tokens = dollars((1840, "2.50"), (212, "10")), 2052
    legal, legal_tokens = dollars((2210 - 1536, "1"), (1536, "0.10"), (164, "5")), 2374
    market, market_tokens = dollars((930, "0.15"), (88, "0.60")), 1018
    reasoner, reasoner_tokens = dollars((1200, "1.10"), (900, "4.40")), 2100
    house_tokens = 450  # nobody has a price for it
    graph, graph_tokens = (
        cardio + market + reasoner + legal,
        cardio_tokens + market_tokens + reasoner_tokens + legal_tokens,
    )
    everyone, everyone_tokens = cardio + legal + market, cardio_tokens + legal_tokens + market_tokens
    for expected in (
        line("1:1_conversation", 5, 3 * cardio_tokens + market_tokens + house_tokens, 3 * cardio + market),
        line("virtual_panel", 8, 2 * everyone_tokens + legal_tokens + market_tokens, 2 * everyone + legal + market),
        line("workflow", 8, 2 * graph_tokens, 2 * graph),
        line("solution_builder", 1, reasoner_tokens, reasoner),
        line("launch-board / seat 1 of 3 / Cardiologist", 2, 2 * cardio_tokens, 2 * cardio),
        line("launch-board / seat 2 of 3 / Counsel", 2, 2 * legal_tokens, 2 * legal),
        line("launch-board / seat 3 of 3 / Market analyst", 2, 2 * market_tokens, 2 * market),
        line("review-board / seat 1 of 2 / Counsel", 1, legal_tokens, legal),
        line("intake / Triage", 2, 2 * cardio_tokens, 2 * cardio),
        line("intake / sources", 2, 2 * market_tokens, 2 * market),
        line("intake / weigh", 2, 2 * reasoner_tokens, 2 * reasoner),
        line("intake / Report", 2, 2 * legal_tokens, 2 * legal),
        line("Cardiologist", 7, 7 * cardio_tokens, 7 * cardio),
        line("Counsel", 5, 5 * legal_tokens, 5 * legal),
        line("Market analyst", 5, 4 * market_tokens + house_tokens, 4 * market),
    ):
        assert expected.search(said), f"{expected.pattern}\n{said}"
    for title in ("Cost by service", "Cost by panel seat", "Cost by workflow step", "Cost by agent"):
        assert title in said
    assert "22 calls" in said
    assert "1 unpriced" in said

    queries = [shlex.split(found) for found in said.splitlines() if " psql -c " in found]
    assert queries
    for query in queries:
        assert " row" in embedded(*query[1:])
    assert embedded("psql", "-Atc", "select count(*) from token_usage_logs where organization_id = 'demo'") == "22\n"
    assert "22 calls in the last day" in embedded("doctor")
    assert "house-llm-7b" in embedded("calls", "--unpriced")

    assert f"stopped the embedded PostgreSQL {POSTGRES_VERSION}" in embedded("stop")
    assert not (data_dir / f"postgresql-{POSTGRES_VERSION}" / "postmaster.pid").exists()
