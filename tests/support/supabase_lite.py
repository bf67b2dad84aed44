"""Supabase's Data API and Auth (`@supabase/lite`) over a PostgreSQL database."""

import contextlib
import os
import secrets
import signal
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import LiteralString, Self

import httpx
import jwt as pyjwt
import psycopg
from psycopg import sql

from supabase import Client, ClientOptions, create_client
from tests.support.node import ensure_node_packages, node_binary, node_environment
from tests.support.postgres import free_port

START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 10.0
START_ATTEMPTS = 3

_CONFIG = """\
[api]
port = {port}

[db]
driver = "postgres"
url = "env(LITE_DATABASE_URL)"

[auth]
enabled = true
jwt_secret = "env(LITE_JWT_SECRET)"
publishable_key = "env(SUPABASE_PUBLISHABLE_KEY)"
secret_key = "env(SUPABASE_SECRET_KEY)"
"""

# What a hosted project has before the first migration, as far as it is missing.
PLATFORM_PRELUDE = """
do $$
declare
  api_role text;
begin
  foreach api_role in array array['anon', 'authenticated', 'service_role'] loop
    if not exists (select from pg_catalog.pg_roles where rolname = api_role) then
      execute pg_catalog.format('create role %I nologin', api_role);
    end if;
  end loop;
  if exists (select from pg_catalog.pg_roles where rolname = 'service_role' and not rolbypassrls) then
    alter role service_role bypassrls;
  end if;
exception
  -- Roles belong to the whole server: another database may be making them at this moment.
  when duplicate_object or unique_violation then null;
end $$;
create schema if not exists auth;
grant usage on schema public, auth to anon, authenticated, service_role;
do $$
begin
  if to_regprocedure('auth.jwt()') is null then
    create function auth.jwt() returns jsonb language sql stable as $sql$
      select coalesce(nullif(current_setting('request.jwt.claims', true), ''), '{}')::jsonb
    $sql$;
  end if;
  if to_regprocedure('auth.uid()') is null then
    create function auth.uid() returns uuid language sql stable as $sql$
      select nullif(
        coalesce(nullif(current_setting('request.jwt.claim.sub', true), ''), auth.jwt() ->> 'sub'), ''
      )::uuid
    $sql$;
  end if;
end $$;
"""

# What a hosted project grants by default on everything that migrations make in `public`.
PLATFORM_DEFAULT_PRIVILEGES = """
alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges in schema public grant all on sequences to anon, authenticated, service_role;
alter default privileges in schema public grant all on functions to anon, authenticated, service_role;
"""

_WARM_UP_TABLE: LiteralString = "lite_warm_up"
_ACL_COLUMNS: dict[LiteralString, LiteralString] = {
    "pg_namespace": "nspacl",
    "pg_class": "relacl",
    "pg_default_acl": "defaclacl",
}
_Acls = dict[LiteralString, dict[int, str | None]]


class SupabaseLite:
    """Runs `lite start` in `workdir`; `stop()` and `start()` keep the port, so clients survive an outage."""

    def __init__(self, database_url: str, workdir: Path) -> None:
        self.database_url = database_url
        self.workdir = workdir
        self.port = free_port()
        # Keys of its own for every server: one that took the same port in between cannot be taken for this one.
        self.service_key = f"sb_secret_{secrets.token_hex(16)}"
        self.publishable_key = f"sb_publishable_{secrets.token_hex(16)}"
        self.jwt_secret = secrets.token_hex(32)
        self._log = workdir / "lite.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._http_clients: list[httpx.Client] = []

    def __enter__(self) -> Self:
        for _ in range(START_ATTEMPTS - 1):
            try:
                self.start()
                return self
            except RuntimeError:
                if "already in use" not in self.log_text:
                    raise
                self.port = free_port()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        for http_client in self._http_clients:
            http_client.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log_text(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    def start(self) -> None:
        """Write the project, start the server and wait until it answers."""
        lite = ensure_node_packages() / "@supabase" / "lite" / "dist" / "cli" / "index.js"
        project = self.workdir / "supabase"
        project.mkdir(parents=True, exist_ok=True)
        (project / "config.toml").write_text(_CONFIG.format(port=self.port), encoding="utf-8")
        environment = node_environment() | {
            "HOME": str(self.workdir),
            "LITE_TELEMETRY": "0",
            "LITE_DATABASE_URL": self.database_url,
            "LITE_JWT_SECRET": self.jwt_secret,
            "SUPABASE_PUBLISHABLE_KEY": self.publishable_key,
            "SUPABASE_SECRET_KEY": self.service_key,
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(node_binary()), str(lite), "start", "--no-admin"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.workdir,
                env=environment,
                start_new_session=True,
            )
        try:
            self._wait_until_ready(self._process)
            self._enter_rls_mode()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server and everything it started."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_TIMEOUT_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def jwt(
        self,
        sub: str,
        role: str = "authenticated",
        *,
        expires_in: timedelta = timedelta(hours=1),
        secret: str | None = None,
        **claims: object,
    ) -> str:
        """Sign a user token; a negative `expires_in` makes an expired one, another `secret` a forged one."""
        now = datetime.now(UTC)
        issued = min(now, now + expires_in) - timedelta(seconds=5)
        payload = {"sub": sub, "role": role, "aud": "authenticated", "iat": issued, "exp": now + expires_in, **claims}
        return pyjwt.encode(payload, secret or self.jwt_secret, algorithm="HS256")

    def client(self, options: ClientOptions | None = None) -> Client:
        """Return a client with the service key (role `service_role`)."""
        return create_client(self.url, self.service_key, options or self._options())

    def client_as(self, token: str) -> Client:
        """Return a client that acts as the signed-in user of `token`."""
        options = self._options()
        options.headers["Authorization"] = f"Bearer {token}"
        return create_client(self.url, self.publishable_key, options)

    def _options(self) -> ClientOptions:
        http_client = httpx.Client(http2=False, timeout=30.0, trust_env=False)
        self._http_clients.append(http_client)
        return ClientOptions(httpx_client=http_client, postgrest_client_retry=False)

    def _enter_rls_mode(self) -> None:
        """Let lite make its grants now, and take them back.

        Its first request over a database with row level security grants every table of such a schema to the three
        API roles. With those grants no test could see what the migrations themselves allow.
        """
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            found = connection.execute("select exists (select from pg_class where relrowsecurity)").fetchone()
            if found != (True,):
                return
            saved = _read_acls(connection)
            connection.execute(f"create table public.{_WARM_UP_TABLE} (id integer)")
            try:
                answer = httpx.get(
                    f"{self.url}/rest/v1/{_WARM_UP_TABLE}", headers={"apikey": self.service_key}, trust_env=False
                )
                answer.raise_for_status()
            finally:
                connection.execute(f"drop table public.{_WARM_UP_TABLE}")
                _restore_acls(connection, saved)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        with httpx.Client(base_url=self.url, timeout=5.0, trust_env=False) as probe:
            while time.monotonic() < deadline:
                if process.poll() is not None:
                    raise RuntimeError(f"lite ended with {process.returncode}:\n{self.log_text}")
                with contextlib.suppress(httpx.TransportError):
                    answer = probe.get("/auth/v1/health", headers={"apikey": self.publishable_key})
                    if answer.is_success:
                        return
                time.sleep(0.05)
        raise RuntimeError(f"lite was not ready after {START_TIMEOUT_SECONDS:.0f} s:\n{self.log_text}")


def _read_acls(connection: psycopg.Connection) -> _Acls:
    return {
        catalog: dict(connection.execute(f"select oid, {column}::text from {catalog}").fetchall())
        for catalog, column in _ACL_COLUMNS.items()
    }


def _restore_acls(connection: psycopg.Connection, saved: _Acls) -> None:
    added = connection.execute(
        "select defaclnamespace::regnamespace::text, case defaclobjtype when 'S' then 'sequences' else 'tables' end"
        " from pg_default_acl where oid <> all(%s)",
        [list(saved["pg_default_acl"])],
    ).fetchall()
    for schema, kind in added:
        connection.execute(
            sql.SQL(
                "alter default privileges in schema {} revoke all on {} from anon, authenticated, service_role"
            ).format(sql.SQL(schema), sql.SQL(kind))
        )
    for catalog, column in _ACL_COLUMNS.items():
        for oid, acl in saved[catalog].items():
            connection.execute(
                f"update {catalog} set {column} = %s::aclitem[] where oid = %s and {column}::text is distinct from %s",
                [acl, oid, acl],
            )
