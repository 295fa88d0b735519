"""Bodies and answers of `/v1/experts`."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from fulcrum.domain.language_models import MAX_LAYERS
from fulcrum.gateway.body import Body
from fulcrum.gateway.evaluations.schemas import Where
from fulcrum.gateway.schemas import ClassSet, Id, Name, Prompt, Scope, Seed, Shown, Text

RuleName = Literal["top_k", "tau", "cosine_ap", "cosine_auroc"]
UnitSort = Literal["ap", "auroc", "on_p50", "on_p90", "off_mean"]
ConceptName = Annotated[Prompt, Field(max_length=200)]
Number = Annotated[int, Field(ge=0, le=2**31 - 1)]
Site = Literal["resid_post", "mlp_in", "mlp_out"]
LayerWish = Annotated[Text, Field(min_length=1, max_length=200)]
NExamples = Annotated[int, Field(ge=2, le=1_000_000)]


class ExpertsRecord(Shown):
    """Which units know which concepts; never changed."""

    id: str = Field(description="Id.")
    project_id: str = Field(description="Project that it belongs to.")
    name: str = Field(description="What it was called when it was asked for.")
    units: Literal["latents", "vision", "text", "language"] = Field(
        description="Latents of an SAE, units of a tower of the model, or linear layers of a language model."
    )
    model_id: str | None = Field(description="Model whose units they are; null for a language model.")
    model_sha256: str = Field(description="Its weights.")
    key: str = Field(description="Hash of all that determines the numbers.")
    sha256: str = Field(description="Artifact with all numbers.")
    job_id: str = Field(description="Job that computed it.")
    n_concepts: int = Field(description="Concepts.")
    n_units: int = Field(description="Units, over all layers.")
    n_examples: int = Field(description="Images or sentences that were looked at.")
    size_bytes: int = Field(description="Size of the artifact.")
    created_by: str = Field(description="Id of the user who asked.")
    created_at: datetime = Field(description="When it was kept.")
    sae_id: str | None = Field(None, description="SAE whose latents they are.")
    sae_sha256: str | None = Field(None, description="Its weights.")
    dataset_id: str | None = Field(None, description="Data set with the images.")
    dataset_digest: str | None = Field(None, description="Content of the data set then.")
    concept_set_sha256: str | None = Field(None, description="Artifact of the concept set, for sentences.")
    language_model: str | None = Field(
        None, description="Reference of the language model whose units they are."
    )
    numbers: dict[str, Any] = Field(
        default={}, description="Means over concepts, and `ari_...` by the rule shown first."
    )


class UnitLayer(Shown):
    """A layer of units."""

    name: str = Field(description="Such as `visual.blocks.3.mlp_in`, or `latents`.")
    first: int = Field(description="Number of its first unit.")
    n_units: int = Field(description="Units in it.")


class ExpertConcept(Shown):
    """A concept that units were tried on."""

    name: str = Field(description="Name, unique in the search.")
    domain: str = Field(description="Kind of thing that it is; empty where nobody said.")
    n_pos: int = Field(description="Examples of it.")
    n_neg: int = Field(description="Examples of something else.")
    base_rate: float = Field(description="AP of a unit that knows nothing.")
    best_layer: str = Field(description="Layer of the unit with the highest AP.")
    best_unit: int = Field(description="That unit, within its layer.")
    best_ap: float = Field(description="Its AP.")
    best_auroc: float = Field(description="Its AUROC.")
    control_best_ap: float = Field(description="Highest AP of as many units with random weights.")


class ExpertRule(Shown):
    """A rule by which concepts are compared."""

    rule: RuleName = Field(
        description="The best k units by AP, those above a threshold, or a cosine of all units' AP or AUROC."
    )
    value: float | None = Field(None, description="k or tau; null for cosines.")


class DomainAgreement(Shown):
    """How far the concepts of a domain lie together."""

    ari: float = Field(
        description="Adjusted Rand index of as many clusters as domains: 1 equal, 0 as by chance."
    )
    within: float = Field(description="Mean similarity of two concepts of a domain.")
    between: float = Field(description="Mean similarity of two concepts of different domains.")


class StructureSummary(Shown):
    """One way of comparing concepts in a line."""

    of: str = Field(description="`experts`, `random_weights`, or a baseline.")
    rule: ExpertRule | None = Field(description="By which rule; null for a baseline.")
    mean_experts: float | None = Field(description="Experts of a concept; null for rules that count none.")
    mean_similarity: float = Field(description="Over pairs of concepts.")
    agreement: DomainAgreement | None = Field(description="With the domains, where there are some.")


class RankCorrelation(Shown):
    """Model against people over pairs of concepts."""

    of: str = Field(description="`experts`, `random_weights`, or a baseline.")
    rule: ExpertRule | None = Field(description="By which rule; null for a baseline.")
    rho: float = Field(description="Spearman's.")
    ci_low: float = Field(description="95 % interval, concepts drawn with their pairs.")
    ci_high: float = Field(description="95 % interval, concepts drawn with their pairs.")
    p_value: float = Field(description="Mantel's, one-sided.")
    n_pairs: int = Field(description="Pairs that people rated.")


class Ceiling(Shown):
    """How well people predict people."""

    name: str = Field(description="`leave_one_out`, `pairwise` or `split_half_spearman_brown`.")
    value: float = Field(description="A rank correlation.")


class TripletAccuracy(Shown):
    """Odd ones out that are the people's; chance is 1/3."""

    of: str = Field(description="`experts`, `random_weights`, or a baseline.")
    rule: ExpertRule | None = Field(description="By which rule; null for a baseline.")
    accuracy: float = Field(description="Share of the triplets.")
    n_triplets: int = Field(description="Triplets.")


class HumanAlignment(Shown):
    """One set of human judgements beside experts, random weights and baselines."""

    name: str = Field(description="Name that it was given.")
    kind: Literal["pairs", "triplets"] = Field(description="Ratings of pairs, or odd ones out.")
    n_used: int = Field(description="Judgements about concepts of the search.")
    correlations: list[RankCorrelation] = Field(description="Of ratings of pairs.")
    triplets: list[TripletAccuracy] = Field(description="Of odd ones out.")
    ceilings: list[Ceiling] = Field(description="Where there are several raters; none is *the* ceiling.")


class Experts(Shown):
    """A search for experts."""

    record: ExpertsRecord = Field(description="The record.")
    layers: list[UnitLayer] = Field(description="Layers in the order of the model.")
    concepts: list[ExpertConcept] = Field(description="Concepts.")
    one_base_rate: bool = Field(
        description="Whether AP can be compared across the concepts, and thresholds used."
    )
    rules: list[ExpertRule] = Field(description="Rules with which structure can be asked for.")
    shown_rule: ExpertRule | None = Field(
        description="The one to begin with; null where there is one concept."
    )
    summaries: list[StructureSummary] = Field(
        description="Structure by every rule, beside random weights and baselines."
    )
    alignments: list[HumanAlignment] = Field(description="With people, where ratings were given.")


class ExpertUnit(Shown):
    """A unit as a detector of a concept."""

    concept: str = Field(description="The concept.")
    rank: int = Field(description="Place by AP among all units, from 1.")
    number: int = Field(description="Number among all units.")
    layer: str = Field(description="Its layer.")
    unit: int = Field(description="Number within its layer: a latent's index.")
    ap: float = Field(description="Average precision.")
    auroc: float = Field(description="Area under the ROC curve.")
    on_p50: float = Field(description="Median response to examples of the concept.")
    on_p90: float = Field(description="90th percentile of these.")
    off_mean: float = Field(description="Mean response to the others.")
    label: str | None = Field(None, description="What the latent is called.")


class ExpertCount(Shown):
    """Experts of a concept by a rule."""

    concept: str = Field(description="The concept.")
    n_experts: int = Field(description="Units that the rule chooses.")
    control: int = Field(description="The same with random weights.")


class LayerShare(Shown):
    """A layer's part in a concept."""

    layer: str = Field(description="The layer.")
    n_units: int = Field(description="Its units.")
    n_experts: int = Field(description="Those that the rule chooses.")
    mean_ap: float = Field(description="Mean AP of its units.")
    max_ap: float = Field(description="Highest AP.")
    control_n_experts: int = Field(description="Chosen with random weights.")
    control_mean_ap: float = Field(description="Mean AP with random weights.")
    control_max_ap: float = Field(description="Highest AP with random weights.")


class LayerProfile(Shown):
    """Where in the model the experts of a concept lie."""

    concept: str = Field(description="The concept.")
    rule: ExpertRule = Field(description="By this rule.")
    layers: list[LayerShare] = Field(description="In the order of the model.")


class ApDistribution(Shown):
    """Units by AP."""

    concept: str = Field(description="The concept.")
    base_rate: float = Field(description="AP of a unit that knows nothing.")
    edges: list[float] = Field(description="Edges of the bins, one more than counts.")
    counts: list[int] = Field(description="Units in each bin.")
    control: list[int] = Field(description="Units with random weights in each bin.")


class ConceptStructure(Shown):
    """How the concepts lie."""

    of: str = Field(description="`experts`, `random_weights`, or a baseline.")
    rule: ExpertRule | None = Field(description="By which rule; null for a baseline.")
    similarity: list[list[float]] = Field(description="Concept by concept.")
    clusters: list[int] = Field(description="Cluster of each concept, from 0.")
    order: list[int] = Field(description="Concepts from left to right under the dendrogram.")
    linkage: list[tuple[float, float, float, float]] = Field(
        description="The dendrogram as scipy writes it: two clusters, their distance, and the size of both."
    )
    x: list[float] = Field(description="Places on the map.")
    y: list[float] = Field(description="Places on the map.")
    map_share: float = Field(description="Share of squared distance that the map keeps.")
    agreement: DomainAgreement | None = Field(description="With the domains, where there are some.")


class ConceptStructures(Shown):
    """Structure by one rule, beside random weights and baselines."""

    concepts: list[str] = Field(description="Names, in the order of rows and columns.")
    domains: list[str] = Field(description="Their domains.")
    experts: ConceptStructure = Field(description="Of the experts.")
    random_weights: ConceptStructure = Field(description="The same with random weights.")
    baselines: list[ConceptStructure] = Field(
        description="Mean activation, mean embedding and bare word, each by cosine."
    )


class ConceptOverlap(Shown):
    """A concept's experts here and elsewhere."""

    concept: str = Field(description="The concept.")
    overlap: float = Field(description="Jaccard of its experts.")


class ExpertStability(Shown):
    """Two searches with concepts of the same names."""

    rule: ExpertRule = Field(description="By this rule.")
    n_concepts: int = Field(description="Concepts that both have.")
    overlaps: list[ConceptOverlap] = Field(description="Empty where the units differ.")
    mean_overlap: float | None = Field(description="Mean of the overlaps.")
    different: float | None = Field(description="Mean overlap of different concepts.")
    rho: float | None = Field(description="Rank correlation of the concepts' similarities.")


class PairRatings(Body):
    """How alike people find pairs of concepts."""

    name: ConceptName = Field(description="What the ratings are called.")
    pairs: Annotated[
        list[Annotated[list[ConceptName], Field(min_length=2, max_length=2)]], Field(max_length=20_000)
    ] = Field(description="Two words each.")
    ratings: Annotated[list[float], Field(max_length=20_000)] = Field(description="One for each pair.")
    raters: Annotated[list[list[float]], Field(max_length=20_000)] = Field(
        default=[], description="For each pair the ratings of single raters, where they are known."
    )
    kind: Literal["pairs"] = Field(description="Which judgements are meant.")


class TripletChoices(Body):
    """Odd ones out."""

    name: ConceptName = Field(description="What the choices are called.")
    triplets: Annotated[
        list[Annotated[list[ConceptName], Field(min_length=3, max_length=3)]],
        Field(min_length=1, max_length=50_000),
    ] = Field(description="Three words each, the odd one last.")
    kind: Literal["triplets"] = Field(description="Which judgements are meant.")


class AlignmentQuestion(Body):
    """What people say about the concepts of a search."""

    judgements: Annotated[
        list[Annotated[PairRatings | TripletChoices, Field(discriminator="kind", description="Judgements.")]],
        Field(min_length=1, max_length=8),
    ] = Field(description="Several sets: one alone is never the whole picture.")
    unknown_words: Literal["refuse", "leave_out"] = Field(
        "refuse", description="What happens with judgements about words that are no concept of the search."
    )


class ImageConcept(Body):
    """A concept of images."""

    name: ConceptName = Field(description="Name, unique in the search.")
    where: Annotated[list[Where], Field(min_length=1, max_length=16)] = Field(
        description="Images that fulfil all of these are examples of it."
    )
    against: Annotated[list[Where], Field(max_length=16)] = Field(
        default=[], description="Images that it is compared with; left out: all others."
    )
    domain: Annotated[Text, Field(max_length=200)] = Field("", description="Kind of thing that it is.")


class SentenceConcept(Body):
    """A concept by numbers of sentences."""

    name: ConceptName = Field(description="Name, unique in the set.")
    positives: Annotated[list[Number], Field(max_length=100_000)] = Field(
        description="Sentences that are about it, numbered from 0."
    )
    negatives: Annotated[list[Number], Field(max_length=100_000)] = Field(
        description="Sentences that are not."
    )
    domain: Annotated[Text, Field(max_length=200)] = Field("", description="Kind of thing that it is.")


class ConceptSet(Body):
    """Concepts over common sentences."""

    name: ConceptName = Field(description="What the set is called.")
    sentences: Annotated[list[Prompt], Field(max_length=200_000)] = Field(description="Each sentence once.")
    concepts: Annotated[list[SentenceConcept], Field(min_length=1, max_length=128)] = Field(
        description="Concepts, each with examples and counterexamples."
    )


class _AmongImages(Body):
    columns: Annotated[list[ConceptName], Field(max_length=16)] = Field(
        default=[],
        description="Each value of each of these columns is a concept, against the column's other values; a value "
        "with fewer than 5 images is left out.",
    )
    concepts: Annotated[list[ImageConcept], Field(max_length=128)] = Field(
        default=[], description="Further concepts, by conditions."
    )
    among: Annotated[list[Where], Field(max_length=16)] = Field(
        default=[], description="Look only at images that fulfil all of these."
    )
    split: Literal["discover", "select", "confirm"] | None = Field(
        None, description="Look only at images of this split."
    )
    tokens: Literal["all", "cls", "patches"] = Field(
        "all", description="An image's response is the largest over these tokens."
    )
    n_pos: NExamples | None = Field(
        None, description="Examples drawn of each concept; left out: all. Equal numbers make AP comparable."
    )
    n_neg: NExamples | None = Field(None, description="Counterexamples drawn of each concept; left out: all.")
    name: Annotated[Text, Field(max_length=200)] = Field("", description="What the search is called.")
    seed: Seed = Field(0, description="Of the drawing, and of the random weights beside it.")


class LatentExpertsQuestion(_AmongImages):
    """Experts among the latents of an SAE."""

    dataset_id: Id = Field(description="Data set with the images; it is indexed first where it is not.")


class TowerExpertsQuestion(_AmongImages):
    """Experts among the units of a tower: of the vision tower over images, of the text tower over sentences."""

    dataset_id: Id | None = Field(None, description="Data set with the images, for the vision tower.")
    concept_set: ConceptSet | None = Field(
        None, description="Sentences, for the text tower; either of the two."
    )
    sites: Annotated[list[Site], Field(min_length=1, max_length=3)] = Field(
        default=["resid_post", "mlp_in"],
        description="Units of every block: the residual stream after it, or its MLP's first or second linear layer.",
    )


class LanguageExpertsQuestion(Body):
    """Experts among the units of a language model of transformers, causal or encoder."""

    project_id: Id | None = Field(None, description="Left out: the asker's default project.")
    language_model: Annotated[Text, Field(min_length=1, max_length=300)] = Field(
        description="`folder:NAME/SUB` below a folder that the administrator named, or `hf-hub:OWNER/NAME` where that "
        "was fetched to the workers' machine before."
    )
    concept_set: ConceptSet = Field(description="Sentences.")
    layers: Annotated[list[LayerWish], Field(max_length=MAX_LAYERS)] = Field(
        default=[],
        description="`mlp`, `attention`, or names of linear layers with `*` for anything; left out: all of them.",
    )
    name: Annotated[Text, Field(max_length=200)] = Field(
        "", description="What the search is called; left out: as the set."
    )
    seed: Seed = Field(0, description="Of the random weights beside it.")


class ExpertCorrection(Body):
    """How the experts of a concept are changed, and what the correction is called."""

    name: Name = Field(description="Name of the correction in the project.")
    concept: ConceptName = Field(description="Concept of the search.")
    layer: Annotated[str, Field(max_length=200)] | None = Field(
        None, description="Where its experts are taken from; left out: the layer that has the most of them."
    )
    k: Annotated[int, Field(ge=1, le=1_000)] | None = Field(
        None, description="So many of the layer's units, the best by AP; 20 where `tau` is left out too."
    )
    tau: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="All of the layer's units with a higher AP, at most 1000; instead of `k`."
    )
    method: Literal["set", "damp", "transport_mean", "transport_gaussian", "transport_linear"] = Field(
        description="`set`: to the median response to the concept. `damp`: by `1 - 2 (AUROC - 0.5)`. `transport_mean`: "
        "what the concept adds to the mean is added. `transport_gaussian`: to the mean and spread with the concept. "
        "`transport_linear`: the line through the sorted responses without and with it (the 128 best of a layer)."
    )
    towards: Literal["concept", "others"] = Field(
        "concept",
        description="`others`, for what is set or transported: to the mean response without the concept, and from the "
        "responses with it to those without.",
    )
    strength: float = Field(
        1.0, gt=0, le=10, description="Share of the way to what the method says; more goes beyond."
    )
    scope: Scope | None = Field(
        None, description="Which tokens are changed; left out: those that the search looked at."
    )
    task: ClassSet | None = Field(
        None, description="The task that it is made for; left out: the classes of the search's data set."
    )
    description: Text = Field("", description="What it is for.")
    note: Text = Field("", description="Note of version 1; left out: how it was made.")
