"""Asking for validations, sweeps and suggestions: jobs, after the index that they stand on."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import fulcrum
from fulcrum.domain.codec import from_json, to_json
from fulcrum.domain.errors import (
    InvalidDataset,
    SaeDoesNotFit,
    UnknownCorrection,
    UnknownDataset,
    UnknownEvaluation,
    UnknownSae,
)
from fulcrum.domain.image_sets import FrozenImageSet
from fulcrum.domain.jobs import (
    ImportDataset,
    IndexDataset,
    InteractCorrections,
    JobRecord,
    JobSpec,
    SuggestCorrection,
    SweepCorrection,
    ValidateCorrection,
    VersionOf,
    Where,
    content_key,
)
from fulcrum.domain.records import CorrectionRecord, CorrectionVersion, DatasetRecord
from fulcrum.domain.tasks import ClassSet
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.evaluations.schemas import (
    InteractionQuestion,
    SuggestionQuestion,
    SweepQuestion,
    ValidationQuestion,
)
from fulcrum.gateway.image_sets import service as image_sets
from fulcrum.gateway.jobs.submitting import Submitter
from fulcrum.gateway.reach import reach, together
from fulcrum.store.transaction import Transaction


def validate(jobs: Submitter, asker: Asker, correction_id: str, body: ValidationQuestion) -> JobRecord:
    """The job; the same question of the same things is one job, which whoever asks again gets.

    Raises UnknownCorrection, UnknownDataset, UnknownSae, InvalidDataset, SaeDoesNotFit, RateLimited.
    """
    given = _given(body, {"concept_bank", "image_sets"})
    return _about_a_correction(
        jobs,
        asker,
        correction_id,
        body,
        lambda tx, dataset, number: ValidateCorrection(
            correction_id,
            number,
            image_sets=image_sets.frozen(asker, tx, dataset, body.image_sets, body.split),
            same_cue_legitimate=_where(body.same_cue_legitimate),
            concept_bank=tuple(dict.fromkeys(body.concept_bank)),
            **given,
        ),
    )


def sweep(jobs: Submitter, asker: Asker, correction_id: str, body: SweepQuestion) -> JobRecord:
    """As `validate`, for many gains."""
    given = _given(body) | {"gains": tuple(float(g) for g in body.gains)}
    return _about_a_correction(
        jobs,
        asker,
        correction_id,
        body,
        lambda tx, dataset, number: SweepCorrection(correction_id, number, **given),
    )


def recompute(jobs: Submitter, asker: Asker, evaluation_id: str, newest: bool) -> JobRecord:
    """The question of an evaluation, asked of what there is today; nothing is taken from what is stored. An image set
    that was deleted is judged as it was.

    Raises UnknownEvaluation, and what `validate` raises, for things that were deleted meanwhile as well.
    """
    with jobs.store.write() as tx:
        record = reach(asker, tx, tx.evaluations, evaluation_id, "analyst", UnknownEvaluation, "evaluation")
        asked = tx.jobs.get(record.job_id).spec
        assert isinstance(asked, ValidateCorrection | SweepCorrection)  # they alone make evaluations
        correction = reach(
            asker, tx, tx.corrections, record.correction_id, "analyst", UnknownCorrection, "correction"
        )
        dataset = reach(asker, tx, tx.datasets, record.dataset_id, "viewer", UnknownDataset, "data set")
        version = tx.corrections.get_version(correction.id, None if newest else record.number)
        _check_split(dataset, record.split)
        sae_id = _sae_of(tx, correction, version)
        spec = replace(asked, number=version.number, fresh=True)
        if isinstance(spec, ValidateCorrection):
            spec = replace(spec, image_sets=_sets_of_today(tx, spec.image_sets))
        # Asking twice is one job, unless something of what it stands on changed in between.
        key = content_key(again=_key(spec, version, _content(tx, dataset), sae_id), code=fulcrum.__version__)
        made = add_after_index(jobs, tx, asker, dataset, sae_id, spec, key)
    for job in made:
        jobs.wake(job)
    return made[-1]


def suggest(jobs: Submitter, asker: Asker, dataset_id: str, body: SuggestionQuestion) -> JobRecord:
    """A search for a correction. Raises UnknownDataset, UnknownSae, InvalidDataset, RateLimited."""
    with jobs.store.write() as tx:
        dataset = reach(asker, tx, tx.datasets, dataset_id, "analyst", UnknownDataset, "data set")
        sae = reach(asker, tx, tx.saes, body.sae_id, "viewer", UnknownSae, "SAE")
        if sae.project_id != dataset.project_id:
            raise SaeDoesNotFit(
                f"SAE {sae.name!r} and data set {dataset.name!r} belong to different projects"
            )
        _check_split(dataset, body.split)
        spec = SuggestCorrection(
            dataset_id=dataset_id, clean=_where(body.clean), **_given(body, {"clean", "dataset_id"})
        )
        key = content_key(asked=to_json(spec), digest=dataset.digest)
        made = add_after_index(jobs, tx, asker, dataset, sae.id, spec, key)
    for job in made:
        jobs.wake(job)
    return made[-1]


def interactions(jobs: Submitter, asker: Asker, body: InteractionQuestion) -> JobRecord:
    """What pairs of saved corrections do. Raises as `validate` does, and SaeDoesNotFit for corrections of two SAEs."""
    with jobs.store.write() as tx:
        dataset = reach(asker, tx, tx.datasets, body.dataset_id, "viewer", UnknownDataset, "data set")
        _check_split(dataset, body.split)
        versions, saes = [], set()
        for named in body.corrections:
            correction = reach(
                asker, tx, tx.corrections, named.correction_id, "analyst", UnknownCorrection, "correction"
            )
            together(dataset, correction)
            versions.append(tx.corrections.get_version(correction.id, named.number))
            saes.add(_sae_of(tx, correction, versions[-1]))
        if len(saes) > 1:
            raise SaeDoesNotFit(f"the corrections were made for {len(saes)} SAEs: they cannot act together")
        sae_id = saes.pop()
        spec = InteractCorrections(
            tuple(VersionOf(v.correction_id, v.number) for v in versions),
            **_given(body, {"corrections"}),
        )
        content = sorted(v.sha256 for v in versions)
        key = content_key(
            asked=to_json(spec),
            versions=content,
            **_content(tx, dataset),
            sae=sae_id,
        )
        made = add_after_index(jobs, tx, asker, dataset, sae_id, spec, key)
    for job in made:
        jobs.wake(job)
    return made[-1]


def _about_a_correction(
    jobs: Submitter,
    asker: Asker,
    correction_id: str,
    body: ValidationQuestion | SweepQuestion,
    spec_of: Callable[[Transaction, DatasetRecord, int], JobSpec],
) -> JobRecord:
    with jobs.store.write() as tx:
        correction = reach(
            asker, tx, tx.corrections, correction_id, "analyst", UnknownCorrection, "correction"
        )
        version = tx.corrections.get_version(correction_id, body.number)
        dataset = reach(asker, tx, tx.datasets, body.dataset_id, "viewer", UnknownDataset, "data set")
        if dataset.project_id != correction.project_id:
            raise InvalidDataset(
                f"data set {dataset.name!r} and correction {correction.name!r} belong to different projects"
            )
        _check_split(dataset, body.split)
        sae_id = _sae_of(tx, correction, version)
        spec = spec_of(tx, dataset, version.number)
        key = _key(spec, version, _content(tx, dataset), sae_id)
        made = add_after_index(jobs, tx, asker, dataset, sae_id, spec, key)
    for job in made:
        jobs.wake(job)
    return made[-1]


def add_after_index(
    jobs: Submitter,
    tx: Transaction,
    asker: Asker,
    dataset: DatasetRecord,
    sae_id: str,
    spec: JobSpec,
    key: str,
) -> list[JobRecord]:
    """The job, and before it in the list the index job that it waits for where the index is missing. Wake all."""
    known = tx.jobs.by_key(dataset.project_id, key)
    if known is not None:
        return [known]
    made = []
    if tx.indexes.current(dataset, sae_id) is None:
        made.append(add_index(jobs, tx, asker, dataset, sae_id))
    after = tuple(job.id for job in made)
    return [*made, jobs.add(tx, asker, dataset.project_id, spec, key=key, after=after)]


def add_index(
    jobs: Submitter, tx: Transaction, asker: Asker, dataset: DatasetRecord, sae_id: str
) -> JobRecord:
    """The job that indexes the data set as it is; the same one for all who ask."""
    index = IndexDataset(dataset.id, sae_id)
    key = content_key(asked=to_json(index), digest=dataset.digest)
    return jobs.add(tx, asker, dataset.project_id, index, key=key)


def _sets_of_today(tx: Transaction, sets: Sequence[FrozenImageSet]) -> tuple[FrozenImageSet, ...]:
    today = [(s, tx.image_sets.find(s.id)) for s in sets]
    return tuple(sorted((s if t is None else t.frozen() for s, t in today), key=lambda s: s.name))


def _key(spec: JobSpec, version: CorrectionVersion, content: dict[str, str | None], sae_id: str) -> str:
    asked = to_json(spec)
    if not asked.get("image_sets"):
        # A question from before there were image sets stays the same question, with its look.
        asked.pop("image_sets", None)
    return content_key(asked=asked, version=version.sha256, **content, sae=sae_id)


def _content(tx: Transaction, dataset: DatasetRecord) -> dict[str, str | None]:
    """What names the images that are judged, and which of them count as one.

    The digest says which images there are, not which are duplicates; where a model had a word in that, the manifest
    does.
    """
    made = None if dataset.digest is None else tx.dataset_versions.newest(dataset.id, dataset.digest)
    spec = None if made is None else tx.jobs.get(made.job_id).spec
    if isinstance(spec, ImportDataset) and spec.model_id is not None:
        return {"digest": dataset.digest, "manifest": dataset.manifest_sha256}
    return {"digest": dataset.digest}


def _sae_of(tx: Transaction, correction: CorrectionRecord, version: CorrectionVersion) -> str:
    if correction.sae_id is not None:
        return tx.saes.get(correction.sae_id).id
    wanted = version.correction.sae_sha256
    for sae in tx.saes.list(correction.project_id, limit=200).items:
        if sae.info is not None and sae.info.weights_sha256 == wanted:
            return sae.id
    raise UnknownSae(
        f"the correction {correction.name!r} was made for the SAE {wanted[:12]}, and none with these weights is "
        "registered here"
    )


def check_ready(dataset: DatasetRecord) -> None:
    """Raises InvalidDataset before images were imported."""
    if dataset.state != "ready" or dataset.digest is None:
        raise InvalidDataset(f"data set {dataset.name!r} is {dataset.state}: import its images first")


def _check_split(dataset: DatasetRecord, split: str) -> None:
    check_ready(dataset)
    if not dataset.n_by_split.get(split):
        raise InvalidDataset(
            f"data set {dataset.name!r} has no image in split {split!r}: it has {dataset.n_by_split}"
        )


def _given(
    body: ValidationQuestion | SweepQuestion | SuggestionQuestion | InteractionQuestion,
    without: set[str] | None = None,
) -> dict[str, Any]:
    special = {"number", "where", "same_cue_legitimate", "task", "gains"} | (without or set())
    values = body.model_dump(exclude=special)
    task = None if body.task is None else from_json(ClassSet, body.task.model_dump())
    return values | {"where": _where(body.where), "task": task}


def _where(conditions: Any) -> tuple[Where, ...]:
    return tuple(Where(c.column, c.value) for c in conditions)
