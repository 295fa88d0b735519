"""Pictures as HTTP answers: with an ETag, and how long they may be kept."""

from urllib.parse import quote

from fastapi import Request
from fastapi.responses import Response

# Content never changes under an id, but whether one may see it does.
SHORT = "private, max-age=3600"
# For an address that names the content itself: what it shows today it shows for ever.
IMMUTABLE = "private, max-age=31536000, immutable"
ASK_AGAIN = "private, no-cache"


def not_modified(request: Request, tag: str, cache: str) -> Response | None:
    """The answer to who has it already; None for everybody else."""
    if request.headers.get("if-none-match") != f'"{tag}"':
        return None
    return Response(status_code=304, headers={"ETag": f'"{tag}"', "Cache-Control": cache})


def picture_answer(
    request: Request, content: bytes, media_type: str, tag: str, filename: str, cache: str = SHORT
) -> Response:
    """The bytes, shown in the page rather than saved."""
    found = not_modified(request, tag, cache)
    if found is not None:
        return found
    headers = {
        "ETag": f'"{tag}"',
        "Cache-Control": cache,
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(filename, safe='')}",
    }
    return Response(content, media_type=media_type, headers=headers)
