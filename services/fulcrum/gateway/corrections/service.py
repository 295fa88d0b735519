"""What happens to corrections: immutable versions under a name."""

import json

from fulcrum.domain import corrections as domain
from fulcrum.domain.errors import SaeDoesNotFit, UnknownCorrection, UnknownModel, UnknownSae
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.records import (
    CorrectionRecord,
    CorrectionVersion,
    ModelRecord,
    Page,
    Role,
    SaeRecord,
)
from fulcrum.gateway.asking import Asker
from fulcrum.gateway.corrections.schemas import CorrectionChange, NewCorrection, NewVersion
from fulcrum.gateway.deps import PageParams
from fulcrum.gateway.reach import reach
from fulcrum.gateway.schemas import changes, to_domain
from fulcrum.store.database import Store
from fulcrum.store.transaction import Transaction


def find(asker: Asker, tx: Transaction, correction_id: str, role: Role) -> CorrectionRecord:
    """Raises UnknownCorrection, Forbidden."""
    return reach(asker, tx, tx.corrections, correction_id, role, UnknownCorrection, "correction")


def save(store: Store, asker: Asker, body: NewCorrection) -> CorrectionRecord:
    """Raises AlreadyExists for a taken name, SaeDoesNotFit where `model_id` or `sae_id` are not what it names."""
    return keep(
        store,
        asker,
        body.name,
        to_domain(domain.Correction, body.correction),
        project_id=body.project_id,
        model_id=body.model_id,
        sae_id=body.sae_id,
        description=body.description,
        note=body.note,
    )


def keep(
    store: Store,
    asker: Asker,
    name: str,
    correction: domain.Correction,
    *,
    project_id: str | None,
    model_id: str | None = None,
    sae_id: str | None = None,
    description: str = "",
    note: str = "",
) -> CorrectionRecord:
    """A new correction with version 1. Raises as `save` does."""
    with store.write() as tx:
        project_id = asker.project(tx, project_id, "analyst")
        model, sae = _made_for(asker, tx, project_id, model_id, sae_id)
        _check_fits(correction, model, sae)
        record = CorrectionRecord(
            id=new_id("cor"),
            project_id=project_id,
            name=name,
            created_by=asker.user.id,
            created_at=now(),
            description=description,
            model_id=None if model is None else model.id,
            sae_id=sae_id,
        )
        tx.corrections.add(record, _version(asker, record.id, 1, correction, note))
        tx.audit.append(
            asker.user.id, "correction.create", record.id, {"name": record.name, "sha256": correction.sha256}
        )
    return record


def page(
    store: Store, asker: Asker, project_id: str | None, sae_id: str | None, params: PageParams
) -> Page[CorrectionRecord]:
    """Raises UnknownProject."""
    with store.read() as tx:
        project = asker.project(tx, project_id, "viewer")
        return tx.corrections.list(
            project_id=project, limit=params.limit, cursor=params.cursor, sae_id=sae_id
        )


def get(store: Store, asker: Asker, correction_id: str) -> CorrectionRecord:
    """Raises UnknownCorrection."""
    with store.read() as tx:
        return find(asker, tx, correction_id, "viewer")


def change(
    store: Store, asker: Asker, correction_id: str, body: CorrectionChange, expected: int | None
) -> CorrectionRecord:
    """Raises UnknownCorrection, StaleVersion, AlreadyExists."""
    named = changes(body)
    with store.write() as tx:
        find(asker, tx, correction_id, "analyst")
        record = tx.corrections.update(correction_id, expected, **named)
        tx.audit.append(asker.user.id, "correction.change", correction_id, named)
    return record


def remove(store: Store, asker: Asker, correction_id: str, expected: int | None) -> None:
    """Raises UnknownCorrection, StaleVersion."""
    with store.write() as tx:
        record = find(asker, tx, correction_id, "analyst")
        tx.corrections.delete(correction_id, expected)
        tx.audit.append(asker.user.id, "correction.delete", correction_id, {"name": record.name})


def add_version(
    store: Store, asker: Asker, correction_id: str, body: NewVersion, expected: int | None
) -> tuple[CorrectionRecord, CorrectionVersion]:
    """The record as it is now, and its new version. Raises AlreadyExists when nothing changed, StaleVersion."""
    correction = to_domain(domain.Correction, body.correction)
    return keep_version(store, asker, correction_id, correction, body.note, expected)


def keep_version(
    store: Store,
    asker: Asker,
    correction_id: str,
    correction: domain.Correction,
    note: str,
    expected: int | None,
) -> tuple[CorrectionRecord, CorrectionVersion]:
    """Raises as `add_version` does, UnknownCorrection, SaeDoesNotFit."""
    with store.write() as tx:
        record = find(asker, tx, correction_id, "analyst")
        _check_fits(correction, *_registered(tx, record))
        version = _version(asker, correction_id, record.latest + 1, correction, note)
        record = tx.corrections.add_version(correction_id, expected, version)
        tx.audit.append(
            asker.user.id,
            "correction.add_version",
            correction_id,
            {"number": version.number, "sha256": version.sha256},
        )
    return record, version


def versions(store: Store, asker: Asker, correction_id: str, params: PageParams) -> Page[CorrectionVersion]:
    """Raises UnknownCorrection."""
    with store.read() as tx:
        find(asker, tx, correction_id, "viewer")
        return tx.corrections.versions(correction_id, limit=params.limit, cursor=params.cursor)


def get_version(
    store: Store, asker: Asker, correction_id: str, number: int | None
) -> tuple[CorrectionRecord, CorrectionVersion]:
    """A version, the newest for None. Raises UnknownCorrection."""
    with store.read() as tx:
        record = find(asker, tx, correction_id, "viewer")
        return record, tx.corrections.get_version(correction_id, number)


def as_file(version: CorrectionVersion) -> bytes:
    """What is taken home: the canonical JSON, and `origin` with it.

    The identity leaves `origin` out. The file must not: whoever validates the correction elsewhere has to leave out
    the images that it was found on.
    """
    content = domain.to_dict(version.correction)
    return json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def _version(
    asker: Asker, correction_id: str, number: int, correction: domain.Correction, note: str
) -> CorrectionVersion:
    return CorrectionVersion(correction_id, number, correction.sha256, correction, asker.user.id, now(), note)


def _made_for(
    asker: Asker, tx: Transaction, project_id: str, model_id: str | None, sae_id: str | None
) -> tuple[ModelRecord | None, SaeRecord | None]:
    sae = model = None
    if sae_id is not None:
        sae = reach(asker, tx, tx.saes, sae_id, "viewer", UnknownSae, "SAE")
        model_id = model_id or sae.model_id
        if sae.model_id != model_id:
            raise SaeDoesNotFit(
                f"SAE {sae.name!r} was registered for model {sae.model_id}, not for {model_id}"
            )
    if model_id is not None:
        model = reach(asker, tx, tx.models, model_id, "viewer", UnknownModel, "model")
    for record in (sae, model):
        if record is not None and record.project_id != project_id:
            raise SaeDoesNotFit(
                f"{record.name!r} belongs to project {record.project_id}, not to {project_id}"
            )
    return model, sae


def _registered(tx: Transaction, record: CorrectionRecord) -> tuple[ModelRecord | None, SaeRecord | None]:
    try:
        model = None if record.model_id is None else tx.models.get(record.model_id)
    except UnknownModel:  # deleted since; the correction stays
        model = None
    try:
        sae = None if record.sae_id is None else tx.saes.get(record.sae_id)
    except UnknownSae:
        sae = None
    return model, sae


def _check_fits(correction: domain.Correction, model: ModelRecord | None, sae: SaeRecord | None) -> None:
    # Where the weights were never loaded here, steering itself will compare the hashes.
    known = []
    if model is not None and model.info is not None:
        known.append(("model weights", correction.model_sha256, model.info.weights_sha256))
    if sae is not None and sae.info is not None:
        known.append(("SAE weights", correction.sae_sha256, sae.info.weights_sha256))
        known.append(("hook point", correction.hook_point, str(sae.info.hook_point)))
    for what, wanted, got in known:
        if wanted != got:
            raise SaeDoesNotFit(
                f"the correction was made for {what} {wanted}, and the registered ones are {got}"
            )
