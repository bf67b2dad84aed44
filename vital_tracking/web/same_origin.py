"""Whether a request comes from a page of ours: what a browser says of itself, which no page of another site can change."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import Request

from vital_tracking.web.problems import forbidden
from vital_tracking.web.settings import WebSettings


def check_same_origin(request: Request, settings: WebSettings) -> None:
    """Problem 403 for a request of another site. A browser says so by Sec-Fetch-Site, an older one by Origin alone."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        if site == "same-origin":
            return
    elif (origin := request.headers.get("origin")) is not None and origin in origins(request, settings):
        return
    raise forbidden(
        "The request does not come from a page of this dashboard.",
        "Use its own forms, or send the token as Authorization: Bearer. Behind a proxy set VITAL_PUBLIC_URL.",
    )


def origins(request: Request, settings: WebSettings) -> set[str]:
    """Where pages of ours are served: what the request was sent to, and what the settings say."""
    found = {f"{request.url.scheme}://{request.url.netloc}"}
    if settings.public_url:
        parts = urlsplit(settings.public_url)
        found.add(f"{parts.scheme}://{parts.netloc}")
    return found


def is_https(request: Request, settings: WebSettings) -> bool:
    """Whether the browser came by https, perhaps to a proxy."""
    return request.url.scheme == "https" or (settings.public_url or "").startswith("https://")


def safe_next(target: str, home: str) -> str:
    """Where to go after signing in: a path of ours, else the first page. Another site, however it is written, is none.

    Browsers read a backslash as a slash, pass over tabs and line breaks, and take what begins with two slashes for a host.
    """
    if not target.startswith(home) or target.startswith("//") or not target.isprintable() or "\\" in target:
        return home
    parts = urlsplit(target)
    if parts.scheme or parts.netloc or ".." in parts.path.split("/") or "//" in parts.path:
        return home
    sign_in = f"{home}sign-in"
    return home if parts.path.startswith(sign_in) else target
