"""`/ui`: the viewer's live pages and their assets.

The pages are empty shells that fetch their content from the API. They need no API key themselves; if the API requires
one, the page asks the user for it. The content security policy allows only the viewer's files and this origin's API.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Annotated

from fastapi import APIRouter, Header, Path, Response
from starlette.responses import RedirectResponse

from ...core.errors import UnknownName
from .page import asset

router = APIRouter(prefix="/ui", include_in_schema=False)
root = APIRouter(include_in_schema=False)

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
A_YEAR_S = 31_536_000
KINDS = {
    "app.js": "text/javascript; charset=utf-8",
    "app.css": "text/css; charset=utf-8",
    "THIRD_PARTY.txt": "text/plain; charset=utf-8",
}


@root.get("/")
async def start() -> Response:
    """The server's address without a path leads to the viewer."""
    return RedirectResponse("/ui")


@router.get("")
@router.get("/")
@router.get("/ask")
@router.get("/compare")
async def page() -> Response:
    """The list of runs, the form for a question, or two runs side by side."""
    return _shell()


@router.get("/runs/{run_id}")
async def run_page(run_id: Annotated[str, Path(max_length=200)]) -> Response:
    """A live run."""
    return _shell()


@router.get("/assets/{name}")
async def file(
    name: str, v: str = "", if_none_match: Annotated[str | None, Header(alias="If-None-Match")] = None
) -> Response:
    """A built asset: immutable under its version (`v`), otherwise revalidated by its ETag."""
    if name not in KINDS:
        raise UnknownName("file", name)
    version = _version(name)
    keep = f"public, max-age={A_YEAR_S}, immutable" if v == version else "no-cache"
    headers = {**HEADERS, "Cache-Control": keep, "ETag": f'"{version}"'}
    if if_none_match == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(asset(name), media_type=KINDS[name], headers=headers)


def _shell() -> Response:
    html = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>reason</title>\n'
        '<link rel="icon" href="data:,">\n'
        f'<link rel="stylesheet" href="/ui/assets/app.css?v={_version("app.css")}">\n'
        f'<script src="/ui/assets/app.js?v={_version("app.js")}" defer></script>\n</head>\n'
        '<body>\n<div id="app"></div>\n<noscript><main>This page needs its script.</main></noscript>\n'
        "</body>\n</html>\n"
    )
    return Response(html, media_type="text/html; charset=utf-8", headers={**HEADERS, "Cache-Control": "no-cache"})


@cache
def _version(name: str) -> str:
    return hashlib.sha256(asset(name).encode()).hexdigest()[:16]
