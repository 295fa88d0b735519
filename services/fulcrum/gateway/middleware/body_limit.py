"""Bodies are counted while they stream in, so that a large one is refused early and never held in memory."""

import asyncio
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fulcrum.domain.errors import Cancelled, InvalidRequest, PayloadTooLarge
from fulcrum.gateway.settings import Settings

_PATIENCE_S = (
    30.0  # without a byte of the body; who sends nothing must not hold a connection and a file for ever
)
_MULTIPART_ROOM = 64 << 10  # boundaries and small fields around the files

# Which setting limits the body of a POST; all other paths take JSON.
UPLOADS: dict[re.Pattern[str], str] = {
    re.compile(r"/v1/images"): "max_upload_bytes",
    re.compile(r"/v1/saes:upload"): "max_weights_bytes",
    re.compile(r"/v1/datasets/[^/:]+:upload"): "max_archive_bytes",
}


class BodyLimit:
    """Raises PayloadTooLarge from `receive` as soon as too much has come, Cancelled when nothing comes any more."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request; raises PayloadTooLarge, InvalidRequest, Cancelled."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope)
        _check_announced(Headers(scope=scope).get("content-length"), limit)
        received, whole = 0, False

        async def counted() -> Message:
            nonlocal received, whole
            if whole:  # what comes now is the end of the connection, and may take its time
                return await receive()
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    message = await receive()
            except TimeoutError:
                raise Cancelled(f"the body stopped coming: nothing for {_PATIENCE_S} s") from None
            whole = not message.get("more_body", False)
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > limit:
                    raise PayloadTooLarge(f"the body has more than {limit} bytes, which is the limit here")
            return message

        await self._app(scope, counted, send)

    def _limit(self, scope: Scope) -> int:
        settings = (s for path, s in UPLOADS.items() if path.fullmatch(scope["path"]))
        setting = next(settings, None) if scope["method"] == "POST" else None
        if setting is None:
            return self._settings.max_body_bytes
        allowed: int = getattr(self._settings, setting)
        return allowed + _MULTIPART_ROOM


def _check_announced(length: str | None, limit: int) -> None:
    if length is None:
        return
    if not length.isascii() or not length.isdigit():
        raise InvalidRequest(f"Content-Length is {length[:40]!r}: expected a number of bytes")
    if int(length) > limit:
        raise PayloadTooLarge(f"the body has {length} bytes; allowed are {limit}")
