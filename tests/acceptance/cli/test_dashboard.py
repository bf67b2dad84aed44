"""`vital-tracking dashboard`: one line with a link that works once; never open to others by accident; ends at Ctrl-C."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.acceptance.cli.helpers import SECRET, UNREACHABLE, Cli, refused
from tests.acceptance.helpers import COMMAND, environment

LINK = "The dashboard is at "


@contextmanager
def dashboard(home: Path, *arguments: str, **settings: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, running, and the line that it has printed; it is told to end as by Ctrl-C."""
    process = subprocess.Popen(
        [str(COMMAND), "dashboard", "--no-open", *arguments],
        cwd=home,
        env=environment(home, **settings) | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith(LINK), line + process.communicate(timeout=30)[1]
        yield process, line
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
        assert (process.returncode, out.strip(), err) == (0, "", "")
    finally:
        process.kill()
        process.wait()


def link_in(line: str) -> str:
    """The link that the line names."""
    return line.removeprefix(LINK).split()[0]


def test_one_line_with_a_link_that_works_once(database_url: str, tmp_path: Path) -> None:
    """If this failed, whoever tries it would see nothing, or leave a door open behind him."""
    with dashboard(tmp_path, "--port", str(_free()), VITAL_DATABASE_URL=database_url) as (process, line):
        link = link_in(line)
        place = urlsplit(link)
        assert (place.hostname, place.path) == ("127.0.0.1", "/open")
        base = f"http://{place.netloc}"
        with httpx.Client(base_url=base, trust_env=False) as browser:
            assert browser.get("/healthz").json() == {"status": "ok"}
            assert browser.get("/api/v1/status").status_code == 401
            assert browser.get(link).status_code == 303
            assert browser.get("/api/v1/status").json()["kind"] == "operator"
            assert "server" not in browser.get("/healthz").headers
        assert httpx.get(link, trust_env=False).status_code == 403
        assert process.poll() is None


def _free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_a_port_that_is_taken_is_said(cli: Cli, database_url: str, tmp_path: Path) -> None:
    """If this failed, a second dashboard would end with a stack trace, or show the first one's database."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        assert f"--port {taken} is taken" in refused(cli("dashboard", "--no-open", "--port", taken))
    try:
        holder = socket.create_server(("127.0.0.1", 8321))
    except OSError:
        holder = None  # somebody else's dashboard holds it for us
    try:
        with dashboard(tmp_path, VITAL_DATABASE_URL=database_url) as (_, line):
            assert "Port 8321 is taken." in line
            assert urlsplit(link_in(line)).port != 8321
    finally:
        if holder is not None:
            holder.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_it_is_not_open_to_others_by_accident(cli: Cli, host: str) -> None:
    """If this failed, everybody in the same café could read the books."""
    said = refused(cli("dashboard", "--no-open", "--host", host))
    assert "SUPABASE_ANON_KEY" in said


def test_others_must_sign_in(database_url: str, tmp_path: Path) -> None:
    """If this failed, the operator's link would be sent over the network."""
    settings = {"VITAL_DATABASE_URL": database_url, "SUPABASE_JWT_SECRET": "x" * 40}
    with dashboard(tmp_path, "--host", "0.0.0.0", "--port", str(_free()), **settings) as (_, line):
        link = link_in(line)
        assert "token" not in link
        port = urlsplit(link).port
        assert httpx.get(f"http://127.0.0.1:{port}/api/v1/status", trust_env=False).status_code == 401
        assert httpx.get(f"http://127.0.0.1:{port}/open?token=", trust_env=False).status_code == 403


def test_a_database_that_cannot_be_asked_is_said_at_once(cli: Cli, empty_database: str) -> None:
    """If this failed, the page would open and every part of it would fail."""
    assert "vital-tracking migrate" in refused(cli("dashboard", "--no-open", VITAL_DATABASE_URL=empty_database))
    said = refused(cli("dashboard", "--no-open", VITAL_DATABASE_URL=UNREACHABLE))
    assert SECRET not in said
