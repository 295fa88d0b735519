"""`/v1/corrections`: saved interventions with immutable versions."""

import re
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Path, Query
from fastapi.responses import JSONResponse, Response

from fulcrum.gateway.corrections import service
from fulcrum.gateway.corrections.schemas import (
    CorrectionChange,
    CorrectionRecord,
    CorrectionVersion,
    NewCorrection,
    NewVersion,
)
from fulcrum.gateway.deps import (
    AskerDep,
    IfMatch,
    PageDep,
    PageOf,
    ProjectParam,
    StoreDep,
    answer,
    answer_page,
    etag,
)
from fulcrum.gateway.schemas import PathId

router = APIRouter(prefix="/v1/corrections", tags=["corrections"])

Number = Annotated[int, Path(ge=1, le=2**31 - 1, description="Number of the version.")]


@router.post("", status_code=201, response_model=CorrectionRecord)
def save_correction(body: NewCorrection, asker: AskerDep, store: StoreDep) -> JSONResponse:
    """Saves a correction as a draft with version 1."""
    return answer(service.save(store, asker, body), 201)


@router.get("", response_model=PageOf[CorrectionRecord])
def list_corrections(
    asker: AskerDep,
    store: StoreDep,
    page: PageDep,
    project_id: ProjectParam = None,
    sae_id: Annotated[
        str | None, Query(max_length=64, description="Corrections made for this SAE only.")
    ] = None,
) -> JSONResponse:
    """Corrections of a project, newest first."""
    return answer_page(service.page(store, asker, project_id, sae_id, page))


# Before `/{correction_id}`, which would take the verb for a part of the id.
@router.get(
    "/{correction_id}:export",
    response_class=Response,
    responses={
        200: {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Correction"}}}}
    },
)
def export_correction(
    correction_id: PathId,
    asker: AskerDep,
    store: StoreDep,
    number: Annotated[
        int | None, Query(ge=1, le=2**31 - 1, description="Version; the newest by default.")
    ] = None,
) -> Response:
    """A version as a file, for `fulcrum steer --correction` and other installations.

    It is the canonical JSON together with `origin`, which the identity (`ETag`) leaves out.
    """
    record, version = service.get_version(store, asker, correction_id, number)
    plain = re.sub(r"[^0-9A-Za-z._-]+", "-", record.name).strip("-.") or record.id
    ending = f".v{version.number}.json"
    return Response(
        service.as_file(version),
        media_type="application/json",
        headers={
            "ETag": f'"{version.sha256}"',
            "Content-Disposition": f'attachment; filename="{plain}{ending}"; '
            f"filename*=UTF-8''{quote(record.name + ending, safe='')}",
        },
    )


@router.get("/{correction_id}", response_model=CorrectionRecord)
def get_correction(correction_id: PathId, asker: AskerDep, store: StoreDep) -> JSONResponse:
    """One correction; its content is in its versions."""
    return answer(service.get(store, asker, correction_id))


@router.patch("/{correction_id}", response_model=CorrectionRecord)
def change_correction(
    correction_id: PathId, body: CorrectionChange, asker: AskerDep, store: StoreDep, expected: IfMatch
) -> JSONResponse:
    """Changes name or description; versions stay."""
    return answer(service.change(store, asker, correction_id, body, expected))


@router.delete("/{correction_id}", status_code=204)
def delete_correction(correction_id: PathId, asker: AskerDep, store: StoreDep, expected: IfMatch) -> Response:
    """Hides the correction and its versions and frees its name."""
    service.remove(store, asker, correction_id, expected)
    return Response(status_code=204)


@router.post("/{correction_id}/versions", status_code=201, response_model=CorrectionVersion)
def add_version(
    correction_id: PathId, body: NewVersion, asker: AskerDep, store: StoreDep, expected: IfMatch
) -> JSONResponse:
    """Adds a version; earlier ones stay as they are. `ETag` is the correction's new one."""
    record, version = service.add_version(store, asker, correction_id, body, expected)
    return answer(version, 201, {"ETag": etag(record)})


@router.get("/{correction_id}/versions", response_model=PageOf[CorrectionVersion])
def list_versions(correction_id: PathId, asker: AskerDep, store: StoreDep, page: PageDep) -> JSONResponse:
    """Versions of a correction, newest first."""
    return answer_page(service.versions(store, asker, correction_id, page))


@router.get("/{correction_id}/versions/{number}", response_model=CorrectionVersion)
def get_version(correction_id: PathId, number: Number, asker: AskerDep, store: StoreDep) -> JSONResponse:
    """One version."""
    _, version = service.get_version(store, asker, correction_id, number)
    return answer(version)
