"""`/v1/models`: which models a project works with. Admins of the project manage them, everybody in it sees them."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from fulcrum.gateway.deps import (
    AskerDep,
    EngineDep,
    IfMatch,
    PageDep,
    PageOf,
    ProjectParam,
    StoreDep,
    answer,
    answer_page,
    run_in_thread,
)
from fulcrum.gateway.jobs.schemas import JobRecord
from fulcrum.gateway.jobs.submitting import SubmitDep
from fulcrum.gateway.loading import LoadsDep
from fulcrum.gateway.models import service
from fulcrum.gateway.models.schemas import ModelChange, ModelRecord, NewModel
from fulcrum.gateway.saes.asking import train
from fulcrum.gateway.saes.schemas import SaeTraining
from fulcrum.gateway.schemas import PathId

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.post("", status_code=201, response_model=ModelRecord)
async def register_model(body: NewModel, asker: AskerDep, store: StoreDep, loads: LoadsDep) -> JSONResponse:
    """Registers a model and loads it behind the request: `state` becomes `ready`, or `failed` with `error`."""
    record = await run_in_thread(service.register, store, asker, body)
    loads.begin_model(record, asker.user.id)
    return answer(record, 201)


@router.get("", response_model=PageOf[ModelRecord])
def list_models(
    asker: AskerDep, store: StoreDep, page: PageDep, project_id: ProjectParam = None
) -> JSONResponse:
    """Models of a project, newest first."""
    return answer_page(service.page(store, asker, project_id, page))


@router.get("/{model_id}", response_model=ModelRecord)
async def get_model(model_id: PathId, asker: AskerDep, store: StoreDep, loads: LoadsDep) -> JSONResponse:
    """One model."""
    record = await run_in_thread(service.get, store, asker, model_id)
    if record.state == "loading":
        loads.begin_model(record, asker.user.id)  # unless it runs: a gateway that ended has left it so
    return answer(record)


@router.patch("/{model_id}", response_model=ModelRecord)
def change_model(
    model_id: PathId, body: ModelChange, asker: AskerDep, store: StoreDep, expected: IfMatch
) -> JSONResponse:
    """Changes the name; other weights are another model."""
    return answer(service.change(store, asker, model_id, body, expected))


@router.delete("/{model_id}", status_code=204)
def delete_model(model_id: PathId, asker: AskerDep, store: StoreDep, expected: IfMatch) -> Response:
    """Hides the model and frees its name; its SAEs must be deleted before. Results stay."""
    service.remove(store, asker, model_id, expected)
    return Response(status_code=204)


@router.post("/{model_id}:warm", response_model=ModelRecord)
async def warm_model(
    model_id: PathId, asker: AskerDep, store: StoreDep, engine: EngineDep, loads: LoadsDep
) -> JSONResponse:
    """Loads the model into memory and waits for it, so that the next question finds it there."""
    record = await run_in_thread(service.get, store, asker, model_id, "analyst")
    record = await loads.model(record, asker.user.id)
    await engine.warm_model(record.ref, user=asker.user.id)
    return answer(record)


@router.post("/{model_id}:train-sae", status_code=202, response_model=JobRecord)
def train_sae(model_id: PathId, body: SaeTraining, asker: AskerDep, jobs: SubmitDep) -> JSONResponse:
    """Trains an SAE on the activations of a data set, as a job: its metrics are the curves, and its result names the
    SAE, which is registered and ready. `info.quality` of the SAE is its card: each figure beside `untrained_...`, that
    of an untrained SAE of the same shape.
    """
    return answer(train(jobs, asker, model_id, body), 202)
