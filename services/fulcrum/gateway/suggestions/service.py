"""From what a job of the kind `suggest_correction` found to a correction of the project."""

import json
from typing import Any

from fulcrum.domain.corrections import Correction, from_dict
from fulcrum.domain.errors import InvalidRequest, JobUnfinished
from fulcrum.domain.jobs import SuggestCorrection
from fulcrum.domain.records import CorrectionRecord
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.corrections import service as corrections
from fulcrum.gateway.jobs import service as jobs
from fulcrum.gateway.suggestions.schemas import SavedSuggestion
from fulcrum.store.artifacts import Artifacts
from fulcrum.store.database import Store


def found(store: Store, artifacts: Artifacts, asker: Asker, job_id: str) -> Correction:
    """What the job found, with its origin. Raises UnknownJob, JobUnfinished, InvalidRequest for another kind of job."""
    return _found(store, artifacts, asker, job_id)[2]


def save(
    store: Store, artifacts: Artifacts, asker: Asker, job_id: str, body: SavedSuggestion
) -> CorrectionRecord:
    """The record that holds it now. Raises AlreadyExists for a taken name or when nothing differs from the newest
    version, InvalidRequest when nothing was found or both or neither of name and correction are given, and what
    `found` and saving raise.
    """
    if (body.name is None) == (body.correction_id is None):
        raise InvalidRequest(
            f"name is {body.name!r} and correction_id {body.correction_id!r}: give one of them, a name for a new "
            "correction or the correction that gets another version"
        )
    spec, project_id, correction = _found(store, artifacts, asker, job_id)
    if not correction.edits:
        raise InvalidRequest(f"job {job_id} found no edit that helps: there is nothing to save")
    if body.correction_id is not None:
        record, _ = corrections.keep_version(store, asker, body.correction_id, correction, body.note, None)
        return record
    assert body.name is not None
    return corrections.keep(
        store,
        asker,
        body.name,
        correction,
        project_id=project_id,
        sae_id=spec.sae_id,
        description=body.description,
        note=body.note,
    )


def _found(
    store: Store, artifacts: Artifacts, asker: Asker, job_id: str
) -> tuple[SuggestCorrection, str, Correction]:
    with store.read() as tx:
        job = jobs.find(asker, tx, job_id, "viewer")
    if not isinstance(job.spec, SuggestCorrection):
        raise InvalidRequest(
            f"job {job.id} is of kind {job.kind!r}: only suggest_correction finds a correction"
        )
    if job.state != "succeeded" or job.result is None:
        raise JobUnfinished(f"job {job.id} is {job.state}: only one that succeeded has found a correction")
    content: dict[str, Any] = json.loads(artifacts.read_bytes(job.result["correction_artifact"]))
    return job.spec, job.project_id, from_dict(content)
