"""What is known about how well units tell a concept: arrays over units, and what is shown of a search for experts."""

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from fulcrum.domain.errors import InvalidInput
from fulcrum.domain.records import ExpertsRecord

EXPERTISE_ARRAYS: Final = ("ap", "auroc", "on_p50", "on_p90", "off_mean", "on_mean", "on_sd", "off_sd")
"""What is known of every unit, by the names of `Expertise`."""


@dataclass(frozen=True, eq=False)
class Expertise:
    """Each unit as a detector of one concept, from `n_pos` examples of it and `n_neg` others.

    `ap` and `auroc` lie in [0, 1]; a unit that says the same of every example has the base rate and 0.5. `on_p50`
    and `on_p90` are quantiles of the responses to the positive examples, `on_mean` and `on_sd` their moments,
    `off_mean` and `off_sd` those over the others.
    """

    ap: NDArray[np.float64]  # (n_units,)
    auroc: NDArray[np.float64]
    on_p50: NDArray[np.float64]
    on_p90: NDArray[np.float64]
    off_mean: NDArray[np.float64]
    on_mean: NDArray[np.float64]
    on_sd: NDArray[np.float64]
    off_sd: NDArray[np.float64]
    n_pos: int
    n_neg: int

    @property
    def n_units(self) -> int:
        """Number of units."""
        return len(self.ap)

    @property
    def base_rate(self) -> float:
        """Share of positive examples: the AP of a unit that knows nothing."""
        return self.n_pos / (self.n_pos + self.n_neg)

    @classmethod
    def joined(cls, parts: "list[Expertise]") -> "Expertise":
        """The units of several layers, one after another. Raises InvalidInput across base rates."""
        if not parts:
            raise InvalidInput("there is no layer to join")
        require_one_base_rate(parts)
        arrays: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in EXPERTISE_ARRAYS
        }
        return cls(**arrays, n_pos=parts[0].n_pos, n_neg=parts[0].n_neg)


def require_one_base_rate(many: "list[Expertise]") -> None:
    """Raises InvalidInput where numbers of examples differ in their share of positives.

    AP depends on the base rate, and a threshold on AP with it: 0.5 finds the experts among 400 of 1400 examples and
    none among 80 of 2580. The best `k` by AP can be compared all the same.
    """
    # Whole numbers, so that 400 : 1000 equals 200 : 500 whatever a division rounds to.
    first = many[0]
    for other in many[1:]:
        if first.n_pos * other.n_neg != other.n_pos * first.n_neg:
            raise InvalidInput(
                f"AP cannot be compared across base rates: {first.n_pos} positive and {first.n_neg} negative examples "
                f"({first.base_rate:.3f}) against {other.n_pos} and {other.n_neg} ({other.base_rate:.3f}); "
                "use as many of each, or the best k units by AP"
            )


RuleName = Literal["top_k", "tau", "cosine_ap", "cosine_auroc"]
"""How concepts are compared: by their shared experts (the best k by AP, or those above a threshold), or threshold-free.

`tau` and `cosine_ap` exist only where all concepts have one base rate.
"""
SteeringMethod = Literal["set", "damp", "transport_mean", "transport_gaussian", "transport_linear"]
"""What becomes of experts: set to `on_p50`, damped by `1 - 2 (AUROC - 0.5)`, or transported by their
moments or by their sorted responses."""
Towards = Literal["concept", "others"]
"""Whether what is set or transported comes to be as with the concept, or as without it (`off_mean` where it is set)."""
UnitSort = Literal["ap", "auroc", "on_p50", "on_p90", "off_mean"]


@dataclass(frozen=True)
class UnitLayer:
    """Units `first` to `first + n_units - 1` of all: a layer such as `visual.blocks.3.mlp_in`, or `latents`."""

    name: str
    first: int
    n_units: int


@dataclass(frozen=True)
class ExpertConcept:
    """A concept that units were tried on. `base_rate` is the AP of a unit that knows nothing.

    `control_best_ap` is the best AP among as many units with random weights.
    """

    name: str
    domain: str
    n_pos: int
    n_neg: int
    base_rate: float
    best_layer: str
    best_unit: int  # within its layer
    best_ap: float
    best_auroc: float
    control_best_ap: float


@dataclass(frozen=True)
class ExpertRule:
    """A rule by which structure was computed; `value` is k or tau, None for cosines."""

    rule: RuleName
    value: float | None = None


@dataclass(frozen=True)
class DomainAgreement:
    """How far the concepts of a domain lie together. `ari`: adjusted Rand index of as many clusters as domains."""

    ari: float
    within: float  # mean similarity
    between: float


@dataclass(frozen=True)
class StructureSummary:
    """One way of comparing concepts in a line. `of`: `experts`, `random_weights`, or the name of a baseline.

    `mean_experts` is the number of experts of a concept, None for rules that count none. `agreement` is None where the
    concepts have no domains that could be recovered.
    """

    of: str
    rule: ExpertRule | None  # None: a baseline
    mean_experts: float | None
    mean_similarity: float
    agreement: DomainAgreement | None


@dataclass(frozen=True)
class RankCorrelation:
    """Model against people over pairs of concepts. `p_value` is Mantel's."""

    of: str
    rule: ExpertRule | None
    rho: float
    ci_low: float
    ci_high: float
    p_value: float
    n_pairs: int


@dataclass(frozen=True)
class Ceiling:
    """How well people predict people; each name is another question."""

    name: str
    value: float


@dataclass(frozen=True)
class TripletAccuracy:
    """Share of triplets whose odd one out is the people's; chance is 1/3."""

    of: str
    rule: ExpertRule | None
    accuracy: float
    n_triplets: int


@dataclass(frozen=True)
class HumanAlignment:
    """One set of human judgements beside experts, random weights and baselines. Ceilings need several raters."""

    name: str
    kind: Literal["pairs", "triplets"]
    n_used: int
    correlations: tuple[RankCorrelation, ...]
    triplets: tuple[TripletAccuracy, ...]
    ceilings: tuple[Ceiling, ...]


@dataclass(frozen=True)
class Experts:
    """A search for experts: concepts, layers, and how the concepts lie, each beside random weights and baselines."""

    record: ExpertsRecord
    layers: tuple[UnitLayer, ...]
    concepts: tuple[ExpertConcept, ...]
    one_base_rate: bool
    rules: tuple[ExpertRule, ...]
    shown_rule: ExpertRule | None  # the one to begin with; None where there is one concept only
    summaries: tuple[StructureSummary, ...]
    alignments: tuple[HumanAlignment, ...]


@dataclass(frozen=True)
class ExpertUnit:
    """A unit as a detector of a concept. `number` counts over all layers, `unit` within its own (a latent's index).

    `rank` is by AP from 1, among all units; `label` is what the latent is called, None for other units.
    """

    concept: str
    rank: int
    number: int
    layer: str
    unit: int
    ap: float
    auroc: float
    on_p50: float
    on_p90: float
    off_mean: float
    label: str | None = None


@dataclass(frozen=True)
class ExpertCount:
    """How many units of a concept are experts by a rule, and how many with random weights."""

    concept: str
    n_experts: int
    control: int


@dataclass(frozen=True)
class LayerShare:
    """A layer's part in a concept."""

    layer: str
    n_units: int
    n_experts: int
    mean_ap: float
    max_ap: float
    control_n_experts: int
    control_mean_ap: float
    control_max_ap: float


@dataclass(frozen=True)
class LayerProfile:
    """Where in the model the experts of a concept lie, by a rule."""

    concept: str
    rule: ExpertRule
    layers: tuple[LayerShare, ...]


@dataclass(frozen=True)
class ApDistribution:
    """Units by AP: `counts[i]` of them lie in `edges[i] .. edges[i+1]`; `control` is the same with random weights."""

    concept: str
    base_rate: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    control: tuple[int, ...]


@dataclass(frozen=True)
class ConceptStructure:
    """How the concepts lie: similarities, clusters, the dendrogram (as scipy writes it) with its order, a map.

    `map_share` is the share of squared distance that the two axes of the map keep.
    """

    of: str
    rule: ExpertRule | None
    similarity: tuple[tuple[float, ...], ...]
    clusters: tuple[int, ...]
    order: tuple[int, ...]
    linkage: tuple[tuple[float, float, float, float], ...]
    x: tuple[float, ...]
    y: tuple[float, ...]
    map_share: float
    agreement: DomainAgreement | None


@dataclass(frozen=True)
class ConceptStructures:
    """The structure by one rule, never without that of random weights and of the baselines."""

    concepts: tuple[str, ...]
    domains: tuple[str, ...]
    experts: ConceptStructure
    random_weights: ConceptStructure
    baselines: tuple[ConceptStructure, ...]


@dataclass(frozen=True)
class ConceptOverlap:
    """A concept's experts here and elsewhere, as Jaccard."""

    concept: str
    overlap: float


@dataclass(frozen=True)
class ExpertStability:
    """Two searches with concepts of the same names.

    `overlaps` compare the same units: other examples, or another checkpoint of one architecture; they are empty where
    the units differ. `different` is the mean overlap of different concepts. `rho` compares the similarities of the
    concepts, None for fewer than three.
    """

    rule: ExpertRule
    n_concepts: int
    overlaps: tuple[ConceptOverlap, ...]
    mean_overlap: float | None
    different: float | None
    rho: float | None
