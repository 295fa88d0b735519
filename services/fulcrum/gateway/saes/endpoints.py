"""`/v1/saes`: SAEs of registered models. Admins of the project manage them, everybody in it sees them.

Analysts can have one trained, which is a job of a model: `POST /v1/models/{id}:train-sae`.
"""

from typing import Annotated

from fastapi import APIRouter, File, Form, Query, UploadFile
from fastapi.responses import JSONResponse, Response

from fulcrum.gateway.deps import (
    AskerDep,
    EngineDep,
    IfMatch,
    PageDep,
    PageOf,
    ProjectParam,
    ServicesDep,
    StoreDep,
    answer,
    answer_page,
    run_in_thread,
)
from fulcrum.gateway.loading import LoadsDep
from fulcrum.gateway.saes import service
from fulcrum.gateway.saes.schemas import NewSae, SaeChange, SaeRecord
from fulcrum.gateway.saes.uploads import keep_upload
from fulcrum.gateway.schemas import Id, Name, PathId

router = APIRouter(prefix="/v1/saes", tags=["saes"])


@router.post("", status_code=201, response_model=SaeRecord)
async def register_sae(body: NewSae, asker: AskerDep, store: StoreDep, loads: LoadsDep) -> JSONResponse:
    """Registers an SAE and loads it behind the request: `state` becomes `ready`, or `failed` with `error`."""
    record, model = await run_in_thread(
        service.register, store, asker, body.project_id, body.model_id, body.name, body.source
    )
    loads.begin_sae(record, model, asker.user.id)
    return answer(record, 201)


@router.post(":upload", status_code=201, response_model=SaeRecord)
async def upload_sae(
    name: Annotated[Name, Form(description="Name in the project.")],
    model_id: Annotated[Id, Form(description="Registered model that it belongs to.")],
    cfg: Annotated[UploadFile, File(description="`cfg.json`.")],
    weights: Annotated[UploadFile, File(description="`sae_weights.safetensors`.")],
    asker: AskerDep,
    services: ServicesDep,
    loads: LoadsDep,
    project_id: Annotated[Id | None, Form(description="Left out: the model's project.")] = None,
) -> JSONResponse:
    """Keeps the files of an SAE, registers it, and loads it behind the request as a registration does."""
    store = services.store
    # Before anything is kept: only who may register may fill the disk.
    await run_in_thread(service.check_place, store, asker, project_id, model_id)
    limit = services.settings.max_weights_bytes
    source = await run_in_thread(keep_upload, services.artifacts, cfg.file, weights.file, limit)
    record, model = await run_in_thread(service.register, store, asker, project_id, model_id, name, source)
    loads.begin_sae(record, model, asker.user.id)
    return answer(record, 201)


@router.get("", response_model=PageOf[SaeRecord])
def list_saes(
    asker: AskerDep,
    store: StoreDep,
    page: PageDep,
    project_id: ProjectParam = None,
    model_id: Annotated[str | None, Query(max_length=64, description="SAEs of this model only.")] = None,
) -> JSONResponse:
    """SAEs of a project, newest first."""
    return answer_page(service.page(store, asker, project_id, model_id, page))


@router.get("/{sae_id}", response_model=SaeRecord)
async def get_sae(sae_id: PathId, asker: AskerDep, store: StoreDep, loads: LoadsDep) -> JSONResponse:
    """One SAE."""
    record, model = await run_in_thread(service.get, store, asker, sae_id)
    if record.state == "loading":
        loads.begin_sae(record, model, asker.user.id)  # unless it runs: a gateway that ended has left it so
    return answer(record)


@router.patch("/{sae_id}", response_model=SaeRecord)
def change_sae(
    sae_id: PathId, body: SaeChange, asker: AskerDep, store: StoreDep, expected: IfMatch
) -> JSONResponse:
    """Changes the name; other weights are another SAE."""
    return answer(service.change(store, asker, sae_id, body, expected))


@router.delete("/{sae_id}", status_code=204)
def delete_sae(sae_id: PathId, asker: AskerDep, store: StoreDep, expected: IfMatch) -> Response:
    """Hides the SAE and frees its name. Results and corrections that name it stay."""
    service.remove(store, asker, sae_id, expected)
    return Response(status_code=204)


@router.post("/{sae_id}:warm", response_model=SaeRecord)
async def warm_sae(
    sae_id: PathId, asker: AskerDep, store: StoreDep, engine: EngineDep, loads: LoadsDep
) -> JSONResponse:
    """Loads model and SAE into memory and waits for them, so that the next question finds them there."""
    record, model = await run_in_thread(service.get, store, asker, sae_id, "analyst")
    record = await loads.sae(record, model, asker.user.id)
    await engine.warm_model(model.ref, record.source, user=asker.user.id)
    return answer(record)
