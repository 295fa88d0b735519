"""One row per image: the table from which every figure of a report can be recomputed, and is computed."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fulcrum.domain.errors import InvalidDataset, InvalidInput, InvalidSettings
from fulcrum.science.validation.arrays import (
    UNLABELLED,
    check_classes,
    check_length,
    check_logits,
    check_mask,
)
from fulcrum.science.validation.calibration import probability_columns
from fulcrum.science.validation.flips import outcomes, predictions
from fulcrum.science.validation.groups import Texts, group_values
from fulcrum.science.validation.image_sets import set_columns
from fulcrum.science.validation.inputs import ValidationInput
from fulcrum.science.validation.noise_floor import below_floor, noise_floor
from fulcrum.science.validation.ripple import embedding_drift, kl_divergence
from fulcrum.science.validation.specification import Specification
from fulcrum.science.validation.verdict import SPLITS

GROUP_PREFIX = "group:"

# What every table holds; `embedding_drift`, `group:<name>` and `set:<name>` columns follow where they were given.
COLUMNS: dict[str, str] = {
    "id": "name of the image; its row number where none was given",
    "split": "split of the image",
    "label": "class number, -1 unlabelled",
    "base_prediction": "class number",
    "corrected_prediction": "class number; the base prediction where the change is below the noise floor",
    "outcome": "index into flips.OUTCOMES",
    "below_floor": "the answer changed, but no logit moved further than noise moves it",
    "found_on": "seen when the correction was made",
    "leaked": "shares a cluster with an image that was seen",
    "evaluated": "of the judged split, neither seen nor leaked",
    "target": "the failure mode's cue is there",
    "condition_met": "the correction's condition holds",
    "same_class_without_cue": "neighbourhood of specificity",
    "same_cue_legitimate": "neighbourhood of specificity",
    "should_not_move": "outside the failure mode; without one, images that the base model has right",
    "cluster": "number of the duplicate cluster, the row number where none was given",
    "base_confidence": "probability of the answer",
    "corrected_confidence": "probability of the answer",
    "base_log_loss": "nats, nan where unlabelled",
    "corrected_log_loss": "nats, nan where unlabelled",
    "base_brier": "0 .. 2, nan where unlabelled",
    "corrected_brier": "0 .. 2, nan where unlabelled",
    "base_margin": "logit of the label (of the base prediction where unlabelled) over the best other",
    "corrected_margin": "the same classes' margin after; cards are sorted by the change",
    "kl": "KL(base || corrected), nats at the specification's temperature",
}

PerImage = dict[str, NDArray[Any]]


def per_image(given: ValidationInput, spec: Specification) -> PerImage:
    """All COLUMNS as arrays of n values. Checks everything that enters; raises domain errors only."""
    base = check_logits("base_logits", given.base_logits)
    corrected = check_logits("corrected_logits", given.corrected_logits)
    n, n_classes = base.shape
    if base.shape != corrected.shape:
        raise InvalidInput(
            f"base logits {base.shape} and corrected logits {corrected.shape} must have one shape"
        )
    if n == 0:
        raise InvalidDataset("no images: at least one is needed")
    if len(given.class_names) != n_classes:
        raise InvalidInput(f"{len(given.class_names)} class names for logits of {n_classes} classes")
    if given.split not in SPLITS:
        raise InvalidSettings(f"split {given.split!r} must be one of {list(SPLITS)}")
    labels = np.full(n, UNLABELLED, dtype=np.int64)
    if given.labels is not None:
        check_length("labels", given.labels, n)
        labels = check_classes("labels", given.labels, n_classes, lowest=UNLABELLED)

    floor = None
    if given.repeat_logits is not None:
        floor = noise_floor(base, check_logits("repeat_logits", given.repeat_logits))
    was = predictions(base)
    hushed = below_floor(base, corrected, floor)
    now = np.where(hushed, was, predictions(corrected))

    table: PerImage = {
        "id": _ids(given, n),
        "split": _splits(given, n),
        "label": labels,
        "base_prediction": was,
        "corrected_prediction": now,
        "outcome": outcomes(labels, was, now),
        "below_floor": hushed,
    }
    table |= _roles(given, table, n)
    for name, logits in (("base", base), ("corrected", corrected)):
        scores = probability_columns(logits, labels, spec.temperature)
        table[f"{name}_confidence"] = scores.confidence
        table[f"{name}_log_loss"] = scores.log_loss
        table[f"{name}_brier"] = scores.brier
        table[f"{name}_margin"] = _margin(logits, np.where(labels == UNLABELLED, was, labels))
    table["kl"] = kl_divergence(base, corrected, spec.temperature)
    if (given.base_embeddings is None) != (given.corrected_embeddings is None):
        raise InvalidInput("embeddings were given for one of base and corrected: both or none are needed")
    if given.base_embeddings is not None and given.corrected_embeddings is not None:
        check_length("base_embeddings", given.base_embeddings, n)
        table["embedding_drift"] = embedding_drift(given.base_embeddings, given.corrected_embeddings)
    for name, values in given.groups.items():
        table[GROUP_PREFIX + name] = group_values(name, values, n)
    return table | set_columns(given.image_sets, n)


def group_columns(table: PerImage) -> dict[str, Texts]:
    """The group columns under their own names."""
    return {k.removeprefix(GROUP_PREFIX): v for k, v in table.items() if k.startswith(GROUP_PREFIX)}


def rows(table: PerImage, chosen: NDArray[Any]) -> PerImage:
    """The rows of a mask or of row numbers."""
    return {name: column[chosen] for name, column in table.items()}


def _ids(given: ValidationInput, n: int) -> Texts:
    if given.image_ids is None:
        return np.arange(n).astype(np.str_)
    check_length("image_ids", given.image_ids, n)
    ids = np.asarray(given.image_ids, dtype=np.str_)
    if len(np.unique(ids)) < n:
        values, counts = np.unique(ids, return_counts=True)
        raise InvalidDataset(f"image ids must differ; more than once: {values[counts > 1][:5].tolist()}")
    return ids


def _splits(given: ValidationInput, n: int) -> Texts:
    if given.splits is None:
        return np.full(n, given.split)
    check_length("splits", given.splits, n)
    return np.asarray(given.splits, dtype=np.str_)


def _roles(given: ValidationInput, table: PerImage, n: int) -> PerImage:
    def mask(name: str, default: bool) -> NDArray[np.bool_]:
        values = getattr(given, name)
        return np.full(n, default) if values is None else check_mask(name, values, n)

    clusters = np.arange(n)
    if given.clusters is not None:
        check_length("clusters", given.clusters, n)
        names = np.array(["" if c is None else str(c) for c in given.clusters], dtype=np.str_)
        # A blank cluster (no pair_id) is an image by itself, not one big cluster of all such images.
        _, ids = np.unique(names, return_inverse=True)
        clusters = np.where(names == "", n + np.arange(n), ids)
        clusters = np.unique(clusters, return_inverse=True)[1]
    seen = mask("seen", False)
    if given.split != "discover":
        seen = seen | (table["split"] == "discover")
    leaked = np.isin(clusters, np.unique(clusters[seen])) & ~seen
    target, labels = mask("target", True), table["label"]
    known = labels != UNLABELLED
    if given.same_class_without_cue is None and given.target is not None:
        without_cue = ~target & known & np.isin(labels, np.unique(labels[target & known]))
    else:
        without_cue = mask("same_class_without_cue", False)
    return {
        "found_on": seen,
        "leaked": leaked,
        "evaluated": (table["split"] == given.split) & ~seen & ~leaked,
        "target": target,
        "condition_met": mask("condition_met", True),
        "same_class_without_cue": without_cue,
        "same_cue_legitimate": mask("same_cue_legitimate", False),
        "should_not_move": ~target
        if given.target is not None
        else known & (table["base_prediction"] == labels),
        "cluster": clusters.astype(np.int64),
    }


def _margin(logits: NDArray[np.float64], wanted: NDArray[np.int64]) -> NDArray[np.float64]:
    if logits.shape[1] < 2:
        return np.full(len(logits), np.inf)
    at = np.arange(len(logits))
    top_two = np.partition(logits, -2, axis=1)[:, -2:]
    value = logits[at, wanted]
    # The best other class is the runner-up where the wanted class is on top, else the top.
    best_other = np.where(value >= top_two[:, 1], top_two[:, 0], top_two[:, 1])
    return np.asarray(value - best_other, dtype=np.float64)
