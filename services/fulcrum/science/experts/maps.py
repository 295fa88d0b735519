"""Units that know a concept get other values: one affine map for each, `x' = scale x + shift`.

set to       x' = on_p50                       generative forcing (Suau et al. 2022)
damped       x' = (1 - 2 (AUROC - 0.5)) x      AurA (Suau et al. 2024); units with AUROC <= 0.5 stay
transported  x' = T(x), from the responses without the concept to those with it (Rodriguez et al. 2024):
             mean      x + mean_on - mean_off
             gaussian  (x - mean_off) sd_on / sd_off + mean_on
             linear    least squares between the sorted responses (Linear-AcT)

A `strength` of 0 changes nothing, 1 is the map itself.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from fulcrum.domain.edits import Add, Affine, Edit, Scale, SetTo
from fulcrum.domain.errors import InvalidEdit

MomentTransport = Literal["mean", "gaussian"]
Transport = Literal["mean", "gaussian", "linear"]


@dataclass(frozen=True, eq=False)
class UnitMaps:
    """`x' = scale x + shift` for some units of a layer; the others stay."""

    units: Int[np.ndarray, " n"]
    scale: Float[np.ndarray, " n"]
    shift: Float[np.ndarray, " n"]

    def __post_init__(self) -> None:
        if not len(self.units) == len(self.scale) == len(self.shift):
            raise InvalidEdit(
                f"{len(self.units)} units, {len(self.scale)} scales and {len(self.shift)} shifts: one of each"
            )
        if len(np.unique(self.units)) < len(self.units):
            raise InvalidEdit("each unit of a layer can be steered once")
        if not (np.isfinite(self.scale).all() and np.isfinite(self.shift).all()):
            raise InvalidEdit("a unit's map holds nan or infinity")

    def with_strength(self, strength: float) -> "UnitMaps":
        """The way to the map that is gone: 0 none of it, 1 all, more goes beyond."""
        return UnitMaps(self.units, 1 + strength * (self.scale - 1), strength * self.shift)

    def that_change(self) -> "UnitMaps":
        """Without those that leave every value as it is."""
        keep = (self.scale != 1) | (self.shift != 0)
        return UnitMaps(self.units[keep], self.scale[keep], self.shift[keep])


def set_to(units: Int[np.ndarray, " n"], values: Float[np.ndarray, " n"]) -> UnitMaps:
    """Generative forcing: `values` is `on_p50` of the units."""
    return UnitMaps(np.asarray(units), np.zeros(len(units)), np.asarray(values, dtype=np.float64))


def damped(units: Int[np.ndarray, " n"], auroc: Float[np.ndarray, " n"]) -> UnitMaps:
    """AurA: the better a unit tells the concept, the less of it is left."""
    values = np.asarray(auroc, dtype=np.float64)
    if ((values < 0) | (values > 1)).any():
        raise InvalidEdit(f"AUROC lies in 0 .. 1, got {values.min():g} .. {values.max():g}")
    scale = 1 - 2 * (np.maximum(values, 0.5) - 0.5)
    return UnitMaps(np.asarray(units), scale, np.zeros(len(units)))


def transported(
    units: Int[np.ndarray, " n"],
    off: Float[np.ndarray, "n n_off"],
    on: Float[np.ndarray, "n n_on"],
    kind: Transport = "linear",
) -> UnitMaps:
    """From the responses of the units without the concept (`off`) to those with it (`on`).

    A unit that is constant without the concept is moved by the means alone. Raises InvalidEdit for no responses.
    """
    if not off.shape[1] or not on.shape[1]:
        raise InvalidEdit("a transport needs responses with and without the concept")
    a, b = off.astype(np.float64), on.astype(np.float64)
    if kind != "linear":
        return transported_by_moments(
            units, Moments(a.mean(axis=1), a.std(axis=1)), Moments(b.mean(axis=1), b.std(axis=1)), kind
        )
    # Sorted responses are the optimal plan in one dimension; quantiles where the numbers differ.
    places = np.linspace(0, 1, min(a.shape[1], b.shape[1]))
    low, high = (np.quantile(x, places, axis=1).T for x in (a, b))
    mean_off, mean_on = low.mean(axis=1), high.mean(axis=1)
    x, y = low - mean_off[:, None], high - mean_on[:, None]
    scale = _over((x * y).sum(axis=1), (x * x).sum(axis=1))
    return UnitMaps(np.asarray(units), scale, mean_on - scale * mean_off)


@dataclass(frozen=True, eq=False)
class Moments:
    """Means and standard deviations of some units' responses."""

    mean: Float[np.ndarray, " n"]
    sd: Float[np.ndarray, " n"]


def transported_by_moments(
    units: Int[np.ndarray, " n"], off: Moments, on: Moments, kind: MomentTransport
) -> UnitMaps:
    """As `transported`, where only the moments are known."""
    scale = np.ones(len(units)) if kind == "mean" else _over(on.sd, off.sd)
    return UnitMaps(np.asarray(units), scale, on.mean - scale * off.mean)


def edits_of(maps: UnitMaps) -> tuple[Edit, ...]:
    """The same as edits of a correction, each of the plainest kind; `latent` is the unit."""
    edits: list[Edit] = []
    for unit, scale, shift in zip(maps.units.tolist(), maps.scale.tolist(), maps.shift.tolist(), strict=True):
        if shift == 0:
            edits.append(Scale(unit, scale))
        elif scale == 0:
            edits.append(SetTo(unit, shift))
        elif scale == 1:
            edits.append(Add(unit, shift))
        else:
            edits.append(Affine(unit, scale, shift))
    return tuple(edits)


def _over(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    known = b > 1e-12
    ratio: Float[np.ndarray, " n"] = np.where(known, a / np.where(known, b, 1), 1.0)
    return ratio
