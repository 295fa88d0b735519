"""From the experts of a concept to a correction: they are set, damped or transported in their layer."""

from dataclasses import dataclass
from typing import Final, assert_never

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.concepts import UNUSED, image_examples
from fulcrum.domain.corrections import Correction, Origin
from fulcrum.domain.edits import Scope
from fulcrum.domain.errors import (
    Conflict,
    InvalidRequest,
    SaeDoesNotFit,
    UnknownDataset,
    UnknownModel,
    UnknownSae,
)
from fulcrum.domain.experts import ExpertRule
from fulcrum.domain.jobs import FindExperts
from fulcrum.domain.records import CorrectionRecord, ExpertsRecord, ModelRecord, SaeRecord
from fulcrum.domain.tasks import ClassSet
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.corrections import service as corrections
from fulcrum.gateway.datasets.reading import DatasetFiles
from fulcrum.gateway.experts.schemas import ExpertCorrection
from fulcrum.gateway.experts.service import Found
from fulcrum.gateway.reach import reach
from fulcrum.gateway.saes import service as saes
from fulcrum.gateway.schemas import to_domain
from fulcrum.science.experts.maps import (
    Moments,
    MomentTransport,
    UnitMaps,
    damped,
    edits_of,
    set_to,
    transported_by_moments,
)
from fulcrum.store.database import Store
from fulcrum.store.transaction import Transaction

_MAX_EDITS: Final = 1_000  # of a correction that a client may send
_MAX_IMAGES: Final = 100_000
_ELSEWHERE: Final = {"text": "the text tower", "language": "a language model"}
_WORDS: Final = {
    ("damp", "concept"): "damped by how well they tell {}",
    ("set", "concept"): "set to their median response to {}",
    ("set", "others"): "set to their mean response to what is not {}",
    ("transport_mean", "concept"): "moved by what {} adds to their mean",
    ("transport_mean", "others"): "moved back by what {} adds to their mean",
    ("transport_linear", "concept"): "carried to the responses that they have for {}, the least to the least",
    (
        "transport_linear",
        "others",
    ): "carried to the responses that they have without {}, the least to the least",
    ("transport_gaussian", "concept"): "carried to the mean and spread that they have for {}",
    ("transport_gaussian", "others"): "carried to the mean and spread that they have without {}",
}


@dataclass(frozen=True)
class Planned:
    """What the correction will do, before the model and its dictionary are loaded."""

    experts: ExpertsRecord
    model: ModelRecord
    sae: SaeRecord
    maps: UnitMaps
    scope: Scope
    task: ClassSet | None
    origin: Origin
    body: ExpertCorrection


def plan(store: Store, files: DatasetFiles, asker: Asker, found: Found, body: ExpertCorrection) -> Planned:
    """Chooses the units and what becomes of them; the units of a layer are registered as a dictionary once.

    Raises UnknownExperts for a concept or layer, InvalidRequest where no correction can act or when nothing would
    change, InvalidSettings and InvalidInput for a rule as the table does, Conflict for a search without what the
    method needs, SaeDoesNotFit for other weights than the search looked at, UnknownModel, UnknownSae, Forbidden.
    """
    record = found.record
    if record.units in ("text", "language") or record.model_id is None:
        raise InvalidRequest(
            f"search {record.name!r} is among units of {_ELSEWHERE[record.units]}, and a correction acts in the vision "
            "tower: search for experts among latents, or among units of the vision tower"
        )
    layer, maps = _maps(found, body)
    with store.write() as tx:
        model = reach(asker, tx, tx.models, record.model_id, "analyst", UnknownModel, "model")
        _check_weights("the model", model, record.model_sha256)
        if record.sae_id is not None:
            sae = reach(asker, tx, tx.saes, record.sae_id, "viewer", UnknownSae, "SAE")
            _check_weights("the SAE", sae, record.sae_sha256)
        else:
            sae = saes.units_of(tx, asker, model, layer)
        spec = tx.jobs.get(record.job_id).spec
        assert isinstance(spec, FindExperts)  # they alone make searches
        manifest, class_names = _dataset_then(tx, record)
    task = ClassSet(class_names) if class_names else None
    task = task if body.task is None else to_domain(ClassSet, body.task)
    words = _WORDS[body.method, body.towards].format(repr(body.concept))
    origin = Origin(
        "expert_search",
        image_sha256=_looked_at(files, found, spec, manifest, body.concept),
        dataset_digest=record.dataset_digest,
        note=f"{len(maps.units)} experts of {layer} {words}, strength {body.strength:g}; from search {record.id} "
        f"({record.name})",
    )
    scope = Scope(spec.tokens) if body.scope is None else to_domain(Scope, body.scope)
    return Planned(record, model, sae, maps, scope, task, origin, body)


def keep(
    store: Store, asker: Asker, planned: Planned, model: ModelRecord, sae: SaeRecord
) -> CorrectionRecord:
    """Saves it as a draft, with model and SAE as they were loaded.

    Raises AlreadyExists for a taken name, SaeDoesNotFit.
    """
    record, body = planned.experts, planned.body
    assert model.info is not None, "it was loaded"
    assert sae.info is not None, "it was loaded"
    _check_weights("the model", model, record.model_sha256)
    if record.sae_id is not None:
        _check_weights("the SAE", sae, record.sae_sha256)
    correction = Correction(
        model_sha256=model.info.weights_sha256,
        sae_sha256=sae.info.weights_sha256,
        hook_point=str(sae.info.hook_point),
        edits=edits_of(planned.maps),
        scope=planned.scope,
        task=planned.task,
        origin=planned.origin,
    )
    return corrections.keep(
        store,
        asker,
        body.name,
        correction,
        project_id=record.project_id,
        model_id=model.id,
        sae_id=sae.id,
        description=body.description,
        note=body.note or planned.origin.note,
    )


def _maps(found: Found, body: ExpertCorrection) -> tuple[str, UnitMaps]:
    """The layer, and what becomes of its units."""
    table = found.table
    if body.k is not None and body.tau is not None:
        raise InvalidRequest(f"k={body.k} and tau={body.tau:g} exclude each other: give one of them")
    if body.method == "damp" and body.towards == "others":
        raise InvalidRequest(
            "damp takes a concept away as it is: towards='others' belongs to the other methods"
        )
    rule = ExpertRule("top_k", float(body.k or 20)) if body.tau is None else ExpertRule("tau", body.tau)
    layer = body.layer or table.richest_layer(body.concept, rule)
    units = table.best_of_layer(body.concept, layer, rule)
    if not len(units):
        raise InvalidRequest(
            f"no unit of {layer} has an AP above {body.tau:g} for {body.concept!r}: lower tau, or take the best k"
        )
    if len(units) > _MAX_EDITS:
        raise InvalidRequest(
            f"{len(units)} units of {layer} have an AP above {body.tau:g} for {body.concept!r}, and a correction edits "
            f"at most {_MAX_EDITS}: raise tau, or take the best k"
        )
    row, numbers = table.concept(body.concept), units + table.layer(layer).first

    def of(name: str) -> NDArray[np.float64]:
        return np.asarray(table[name][row, numbers], dtype=np.float64)

    match body.method:
        case "set":
            maps = set_to(units, of("on_p50" if body.towards == "concept" else "off_mean"))
        case "damp":
            maps = damped(units, of("auroc"))
        case "transport_mean" | "transport_gaussian":
            if not table.has_moments:
                raise Conflict(
                    f"search {found.record.name!r} was made before spreads of responses were kept, and "
                    f"{body.method} needs them: search again, or choose set or damp"
                )
            off, on = (Moments(of(f"{side}_mean"), of(f"{side}_sd")) for side in ("off", "on"))
            source, target = (off, on) if body.towards == "concept" else (on, off)
            kind: MomentTransport = "mean" if body.method == "transport_mean" else "gaussian"
            maps = transported_by_moments(units, source, target, kind)
        case "transport_linear":
            if not table.has_linear:
                raise Conflict(
                    f"search {found.record.name!r} was made before linear transports were kept: search again, or "
                    "choose another method"
                )
            maps = UnitMaps(units, *table.linear_maps(body.concept, layer, units, body.towards))
        case _:
            assert_never(body.method)
    maps = maps.with_strength(body.strength).that_change()
    if not len(maps.units):
        raise InvalidRequest(
            f"{body.method} leaves the {len(units)} chosen units of {layer} as they are: none of them tells "
            f"{body.concept!r} better than chance"
        )
    return layer, maps


def _check_weights(what: str, record: ModelRecord | SaeRecord, searched: str | None) -> None:
    """As far as it is known before they are loaded."""
    if record.info is not None and record.info.weights_sha256 != searched:
        raise SaeDoesNotFit(
            f"{what} {record.name!r} has the weights {record.info.weights_sha256[:12]}, and the search looked at "
            f"{str(searched)[:12]}: search again"
        )


def _dataset_then(tx: Transaction, record: ExpertsRecord) -> tuple[str | None, tuple[str, ...]]:
    """Manifest of the data set as it was searched, None where nobody knows it any more, and its classes today."""
    assert record.dataset_id is not None, (
        "searches among latents and units of the vision tower look at images"
    )
    assert record.dataset_digest is not None
    version = tx.dataset_versions.newest(record.dataset_id, record.dataset_digest)
    manifest = None if version is None else version.manifest_sha256
    try:
        dataset = tx.datasets.get(record.dataset_id)
    except UnknownDataset:  # deleted since
        return manifest, ()
    if manifest is None and dataset.digest == record.dataset_digest:
        manifest = dataset.manifest_sha256
    return manifest, dataset.class_names


def _looked_at(
    files: DatasetFiles, found: Found, spec: FindExperts, manifest: str | None, concept: str
) -> tuple[str, ...]:
    """Images that the concept's units were chosen by: none of them can prove anything about the correction."""
    examples = None
    if manifest is not None:
        dataset = files.opened(manifest, found.record.name).dataset
        examples = image_examples(dataset, spec)
    about = found.table.about.concepts[found.table.concept(concept)]
    row = -1 if examples is None or concept not in examples.names else examples.names.index(concept)
    if (
        examples is None
        or row < 0
        or (examples.n_pos[row], examples.n_neg[row]) != (about.n_pos, about.n_neg)
    ):
        raise Conflict(
            "the images that this search looked at are not known any more, so that nothing could say on which ones the "
            "correction proves anything: search again"
        )
    numbers = examples.numbers[examples.labels[row] != UNUSED]
    if len(numbers) > _MAX_IMAGES:
        raise InvalidRequest(
            f"{concept!r} was looked for in {len(numbers)} images, and a correction names at most {_MAX_IMAGES}: "
            "search with n_pos and n_neg"
        )
    return tuple(dataset.bytes_sha256[int(n)] for n in numbers)
