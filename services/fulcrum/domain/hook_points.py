"""Where activations are read and written."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from fulcrum.domain.errors import InvalidHookPoint

Tower = Literal["visual", "text"]
Site = Literal["resid_post", "mlp_out", "attn_out", "mlp_in"]

_PATTERN = re.compile(r"(visual|text)\.blocks\.([0-9]{1,4})\.(resid_post|mlp_out|attn_out|mlp_in)")


@dataclass(frozen=True, order=True)
class HookPoint:
    """`{tower}.blocks.{block}.{site}`; `block` counts from 0.

    `resid_post` is the residual stream after the block; `attn_out` and `mlp_out` are what a branch adds to it, and
    `mlp_in` is the first linear layer of the MLP before its nonlinearity.
    """

    tower: Tower
    block: int
    site: Site

    @classmethod
    def parse(cls, text: str) -> "HookPoint":
        """Raises InvalidHookPoint for anything but `visual.blocks.3.resid_post` and its like."""
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise InvalidHookPoint(
                f"hook point {text[:80]!r} is malformed: expected "
                f"'visual|text.blocks.<number>.<site>' with site one of {', '.join(get_args(Site))}"
            )
        tower, block, site = match.groups()
        return cls(tower, int(block), site)  # type: ignore[arg-type]  # the pattern allows only the literals

    def __str__(self) -> str:
        return f"{self.tower}.blocks.{self.block}.{self.site}"
