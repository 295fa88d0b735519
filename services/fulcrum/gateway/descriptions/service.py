"""Reads indexes and descriptions; labels are those of the concepts, where people's come first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.description import NONE, ConceptDescription
from fulcrum.datasets.index import LatentIndex
from fulcrum.datasets.index.statistics import bin_edges
from fulcrum.domain.concepts import (
    CandidateLabel,
    ClassShare,
    DescribedLatent,
    LatentCard,
    LatentDetail,
    LatentHistogram,
    LatentHit,
    LatentMap,
    LatentNeighbour,
    LatentSort,
    TopImage,
)
from fulcrum.domain.errors import InvalidRequest, UnknownDescription, UnknownSae
from fulcrum.domain.records import (
    ConceptRecord,
    DescriptionRecord,
    IndexRecord,
    ModelRecord,
    Page,
    SaeRecord,
)
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.deps import PageParams
from fulcrum.gateway.descriptions.reading import ConceptFiles
from fulcrum.gateway.reach import reach
from fulcrum.store.concepts import Labelled
from fulcrum.store.database import Store
from fulcrum.store.paging import from_cursor, to_cursor

_WORD = "latent"  # of cursors
Top = str  # "max" or "mean"


@dataclass(frozen=True)
class Described:
    """A description with the labels as they are now, latent to label."""

    record: DescriptionRecord
    columns: ConceptDescription
    labels: dict[int, Labelled]
    sae: SaeRecord
    model: ModelRecord
    index: IndexRecord

    def label(self, latent: int) -> str | None:
        """What the latent is called; None where nobody called it anything, or took the word back."""
        found = self.labels.get(latent)
        return None if found is None else found.label or None


def described(
    store: Store, files: ConceptFiles, asker: Asker, sae_id: str, dataset_id: str | None
) -> Described:
    """The newest description of an SAE (from one data set). Raises UnknownSae, UnknownDescription."""
    with store.read() as tx:
        sae = reach(asker, tx, tx.saes, sae_id, "viewer", UnknownSae, "SAE")
        record = tx.descriptions.newest(sae_id, dataset_id)
        if record is None:
            raise UnknownDescription(
                f"the latents of SAE {sae.name!r} were not described yet: index a data set, then describe them"
            )
        labels = tx.concepts.labels(sae_id)
        model, index = tx.models.get(sae.model_id), tx.indexes.get(record.index_id)
    return Described(record, files.description(record), labels, sae, model, index)


def indexes(
    store: Store,
    asker: Asker,
    project_id: str | None,
    dataset_id: str | None,
    sae_id: str | None,
    page: PageParams,
) -> Page[IndexRecord]:
    """Raises UnknownProject."""
    with store.read() as tx:
        project = asker.project(tx, project_id, "viewer")
        return tx.indexes.list(
            project, limit=page.limit, cursor=page.cursor, dataset_id=dataset_id, sae_id=sae_id
        )


def descriptions(store: Store, asker: Asker, sae_id: str, page: PageParams) -> Page[DescriptionRecord]:
    """Raises UnknownSae."""
    with store.read() as tx:
        sae = reach(asker, tx, tx.saes, sae_id, "viewer", UnknownSae, "SAE")
        return tx.descriptions.list(sae.project_id, limit=page.limit, cursor=page.cursor, sae_id=sae_id)


def latents(
    about: Described,
    page: PageParams,
    sort: LatentSort,
    descending: bool,
    words: str | None,
    labelled_by: str | None,
    image_rate_max: float | None,
) -> Page[DescribedLatent]:
    """A page in the order asked for, equal ones by latent; what has no value stands at the end."""
    columns = about.columns
    numbers = np.asarray(columns["latents"])
    keep = np.ones(len(numbers), dtype=bool)
    if words:
        wanted = words.casefold()
        keep &= np.array([wanted in (about.label(int(n)) or "").casefold() for n in numbers], dtype=bool)
    if labelled_by is not None:
        named = {n for n, found in about.labels.items() if found.label and found.label_source == labelled_by}
        keep &= np.isin(numbers, np.array(sorted(named), dtype=np.int64))
    if image_rate_max is not None:
        keep &= _sorted_by(about, "image_rate") <= image_rate_max
    rows = np.flatnonzero(keep)
    values = _sorted_by(about, sort)[rows]
    order = rows[np.argsort(-values if descending else values, kind="stable")]  # nan sorts last either way
    start = 0 if page.cursor is None else from_cursor(page.cursor, _WORD, int)[0]
    if start < 0:
        raise InvalidRequest("cursor: expected the next_cursor of the page before, or nothing")
    shown = order[start : start + page.limit]
    more = start + page.limit < len(order)
    return Page(
        tuple(_summary(about, int(n)) for n in numbers[shown]),
        to_cursor(_WORD, start + page.limit) if more else None,
    )


def detail(about: Described, latent: int, concept: ConceptRecord | None) -> LatentDetail:
    """Raises LatentOutOfRange."""
    columns, row, summary = about.columns, about.columns.row(latent), _summary(about, latent)
    if row is None:
        return LatentDetail(
            about.record.id, summary, LatentHistogram((), ()), (), concept, (), None, (), (), None
        )
    counts = np.asarray(columns["histogram"][row])
    used = np.flatnonzero(counts)
    histogram = LatentHistogram(
        tuple(bin_edges()[used[0] : used[-1] + 2].tolist()), tuple(counts[used[0] : used[-1] + 1].tolist())
    )
    candidates = tuple(
        CandidateLabel(columns.vocabulary[number], float(score), float(margin))
        for number, score, margin in zip(
            columns["labels"][row].tolist(),
            columns["label_scores"][row],
            columns["label_margins"][row],
            strict=True,
        )
        if number != NONE
    )
    partner = int(columns["redundant_with"][row])
    return LatentDetail(
        description_id=about.record.id,
        summary=summary,
        histogram=histogram,
        candidates=candidates,
        concept=concept,
        classes=_classes(columns, row),
        dominant_p=_known(columns["dominant_p"][row]),
        cofiring=_neighbours(about, row, "cofiring"),
        decoder=_neighbours(about, row, "decoder"),
        redundant_with=None if partner == NONE else partner,
    )


def top_images(about: Described, index: LatentIndex, latent: int, by: Top, n: int) -> tuple[TopImage, ...]:
    """Up to n examples, best first; none of a dead latent. Raises LatentOutOfRange."""
    row = about.columns.row(latent)
    if row is None:
        return ()
    images = about.columns[f"top_{by}_images"][row][:n]
    values = about.columns[f"top_{by}_values"][row][:n]
    return tuple(
        _example(about, index, latent, int(image), float(value))
        for image, value in zip(images, values, strict=True)
        if image != NONE
    )


def cards(about: Described, index: LatentIndex, wanted: Sequence[int], n: int) -> list[LatentCard]:
    """One card for each latent, in the order asked for. Raises LatentOutOfRange."""
    return [LatentCard(_summary(about, m), top_images(about, index, m, "max", n)) for m in wanted]


def latent_map(about: Described) -> LatentMap:
    """Every latent that has a place."""
    columns, has = about.columns, about.columns.has_embedding
    numbers = columns["latents"][has].tolist()
    places = columns["places"][has]
    return LatentMap(
        description_id=about.record.id,
        latents=tuple(numbers),
        x=tuple(places[:, 0].tolist()),
        y=tuple(places[:, 1].tolist()),
        image_rate=tuple(_sorted_by(about, "image_rate")[has].tolist()),
        labels=tuple(about.label(n) or "" for n in numbers),
    )


def hits(about: Described, found: NDArray[np.int64], scores: NDArray[np.floating]) -> list[LatentHit]:
    """What a search found, with labels."""
    pairs = zip(found.tolist(), scores.tolist(), strict=True)
    return [LatentHit(n, float(score), about.label(n)) for n, score in pairs]


def _summary(about: Described, latent: int) -> DescribedLatent:
    columns, row = about.columns, about.columns.row(latent)
    name = about.labels.get(latent)
    labelled = name is not None and bool(name.label)
    label, source, score, review = name if name is not None and labelled else (None, None, None, None)
    if row is None:
        return DescribedLatent(
            latent, label, source, score, 0, 0.0, 0.0, 0.0, 0.0, 0.0, None, None, None, None, None, review
        )
    found_in, counts = columns.found_in, columns["class_counts"][row]
    n_labelled = int(counts.sum())
    return DescribedLatent(
        latent=latent,
        label=label,
        label_source=source,
        label_score=score,
        n_images_active=int(columns["n_images_active"][row]),
        image_rate=float(columns["n_images_active"][row] / found_in.n_images),
        token_rate=float(columns["n_tokens_active"][row] / (found_in.n_images * found_in.n_tokens)),
        max=float(columns["max"][row]),
        mean_active=float(columns["mean_active"][row]),
        p99=float(columns["p99"][row]),
        clarity=_known(columns["clarity"][row]),
        polysemanticity=_known(columns["polysemanticity"][row]),
        redundancy=_known(columns["redundancy"][row]),
        dominant_class=found_in.class_names[int(counts.argmax())] if n_labelled else None,
        purity=float(counts.max() / n_labelled) if n_labelled else None,
        label_review=review,
    )


def _sorted_by(about: Described, sort: LatentSort) -> NDArray[np.float64]:
    columns, found_in = about.columns, about.columns.found_in
    values: Any
    match sort:
        case "latent":
            values = columns["latents"]
        case "image_rate":
            values = columns["n_images_active"] / found_in.n_images
        case "token_rate":
            values = columns["n_tokens_active"] / (found_in.n_images * found_in.n_tokens)
        case "label_score":
            scores = {n: found.label_score for n, found in about.labels.items() if found.label}
            values = [np.nan if (s := scores.get(n)) is None else s for n in columns["latents"].tolist()]
        case "purity":
            counts = np.asarray(columns["class_counts"], dtype=np.float64)
            total = counts.sum(axis=1)
            values = np.full(len(columns), np.nan)
            known = total > 0
            if known.any():
                values[known] = counts[known].max(axis=1) / total[known]
        case _:
            values = columns[sort]
    return np.asarray(values, dtype=np.float64)


def _classes(columns: ConceptDescription, row: int) -> tuple[ClassShare, ...]:
    found_in, counts = columns.found_in, np.asarray(columns["class_counts"][row], dtype=np.int64)
    n_images = sum(found_in.class_counts)
    shares = []
    for c in np.argsort(-counts, kind="stable").tolist():
        if counts[c] == 0:
            break
        share = float(counts[c] / counts.sum())
        lift = share * n_images / found_in.class_counts[c]
        shares.append(ClassShare(found_in.class_names[c], int(counts[c]), share, lift))
    return tuple(shares)


def _neighbours(about: Described, row: int, column: str) -> tuple[LatentNeighbour, ...]:
    columns = about.columns
    joint = columns["cofiring_joint"][row].tolist() if column == "cofiring" else None
    return tuple(
        LatentNeighbour(n, float(score), about.label(n), None if joint is None else joint[i])
        for i, (n, score) in enumerate(
            zip(columns[column][row].tolist(), columns[f"{column}_scores"][row], strict=True)
        )
        if n != NONE
    )


def _example(about: Described, index: LatentIndex, latent: int, image: int, value: float) -> TopImage:
    found_in = about.columns.found_in
    tokens = index.image(image)
    of_token = np.repeat(np.arange(len(tokens.offsets) - 1), np.diff(tokens.offsets))
    z = np.zeros(found_in.n_tokens)
    mine = tokens.latents == latent
    z[of_token[mine]] = tokens.values[mine]
    patches = z[int(found_in.has_cls) :]
    rows, wide = found_in.grid
    peak = int(patches.argmax())
    return TopImage(
        dataset_id=about.index.dataset_id,
        dataset_digest=about.index.dataset_digest,
        image=image,
        value=value,
        peak_patch=peak if patches[peak] > 0 else None,
        on_cls=float(z[0]) if found_in.has_cls else 0.0,
        heatmap=tuple(tuple(line) for line in patches.reshape(rows, wide).tolist()),
    )


def _known(value: np.floating) -> float | None:
    return float(value) if np.isfinite(value) else None
