"""From ranked units to the file of a search: structure by every rule, beside random weights and baselines."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.expert_table import (
    EXPERTS,
    RANDOM_WEIGHTS,
    AboutExperts,
    write_expert_table,
)
from fulcrum.domain.concept_files import HumanJudgements
from fulcrum.domain.errors import InvalidInput, MissingDependency
from fulcrum.domain.experts import (
    EXPERTISE_ARRAYS,
    DomainAgreement,
    ExpertConcept,
    ExpertRule,
    StructureSummary,
)
from fulcrum.engine.expert_alignment import Compared, alignment_of
from fulcrum.engine.expert_search import Ranked, Said, Search
from fulcrum.science.experts.comparing import rule_to_show, rules_for, similarity_by
from fulcrum.science.experts.expert_sets import cosine_of_rows
from fulcrum.science.experts.structure import Arrangement, Structure, arrange, can_be_recovered, structure_of

Similarity = NDArray[np.float64]
BARE_WORD: Final = "bare_word"


def write_experts(
    search: Search,
    ranked: Mapping[str, Ranked],
    path: Path,
    say: Said,
    judgements: Sequence[HumanJudgements] = (),
) -> AboutExperts:
    """Writes the file; what it says about itself. `judgements` are about concepts of the search.

    Raises ComputationFailed, and InvalidInput for judgements without an order.
    """
    mine, control = ranked[EXPERTS], ranked[RANDOM_WEIGHTS]
    domains = search.examples.domains
    n = len(domains)
    compared: list[tuple[StructureSummary, Similarity, Arrangement]] = []
    rules = rules_for(search.n_units, search.examples.one_base_rate) if n > 1 else ()
    for done, rule in enumerate(rules):
        say("comparing concepts", done, len(rules), "rules")
        for of, found in ((EXPERTS, mine), (RANDOM_WEIGHTS, control)):
            similarity, mean_experts = similarity_by(rule, found.concepts)
            compared.append(_compared(of, rule, similarity, mean_experts, domains))
    if n > 1:
        for name, rows in baselines(search, mine).items():
            compared.append(_compared(name, None, cosine_of_rows(rows), None, domains))
    alignments = []
    for done, human in enumerate(judgements):
        say("comparing with people", done, len(judgements), "sets of judgements")
        everything = [Compared(s.of, s.rule, similarity) for s, similarity, _ in compared]
        alignments.append(alignment_of(human, search.examples.names, everything, search.spec.seed))
    about = AboutExperts(
        layers=search.layers,
        concepts=tuple(_concepts(search, mine, control)),
        one_base_rate=search.examples.one_base_rate,
        rules=rules,
        shown_rule=rule_to_show(search.n_units) if rules else None,
        summaries=tuple(summary for summary, *_ in compared),
        alignments=tuple(alignments),
    )
    arrays: dict[str, NDArray[Any]] = {
        "ap": np.stack([[c.ap for c in of.concepts] for of in (mine, control)]),
        "similarity": _stacked([s for _, s, _ in compared], (n, n), np.float32),
        "clusters": _stacked([a.clusters for *_, a in compared], (n,), np.int64),
        "order": _stacked([a.order for *_, a in compared], (n,), np.int64),
        "linkage": _stacked([a.linkage for *_, a in compared], (n - 1, 4), np.float64),
        "positions": _stacked([a.positions for *_, a in compared], (n, 2), np.float64),
        "map_share": np.array([a.map_share for *_, a in compared], dtype=np.float64),
    }
    for name in EXPERTISE_ARRAYS[1:]:  # but for AP, which stands there with that of random weights
        arrays[name] = np.stack([getattr(c, name) for c in mine.concepts]).astype(np.float32)
    arrays |= mine.linear
    write_expert_table(path, arrays, about)
    return about


def baselines(search: Search, mine: Ranked) -> dict[str, NDArray[np.float64]]:
    """Vectors of the concepts from the same examples, in which an expert is no concept at all."""
    found = {"mean_activation": mine.mean_activation, "mean_embedding": mine.mean_embedding}
    words = [name.partition("=")[2] or name for name in search.examples.names]
    # Names that this model cannot read: the other baselines stand.
    with suppress(MissingDependency, InvalidInput):
        found[BARE_WORD] = search.model.embed(words)
    return found


def _compared(
    of: str,
    rule: ExpertRule | None,
    similarity: Similarity,
    mean_experts: float | None,
    domains: tuple[str, ...],
) -> tuple[StructureSummary, Similarity, Arrangement]:
    # Products of matrices are symmetric to the last bit or two only.
    similarity = (similarity + similarity.T) / 2
    n = len(similarity)
    agreement = None
    if can_be_recovered(domains):
        arranged: Arrangement = structure_of(similarity, domains)
        assert isinstance(arranged, Structure)
        agreement = DomainAgreement(arranged.ari, arranged.within, arranged.between)
    else:
        arranged = arrange(similarity, max(2, round(n**0.5)))
    mean = float(similarity[np.triu_indices(n, k=1)].mean())
    return StructureSummary(of, rule, mean_experts, mean, agreement), similarity, arranged


def _concepts(search: Search, mine: Ranked, control: Ranked) -> list[ExpertConcept]:
    concepts = []
    for c, (name, domain) in enumerate(zip(search.examples.names, search.examples.domains, strict=True)):
        known = mine.concepts[c]
        best = int(known.ap.argmax())
        layer = next(x for x in search.layers if x.first <= best < x.first + x.n_units)
        concepts.append(
            ExpertConcept(
                name,
                domain,
                known.n_pos,
                known.n_neg,
                known.base_rate,
                layer.name,
                best - layer.first,
                float(known.ap[best]),
                float(known.auroc[best]),
                float(control.concepts[c].ap.max()),
            )
        )
    return concepts


def _stacked(many: list[NDArray[Any]], shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    return np.array(many, dtype=dtype).reshape(len(many), *shape)
