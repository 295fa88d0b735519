"""What an endpoint can ask for in its signature, and how it answers with a record.

An endpoint that only talks to the store is a plain `def`: FastAPI runs it in a thread. One that awaits the engine is
`async def` and reaches the store through `run_in_thread`.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Concatenate, Generic, ParamSpec, TypeVar

from fastapi import Depends, Header, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from fulcrum.domain.codec import to_json
from fulcrum.domain.errors import InvalidRequest, MissingPrecondition, Unauthenticated
from fulcrum.domain.records import Page
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.services import Services
from fulcrum.gateway.settings import Settings
from fulcrum.rpc.async_client import AsyncRemoteEngine
from fulcrum.store.artifacts import Artifacts
from fulcrum.store.database import Store

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def services_of(request: Request) -> Services:
    """What the application stands on."""
    found: Services = request.app.state.services
    return found


async def current_asker(request: Request) -> Asker:
    """Who asks; the guard before the routes has found out."""
    found = getattr(request.state, "asker", None)
    if not isinstance(found, Asker):
        raise Unauthenticated("log in, or send an API token as `Authorization: Bearer fct_...`")
    return found


async def request_id(request: Request) -> str:
    """Id of this request, for events of a stream and for logs."""
    found: str = request.state.request_id
    return found


@dataclass(frozen=True)
class PageParams:
    """How many items from where."""

    limit: int
    cursor: str | None


async def page_params(
    limit: Annotated[int, Query(ge=1, le=200, description="Most items of a page.")] = 50,
    cursor: Annotated[
        str | None, Query(max_length=512, description="`next_cursor` of the page before; none for the first.")
    ] = None,
) -> PageParams:
    """Reads `limit` and `cursor`."""
    return PageParams(limit, cursor)


_ETAG = re.compile(r'(?:W/)?"(\d{1,18})"')


async def expected_version(
    if_match: Annotated[
        str | None,
        Header(description="`ETag` of the record as you saw it, or `*` to overwrite whatever is there."),
    ] = None,
) -> int | None:
    """Version that the change was made for; None for `*`. Raises MissingPrecondition, InvalidRequest."""
    if if_match is None:
        raise MissingPrecondition(
            'send `If-Match` with the ETag of the record as you saw it, such as If-Match: "1"'
        )
    if if_match.strip() == "*":
        return None
    found = _ETAG.fullmatch(if_match.strip())
    if found is None:
        raise InvalidRequest(f'If-Match is {if_match[:80]!r}: expected one ETag such as "1", or *')
    return int(found[1])


# Coroutines, because FastAPI runs plain functions in a thread: a hop for nothing.
async def _services(request: Request) -> Services:
    return services_of(request)


async def _settings(request: Request) -> Settings:
    return services_of(request).settings


async def _store(request: Request) -> Store:
    return services_of(request).store


async def _artifacts(request: Request) -> Artifacts:
    return services_of(request).artifacts


async def _engine(request: Request) -> AsyncRemoteEngine:
    return services_of(request).engine


ServicesDep = Annotated[Services, Depends(_services)]
SettingsDep = Annotated[Settings, Depends(_settings)]
StoreDep = Annotated[Store, Depends(_store)]
ArtifactsDep = Annotated[Artifacts, Depends(_artifacts)]
EngineDep = Annotated[AsyncRemoteEngine, Depends(_engine)]
AskerDep = Annotated[Asker, Depends(current_asker)]
PageDep = Annotated[PageParams, Depends(page_params)]
IfMatch = Annotated[int | None, Depends(expected_version)]
RequestId = Annotated[str, Depends(request_id)]
ProjectParam = Annotated[
    str | None, Query(alias="project_id", max_length=64, description="Project; by default your oldest one.")
]


class PageOf(BaseModel, Generic[T]):
    """OpenAPI's view of `Page`: `response_model=PageOf[ImageRecord]`."""

    items: list[T]
    next_cursor: str | None


def etag(record: Any) -> str:
    """`"3"` for version 3 of a record."""
    return f'"{record.version}"'


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> JSONResponse:
    """A domain value in its one JSON form, with the ETag where it has versions."""
    sent = dict(headers or {})
    if hasattr(value, "version"):
        sent.setdefault("ETag", etag(value))
    return JSONResponse(to_json(value), status, sent)


def answer_page(page: Page[Any]) -> JSONResponse:
    """A page of domain values."""
    return JSONResponse(to_json(page))


async def run_in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Result of a blocking call, without blocking the event loop. Cancelled, it leaves the call to end by itself."""
    # Not anyio.to_thread: its queue is written in Python, and a thread that slept takes twice as long to wake.
    return await asyncio.to_thread(function, *args, **kwargs)


async def look(
    store: Store, function: Callable[Concatenate[Store, P], R], *args: P.args, **kwargs: P.kwargs
) -> R:
    """Result of `function(store, ...)`, which reads a few rows and writes nothing.

    To a thread and back is as long as the reading itself, where the database is a file of which the event loop has a
    reader of its own.
    """
    if store.answers_at_once:
        return function(store, *args, **kwargs)
    return await run_in_thread(function, store, *args, **kwargs)
