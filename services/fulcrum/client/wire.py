"""The protocol without the socket: requests with retries, pages, streams and errors, as flows."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from fulcrum.client.connection import Connection
from fulcrum.client.events import EventDecoder
from fulcrum.client.problems import error_of, error_of_problem
from fulcrum.client.reading import read
from fulcrum.client.retries import ConnectionLost, Retries
from fulcrum.client.steps import (
    Body,
    Chunk,
    Close,
    Emit,
    FilePart,
    Flow,
    Open,
    Request,
    Response,
    Send,
    Sleep,
)
from fulcrum.domain.errors import InternalError, NotFound, ServiceUnavailable, Unauthenticated
from fulcrum.domain.records import Page

T = TypeVar("T")
PAGE_SIZE = 100


def path(*parts: str | int) -> str:
    """`/v1/` and the parts, which are words of the API, ids checked by `id_of`, and verbs after a colon."""
    return "/v1/" + "/".join(str(p) for p in parts)


@dataclass(frozen=True)
class Wire:
    """What every resource speaks through."""

    connection: Connection
    retries: Retries = field(default_factory=Retries)
    project_id: str | None = None

    def send(self, request: Request, keyed: bool = True) -> Flow[Response]:
        """The answer with status < 300, after retries. Raises the domain error of any other.

        `keyed=False` is for a POST that may be carried out twice: a key costs the gateway two transactions.
        """
        if request.method == "POST":
            if keyed:
                # One key for all attempts: the gateway answers the second one with what the first one did.
                request = replace(request, headers={**request.headers, "Idempotency-Key": uuid.uuid4().hex})
            return (yield from self._attempts(request, Send(request), repeatable=True))
        # A change of one version that arrived fails when it arrives again, and would look like somebody else's.
        repeatable = request.headers.get("If-Match", "*") == "*"
        return (yield from self._attempts(request, Send(request), repeatable))

    def _attempts(self, request: Request, step: Send | Open, repeatable: bool) -> Flow[Response]:
        n_done, lost = 0, False
        while True:
            error: Exception
            try:
                response: Response = yield step
            except ConnectionLost as caught:
                error = caught
                lost = lost or caught.sent
            else:
                if response.status < 300:
                    return response
                error = error_of(response)
            n_done += 1
            if lost and request.method == "DELETE" and isinstance(error, NotFound):
                return Response(204, {})  # the attempt whose answer was lost did it
            stale = isinstance(error, Unauthenticated) or (
                isinstance(error, ConnectionLost) and (repeatable or not error.sent)
            )
            wait = self.retries.wait_s(error, n_done, repeatable)
            if stale and n_done <= max(1, self.retries.n) and self.connection.renew():
                wait = 0.0
            if wait is None:
                raise self._shown(error) from error.__cause__
            if wait > 0:
                yield Sleep(wait)

    def _shown(self, error: Exception) -> Exception:
        if isinstance(error, ConnectionLost):
            return ServiceUnavailable(f"{self.connection.address.url} does not answer: {error}")
        return error

    def ask(
        self,
        kind: type[T],
        method: str,
        where: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Any = None,
        if_match: str | None = None,
        fields: Mapping[str, str] | None = None,
        files: tuple[FilePart, ...] = (),
        body: Body | None = None,
        keyed: bool = True,
    ) -> Flow[T]:
        """The answer read as `kind`."""
        headers = {} if if_match is None else {"If-Match": if_match}
        request = Request(method, where, _texts(params), headers, json, dict(fields or {}), files, body)
        response = yield from self.send(request, keyed)
        return read(kind, _content(request, response), f"{method} {where}")

    def do(self, method: str, where: str, *, json: Any = None, if_match: str | None = None) -> Flow[None]:
        """Sends what has no answer worth reading."""
        headers = {} if if_match is None else {"If-Match": if_match}
        yield from self.send(Request(method, where, headers=headers, json=json))

    def fetch(self, where: str, params: Mapping[str, Any] | None = None) -> Flow[bytes]:
        """The raw bytes of an answer."""
        return (yield from self.send(Request("GET", where, _texts(params)))).body

    def page(
        self,
        kind: type[T],
        where: str,
        params: Mapping[str, Any] | None = None,
        *,
        limit: int = PAGE_SIZE,
        cursor: str | None = None,
    ) -> Flow[Page[T]]:
        """One page of a list."""
        shown: type[Page[T]] = Page[kind]  # type: ignore[valid-type]  # a type made at run time
        return (
            yield from self.ask(
                shown, "GET", where, params={**(params or {}), "limit": limit, "cursor": cursor}
            )
        )

    def pages(self, kind: type[T], where: str, params: Mapping[str, Any] | None = None) -> Flow[None]:
        """Emits every item of a list, a page at a time and only as far as somebody reads."""
        cursor: str | None = None
        while True:
            page = yield from self.page(kind, where, params, cursor=cursor)
            for item in page.items:
                yield Emit(item)
            cursor = page.next_cursor
            if cursor is None:
                return

    def everything(self, kind: type[T], where: str, params: Mapping[str, Any] | None = None) -> Flow[list[T]]:
        """All items of a list, for flows that need them at once."""
        cursor: str | None = None
        found: list[T] = []
        while True:
            page = yield from self.page(kind, where, params, cursor=cursor)
            found.extend(page.items)
            cursor = page.next_cursor
            if cursor is None:
                return found

    def events(
        self, where: str, json: Any, item: Callable[[str, Any], Any], *, method: str = "POST"
    ) -> Flow[Any]:
        """Emits `item(name, content)` of each event; returns the content of `done`.

        Retried until the stream is open; one that breaks later, or ends without `done`, is ServiceUnavailable:
        half an answer must not pass for a whole one.
        """
        request = Request(method, where, headers={"Accept": "text/event-stream"}, json=json)
        # A stream that nobody reads to its end leaves nothing behind, so it may be asked for again.
        response = yield from self._attempts(request, Open(request), repeatable=True)
        if response.media_type != "text/event-stream":
            yield Close()
            raise InternalError(
                f"{method} {where} answered {response.media_type!r}: expected a stream of events"
            )
        decoder = EventDecoder()
        while True:
            try:
                chunk: bytes | None = yield Chunk()
            except ConnectionLost as lost:
                raise ServiceUnavailable(f"the stream of {where} broke: {lost}") from lost
            if chunk is None:
                raise ServiceUnavailable(f"the stream of {where} ended before it was done")
            for event in decoder.feed(chunk):
                try:
                    content = event.json()
                except ValueError:
                    raise InternalError(f"event {event.name!r} of {where} is not JSON") from None
                if event.name == "error":
                    yield Close()
                    raise error_of_problem(content)
                if event.name == "done":
                    yield Close()
                    return content
                yield Emit(item(event.name, content))


def _texts(params: Mapping[str, Any] | None) -> dict[str, str | list[str]]:
    def text(value: Any) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    return {
        k: [text(one) for one in v] if isinstance(v, list) else text(v)
        for k, v in (params or {}).items()
        if v is not None
    }


def _content(request: Request, response: Response) -> Any:
    try:
        return response.json()
    except ValueError:
        raise InternalError(
            f"{request.method} {request.path} answered {response.media_type or 'nothing'}: expected JSON"
        ) from None
