"""How pages are drawn: templates in which everything is escaped, and files that a browser keeps until they change."""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from vital_tracking.web.responses import gzipped
from vital_tracking.web.tables import table

_PACKAGE: Final = "vital_tracking.web"
_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".woff2": "font/woff2"}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file as it is sent, and as it is sent to whoever takes gzip."""

    media_type: str
    body: bytes
    compressed: bytes


class Rendering:
    """The templates of `templates/` and the files of `static/`, read once."""

    def __init__(self) -> None:
        self.files = _static_files()
        digest = hashlib.blake2b(digest_size=8)
        for name, file in sorted(self.files.items()):
            digest.update(name.encode() + b"\0" + file.body)
        self.digest = digest.hexdigest()
        """Stands in the address of every static file, and changes with any of them: what has an address never changes."""
        self.environment = Environment(
            loader=PackageLoader(_PACKAGE, "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.environment.globals["table"] = table

    def page(self, request: Request, template: str, /, *, status: int = 200, **values: Any) -> HTMLResponse:
        """A page. Besides `values` its template knows `path(name, **parameters)`, `static(name)` and `request`."""

        def path(name: str, /, **parameters: Any) -> str:
            return path_of(request, name, **parameters)

        def static(name: str) -> str:
            if name not in self.files:
                raise LookupError(f"There is no static file {name}")
            return path_of(request, "vital-static", digest=self.digest, name=name)

        text = self.environment.get_template(template).render(request=request, path=path, static=static, **values)
        return HTMLResponse(text, status)


def path_of(request: Request, name: str, /, **parameters: Any) -> str:
    """The path of a route of ours by its name, behind any prefix and proxy; without a host, which a client could make up."""
    return request.url_for(name, **parameters).path


def home(request: Request) -> str:
    """The path that all of ours begin with."""
    return path_of(request, "vital-sign-in").removesuffix("sign-in")


@cache
def _static_files() -> dict[str, StaticFile]:
    found = {}
    folders = [("", resources.files(_PACKAGE) / "static")]
    for prefix, folder in folders:
        for entry in folder.iterdir():
            name = f"{prefix}{entry.name}"
            if entry.is_dir():
                folders.append((f"{name}/", entry))
            elif not entry.name.startswith("."):
                suffix = name[name.rfind(".") :]
                media_type = _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
                body = entry.read_bytes()
                found[name] = StaticFile(media_type, body, gzipped(body, 9))
    return found
