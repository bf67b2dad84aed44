"""Serving the application from this process: a socket that is ours before anybody is told its address, and uvicorn on it."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Final

import uvicorn
from anyio import to_thread
from fastapi import FastAPI

from vital_tracking.errors import SettingsError
from vital_tracking.web.settings import WebSettings, is_loopback

DEFAULT_PORT: Final = 8321
_GRACE_S: Final = 3
_THREADS: Final = 8
"""Pages that are made at once. The store has half as many connections, so more of them would only wait, and take memory."""


def check_host(host: str, settings: WebSettings) -> None:
    """Refuse to serve others where nobody could be told from anybody: SettingsError says what to set."""
    if not is_loopback(host) and not settings.knows_users:
        raise SettingsError(
            "--host",
            f"{host} lets others in, and nothing is set by which they could be told apart",
            "Set SUPABASE_URL and SUPABASE_ANON_KEY (people sign in with Supabase Auth), or VITAL_JWKS_URL, VITAL_JWT_ISSUER "
            "and VITAL_JWT_AUDIENCE (tokens of another identity provider). Or stay on 127.0.0.1.",
        )


def listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens at a port; where none is asked for at the usual one, or any that is free where that is taken."""
    try:
        return _listening(host, DEFAULT_PORT if port is None else port)
    except OSError as error:
        if port is None and error.errno == errno.EADDRINUSE:
            return _listening(host, 0)
        taken = error.errno == errno.EADDRINUSE
        problem = f"{port} is taken" if taken else f"{host}:{port} cannot be listened at ({error.strerror})"
    raise SettingsError(
        "--port", problem, "Name another one, or leave --port out." if taken else "Name another address."
    )


def _listening(host: str, port: int) -> socket.socket:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    return socket.create_server((host, port), family=family, backlog=2048)


def address(listening: socket.socket, host: str) -> str:
    """Where a browser finds what listens there."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}"


def serve(app: FastAPI, listening: socket.socket, begun: Callable[[], None]) -> None:
    """Serve until the process is told to end (Ctrl-C, SIGTERM), which it can be from when `begun` is called on.

    Addresses are not logged: one of them holds the link's token.
    """
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    asyncio.run(_Server(config, begun).serve(sockets=[listening]))


class _Server(uvicorn.Server):
    """Says that it has begun as soon as Ctrl-C ends it properly; before that, Ctrl-C would end in a traceback."""

    def __init__(self, config: uvicorn.Config, begun: Callable[[], None]) -> None:
        super().__init__(config)
        self._begun = begun

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as usual, and say so."""
        to_thread.current_default_thread_limiter().total_tokens = _THREADS
        await super().startup(sockets)
        if self.started:
            self._begun()
