"""The flip table: what a correction changed, image by image."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from fulcrum.domain.errors import InvalidDataset
from fulcrum.science.validation.arrays import UNLABELLED, check_classes, check_counts, check_length

OUTCOMES = ("still_right", "broken", "fixed", "still_wrong", "moved", "changed", "unchanged")
STILL_RIGHT, BROKEN, FIXED, STILL_WRONG, MOVED, CHANGED, UNCHANGED = range(7)


def predictions(logits: Float[np.ndarray, "n n_classes"]) -> Int[np.ndarray, " n"]:
    """The class with the largest logit; the first of equal ones."""
    return np.asarray(logits.argmax(axis=1), dtype=np.int64)


def outcomes(
    labels: Int[np.ndarray, " n"], base: Int[np.ndarray, " n"], corrected: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """One index into OUTCOMES per image; unlabelled images are only CHANGED or UNCHANGED."""
    was, now, same = base == labels, corrected == labels, base == corrected
    return np.select(
        [labels == UNLABELLED, was & now, was, now, same],
        [np.where(same, UNCHANGED, CHANGED), STILL_RIGHT, BROKEN, FIXED, STILL_WRONG],
        default=MOVED,
    ).astype(np.int64)


@dataclass(frozen=True)
class FlipTable:
    """Counts of a paired comparison.

    `moved` are wrong before and after with another answer, part of `still_wrong`. `n` counts labelled images:
    still_right + broken + fixed + still_wrong. `n_unlabelled` images are known only as `changed_unlabelled`
    or not; they enter no rate. Rates are shares in [0, 1].
    """

    still_right: int
    broken: int
    fixed: int
    still_wrong: int
    moved: int = 0
    n_unlabelled: int = 0
    changed_unlabelled: int = 0

    def __post_init__(self) -> None:
        check_counts(
            still_right=self.still_right,
            broken=self.broken,
            fixed=self.fixed,
            still_wrong=self.still_wrong,
            moved=self.moved,
            changed_unlabelled=self.changed_unlabelled,
        )
        if self.moved > self.still_wrong or self.changed_unlabelled > self.n_unlabelled:
            raise InvalidDataset(f"more changed than there are: {self}")
        if self.n + self.n_unlabelled == 0:
            raise InvalidDataset("a flip table of no images: at least one is needed")

    @property
    def n(self) -> int:
        """Labelled images."""
        return self.still_right + self.broken + self.fixed + self.still_wrong

    @property
    def discordant(self) -> int:
        """Images whose correctness changed."""
        return self.broken + self.fixed

    @property
    def changed(self) -> int:
        """Images with another answer, labelled or not."""
        return self.broken + self.fixed + self.moved + self.changed_unlabelled

    @property
    def accuracy_before(self) -> float:
        """Share of labelled images that the base model has right."""
        return (self.still_right + self.broken) / self._labelled()

    @property
    def accuracy_after(self) -> float:
        """Share of labelled images that the corrected model has right."""
        return (self.still_right + self.fixed) / self._labelled()

    @property
    def pfr(self) -> float:
        """Positive flip rate, fixed / n."""
        return self.fixed / self._labelled()

    @property
    def nfr(self) -> float:
        """Negative flip rate, broken / n (Yan et al. 2021)."""
        return self.broken / self._labelled()

    @property
    def net(self) -> float:
        """Net gain, PFR - NFR: the change of accuracy."""
        return (self.fixed - self.broken) / self._labelled()

    @property
    def relative_nfr(self) -> float | None:
        """NFR / ((1 - ER_old) ER_new): 1 is what two independent models of these error rates would break.

        None where that expectation is 0 (the base model has nothing right, or the corrected nothing wrong).
        """
        expected = self.accuracy_before * (1.0 - self.accuracy_after)
        return None if expected == 0 else self.nfr / expected

    @property
    def fix_break_ratio(self) -> float:
        """(fixed + 0.5) / (broken + 0.5)."""
        return (self.fixed + 0.5) / (self.broken + 0.5)

    def _labelled(self) -> int:
        if self.n == 0:
            raise InvalidDataset(
                f"none of the {self.n_unlabelled} images is labelled; only changed can be counted"
            )
        return self.n


def flip_table(
    labels: Int[np.ndarray, " n"] | None,
    base: Int[np.ndarray, " m"],
    corrected: Int[np.ndarray, " k"],
    n_classes: int | None = None,
) -> FlipTable:
    """Counts flips of predicted classes; `labels` None or UNLABELLED (-1) leave only `changed` to count.

    Raises InvalidInput for lengths that differ and InvalidDataset for no images or classes outside the class
    set (checked where `n_classes` is given).
    """
    check_length("corrected predictions", corrected, len(base))
    if labels is None:
        labels = np.full(len(base), UNLABELLED, dtype=np.int64)
    check_length("labels", labels, len(base))
    if n_classes is not None:
        labels = check_classes("labels", labels, n_classes, lowest=UNLABELLED)
        base = check_classes("base predictions", base, n_classes)
        corrected = check_classes("corrected predictions", corrected, n_classes)
    return table_of_outcomes(outcomes(labels, base, corrected))


def table_of_outcomes(outcome: Int[np.ndarray, " n"]) -> FlipTable:
    """The table of images whose `outcomes` are known."""
    counts = [int(c) for c in np.bincount(outcome, minlength=len(OUTCOMES))]
    return FlipTable(
        still_right=counts[STILL_RIGHT],
        broken=counts[BROKEN],
        fixed=counts[FIXED],
        still_wrong=counts[STILL_WRONG] + counts[MOVED],
        moved=counts[MOVED],
        n_unlabelled=counts[CHANGED] + counts[UNCHANGED],
        changed_unlabelled=counts[CHANGED],
    )
