"""A correction with known effects on made-up images: what it fixes, breaks and moves is chosen."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fulcrum.science.validation.inputs import ValidationInput

CLASSES = ("cat", "dog", "car", "cup")


@dataclass(frozen=True)
class World:
    """Half the images carry the cue; `attack` of those are answered wrongly for it."""

    base: NDArray[np.float64]
    corrected: NDArray[np.float64]
    labels: NDArray[np.int64]
    target: NDArray[np.bool_]

    def given(self, split: str = "confirm", **more: Any) -> ValidationInput:
        fields: dict[str, Any] = {
            "base_logits": self.base,
            "corrected_logits": self.corrected,
            "labels": self.labels,
            "class_names": CLASSES,
            "split": split,
            "target": self.target,
            "groups": {
                "sticker": np.where(self.target, "word", "none"),
                "third": np.array(["a", "b", "c"])[np.arange(len(self.labels)) % 3],
            },
            "control_gains": {"matched_latents": np.linspace(-0.02, 0.02, 100)},
        }
        return ValidationInput(**{**fields, **more})


def world(
    n: int = 2000,
    attack: float = 0.6,
    fixed: float = 0.6,
    broken: float = 0.0,
    moved: float = 0.0,
    seed: int = 0,
) -> World:
    """Shares: `fixed` of the attacked failures, `broken` of the right images without the cue."""
    rng = np.random.default_rng(seed)
    c = len(CLASSES)
    labels = np.arange(n) % c
    at = np.arange(n)
    target = (at // c) % 2 == 0
    base = rng.normal(scale=0.3, size=(n, c))
    base[at, labels] += 4.0
    word, other = (labels + 1) % c, (labels + 2) % c

    def some(of: NDArray[np.bool_], share: float) -> NDArray[np.intp]:
        chosen = rng.permutation(np.flatnonzero(of))
        return chosen[: round(share * len(chosen))]

    hit = some(target, attack)
    base[hit, word[hit]] += 8.0
    corrected = base.copy()
    failures = np.zeros(n, dtype=np.bool_)
    failures[hit] = True
    mended = some(failures, fixed)
    corrected[mended, word[mended]] -= 8.0
    failures[mended] = False
    shifted = some(failures, moved)
    corrected[shifted, other[shifted]] += 12.0
    lost = some(~target, broken)
    corrected[lost, other[lost]] += 8.0
    return World(base, corrected, labels, target)
