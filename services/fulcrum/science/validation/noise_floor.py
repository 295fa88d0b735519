"""What the machine does by itself: the base model run twice, and the correction that changes nothing."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from fulcrum.domain.errors import InvalidInput
from fulcrum.science.validation.flips import predictions
from fulcrum.science.validation.gates import Gate


@dataclass(frozen=True)
class NoiseFloor:
    """Base against base at another batch size: answers that changed, and the largest change of any logit."""

    n: int
    n_changed: int
    max_logit_change: float


def noise_floor(base: Float[np.ndarray, "n c"], repeat: Float[np.ndarray, "m k"]) -> NoiseFloor:
    """The floor of these images. Raises InvalidInput when the two runs have different shapes."""
    if base.shape != repeat.shape:
        raise InvalidInput(
            f"the repeated run has logits {repeat.shape}, the base run {base.shape}: they must agree"
        )
    return NoiseFloor(
        n=len(base),
        n_changed=int((predictions(base) != predictions(repeat)).sum()),
        max_logit_change=float(np.abs(base - repeat).max()) if base.size else 0.0,
    )


def below_floor(
    base: Float[np.ndarray, "n c"], corrected: Float[np.ndarray, "n c"], floor: NoiseFloor | None
) -> Bool[np.ndarray, " n"]:
    """Images whose answer changed although no logit moved further than the repeated run moves them."""
    changed = predictions(base) != predictions(corrected)
    if floor is None or floor.max_logit_change == 0:
        return np.zeros(len(base), dtype=np.bool_)
    return np.asarray(
        changed & (np.abs(base - corrected).max(axis=1) <= floor.max_logit_change), dtype=np.bool_
    )


def noise_gate(floor: NoiseFloor, n_changed: int) -> Gate:
    """Fails when the correction changes answers, but no more of them than running the base model again."""
    drowned = 0 < n_changed <= floor.n_changed
    return Gate(
        "noise_floor",
        "precondition",
        "fail" if drowned else "pass",
        f"{n_changed} answers changed, {floor.n_changed} by repeating the base run"
        f" (largest logit change {floor.max_logit_change:.3g})",
        estimate=float(n_changed),
        margin=float(floor.n_changed),
        n=floor.n,
        population="evaluated images",
    )


def identity_gate(base: Float[np.ndarray, "n c"], identity: Float[np.ndarray, "m k"]) -> Gate:
    """Passes when the identity correction changes no answer. Raises InvalidInput for different shapes."""
    if base.shape != identity.shape:
        raise InvalidInput(
            f"the identity run has logits {identity.shape}, the base run {base.shape}: they must agree"
        )
    n_changed = int((predictions(base) != predictions(identity)).sum())
    return Gate(
        "identity",
        "precondition",
        "pass" if n_changed == 0 else "fail",
        f"the identity correction changed {n_changed} answers of {len(base)}",
        estimate=float(n_changed),
        margin=0.0,
        n=len(base),
        population="evaluated images",
    )
