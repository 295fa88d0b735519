"""Several corrections alone and in pairs on a split of a data set: what they break together."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.clusters import clusters_of
from fulcrum.domain.corrections import Correction, together
from fulcrum.domain.errors import InvalidDataset, InvalidEdit
from fulcrum.engine.dataset_runs import DatasetRun, Numbers
from fulcrum.engine.local import check_correction
from fulcrum.engine.validating import corrected_answers
from fulcrum.engine.validation_parts import IMAGES_PER_PART, AnswersPart, answers_parts, unpacked
from fulcrum.science.steering.edits import EditPlan, check_plan
from fulcrum.science.validation.comparison import paired_p
from fulcrum.science.validation.flips import BROKEN, FIXED, outcomes
from fulcrum.science.validation.interactions import Interaction, interactions


@dataclass(frozen=True)
class InteractionPlan:
    """`corrections` by name, alone and (named "a + b") in pairs; `refused` are the pairs that are no correction."""

    numbers: Numbers
    corrections: dict[str, Correction]
    pairs: dict[tuple[str, str], str]  # to the name of both together
    refused: dict[tuple[str, str], str]  # to the reason
    answers: dict[str, tuple[AnswersPart, ...]]

    @property
    def parts(self) -> tuple[AnswersPart, ...]:
        """All of them, each once, in the order in which `judge_interactions` takes their results."""
        return tuple(dict.fromkeys(p for parts in self.answers.values() for p in parts))


@dataclass(frozen=True)
class Alone:
    """A correction (or a pair as one) on the judged images. `p` is exact McNemar."""

    name: str
    correction_sha256: str
    fixed: int
    broken: int
    nfr: float
    net: float
    p: float


def plan_interactions(
    run: DatasetRun,
    corrections: Mapping[str, Correction],
    split: str,
    where: NDArray[np.bool_] | None = None,
    images_per_part: int = IMAGES_PER_PART,
) -> InteractionPlan:
    """The parts of a question; no forward pass. Images on which any of the corrections was found are left out.

    Raises InvalidDataset when no labelled image is left, InvalidEdit when no pair is a correction, and what a
    correction that cannot act raises.
    """
    numbers = _judged(run, corrections, split, where)
    pairs, refused = {}, {}
    everything = dict(corrections)
    for first, second in itertools.combinations(corrections, 2):
        name = f"{first} + {second}"
        try:
            everything[name] = together(corrections[first], corrections[second])
            pairs[first, second] = name
        except InvalidEdit as error:
            refused[first, second] = str(error)
    if not pairs:
        raise InvalidEdit(
            f"none of the pairs can act together: {next(iter(refused.values()), 'there is none')}"
        )
    answers = {}
    for name, correction in everything.items():
        check_correction(run.steerable, correction)
        plan = EditPlan.of(correction)
        check_plan(run.steerable.tower, run.steerable.sae, plan)
        answers[name] = tuple(answers_parts(run, plan, [split], images_per_part))
    return InteractionPlan(numbers, everything, pairs, refused, answers)


def judge_interactions(
    run: DatasetRun, planned: InteractionPlan, results: Sequence[bytes], seed: int = 0
) -> tuple[tuple[Alone, ...], tuple[Interaction, ...]]:
    """Each correction and pair by itself, and the interactions, from the results of the parts in their order."""
    stored = dict(zip(planned.parts, (unpacked(r) for r in results), strict=True))
    numbers = planned.numbers
    base_embeddings = run.base_embeddings_of(numbers).cpu().numpy()
    base = run.base_logits_of(numbers)
    labels, was = run.labels[numbers], base.argmax(axis=1)
    clusters = clusters_of(run.dataset)[numbers]
    predictions: dict[str, NDArray[np.int64]] = {}
    alone = []
    for name, parts in planned.answers.items():
        _, logits = corrected_answers(run, numbers, base_embeddings, base, [stored[p] for p in parts])
        predictions[name] = logits.argmax(axis=1)
        outcome = outcomes(labels, was, predictions[name])
        fixed, broken = int((outcome == FIXED).sum()), int((outcome == BROKEN).sum())
        alone.append(
            Alone(
                name,
                planned.corrections[name].sha256,
                fixed,
                broken,
                broken / len(numbers),
                (fixed - broken) / len(numbers),
                paired_p(outcome, clusters)[0],
            )
        )
    both = {pair: predictions[name] for pair, name in planned.pairs.items()}
    singles = {name: p for name, p in predictions.items() if name not in planned.pairs.values()}
    return tuple(alone), interactions(labels, was, singles, both, clusters, seed=seed)


def _judged(
    run: DatasetRun, corrections: Mapping[str, Correction], split: str, where: NDArray[np.bool_] | None
) -> Numbers:
    dataset = run.dataset
    inside = (dataset.splits == split) & (run.labels >= 0)
    if where is not None:
        inside &= where
    found_on: set[Any] = {sha256 for c in corrections.values() for sha256 in c.origin.image_sha256}
    clusters = clusters_of(run.dataset)
    seen = np.array([sha256 in found_on for sha256 in dataset.bytes_sha256], dtype=bool)
    inside &= ~np.isin(clusters, clusters[seen])
    if not inside.any():
        raise InvalidDataset(
            f"no unseen labelled image of {dataset.name!r} is left to judge in split {split!r}: it has "
            f"{list(dataset.split_names)}"
        )
    return np.flatnonzero(inside).astype(np.int64)
