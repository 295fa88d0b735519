"""Experts: which units know which concepts."""

from collections.abc import Mapping, Sequence

from fulcrum.client.operations import Bound, Side, listing, operation
from fulcrum.client.resources.naming import Identified, given, id_of
from fulcrum.client.steps import Flow
from fulcrum.client.wire import path
from fulcrum.domain.codec import to_json
from fulcrum.domain.concept_files import HumanJudgements, UnknownWords
from fulcrum.domain.concept_sets import ConceptSet
from fulcrum.domain.edits import Scope
from fulcrum.domain.experts import (
    ApDistribution,
    ConceptStructures,
    ExpertCount,
    ExpertRule,
    Experts,
    ExpertStability,
    ExpertUnit,
    LayerProfile,
    SteeringMethod,
    Towards,
    UnitSort,
)
from fulcrum.domain.jobs import ExpertUnits, ImageConcept, JobRecord, SplitName, TokenPool, UnitSite, Where
from fulcrum.domain.records import CorrectionRecord, ExpertsRecord
from fulcrum.domain.tasks import ClassSet

Search = Identified | str
Rule = ExpertRule | None


class ExpertSearches(Bound[Side]):
    """`client.experts`: searches for experts, each beside random weights and baselines.

    A `rule` of None is the search's own `shown_rule`; others are `ExpertRule("top_k", 50)`, `ExpertRule("tau", 0.5)`
    where the concepts have one base rate, and `ExpertRule("cosine_ap")` or `ExpertRule("cosine_auroc")`.
    """

    @operation
    def find_latents(
        self,
        sae: Identified | str,
        dataset: Identified | str,
        columns: Sequence[str] = (),
        *,
        concepts: Sequence[ImageConcept] = (),
        among: Mapping[str, str] | None = None,
        split: SplitName | None = None,
        tokens: TokenPool = "all",
        n_pos: int | None = None,
        n_neg: int | None = None,
        name: str = "",
        seed: int = 0,
    ) -> Flow[JobRecord]:
        """Ranks latents as detectors of concepts, as a job: its `result["experts_id"]` names the search.

        Each value of each of `columns` (`"label"`, `"sticker_kind"`) is a concept against the column's other values;
        `concepts` are further ones. `n_pos` and `n_neg` examples are drawn of each, which makes AP comparable.
        """
        body = _images(columns, concepts, among, split, tokens, n_pos, n_neg, name, seed)
        place = path("saes", f"{id_of(sae)}:find-experts")
        return (
            yield from self._wire.ask(JobRecord, "POST", place, json={"dataset_id": id_of(dataset)} | body)
        )

    @operation
    def find_units(
        self,
        model: Identified | str,
        dataset: Identified | str,
        columns: Sequence[str] = (),
        *,
        concepts: Sequence[ImageConcept] = (),
        among: Mapping[str, str] | None = None,
        split: SplitName | None = None,
        sites: Sequence[UnitSite] = ("resid_post", "mlp_in"),
        tokens: TokenPool = "all",
        n_pos: int | None = None,
        n_neg: int | None = None,
        name: str = "",
        seed: int = 0,
    ) -> Flow[JobRecord]:
        """As `find_latents`, among the units of the vision tower: of `sites` of every block."""
        body = _images(columns, concepts, among, split, tokens, n_pos, n_neg, name, seed)
        body |= {"dataset_id": id_of(dataset), "sites": [*sites]}
        return (yield from self._wire.ask(JobRecord, "POST", _of_model(model), json=body))

    @operation
    def find_in_sentences(
        self,
        model: Identified | str,
        concepts: ConceptSet,
        *,
        sites: Sequence[UnitSite] = ("resid_post", "mlp_in"),
        name: str = "",
        seed: int = 0,
    ) -> Flow[JobRecord]:
        """As `find_latents`, among the units of the text tower. Raises InvalidPrompt for a sentence too long for it.

        `fulcrum.domain.concept_sets` makes concept sets: `built_from_templates(..., longest=37)` fits the demo's tower.
        """
        body = {"concept_set": to_json(concepts), "sites": [*sites], "name": name, "seed": seed}
        return (yield from self._wire.ask(JobRecord, "POST", _of_model(model), json=body))

    @operation
    def find_in_language_model(
        self,
        language_model: str,
        concepts: ConceptSet,
        *,
        layers: Sequence[str] = (),
        name: str = "",
        seed: int = 0,
    ) -> Flow[JobRecord]:
        """As `find_latents`, among the linear layers of a model of transformers.

        It is `folder:NAME/SUB` below a folder of the platform, or `hf-hub:OWNER/NAME` where that is on its machine.
        `layers` are `"mlp"`, `"attention"` or names with `*`; () takes all.
        """
        body = given(project_id=self._wire.project_id) | {
            "language_model": language_model,
            "concept_set": to_json(concepts),
            "layers": [*layers],
            "name": name,
            "seed": seed,
        }
        return (yield from self._wire.ask(JobRecord, "POST", path("experts:find"), json=body))

    @operation
    def align(
        self, search: Search, judgements: Sequence[HumanJudgements], *, unknown_words: UnknownWords = "refuse"
    ) -> Flow[JobRecord]:
        """Compares a search with what people say, as a job without a forward pass: its result names a search that has
        `alignments`. `fulcrum.domain.concept_files.read_ratings_csv` reads files.
        """
        body = {"judgements": to_json([*judgements]), "unknown_words": unknown_words}
        where = path("experts", f"{id_of(search)}:align")
        return (yield from self._wire.ask(JobRecord, "POST", where, json=body))

    @operation
    def correct(
        self,
        search: Search,
        concept: str,
        method: SteeringMethod,
        name: str,
        *,
        layer: str | None = None,
        k: int | None = None,
        tau: float | None = None,
        towards: Towards = "concept",
        strength: float = 1.0,
        scope: Scope | None = None,
        task: ClassSet | None = None,
        description: str = "",
        note: str = "",
    ) -> Flow[CorrectionRecord]:
        """Saves a correction that changes a concept's experts in one layer: the `k` best units by AP (20), or those
        above `tau`; `towards="others"` sets and transports them away from it. A `layer` of None is the one
        with the most of them, a `task` of None the data set's classes.

        Among units of the vision tower, the layer's units stand among the model's SAEs from then on. Raises
        AlreadyExists for a taken name, SaeDoesNotFit where the model has changed since, Conflict for a transport from
        a search that kept no moments, InvalidRequest for the text tower.
        """
        body = given(
            name=name,
            concept=concept,
            method=method,
            layer=layer,
            k=k,
            tau=tau,
            towards=towards,
            strength=strength,
            scope=None if scope is None else to_json(scope),
            task=None if task is None else to_json(task),
            description=description,
            note=note,
        )
        where = path("experts", f"{id_of(search)}:correct")
        return (yield from self._wire.ask(CorrectionRecord, "POST", where, json=body))

    @listing(ExpertsRecord)
    def list(
        self,
        *,
        units: ExpertUnits | None = None,
        model: Search | None = None,
        sae: Search | None = None,
        dataset: Search | None = None,
    ) -> Flow[None]:
        """Searches of the project, newest first."""
        filters = given(
            project_id=self._wire.project_id,
            units=units,
            model_id=None if model is None else id_of(model),
            sae_id=None if sae is None else id_of(sae),
            dataset_id=None if dataset is None else id_of(dataset),
        )
        yield from self._wire.pages(ExpertsRecord, path("experts"), filters)

    @operation
    def get(self, search: Search) -> Flow[Experts]:
        """Concepts, layers and rules, and a line for each way of comparing the concepts. Raises UnknownExperts."""
        return (yield from self._wire.ask(Experts, "GET", path("experts", id_of(search))))

    @operation
    def concept_set(self, search: Search) -> Flow[ConceptSet]:
        """The sentences that a search was asked with. Raises UnknownExperts, also for a search over images."""
        return (yield from self._wire.ask(ConceptSet, "GET", path("experts", id_of(search), "concept-set")))

    @listing(ExpertUnit)
    def units(
        self,
        search: Search,
        concept: str,
        *,
        sort: UnitSort = "ap",
        descending: bool = True,
        layer: str | None = None,
    ) -> Flow[None]:
        """Units for one concept, in the order asked for, read page by page. Raises UnknownExperts."""
        filters = given(concept=concept, sort=sort, descending=descending, layer=layer)
        yield from self._wire.pages(ExpertUnit, path("experts", id_of(search), "units"), filters)

    @operation
    def unit(self, search: Search, number: int) -> Flow[tuple[ExpertUnit, ...]]:
        """One unit for every concept, highest AP first; `number` counts over all layers (a latent's index)."""
        where = path("experts", id_of(search), "units", int(number))
        return (yield from self._wire.ask(tuple[ExpertUnit, ...], "GET", where))

    @operation
    def counts(self, search: Search, rule: Rule = None) -> Flow[tuple[ExpertCount, ...]]:
        """Experts of every concept by `top_k` or `tau` at any value, beside random weights."""
        where = path("experts", id_of(search), "counts")
        return (yield from self._wire.ask(tuple[ExpertCount, ...], "GET", where, params=_rule(rule)))

    @operation
    def profile(self, search: Search, concept: str, rule: Rule = None) -> Flow[LayerProfile]:
        """Where in the model the experts of a concept lie."""
        where = path("experts", id_of(search), "profile")
        params = {"concept": concept} | _rule(rule)
        return (yield from self._wire.ask(LayerProfile, "GET", where, params=params))

    @operation
    def distribution(self, search: Search, concept: str) -> Flow[ApDistribution]:
        """Units by AP for one concept."""
        where = path("experts", id_of(search), "distribution")
        return (yield from self._wire.ask(ApDistribution, "GET", where, params={"concept": concept}))

    @operation
    def structure(self, search: Search, rule: Rule = None) -> Flow[ConceptStructures]:
        """How the concepts lie by one of the search's `rules`, beside random weights and baselines."""
        where = path("experts", id_of(search), "structure")
        return (yield from self._wire.ask(ConceptStructures, "GET", where, params=_rule(rule)))

    @operation
    def stability(self, search: Search, other: Search, rule: Rule = None) -> Flow[ExpertStability]:
        """Whether concepts of the same names have the same experts in another search."""
        where = path("experts", id_of(search), "stability")
        params = {"other_id": id_of(other)} | _rule(rule)
        return (yield from self._wire.ask(ExpertStability, "GET", where, params=params))


def _of_model(model: Identified | str) -> str:
    return path("models", f"{id_of(model)}:find-experts")


def _rule(rule: Rule) -> dict[str, object]:
    return {} if rule is None else given(rule=rule.rule, value=rule.value)


def _images(
    columns: Sequence[str],
    concepts: Sequence[ImageConcept],
    among: Mapping[str, str] | None,
    split: SplitName | None,
    tokens: TokenPool,
    n_pos: int | None,
    n_neg: int | None,
    name: str,
    seed: int,
) -> dict[str, object]:
    return given(
        columns=[*columns],
        concepts=to_json(tuple(concepts)),
        among=to_json([Where(c, v) for c, v in (among or {}).items()]),
        split=split,
        tokens=tokens,
        n_pos=n_pos,
        n_neg=n_neg,
        name=name,
        seed=seed,
    )
