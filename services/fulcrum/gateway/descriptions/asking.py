"""Asks for an index, and for what latents stand for, as jobs."""

from fulcrum.domain.codec import to_json
from fulcrum.domain.errors import SaeDoesNotFit, UnknownDataset, UnknownSae
from fulcrum.domain.jobs import DescribeConcepts, JobRecord, content_key
from fulcrum.domain.records import DatasetRecord, SaeRecord
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.descriptions.schemas import DescribeQuestion
from fulcrum.gateway.evaluations.asking import add_after_index, add_index, check_ready
from fulcrum.gateway.jobs.submitting import Submitter
from fulcrum.gateway.reach import reach
from fulcrum.store.transaction import Transaction


def index(jobs: Submitter, asker: Asker, dataset_id: str, sae_id: str) -> JobRecord:
    """Raises UnknownDataset, UnknownSae, SaeDoesNotFit, InvalidDataset, RateLimited."""
    with jobs.store.write() as tx:
        dataset, sae = _both(tx, asker, dataset_id, sae_id)
        job = add_index(jobs, tx, asker, dataset, sae.id)
    jobs.wake(job)
    return job


def describe(jobs: Submitter, asker: Asker, sae_id: str, body: DescribeQuestion) -> JobRecord:
    """Raises as `index` does."""
    with jobs.store.write() as tx:
        dataset, sae = _both(tx, asker, body.dataset_id, sae_id)
        sae.require_latents("they are described by the concepts that they are experts of")
        spec = DescribeConcepts(sae.id, dataset.id, tuple(body.vocabulary), body.n_top_images, body.seed)
        key = content_key(asked=to_json(spec), digest=dataset.digest)
        made = add_after_index(jobs, tx, asker, dataset, sae.id, spec, key)
    for job in made:
        jobs.wake(job)
    return made[-1]


def _both(tx: Transaction, asker: Asker, dataset_id: str, sae_id: str) -> tuple[DatasetRecord, SaeRecord]:
    dataset = reach(asker, tx, tx.datasets, dataset_id, "analyst", UnknownDataset, "data set")
    sae = reach(asker, tx, tx.saes, sae_id, "viewer", UnknownSae, "SAE")
    if sae.project_id != dataset.project_id:
        raise SaeDoesNotFit(f"SAE {sae.name!r} and data set {dataset.name!r} belong to different projects")
    check_ready(dataset)
    return dataset, sae
