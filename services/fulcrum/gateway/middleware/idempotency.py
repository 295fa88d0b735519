"""`Idempotency-Key` on POST: who repeats a request after a lost answer gets that answer, and nothing is done twice."""

import hashlib
import re
import tempfile
from email.message import Message as MimeMessage
from typing import IO

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fulcrum.domain.errors import Conflict, FulcrumError, InvalidRequest
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.deps import run_in_thread
from fulcrum.gateway.services import Services
from fulcrum.store.database import Store
from fulcrum.store.idempotency import StoredResponse
from fulcrum.telemetry import logger

log = logger(__name__)

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_IN_MEMORY = 1 << 20  # of a request's body; larger ones wait in a temporary file
_MAX_KEPT = 8 << 20  # of an answer's body
_KEPT_HEADERS = ("content-type", "etag", "location")
# Answers that show a token or a login link, once: the store keeps hashes of secrets and never the secrets themselves.
SECRET_ANSWERS = re.compile(r"/v1/(tokens|users|users/[^/]+:invite)")
_WITHHELD = "withheld"  # stands among the kept headers of such an answer, in place of its body
_NOT_KEPT = frozenset({408, 425, 429, 499})  # the same request may work in a moment


class IdempotencyKeys:
    """Answers a repeated POST from the store. Streams and failures of ours are not kept: they run again."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request; raises IdempotencyConflict, InvalidRequest, and Conflict for a secret shown before."""
        asker: Asker | None = scope.get("state", {}).get("asker")
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        key = headers.get("idempotency-key")
        if key is None or asker is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if not _KEY.fullmatch(key):
            raise InvalidRequest(
                f"Idempotency-Key is {key[:80]!r}: 1 to 255 visible ASCII characters are allowed"
            )
        services: Services = scope["app"].state.services
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as body:
            fingerprint = await _read(scope, headers, receive, body)
            kept = await run_in_thread(_begin, services.store, asker.user.id, key, fingerprint)
            if kept is not None and _WITHHELD in kept.headers:
                raise Conflict(
                    f"the request with the Idempotency-Key {key[:80]!r} was carried out, and its answer held a secret "
                    "that is shown once: where it was lost, make another with another key"
                )
            if kept is not None:
                await _repeat(kept, send)
                return
            await self._first_time(scope, body, receive, send, services.store, asker.user.id, key)

    async def _first_time(
        self,
        scope: Scope,
        body: IO[bytes],
        receive: Receive,
        send: Send,
        store: Store,
        user_id: str,
        key: str,
    ) -> None:
        holds_secret = SECRET_ANSWERS.fullmatch(scope["path"]) is not None
        answer = _Answer(send, store, user_id, key, holds_secret)
        try:
            await self._app(scope, _replay(body, receive), answer.send)
        finally:
            if not answer.is_kept:
                # Shielded: when the caller hung up, this task is cancelled, and an open key would block their retry.
                with anyio.CancelScope(shield=True):
                    await run_in_thread(_abandon, store, user_id, key)


class _Answer:
    """Sends an answer on, and keeps it just before its end goes out."""

    def __init__(self, send: Send, store: Store, user_id: str, key: str, holds_secret: bool) -> None:
        self._send = send
        self._holds_secret = holds_secret
        self._store = store
        self._owner = (user_id, key)
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self.is_kept = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = Headers(raw=message["headers"])
            self._headers = {n: headers[n] for n in _KEPT_HEADERS if n in headers}
        elif message["type"] == "http.response.body" and self._may_be_kept():
            self._body += message.get("body", b"")
            if not message.get("more_body", False) and self._may_be_kept():
                kept = StoredResponse(self._status, bytes(self._body), self._headers)
                if self._holds_secret and self._status < 300:
                    kept = StoredResponse(self._status, b"", {_WITHHELD: "a secret"})
                # From here on the work is done: whatever happens to the keeping, it must not be done again, and the
                # caller gets this answer. A key that could not be closed refuses repeats until its lease ends.
                self.is_kept = True
                try:
                    with anyio.CancelScope(shield=True):
                        await run_in_thread(_finish, self._store, *self._owner, kept)
                except FulcrumError as error:
                    log.error("an answer was not kept", error=str(error))
        await self._send(message)

    def _may_be_kept(self) -> bool:
        return (
            self._status < 500
            and self._status not in _NOT_KEPT
            and len(self._body) <= _MAX_KEPT
            and not self._headers.get("content-type", "").startswith("text/event-stream")
        )


def _begin(store: Store, user_id: str, key: str, fingerprint: str) -> StoredResponse | None:
    with store.write() as tx:
        return tx.idempotency.begin(user_id, key, fingerprint)


def _finish(store: Store, user_id: str, key: str, kept: StoredResponse) -> None:
    with store.write() as tx:
        tx.idempotency.finish(user_id, key, kept.status, kept.body, kept.headers)


def _abandon(store: Store, user_id: str, key: str) -> None:
    with store.write() as tx:
        tx.idempotency.abandon(user_id, key)


async def _read(scope: Scope, headers: Headers, receive: Receive, body: IO[bytes]) -> str:
    """Fills `body`; the hash of all that makes this request what it is."""
    digest = hashlib.sha256()
    for part in (scope["method"], scope["path"], scope["query_string"].decode("latin-1")):
        digest.update(part.encode() + b"\0")
    # A client that repeats a form draws another boundary for it; without the boundary it is the same form.
    boundary = _boundary(headers.get("content-type", ""))
    waiting = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        more = message.get("more_body", False)
        body.write(chunk)
        if boundary:
            waiting = (waiting + chunk).replace(boundary, b"")
            cut = max(0, len(waiting) - len(boundary) + 1)
            chunk, waiting = waiting[:cut], waiting[cut:]
        digest.update(chunk)
    digest.update(waiting)
    body.seek(0)
    return digest.hexdigest()


def _boundary(content_type: str) -> bytes:
    if not content_type.lower().startswith("multipart/"):
        return b""
    parsed = MimeMessage()
    parsed["content-type"] = content_type
    return str(parsed.get_param("boundary", "")).encode("latin-1", "replace")


def _replay(body: IO[bytes], receive: Receive) -> Receive:
    done = False

    async def replayed() -> Message:
        nonlocal done
        if done:
            return await receive()  # the disconnect, when it comes
        chunk = body.read(64 << 10)
        done = not chunk
        return {"type": "http.request", "body": chunk, "more_body": bool(chunk)}

    return replayed


async def _repeat(kept: StoredResponse, send: Send) -> None:
    headers = MutableHeaders(kept.headers)
    headers["Idempotency-Replayed"] = "true"
    headers["Content-Length"] = str(len(kept.body))
    await send({"type": "http.response.start", "status": kept.status, "headers": headers.raw})
    await send({"type": "http.response.body", "body": kept.body})
