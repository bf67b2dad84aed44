"""A browser's session: the cookies that an answer sets or takes away."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request

from vital_tracking.web.cookies import ACCESS, REFRESH, cookie_lines, operator_cookie
from vital_tracking.web.parts import parts
from vital_tracking.web.rendering import home
from vital_tracking.web.same_origin import is_https
from vital_tracking.web.supabase_auth import Tokens

_REFRESH_FOR_S: Final = 7 * 86_400
"""After a week without a visit people sign in again."""


def keep_session(request: Request, tokens: Tokens) -> None:
    """Let the answer bring the tokens to the browser. The access token stays as long as the refresh token, to be renewed."""
    _set(request, ACCESS, tokens.access, _REFRESH_FOR_S)
    _set(request, REFRESH, tokens.refresh, _REFRESH_FOR_S)


def keep_operator(request: Request, session: str) -> None:
    """Let the answer bring the operator's secret to the browser, until that is closed."""
    _set(request, operator_cookie(request), session, None)


def end_session(request: Request) -> None:
    """Let the answer take the cookies away."""
    for name in (ACCESS, REFRESH, operator_cookie(request)):
        _set(request, name, "", None)


def _set(request: Request, name: str, value: str, max_age: int | None) -> None:
    lines = cookie_lines(
        name, value, path=home(request), secure=is_https(request, parts(request).settings), max_age=max_age
    )
    kept = getattr(request.state, "vital_cookies", [])
    request.state.vital_cookies = [*kept, *lines]
