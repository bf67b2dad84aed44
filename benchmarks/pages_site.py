"""The dashboard in a process of its own, as a user starts it, over a database; and tokens for those who look at it."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import jwt
from psycopg.conninfo import conninfo_to_dict

_FOREIGN = re.compile(r"VITAL_|SUPABASE_|NEXT_PUBLIC_|PG[A-Z]|REDIS_URL")
_BEGINS_S = 60


@dataclass(frozen=True)
class Site:
    """Where the dashboard answers, its process, and what signs the tokens of those who look."""

    port: int
    pid: int
    link: str
    secret: str

    def token(self, subject: str) -> str:
        """A user's token, as Supabase Auth signs it with a shared secret."""
        now = int(time.time())
        claims = {"sub": subject, "aud": "authenticated", "role": "authenticated", "iat": now, "exp": now + 86_400}
        return jwt.encode(claims, self.secret, "HS256")

    def cookie(self, subject: str) -> str:
        """What the browser of somebody who is signed in sends."""
        return f"vital_access={self.token(subject)}"

    def memory_mb(self) -> float:
        """What the process holds of memory now, in MB (10^6 bytes)."""
        return _status_kb(self.pid, "VmRSS") * 1024 / 1e6

    def cpu_s(self) -> float:
        """Seconds of CPU that the process has had."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status_kb(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise LookupError(name)


@contextlib.contextmanager
def a_dashboard(environment: Mapping[str, str]) -> Iterator[Site]:
    """`vital-tracking dashboard` with this environment and nothing else of ours."""
    secret = secrets.token_urlsafe(32)
    clean = {name: value for name, value in os.environ.items() if not _FOREIGN.match(name)}
    port = free_port()
    program = "from vital_tracking.cli import main; main()"
    here = str(Path(__file__).parents[1])
    with tempfile.TemporaryDirectory(prefix="vital-bench-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-c", program, "dashboard", "--no-open", "--port", str(port)],
            cwd=folder,
            env={**clean, "PYTHONPATH": here, "SUPABASE_JWT_SECRET": secret, "PYTHONUNBUFFERED": "1", **environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            found = re.search(r"http://\S+", said)
            if found is None:
                raise RuntimeError(f"the dashboard did not begin: {said}")
            yield Site(port, process.pid, found.group(), secret)
        finally:
            process.terminate()
            process.wait(_BEGINS_S)


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def operator_session(site: Site) -> str:
    """The cookie that the operator's link gives, which works once."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    connection.request("GET", site.link.partition(str(site.port))[2])
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return (answer.getheader("Set-Cookie") or "").partition(";")[0]


def server_of(conninfo: str) -> dict[str, str]:
    """The environment in which everything of ours goes to this database."""
    parts = conninfo_to_dict(conninfo)
    return {"VITAL_DATABASE_URL": f"postgresql://{parts['user']}@/{parts['dbname']}?host={parts['host']}"}
