"""Matryoshka SAE (Bussmann et al. 2025; Zaigrajew et al. 2025)."""

from jaxtyping import Float
from torch import Tensor

from fulcrum.domain.errors import InvalidSaeConfig
from fulcrum.science.sae.base import SaeConfig
from fulcrum.science.sae.batch_topk import BatchTopKSae


def checked_prefixes(config: SaeConfig) -> tuple[int, ...]:
    """`options["prefixes"]`: ascending widths that end with d_sae."""
    given = config.options.get("prefixes")
    if not isinstance(given, list | tuple) or not given or not all(type(width) is int for width in given):
        raise InvalidSaeConfig(f"option prefixes={given!r} of a matryoshka SAE must be a list of widths")
    prefixes = tuple(given)
    if prefixes[0] < 1 or prefixes[-1] != config.d_sae or list(prefixes) != sorted(set(prefixes)):
        raise InvalidSaeConfig(f"prefixes {prefixes} must ascend strictly from >= 1 to d_sae={config.d_sae}")
    return prefixes


class MatryoshkaSae(BatchTopKSae):
    """A BatchTopK SAE of which every prefix of the dictionary reconstructs by itself.

    `options["prefixes"]` holds their widths.
    """

    def __init__(self, config: SaeConfig) -> None:
        super().__init__(config)
        self.prefixes = checked_prefixes(config)

    def decode_prefix(self, z: Float[Tensor, "*batch d_sae"], width: int) -> Float[Tensor, "*batch d_in"]:
        """`x_hat` in model units from the first `width` latents; `width` must be one of the prefixes."""
        if width not in self.prefixes:
            raise InvalidSaeConfig(f"width {width} is not one of the prefixes {self.prefixes}")
        return self.denormalise(z[..., :width] @ self.W_dec[:width] + self.b_dec)
