"""The way in and out: a page for people, a link that works once for the operator."""

from __future__ import annotations

import logging
from typing import Annotated

from fastapi import Form, Query
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from vital_tracking.web.cookies import ACCESS, operator_cookie, read_cookie
from vital_tracking.web.identity import TokenRefused
from vital_tracking.web.parts import Parts, parts
from vital_tracking.web.problems import Problem, forbidden
from vital_tracking.web.rendering import home
from vital_tracking.web.route import page_router
from vital_tracking.web.same_origin import check_same_origin, safe_next
from vital_tracking.web.sessions import end_session, keep_operator, keep_session
from vital_tracking.web.supabase_auth import SignInFailed

_log = logging.getLogger("vital_tracking")

routes = page_router()

_LONGEST_ADDRESS = 320
_LONGEST_PASSWORD = 1024
_LONGEST_PATH = 2048


@routes.get("/sign-in", name="vital-sign-in")
def sign_in_page(request: Request, next: Annotated[str, Query(max_length=_LONGEST_PATH)] = "") -> Response:  # noqa: A002
    """The form."""
    return _form(request, parts(request), next)


@routes.post("/sign-in", name="vital-sign-in-post")
async def sign_in(
    request: Request,
    email: Annotated[str, Form(max_length=_LONGEST_ADDRESS)] = "",
    password: Annotated[str, Form(max_length=_LONGEST_PASSWORD)] = "",
    next: Annotated[str, Form(max_length=_LONGEST_PATH)] = "",  # noqa: A002
) -> Response:
    """Sign in with a password. An unknown address and a wrong password get the same answer."""
    with_parts = parts(request)
    check_same_origin(request, with_parts.settings)
    if with_parts.auth is None:
        raise Problem(404, "no-sign-in", "Nobody signs in here", hint="Set SUPABASE_URL and SUPABASE_ANON_KEY.")
    address = email.strip().lower()
    place = request.client.host if request.client else "unknown"
    await with_parts.limits.check_sign_in(address, place)
    try:
        if not address or not password:
            raise SignInFailed
        tokens = await with_parts.auth.sign_in(email.strip(), password)
    except SignInFailed:
        await with_parts.limits.sign_in_failed(address, place)
        return _form(request, with_parts, next, failed=True, email=email)
    try:
        await with_parts.tokens.verify(tokens.access, by_cookie=True)
    except TokenRefused as refused:
        raise _unverifiable(refused) from None
    keep_session(request, tokens)
    return _to(safe_next(next, home(request)))


@routes.post("/sign-out", name="vital-sign-out")
async def sign_out(request: Request) -> Response:
    """Forget the session here, and end it at Supabase Auth."""
    with_parts = parts(request)
    check_same_origin(request, with_parts.settings)
    access = read_cookie(request, ACCESS)
    if access and with_parts.auth is not None:
        await with_parts.auth.sign_out(access)
    if with_parts.operator is not None and with_parts.operator.knows(read_cookie(request, operator_cookie(request))):
        with_parts.operator.end()
    end_session(request)
    response = _to(f"{home(request)}sign-in")
    response.headers["Clear-Site-Data"] = '"cache"'
    return response


@routes.get("/open", name="vital-open")
def open_by_link(request: Request, token: Annotated[str, Query(max_length=128)] = "") -> Response:
    """Let the operator in by the link that the console shows."""
    link = parts(request).operator
    session = link.open(token) if link is not None else None
    if session is None:
        raise forbidden(
            "This link has been used, or is none of this dashboard's.",
            "Each link works once: start vital-tracking dashboard again for another.",
        )
    keep_operator(request, session)
    return _to(home(request))


def _unverifiable(refused: TokenRefused) -> Problem:
    """The password was right, and what Supabase Auth gave for it is not what the settings lead us to expect."""
    _log.error(
        "Supabase Auth signs people in, but its tokens are refused: %s Is SUPABASE_JWT_SECRET the project's (where it signs with "
        "a shared secret), and VITAL_JWT_ISSUER the `iss` of its tokens?",
        refused.detail,
    )
    return Problem(
        502,
        "tokens-not-verifiable",
        "Your password is right, but the installation cannot verify it",
        detail="Its settings do not fit the tokens of Supabase Auth.",
        hint="Tell an operator: the log says which settings to look at.",
    )


def _to(path: str) -> Response:
    return RedirectResponse(path, 303, headers={"Cache-Control": "no-store"})


def _form(request: Request, with_parts: Parts, target: str, *, failed: bool = False, email: str = "") -> Response:
    response = with_parts.rendering.page(
        request,
        "sign_in.html",
        status=401 if failed else 200,
        next=safe_next(target, home(request)),
        failed=failed,
        email=email,
        by_password=with_parts.auth is not None,
        by_link=with_parts.operator is not None,
    )
    response.headers["Cache-Control"] = "no-store"
    return response
