"""Calls, runs and explorations over the API: each once, as their readers may see them, and the same that figures lead to."""

from __future__ import annotations

import csv
import json
import random
import re
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast
from urllib.parse import quote, urlencode

import pytest
from fastapi.testclient import TestClient

from tests.integration.web.history import READERS, Open, Row, total
from tests.sql.helpers import ALICE, call_id
from vital_tracking.queries import calls as asked_calls
from vital_tracking.queries.filters import Filters
from vital_tracking.web.asked import FILTERED, RUNS_BY
from vital_tracking.web.listed import calls_as_csv

NONE, ANY = "", "*"


def get(browser: TestClient, path: str, status: int = 200) -> Any:
    answer = browser.get(path)
    assert answer.status_code == status, (path, answer.text)
    return json.loads(answer.text, parse_float=Decimal)


def pages(browser: TestClient, path: str) -> Iterator[list[Any]]:
    """Every page of a list, as its Link leads on."""
    while path:
        answer = browser.get(path)
        assert answer.status_code == 200, answer.text
        yield json.loads(answer.text, parse_float=Decimal)
        found = re.fullmatch(r'<(/[^>]+)>; rel="next"', answer.headers.get("link", ""))
        path = found[1] if found else ""


@pytest.mark.parametrize("reader", READERS)
def test_every_call_is_listed_once_for_those_who_may_see_it(opened: Open, calls: list[Row], reader: str) -> None:
    """If this failed, a program that reads all calls would miss some, or read another organization's."""
    browser = opened(reader)
    seen = [row for row in calls if READERS[reader].sees(row)]
    found = [call for page in pages(browser, "/api/v1/calls?days=30&limit=37") for call in page]
    assert [call["id"] for call in found] == [str(row["id"]) for row in seen]
    assert sum(Decimal(call["total_cost"] or 0) for call in found) == total(seen)
    rows = list(csv.DictReader(browser.get("/api/v1/calls.csv?days=30").text.splitlines()))
    assert [row["id"] for row in rows] == [call["id"] for call in found]
    for row in (calls[0], calls[-1]):
        answer = browser.get(f"/api/v1/calls/{row['id']}")
        assert answer.status_code == (200 if READERS[reader].sees(row) else 404)
        assert row["id"] is not None
    assert get(browser, f"/api/v1/calls/{call_id(999_999)}", 404)["type"].endswith(":no-such-call")


COLUMNS = {
    "user": "user_id", "organization": "organization_id", "service": "service_type", "agent": "agent_id", "model": "model",
    "workflow": "workflow_id", "step": "workflow_step", "panel": "panel_id", "seat": "panel_position", "session": "session_id",
    "status": "status", "error": "error_type", "run": "service_run_id", "provider": "provider", "framework": "framework",
}  # fmt: skip


def kind(row: Row) -> str:
    return "embeddings" if row["call_type"] == "embedding" else "llm"


@pytest.mark.parametrize("reader", READERS)
def test_a_figure_and_the_calls_behind_it_are_the_same(opened: Open, calls: list[Row], reader: str) -> None:
    """If this failed, a number would lead to other calls than those that it counts."""
    browser = opened(reader)
    chance = random.Random(reader)

    def value(name: str, row: Row) -> str:
        return kind(row) if name == "kind" else str(row[COLUMNS[name]] if row[COLUMNS[name]] is not None else NONE)

    for _ in range(12):
        filters: dict[str, list[str]] = {}
        for name in chance.sample([*COLUMNS, "kind"], k=chance.choice([1, 1, 2])):
            offered = sorted({value(name, row) for row in calls})
            filters[name] = chance.choice([[ANY], chance.sample(offered, k=min(len(offered), chance.choice([1, 2])))])

        def chosen(row: Row, filters: dict[str, list[str]] = filters) -> bool:
            return all(
                bool(value(name, row)) if wanted == [ANY] else value(name, row) in wanted
                for name, wanted in filters.items()
            )

        query = urlencode({"days": 30, "limit": 1000, **filters}, doseq=True)
        wanted = [str(row["id"]) for row in calls if READERS[reader].sees(row) and chosen(row)]
        assert [call["id"] for call in get(browser, f"/api/v1/calls?{query}")] == wanted, filters
        summed = get(browser, f"/api/v1/explore?{query}&measure=calls")
        assert summed["total"]["calls"] == len(wanted), filters


def test_calls_are_searched_and_flagged(opened: Open, calls: list[Row]) -> None:
    browser = opened("operator")
    for query, wanted in (
        ("unpriced=true", lambda row: not row["priced"]),
        ("blocked=true", lambda row: row["status"] == "blocked"),
        ("q=legal+gpt-4.1", lambda row: (row["agent_id"], row["model"]) == ("legal", "gpt-4.1")),
        ("q=%25", lambda row: False),
        ("q=board&seat=2", lambda row: row["panel_position"] == 2),
    ):
        found = get(browser, f"/api/v1/calls?days=30&limit=1000&{query}")
        assert [call["id"] for call in found] == [str(row["id"]) for row in calls if wanted(row)], query


def test_a_csv_takes_the_memory_of_a_page(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this failed, whoever exports a year would take the server's memory."""
    browser = opened("operator")
    [one] = get(browser, "/api/v1/calls?limit=1")
    one |= {"created_at": datetime.now(UTC), "user_id": '=HYPERLINK("http://evil.example")'}
    asked = 0

    def page(*_: Any, limit: int, **__: Any) -> list[Any]:
        nonlocal asked
        asked += 1
        return [one] * (limit if asked < 20 else 1)

    monkeypatch.setattr(asked_calls, "usage_records", page)
    size = 0
    tracemalloc.start()
    for piece in calls_as_csv(cast("Any", None), Filters()):
        size += len(piece)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert asked == 20
    assert size > 5_000_000 > 10 * peak
    asked = 19
    answer = browser.get("/api/v1/calls.csv")
    assert "'=HYPERLINK" in answer.text.splitlines()[-1]
    assert answer.headers["content-disposition"] == 'attachment; filename="calls.csv"'


@pytest.mark.parametrize("reader", READERS)
def test_runs_and_their_trees_add_up(opened: Open, calls: list[Row], reader: str) -> None:
    """If this failed, the parts of a run would cost more or less than the run."""
    browser = opened(reader)
    by_run: dict[str, list[Row]] = {}
    for row in calls:
        by_run.setdefault(row["service_run_id"], []).append(row)
    mine = {run: rows for run, rows in by_run.items() if READERS[reader].sees(rows[0])}
    listed = {run["id"]: run for page in pages(browser, "/api/v1/runs?days=30&limit=17") for run in page}
    assert {run: (one["calls"], Decimal(one["total_cost"])) for run, one in listed.items()} == {
        run: (len(rows), total(rows)) for run, rows in mine.items()
    }

    def leaves(node: Any) -> Iterator[Any]:
        if node["children"]:
            for child in node["children"]:
                yield from leaves(child)
        else:
            yield node

    for run, rows in list(by_run.items())[:8]:
        path = f"/api/v1/runs/{quote(run, safe='')}"
        if run not in mine:
            assert get(browser, path, 404)["status"] == 404
            continue
        tree = get(browser, path)
        assert sum(Decimal(leaf["sums"]["total_cost"]) for leaf in leaves(tree["root"])) == total(rows)
        assert Decimal(tree["root"]["sums"]["total_cost"]) == total(rows)
        assert tree["root"]["sums"]["calls"] == len(rows) == tree["calls_told"]
        assert get(browser, f"{path}?max_calls=1")["calls_told"] == 1
    wanted = {run for run, rows in mine.items() if rows[0]["user_id"] in (ALICE, None)}
    found = get(browser, f"/api/v1/runs?days=30&limit=1000&user={ALICE}&user=")
    assert {run["id"] for run in found} == wanted


def test_exploring_answers_by_any_two_dimensions(opened: Open, calls: list[Row]) -> None:
    browser = opened("organization admin")
    seen = [row for row in calls if READERS["organization admin"].sees(row)]
    for query, by in (
        ("", ["day"]), ("grain=week", ["week"]), ("grain=hour", ["hour"]), ("grain=month&then=kind", ["month", "kind"]),
        ("by=user&then=model", ["user", "model"]), ("by=seat", ["seat"]), ("by=metadata.none", ["metadata.none"]),
        ("by=weekday&then=hour_of_day", ["weekday", "hour_of_day"]), ("by=user&then=user", ["user"]),
    ):  # fmt: skip
        found = get(browser, f"/api/v1/explore?days=30&measure=calls&measure=total_cost&{query}")
        assert found["by"] == by
        assert sum(row["calls"] for row in found["rows"]) == found["total"]["calls"] == len(seen)
        assert sum(Decimal(row["total_cost"]) for row in found["rows"]) == total(seen)
        assert all(set(row) == {*by, "calls", "total_cost"} for row in found["rows"])
        file = browser.get(f"/api/v1/explore.csv?days=30&measure=calls&measure=total_cost&{query}").text
        lines = list(csv.DictReader(file.splitlines()))
        assert [int(line["calls"]) for line in lines] == [row["calls"] for row in found["rows"]]
    [first] = get(browser, "/api/v1/explore?days=30&by=user&limit=1")["rows"]
    assert set(first) == {"user", "total_cost"}


WRONG = (
    "calls?limit=0", "calls?limit=1001", "calls?after=x", "calls?after=2026-01-01T00:00:00Z/x", "calls?modle=x",
    "calls?unpriced=x",
    f"calls?q={'x' * 201}", "calls?q=%00", "calls?day=7", "calls.csv?modle=x", "calls/x", "runs?model=x", "runs?limit=x",
    "runs?after=2026", "runs?metadata.x=1", "runs/%00", f"runs/{'x' * 513}", "runs/x?max_calls=0", "explore?by=nonsense",
    "explore?then=nonsense", "explore?measure=nonsense", "explore?measure=", "explore?limit=0", "explore?by=metadata.",
    f"explore?by=metadata.{'x' * 80}", "explore.csv?by=x", "explore?others=1", "analytics/usage/overview?modle=x",
)  # fmt: skip


def test_what_cannot_be_asked_is_a_problem_that_says_so(opened: Open) -> None:
    """If this failed, a filter that is spelled wrong would be passed over, and the figures be of something else."""
    browser = opened("operator")
    for path in WRONG:
        answer = browser.get(f"/api/v1/{path}")
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), path
        assert {"type", "title", "status", "detail", "hint"} <= set(answer.json())


def test_head_answers_as_get_does_without_a_body(opened: Open) -> None:
    """If this failed, whoever asks whether something has changed would be told that it may not be asked."""
    browser = opened("operator")
    for path in (
        "healthz",
        "",
        "calls",
        "api/v1/calls?limit=2",
        "api/v1/calls.csv",
        "api/v1/explore",
        "sign-in",
        "api/v1/calls?limit=0",
    ):
        url = f"/{path}"
        got, head = browser.get(url), browser.head(url)
        assert (head.status_code, head.content) == (got.status_code, b""), path
        for name in ("content-type", "etag", "cache-control", "content-security-policy", "link"):
            assert head.headers.get(name) == got.headers.get(name) or path == "", (path, name)
    assert browser.head("/nowhere").status_code == 404
    refused = browser.delete("/api/v1/calls")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


def test_openapi_lists_filters_answers_and_errors(opened: Open) -> None:
    """If this failed, whoever writes a client would have to guess how calls are filtered."""
    described = get(opened("operator"), "/api/v1/openapi.json")
    for path, names in (
        ("/api/v1/calls", (*FILTERED, "metadata.KEY", "days", "since", "until", "timezone", "q", "unpriced", "limit", "after")),
        ("/api/v1/explore", (*FILTERED, "measure", "by", "then", "grain")),
        ("/api/v1/runs", (*RUNS_BY, "nested")),
        ("/api/v1/analytics/usage/costs", (*FILTERED, "days", "grain")),
    ):  # fmt: skip
        offered = [parameter["name"] for parameter in described["paths"][path]["get"]["parameters"]]
        assert set(names) <= set(offered), path
        assert len(offered) == len(set(offered))
    assert "model" not in [one["name"] for one in described["paths"]["/api/v1/runs"]["get"]["parameters"]]
    assert not [path for path, methods in described["paths"].items() if "head" in methods]
    assert described["components"]["schemas"]["StoredCall"]["properties"]["total_cost"]["anyOf"][0] == {
        "type": "number"
    }
    for path, methods in described["paths"].items():
        for method in methods.values():
            for code, answer in method["responses"].items():
                media = answer.get("content", {})
                assert code == "304" or all("example" in one and "schema" in one for one in media.values()), (
                    path,
                    code,
                )
                assert code in ("204", "304") or media, (path, code)
