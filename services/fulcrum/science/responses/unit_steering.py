"""Steering with experts: chosen units of a layer get other values while the model runs.

Every kind is one affine map for each unit, `x' = scale x + shift`, at every token:

set to       x' = on_p50                       generative forcing (Suau et al. 2022)
damped       x' = (1 - 2 (AUROC - 0.5)) x      AurA (Suau et al. 2024); units with AUROC <= 0.5 stay
transported  x' = T(x), from the responses without the concept to those with it (Rodriguez et al. 2024):
             mean      x + mean_on - mean_off
             gaussian  (x - mean_off) sd_on / sd_off + mean_on
             linear    least squares between the sorted responses (Linear-AcT)

A `strength` of 0 changes nothing, 1 is the map itself.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulcrum.domain.errors import InvalidEdit

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
    mean_off, mean_on = a.mean(axis=1), b.mean(axis=1)
    match kind:
        case "mean":
            scale = np.ones(len(a))
        case "gaussian":
            scale = _over(b.std(axis=1), a.std(axis=1))
        case "linear":
            # Sorted responses are the optimal plan in one dimension; quantiles where the numbers differ.
            places = np.linspace(0, 1, min(a.shape[1], b.shape[1]))
            low, high = (np.quantile(x, places, axis=1).T for x in (a, b))
            mean_off, mean_on = low.mean(axis=1), high.mean(axis=1)
            x, y = low - mean_off[:, None], high - mean_on[:, None]
            scale = _over((x * y).sum(axis=1), (x * x).sum(axis=1))
    return UnitMaps(np.asarray(units), scale, mean_on - scale * mean_off)


@contextmanager
def steered(layers: Mapping[str, nn.Module], maps: Mapping[str, UnitMaps]) -> Iterator[None]:
    """Inside, the outputs of the named layers are changed, the last dimension being the units.

    Raises InvalidEdit for a layer that is not there, or a unit that its output does not have.
    """
    unknown = sorted(set(maps) - set(layers))
    if unknown:
        raise InvalidEdit(f"layers {unknown[:3]} are not among {list(layers)[:8]} ...")
    handles = [layers[name].register_forward_hook(_writer(name, found)) for name, found in maps.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _writer(name: str, maps: UnitMaps) -> Any:
    units = torch.as_tensor(maps.units, dtype=torch.long)
    scale, shift = (torch.as_tensor(v, dtype=torch.float32) for v in (maps.scale, maps.shift))

    def write(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        if len(units) and not 0 <= int(units.min()) <= int(units.max()) < output.shape[-1]:
            raise InvalidEdit(
                f"units {int(units.min())} .. {int(units.max())} of {name}: it has {output.shape[-1]}"
            )
        place = units.to(output.device)
        # Without clone() a module that returns what it keeps would keep the edited values.
        edited = output.clone()
        edited[..., place] = output[..., place] * scale.to(output) + shift.to(output)
        return edited

    return write


def _over(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    known = b > 1e-12
    ratio: Float[np.ndarray, " n"] = np.where(known, a / np.where(known, b, 1), 1.0)
    return ratio
