"""`/v1/sessions`: a person's log of hypotheses, notes and answers. Colleagues read it, its owner writes it."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response

from fulcrum.gateway.deps import (
    AskerDep,
    IfMatch,
    PageDep,
    PageOf,
    ProjectParam,
    StoreDep,
    answer,
    answer_page,
)
from fulcrum.gateway.schemas import PathId
from fulcrum.gateway.sessions import service
from fulcrum.gateway.sessions.schemas import NewEntry, NewSession, SessionChange, SessionEntry, SessionRecord

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])


@router.post("", status_code=201, response_model=SessionRecord)
def begin_session(body: NewSession, asker: AskerDep, store: StoreDep) -> JSONResponse:
    """Begins a session; pass its id with questions, and their answers are logged in it."""
    return answer(service.begin(store, asker, body), 201)


@router.get("", response_model=PageOf[SessionRecord])
def list_sessions(
    asker: AskerDep,
    store: StoreDep,
    page: PageDep,
    project_id: ProjectParam = None,
    created_by: Annotated[str | None, Query(max_length=64, description="Sessions of this user only.")] = None,
) -> JSONResponse:
    """Sessions of a project, newest first."""
    return answer_page(service.page(store, asker, project_id, created_by, page))


@router.get("/{session_id}", response_model=SessionRecord)
def get_session(session_id: PathId, asker: AskerDep, store: StoreDep) -> JSONResponse:
    """One session."""
    return answer(service.get(store, asker, session_id))


@router.patch("/{session_id}", response_model=SessionRecord)
def change_session(
    session_id: PathId, body: SessionChange, asker: AskerDep, store: StoreDep, expected: IfMatch
) -> JSONResponse:
    """Changes the title, for the owner."""
    return answer(service.change(store, asker, session_id, body, expected))


@router.delete("/{session_id}", status_code=204)
def delete_session(session_id: PathId, asker: AskerDep, store: StoreDep, expected: IfMatch) -> Response:
    """Hides the session, for the owner. Results that it names stay."""
    service.remove(store, asker, session_id, expected)
    return Response(status_code=204)


@router.post("/{session_id}/entries", status_code=201, response_model=SessionEntry)
def write_entry(session_id: PathId, body: NewEntry, asker: AskerDep, store: StoreDep) -> JSONResponse:
    """Writes a hypothesis or a note, for the owner; it can never be changed."""
    return answer(service.write(store, asker, session_id, body), 201)


@router.get("/{session_id}/entries", response_model=PageOf[SessionEntry])
def list_entries(session_id: PathId, asker: AskerDep, store: StoreDep, page: PageDep) -> JSONResponse:
    """Lines of a session, newest first."""
    return answer_page(service.entries(store, asker, session_id, page))
