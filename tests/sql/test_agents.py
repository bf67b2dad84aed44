"""The agents that were seen: what the sums and the newest calls tell of them, and ids that stand for two things."""

from __future__ import annotations

from typing import Any

from tests.sql.helpers import ADMIN, ALICE, Connection, Row, a_call, acting_as, call, record

DAYS = {"since": "2026-01-10T00:00:00Z", "until": "2026-01-21T00:00:00Z"}


def seen(db: Connection, **asked: Any) -> dict[tuple[str | None, str], Row]:
    found = call(db, "agents_v1", **{**DAYS, **asked})
    return {(row["organization_id"], row["agent_id"]): row for row in found}


def test_one_id_with_two_names_or_tiers_is_told_with_its_first_and_last_day(db: Connection) -> None:
    """If this failed, two programs that share an agent's id would look like one agent that nobody can explain."""
    db.execute("insert into organization_members values ('acme', %s, 'admin')", [ADMIN])
    agents = [
        ("2026-01-02", "acme", "cardio", "Heart", "tier_1", None),  # before the time that is asked for
        ("2026-01-15", "acme", "cardio", "Heart", "tier_1", "doctor"),
        ("2026-01-16", "acme", "cardio", "Cardiologist", "tier_2", None),
        ("2026-03-01", "acme", "cardio", "Heart", "tier_1", None),  # after it
        ("2026-01-15", "acme", "legal", "Counsel", "tier_1", None),
        ("2026-01-15", "other", "cardio", "Another", "tier_3", "doctor"),
        ("2026-01-03", None, "cardio", "Mine", None, None),
        ("2026-01-17", None, "cardio", "Mine", None, None),
        ("2026-01-17", "acme", None, None, None, None),
    ]  # fmt: skip
    calls = [
        a_call(
            number, created_at=f"{day}T10:00:00Z", organization_id=organization, user_id=ALICE, agent_id=agent, agent_name=name,
            agent_tier=tier, agent_role=role, status="ok",
        )
        for number, (day, organization, agent, name, tier, role) in enumerate(agents)
    ]  # fmt: skip
    assert record(db, *calls)["inserted"] == len(agents)
    with acting_as(db, "authenticated", {"sub": ADMIN}):
        of_admin = seen(db)
    assert set(of_admin) == {("acme", "cardio"), ("acme", "legal")}
    drifting = of_admin["acme", "cardio"]
    assert (drifting["names"], drifting["tiers"], drifting["roles"]) == (
        ["Cardiologist", "Heart"], ["tier_1", "tier_2"], ["doctor"],
    )  # fmt: skip
    assert (drifting["first_day"], drifting["last_day"]) == ("2026-01-02", "2026-03-01")
    assert (drifting["calls"], drifting["total_cost"], drifting["success_rate"]) == (2, "0.84", 100)
    with acting_as(db, "authenticated", {"sub": ALICE}):
        own = seen(db)
    assert {key: (row["first_day"], row["last_day"]) for key, row in own.items()} == {
        ("acme", "cardio"): ("2026-01-02", "2026-03-01"),
        ("acme", "legal"): ("2026-01-15", "2026-01-15"),
        ("other", "cardio"): ("2026-01-15", "2026-01-15"),
        (None, "cardio"): ("2026-01-03", "2026-01-17"),
    }
    with acting_as(db, "authenticated", {"sub": "nobody"}):
        assert seen(db) == {}
    assert set(seen(db, organization="other")) == {("other", "cardio")}
    assert set(seen(db, agent="legal")) == {("acme", "legal")}
