"""Styles, scripts and pictures: each at an address that changes with them, so that a browser keeps them for good."""

from __future__ import annotations

from fastapi import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from vital_tracking.web.parts import parts
from vital_tracking.web.responses import takes_gzip
from vital_tracking.web.route import api_router

routes = api_router(include_in_schema=False)


@routes.get("/static/{digest}/{name:path}", name="vital-static")
async def static_file(request: Request, digest: str, name: str) -> Response:
    """A file by its name. One of another version is sent as it is now, and not kept."""
    rendering = parts(request).rendering
    file = rendering.files.get(name)
    if file is None:
        raise HTTPException(404)
    keep = "public, max-age=31536000, immutable" if digest == rendering.digest else "no-cache"
    headers = {"Cache-Control": keep, "ETag": f'"{rendering.digest}"', "Vary": "Accept-Encoding"}
    if takes_gzip(request) and len(file.compressed) < len(file.body):
        return Response(file.compressed, media_type=file.media_type, headers={**headers, "Content-Encoding": "gzip"})
    return Response(file.body, media_type=file.media_type, headers=headers)
