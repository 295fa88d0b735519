"""Trainers that the benchmark compares; a public one needs its package (dependency group `bench`)."""

import importlib.util
from collections.abc import Callable
from functools import partial

from fulcrum.bench.train_peers.contender import BenchVariant, Contender, Spec
from fulcrum.bench.train_peers.dictionary_learning import DictionaryLearning
from fulcrum.bench.train_peers.eai_sparsify import Sparsify
from fulcrum.bench.train_peers.ours import Ours
from fulcrum.bench.train_peers.overcomplete import Overcomplete
from fulcrum.bench.train_peers.saelens import SaeLens

OURS = "fulcrum"

CONTENDERS: dict[str, Callable[[Spec], Contender]] = {
    OURS: Ours,
    "eai_sparsify": Sparsify,
    "sae_lens": SaeLens,
    "sae_lens_sparse": partial(SaeLens, sparse=True),
    "dictionary_learning": DictionaryLearning,
    "overcomplete": Overcomplete,
}

# Import name and distribution of each public package.
PACKAGES: dict[str, tuple[str, str]] = {
    "eai_sparsify": ("sparsify", "eai-sparsify"),
    "sae_lens": ("sae_lens", "sae-lens"),
    "sae_lens_sparse": ("sae_lens", "sae-lens"),
    "dictionary_learning": ("dictionary_learning", "dictionary-learning"),
    "overcomplete": ("overcomplete", "overcomplete"),
}

_VARIANTS: dict[str, tuple[BenchVariant, ...]] = {
    "eai_sparsify": ("topk",),
    "sae_lens": ("topk", "batch_topk", "matryoshka"),
    "sae_lens_sparse": ("topk",),
    "dictionary_learning": ("topk", "batch_topk", "matryoshka"),
    "overcomplete": ("topk", "batch_topk"),
}


def installed_peers(variant: BenchVariant) -> list[str]:
    """Public trainers that are installed here and know the variant."""
    return [
        name
        for name, (module, _) in PACKAGES.items()
        if variant in _VARIANTS[name] and importlib.util.find_spec(module) is not None
    ]
