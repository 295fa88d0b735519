"""Steering with experts: chosen units of a layer get other values while the model runs, at every token.

What values these are stands in `science.experts.maps`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fulcrum.domain.errors import InvalidEdit
from fulcrum.science.experts.maps import UnitMaps


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
