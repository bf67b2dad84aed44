"""What docs/clickhouse.md says to ask of ClickHouse, it understands."""

from __future__ import annotations

import re
from pathlib import Path

from tests.sql.helpers import a_call, connect, record
from vital_tracking.clickhouse.client import ClickHouse
from vital_tracking.clickhouse.copying import Copying
from vital_tracking.stores.postgres import PostgresStore

PAGE = (Path(__file__).parents[2] / "docs" / "clickhouse.md").read_text(encoding="utf-8")


def test_the_statements_of_the_page_are_clickhouses_and_its_row_policies_let_through_what_they_say(
    store: PostgresStore, database_url: str, clickhouse: ClickHouse
) -> None:
    """The engine in this process has no users: of policies it checks the grammar, and the condition as that of a question."""
    with connect(database_url) as db:
        record(
            db, a_call(1, organization_id="acme"), a_call(2, organization_id="other"), a_call(3, organization_id=None)
        )
    Copying(store, clickhouse).bring_up_to_date()
    statements = [
        one.strip()
        for block in re.findall(r"```clickhouse\n(.*?)```", PAGE, re.DOTALL)
        for one in block.split(";")
        if one.strip()
    ]
    assert len(statements) > 5
    for statement in statements:
        if statement.startswith("select"):
            clickhouse.query(statement)
        else:
            clickhouse.query("select formatQuery({statement:String})", {"statement": statement})
    seen = {
        name: clickhouse.query(f"select count() as calls from token_usage_logs final where {condition}")[0]["calls"]
        for name, condition in re.findall(r"create row policy (\w+) .*? using (.*?) to ", PAGE)
    }
    assert seen == {"acme": 1, "everything": 3}
