"""Reads searches for experts; they are written by jobs and never change."""

import dataclasses

from fulcrum.datasets.expert_stability import stability_of
from fulcrum.datasets.expert_table import ExpertTable
from fulcrum.domain.concept_sets import ConceptSet, read_concept_set
from fulcrum.domain.errors import InvalidInput, InvalidRequest, UnknownExperts
from fulcrum.domain.experts import (
    ExpertRule,
    Experts,
    ExpertStability,
    ExpertUnit,
    RuleName,
    UnitSort,
)
from fulcrum.domain.records import ExpertsRecord, Page
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.deps import PageParams
from fulcrum.gateway.descriptions.reading import ConceptFiles
from fulcrum.gateway.reach import reach
from fulcrum.store.artifacts import Artifacts
from fulcrum.store.database import Store
from fulcrum.store.paging import from_cursor, to_cursor

_WORD = "unit"  # of cursors


@dataclasses.dataclass(frozen=True)
class Found:
    """A search with its table, and what latents are called."""

    record: ExpertsRecord
    table: ExpertTable
    labels: dict[int, str]

    def labelled(self, unit: ExpertUnit) -> ExpertUnit:
        """With the label as it is now."""
        return dataclasses.replace(unit, label=self.labels.get(unit.unit))


def page(
    store: Store, asker: Asker, project_id: str | None, params: PageParams, **filters: str | None
) -> Page[ExpertsRecord]:
    """Raises UnknownProject."""
    with store.read() as tx:
        project = asker.project(tx, project_id, "viewer")
        return tx.experts.list(project, limit=params.limit, cursor=params.cursor, **filters)


def find(store: Store, files: ConceptFiles, asker: Asker, experts_id: str) -> Found:
    """Raises UnknownExperts."""
    with store.read() as tx:
        record = reach(asker, tx, tx.experts, experts_id, "viewer", UnknownExperts, "search for experts")
        known = {} if record.sae_id is None else tx.concepts.labels(record.sae_id)
    labels = {latent: found.label for latent, found in known.items() if found.label}
    return Found(record, files.experts(record), labels)


def concept_set(store: Store, artifacts: Artifacts, asker: Asker, experts_id: str) -> ConceptSet:
    """What a search over sentences was asked with. Raises UnknownExperts, also for a search over images."""
    with store.read() as tx:
        record = reach(asker, tx, tx.experts, experts_id, "viewer", UnknownExperts, "search for experts")
    if record.concept_set_sha256 is None:
        raise UnknownExperts(
            f"search {record.name!r} is over images: its concepts are columns of the data set, not sentences"
        )
    return read_concept_set(artifacts.read_bytes(record.concept_set_sha256))


def get(found: Found) -> Experts:
    """All but the units and the matrices."""
    about = found.table.about
    return Experts(
        found.record,
        about.layers,
        about.concepts,
        about.one_base_rate,
        about.rules,
        about.shown_rule,
        about.summaries,
        about.alignments,
    )


def units(
    found: Found, params: PageParams, concept: str, sort: UnitSort, descending: bool, layer: str | None
) -> Page[ExpertUnit]:
    """A page in the order asked for. Raises UnknownExperts for a concept or layer."""
    start = 0 if params.cursor is None else from_cursor(params.cursor, _WORD, int)[0]
    if start < 0:
        raise InvalidRequest("cursor: expected the next_cursor of the page before, or nothing")
    shown = found.table.units(concept, sort, descending, layer, start, params.limit)
    end = start + len(shown)
    return Page(
        tuple(found.labelled(u) for u in shown),
        to_cursor(_WORD, end) if end < found.table.n_units_of(layer) else None,
    )


def concepts_of_unit(found: Found, number: int) -> tuple[ExpertUnit, ...]:
    """Raises UnknownExperts."""
    return tuple(found.labelled(u) for u in found.table.concepts_of_unit(number))


def rule_of(found: Found, rule: RuleName | None, value: float | None) -> ExpertRule:
    """What was asked for, or the rule that is shown first.

    Raises InvalidRequest for a value without a rule, or a rule without the value that it needs.
    """
    if rule is None:
        if value is not None:
            raise InvalidRequest(f"value={value:g} belongs to a rule: name it (top_k or tau)")
        if found.table.about.shown_rule is None:
            raise InvalidInput("this search has one concept only: name a rule, top_k or tau")
        return found.table.about.shown_rule
    if (rule in ("top_k", "tau")) != (value is not None):
        raise InvalidRequest(f"rule={rule} {'needs a value' if value is None else 'takes no value'}")
    return ExpertRule(rule, value)


def stability(found: Found, other: Found, rule: ExpertRule) -> ExpertStability:
    """Raises InvalidInput where the two have no concepts in common."""
    return stability_of(found.table, other.table, rule)
