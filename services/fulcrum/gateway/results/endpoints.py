"""`/v1/results`: every answer of the engine as it was given."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from fulcrum.gateway.deps import AskerDep, PageDep, PageOf, ProjectParam, StoreDep, answer, answer_page
from fulcrum.gateway.results import service
from fulcrum.gateway.results.schemas import ResultKind, ResultRecord
from fulcrum.gateway.schemas import PathId

router = APIRouter(prefix="/v1/results", tags=["results"])


@router.get("", response_model=PageOf[ResultRecord])
def list_results(
    asker: AskerDep,
    store: StoreDep,
    page: PageDep,
    project_id: ProjectParam = None,
    kind: Annotated[ResultKind | None, Query(description="Answers of this kind only.")] = None,
    image_id: Annotated[
        str | None, Query(max_length=64, description="Answers about this image only.")
    ] = None,
    key: Annotated[
        str | None, Query(max_length=64, description="Answers to this very question only.")
    ] = None,
) -> JSONResponse:
    """Stored answers of a project, newest first."""
    return answer_page(service.page(store, asker, project_id, page, kind=kind, image_id=image_id, key=key))


@router.get("/{result_id}", response_model=ResultRecord)
def get_result(result_id: PathId, asker: AskerDep, store: StoreDep) -> JSONResponse:
    """One stored answer, with what was asked and how it came about."""
    return answer(service.get(store, asker, result_id))
