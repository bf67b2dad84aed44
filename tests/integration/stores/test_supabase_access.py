"""Supabase's API with tokens of real people: each is told exactly what is theirs, and who is not who they say, nothing."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import jwt as pyjwt
import pytest
from postgrest.exceptions import APIError

from tests.sql.access_world import DORA, QUESTIONS, READERS, Question, World, calls_in, make_world
from tests.sql.helpers import ADMIN, ALICE, Connection, connect
from tests.sql.test_roles import EXECUTABLE, RELATIONS
from tests.support.node import ensure_node_packages, node_binary, node_environment
from tests.support.supabase_lite import SupabaseLite

pytestmark = pytest.mark.timeout(300)

REFUSED = {401, 403, 404}


def empty(connection: Connection) -> None:
    """No rows of other tests, and none for them; what the migrations have put there stays."""
    with connection.transaction():
        connection.execute("set local vital_tracking.audit_may_change = 'on'")
        names = connection.execute(
            "select string_agg(c.oid::regclass::text, ', ') as all from pg_class as c"
            " where c.relkind in ('r', 'p') and c.relnamespace = 'public'::regnamespace"
            " and c.relname not in ('retention_policies', 'analytics_freshness', 'admin_audit', 'resource_prices', 'plans')"
        ).fetchone()
        assert names is not None
        private = "vital_private.budget_overrides, vital_private.organization_names, vital_private.member_names"
        connection.execute(f"truncate {names['all']}, {private} cascade")
        connection.execute("truncate admin_audit")


@pytest.fixture(scope="module")
def world(lite: SupabaseLite) -> Iterator[World]:
    """What is behind the API."""
    with connect(lite.database_url) as connection:
        empty(connection)
        with connection.transaction():
            made = make_world(connection)
        yield made
        empty(connection)


@pytest.fixture(scope="module")
def web(lite: SupabaseLite) -> Iterator[httpx.Client]:
    """A browser with the project's publishable key."""
    headers = {"apikey": lite.publishable_key}
    with httpx.Client(base_url=f"{lite.url}/rest/v1", headers=headers, timeout=30, trust_env=False) as client:
        yield client


def ask(web: httpx.Client, asked: Question, world: World, **headers: str) -> httpx.Response:
    """Read a relation, or call a function."""
    if asked.is_function:
        return web.post(f"/rpc/{asked.name}", json=asked.with_arguments(world), headers=headers)
    return web.get(f"/{asked.name}", params={"select": "*"}, headers=headers)


def token(lite: SupabaseLite, secret: str | None = None, algorithm: str = "HS256", **claims: Any) -> str:
    """A token as Supabase signs it, with these claims over its usual ones."""
    now = datetime.now(UTC)
    usual = {"role": "authenticated", "aud": "authenticated", "iat": now, "exp": now + timedelta(hours=1)}
    return pyjwt.encode({**usual, **claims}, lite.jwt_secret if secret is None else secret, algorithm=algorithm)


# How the API reads a token is the same for all: these stand for the others, which are asked for in SQL.
PEOPLE = (
    "owner of rows",
    "member with another identity provider",
    "organization admin",
    "admin of two",
    "stranger",
    "signed in without a subject",
    "subject that is a wildcard",
    "service role",
)
# Of each relation and function one question; of functions with a choice two, with an organization and without.
ONE_EACH = list({asked.name: asked for asked in QUESTIONS}.values())
TWO_EACH = ONE_EACH + [asked for asked in {q.name: q for q in QUESTIONS[::-1]}.values() if asked not in ONE_EACH]


@pytest.mark.parametrize("reader", PEOPLE)
def test_everyone_is_told_exactly_what_is_theirs(
    lite: SupabaseLite, web: httpx.Client, world: World, reader: str
) -> None:
    """If this failed, a browser would show another customer's bill, or miss lines of one's own."""
    who = READERS[reader]
    assert isinstance(who.claims, dict)
    signed = token(lite, **{"role": who.role, **who.claims})
    for asked in TWO_EACH:
        answer = ask(web, asked, world, Authorization=f"Bearer {signed}")
        assert answer.status_code in REFUSED | {200}, (str(asked), answer.text)
        told = None if answer.status_code in REFUSED else asked.told(answer.json(), world)
        assert told == asked.expected(who), (str(asked), answer.text)


def test_the_secret_key_is_told_everything(lite: SupabaseLite, web: httpx.Client, world: World) -> None:
    """If this failed, servers that hold the key could not read what they have written."""
    for asked in ONE_EACH:
        answer = ask(web, asked, world, apikey=lite.service_key)
        assert answer.status_code == 200, (str(asked), answer.text)
        assert asked.told(answer.json(), world) == asked.expected(READERS["service role"]), str(asked)


def test_members_are_changed_by_their_admin_s_token_alone(lite: SupabaseLite, web: httpx.Client, world: World) -> None:
    """If this failed, anybody who has signed in could make himself an admin through the API."""

    def add(who: str, organization: str) -> Any:
        signed = {"Authorization": f"Bearer {token(lite, sub=who)}"}
        wanted = {"organization": organization, "user_id": f"new of {who}", "role": "admin"}
        answer = web.post("/rpc/add_member_v1", json=wanted, headers=signed)
        assert answer.status_code == 200, answer.text
        return answer.json()["refused"]

    with connect(lite.database_url) as connection:
        before = connection.execute("select * from organization_members order by 1, 2").fetchall()
        assert (add(ADMIN, "acme"), add(ADMIN, "other"), add(ALICE, "acme")) == (None, "not_an_admin", "not_an_admin")
        assert connection.execute(
            "delete from organization_members where user_id like 'new of %' returning user_id, role"
        ).fetchall() == [{"user_id": f"new of {ADMIN}", "role": "admin"}]
        assert connection.execute("select * from organization_members order by 1, 2").fetchall() == before
        with connection.transaction():
            connection.execute("set local vital_tracking.audit_may_change = 'on'")
            connection.execute("delete from admin_audit where key ->> 'user_id' like 'new of %'")


def test_the_publishable_key_alone_is_told_nothing(lite: SupabaseLite, web: httpx.Client, world: World) -> None:
    """If this failed, whoever opens the project's page could read its calls and costs."""
    for headers in ({}, {"Authorization": f"Bearer {token(lite, sub=ADMIN, role='anon')}"}):
        for asked in ONE_EACH:
            answer = ask(web, asked, world, **headers)
            assert answer.status_code in REFUSED, (str(asked), answer.text)
            assert set(answer.json()) <= {"code", "message", "details", "hint"}


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _tampered(lite: SupabaseLite, **claims: Any) -> str:
    """Alice's token, with other claims under her signature."""
    head, body, signature = token(lite, sub=ALICE).split(".")
    told = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return f"{head}.{_part({**told, **claims})}.{signature}"


def _unsigned(lite: SupabaseLite, algorithm: str, signature: str = "", **claims: Any) -> str:
    body = token(lite, **claims).split(".")[1]
    return f"{_part({'alg': algorithm, 'typ': 'JWT'})}.{body}.{signature}"


ANOTHER_SECRET = "another secret of more than thirty-two bytes"
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)

FALSE_TOKENS: dict[str, Callable[[SupabaseLite], str]] = {
    "forged": lambda lite: token(lite, ANOTHER_SECRET, sub=ADMIN),
    "forged service role": lambda lite: token(lite, ANOTHER_SECRET, role="service_role"),
    "forged owner": lambda lite: token(lite, ANOTHER_SECRET, role="postgres"),
    "signed with the publishable key": lambda lite: token(lite, lite.publishable_key, role="service_role"),
    "forged with a longer signature": lambda lite: token(lite, ANOTHER_SECRET * 2, "HS512", sub=ADMIN),
    "expired": lambda lite: token(lite, sub=ADMIN, iat=LONG_AGO, exp=LONG_AGO + timedelta(hours=1)),
    "expired a minute ago": lambda lite: token(lite, sub=ADMIN, exp=datetime.now(UTC) - timedelta(minutes=1)),
    "expired service role": lambda lite: token(lite, role="service_role", exp=LONG_AGO),
    "not yet valid": lambda lite: token(lite, sub=ADMIN, nbf=datetime.now(UTC) + timedelta(hours=1)),
    "another's subject": lambda lite: _tampered(lite, sub=ADMIN),
    "another role": lambda lite: _tampered(lite, role="service_role"),
    "a longer life": lambda lite: _tampered(lite, exp=4102444800),
    "no algorithm": lambda lite: _unsigned(lite, "none", sub=ADMIN),
    "no algorithm, service role": lambda lite: _unsigned(lite, "NONE", role="service_role"),
    "no algorithm, with a signature": lambda lite: _unsigned(lite, "none", "AAAA", sub=ADMIN),
    "no signature": lambda lite: _unsigned(lite, "HS256", sub=ADMIN),
    "the signature of another": lambda lite: _unsigned(
        lite, "HS256", token(lite, sub=ALICE, n=1).split(".")[2], sub=ADMIN
    ),
    "cut off": lambda lite: token(lite, sub=ADMIN)[:-4],
    "no token": lambda _: "x",
    "two parts": lambda lite: token(lite, sub=ADMIN).rpartition(".")[0],
}


@pytest.mark.parametrize("false", FALSE_TOKENS)
def test_forged_expired_and_tampered_tokens_are_told_nothing(
    lite: SupabaseLite, web: httpx.Client, world: World, false: str
) -> None:
    """If this failed, anybody could write themselves a token."""
    signed = FALSE_TOKENS[false](lite)
    names = {"token_usage_logs", "budget_status", "organization_cost", "usage_report_v1"}
    for asked in [asked for asked in ONE_EACH if asked.name in names]:
        for headers in ({"Authorization": f"Bearer {signed}"}, {"apikey": signed, "Authorization": f"Bearer {signed}"}):
            answer = ask(web, asked, world, **headers)
            assert answer.status_code in REFUSED, (asked.name, answer.text)
            assert set(answer.json()) <= {"code", "message", "details", "hint", "error", "error_code", "msg"}
    assert web.post("/rpc/record_calls_v1", json={"calls": "[]"}, headers=headers).status_code in REFUSED


def test_users_call_no_function_that_is_not_for_them(lite: SupabaseLite, web: httpx.Client, world: World) -> None:
    """If this failed, a browser could forge calls, lift budgets or forget a user."""
    with connect(lite.database_url) as connection:
        functions = connection.execute(
            "select p.proname as name, coalesce(p.proargnames[:p.pronargs], '{}') as arguments from pg_proc as p"
            " where p.pronamespace = 'public'::regnamespace and p.prorettype <> 'trigger'::regtype"
        ).fetchall()
        before = connection.execute("select count(*) as calls from token_usage_logs").fetchall()
        refused = [row for row in functions if "authenticated" not in EXECUTABLE.get(f"public.{row['name']}", ())]
        assert len(refused) > 40
        for claims in ({"sub": ADMIN}, {"sub": ADMIN, "role": "anon"}):
            headers = {"Authorization": f"Bearer {token(lite, **claims)}"}
            for function in functions if claims.get("role") == "anon" else refused:
                arguments = dict.fromkeys(function["arguments"])
                answer = web.post(f"/rpc/{function['name']}", json=arguments, headers=headers)
                assert answer.status_code in REFUSED, (function["name"], answer.text)
        assert connection.execute("select count(*) as calls from token_usage_logs").fetchall() == before


def test_users_write_to_no_table_or_view(lite: SupabaseLite, web: httpx.Client, world: World) -> None:
    """If this failed, a user could lower their own bill, or lift their limit, from the browser."""
    with connect(lite.database_url) as connection:
        relations = [row["name"] for row in connection.execute(RELATIONS) if row["name"].startswith("public.")]
        columns = {
            name: connection.execute(
                "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0"
                " and attgenerated = '' and attidentity = '' and not attisdropped"
                " order by attnum limit 1",
                [name],
            ).fetchall()[0]["attname"]
            for name in relations
        }
    assert len(relations) > 20
    for claims in ({"sub": ADMIN}, {"sub": ADMIN, "role": "anon"}):
        headers = {"Authorization": f"Bearer {token(lite, **claims)}"}
        for name, column in columns.items():
            path, one = f"/{name.removeprefix('public.')}", {column: None}
            some = {column: "not.is.null"}
            answers = [web.patch(path, json=one, params=some, headers=headers)]
            if "role" not in claims:
                answers += [web.post(path, json=one, headers=headers), web.delete(path, params=some, headers=headers)]
            for answer in answers:
                # Views over several tables, and materialized ones, cannot be written to at all, and that is said first.
                refused = answer.status_code in REFUSED or answer.json()["code"] in ("55000", "42809")
                assert refused, (name, answer.request.method, answer.text)
    answer = web.get("/token_usage_logs", params={"select": "id"}, headers={"apikey": lite.service_key})
    assert len(answer.json()) == 63


def test_the_private_schema_is_not_served(lite: SupabaseLite, web: httpx.Client, world: World) -> None:
    """If this failed, partitions and helpers would be in everybody's reach."""
    signed = token(lite, sub=ADMIN)
    for schema in ("vital_private", "auth", "supabase_migrations", "pg_catalog"):
        headers = {"Authorization": f"Bearer {signed}", "Accept-Profile": schema, "Content-Profile": schema}
        for answer in (
            web.get("/token_usage_logs_default", headers=headers),
            web.get("/schema_migrations", headers=headers),
            web.get("/pg_authid", headers=headers),
            web.post("/rpc/administered_organizations", json={}, headers=headers),
        ):
            assert answer.status_code in REFUSED | {400, 406}, (schema, answer.text)


def test_who_was_an_admin_is_told_nothing_from_then_on(lite: SupabaseLite, web: httpx.Client, world: World) -> None:
    """If this failed, a token would go on showing an organization that its owner has left."""
    headers = {"Authorization": f"Bearer {token(lite, sub=ADMIN)}"}
    with connect(lite.database_url) as connection:
        member = "organization_id = 'acme' and user_id = %s"
        connection.execute(f"update organization_members set role = 'member' where {member}", [ADMIN])
        try:
            rows = web.get("/token_usage_logs", params={"select": "user_id"}, headers=headers).json()
            assert {row["user_id"] for row in rows} == {ADMIN}
            assert web.get("/usage_aggregations_daily_agents", headers=headers).json() == []
        finally:
            connection.execute(f"update organization_members set role = 'admin' where {member}", [ADMIN])
    assert web.get("/usage_aggregations_daily_agents", headers=headers).json() != []


def blocks(language: str) -> list[str]:
    """The code of the page on access in a language."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "access.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", page.replace("clinic-7", "acme"), re.DOTALL)


def test_the_page_shows_how_a_server_asks_for_a_user(lite: SupabaseLite, world: World) -> None:
    """If this failed, whoever pastes the page's Python would be told nothing, or too much."""
    page: dict[str, Any] = {}
    for block in blocks("python"):
        exec(block, page)
    stats, models = page["costs_of"](token(lite, sub=DORA), lite.url, lite.publishable_key)
    assert calls_in(stats["totals"]["total_cost"]) == {1, 2, 7}
    assert calls_in(models[0]["total_cost"]) == {1, 2, 7}
    with pytest.raises(APIError):
        page["costs_of"](token(lite, sub=ALICE), lite.url, lite.publishable_key)


@pytest.mark.parametrize(("who", "told"), [(ADMIN, {1, 2, 7}), (ALICE, None)])
def test_the_page_shows_how_a_browser_asks(
    lite: SupabaseLite, world: World, tmp_path: Path, who: str, told: set[int] | None
) -> None:
    """If this failed, whoever pastes the page's JavaScript would be told nothing, or too much."""
    given = {"url": lite.url, "publishableKey": lite.publishable_key, "token": token(lite, sub=who)}
    (tmp_path / "node_modules").symlink_to(ensure_node_packages(), target_is_directory=True)
    program = tmp_path / "page.mjs"
    [block] = blocks("javascript")
    program.write_text(
        f"const {{ url, publishableKey, token }} = {json.dumps(given)};\n{block}\n"
        "console.log(JSON.stringify({ stats, days }));\n",
        encoding="utf-8",
    )
    command = [str(node_binary()), str(program)]
    done = subprocess.run(command, env=node_environment(), capture_output=True, text=True, timeout=60, check=False)
    if told is None:
        assert done.returncode != 0
        assert "42501" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert calls_in(answer["stats"]["totals"]["total_cost"]) == told
    assert calls_in(sum(Decimal(day["total_cost"]) for day in answer["days"])) == told
