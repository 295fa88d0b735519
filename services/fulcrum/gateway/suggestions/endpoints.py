"""What jobs of the kind `suggest_correction` found: to be looked at, and saved in one step."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from fulcrum.gateway.corrections.schemas import CorrectionRecord
from fulcrum.gateway.deps import ArtifactsDep, AskerDep, StoreDep, answer
from fulcrum.gateway.schemas import Correction, PathId
from fulcrum.gateway.suggestions import service
from fulcrum.gateway.suggestions.schemas import SavedSuggestion

router = APIRouter(prefix="/v1/jobs", tags=["corrections"])


@router.get("/{job_id}/correction", response_model=Correction)
def get_suggested_correction(
    job_id: PathId, asker: AskerDep, store: StoreDep, artifacts: ArtifactsDep
) -> JSONResponse:
    """The correction that a finished `suggest_correction` job found. It is saved nowhere yet."""
    return answer(service.found(store, artifacts, asker, job_id))


@router.post("/{job_id}:save", status_code=201, response_model=CorrectionRecord)
def save_suggested_correction(
    job_id: PathId, body: SavedSuggestion, asker: AskerDep, store: StoreDep, artifacts: ArtifactsDep
) -> JSONResponse:
    """Saves what a `suggest_correction` job found, as a new draft or as the next version of a correction.

    Its origin names the images of the search: they can prove nothing about it.
    """
    return answer(service.save(store, artifacts, asker, job_id, body), 201)
