"""Every SAE variant by name."""

from fulcrum.domain.models import Dictionary
from fulcrum.science.sae.base import Sae, SaeConfig
from fulcrum.science.sae.batch_topk import BatchTopKSae
from fulcrum.science.sae.gated import GatedSae
from fulcrum.science.sae.jumprelu import JumpReluSae
from fulcrum.science.sae.matryoshka import MatryoshkaSae
from fulcrum.science.sae.relu import ReluSae
from fulcrum.science.sae.topk import TopKSae

VARIANTS: dict[Dictionary, type[Sae]] = {
    "relu": ReluSae,
    "topk": TopKSae,
    "batch_topk": BatchTopKSae,
    "jumprelu": JumpReluSae,
    "gated": GatedSae,
    "matryoshka": MatryoshkaSae,
}


def build_sae(config: SaeConfig) -> Sae:
    """An SAE of this shape with all weights zero."""
    return VARIANTS[config.variant](config)
