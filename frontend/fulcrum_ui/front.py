"""The document that a browser opens: Streamlit's own, which is told where its server is, and carries our name.

Without it each page that is opened by its address asks below that address first: two requests that fail, two errors in
the browser's console, and a round trip before the first paint.
"""

from pathlib import Path

import streamlit
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

# Pages are one segment below the root, wherever a proxy put it: what is beside them is the root.
_TOLD = '<script>window.__streamlit={BACKEND_BASE_URL:new URL(".",window.location.href).href}</script>'
_HEADERS = {"Cache-Control": "no-cache"}  # a new version names new files


def document() -> str:
    """The page. Raises RuntimeError where Streamlit's is not the one that this was written for."""
    found = (Path(streamlit.__file__).parent / "static" / "index.html").read_text("utf-8")
    for ours, theirs in (
        (f"<head>{_TOLD}", "<head>"),
        ("<title>Fulcrum</title>", "<title>Streamlit</title>"),
    ):
        if found.count(theirs) != 1:
            raise RuntimeError(f"Streamlit {streamlit.__version__} has no single {theirs} in its page")
        found = found.replace(theirs, ours)
    return found


def routes(pages: tuple[str, ...]) -> list[Route]:
    """For the root and each page."""
    content = document().encode()

    async def answer(_: Request) -> Response:
        # A new one each time: middleware that compresses writes into the headers it is given.
        return HTMLResponse(content, headers=_HEADERS)

    return [Route(f"/{page}", answer) for page in ("", *pages)]
