"""`/v1/datasets`: records of data sets. Importing images into one is a job."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from fulcrum.gateway.datasets import service
from fulcrum.gateway.datasets.schemas import DatasetChange, DatasetRecord, ImportQuestion, NewDataset
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
from fulcrum.gateway.jobs.schemas import JobRecord
from fulcrum.gateway.jobs.submitting import SubmitDep
from fulcrum.gateway.schemas import PathId

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])


@router.post("", status_code=201, response_model=DatasetRecord)
def make_dataset(body: NewDataset, asker: AskerDep, store: StoreDep) -> JSONResponse:
    """Makes an empty data set."""
    return answer(service.make(store, asker, body), 201)


@router.get("", response_model=PageOf[DatasetRecord])
def list_datasets(
    asker: AskerDep, store: StoreDep, page: PageDep, project_id: ProjectParam = None
) -> JSONResponse:
    """Data sets of a project, newest first."""
    return answer_page(service.page(store, asker, project_id, page))


@router.get("/{dataset_id}", response_model=DatasetRecord)
def get_dataset(dataset_id: PathId, asker: AskerDep, store: StoreDep) -> JSONResponse:
    """One data set."""
    return answer(service.get(store, asker, dataset_id))


@router.patch("/{dataset_id}", response_model=DatasetRecord)
def change_dataset(
    dataset_id: PathId, body: DatasetChange, asker: AskerDep, store: StoreDep, expected: IfMatch
) -> JSONResponse:
    """Changes name or description; images and digest stay."""
    return answer(service.change(store, asker, dataset_id, body, expected))


@router.delete("/{dataset_id}", status_code=204)
def delete_dataset(dataset_id: PathId, asker: AskerDep, store: StoreDep, expected: IfMatch) -> Response:
    """Hides the data set and frees its name. Results that were computed on it stay."""
    service.remove(store, asker, dataset_id, expected)
    return Response(status_code=204)


@router.post("/{dataset_id}:import", status_code=202, response_model=JobRecord)
def import_images(
    dataset_id: PathId, body: ImportQuestion, asker: AskerDep, store: StoreDep, jobs: SubmitDep
) -> JSONResponse:
    """Imports images as a job: checked, divided into splits where they have none, duplicates together.

    The data set is `ready` when the job has succeeded, and unchanged when it has not. Importing again replaces its
    content, which makes evaluations of the content before stale.
    """
    return answer(service.import_images(store, jobs, asker, dataset_id, body), 202)
