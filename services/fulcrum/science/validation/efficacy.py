"""Does the correction fix its failure mode, also where it was not found, and leave the neighbours alone?"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from fulcrum.domain.errors import InvalidInput
from fulcrum.science.validation.intervals import Interval, clopper_pearson


@dataclass(frozen=True)
class Share:
    """`count` of `n` images, with its exact interval; None where the question was put to no image."""

    count: int
    n: int
    share: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Efficacy:
    """E, G and Sp, each with the images it rests on.

    * `efficacy` E: share fixed of the target failures on which the correction was found.
    * `generalisation` G: share fixed of *executed* unseen images of the failure mode: the base model is wrong
      there and the correction's condition holds. Others are not executed, not failed: `n_base_right`,
      `n_condition_off`.
    * `coverage`: executed of all unseen images of the failure mode. A narrow condition cannot hide behind G,
      because `fixed_of_failures` counts the base failures with the condition off as well.
    * specificity: share that stays right of the images that were right, in each neighbourhood; Sp is the
      lower one, because a mean would hide a neighbourhood that was destroyed.
    * `score`: harmonic mean of E, G and Sp, 0 if any is 0, None if any was not measured.
    """

    efficacy: Share
    generalisation: Share
    coverage: Share
    n_base_right: int
    n_condition_off: int
    fixed_of_failures: Share
    same_class_without_cue: Share
    same_cue_legitimate: Share
    specificity: float | None
    score: float | None


def share_of(hit: Bool[np.ndarray, " n"], among: Bool[np.ndarray, " n"], level: float) -> Share:
    """Share of the images in `among` that are hit."""
    n = int(among.sum())
    count = int((hit & among).sum())
    if n == 0:
        return Share(0, 0, None, None)
    return Share(count, n, count / n, clopper_pearson(count, n, level))


def harmonic_score(*shares: float | None) -> float | None:
    """`k / sum(1 / share)`; 0 if any share is 0, None if any is missing."""
    present = [s for s in shares if s is not None]
    if len(present) < len(shares) or not present:
        return None
    if any(not 0 <= s <= 1 for s in present):
        raise InvalidInput(f"shares must lie in [0, 1], got {present}")
    return 0.0 if min(present) == 0 else len(present) / sum(1 / s for s in present)


def measure_efficacy(
    right_before: Bool[np.ndarray, " n"],
    right_after: Bool[np.ndarray, " n"],
    target: Bool[np.ndarray, " n"],
    found_on: Bool[np.ndarray, " n"],
    evaluated: Bool[np.ndarray, " n"],
    condition_met: Bool[np.ndarray, " n"],
    same_class_without_cue: Bool[np.ndarray, " n"] | None,
    same_cue_legitimate: Bool[np.ndarray, " n"] | None,
    level: float = 0.95,
) -> Efficacy:
    """Measures labelled images.

    `target`: the failure mode's cue is there; `found_on`: seen when the correction was made; `evaluated`:
    unseen and of the judged split. Raises InvalidInput when an image is both found on and evaluated.
    """
    if (found_on & evaluated).any():
        raise InvalidInput("an image on which the correction was found cannot count as unseen")
    nobody = np.zeros(len(target), dtype=np.bool_)
    unseen = target & evaluated
    executed = unseen & ~right_before & condition_met
    generalisation = share_of(right_after, executed, level)
    efficacy = share_of(right_after, target & found_on & ~right_before, level)
    neighbours = [
        share_of(right_after, evaluated & right_before & (nobody if mask is None else mask), level)
        for mask in (same_class_without_cue, same_cue_legitimate)
    ]
    measured = [s.share for s in neighbours if s.share is not None]
    specificity = min(measured) if measured else None
    return Efficacy(
        efficacy=efficacy,
        generalisation=generalisation,
        coverage=share_of(executed, unseen, level),
        n_base_right=int((unseen & right_before).sum()),
        n_condition_off=int((unseen & ~right_before & ~condition_met).sum()),
        fixed_of_failures=share_of(right_after, unseen & ~right_before, level),
        same_class_without_cue=neighbours[0],
        same_cue_legitimate=neighbours[1],
        specificity=specificity,
        score=harmonic_score(efficacy.share, generalisation.share, specificity),
    )
