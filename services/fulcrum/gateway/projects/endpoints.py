"""Projects and their members."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from fulcrum.domain.records import Member, Project
from fulcrum.gateway.deps import AskerDep, IfMatch, PageDep, PageOf, StoreDep, answer, answer_page
from fulcrum.gateway.projects import service
from fulcrum.gateway.projects.schemas import MemberBody, ProjectBody

router = APIRouter(prefix="/v1/projects", tags=["projects"])


@router.get("", response_model=PageOf[Project])
def list_projects(asker: AskerDep, store: StoreDep, page: PageDep) -> JSONResponse:
    """The projects that the asker may see, newest first."""
    return answer_page(service.list_own(store, asker, page))


@router.post("", status_code=201, response_model=Project)
def create_project(body: ProjectBody, asker: AskerDep, store: StoreDep) -> JSONResponse:
    """Begins a project; the asker becomes its admin."""
    return answer(service.create(store, asker, body.name), 201)


@router.get("/{project_id}", response_model=Project)
def get_project(project_id: str, asker: AskerDep, store: StoreDep) -> JSONResponse:
    """One project."""
    return answer(service.get(store, asker, project_id))


@router.patch("/{project_id}", response_model=Project)
def rename_project(
    project_id: str, body: ProjectBody, asker: AskerDep, store: StoreDep, version: IfMatch
) -> JSONResponse:
    """Renames a project."""
    return answer(service.rename(store, asker, project_id, version, body.name))


@router.get("/{project_id}/members", response_model=PageOf[Member])
def list_members(project_id: str, asker: AskerDep, store: StoreDep, page: PageDep) -> JSONResponse:
    """Who may do what in a project."""
    return answer_page(service.list_members(store, asker, project_id, page))


@router.get("/{project_id}/members/{user_id}", response_model=Member)
def get_member(project_id: str, user_id: str, asker: AskerDep, store: StoreDep) -> JSONResponse:
    """What one person may do in a project."""
    return answer(service.get_member(store, asker, project_id, user_id))


@router.put("/{project_id}/members/{user_id}", response_model=Member)
def put_member(
    project_id: str, user_id: str, body: MemberBody, asker: AskerDep, store: StoreDep
) -> JSONResponse:
    """Gives a person a role, new or another one. The last admin of a project stays admin."""
    return answer(service.put_member(store, asker, project_id, user_id, body.role))


@router.delete("/{project_id}/members/{user_id}", status_code=204, response_class=Response)
def remove_member(project_id: str, user_id: str, asker: AskerDep, store: StoreDep) -> Response:
    """Takes a person out of a project; everybody may take out themselves, but for the last admin."""
    service.remove_member(store, asker, project_id, user_id)
    return Response(status_code=204)
