"""Access logs are imported, each line once: whatever is run again, killed, rotated, compressed or read by two at a time."""

from __future__ import annotations

import gzip
import io
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.integration.imports.conftest import ORGANIZATIONS
from tests.integration.imports.logs import (
    ADDRESS,
    AGENT,
    KEY,
    TOKEN,
    import_log,
    json_line,
    nginx_line,
    recorded,
    text_of,
)
from tests.sql.helpers import connect
from tests.sql.platform_rows import differences
from tests.support.effort import examples
from vital_tracking.errors import StoreUnavailable
from vital_tracking.imports import log_text
from vital_tracking.imports.files import imported_files
from vital_tracking.imports.log_import import ImportOptions, LogImport, follow
from vital_tracking.imports.log_text import LogText
from vital_tracking.imports.request_costs import CostRule
from vital_tracking.stores.postgres import PostgresStore

RULES = (CostRule.parse("search:brave=/api/search*"), CostRule.parse("bandwidth=*"))


class Flaky:
    """A store that goes away before, or right after, it has done the n-th import."""

    def __init__(self, store: PostgresStore, *, after: int, done: bool) -> None:
        self._store, self._left, self._done = store, after, done

    def call(self, function: str, /, **arguments: Any) -> Any:
        if function == "import_lines_v1":
            self._left -= 1
            if self._left < 0:
                if self._done:
                    self._store.call(function, **arguments)
                raise StoreUnavailable("gone")
        return self._store.call(function, **arguments)

    def heal(self) -> bool:
        """It is back."""
        self._left = 1 << 30
        return True


class RotatedLog(RuleBasedStateMachine):
    """A log grows, is rotated, compressed and imported, by runs that are killed at any place."""

    url: str
    store: PostgresStore

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        name = f"o-{next(ORGANIZATIONS)}"
        self.whose = {"organization": name, "server": name}
        self.path = Path(self.folder.name, "access.log")
        self.path.touch()
        self.older: list[Path] = []
        self.written = 0
        self.imported: set[int] = set()

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(lines=st.integers(1, 30), cut=st.integers(0, 40))
    def write(self, lines: int, cut: int) -> None:
        """Some lines more; a reader may see the first of them half written."""
        text = text_of(range(self.written, self.written + lines))
        with self.path.open("ab") as file:
            file.write(text[:cut])
            file.flush()
            self.read(self.path)
            file.write(text[cut:])
        self.written += lines

    @rule(compress=st.booleans())
    def rotate(self, compress: bool) -> None:
        old = self.path.with_name(f"access.log.{len(self.older)}")
        self.path.rename(old)
        if compress:
            packed = old.with_name(f"{old.name}.gz")
            packed.write_bytes(gzip.compress(old.read_bytes()))
            old.unlink()
            old = packed
        self.older.append(old)
        self.path.touch()

    @rule(after=st.integers(0, 3), done=st.booleans(), again=st.booleans())
    def is_killed(self, after: int, done: bool, again: bool) -> None:
        for path in (*self.older, self.path):
            try:
                import_log(Flaky(self.store, after=after, done=done), path, again=again, **self.whose)
            except StoreUnavailable:
                return

    @rule(again=st.booleans())
    def import_all(self, again: bool) -> None:
        for path in (*self.older, self.path):
            import_log(self.store, path, again=again, **self.whose)
        assert recorded(self.url, self.whose["organization"]) == list(range(self.written))

    def read(self, path: Path) -> None:
        import_log(self.store, path, **self.whose)

    @invariant()
    def no_line_is_there_twice(self) -> None:
        found = recorded(self.url, self.whose["organization"])
        assert len(set(found)) == len(found)


def test_each_line_is_recorded_once_whatever_happens_to_its_log(shared: PostgresStore, url: str) -> None:
    RotatedLog.store, RotatedLog.url = shared, url
    with patch.object(log_text, "BLOCK", 1500):
        run_state_machine_as_test(
            RotatedLog, settings=settings(max_examples=examples(20), stateful_step_count=8, deadline=None)
        )
    with connect(url) as connection:
        assert differences(connection) == []


def test_costs_are_those_of_the_rules_and_come_later_with_again(
    shared: PostgresStore, url: str, whose: dict[str, str], tmp_path: Path
) -> None:
    """If this failed, a rule that was added later could price nothing, or all requests twice."""
    path = tmp_path / "access.log"
    failed = json_line(7, path="/api/search", status=503, size=0)
    path.write_bytes(text_of(range(4)) + failed + b"\n")
    assert import_log(shared, path, **whose).costs == 0
    later = import_log(shared, path, rules=RULES, again=True, **whose)
    assert (later.events, later.known, later.costs) == (0, 5, 6)
    assert import_log(shared, path, rules=RULES, again=True, **whose).costs == 0
    with connect(url) as connection:
        found = connection.execute(
            "select cost_type, service, resource, unit, count(*) as n, sum(quantity) as quantity, sum(cost_usd) as cost"
            " from tenant_cost_events where organization_id = %s group by 1, 2, 3, 4 order by 1",
            [whose["organization"]],
        ).fetchall()
    assert [tuple(row.values()) for row in found] == [
        ("bandwidth", "requests", None, "gb", 4, Decimal("0.000004006"), Decimal("0.00000036054")),
        ("search", "/api/search", "brave", "call", 2, Decimal(2), Decimal("0.0010")),
    ]


def test_bad_lines_are_counted_and_kept_by_their_place_alone(
    shared: PostgresStore, url: str, whose: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "access.log"
    lines = [json_line(0), b"Mozilla %s" % ADDRESS.encode(), b"", nginx_line(1), b'{"timestamp": "x"}', b"x" * 70_000]
    path.write_bytes(b"\r\n".join(lines) + b"\n")
    done = import_log(shared, path, **whose)
    assert (done.lines, done.events, done.bad_lines) == (6, 2, 3)
    assert done.reasons == {"neither json nor nginx": 1, "timestamp": 1, "too long": 1}
    file = next(file for file in imported_files(shared) if file["server"] == whose["server"])
    assert (file["place"], file["lines"], file["events"], file["bad_lines"]) == (path.stat().st_size, 6, 2, 3)
    places = [len(b"\r\n".join(lines[:number])) + 2 for number in (1, 4, 5)]
    assert [(bad["line_number"], bad["place"], bad["reason"]) for bad in file["bad"]] == [
        (2, places[0], "neither json nor nginx"),
        (5, places[1], "timestamp"),
        (6, places[2], "too long"),
    ]
    assert import_log(shared, path, again=True, **whose).bad_lines == 3  # it says so again, and counts them once
    assert next(file for file in imported_files(shared) if file["server"] == whose["server"])["bad_lines"] == 3
    with connect(url) as connection:
        connection.execute("update vital_private.import_bad_lines set imported_at = now() - interval '31 days'")
    import_log(shared, path, **whose)
    with connect(url) as connection:
        assert connection.execute("select * from vital_private.import_bad_lines").fetchall() == []


def test_no_table_holds_an_address_an_agent_or_a_query(
    shared: PostgresStore, url: str, whose: dict[str, str], tmp_path: Path
) -> None:
    """If this failed, whoever reads a backup would know who came from where, and with which token."""
    path = tmp_path / "access.log"
    path.write_bytes(
        text_of(range(3)) + text_of(range(3, 5), line=nginx_line) + f"{ADDRESS} {AGENT} {TOKEN}\n".encode()
    )
    import_log(shared, path, rules=RULES, **whose)
    with connect(url) as connection:
        tables = connection.execute(
            "select format('%I.%I', schemaname, tablename) as name from pg_tables where schemaname in ('public', 'vital_private')"
        ).fetchall()
        for table in tables:
            for row in connection.execute(f"select t::text as text from {table['name']} as t"):  # type: ignore[arg-type]
                assert not any(secret in row["text"] for secret in (ADDRESS, AGENT, TOKEN)), table["name"]
        row = connection.execute(
            "select * from platform_events where organization_id = %s order by value limit 1", [whose["organization"]]
        ).fetchone()
    assert row is not None
    assert (row["category"], row["event_name"], row["source"]) == ("system_health", "http_request", "/api/chat")
    assert row["ip_hash"]
    hashed = row["properties"].pop("user_agent_hash")
    assert len(hashed) == 32
    assert row["properties"] == {"method": "GET", "status": 200, "duration_ms": 0.0, "size": 1000}


def test_without_a_key_no_hash_is_kept(shared: PostgresStore, url: str, whose: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(text_of(range(1)))
    import_log(shared, path, hash_key=None, **whose)
    with connect(url) as connection:
        row = connection.execute(
            "select * from platform_events where organization_id = %s", [whose["organization"]]
        ).fetchone()
    assert row is not None
    assert (row["ip_hash"], row["properties"].get("user_agent_hash")) == (None, None)


def test_a_line_that_the_database_refuses_is_set_aside_alone(
    shared: PostgresStore, url: str, whose: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(text_of(range(9)))
    condition = f"value <> 4 or organization_id <> '{whose['organization']}'"
    with connect(url) as connection:
        connection.execute(f"alter table platform_events add constraint no_four check ({condition})")  # type: ignore[arg-type]
    done = import_log(shared, path, **whose)
    with connect(url) as connection:
        connection.execute("alter table platform_events drop constraint no_four")
    assert done.reasons == {"refused: 23514": 1}
    assert recorded(url, whose["organization"]) == [0, 1, 2, 3, 5, 6, 7, 8]


def test_two_that_read_one_log_at_once_record_each_line_once(
    shared: PostgresStore, url: str, whose: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(text_of(range(300)))
    with patch.object(log_text, "BLOCK", 2000), ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: import_log(shared, path, **whose), range(2)))
    assert recorded(url, whose["organization"]) == list(range(300))


def test_the_standard_input_goes_on_where_the_same_text_stood(
    shared: PostgresStore, url: str, whose: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this failed, `kubectl logs` run again would record all lines again."""
    for numbers, fresh in ((range(5), 5), (range(8), 3), (range(8), 0)):
        for text in (text_of(numbers), gzip.compress(text_of(numbers))):
            given = io.BufferedReader(io.BytesIO(text))
            monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=given))
            assert import_log(shared, Path("-"), **whose).events == (fresh if text.startswith(b"{") else 0)
    assert recorded(url, whose["organization"]) == list(range(8))


def test_whoever_waits_sends_again_what_may_have_arrived(
    shared: PostgresStore, url: str, whose: dict[str, str], tmp_path: Path
) -> None:
    """If this failed, a restart of the database would end a follower, or the batch in flight be counted as another run's."""
    path = tmp_path / "access.log"
    path.write_bytes(text_of(range(60)))
    for done, after in ((True, 0), (False, 1)):
        with path.open("ab") as file:
            file.write(text_of(range(60, 120)) if not done else b"")
        store = Flaky(shared, after=after, done=done)
        with patch.object(log_text, "BLOCK", 3000):
            importer = LogImport(store, ImportOptions(hash_key=KEY, **whose), wait=store.heal)
            importer.read(LogText(str(path))).end()
        assert (importer.done.events, importer.done.known) == (60, 0)
    assert recorded(url, whose["organization"]) == list(range(120))


def test_following_goes_on_through_rotation_and_truncation(
    shared: PostgresStore, url: str, whose: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "access.log"
    path.touch()

    def add(numbers: range) -> None:
        with path.open("ab") as file:
            file.write(text_of(numbers))

    def rotate() -> None:
        add(range(2, 4))  # what came after the last look is still read
        path.rename(tmp_path / "access.log.1")

    def copy_and_truncate() -> None:
        path.write_bytes(text_of(range(6, 7)))

    steps = iter(
        [
            lambda: add(range(2)),
            rotate,
            lambda: None,
            lambda: add(range(4, 6)),
            lambda: None,
            copy_and_truncate,
            lambda: None,
        ]
    )

    def wait() -> bool:
        step = next(steps, None)
        if step is not None:
            step()
        return step is not None

    importer = LogImport(shared, ImportOptions(hash_key=KEY, **whose))
    follow(importer, [importer.read(LogText(str(path)))], wait)
    assert recorded(url, whose["organization"]) == list(range(7))
    assert import_log(shared, tmp_path / "access.log.1", **whose).lines == 0


def test_a_dry_run_counts_and_records_nothing(
    shared: PostgresStore, url: str, whose: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(text_of(range(3)) + b"bad\n" + json_line(3))
    done = import_log(shared, path, dry_run=True, rules=RULES, **whose)
    assert (done.lines, done.events, done.costs, done.bad_lines, done.waiting) == (4, 3, 4, 1, ["access.log"])
    assert recorded(url, whose["organization"]) == []
    assert import_log(shared, path, whole=True, **whose).events == 4


def test_a_restored_log_without_its_place_is_still_recorded_once(
    shared: PostgresStore, url: str, whose: dict[str, str], tmp_path: Path
) -> None:
    """The ids of lines come from the log itself: where its place was lost, they are what keeps them single."""
    path = tmp_path / "access.log"
    path.write_bytes(text_of(range(40)))
    import_log(shared, path, **whose)
    with connect(url) as connection:
        connection.execute("delete from vital_private.import_files where server = %s", [whose["server"]])
    done = import_log(shared, path, **whose)
    assert (done.events, done.known) == (0, 40)
    assert json.dumps(recorded(url, whose["organization"])) == json.dumps(list(range(40)))
