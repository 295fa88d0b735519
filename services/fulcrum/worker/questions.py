"""What a job about a correction asks, in the words of the engine."""

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from fulcrum.domain.codec import from_json
from fulcrum.domain.errors import UnknownCorrection, UnknownSae
from fulcrum.domain.jobs import SweepCorrection, ValidateCorrection
from fulcrum.domain.records import CorrectionVersion
from fulcrum.domain.tasks import ClassSet
from fulcrum.science.validation.specification import Specification
from fulcrum.worker.work import Work

if TYPE_CHECKING:
    from fulcrum.engine.dataset_runs import DatasetRun
    from fulcrum.engine.validating import Question


class OpenRun(Protocol):
    """A data set with its index under an SAE, ready for questions; `task` None takes the data set's labels."""

    def __call__(self, work: Work, dataset_id: str, sae_id: str, task: ClassSet | None) -> "DatasetRun":
        """Raises UnknownDataset, UnknownSae, InvalidDataset and NotFound where there is no index."""
        ...


def version_of(work: Work, correction_id: str, number: int) -> tuple[CorrectionVersion, str]:
    """The version that a job is about, and the id of its registered SAE.

    Raises UnknownCorrection, UnknownSae when nobody registered an SAE with the weights that it was made for.
    """
    with work.store.read() as tx:
        record = tx.corrections.get(correction_id)
        if record.project_id != work.job.project_id:
            raise UnknownCorrection(f"no correction with the id {correction_id[:80]!r}")
        version = tx.corrections.get_version(correction_id, number)
        if record.sae_id is not None:
            return version, tx.saes.get(record.sae_id).id
        saes = tx.saes.list(record.project_id, limit=200).items
    wanted = version.correction.sae_sha256
    for sae in saes:
        if sae.info is not None and sae.info.weights_sha256 == wanted:
            return version, sae.id
    raise UnknownSae(
        f"the correction {record.name!r} was made for the SAE {wanted[:12]}, and none with these weights is registered"
    )


def specification_of(spec: ValidateCorrection) -> Specification:
    """The frozen specification. Raises InvalidRequest, InvalidSettings."""
    wanted = from_json(Specification, spec.specification, "specification")
    return wanted if spec.n_controls else replace(wanted, min_controls=0)


def asked(work: Work, open_run: OpenRun) -> tuple["DatasetRun", "Question"]:
    """The opened data set and the question of a job. Raises what opening raises, and InvalidDataset for images that
    do not occur.
    """
    from fulcrum.datasets.selecting import mask_where
    from fulcrum.engine.validating import Question

    spec = work.job.spec
    assert isinstance(spec, ValidateCorrection | SweepCorrection)
    version, sae_id = version_of(work, spec.correction_id, spec.number)
    run = open_run(work, spec.dataset_id, sae_id, spec.task or version.correction.task)
    legitimate = spec.same_cue_legitimate if isinstance(spec, ValidateCorrection) else ()
    specification = (
        specification_of(spec) if isinstance(spec, ValidateCorrection) else Specification(min_controls=0)
    )
    question = Question(
        correction=version.correction,
        split=spec.split,
        target=mask_where(run.dataset, spec.where) if spec.where else None,
        same_cue_legitimate=mask_where(run.dataset, legitimate) if legitimate else None,
        specification=replace(specification, seed=spec.seed),
        n_controls=spec.n_controls,
        seed=spec.seed,
    )
    return run, question
