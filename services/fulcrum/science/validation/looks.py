"""How often a split was looked at: unlimited on discover, counted on select, sealed on confirm."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fulcrum.domain.errors import InvalidSettings
from fulcrum.science.validation.multiplicity import adjust
from fulcrum.science.validation.verdict import SPLITS, Split


@dataclass(frozen=True)
class Look:
    """One evaluation of one correction version on one split.

    `p` is that of its net gain on the failure mode.
    """

    correction_sha256: str
    dataset_digest: str
    split: Split
    p: float


@dataclass(frozen=True)
class Looks:
    """All looks so far, oldest first: append-only, kept by whoever stores evaluations."""

    looks: tuple[Look, ...] = ()

    def record(self, look: Look) -> "Looks":
        """These looks and one more. Raises InvalidSettings for an unknown split or an impossible p."""
        if look.split not in SPLITS:
            raise InvalidSettings(f"split {look.split!r} must be one of {list(SPLITS)}")
        if not 0 <= look.p <= 1:
            raise InvalidSettings(f"p={look.p} of a look must lie in [0, 1]")
        return Looks((*self.looks, look))

    def confirm_look(self, correction_sha256: str, dataset_digest: str) -> int:
        """Number of the *next* look of this correction version at confirm: 1 while the split is sealed."""
        return 1 + sum(
            1
            for look in self.looks
            if look.split == "confirm"
            and (look.correction_sha256, look.dataset_digest) == (correction_sha256, dataset_digest)
        )

    def selection(
        self, correction_sha256: str, dataset_digest: str, method: Literal["bh", "by"] = "bh"
    ) -> "Selection | None":
        """How this correction fared among all that were tried on select.

        None if it was not looked at there.
        """
        tried = [x for x in self.looks if x.split == "select" and x.dataset_digest == dataset_digest]
        return select(tried, correction_sha256, method)


@dataclass(frozen=True)
class Selection:
    """One correction among the `n_corrections` tried on select in `n_looks` looks.

    `q` is adjusted over them.
    """

    n_looks: int
    n_corrections: int
    p: float
    q: float


def select(
    tried: Sequence[Look], correction_sha256: str, method: Literal["bh", "by"] = "bh"
) -> Selection | None:
    """Adjusts over correction versions.

    Looking again at one is no new hypothesis and must not dilute the others.
    """
    latest = {look.correction_sha256: look.p for look in tried}
    if correction_sha256 not in latest:
        return None
    names = list(latest)
    q = adjust(np.array([latest[name] for name in names]), method)
    return Selection(
        len(tried), len(names), latest[correction_sha256], float(q[names.index(correction_sha256)])
    )
