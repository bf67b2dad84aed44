"""What routes depend on: who asks, whether they may ask now, and the store as they see it.

What somebody may see is decided by the database alone. Nothing here looks at rows.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final

from fastapi import Depends
from fastapi.security import APIKeyCookie, HTTPBearer
from starlette.requests import Request

from vital_tracking.queries.access import SEE_OTHERS
from vital_tracking.stores.protocol import Store
from vital_tracking.web.cookies import ACCESS, REFRESH, operator_cookie, read_cookie
from vital_tracking.web.identity import Identity, Kind, TokenRefused
from vital_tracking.web.parts import Parts, parts
from vital_tracking.web.problems import SignInNeeded, forbidden
from vital_tracking.web.rate_limits import RateAsker
from vital_tracking.web.same_origin import check_same_origin
from vital_tracking.web.sessions import end_session, keep_session
from vital_tracking.web.supabase_auth import SignInFailed

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""

_LONGEST: Final = 255


_TOKEN: Final = HTTPBearer(
    scheme_name="token",
    bearerFormat="JWT",
    auto_error=False,
    description="A token of Supabase Auth, or of your issuer.",
)
_SESSION: Final = APIKeyCookie(
    name=ACCESS,
    scheme_name="session",
    auto_error=False,
    description="Set by the sign-in page; changes need its origin.",
)


async def identity(
    request: Request,
    _token: Annotated[Any, Depends(_TOKEN)] = None,  # both for OpenAPI alone
    _session: Annotated[Any, Depends(_SESSION)] = None,
) -> Identity:
    """Who asks, counted among their requests. What a browser sends by itself changes something only from a page of ours."""
    with_parts = parts(request)
    who = await _recognised(request, with_parts)
    request.state.vital_identity = who
    if who.by_cookie and request.method not in SAFE:
        check_same_origin(request, with_parts.settings)
    if who.kind is Kind.user and who.subject is not None:
        asker = RateAsker(who.subject, [one.organization_id for one in await with_parts.memberships(who)])
        if getattr(request.state, "vital_refreshes", False):
            request.state.vital_uncounted = asker
            await with_parts.limits.count_refresh(asker)
        else:
            await with_parts.limits.count(asker)
    return who


async def refreshes(request: Request) -> None:
    """A dependency of pages that may be told that nothing has changed: then they do not count as asked for.

    It stands before all that asks who it is. Such a page is counted by `made` where it has to be made.
    """
    request.state.vital_refreshes = "if-none-match" in request.headers


def made(request: Request) -> None:
    """Count a page that has changed, if it is not counted yet; Problem 429 where there were too many. Called in a thread."""
    asker: RateAsker | None = getattr(request.state, "vital_uncounted", None)
    if asker is not None:
        parts(request).limits.count_at_once(asker)


async def _recognised(request: Request, with_parts: Parts) -> Identity:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme:
        if scheme.lower() != "bearer" or not token.strip():
            raise TokenRefused("Authorization is not of the kind Bearer.")
        return await with_parts.tokens.verify(token.strip())
    if with_parts.operator is not None and with_parts.operator.knows(read_cookie(request, operator_cookie(request))):
        return Identity(Kind.operator, by_cookie=True)
    if access := read_cookie(request, ACCESS):
        try:
            return await with_parts.tokens.verify(access, by_cookie=True)
        except TokenRefused as refused:
            if not refused.expired:
                raise
    return await _refreshed(request, with_parts, expired=bool(access))


async def _refreshed(request: Request, with_parts: Parts, *, expired: bool) -> Identity:
    """The same user with new tokens, which the answer brings to the browser."""
    refresh = read_cookie(request, REFRESH)
    if refresh and with_parts.auth is not None:
        try:
            tokens = await with_parts.auth.refresh(refresh)
            who = await with_parts.tokens.verify(tokens.access, by_cookie=True)
        except (SignInFailed, TokenRefused):
            end_session(request)
        else:
            keep_session(request, tokens)
            return who
    if expired:
        raise SignInNeeded("The session has expired.", error="invalid_token")
    raise SignInNeeded


async def reader(request: Request, who: Annotated[Identity, Depends(identity)]) -> Store:
    """The store as whoever asks sees it, with a limit to how long it may take."""
    with_parts = parts(request)
    if who.kind is Kind.operator:
        return with_parts.store.within(with_parts.settings.answer_s)
    if who.kind is not Kind.user:
        raise forbidden("The monitoring token opens the metrics, and nothing else.")
    return with_parts.as_user(who)


async def operator(who: Annotated[Identity, Depends(identity)]) -> Identity:
    """Whoever asks, if it is the operator: for what concerns the installation and no organization."""
    if not who.is_operator:
        raise forbidden("This is for the operator of the installation.", "Start: vital-tracking dashboard")
    return who


async def monitor(who: Annotated[Identity, Depends(identity)]) -> Identity:
    """Whoever asks, if it is the operator or brings the monitoring token."""
    if who.kind is Kind.user:
        raise forbidden("This is for monitoring.", "Send the token that VITAL_MONITORING_TOKEN names.")
    return who


Asker = Annotated[Identity, Depends(identity)]
Reader = Annotated[Store, Depends(reader)]


def reads(what: str) -> Callable[[Request, Identity], Coroutine[Any, Any, None]]:
    """A dependency of routes that may show other people's data: a line for each organization whose admin or auditor reads.

    The operator leaves one, too. A plain member is shown what is his own, and leaves none; neither does an admin who asks
    for himself.
    """

    async def line(request: Request, who: Asker) -> None:
        with_parts = parts(request)
        organization, user = _asked(request, "organization"), _asked(request, "user")
        if who.kind is Kind.operator:
            await with_parts.audit.write("read", what, who, organization, user)
        if who.kind is not Kind.user or user == who.subject:
            return
        for one in await with_parts.memberships(who):
            if one.role in SEE_OTHERS and organization in (None, one.organization_id):
                await with_parts.audit.write("read", what, who, one.organization_id, user)

    return line


async def refused(request: Request) -> None:
    """Write down what somebody who is known was refused. Nobody unknown can fill the audit."""
    who: Identity | None = getattr(request.state, "vital_identity", None)
    if who is None or who.kind is not Kind.user:
        return
    route = getattr(request.scope.get("route"), "path", "")
    organization = _asked(request, "organization")
    await parts(request).audit.write("refused", f"{request.method} {route}"[:_LONGEST], who, organization)


def _asked(request: Request, name: str) -> str | None:
    """What a request names, if it can be a name."""
    value = request.path_params.get(name) or request.query_params.get(name)
    return value if isinstance(value, str) and 0 < len(value) <= _LONGEST and value.isprintable() else None
