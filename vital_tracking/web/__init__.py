"""The face: an API and pages over the read side, for whoever signs in, with row level security deciding what they see.

`create_app()` is a FastAPI of its own, `router()` the same for a FastAPI that is there already. Both need the extra `web`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vital_tracking.web.app import create_app, router
    from vital_tracking.web.settings import WebSettings

__all__ = ["WebSettings", "create_app", "router"]

_PARTS = ("fastapi", "starlette", "jinja2", "markupsafe", "jwt", "cryptography", "limits", "multipart", "uvicorn")


def __getattr__(name: str) -> object:
    """Imported when first asked for, so that the package needs none of this; what is missing is named."""
    import importlib

    from vital_tracking.errors import MissingExtra

    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "settings" if name == "WebSettings" else "app"
    try:
        found: object = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in _PARTS:
            raise
        raise MissingExtra("web", "Serving the API and the pages") from None
    return found
