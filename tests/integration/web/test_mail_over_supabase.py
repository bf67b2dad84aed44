"""Saved reports over Supabase's API: the service key alone, and each report with its owner's rights."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr

from tests.integration.stores.test_supabase_access import empty
from tests.integration.web.test_mail import rows_of
from tests.sql.helpers import ADMIN, ALICE, STRANGER, a_call, connect, record
from tests.support.hooks import Hooks
from tests.support.supabase_lite import SupabaseLite
from vital_tracking.queries.report_schedules import schedule_report
from vital_tracking.queries.saved_reports import saved_reports
from vital_tracking.settings import Settings
from vital_tracking.stores import open_store
from vital_tracking.web.mail.sending import Channels, send_due

pytestmark = pytest.mark.timeout(300)

ASKED = (("days", "2"), ("measure", "calls"), ("by", "user"), ("variants", "prompt_version"))


def test_each_report_is_its_owners_over_the_api_too(lite: SupabaseLite, hooks: Hooks) -> None:
    """If this failed, a hosted project would mail everybody's bill to somebody, or nothing to anybody."""
    yesterday = (datetime.now(UTC) - timedelta(days=1)).replace(hour=12).isoformat()
    with connect(lite.database_url) as books:
        empty(books)
        books.execute("insert into organization_members values ('acme', %s, 'admin')", [ADMIN])
        calls = [
            a_call(
                number,
                user_id=user,
                organization_id=organization,
                created_at=yesterday,
                metadata={"prompt_version": str(number)},
            )
            for number, (user, organization) in enumerate(((ALICE, "acme"), (ADMIN, "acme"), (STRANGER, None)), 1)
        ]
        assert record(books, *calls)["inserted"] == 3
        for owner in (ALICE, ADMIN, None):
            books.execute(
                "insert into saved_reports (owner, name, asked) values (%s, %s, %s)",
                [owner, f"of {owner}", json.dumps(ASKED)],
            )
    settings = Settings(supabase_url=lite.url, supabase_service_key=SecretStr(lite.service_key))
    with closing(open_store(settings)) as store, connect(lite.database_url) as books:
        reports = saved_reports(store, everybody=True)
        assert [report.owner for report in reports] == [None, ALICE, ADMIN]
        channels = Channels({"finance": [hooks.url()]})
        for report in reports:
            schedule_report(store, report.id, "finance", every="day", hour=23, timezone="Europe/Berlin")
        assert not list(send_due(store, channels, "p-1"))
        books.execute("update report_schedules set due_at = now()")
        sent = list(send_due(store, channels, "p-1"))
        assert [(one.owner, one.delivered) for one in sent] == [(ALICE, True), (ADMIN, True), (None, True)]
        assert not list(send_due(store, channels, "p-2"))
        assert [report.schedule.text for report in saved_reports(store) if report.schedule] == [
            "every day at 23:00 (Europe/Berlin)"
        ]
        books.execute("delete from saved_reports")
        empty(books)
    told = [post["message"].partition("## Variants") for post in hooks.posts]
    users = [{row[0] for row in rows_of(explored)} for explored, _, _ in told]
    assert users == [{ALICE}, {ALICE, ADMIN}, {ALICE, ADMIN, STRANGER}]
    assert [variants.count("---:") for _, _, variants in told] == [1, 3, 5]
