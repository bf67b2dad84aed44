"""Cookies of ours: out of scripts' reach, not sent from other sites, and cut where a browser takes no more at once."""

from __future__ import annotations

import re
from typing import Final

from starlette.requests import Request

from vital_tracking.web.problems import Problem

ACCESS: Final = "vital_access"
REFRESH: Final = "vital_refresh"

_AT_ONCE: Final = 3_500
_MOST_PARTS: Final = 5
_PLAIN: Final = re.compile(r"[A-Za-z0-9._~+/=-]*")


def operator_cookie(request: Request) -> str:
    """The name of the operator's cookie. Browsers keep cookies by host: the port keeps two dashboards of a machine apart."""
    return f"vital_operator_{request.url.port or request.url.scheme}"


def read_cookie(request: Request, name: str) -> str:
    """The value of a cookie of ours, put together from its parts; empty where there is none."""
    parts = [request.cookies.get(name, "")]
    while parts[-1] and len(parts) < _MOST_PARTS and (more := request.cookies.get(f"{name}.{len(parts)}")):
        parts.append(more)
    return "".join(parts)


def cookie_lines(name: str, value: str, *, path: str, secure: bool, max_age: int | None) -> list[str]:
    """Set-Cookie lines for a value of any length; for an empty one, those that take the cookie away."""
    if not _PLAIN.fullmatch(value) or len(value) > _AT_ONCE * _MOST_PARTS:
        raise Problem(
            502,
            "unusable-token",
            "The identity provider sent a token that no cookie can hold",
            hint="Put less into its claims.",
        )
    rest = f"; Path={path}; HttpOnly; SameSite=Lax{'; Secure' if secure else ''}"
    kept = f"; Max-Age={max_age}" if max_age is not None else ""
    lines = []
    for number in range(_MOST_PARTS):
        part = value[number * _AT_ONCE : (number + 1) * _AT_ONCE]
        full_name = f"{name}.{number}" if number else name
        lines.append(f"{full_name}={part}{kept if part else '; Max-Age=0'}{rest}")
        if not part and value:
            break  # the end is marked; parts of a longer value behind it are not read
    return lines
