"""Would any push of this size have done it?"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from fulcrum.domain.errors import ComputationFailed, InvalidInput
from fulcrum.science.validation.arrays import check_share
from fulcrum.science.validation.gates import Gate


@dataclass(frozen=True)
class ControlResult:
    """The correction's net gain on the failure mode against the gains of one kind of control.

    `p` is `(1 + controls at least as good) / (1 + n_controls)`. `p95` stands at the percentile of the
    specification and is one of the controls (the next higher), so that exceeding it and a small p say the
    same. `gains` are those of all controls, for their histogram.
    """

    kind: str
    n_controls: int
    gain: float
    median: float
    p95: float
    best: float
    exceeded: bool
    p: float
    gains: tuple[float, ...] = ()


def rank_p(value: float, controls: Float[np.ndarray, " n_controls"]) -> float:
    """`(1 + #controls >= value) / (1 + n)`: never 0 (Phipson and Smyth 2010)."""
    return float((1 + (controls >= value).sum()) / (1 + len(controls)))


def against_controls(
    kind: str, gain: float, controls: Float[np.ndarray, " n_controls"], percentile: float = 95.0
) -> ControlResult:
    """Compares one gain with the gains of its controls, on the same images.

    Raises InvalidInput for no control.
    """
    if len(controls) == 0:
        raise InvalidInput(f"no controls of kind {kind!r}: at least one is needed")
    if not np.isfinite(controls).all():
        raise ComputationFailed(f"gains of the controls of kind {kind!r} hold nan or infinity")
    threshold = float(
        np.quantile(controls, check_share("percentile / 100", percentile / 100), method="higher")
    )
    return ControlResult(
        kind=kind,
        n_controls=len(controls),
        gain=gain,
        median=float(np.median(controls)),
        p95=threshold,
        best=float(controls.max()),
        exceeded=bool(gain > threshold),
        p=rank_p(gain, controls),
        gains=tuple(controls.tolist()),
    )


def gains_of_predictions(
    labels: Int[np.ndarray, " n"], base: Int[np.ndarray, " n"], controls: Int[np.ndarray, "n_controls n"]
) -> Float[np.ndarray, " n_controls"]:
    """Net gain of every control over the base on these (labelled) images."""
    return np.asarray((controls == labels).mean(axis=1) - (base == labels).mean(), dtype=np.float64)


def control_gate(results: Mapping[str, ControlResult] | tuple[ControlResult, ...], min_controls: int) -> Gate:
    """Passes when every kind with at least `min_controls` draws is exceeded, and fails when one is not.

    Kinds with fewer draws (the latents ranked k+1 .. 2k are few by nature) are shown and decide nothing; with
    no kind large enough the gate is undecided.
    """
    all_results = tuple(results.values()) if isinstance(results, Mapping) else results
    large = [r for r in all_results if r.n_controls >= min_controls]
    if not large:
        most = max((r.n_controls for r in all_results), default=0)
        return Gate(
            "controls",
            "benefit",
            "undecided",
            f"{most} matched controls of one kind: at least {min_controls} are needed",
            population="controls",
            n=most,
        )
    hardest = max(large, key=lambda r: (not r.exceeded, r.p95))
    passed = all(r.exceeded for r in large)
    return Gate(
        "controls",
        "benefit",
        "pass" if passed else "fail",
        f"net gain {hardest.gain:+.4f} {'exceeds' if passed else 'does not exceed'} "
        f"the 95th percentile {hardest.p95:+.4f}"
        f" of {hardest.n_controls} controls ({hardest.kind}), p = {hardest.p:.3g}",
        estimate=hardest.gain,
        low=hardest.gain,
        high=hardest.gain,
        margin=hardest.p95,
        n=hardest.n_controls,
        population="controls",
    )


def check_controls(gains: Mapping[str, NDArray[Any]]) -> dict[str, Float[np.ndarray, " n_controls"]]:
    """Gains per kind as float64. Raises InvalidInput for another shape or impossible gains."""
    checked = {}
    for kind, values in gains.items():
        array = np.asarray(values, dtype=np.float64)
        if array.ndim != 1 or (array.size and not (math.fabs(np.nanmax(np.abs(array))) <= 1)):
            raise InvalidInput(
                f"control gains of kind {kind!r} must be shares of shape (n_controls,) within [-1, 1]"
            )
        checked[kind] = array
    return checked
