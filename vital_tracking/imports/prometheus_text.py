"""What a page of metrics says, in Prometheus' text format: https://prometheus.io/docs/instrumenting/exposition_formats/"""

from __future__ import annotations

import re
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Final, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from vital_tracking.core.urls import split_url
from vital_tracking.errors import VitalError

TIMEOUT_S: Final = 10.0

_LARGEST: Final = 64 << 20
_LABEL: Final = re.compile(r'\s*([a-zA-Z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')
_SAMPLE: Final = re.compile(r"([a-zA-Z_:][\w:]*)\s*(?:\{(.*)\})?\s+(\S+)(?:\s+\S+)?\s*\Z")
_ESCAPED: Final = re.compile(r"\\(.)")


class Sample(NamedTuple):
    """A value by its name and labels."""

    name: str
    labels: Mapping[str, str]
    value: Decimal


def fetch(url: str, *, token: str | None = None, timeout_s: float = TIMEOUT_S) -> str:
    """The text at a URL, which must answer as a whole within `timeout_s`.

    `token` is sent as a bearer token; without it user and password of the URL, where it has them. Raises
    VitalError, which names no more of the URL than its host and path.
    """
    parts = split_url(url)
    if parts is None:
        raise VitalError("This is no address of metrics: it looks like http://localhost:4000/metrics")
    where = source_of(url)
    user, at, host = parts.netloc.rpartition("@")
    headers = {"Accept": "text/plain"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    elif at:
        headers["Authorization"] = f"Basic {b64encode(unquote(user).encode()).decode()}"
    plain = parts._replace(netloc=host, fragment="").geturl()
    until = time.monotonic() + timeout_s
    pieces: list[bytes] = []
    try:
        with urlopen(Request(plain, headers=headers), timeout=timeout_s) as answer:  # noqa: S310 - http and https alone
            size = 0
            while piece := answer.read1(1 << 16):
                pieces.append(piece)
                size += len(piece)
                if size > _LARGEST or time.monotonic() > until:
                    break
            else:
                return b"".join(pieces).decode("utf-8", "replace")
    except HTTPError as error:
        error.close()
        why = " (give the proxy's key)" if error.code in (401, 403) else ""
        raise VitalError(f"{where} answers with HTTP {error.code}{why}.") from None
    except (URLError, OSError, ValueError) as error:
        late = isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError)
        if not late:
            raise VitalError(f"{where} cannot be reached ({type(error).__name__}).") from None
    raise VitalError(f"{where} did not answer as a whole within {timeout_s:g} s.")


def source_of(url: str) -> str:
    """A URL without user, password, query and fragment."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def samples(text: str) -> Iterator[Sample]:
    """Every sample of a page; comments and what is no finite number are left out, as NaN of a gauge without a value is."""
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        found = _SAMPLE.match(line.strip())
        if found is None:
            continue
        try:
            value = Decimal(found[3])
        except InvalidOperation:
            continue
        if value.is_finite():
            labels = {name: _ESCAPED.sub(_unescaped, text) for name, text in _LABEL.findall(found[2] or "")}
            yield Sample(found[1], labels, value)


def _unescaped(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]
