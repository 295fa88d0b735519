"""What an import tells people about its images, and what it keeps beside them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.hygiene import HygieneReport
from fulcrum.datasets.hygiene.facts import ImageFacts
from fulcrum.datasets.hygiene.inspection import MIN_COSINE
from fulcrum.datasets.hygiene.leakage import Leak
from fulcrum.datasets.samples import Dataset
from fulcrum.datasets.stored import ImportedColumns
from fulcrum.domain.datasets import ComparedEmbeddings, EmbeddingLink, ImportReport, LeakedImages, LeftOut
from fulcrum.domain.jobs import ImportDataset, JobRecord, ShardResult
from fulcrum.worker.import_source import Source

SHARES = {"discover": 0.4, "select": 0.2, "confirm": 0.4}
_LISTED = 200
# A model that takes so many images for one does not tell them apart, and nothing can be proven on what is one image.
_MAX_ALIKE, _MAX_ALIKE_SHARE = 10, 0.1  # some of a few are no sign of a blind model


@dataclass(frozen=True)
class Found:
    """What the parts found out, in the order of the source; `model` has `name` and `sha256` of what embedded them."""

    facts: list[ImageFacts]
    n_bytes: NDArray[np.int64]
    masks: list[str | None]
    mask_problems: list[str]
    embeddings: NDArray[np.float32] | None = None
    model: dict[str, str] | None = None


def columns_of(
    report: HygieneReport, kept: NDArray[np.int64], results: Sequence[ShardResult], images_per_part: int
) -> ImportedColumns:
    """Of the images that are kept."""
    return ImportedColumns(
        widths=report.widths[kept],
        heights=report.heights[kept],
        pixels_sha256=tuple(report.pixels_sha256[i] for i in kept),
        phashes=report.phashes[kept],
        rows=kept,
        clusters=report.clusters[kept],
        parts=tuple(r.sha256 for r in results),
        images_per_part=images_per_part,
    )


def warnings_of(dataset: Dataset, splits: str, hygiene: HygieneReport, found: Found) -> tuple[str, ...]:
    """What should be known before the data set is used."""
    told = []
    if splits == "new" and (missing := sorted(set(SHARES) - set(dataset.split_names))):
        told.append(f"{len(dataset)} images are too few to divide: {' and '.join(missing)} got none")
    elif splits == "given" and (strange := sorted(set(dataset.split_names) - set(SHARES))):
        told.append(
            f"the splits {strange} are kept, but only discover, select and confirm are judged on: "
            "import with new splits to divide the images so"
        )
    if found.embeddings is not None and found.model is not None:
        told += _embedding_warnings(found.model["name"], hygiene, found.embeddings)
    return tuple(told)


def _embedding_warnings(name: str, hygiene: HygieneReport, embeddings: NDArray[np.float32]) -> list[str]:
    told = []
    n = int(hygiene.readable.sum())
    without = int((hygiene.readable & ~embeddings.any(axis=1)).sum())
    if without:
        told.append(f"{without} images are too long strips for {name}: they were compared by hash alone")
    alike, before = (
        int(np.unique(c[hygiene.readable], return_counts=True)[1].max())
        for c in (hygiene.clusters, hygiene.hash_clusters)
    )
    if alike > max(before, _MAX_ALIKE, _MAX_ALIKE_SHARE * n):
        told.append(
            f"{alike} of {n} images are near-duplicates of each other for {name} and count as one: it does not tell "
            "these images apart, so import without it or with another model"
        )
    return told


def import_report(
    job: JobRecord,
    source: Source,
    dataset: Dataset,
    hygiene: HygieneReport,
    found: Found,
    splits: Literal["given", "new"],
    warnings: tuple[str, ...],
) -> ImportReport:
    """Of `dataset`, which has the splits as they are now and the images of the source that can be used."""
    spec = job.spec
    assert isinstance(spec, ImportDataset)
    kept = np.flatnonzero(hygiene.readable)
    ids = source.dataset.ids
    duplicates = [
        tuple(str(ids[n]) for n in group if hygiene.readable[n])
        for group in hygiene.duplicates
        if hygiene.readable[group[0]]
    ]
    leakage = hygiene.leakage(dataset, kept)
    return ImportReport(
        dataset_id=spec.dataset_id,
        digest=dataset.digest,
        job_id=job.id,
        source=spec.source,
        format=source.format,
        n_found=len(source.dataset),
        n_images=len(dataset),
        size_bytes=int(found.n_bytes.sum()),
        splits=splits,
        n_by_split=dict(Counter(s.split for s in dataset.samples if s.split is not None)),
        n_left_out=len(hygiene.problems),
        left_out=tuple(LeftOut(p.id, p.reason, p.message) for p in hygiene.problems[:_LISTED]),
        n_rotated=hygiene.n_rotated,
        n_converted=hygiene.n_converted,
        n_masks=sum(s.mask_path is not None for s in dataset.samples),
        mask_problems=tuple(found.mask_problems[:_LISTED]),
        n_duplicate_clusters=len(duplicates),
        duplicates=tuple(duplicates[:_LISTED]),
        n_leaks=len(leakage.leaks),
        n_leaking=leakage.n_images,
        leaks=tuple(_leaked(leak) for leak in leakage.leaks[:_LISTED]),
        warnings=warnings,
        embeddings=_compared(spec, source, hygiene, found),
    )


def _leaked(leak: Leak) -> LeakedImages:
    if leak.link is None:
        return LeakedImages(leak.kind, leak.ids)
    one, other, cosine = leak.link
    return LeakedImages(leak.kind, leak.ids, EmbeddingLink((one, other), cosine))


def _compared(
    spec: ImportDataset, source: Source, hygiene: HygieneReport, found: Found
) -> ComparedEmbeddings | None:
    if spec.model_id is None or found.model is None:
        return None
    ids = source.dataset.ids
    return ComparedEmbeddings(
        model_id=spec.model_id,
        model_name=found.model["name"],
        model_sha256=found.model["sha256"],
        min_cosine=MIN_COSINE,
        n_links=len(hygiene.links),
        links=tuple(
            EmbeddingLink((str(ids[a]), str(ids[b])), cosine) for a, b, cosine in hygiene.links[:_LISTED]
        ),
    )
