"""Asks for an SAE to be trained, as a job."""

from fulcrum.domain.codec import to_json
from fulcrum.domain.errors import (
    AlreadyExists,
    InvalidDataset,
    InvalidHookPoint,
    InvalidSaeConfig,
    SaeDoesNotFit,
    UnknownDataset,
)
from fulcrum.domain.jobs import JobRecord, TrainSae, content_key
from fulcrum.domain.records import DatasetRecord, ModelRecord
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.evaluations.asking import check_ready
from fulcrum.gateway.jobs.submitting import Submitter
from fulcrum.gateway.models import service as models
from fulcrum.gateway.reach import reach
from fulcrum.gateway.saes.schemas import SaeTraining

_WITH_K = ("topk", "batch_topk", "matryoshka")


def train(jobs: Submitter, asker: Asker, model_id: str, body: SaeTraining) -> JobRecord:
    """The job; whoever asks the same again gets the same one, as long as its SAE is there.

    Raises UnknownModel, UnknownDataset, SaeDoesNotFit, InvalidDataset, InvalidHookPoint, InvalidSaeConfig,
    AlreadyExists for a taken name, RateLimited.
    """
    spec = TrainSae(model_id=model_id, **body.model_dump())
    _check_shape(spec)
    with jobs.store.write() as tx:
        model = models.find(asker, tx, model_id, "analyst")
        dataset = reach(asker, tx, tx.datasets, body.dataset_id, "viewer", UnknownDataset, "data set")
        if dataset.project_id != model.project_id:
            raise SaeDoesNotFit(
                f"model {model.name!r} and data set {dataset.name!r} belong to different projects"
            )
        _check_images(spec, model, dataset)
        key = content_key(asked=to_json(spec), digest=dataset.digest)
        while (found := tx.jobs.by_key(model.project_id, key)) is not None:
            if found.result is None or tx.saes.find(found.result["sae_id"]) is not None:
                return found
            key = content_key(asked=key, gone=found.id)
        if (taken := tx.saes.named(model.project_id, spec.name)) is not None:
            raise AlreadyExists(f"SAE {spec.name!r} already exists: {taken.id}")
        job = jobs.add(tx, asker, model.project_id, spec, key=key)
    jobs.wake(job)
    return job


def _check_shape(spec: TrainSae) -> None:
    if spec.variant in _WITH_K and spec.k > spec.d_sae:
        raise InvalidSaeConfig(f"k={spec.k} must be in 1 .. d_sae={spec.d_sae}")
    if spec.variant in _WITH_K and spec.sparsity is not None:
        raise InvalidSaeConfig(f"sparsity={spec.sparsity:g}: k says how sparse a {spec.variant} SAE is")
    if spec.n_tokens < spec.batch_size:
        raise InvalidSaeConfig(f"n_tokens={spec.n_tokens} must be at least one batch of {spec.batch_size}")


def _check_images(spec: TrainSae, model: ModelRecord, dataset: DatasetRecord) -> None:
    """As far as it is known before a worker has the model."""
    check_ready(dataset)
    if spec.split is not None and not dataset.n_by_split.get(spec.split):
        raise InvalidDataset(
            f"data set {dataset.name!r} has no image in split {spec.split!r}: it has {dataset.n_by_split}"
        )
    if model.info is None:
        return
    known = tuple(name for name in model.info.hook_points if name.startswith("visual."))
    if spec.hook_point is not None and known and spec.hook_point not in known:
        raise InvalidHookPoint(
            f"{spec.hook_point!r} is no hook point of the images of {model.name!r}: there are {', '.join(known)}"
        )
    n_images = dataset.n_images if spec.split is None else dataset.n_by_split[spec.split]
    if n_images * model.info.n_tokens < spec.batch_size:
        raise InvalidDataset(
            f"{n_images} images of {dataset.name!r} to train on have {n_images * model.info.n_tokens} tokens, which "
            f"is less than one batch of batch_size={spec.batch_size}"
        )
